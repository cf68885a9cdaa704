"""Webhook routes: further targets for events, each with a filter of its own (emailengine.md 19.1).

A route's filter is data, not code: which events, accounts, folders. The definitions lie in the sealed record of the
service's settings, since URLs and headers are secrets: every process has them at hand without asking for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from shared.clock import Clock, iso
from shared.errors import ApiError, NotFound
from shared.service_settings import ServiceSettings
from shared.storage.keys import document_id

SETTING = "webhook routes"  # a space: no caller can write it over /v1/settings
MOST = 50
LARGEST = 200_000  # bytes of all definitions together: they are read with the settings
Route = dict[str, Any]


def fits(route: Route, envelope: dict[str, Any]) -> bool:
    """Whether a route wants an event. What an event does not have, such as a path, fits no filter that asks for it."""
    wanted, data = route.get("filter") or {}, envelope.get("data") or {}
    special_use = data.get("messageSpecialUse") or envelope.get("specialUse")
    return bool(
        route.get("enabled")
        and _has(wanted.get("events"), envelope["event"])
        and _has(wanted.get("accounts"), envelope["account"])
        and _has(wanted.get("specialUses"), special_use)
        and (_has(wanted.get("paths"), envelope.get("path")) or _is_inbox(wanted.get("paths"), special_use))
    )


def _has(wanted: list[str] | None, value: str | None) -> bool:
    """An empty list asks for nothing in particular."""
    return not wanted or "*" in wanted or value in wanted


def _is_inbox(wanted: list[str] | None, special_use: str | None) -> bool:
    """`INBOX` is the inbox, whatever its name in the mailbox's language."""
    return special_use == "\\Inbox" and any(path.upper() == "INBOX" for path in wanted or ())


class WebhookRoutes:
    """Reads and writes the definitions."""

    def __init__(self, settings: ServiceSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock

    async def all(self) -> list[Route]:
        """Every route, oldest first. No transaction beyond that of the settings."""
        return list((await self._settings.all()).get(SETTING) or ())

    async def find(self, route_id: str) -> Route | None:
        """One route, or None."""
        return next((route for route in await self.all() if route["id"] == route_id), None)

    async def get(self, route_id: str) -> Route:
        """One route; NotFound."""
        found = await self.find(route_id)
        if found is None:
            raise _not_found()
        return found

    async def wanting(self, envelope: dict[str, Any]) -> list[str]:
        """The ids of the routes that want an event."""
        return [route["id"] for route in await self.all() if fits(route, envelope)]

    async def create(self, fields: Route) -> str:
        """Stores a new route; its id."""
        now, route_id = iso(self._clock()), document_id()
        made = {"enabled": False, **fields, "id": route_id, "created": now, "updated": now, "v": 1}

        def add(routes: list[Route]) -> list[Route]:
            if len(routes) >= MOST:
                raise ApiError(400, f"There are {MOST} webhook routes already, which is the most", "TooManyRoutes")
            return [*routes, made]

        await self._change(add)
        return route_id

    async def update(self, route_id: str, fields: Route) -> None:
        """Changes the given fields only; NotFound."""

        def merge(routes: list[Route]) -> list[Route]:
            if all(route["id"] != route_id for route in routes):
                raise _not_found()
            return [route if route["id"] != route_id else self._merged(route, fields) for route in routes]

        await self._change(merge)

    def _merged(self, route: Route, fields: Route) -> Route:
        merged = route | fields | {"updated": iso(self._clock()), "v": route["v"] + 1}
        return {name: value for name, value in merged.items() if value is not None}

    async def delete(self, route_id: str) -> bool:
        """True when a route was removed. What is on its way to it is dropped."""
        removed = False

        def drop(routes: list[Route]) -> list[Route]:
            nonlocal removed
            kept = [route for route in routes if route["id"] != route_id]
            removed = removed or len(kept) < len(routes)
            return kept

        await self._change(drop)
        return removed

    async def _change(self, mutate: Callable[[list[Route]], list[Route]]) -> None:
        def apply(settings: dict[str, Any]) -> dict[str, Any]:
            routes = mutate(settings.get(SETTING) or [])
            if len(json.dumps(routes)) > LARGEST:
                raise ApiError(413, "The webhook routes together are too large to be stored", "RecordTooLarge")
            return settings | {SETTING: routes or None}

        await self._settings.change(apply)


def _not_found() -> NotFound:
    return NotFound("Document was not found", "NotFound")
