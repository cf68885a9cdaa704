"""The data of events too large for their record (attachments, long texts), kept in a blob until they are delivered.

The blob is written before the record and dropped after the delivery, so a process that dies in between leaves a blob
too many, which goes when its event could no longer be delivered, and never a record without its data.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from shared.storage.blobs import Blobs
from shared.storage.keys import digest
from shared.storage.tables import Row

INLINE_BYTES = 600_000  # data up to this size stays in the record
_SMALL = 2_000  # characters of one field that the record keeps of larger data, for filters and listings
KEPT_FOR = timedelta(days=65)  # held for a month, then dead for another


class EventContents:
    """Keeps what does not fit into the records of events."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def lighten(self, account: str, key: str, data: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """(the data the record keeps, the name of the blob with all of it). Data that fits is kept as it is, with
        "" for a name and no transaction."""
        raw = json.dumps(data, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if len(raw) <= INLINE_BYTES:
            return data, ""
        name = f"{_folder(account)}{digest(key)}"
        await self._blobs.put(name, raw)
        return {field: value for field, value in data.items() if len(json.dumps(value)) <= _SMALL}, name

    async def whole(self, row: Row) -> dict[str, Any]:
        """The envelope of a recorded event with all its data; with what the record has when the blob is gone."""
        envelope: dict[str, Any] = row.value["envelope"]
        raw = await self._blobs.get(row.value["contents"]) if row.value.get("contents") else None
        return envelope | {"data": json.loads(raw.decode("utf-8", "surrogatepass"))} if raw else envelope

    async def drop(self, row: Row) -> None:
        """The event was delivered, or never will be: its data goes. Copies of an event for webhook routes share it;
        it goes by its age then."""
        if row.value.get("contents") and "route" not in row.value and not row.value.get("routes"):
            await self._blobs.delete(row.value["contents"])

    async def forget(self, account: str, now: datetime) -> None:
        """Removes the data of a deleted account's events."""
        async for name in self._blobs.old(_folder(account), now + timedelta(days=1)):
            await self._blobs.delete(name)

    async def sweep(self, now: datetime) -> int:
        """Removes the data of events that ended without it; the number removed."""
        removed = 0
        async for name in self._blobs.old("events/", now - KEPT_FOR):
            await self._blobs.delete(name)
            removed += 1
        return removed


def _folder(account: str) -> str:
    return f"events/{digest(account)}/"
