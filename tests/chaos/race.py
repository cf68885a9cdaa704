"""Eight workers that refresh one holder's token at the same moment, again and again, their clocks apart."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta

from local import services
from shared.errors import CredentialError
from tests.chaos.pace import Pace
from tests.support.application import call
from tests.support.stored import services_over
from tests.support.tenant import Tenant

WORKERS, ROUNDS = 8, 12
HOURS = 2  # between rounds: longer than any token lives
SKEWS_S = (0.0, 0.0, 0.0, -90.0, 90.0, -180.0, 180.0, 240.0)


async def race(storage: services.Azurite, tenant: services.Tenant, pace: Pace, holder: str) -> list[str]:
    """What went wrong: a worker without a token, a token that Graph refuses, a sign-in that can not be used."""
    problems: list[str] = []
    control, offset_s, chance = Tenant(tenant), 0.0, random.Random(WORKERS)

    def clock(skew_s: float) -> Callable[[], datetime]:
        return lambda: pace.now() + timedelta(seconds=offset_s + skew_s)

    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(services_over(storage.connection_string, tenant.url, clock(skew_s)))
            for skew_s in SKEWS_S
        ]
        record = await workers[0].accounts.get(holder)
        reach = await workers[0].accounts.reach(record)

        async def refresh(number: int, rejected: str | None) -> str:
            await asyncio.sleep(chance.uniform(0, 0.02))
            return await workers[number].credentials.token(holder, reach.app, rejected, reach.version)

        for turn in range(ROUNDS):
            offset_s += HOURS * 3600
            await control.clock(offset_s)
            # Every other round Graph has refused the token although it was fresh: all ask for another one.
            held = await refresh(0, None) if turn % 2 else None
            found = await asyncio.gather(*(refresh(n, held) for n in range(WORKERS)), return_exceptions=True)
            for number, token in enumerate(found):
                if isinstance(token, BaseException):
                    kind = "refused" if isinstance(token, CredentialError) else "failed"
                    problems.append(f"turn {turn}: worker {number} {kind}: {token!r}")
                elif (status := await _me(tenant.url, token)) != 200:
                    problems.append(f"turn {turn}: the token of worker {number} is answered {status}")
    return problems


async def _me(root: str, token: str) -> int:
    return (await call("GET", f"{root}/v1.0/me", headers={"Authorization": f"Bearer {token}"})).status
