"""The few pages a person sees: app choice, success, failure. Jinja2 with autoescape, loaded on first use."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi.responses import HTMLResponse

from shared.service_settings import ServiceSettings

if TYPE_CHECKING:
    from jinja2 import Environment

# Pages hold no scripts; forms may post here and be redirected on to the login service.
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src https: data:; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@cache
def environment() -> Environment:
    """The templates of this folder."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


async def page(settings: ServiceSettings, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page with the service's branding."""
    known = await settings.all()
    branding = {
        "brand": known.get("pageBrandName") or "Graphpost",
        "header": known.get("templateHeader") or "",
        "head": known.get("templateHtmlHead") or "",
    }
    text = environment().get_template(template).render(**branding, **values)
    return HTMLResponse(text, status, SECURITY)
