"""What GET /v1/changes tells: accounts that changed their state (emailengine.md 19.2).

A function answers at once or not at all, so nothing is streamed: the answer waits a while for something new, tells it
and ends, and the client asks again with the id of what it heard last. While it waits, storage is asked every few
seconds with one small query.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from shared.accounts import Record
from shared.clock import Clock
from shared.storage.keys import storable, time_key
from shared.storage.tables import Row, Table

PARTITION = "feed"
LOOK_S = 2.0
SETTLED_S = 1.0  # clocks of instances differ: what is younger may still be overtaken by something older
MOST = 500
KEPT_FOR = timedelta(days=1)
_ID = re.compile(r"[0-9]{15}(~[0-9a-f]{8})?")
_LABELS = {"connected": "success", "authenticationError": "danger", "connectError": "danger", "unset": "secondary"}
log = logging.getLogger("graphpost.change_feed")


class ChangeFeed:
    """Notes and tells changes."""

    def __init__(
        self, table: Table, clock: Clock, hold_s: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._table, self._clock, self._hold_s, self._sleep = table, clock, hold_s, sleep

    async def note(self, record: Record) -> None:
        """The account has another state than before. Never fails: the state is stored already."""
        error = record.get("lastError")
        entry = {"account": record["account"], "type": "state", "key": record["state"]}
        entry["payload"] = {"error": error} if error else None
        entry["stateLabel"] = {"type": _LABELS.get(record["state"], "info"), "name": record["state"]}
        columns = {"account": storable(record["account"])}
        try:
            await self._table.insert(Row(PARTITION, f"{self._at()}~{secrets.token_hex(4)}", entry, columns=columns))
        except Exception as problem:
            log.warning("a change of state was not told: %s", type(problem).__name__)

    async def wait(self, after: str | None) -> str:
        """A text of `text/event-stream` with what came after the event of this id, or comes within the time that is
        waited. Without an id, or with one of another kind, it begins now. Its last id is where to go on."""
        start = after if after and _ID.fullmatch(after) else self._at(SETTLED_S)
        ends = time.monotonic() + self._hold_s
        while not (found := await self._since(start)) and (left := ends - time.monotonic()) > 0:
            await self._sleep(min(LOOK_S, left))
        events = [f"id: {row.key}\ndata: {json.dumps(row.value)}\n\n" for row in found]
        return "".join([": Graphpost tells changes of accounts\nretry: 1000\n\n", *(events or [f"id: {start}\n\n"])])

    async def _since(self, after: str) -> list[Row]:
        query = "PartitionKey eq @p and RowKey gt @a and RowKey lt @b"
        given = {"p": PARTITION, "a": after, "b": self._at(SETTLED_S)}
        return [row async for row in self._table.scan(query, given, MOST)]

    async def forget(self, account: str) -> None:
        """Removes what was told of a deleted account."""
        found = await self._table.keys("PartitionKey eq @p and account eq @a", {"p": PARTITION, "a": storable(account)})
        await self._table.delete_all(PARTITION, [key for _, key in found])

    async def sweep(self) -> int:
        """Removes what is older than a day; how many."""
        query, before = "PartitionKey eq @p and RowKey lt @b", self._at(KEPT_FOR.total_seconds())
        found = await self._table.keys(query, {"p": PARTITION, "b": before})
        await self._table.delete_all(PARTITION, [key for _, key in found])
        return len(found)

    def _at(self, ago_s: float = 0) -> str:
        return time_key(self._clock().timestamp() - ago_s)
