"""Markers: what was reported of which message, so that no happening is told twice and none is passed over.

A marker is written before the event it stands for (`pending`) and settled after it, so that a process that dies
in between is followed by one that tells the same again under the same id. It knows the folder the message was
last seen in, and the walk that met it there: after a folder had to be walked anew, the messages that were not met
are the ones to look for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from shared.clock import Clock, iso
from shared.errors import StorageConflict
from shared.storage.keys import digest, storable
from shared.storage.tables import Row, Table


@dataclass(frozen=True)
class Marker:
    """One message as it was reported last. `changes` counts its updates; `pending` holds until the event of that
    number is durable. `left` is set on a message that Graph refused for good, `canary` on a message of our own
    that is never reported. A marker of an earlier version knows neither `id` nor `folder`."""

    key: str
    id: str = ""
    flags: list[str] = field(default_factory=list)
    changes: int = 0
    folder: str = ""
    walk: str = ""
    pending: bool = False
    left: bool = False
    canary: bool = False
    etag: str = ""


class Markers:
    """The markers of all accounts."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table, self._clock = table, clock

    @staticmethod
    def key(message_id: str) -> str:
        return digest("message", message_id)

    async def get(self, account: str, message_id: str) -> Marker | None:
        """The marker of a message. One transaction."""
        row = await self._table.get(storable(account), self.key(message_id))
        return _read(row) if row else None

    async def keep(self, account: str, marker: Marker) -> Marker:
        """Writes a new marker, or over the version it was read from; as stored. StorageConflict when another
        worker was faster."""
        now = iso(self._clock())
        value = {"id": marker.id, "flags": marker.flags, "changes": marker.changes, "at": now}
        value |= {name: True for name in ("pending", "left", "canary") if getattr(marker, name)}
        # Columns, so that the markers of one folder are found without reading the others.
        columns = {"folder": marker.folder, "walk": marker.walk, "at": now}
        row = Row(storable(account), marker.key, value, marker.etag, columns)
        stored = await (self._table.replace(row) if marker.etag else self._table.insert(row))
        return replace(marker, etag=stored.etag)

    async def note_canary(self, account: str, message_id: str) -> None:
        """From now on this message is ours and never reported."""
        marker = Marker(self.key(message_id), message_id, canary=True)
        try:
            await self.keep(account, marker)
        except StorageConflict:
            return  # noted before: by us, or by the hint that was faster

    async def in_folder(self, account: str, folder: str, since: str = "") -> dict[str, Marker]:
        """The markers last seen in a folder, "" for any, by key; with `since` those written from then on."""
        query = "PartitionKey eq @p and at ge @t" + (" and folder eq @f" if folder else "")
        rows = self._table.scan(query, {"p": storable(account), "t": since} | ({"f": folder} if folder else {}))
        return {row.key: _read(row) async for row in rows}

    async def is_first_with(self, account: str, message: dict[str, Any]) -> bool:
        """True when no other message with this Message-ID was reported: an estimate, as in the contract."""
        header = message.get("internetMessageId")
        if not header:
            return True
        row = Row(storable(account), digest("message-id", header), {"message": message["id"], "at": iso(self._clock())})
        try:
            await self._table.insert(row)
        except StorageConflict:
            found = await self._table.get(row.partition, row.key)
            return found is None or found.value["message"] == message["id"]
        return True

    async def forget(self, account: str) -> None:
        """Removes the markers of a deleted account."""
        await self._table.clear(storable(account))

    async def sweep(self, older_than: timedelta) -> int:
        """Removes markers not touched for that long; the number removed."""
        limit, removed = iso(self._clock() - older_than), 0
        async for row in self._table.scan():
            if row.value["at"] < limit:
                removed += await self._table.delete(row.partition, row.key)
        return removed


def _read(row: Row) -> Marker:
    value = row.value
    return Marker(
        key=row.key,
        id=value.get("id", ""),
        flags=value.get("flags", []),
        changes=value.get("changes", 0),
        folder=row.columns.get("folder", ""),
        walk=row.columns.get("walk", ""),
        pending=value.get("pending", False),
        left=value.get("left", False),
        canary=value.get("canary", False),
        etag=row.etag,
    )
