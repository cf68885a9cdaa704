"""Statistics, log lines of accounts, and the feed of changes (emailengine.md 19.2 to 19.4)."""

from __future__ import annotations

import platform
from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, Response

from shared import __version__
from shared.accounts import shown_state
from shared.api.around_schemas import StatsQuery
from shared.api.route import AccountPath, GuardedRoute, Provided, operation
from shared.wiring import Services

router = APIRouter(route_class=GuardedRoute, tags=["Diagnostics"])
STATES = (
    "init connected connecting syncing authenticationError connectError unset disconnected paused unassigned"
).split()
QUEUES = {"notify": "webhooks", "submit": "outbox"}
MANY, COUNTED_FOR_S = 1000, 60.0


class _Census:
    """Counts accounts by state. Of many accounts the numbers are kept for a minute, since each is read for them."""

    def __init__(self) -> None:
        self._kept: tuple[float, Counter[str]] | None = None

    async def states(self, services: Services) -> Counter[str]:
        now = services.clock().timestamp()
        if self._kept is None or not self._kept[0] <= now < self._kept[0] + COUNTED_FOR_S:
            found = Counter([shown_state(record, None)[0] async for record in services.accounts.all()])
            self._kept = (now, found) if found.total() > MANY else None
            return found
        return self._kept[1]


census = _Census()


@router.get("/v1/stats", openapi_extra=operation("diagnostics", "read"))
async def read_stats(query: Annotated[StatsQuery, Query()], services: Provided) -> dict[str, Any]:
    """The service at a glance. `counters` are those of the last `seconds`, to the minute."""
    states = await census.states(services)
    return {
        "version": __version__,
        "license": "MIT",
        "accounts": states.total(),
        "node": f"Python {platform.python_version()}",
        "redis": "Azure Table Storage",
        "connections": {state: states.get(state, 0) for state in STATES},
        "counters": await services.service_counters.totals(query.seconds),
        "queues": await _queues(services),
        "build": __version__,
        "arch": platform.machine(),
    }


async def _queues(services: Services) -> dict[str, Any]:
    """One number for each: a storage queue tells what waits, is delayed and is worked on together."""
    shown: dict[str, Any] = {"documents": {"active": 0, "delayed": 0, "waiting": 0, "paused": 0, "total": 0}}
    for name, queue in QUEUES.items():
        length, paused = await services.queues.length(queue), await services.gate.is_paused(queue)
        waits = {"waiting": 0 if paused else length, "paused": length if paused else 0}
        shown[name] = {"active": 0, "delayed": 0} | waits | {"total": length}
    return shown


@router.get("/v1/logs/{account}", openapi_extra=operation("logs", "read"), response_class=PlainTextResponse)
async def read_logs(account: AccountPath, services: Provided) -> PlainTextResponse:
    """The log lines of an account that has `logs: true`, oldest first, one JSON object each."""
    lines = await services.account_logs.lines(account)
    return PlainTextResponse("\n".join([*lines, ""]) if lines else f"No logs found for {account}")


EVENTS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


@router.get("/v1/changes", openapi_extra=operation("events", "read"), response_class=Response, responses=EVENTS)
async def read_changes(request: Request, services: Provided) -> Response:
    """Changes of accounts' states as `text/event-stream`: what came after `Last-Event-ID`, or comes within
    CHANGES_HOLD_SECONDS. Then the answer ends, and an EventSource asks again by itself."""
    text = await services.change_feed.wait(request.headers.get("last-event-id"))
    return Response(text, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
