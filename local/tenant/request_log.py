"""What reached the tenant: one entry per request on Graph, login and the identity endpoint, and counters."""

from __future__ import annotations

import base64
import re
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .errors import DROPPED, Respond
from .surfaces import Surface, surface_of

if TYPE_CHECKING:
    from .world import World

KEPT_REQUESTS = 20_000
KEPT_BODY_BYTES = 64 * 1024
# graph.md 2.4 and 13.5: headers that tell what a client asked for and which library it is.
KEPT_HEADERS = (
    "Prefer",
    "client-request-id",
    "x-client-sku",
    "x-client-ver",
    "X-AnchorMailbox",
    "Content-Type",
    "Content-Length",
    "Content-Range",
    "If-Match",
    "If-None-Match",
    "ConsistencyLevel",
    "Accept",
    "User-Agent",
)


@dataclass
class LoggedRequest:
    """One request; `status` is 0 when the connection was dropped instead of answered."""

    number: int
    time: datetime
    surface: Surface
    method: str
    path: str
    query: str
    caller: dict[str, str | None] | None
    headers: dict[str, str]
    authorized: bool
    status: int = 0
    duration_ms: float = 0.0
    body: bytes | None = None
    body_size_bytes: int = 0

    def as_json(self) -> dict[str, Any]:
        """The entry for control; the body in base64, None when it was not kept."""
        return {
            "number": self.number,
            "time": self.time.isoformat(),
            "surface": self.surface,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "caller": self.caller,
            "status": self.status,
            "duration_ms": round(self.duration_ms, 2),
            "headers": self.headers,
            "authorized": self.authorized,
            "body_base64": None if self.body is None else base64.b64encode(self.body).decode(),
            "body_size_bytes": self.body_size_bytes,
        }


@dataclass
class RequestLog:
    """The last 20,000 requests, oldest first, and a count per surface since the last `clear()`."""

    entries: deque[LoggedRequest] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))
    counts: dict[str, int] = field(default_factory=lambda: {"graph": 0, "upload": 0, "login": 0, "msi": 0})
    _number: int = 0

    def next_number(self, surface: Surface) -> int:
        """Counts a request of the surface and gives its number."""
        self.counts[surface] += 1
        self._number += 1
        return self._number

    def clear(self) -> None:
        """Forget every entry and set the counts to 0; numbers go on, so `since` stays usable."""
        self.entries.clear()
        self.counts = dict.fromkeys(self.counts, 0)

    def select(
        self,
        surface: str | None = None,
        since: int | datetime | None = None,
        method: str | None = None,
        path: str | None = None,
    ) -> list[LoggedRequest]:
        """Entries that fit every condition; `since`: a number (later) or time (from); `path`: a regex."""
        pattern = re.compile(path) if path else None

        def fits(entry: LoggedRequest) -> bool:
            if since is not None and not _is_since(entry, since):
                return False
            if surface and entry.surface != surface:
                return False
            if method and entry.method != method.upper():
                return False
            return pattern is None or pattern.search(entry.path) is not None

        return [entry for entry in self.entries if fits(entry)]


def _is_since(entry: LoggedRequest, since: int | datetime) -> bool:
    return entry.time >= since if isinstance(since, datetime) else entry.number > since


async def _body(request: web.Request) -> bytes:
    """The body, also when nobody read it; a broken connection gives what there is: nothing."""
    if not request.body_exists:
        return b""
    try:
        return await request.read()
    except (ConnectionError, web.HTTPException, RuntimeError):
        return b""


def _caller(world: World, request: web.Request) -> dict[str, str | None] | None:
    caller = world.login.peek(request.headers.get("Authorization"))
    if caller is None:
        return None
    return {
        "kind": caller.kind,
        "user": caller.principal.upn if caller.principal else None,
        "app": caller.app_id,
    }


def _entry(world: World, request: web.Request, surface: Surface) -> LoggedRequest:
    return LoggedRequest(
        number=world.log.next_number(surface),
        time=world.clock.now(),
        surface=surface,
        method=request.method,
        path=request.path,
        query=request.query_string,
        caller=_caller(world, request),
        headers={name: request.headers[name] for name in KEPT_HEADERS if name in request.headers},
        authorized="Authorization" in request.headers,
    )


def log_requests(world: World) -> Any:
    """Middleware that writes every request to `world.log` after it was answered."""

    @web.middleware
    async def write(request: web.Request, handler: Respond) -> web.StreamResponse:
        surface = surface_of(request.path)
        if surface == "control":
            return await handler(request)
        log, started = world.log, time.perf_counter()
        entry = _entry(world, request, surface)
        try:
            response = await handler(request)
            entry.status = 0 if request.get(DROPPED) else response.status
            return response
        except web.HTTPException as error:
            entry.status = error.status
            raise
        finally:
            body = await _body(request)
            entry.body = body[:KEPT_BODY_BYTES] if world.switches.capture_bodies else None
            entry.body_size_bytes = len(body)
            entry.duration_ms = (time.perf_counter() - started) * 1000
            log.entries.append(entry)

    return write
