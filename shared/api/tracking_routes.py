"""What links in sent mails lead to: the picture, the way on, and leaving a list (emailengine.md 14.8). Anybody may call
them; the signature in the link says what for."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from shared.api.blocklist_routes import caller_of
from shared.api.pages import page
from shared.api.route import Provided
from shared.errors import Forbidden
from shared.wiring import Services

router = APIRouter(tags=["Tracking"])
PICTURE = base64.b64decode("R0lGODlhAQABAIAAAP///wAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
NOT_KEPT = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex"}
METHODS = ["GET", "HEAD"]
LARGEST_FORM = 64 * 1024


@router.api_route("/open.gif", methods=METHODS, include_in_schema=False)
async def open_picture(request: Request, services: Provided) -> Response:
    """One transparent point; whoever loads it has opened the mail."""
    data, signature = _link(dict(request.query_params))
    if request.method == "GET":
        await services.tracking.was_opened(data, signature, caller_of(request))
    return Response(PICTURE, media_type="image/gif", headers=NOT_KEPT)


@router.api_route("/redirect", methods=METHODS, include_in_schema=False)
async def follow(request: Request, services: Provided) -> Response:
    """The way to where a link of a mail leads. Only to what was signed here."""
    data, signature = _link(dict(request.query_params))
    caller = caller_of(request) if request.method == "GET" else None
    target = await services.tracking.was_clicked(data, signature, caller)
    return RedirectResponse(target, 302, NOT_KEPT)


@router.api_route("/unsubscribe", methods=METHODS, include_in_schema=False)
async def show_unsubscribe(request: Request, services: Provided) -> Response:
    """The page with the button. Looking at it changes nothing: programs that check links look at it, too."""
    return await _page(dict(request.query_params), services)


@router.post("/unsubscribe", include_in_schema=False)
async def unsubscribe(request: Request, services: Provided) -> Response:
    """The button, or a mail program's one click (RFC 8058)."""
    given = dict(request.query_params) | await _form(request)
    try:
        asked = await services.unsubscribing.asked(*_link(given))
    except Forbidden as problem:
        return await _refused(services, problem)
    if given.get("action") == "subscribe":
        await services.unsubscribing.come_back(asked, caller_of(request))
    else:
        await services.unsubscribing.leave(asked, caller_of(request))
    return await _page(given, services)


async def _page(given: dict[str, str], services: Services) -> Response:
    data, signature = _link(given)
    try:
        asked = await services.unsubscribing.asked(data, signature)
    except Forbidden as problem:
        return await _refused(services, problem)
    is_off = await services.unsubscribing.is_off(asked)
    shown: dict[str, Any] = {"recipient": asked["rcpt"], "is_off": is_off, "data": data, "sig": signature}
    return await page(services.service_settings, "unsubscribe.html", **shown)


async def _refused(services: Services, problem: Forbidden) -> Response:
    return await page(services.service_settings, "refused.html", problem.status, text=problem.message)


def _link(given: dict[str, str]) -> tuple[str, str]:
    return given.get("data", ""), given.get("sig", "")


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form; none of one that is too large to be ours."""
    body = await request.body()
    if len(body) > LARGEST_FORM:
        return {}
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        return {}
