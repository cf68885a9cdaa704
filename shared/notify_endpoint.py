"""The two endpoints that Graph posts to, as light as they can be: no storage client, no framework."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from shared.notifications import receive as decide
from shared.settings import Settings

if TYPE_CHECKING:
    import azure.functions as func


@cache
def _keys() -> tuple[bytes, ...]:
    return tuple(key for _, key in Settings.from_env(os.environ).key_ring)


def receive(req: func.HttpRequest, changes: func.Out[list[str]], *, lifecycle: bool) -> func.HttpResponse:
    """Answers the handshake as plain text, everything else with 202 and the genuine entries on the queue."""
    import azure.functions as func

    reply = decide(req.params, req.get_body(), _keys(), lifecycle=lifecycle)
    if reply.messages:
        changes.set(reply.messages)
    # text/plain and nosniff: the token is echoed as it came, markup and all (graph.md 10.4).
    headers = {"X-Content-Type-Options": "nosniff"}
    return func.HttpResponse(
        reply.body, status_code=reply.status, headers=headers, mimetype="text/plain", charset="utf-8"
    )
