"""Damaged records of events: each becomes a dead letter, so that it is seen and nothing waits for it.

Only keys and columns of such a record can be read. It is marked as dead without its document being touched, listed
with what is known of it, and can be dropped; a replay is refused, since nobody knows what to send.
"""

from __future__ import annotations

import logging
from typing import Any

from shared.clock import Clock, iso, parse_time
from shared.errors import RecordDamaged
from shared.events import DEAD, DELIVERED, DISCARDED, HELD, SKIPPED, id_of
from shared.storage.keys import time_key
from shared.storage.tables import Row, Table

DEAD_PARTITION = "dead"  # of the index of undelivered events
REASON = "The stored record of the event is damaged"
_OVER = frozenset({DELIVERED, SKIPPED, DISCARDED})
log = logging.getLogger("graphpost.events")


class DamagedEvents:
    """Reads events, and puts those aside that cannot be read."""

    def __init__(self, index: Table, events: Table, clock: Clock) -> None:
        self._index, self._events, self._clock = index, events, clock

    async def read(self, partition: str, key: str, known: Row | None = None) -> Row | None:
        """An event's record; None when it is gone, or damaged and now a dead letter. `known` is the entry that led
        there."""
        try:
            return await self._events.get(partition, key)
        except RecordDamaged:
            await self._set_aside(partition, key, known)
            return None

    async def _set_aside(self, partition: str, key: str, known: Row | None) -> None:
        seen = await self._seen(partition, key)
        if seen is None or seen.columns["state"] in _OVER:
            return
        if seen.columns["state"] != DEAD:
            log.error("graphpost.events.damaged event=%s", id_of(key))
            await self._events.set_columns(partition, key, {"state": DEAD, "until": iso(self._clock())})
        if await self.entry(id_of(key)) is None:
            await self._index.put(self._entry(seen, known))

    async def _seen(self, partition: str, key: str) -> Row | None:
        query = "PartitionKey eq @p and RowKey eq @k"
        async for row in self._events.scan(query, {"p": partition, "k": key}, only=("state", "date", "attempts")):
            return row
        return None

    def _entry(self, seen: Row, known: Row | None) -> Row:
        """The account shows as its key, unless something better is known."""
        now, event = iso(self._clock()), id_of(seen.key)
        date = seen.columns.get("date") or now
        value: dict[str, Any] = {
            "account": seen.partition, "key": seen.key, "event": event, "type": "unknown", "date": date,
            "attempts": seen.columns.get("attempts", 0), "endpoint": "",
        }  # fmt: skip
        value |= (known.value if known else {}) | {"at": now, "error": {"reason": REASON}}
        columns = {"account": seen.partition, "event": event, "endpoint": value["endpoint"]}
        return Row(DEAD_PARTITION, f"{time_key(parse_time(date).timestamp())}~{event}", value, columns=columns)

    async def entry(self, event: str) -> Row | None:
        """The entry of a dead letter."""
        query = "PartitionKey eq @p and event eq @e"
        async for row in self._index.scan(query, {"p": DEAD_PARTITION, "e": event}):
            return row
        return None

    async def empty(self, entry: Row) -> None:
        """Writes what is known of a damaged event in the place of its record, as one that was dropped."""
        value = {"envelope": {name: entry.value[name] for name in ("account", "date")} | {"event": entry.value["type"]}}
        columns = {"state": DISCARDED, "attempts": 0, "date": entry.value["date"], "until": iso(self._clock())}
        await self._events.put(Row(entry.columns["account"], entry.value["key"], value, columns=columns))

    async def end(self, seen: Row) -> int:
        """A damaged record that is a month old, known by its keys and columns: 1 when it is gone. What was held for so
        long is a dead letter for another month."""
        if seen.columns["state"] == HELD:
            await self._set_aside(seen.partition, seen.key, None)
            return 0
        if (entry := await self.entry(id_of(seen.key))) is not None:
            await self._index.delete(entry.partition, entry.key)
        return int(await self._events.delete(seen.partition, seen.key))
