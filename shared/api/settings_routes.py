"""The service's settings (emailengine.md 17)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from shared.accounts import MASK, masked_url
from shared.api.fields import boolean
from shared.api.route import GuardedRoute, Provided, operation
from shared.api.schemas import SettingsBody
from shared.errors import InvalidInput
from shared.events import EVENT_TYPES
from shared.onboarding import unmasked_headers, unmasked_url
from shared.service_settings import SECRET
from shared.wiring import Services

router = APIRouter(route_class=GuardedRoute, tags=["Settings"])
KEYS = tuple(SettingsBody.model_fields)


async def _shown(key: str, services: Services) -> Any:
    value = (await services.service_settings.all()).get(key)
    if key == "serviceSecretOld":
        return await services.service_settings.old_secret() is not None
    if key in SECRET:
        return bool(value)
    if key == "serviceUrl":
        return await services.service_settings.service_url() or None
    if key == "webhooks" and value:
        return masked_url(value)
    if key == "webhooksCustomHeaders" and value:
        return [{"key": header["key"], "value": MASK} for header in value]
    return value


@router.get("/v1/settings", openapi_extra=operation("admin", "read", names_in_query=True))
async def read_settings(request: Request, services: Provided) -> dict[str, Any]:
    """Just the keys asked for with `?key=true`."""
    wanted: list[str] = []
    wrong: list[dict[str, str]] = []
    for key, text in request.query_params.items():
        try:
            if key not in KEYS and key != "eventTypes":
                raise ValueError("is not allowed")
            if boolean(text):
                wanted.append(key)
        except ValueError as problem:
            wrong.append({"message": f'"{key}" {problem}', "key": key})
    if wrong:
        raise InvalidInput(wrong)
    shown = {key: await _shown(key, services) for key in wanted if key != "eventTypes"}
    return shown | ({"eventTypes": list(EVENT_TYPES)} if "eventTypes" in wanted else {})


@router.post("/v1/settings", openapi_extra=operation("admin", "write"))
async def write_settings(body: SettingsBody, services: Provided) -> dict[str, Any]:
    """Changes the given keys; null removes one."""
    changes = body.given()
    current = await services.service_settings.all()
    for key, value in list(changes.items()):
        if key == "webhooks":
            changes[key] = unmasked_url(value, current.get(key)) or None
            await services.addresses.check(key, changes[key])
        elif key == "webhooksCustomHeaders" and value:
            changes[key] = unmasked_headers(value, current.get(key) or [])
        elif key in SECRET and value == MASK:
            del changes[key]
    await services.service_settings.write(changes)
    return {"updated": list(body.given())}
