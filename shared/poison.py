"""Poison messages: work that failed five times, kept where it can be seen and put back.

The Functions host moves such a message to `<queue>-poison`, where it expires after seven days and nobody looks
(functions-host.md 17). Here each becomes a record before it leaves that queue. Queue messages hold ids, never mail.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from shared.clock import Clock, iso, parse_time
from shared.errors import NotFound, StorageConflict
from shared.storage.queues import Queues
from shared.storage.tables import Row, Table

SUFFIX = "-poison"
HIDDEN_S = 300
MOST_AT_ONCE = 1000
CLAIMED_FOR = timedelta(seconds=60)  # a replay without an end after that has lost its process
KEPT_FOR = timedelta(days=90)
log = logging.getLogger("graphpost.poison")


def tell(queue: str, count: int) -> None:
    """The number of poison messages that are kept of a queue; what exports metrics is called from here."""
    log.log(logging.WARNING if count else logging.INFO, "graphpost.poison.messages queue=%s count=%d", queue, count)


class Poison:
    """Keeps, shows and replays poison messages. `queues` are the names of the queues that are watched."""

    def __init__(self, table: Table, queues: Queues, clock: Clock, names: Sequence[str]) -> None:
        self._table, self._queues, self._clock, self._names = table, queues, clock, names

    # -- keeping -------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Makes a record of every message on the poison queues, and tells how many are kept."""
        for queue in self._names:
            left = MOST_AT_ONCE
            while left > 0 and (messages := await self._queues.take(queue + SUFFIX, left, HIDDEN_S)):
                for message in messages:
                    await self._move(queue, message)
                left -= len(messages)
            tell(queue, await self.count(queue))

    async def _move(self, queue: str, message: Any) -> None:
        """The record before the message goes: dying in between, the message comes back and makes the same record."""
        text, is_plain = _text(message.content)
        inserted = iso(message.inserted_on) if message.inserted_on else iso(self._clock())
        value = {"text": text, "inserted": inserted, "kept": iso(self._clock()), "reason": "failed five times"}
        await self._table.put(Row(queue, message.id, value | ({"encoding": "none"} if is_plain else {})))
        await self._queues.remove(queue + SUFFIX, message)

    async def keep(self, queue: str, text: str, reason: str, key: str) -> None:
        """Keeps a message that can not be worked off, without letting it fail five times first; once for a `key`."""
        now = iso(self._clock())
        value = {"text": text, "inserted": now, "kept": now, "reason": reason}
        await self._table.put(Row(queue, key, value))

    # -- showing -------------------------------------------------------------------------------------------

    async def count(self, queue: str) -> int:
        """How many are kept of a queue."""
        return len(await self._table.keys("PartitionKey eq @p", {"p": queue}))

    async def views(self, queue: str) -> list[dict[str, Any]]:
        """The kept messages of a queue, oldest first: `{id, inserted, kept, reason, message}`."""
        rows = await self._table.partition(queue)
        return [_view(row) for row in sorted(rows, key=lambda row: str(row.value["inserted"]))]

    # -- acting --------------------------------------------------------------------------------------------

    async def replay(self, queue: str, message_id: str | None = None) -> int:
        """Puts one message, or all, back on their queue; how many. NotFound for an id that is not kept. Jobs are
        idempotent, so one that was put back twice by a process that died does no harm."""
        if message_id is None:
            rows = (await self._table.partition(queue))[:MOST_AT_ONCE]
        else:
            row = await self._table.get(queue, message_id)
            if row is None:
                raise poison_not_found()
            rows = [row]
        return sum([await self._put_back(row) for row in rows])

    async def _put_back(self, row: Row) -> bool:
        claimed_at = row.value.get("claimed")
        if claimed_at and parse_time(claimed_at) > self._clock() - CLAIMED_FOR:
            return False
        try:
            row = await self._table.replace(
                Row(row.partition, row.key, row.value | {"claimed": iso(self._clock())}, row.etag)
            )
        except StorageConflict:
            return False  # somebody else replays it at the same moment
        await self._queues.put_text(row.partition, row.value["text"])
        await self._table.delete(row.partition, row.key)
        return True

    async def drop(self, queue: str, message_id: str) -> bool:
        """True when a message was removed for good."""
        return await self._table.delete(queue, message_id)

    async def forget(self, account: str) -> None:
        """Removes the messages about a deleted account."""
        async for row in self._table.scan():
            if _account_of(row.value["text"]) == account:
                await self._table.delete(row.partition, row.key)

    async def sweep(self) -> int:
        """Removes what nobody wanted for three months; how many."""
        limit, removed = iso(self._clock() - KEPT_FOR), 0
        async for row in self._table.scan():
            if row.value["kept"] < limit:
                removed += await self._table.delete(row.partition, row.key)
        return removed


def poison_not_found() -> NotFound:
    return NotFound("Requested message was not found", "MessageNotFound")


def _text(content: str) -> tuple[str, bool]:
    """The text of a message, and whether it was not in base64, which the host takes for poison as it is."""
    try:
        return base64.b64decode(content, validate=True).decode(), False
    except (binascii.Error, ValueError):
        return content, True


def _account_of(text: str) -> str | None:
    try:
        content = json.loads(text[text.index("{") :])
        found = (content.get("job") or content).get("account")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _view(row: Row) -> dict[str, Any]:
    names = ("inserted", "kept", "reason", "encoding")
    shown: dict[str, Any] = {name: row.value[name] for name in names if name in row.value}
    return {"id": row.key, **shown, "message": row.value["text"]}
