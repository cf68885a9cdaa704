"""How many events of each name an account had: its `counters` (emailengine.md 6.2)."""

from __future__ import annotations

from shared.errors import StorageConflict
from shared.storage.keys import storable
from shared.storage.tables import Row, Table

KEY = "events"
ROUTES = "~routes"  # no account's partition has a tilde
TRIES = 5


class EventCounters:
    """Counts events for the account's view."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def count(self, account: str, event: str) -> None:
        """One more of this event. A lost race is tried again a few times. Two transactions."""
        await self._add(storable(account), KEY, event)

    async def count_route(self, route: str) -> None:
        """One more event for a webhook route."""
        await self._add(ROUTES, route, "tcount")

    async def of_routes(self) -> dict[str, int]:
        """How many events each webhook route had so far."""
        return {row.key: row.value["tcount"] for row in await self._table.partition(ROUTES)}

    async def forget_route(self, route: str) -> None:
        """Removes the counter of a webhook route."""
        await self._table.delete(ROUTES, route)

    async def _add(self, partition: str, key: str, name: str) -> None:
        for _ in range(TRIES):
            found = await self._table.get(partition, key)
            try:
                if found is None:
                    await self._table.insert(Row(partition, key, {name: 1}))
                else:
                    counts = found.value | {name: found.value.get(name, 0) + 1}
                    await self._table.replace(Row(partition, key, counts, found.etag))
            except StorageConflict:
                continue
            return

    async def forget(self, account: str) -> None:
        """Removes the counters of a deleted account."""
        await self._table.delete(storable(account), KEY)
