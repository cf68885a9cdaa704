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
from shared.service_settings import SECRET, WITH_PASSWORD
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
    if key in WITH_PASSWORD and value:
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
    given = body.given()
    current = await services.service_settings.all()
    # A secret's mask stands for what is stored, or for nothing: either way nothing changes.
    changes = {
        key: _unmasked(key, value, current.get(key))
        for key, value in given.items()
        if not (key in SECRET and value == MASK)
    }
    await services.addresses.check("webhooks", changes.get("webhooks"))
    await services.service_settings.write(changes)
    return {"updated": list(given)}


def _unmasked(key: str, value: Any, stored: Any) -> Any:
    """The value to store: masks that stand for stored values are replaced, others are errors (1.7)."""
    if key in WITH_PASSWORD:
        return unmasked_url(value, stored, key) or None
    if key == "webhooksCustomHeaders" and value:
        return unmasked_headers(value, stored or [])
    return value
