"""How often what happened in the whole service: the `counters` of GET /v1/stats (emailengine.md 19.3).

Each process counts in memory and writes its numbers once a minute while it works, into a row of its own for each hour,
so that counting costs no storage of the calls themselves. A process that is ended loses its last minute: these are
statistics, and what an account had is counted elsewhere (`event_counters.py`).
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter, defaultdict

from shared.clock import Clock
from shared.storage.tables import Row, Table

PARTITION = "stats"
SAVED_EVERY_S = 60.0
KEPT_H = 7 * 24 + 1
MOST_SECONDS = 604_800
log = logging.getLogger("graphpost.counters")
Minutes = defaultdict[int, Counter[str]]


class ServiceCounters:
    """Counts, keeps and adds up."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table, self._clock = table, clock
        self._instance = secrets.token_hex(6)
        self._hours: dict[int, Minutes] = {}
        self._unsaved: set[int] = set()
        self._saved = clock().timestamp()

    def count(self, name: str) -> None:
        """One more of this, now."""
        minute = int(self._clock().timestamp()) // 60
        hour = minute // 60
        self._hours.setdefault(hour, defaultdict(Counter))[minute][name] += 1
        self._unsaved.add(hour)

    async def save(self, *, at_once: bool = False) -> None:
        """Writes what was counted, if that is due. Never fails: who counts has done its work."""
        now = self._clock().timestamp()
        if not self._unsaved or (not at_once and 0 <= now - self._saved < SAVED_EVERY_S):
            return
        self._saved = now
        unsaved, self._unsaved = self._unsaved, set()
        for hour in sorted(unsaved):
            try:
                await self._table.put(Row(PARTITION, f"{hour:010d}~{self._instance}", self._document(hour)))
            except Exception as problem:
                self._unsaved.add(hour)
                log.warning("counters were not saved: %s", type(problem).__name__)
        ended = [hour for hour in self._hours if hour < int(now) // 3600 and hour not in self._unsaved]
        for hour in ended:
            del self._hours[hour]

    def _document(self, hour: int) -> dict[str, dict[str, int]]:
        return {str(minute): dict(counts) for minute, counts in self._hours[hour].items()}

    async def totals(self, seconds: int) -> dict[str, int]:
        """What was counted in the last so many seconds, to the minute; of this process to the moment."""
        await self.save(at_once=True)
        first = (int(self._clock().timestamp()) - seconds) // 60
        total: Counter[str] = Counter()
        query = "PartitionKey eq @p and RowKey ge @k"
        async for row in self._table.scan(query, {"p": PARTITION, "k": f"{first // 60:010d}"}):
            for minute, counts in row.value.items():
                total.update(counts if int(minute) >= first and seconds else {})
        return dict(sorted(total.items()))

    async def sweep(self) -> int:
        """Removes what nobody can ask for any more; how many rows."""
        oldest = f"{int(self._clock().timestamp()) // 3600 - KEPT_H:010d}"
        found = await self._table.keys("PartitionKey eq @p and RowKey lt @k", {"p": PARTITION, "k": oldest})
        await self._table.delete_all(PARTITION, [key for _, key in found])
        return len(found)
