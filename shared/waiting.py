"""How long a caller's request waits for Graph before it passes a refusal on (emailengine.md 22)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from shared.access import Access
from shared.accounts import Reach
from shared.errors import GraphFailure
from shared.graph.client import Answer
from shared.graph.failures import is_throttled, is_transient

MOST_S = 20.0  # waited in all within one request of a caller
FIRST_PAUSE_S = 1.0
MOST_FAILURES = 2  # outages, which tell no time to wait for, are tried again that often

Sleep = Callable[[float], Awaitable[None]]


class Waiting:
    """What one request of a caller may wait in all."""

    def __init__(self, sleep: Sleep = asyncio.sleep, most_s: float = MOST_S) -> None:
        self._sleep, self._left_s = sleep, most_s
        self._throttled, self._failures = 0, 0

    async def after(self, failure: GraphFailure) -> None:
        """Returns when it is time to try again; raises the failure when that is not in time."""
        throttled = is_throttled(failure)
        tries = self._throttled if throttled else self._failures
        wait_s = failure.retry_after_s if failure.retry_after_s is not None else FIRST_PAUSE_S * 2.0**tries
        if throttled:
            self._throttled += 1
        else:
            self._failures += 1
        if self._failures > MOST_FAILURES or wait_s > self._left_s:
            raise failure
        self._left_s -= max(wait_s, 0.1)
        await self._sleep(wait_s)


async def call(
    access: Access, reach: Reach, build: Callable[[Any], Any], waiting: Waiting, *, repeatable: bool = True
) -> Answer:
    """The answer to one Graph call. It is repeated after a refusal for too many requests, and, when `repeatable`,
    after an outage too. Raises GraphFailure and CredentialError."""
    while True:
        try:
            return await access.call(reach, build)
        except GraphFailure as failure:
            if not (is_throttled(failure) or (repeatable and is_transient(failure))):
                raise
            await waiting.after(failure)
