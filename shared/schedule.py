"""What is to happen later: delayed queue messages for soon, rows ordered by time for the rest.

A recurring job (a poll, a renewal) is a *chain*: exactly one row at any time. The scheduler puts the job on its
queue and, in one transaction, moves the row ahead as a safety net; the worker moves it to the next time when it
is done. A worker that dies is followed by the safety row; a job that was put on the queue twice finds its row
gone and does not start a second chain.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from shared.clock import Clock
from shared.errors import StorageConflict
from shared.storage.keys import digest, time_key
from shared.storage.queues import LONGEST_DELAY_S, Queues
from shared.storage.tables import Row, Table

PARTITION = "due"
HORIZON_S = 60  # the scheduler runs once a minute and looks that far ahead
SOON_S = 120  # what is due within that goes on its queue at once, so that short intervals need no scheduler
TICK_FOR = timedelta(seconds=50)  # the next minute's look goes on with the rest
SAFETY_S = 600  # a job that has not ended its turn by then is started again


class Schedule:
    """Puts jobs on queues at their time, across process deaths."""

    def __init__(self, table: Table, queues: Queues, clock: Clock) -> None:
        self._table, self._queues, self._clock = table, queues, clock

    async def once(self, when: datetime, queue: str, job: dict[str, Any]) -> None:
        """The job once, at `when` or soon after. It may run twice: jobs are idempotent."""
        delay_s = (when - self._clock()).total_seconds()
        if delay_s <= LONGEST_DELAY_S:
            await self._queues.put(queue, job, delay_s)
            return
        key = self._key(when, digest(queue, repr(sorted(job.items()))))
        await self._table.put(Row(PARTITION, key, {"queue": queue, "job": job}))

    async def start_chain(self, chain: str, queue: str, job: dict[str, Any], first: datetime) -> None:
        """Begins a recurring job. `chain` names it; the job carries it, and its row's key as `due`."""
        await self._move(None, chain, queue, job, first)

    async def continue_chain(self, queue: str, job: dict[str, Any], when: datetime) -> bool:
        """Called by the worker at the end of its turn. False when another turn has taken over."""
        return await self._move(job["due"], job["chain"], queue, job, when)

    async def end_chain(self, job: dict[str, Any]) -> None:
        """Called by a worker whose mailbox needs no further turns."""
        await self._table.delete(PARTITION, job["due"])

    async def chains(self) -> set[str]:
        """The names of every recurring job there is. One that moves meanwhile may be missed."""
        return {key.partition("~")[2] for _, key in await self._table.keys("PartitionKey eq @p", {"p": PARTITION})}

    async def tick(self, now: datetime, most: int = 1000) -> int:
        """Moves what is due within the next minute onto its queue, `most` rows after `most` rows while time is left;
        the number moved. Reads only that."""
        limit = time_key((now + timedelta(seconds=HORIZON_S)).timestamp())
        moved, until = 0, self._clock() + TICK_FOR
        while True:
            before = moved
            rows = self._table.scan("PartitionKey eq @p and RowKey lt @k", {"p": PARTITION, "k": limit}, most)
            async for row in rows:
                await self._start(row, now)
                moved += 1
            if moved - before < most or self._clock() >= until:
                return moved

    async def _start(self, row: Row, now: datetime) -> None:
        queue, job = row.value["queue"], row.value["job"]
        due = datetime.fromtimestamp(int(row.key[:15]) / 1000, tz=now.tzinfo)
        delay_s = max(0.0, (due - now).total_seconds())
        if "chain" not in job:
            await self._queues.put(queue, job, delay_s)
            await self._table.delete(PARTITION, row.key)
            return
        safety = self._key(max(now, due) + timedelta(seconds=SAFETY_S), job["chain"])
        await self._queues.put(queue, job | {"due": safety}, delay_s)
        await self._swap(row.key, Row(PARTITION, safety, {"queue": queue, "job": job}))

    async def _move(self, old: str | None, chain: str, queue: str, job: dict[str, Any], when: datetime) -> bool:
        now = self._clock()
        soon = (when - now).total_seconds() < SOON_S
        key = self._key(when + timedelta(seconds=SAFETY_S) if soon else when, chain)
        job = job | {"chain": chain, "due": key}
        row = Row(PARTITION, key, {"queue": queue, "job": job})
        if old is None:
            await self._table.put(row)
        elif not await self._swap(old, row):
            return False
        if soon:
            # The next look of the scheduler may come too late, so the message is put on the queue at once.
            # Dying before this line costs the wait for the safety row, nothing else.
            await self._queues.put(queue, job, (when - now).total_seconds())
        return True

    async def _swap(self, old: str, row: Row) -> bool:
        try:
            await self._table.swap(old, row)
        except StorageConflict:
            return False
        return True

    @staticmethod
    def _key(when: datetime, chain: str) -> str:
        return f"{time_key(when.timestamp())}~{chain}"
