"""Carries a request of the Functions host into the FastAPI app and its answer back."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shared.errors import ApiError
from shared.settings import SettingsError

if TYPE_CHECKING:
    import azure.functions as func

log = logging.getLogger("graphpost.api")
LARGEST_BODY = 50 * 1024 * 1024
_middleware: Any = None


async def answer(req: func.HttpRequest, context: func.Context | None) -> func.HttpResponse:
    """The API's answer. The app is built on the first call in a process."""
    import azure.functions as func

    if len(req.get_body() or b"") > LARGEST_BODY:
        envelope = ApiError(413, f"Payload content length greater than maximum allowed: {LARGEST_BODY}").envelope()
        return func.HttpResponse(json.dumps(envelope), status_code=413, mimetype="application/json")
    try:
        response: func.HttpResponse = await _app().handle_async(_with_encoded_path(req), context)
    except SettingsError as problem:
        log.error("graphpost.settings.refused: %s", problem)
        text = "The service is not configured. Its log names every setting that is missing or wrong."
        envelope = ApiError(503, text, code="NotConfigured").envelope()
        return func.HttpResponse(json.dumps(envelope), status_code=503, mimetype="application/json")
    except Exception:
        # Starlette raises what no handler expects, even where one is added for it; the host would then answer
        # with nothing at all.
        log.exception("unexpected failure of a request")
        envelope = ApiError(500, "An internal server error occurred").envelope()
        return func.HttpResponse(json.dumps(envelope), status_code=500, mimetype="application/json")
    return response


def _app() -> Any:
    global _middleware
    if _middleware is None:
        import azure.functions as func

        from shared.api.app import create_app
        from shared.wiring import services

        _middleware = func.AsgiMiddleware(create_app(services()))  # type: ignore[no-untyped-call]
    return _middleware


def _with_encoded_path(req: func.HttpRequest) -> func.HttpRequest:
    """The request with its path percent-encoded once more.

    AsgiMiddleware decodes the whole path before it is split, which makes `a%2Fb` two segments and a path that is
    not UTF-8 an exception. Encoded twice, the app sees the path as it was sent, and decodes each segment once.
    """
    import azure.functions as func

    scheme, _, rest = req.url.partition("://")
    host_and_path, mark, query = rest.partition("?")
    host, slash, path = host_and_path.partition("/")
    if not urlsplit(f"{scheme}://{host}").hostname:
        host = "localhost"
    encoded = path.replace("%", "%25").replace(";", "%253B").replace("#", "%2523")
    encoded = "".join(ch if 32 < ord(ch) < 127 else "".join(f"%25{b:02X}" for b in ch.encode()) for ch in encoded)
    return func.HttpRequest(
        method=req.method or "GET",
        url=f"{scheme}://{host}{slash}{encoded}{mark}{query.replace('#', '%23')}",
        headers=dict(req.headers),
        params=dict(req.params),
        route_params=dict(req.route_params),
        body=req.get_body() or b"",
    )
