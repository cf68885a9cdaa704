"""What became of webhooks: dead letters, replays, and how their endpoints are doing."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from shared.api.fields import Page
from shared.api.route import GuardedRoute, Provided, operation, segment
from shared.api.schemas import DeadLetters, Replay
from shared.errors import NotFound

router = APIRouter(route_class=GuardedRoute, tags=["Webhooks"])
EventId = Annotated[str, segment("event")]
EndpointId = Annotated[str, segment("endpoint")]
NO_LETTER = "Requested dead letter was not found"


@router.get("/v1/webhooks/dead", openapi_extra=operation("webhook", "read"))
async def list_dead_letters(query: Annotated[DeadLetters, Query()], services: Provided) -> dict[str, Any]:
    """Events that could not be delivered, in the order in which they happened."""
    paging, shown = query.of(await services.undelivered.dead(query.account))
    return paging | {"events": shown}


@router.get("/v1/webhooks/dead/{event}", openapi_extra=operation("webhook", "read"))
async def get_dead_letter(event: EventId, services: Provided) -> dict[str, Any]:
    """One of them, with what would have been sent."""
    found = await services.undelivered.find(event)
    if found is None:
        raise NotFound(NO_LETTER)
    return found


@router.post("/v1/webhooks/dead/{event}/replay", openapi_extra=operation("webhook", "write"))
async def replay_dead_letter(event: EventId, services: Provided) -> dict[str, Any]:
    """Delivers one again, under the same event id."""
    if not await services.undelivered.replay_one(event):
        raise NotFound(NO_LETTER)
    return {"replayed": 1}


@router.delete("/v1/webhooks/dead/{event}", openapi_extra=operation("webhook", "destructive"))
async def delete_dead_letter(event: EventId, services: Provided) -> dict[str, Any]:
    """Drops one with its payload."""
    return {"deleted": await services.undelivered.discard(event)}


@router.post("/v1/webhooks/replay", openapi_extra=operation("webhook", "write"))
async def replay_dead_letters(body: Replay, services: Provided) -> dict[str, Any]:
    """Delivers many again. `replayed` counts those of this call; with `more` a job goes on with the rest."""
    replayed, more = await services.undelivered.replay(account=body.account, endpoint=body.endpoint, since=body.since)
    return {"replayed": replayed, "more": more}


@router.get("/v1/webhooks/endpoints", openapi_extra=operation("webhook", "read"))
async def list_endpoints(query: Annotated[Page, Query()], services: Provided) -> dict[str, Any]:
    """Every target of the last month: whether it answers, since when not, and what went wrong last."""
    paging, shown = query.of(await services.endpoints.all())
    held = await services.undelivered.held()
    views = [services.endpoints.view(health, held.get(health.endpoint, 0)) for health in shown]
    return paging | {"endpoints": views}


@router.post("/v1/webhooks/endpoints/{endpoint}/resume", openapi_extra=operation("webhook", "write"))
async def resume_endpoint(endpoint: EndpointId, services: Provided) -> dict[str, Any]:
    """Ends the pause of an endpoint; what was held for it is delivered."""
    resumed = await services.endpoints.resume(endpoint)
    if resumed is None:
        raise NotFound("Requested webhook endpoint was not found")
    if resumed:
        await services.undelivered.start_release(endpoint)
    return {"resumed": resumed}
