"""`python -m tests.chaos.quick_host`: the local host and the app in it, at the pace of the run.

The app is not told: its clock is the argument of `build`, its queue delays are shortened on their way out, and the
timers of the host ring by the same clock.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from datetime import datetime, tzinfo
from typing import Any

from local.host import __main__ as host
from local.host import timers
from shared import wiring
from shared.storage.queues import Queues
from tests.chaos.pace import Pace


def quicken(pace: Pace) -> None:
    """Clock, queue delays and timers follow the pace."""
    wiring.build = functools.partial(wiring.build, clock=pace.now)  # type: ignore[assignment]
    put_text = Queues.put_text

    async def put_sooner(queues: Queues, name: str, text: str, delay_s: float = 0) -> None:
        await put_text(queues, name, text, pace.real_s(delay_s))

    Queues.put_text = put_sooner  # type: ignore[method-assign]

    class Inside(datetime):
        """`datetime` whose now is that of the run."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return pace.now().astimezone(tz)

    async def reach(moment: datetime) -> None:
        await asyncio.sleep(max(0.0, pace.real_s((moment - pace.now()).total_seconds())))

    timers.datetime = Inside  # type: ignore[misc]
    timers._reach = reach


if __name__ == "__main__":
    quicken(Pace.from_environment())
    status = host.main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
