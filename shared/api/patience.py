"""How long a caller waits: the header `x-ee-timeout` (emailengine.md 1.1), for operations that change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response

from shared.api.route import GuardedRoute, authorize
from shared.errors import ApiError, InvalidInput

HEADER = "x-ee-timeout"
LONGEST_MS = 7_200_000


class PatientRoute(GuardedRoute):
    """A guarded route whose work ends with 504 when the caller's time is over. Only for work that may be broken off
    anywhere."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        coordinates = (self.openapi_extra or {})["x-permission"]

        async def patient(request: Request) -> Response:
            limit_ms = _limit_ms(request)
            if limit_ms is None:
                await authorize(request, coordinates["group"], coordinates["action"])  # who may not ask learns no more
                raise InvalidInput.field(HEADER, f'"{HEADER}" must be a number from 0 to {LONGEST_MS}')
            try:
                async with asyncio.timeout(limit_ms / 1000 if limit_ms else None) as patience:
                    return await handle(request)
            except TimeoutError:
                if not patience.expired():
                    raise
                raise ApiError(504, "Timeout waiting for command response", "Timeout") from None

        return patient


def _limit_ms(request: Request) -> int | None:
    """The milliseconds that the caller waits; 0 for as long as it takes, None for a header that says nothing of it."""
    text = request.headers.get(HEADER, "").strip()
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and int(text) <= LONGEST_MS):
        return None
    return int(text)
