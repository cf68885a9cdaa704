"""Webhook routes: the contract's list, and our way to define them (emailengine.md 19.1)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from shared.accounts import MASK, masked_url
from shared.api.fields import Input, Page
from shared.api.route import GuardedRoute, Provided, operation, segment
from shared.api.webhook_routing_schemas import RouteCreate, RouteUpdate
from shared.onboarding import unmasked_headers, unmasked_url
from shared.webhook_routing import Route
from shared.webhook_target import target_of
from shared.wiring import Services

router = APIRouter(route_class=GuardedRoute, tags=["Webhooks"])
RouteId = Annotated[str, segment("webhookRoute")]
ITEM = "/v1/webhookRoutes/webhookRoute/{webhookRoute}"
_SHOWN = ("id", "name", "description", "created", "updated", "enabled")


@router.get("/v1/webhookRoutes", openapi_extra=operation("webhook", "read"))
async def list_routes(query: Annotated[Page, Query()], services: Provided) -> dict[str, Any]:
    """Every route, oldest first."""
    paging, shown = query.of(await services.webhook_routes.all())
    counts = await services.event_counters.of_routes() if shown else {}
    return paging | {"webhooks": [await _view(route, counts, services) for route in shown]}


@router.get(ITEM, openapi_extra=operation("webhook", "read"))
async def get_route(route_id: RouteId, services: Provided) -> dict[str, Any]:
    """One route. There is no code in it: `content` is always empty, `filter` says what it lets through."""
    route = await services.webhook_routes.get(route_id)
    view = await _view(route, await services.event_counters.of_routes(), services)
    return view | {"v": route["v"], "content": {"fn": "", "map": ""}}


# Of group admin: a route leads the mail of every account to a place of its own.
@router.post("/v1/webhookRoutes/webhookRoute", openapi_extra=operation("admin", "write"))
async def create_route(body: RouteCreate, services: Provided) -> dict[str, Any]:
    """Defines a route."""
    fields = body.model_dump()
    await services.addresses.check("targetUrl", body.targetUrl)
    fields["targetUrl"] = unmasked_url(body.targetUrl, None, "targetUrl")
    fields["customHeaders"] = unmasked_headers(fields["customHeaders"], [])
    return {"id": await services.webhook_routes.create(fields), "created": True}


@router.put(ITEM, openapi_extra=operation("admin", "write"))
async def update_route(route_id: RouteId, body: RouteUpdate, services: Provided) -> dict[str, Any]:
    """Changes the given fields only; a masked URL or header value is left as it is."""
    stored = await services.webhook_routes.get(route_id)
    fields = {name: value for name, value in _given(body).items() if value is not None or name == "description"}
    if "targetUrl" in fields:
        fields["targetUrl"] = unmasked_url(fields["targetUrl"], stored["targetUrl"], "targetUrl")
        await services.addresses.check("targetUrl", fields["targetUrl"])
    if "customHeaders" in fields:
        fields["customHeaders"] = unmasked_headers(fields["customHeaders"], stored["customHeaders"])
    await services.webhook_routes.update(route_id, fields)
    return {"id": route_id, "updated": True}


@router.delete(ITEM, openapi_extra=operation("admin", "destructive"))
async def delete_route(route_id: RouteId, services: Provided) -> dict[str, Any]:
    """Ends a route at once; what is on its way to it is dropped."""
    deleted = await services.webhook_routes.delete(route_id)
    if deleted:
        await services.event_counters.forget_route(route_id)
    return {"id": route_id, "deleted": deleted}


def _given(body: Input) -> dict[str, Any]:
    """The given fields, those inside `filter` whole."""
    whole = body.model_dump()
    return {name: whole[name] for name in body.model_fields_set}


async def _view(route: Route, counts: dict[str, int], services: Services) -> dict[str, Any]:
    health = await services.endpoints.health(target_of(route["targetUrl"], []).endpoint)
    error = health.value.get("lastError")
    flag = {"event": error.get("event"), "message": error["reason"], "time": error["date"]} if error else None
    return {name: route.get(name) for name in _SHOWN} | {
        "targetUrl": masked_url(route["targetUrl"]),
        "tcount": counts.get(route["id"], 0),
        "webhookErrorFlag": flag,
        "customHeaders": [{"key": header["key"], "value": MASK} for header in route["customHeaders"]],
        "filter": route["filter"],
    }
