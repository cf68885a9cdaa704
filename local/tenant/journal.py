"""What Graph was asked and what the tenant itself answered, whole, for whoever wants to check it.

The request log (request_log.py) is for tests to look into and is cleared by them; the journal is not. Answers that
faults put in the place of the tenant's own do not come into it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .errors import GraphError, Respond, graph_error_body
from .surfaces import surface_of

if TYPE_CHECKING:
    from .world import World

Exchange = dict[str, Any]
LARGEST_KEPT_BYTES = 1024 * 1024


def to_file(path: Path) -> Callable[[Exchange], None]:
    """A journal of one JSON line for each exchange, at the end of a file; every line is written at once."""
    lines = path.open("a", encoding="utf-8", buffering=1)

    def write(exchange: Exchange) -> None:
        lines.write(json.dumps(exchange) + "\n")

    return write


def keep_journal(world: World) -> Any:
    """Middleware, the innermost: hands each exchange at Graph to `world.journal`."""

    @web.middleware
    async def keep(request: web.Request, handler: Respond) -> web.StreamResponse:
        journal = world.journal
        if journal is None or surface_of(request.path) != "graph":
            return await handler(request)
        asked = {"method": request.method, "path": request.raw_path, "headers": _headers(request.headers)}
        try:
            response = await handler(request)
        except GraphError as error:
            body = json.dumps(graph_error_body(error, request)).encode()
            answered = _answered(error.status, {"content-type": "application/json"}, body)
            journal(asked | await _body(request) | answered)
            raise
        content = response.body if isinstance(response, web.Response) else None
        raw = bytes(content) if isinstance(content, bytes | bytearray) else None
        kept = b"" if isinstance(response, web.Response) and content is None else raw
        journal(asked | await _body(request) | _answered(response.status, _headers(response.headers), kept))
        return response

    return keep


def _headers(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items() if name.lower() != "authorization"}


async def _body(request: web.Request) -> Exchange:
    content = await request.read() if request.body_exists else b""
    return {"body": _kept(content)}


def _answered(status: int, headers: dict[str, str], body: bytes | None) -> Exchange:
    return {"status": status, "answer_headers": headers, "answer": None if body is None else _kept(body)}


def _kept(content: bytes) -> str | None:
    """base64; None for what is too long to keep."""
    return base64.b64encode(content).decode() if len(content) <= LARGEST_KEPT_BYTES else None
