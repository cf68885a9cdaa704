"""OAuth2 applications (emailengine.md 8)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from shared.accounts import MASK
from shared.api.fields import Page
from shared.api.route import GuardedRoute, Provided, operation, segment
from shared.api.schemas import Oauth2AppCreate, Oauth2AppUpdate

router = APIRouter(route_class=GuardedRoute, tags=["OAuth2 Applications"])
AppId = Annotated[str, segment("app")]


@router.get("/v1/oauth2", openapi_extra=operation("admin", "read"))
async def list_apps(query: Annotated[Page, Query()], services: Provided) -> dict[str, Any]:
    """Every application, the one from the service's settings first."""
    paging, shown = query.of(await services.apps.views())
    return paging | {"apps": shown}


@router.get("/v1/oauth2/{app}", openapi_extra=operation("admin", "read"))
async def get_app(app: AppId, services: Provided) -> dict[str, Any]:
    """One application and the number of its accounts."""
    view = await services.apps.view(app)
    return view | {"accounts": await _accounts_of(app, services)}


@router.post("/v1/oauth2", openapi_extra=operation("admin", "write"))
async def create_app(body: Oauth2AppCreate, services: Provided) -> dict[str, Any]:
    """Registers an application."""
    return {"id": await services.apps.create(body.given()), "created": True}


@router.put("/v1/oauth2/{app}", openapi_extra=operation("admin", "write"))
async def update_app(app: AppId, body: Oauth2AppUpdate, services: Provided) -> dict[str, Any]:
    """Changes the given fields only."""
    fields = body.given()
    if fields.get("clientSecret") == MASK:
        del fields["clientSecret"]  # written back as it was read: unchanged
    await services.apps.update(app, fields)
    if fields.get("clientSecret"):
        await _try_again(app, services)
    return {"id": app, "updated": True}


@router.delete("/v1/oauth2/{app}", openapi_extra=operation("admin", "destructive"))
async def delete_app(app: AppId, services: Provided) -> dict[str, Any]:
    """Removes an application; its accounts stay, of type `oauth2`."""
    accounts = await _accounts_of(app, services)
    await services.apps.delete(app)
    return {"id": app, "deleted": True, "accounts": accounts}


async def _try_again(app: str, services: Provided) -> None:
    """Accounts that were refused, perhaps for the secret that has just been replaced, need not wait their turn."""
    async for record in services.accounts.all():
        waits = record["state"] in ("authenticationError", "connectError")
        if waits and (record.get("reach") or {}).get("app") == app:
            await services.accounts.queue_job(record["account"], "initialise")


async def _accounts_of(app: str, services: Provided) -> int:
    return len([1 async for record in services.accounts.all() if (record.get("oauth2") or {}).get("provider") == app])
