"""Before and around every job of a queue: pauses, and states of the service in which no job can succeed.

A message that can not be worked off now is put back with a delay rather than failed: five failures would make it
poison, whatever the cause. What is put back waits as long as it takes.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from shared.clock import Clock
from shared.errors import RecordDamaged
from shared.poison import Poison
from shared.schedule import Schedule
from shared.service_settings import ServiceSettings
from shared.storage.keys import digest
from shared.storage.queues import Queues, parse
from shared.vault import SealBroken

PUT_BACK_S = 60.0
# Jobs of the service itself, which share a queue with those of mailboxes: no pause of these holds them up.
ALWAYS = frozenset({"reseal", "delete", "purge"})
# What differs between two messages about the same work.
PASSING = frozenset({"due", "active", "number", "failures", "attempt", "after", "queued", "waits", "busy", "early"})
log = logging.getLogger("graphpost.gate")


def pause_key(queue: str) -> str:
    """The name under which a pause stands in the service's settings."""
    return f"paused {queue}"


class Gate:
    """Lets queue messages through to their work, or puts them back."""

    def __init__(
        self,
        settings: ServiceSettings,
        queues: Queues,
        schedule: Schedule,
        poison: Poison,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings, self._queues, self._schedule = settings, queues, schedule
        self._poison, self._clock, self._jitter = poison, clock, jitter
        self.afterwards: Callable[[], Awaitable[None]] | None = None  # after each message, whatever came of it

    async def run(self, queue: str, text: str, work: Callable[[str], Awaitable[None]]) -> None:
        """Works off one message of a queue: at once, or after the pause."""
        job = _job(text)
        try:
            if job.get("do") not in ALWAYS and await self.is_paused(queue):
                await self._put_back(queue, text, job)
                return
            await work(text)
        except SealBroken as problem:
            # Of all sealed values only the settings raise this here: nothing works until they can be read.
            log.error("graphpost.gate.waiting queue=%s: %s. Check KEY_RING", queue, problem)
            await self._put_back(queue, text, job)
        except RecordDamaged as problem:
            log.error("graphpost.gate.damaged queue=%s: %s", queue, problem)
            await self._poison.keep(queue, text, str(problem), digest(queue, _same(text, job)))
        finally:
            if self.afterwards is not None:
                await self.afterwards()

    async def is_paused(self, queue: str) -> bool:
        """True while the queue's work is paused; a change is seen within ten seconds. SealBroken."""
        return bool((await self._settings.all()).get(pause_key(queue)))

    async def may_run(self, queue: str) -> bool:
        """False while the queue's work is paused, or nobody can tell."""
        try:
            return not await self.is_paused(queue)
        except SealBroken:
            return False

    async def _put_back(self, queue: str, text: str, job: dict[str, Any]) -> None:
        wait_s = PUT_BACK_S * (0.75 + 0.5 * self._jitter())
        if "chain" in job and "due" in job:
            # A recurring job moves its row along, or the row would start a second message every ten minutes.
            await self._schedule.continue_chain(queue, job, self._clock() + timedelta(seconds=wait_s))
        else:
            await self._queues.put_text(queue, text, wait_s)


def _job(text: str) -> dict[str, Any]:
    try:
        return parse(text)
    except (ValueError, KeyError, TypeError):
        return {}  # of another form, such as a notification


def _same(text: str, job: dict[str, Any]) -> str:
    """The same for every message about the same work, however often it was put back or came again."""
    lasting = {name: value for name, value in job.items() if name not in PASSING}
    return json.dumps(lasting, sort_keys=True) if lasting else text
