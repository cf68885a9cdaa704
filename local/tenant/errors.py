"""Graph errors on the wire: the exception routes raise, its JSON form, and the ids on every Graph answer."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from aiohttp import web

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]

# What the middlewares keep with a request.
REQUEST_ID = web.RequestKey("request_id", str)
RECEIVED_AT = web.RequestKey("received_at", datetime)
DROPPED = web.RequestKey("dropped", bool)

log = logging.getLogger("local.tenant")

# graph.md 2.3 [F]: the exact challenge on a 401.
BEARER_CHALLENGE = (
    'Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", '
    'client_id="00000003-0000-0000-c000-000000000000"'
)

# graph.md 2.2 [D] names the header; its content is invented, nothing may depend on it.
DIAGNOSTIC = json.dumps(
    {
        "ServerInfo": {
            "DataCenter": "Local",
            "Slice": "E",
            "Ring": "0",
            "ScaleUnit": "000",
            "RoleInstance": "1",
        }
    },
    separators=(",", ":"),
)


class GraphError(Exception):
    """A refusal: HTTP status, Graph's code and message, extra headers and parts of innerError."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: dict[str, str] | None = None,
        inner: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.inner = dict(inner or {})


def invalid_token(message: str) -> GraphError:
    """The 401 of graph.md 2.3 with its challenge header."""
    return GraphError(401, "InvalidAuthenticationToken", message, {"WWW-Authenticate": BEARER_CHALLENGE})


def request_ids(request: web.Request) -> tuple[str, str]:
    """(request-id, client-request-id) of a request; without a client-request-id Graph repeats its own."""
    own = request.get(REQUEST_ID) or str(uuid.uuid4())
    request[REQUEST_ID] = own
    return own, request.headers.get("client-request-id") or own


def graph_error_body(error: GraphError, request: web.Request) -> dict[str, Any]:
    """The JSON of graph.md 2.3; `innerError` is on every error (graph.md 15 item 11)."""
    own, client = request_ids(request)
    now = request.get(RECEIVED_AT) or datetime.now(UTC)
    inner = {"date": now.strftime("%Y-%m-%dT%H:%M:%S"), "request-id": own, "client-request-id": client}
    return {"error": {"code": error.code, "message": error.message, "innerError": {**error.inner, **inner}}}


def graph_error_response(error: GraphError, request: web.Request) -> web.Response:
    """The error as an HTTP answer with ids, diagnostics and the error's own headers."""
    response = web.json_response(graph_error_body(error, request), status=error.status)
    _add_ids(response, request)
    response.headers.update(error.headers)
    return response


def _add_ids(response: web.StreamResponse, request: web.Request) -> None:
    own, client = request_ids(request)
    response.headers["request-id"] = own
    response.headers["client-request-id"] = client
    response.headers["x-ms-ags-diagnostic"] = DIAGNOSTIC
    # The tenant's own time, which a test may have moved: callers with another clock go by it.
    now = request.get(RECEIVED_AT) or datetime.now(UTC)
    response.headers["Date"] = format_datetime(now.astimezone(UTC), usegmt=True)


def as_graph_error(error: Exception) -> GraphError:
    """What a failure inside the emulator or aiohttp looks like from outside."""
    if isinstance(error, GraphError):
        return error
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return GraphError(413, "RequestEntityTooLarge", "The request entity is too large.")
    if isinstance(error, web.HTTPException):
        return GraphError(error.status, "BadRequest", error.reason)
    log.exception("the tenant failed while answering", exc_info=error)
    return GraphError(500, "ErrorInternalServerError", f"Emulator failure: {type(error).__name__}: {error}")


def graph_answers(is_graph: Callable[[web.Request], bool], now: Callable[[], datetime]) -> Any:
    """Middleware: ids on every Graph answer, every raised error as Graph's JSON (graph.md 2.2, 2.3)."""

    @web.middleware
    async def respond(request: web.Request, handler: Respond) -> web.StreamResponse:
        if not is_graph(request):
            return await handler(request)
        request[RECEIVED_AT] = now()
        try:
            response = await handler(request)
        except Exception as error:
            return graph_error_response(as_graph_error(error), request)
        if not response.prepared:
            _add_ids(response, request)
        return response

    return respond
