"""The outbox: what waits, one entry, cancelling (emailengine.md 15)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from shared.api.fields import Page
from shared.api.route import GuardedRoute, Provided, operation, segment
from shared.errors import NotFound

router = APIRouter(route_class=GuardedRoute, tags=["Outbox"])
QueueId = Annotated[str, segment("queueId")]


@router.get("/v1/outbox", openapi_extra=operation("outbox", "read"))
async def list_outbox(query: Annotated[Page, Query()], services: Provided) -> dict[str, Any]:
    """Mails that are not delivered yet, oldest first, and failed ones while they are kept."""
    paging, shown = query.of(await services.outbox.entries())
    return paging | {"messages": shown}


@router.get("/v1/outbox/{queueId}", openapi_extra=operation("outbox", "read"))
async def get_outbox_entry(queue_id: QueueId, services: Provided) -> dict[str, Any]:
    """One queue entry."""
    entry = await services.outbox.entry(queue_id)
    if entry is None:
        raise NotFound("Requested queue entry was not found")
    return entry


@router.delete("/v1/outbox/{queueId}", openapi_extra=operation("outbox", "destructive"))
async def cancel_outbox_entry(queue_id: QueueId, services: Provided) -> dict[str, Any]:
    """Cancels a mail that is still waiting."""
    return {"deleted": await services.outbox.cancel(queue_id)}
