"""The fault switchboard: throttling, slow answers, errors before or after the work, dropped connections.

graph.md 15 item 9 lists the knobs; the wire forms come from 9.1 and 11.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from aiohttp import web

from .errors import BEARER_CHALLENGE, DROPPED, GraphError, Respond
from .surfaces import mailbox_reference, surface_of

if TYPE_CHECKING:
    from .world import World

# Code and message when a rule names only the status (graph.md 2.3, 9.1, 11).
DEFAULTS: dict[int, tuple[str, str]] = {
    401: ("InvalidAuthenticationToken", "Lifetime validation failed, the token is expired."),
    403: ("ErrorAccessDenied", "Access is denied. Check credentials and try again."),
    404: ("ErrorItemNotFound", "The specified object was not found in the store."),
    410: ("SyncStateNotFound", "The sync state generation is not found."),
    429: ("TooManyRequests", "Please retry again later."),
    500: ("ErrorInternalServerError", "An internal server error occurred. The operation failed."),
    503: ("ErrorMailboxStoreUnavailable", "The mailbox database is temporarily unavailable."),
    504: ("ErrorServerBusy", "The server cannot service this request right now. Try again later."),
}
ACTION_KEYS = {"status", "code", "message", "retry_after", "headers", "delay_s", "drop", "after"}
MATCH_KEYS = {"method", "path_regex", "query_regex", "mailbox"}


@dataclass
class FaultRule:
    """One rule: which requests, how often (`times` None = always), how probably, and what happens."""

    id: str
    match: dict[str, str] = field(default_factory=dict)
    action: dict[str, Any] = field(default_factory=dict)
    times: int | None = 1
    probability: float = 1.0
    applied: int = 0


def check_rule(match: dict[str, Any], action: dict[str, Any]) -> None:
    """Raises ValueError for a rule that could not do anything."""
    unknown = (set(match) - MATCH_KEYS) | (set(action) - ACTION_KEYS)
    if unknown:
        raise ValueError(f"unknown in a fault rule: {', '.join(sorted(unknown))}")
    if not action:
        raise ValueError("a fault rule needs an action")
    if "after" in action:
        check_rule({}, action["after"])
    re.compile(str(match.get("path_regex", "")))
    re.compile(str(match.get("query_regex", "")))


class Faults:
    """The active rules, and the count of requests in flight per application and mailbox."""

    def __init__(self, world: World) -> None:
        self.rules: list[FaultRule] = []
        self._world = world
        self._in_flight: Counter[tuple[str, str]] = Counter()
        self._numbers = 0

    def add(
        self,
        match: dict[str, str],
        action: dict[str, Any],
        times: int | None = 1,
        probability: float = 1.0,
    ) -> FaultRule:
        """The new rule, active at once; raises ValueError when it makes no sense."""
        check_rule(match, action)
        self._numbers += 1
        rule = FaultRule(f"fault-{self._numbers}", dict(match), dict(action), times, probability)
        self.rules.append(rule)
        return rule

    def remove(self, rule_id: str | None = None) -> int:
        """How many rules were removed: the one named, or all."""
        before = len(self.rules)
        self.rules = [rule for rule in self.rules if rule_id is not None and rule.id != rule_id]
        return before - len(self.rules)

    def dump(self) -> list[dict[str, Any]]:
        """The rules as JSON, with how often each was applied."""
        return [asdict(rule) for rule in self.rules]

    def take(self, method: str, path: str, mailbox_id: str | None, query: str = "") -> dict[str, Any]:
        """The action of the first rule that fits, counted as applied; {} when none does."""
        for rule in self.rules:
            used_up = rule.times is not None and rule.applied >= rule.times
            if used_up or not self._fits(rule.match, method, path, mailbox_id, query):
                continue
            if rule.probability < 1 and self._world.random.random() >= rule.probability:
                continue
            rule.applied += 1
            return rule.action
        return {}

    @staticmethod
    def refuse(action: dict[str, Any]) -> None:
        """Raises the GraphError of an action; for a part of a batch, which has no connection of its own."""
        if "status" in action:
            _failure(action, "graph")

    def _fits(self, match: dict[str, str], method: str, path: str, mailbox_id: str | None, query: str) -> bool:
        if "method" in match and match["method"].upper() != method:
            return False
        if "path_regex" in match and not re.search(match["path_regex"], path):
            return False
        if "query_regex" in match and not re.search(match["query_regex"], query):
            return False
        if "mailbox" not in match:
            return True
        wanted = self._world.directory.find(match["mailbox"])
        return mailbox_id is not None and wanted is not None and wanted.id == mailbox_id

    @asynccontextmanager
    async def slot(self, app_id: str | None, mailbox_id: str | None) -> AsyncIterator[None]:
        """A place among the requests in flight of this application on this mailbox.

        Raises GraphError 429 when all are taken (graph.md 11: 4 per app and mailbox).
        """
        limit = self._world.switches.concurrency_limit
        if not limit or app_id is None or mailbox_id is None:
            yield
            return
        key = (app_id, mailbox_id)
        if self._in_flight[key] >= limit:
            message = "Application is over its MailboxConcurrency limit."
            raise GraphError(429, "ApplicationThrottled", message, {"Retry-After": "1"})
        self._in_flight[key] += 1
        try:
            yield
        finally:
            self._in_flight[key] -= 1

    def mailbox_of(self, request: web.Request) -> tuple[str | None, str | None]:
        """(application id, mailbox id) a Graph request counts for; None where it cannot be told."""
        caller = self._world.login.peek(request.headers.get("Authorization"))
        reference = mailbox_reference(request.path)
        if reference == "me":
            mailbox = caller.principal if caller else None
        else:
            mailbox = self._world.directory.find(reference) if reference else None
        return (caller.app_id if caller else None), (mailbox.id if mailbox else None)


def _counts_for(world: World, request: web.Request, surface: str) -> tuple[str | None, str | None]:
    if surface == "upload":
        return world.mail.uploads.owner(request.query.get("authtoken"))
    return world.faults.mailbox_of(request) if surface == "graph" else (None, None)


def _failure(action: dict[str, Any], surface: str) -> web.Response:
    """The error a rule asks for: Graph's JSON through GraphError, elsewhere a plain login-style answer."""
    status = int(action["status"])
    code, message = DEFAULTS.get(status, ("UnknownError", "The request failed."))
    code, message = action.get("code", code), action.get("message", message)
    headers = {str(k): str(v) for k, v in (action.get("headers") or {}).items()}
    if action.get("retry_after") is not None:
        headers["Retry-After"] = str(action["retry_after"])
    if surface in ("graph", "upload"):
        if status == 401:
            headers.setdefault("WWW-Authenticate", BEARER_CHALLENGE)
        raise GraphError(status, code, message, headers, _inner(status, code))
    body = {"error": action.get("code", "temporarily_unavailable"), "error_description": message}
    return web.json_response(body, status=status, headers=headers)


def _inner(status: int, code: str) -> dict[str, Any]:
    # graph.md 11: only the TooManyRequests form nests these.
    return (
        {"code": "429", "message": "Please retry after", "status": "429"} if code == "TooManyRequests" else {}
    )


def _drop(request: web.Request) -> web.Response:
    """Close the connection without an answer; the response returned here reaches nobody."""
    request[DROPPED] = True
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=444)


async def _before(request: web.Request, action: dict[str, Any], surface: str) -> web.Response | None:
    if action.get("delay_s"):
        await asyncio.sleep(float(action["delay_s"]))
    if action.get("drop"):
        return _drop(request)
    return _failure(action, surface) if "status" in action else None


def apply_faults(world: World) -> Any:
    """Middleware: the concurrency rule, then the first fitting fault rule, around the work itself."""

    @web.middleware
    async def disturb(request: web.Request, handler: Respond) -> web.StreamResponse:
        surface = surface_of(request.path)
        if surface == "control":
            return await handler(request)
        app_id, mailbox_id = _counts_for(world, request, surface)
        if surface == "upload" or request.method in ("POST", "PATCH", "PUT"):
            world.mail.uploads.count(app_id, mailbox_id, request.content_length or 0)
        async with world.faults.slot(app_id, mailbox_id):
            action = world.faults.take(request.method, request.path, mailbox_id, unquote_plus(request.query_string))
            failure = await _before(request, action, surface)
            if failure is not None:
                return failure
            response = await handler(request)
            if "after" in action:
                return await _before(request, action["after"], surface) or response
            return response

    return disturb
