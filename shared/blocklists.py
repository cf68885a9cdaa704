"""Who does not want a list's mail (emailengine.md 19.7): one record for each address on each list.

A list is there while it has an address. Lists outlive the accounts that send to them.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any

from shared.clock import Clock, iso
from shared.errors import RecordDamaged, StorageConflict
from shared.storage.keys import storable
from shared.storage.tables import Row, Table


class Blocklists:
    """Stores and finds them. Lists and addresses compare without case."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table, self._clock = table, clock

    async def add(self, list_id: str, recipient: str, **about: Any) -> bool:
        """True when the address was not on the list before. `about` says how it came there. One transaction."""
        value = {"listId": list_id.lower(), "recipient": recipient.lower(), "created": iso(self._clock()), **about}
        try:
            await self._table.insert(Row(storable(list_id.lower()), storable(recipient.lower()), value))
        except StorageConflict:
            return False
        return True

    async def remove(self, list_id: str, recipient: str) -> bool:
        """True when the address is off the list by this call."""
        return await self._table.delete(storable(list_id.lower()), storable(recipient.lower()))

    async def contains(self, list_id: str, recipient: str) -> bool:
        """Whether the address is on the list; a damaged record says so, too. One transaction."""
        try:
            return await self.entry(list_id, recipient) is not None
        except RecordDamaged:
            return True

    async def entry(self, list_id: str, recipient: str) -> Row | None:
        """The record of an address on a list."""
        return await self._table.get(storable(list_id.lower()), storable(recipient.lower()))

    async def told(self, row: Row) -> None:
        """Notes that everybody was told of this entry, if it is there still."""
        with suppress(StorageConflict):
            await self._table.replace(replace(row, value=row.value | {"told": True}))

    async def lists(self) -> list[dict[str, Any]]:
        """Every list with the number of its addresses, by name. A transaction for each thousand addresses."""
        counted = Counter(partition for partition, _ in await self._table.keys())
        return [{"listId": name, "count": count} for name, count in sorted(counted.items())]

    async def size(self, list_id: str) -> int:
        """How many addresses are on the list."""
        return len(await self._keys(list_id))

    async def addresses(self, list_id: str, page: int, size: int) -> list[dict[str, Any]]:
        """One page of a list, by address."""
        keys = (await self._keys(list_id))[page * size : (page + 1) * size]
        if not keys:
            return []
        query = "PartitionKey eq @p and RowKey ge @a and RowKey le @b"
        bounds = {"p": storable(list_id.lower()), "a": keys[0], "b": keys[-1]}
        return [entry_view(row.value) async for row in self._table.scan(query, bounds)]

    async def _keys(self, list_id: str) -> list[str]:
        found = await self._table.keys("PartitionKey eq @p", {"p": storable(list_id.lower())})
        return sorted(key for _, key in found)


_SHOWN = ("recipient", "account", "messageId", "source", "reason", "remoteAddress", "userAgent", "created")


def entry_view(value: dict[str, Any]) -> dict[str, Any]:
    """An entry as the API shows it."""
    return {name: value[name] for name in _SHOWN if value.get(name) is not None}
