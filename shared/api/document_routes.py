"""The API's description at /openapi.json, and at /docs a page to read it and to try it. Neither needs a token: the
description holds nothing of an installation."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from shared.api.pages import environment

router = APIRouter(include_in_schema=False)
# Everything the page needs comes from here, so that it works without the internet, and nothing is inline.
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
MEDIA = {"explorer.js": "text/javascript; charset=utf-8", "explorer.css": "text/css; charset=utf-8"}
FRESH = {"Cache-Control": "no-cache"}


@router.get("/openapi.json")
async def describe(request: Request) -> Response:
    """The API as OpenAPI 3.1."""
    from shared.api.document import document

    return JSONResponse(document(request.app), headers=FRESH)


@router.get("/docs")
async def explorer() -> Response:
    """The page."""
    return HTMLResponse(environment().get_template("explorer.html").render(), headers=SECURITY | FRESH)


@router.get("/docs/explorer.js")
async def script() -> Response:
    """What the page does."""
    return _file("explorer.js")


@router.get("/docs/explorer.css")
async def styles() -> Response:
    """What the page looks like."""
    return _file("explorer.css")


def _file(name: str) -> Response:
    return Response(_read(name), media_type=MEDIA[name], headers=FRESH)


@cache
def _read(name: str) -> bytes:
    return (Path(__file__).parent / "static" / name).read_bytes()
