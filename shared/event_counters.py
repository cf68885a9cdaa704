"""How many events of each name an account had: its `counters` (emailengine.md 6.2)."""

from __future__ import annotations

from shared.errors import StorageConflict
from shared.storage.keys import storable
from shared.storage.tables import Row, Table

KEY = "events"
TRIES = 5


class EventCounters:
    """Counts events for the account's view."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def count(self, account: str, event: str) -> None:
        """One more of this event. A lost race is tried again a few times. Two transactions."""
        key = storable(account)
        for _ in range(TRIES):
            found = await self._table.get(key, KEY)
            try:
                if found is None:
                    await self._table.insert(Row(key, KEY, {event: 1}))
                else:
                    counts = found.value | {event: found.value.get(event, 0) + 1}
                    await self._table.replace(Row(key, KEY, counts, found.etag))
            except StorageConflict:
                continue
            return

    async def forget(self, account: str) -> None:
        """Removes the counters of a deleted account."""
        await self._table.delete(storable(account), KEY)
