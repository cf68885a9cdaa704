"""What an operator does about KEY_RING: sealing everything anew, and settings that can not be read any more."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import StringConstraints

from shared.accounts import MASK
from shared.api.route import GuardedRoute, Provided, operation
from shared.api.schemas import SettingsBody
from shared.errors import InvalidInput

router = APIRouter(route_class=GuardedRoute, tags=["Settings"])


class Recovery(SettingsBody):
    """The settings to start anew with. Every signature hangs on the service secret, so it must be said."""

    serviceSecret: Annotated[str, StringConstraints(min_length=1, max_length=1024)]


@router.get("/v1/settings/reseal", openapi_extra=operation("admin", "read"))
async def read_resealing(services: Provided) -> dict[str, Any]:
    """How far the sealing under the newest key has come, and how many values are under which key."""
    return await services.resealing.progress()


@router.post("/v1/settings/reseal", openapi_extra=operation("admin", "write"))
async def start_resealing(services: Provided) -> dict[str, Any]:
    """Starts to seal everything under the newest key; one that runs already goes on."""
    return await services.resealing.start()


@router.post("/v1/settings/recover", openapi_extra=operation("admin", "write"), responses={409: {}})
async def recover_settings(body: Recovery, services: Provided) -> dict[str, Any]:
    """Starts anew with the given settings where the stored ones can not be read: their key is lost, or the record
    is damaged. 409 where they can."""
    values = {name: value for name, value in body.given().items() if value is not None}
    for name, value in values.items():
        if MASK in str(value):
            raise InvalidInput.field(name, f'"{name}" holds a masked value, but nothing stored can be read')
    await services.service_settings.recover(values)
    return {"updated": list(values)}
