"""Hosted sign-in: the signed link, the page behind it, and the callback (emailengine.md 7)."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from shared.api.pages import page
from shared.api.route import GuardedRoute, Provided, operation
from shared.api.schemas import AuthenticationForm, SetupLink
from shared.consent import BLOB_KEYS, Mismatch, PageError
from shared.errors import ApiError, CredentialError
from shared.wiring import Services

router = APIRouter(tags=["Authentication"])
guarded = APIRouter(route_class=GuardedRoute)


@guarded.post("/v1/authentication/form", openapi_extra=operation("admin", "write"))
async def authentication_form(body: AuthenticationForm, services: Provided) -> dict[str, Any]:
    """A signed link that lets a person connect a mailbox."""
    return {"url": await services.consent.form_url(body.given())}


router.include_router(guarded)


@router.get("/accounts/new", include_in_schema=False)
async def open_form(request: Request, services: Provided) -> Response:
    """The page behind a signed link."""
    return await _form(dict(request.query_params), services)


@router.post("/accounts/new", include_in_schema=False)
async def choose_app(request: Request, services: Provided) -> Response:
    """The choice of an app on that page."""
    text = (await request.body()).decode("utf-8", "replace")
    return await _form(dict(parse_qsl(text, keep_blank_values=True)), services)


async def _form(given: dict[str, str], services: Services) -> Response:
    data, signature = given.get("data", ""), given.get("sig", "")
    try:
        blob = _checked(await services.consent.open_link(data, signature))
        app = await services.apps.resolve(given.get("type"))
        offered = await services.consent.offered_apps()
        if app is None or not app.enabled:
            if len(offered) != 1:
                return await page(
                    services.service_settings, "choose.html", apps=offered, data=data, sig=signature,
                    mailbox=blob.get("email") or "",
                )  # fmt: skip
            app = offered[0]
        return RedirectResponse(await services.consent.begin_form(blob, app), 302)
    except PageError as problem:
        return await _failed(services, problem.status, problem.text)
    except CredentialError as failure:
        return await _failed(services, 503 if failure.transient else 400, str(failure))
    except ApiError as failure:
        return await _failed(services, failure.status, failure.message)


def _checked(blob: dict[str, Any]) -> dict[str, Any]:
    """The set-up with every field as the form itself would take it: a signed link may be made by a client."""
    given = {name: blob[name] for name in BLOB_KEYS if name in blob and name not in ("n", "t")}
    try:
        fields = SetupLink.model_validate(given).given()
    except ValidationError:
        raise PageError(400, "Invalid request. Check your input and try again.") from None
    return fields | {name: blob[name] for name in ("n", "t") if name in blob}


@router.get("/oauth", include_in_schema=False)
async def callback(request: Request, services: Provided) -> Response:
    """Where Microsoft sends the browser back to."""
    try:
        created, target = await services.consent.callback(dict(request.query_params))
    except Mismatch as mismatch:
        return await page(
            services.service_settings, "mismatch.html", 403,
            expected=mismatch.expected, actual=mismatch.actual, retry=mismatch.retry,
        )  # fmt: skip
    except PageError as problem:
        description = problem.detail or request.query_params.get("error_description", "")
        return await _failed(services, problem.status, problem.text, description)
    except CredentialError as failure:
        return await _failed(services, 503 if failure.transient else 400, str(failure))
    except ApiError as failure:
        return await _failed(services, failure.status, failure.message)
    return await page(services.service_settings, "done.html", account=created["account"], target=target)


async def _failed(services: Services, status: int, text: str, description: str = "") -> Response:
    return await page(services.service_settings, "failed.html", status, text=text, description=description)
