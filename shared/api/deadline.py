"""`x-ee-timeout`: how long a caller waits (emailengine.md 1.1)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from fastapi import Request, Response

from shared.errors import ApiError, InvalidInput

log = logging.getLogger("graphpost.api")
HEADER = "x-ee-timeout"
LONGEST_MS = 7_200_000
_going_on: set[asyncio.Task[Response]] = set()


def patience_s(request: Request) -> float | None:
    """Seconds the caller waits; None: to the end. InvalidInput names the header."""
    text = request.headers.get(HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and int(text) <= LONGEST_MS):
        raise InvalidInput.field(HEADER, f'"{HEADER}" must be a whole number of milliseconds up to {LONGEST_MS}')
    return int(text) / 1000 or None


async def within(seconds: float | None, work: Coroutine[Any, Any, Response], *, is_read: bool) -> Response:
    """What `work` answers, or the contract's 504. Reading is then broken off; writing goes on to its end, since
    half of it is worse than all of it."""
    if seconds is None:
        return await work
    task = asyncio.create_task(work)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if done:
        return task.result()
    if is_read:
        task.cancel()
    _going_on.add(task)
    task.add_done_callback(_ended)
    raise ApiError(504, "Timeout waiting for command response", "Timeout")


def _ended(task: asyncio.Task[Response]) -> None:
    _going_on.discard(task)
    if not task.cancelled() and task.exception() is not None:
        log.error("graphpost.api.late: %s", type(task.exception()).__name__)
