"""Uploads under way that take several calls: what a process that dies leaves of them is cleared away by the sweep.

The records lie beside those of large mails on their way out (large_mail.py), and end like those of a mail that no
outbox record stands for: the draft is deleted.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta

from shared.clock import Clock, iso
from shared.large_mail import BUILDING
from shared.outbox_records import shard
from shared.storage.keys import queue_id
from shared.storage.tables import Row, Table

BUSY_FOR = timedelta(minutes=10)  # longer than a function runs (host.json)


class Unfinished:
    """Keeps a record of each upload for as long as it takes."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table, self._clock = table, clock

    async def begin(self, account: str, message_id: str) -> Row:
        """Noted before the draft is made; one transaction."""
        now = self._clock()
        key = queue_id(int(now.timestamp() * 1000))
        value = {
            "account": account, "messageId": message_id, "stage": BUILDING, "begun": iso(now), "id": "", "attached": 0,
            "upload": "", "late": False, "gone": 0, "run": secrets.token_hex(8), "until": iso(now + BUSY_FOR),
        }  # fmt: skip
        return await self._table.insert(Row(shard(key), key, value))

    async def made(self, row: Row, draft_id: str) -> Row:
        """The draft is there under this id; one transaction."""
        return await self._table.replace(replace(row, value=row.value | {"id": draft_id}))

    async def done(self, row: Row) -> None:
        """It is whole; one transaction."""
        await self._table.delete(row.partition, row.key)
