"""One answer for one Idempotency-Key, however often and by however many callers at once it is used (14.10).

A key's record reserves a queue id before anything else is written. Whether the call took place is decided elsewhere,
by the outbox's row of that id, which can be inserted only once: so a slow holder and the one who took over from it,
a crash and a repeat, all end with one mail and name the same one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from shared.clock import Clock, iso, parse_time
from shared.errors import OutcomeOpen, StorageConflict
from shared.outbox_records import VOID
from shared.storage.keys import digest, storable
from shared.storage.tables import Row, Table

log = logging.getLogger("graphpost.idempotency")

LEASE = timedelta(seconds=30)
RENEWED_EVERY_S = 10.0
MOST_RENEWALS = 60  # for ten minutes: no answer takes longer
KEPT = timedelta(hours=24)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0

Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True)
class KeyedCall:
    """One use of a key. `birth` tells an account from an earlier one with the same id."""

    account: str
    birth: str
    key: str

    @property
    def partition(self) -> str:
        return storable(self.account)

    @property
    def row_key(self) -> str:
        return digest(self.key)


def payload_hash(fields: Mapping[str, Any], **query: Any) -> str:
    """Stands for a validated request: equal for equal fields and query, in whatever order they were given."""
    text = json.dumps({"fields": fields, "query": query}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Idempotency:
    """Runs a call once for each key."""

    def __init__(
        self,
        table: Table,
        stored: Callable[[str], Awaitable[Row | None]],
        clock: Clock,
        pause: Pause = asyncio.sleep,
        token: Callable[[], str] = lambda: secrets.token_hex(8),
        between: Pause = asyncio.sleep,
    ) -> None:
        """`stored` reads the outbox's row of a queue id; `between` waits from one renewal of a lease to the next."""
        self._table, self._stored, self._clock = table, stored, clock
        self._pause, self._token, self._between = pause, token, between

    async def once(
        self, call: KeyedCall, new_queue_id: Callable[[], str], first: Callable[[str], Awaitable[Row]]
    ) -> Row:
        """The outbox's row for this key: made by `first` under the queue id it is given, or by an earlier call.

        `first` gives the row that decided, which may be another's. Its failure frees the key and is raised. While
        another call holds the key this one waits, at most until that one's lease has ended.
        """
        owner, pause_s = self._token(), FIRST_PAUSE_S
        while True:
            held = await self._reserve(call, owner, new_queue_id)
            if held is None:
                record = await self._table.get(call.partition, call.row_key)
                if record is None:
                    continue  # freed this moment
                row = await self._stored(record.value["queueId"]) if self._is_current(record, call) else None
                if row is not None and row.columns["state"] != VOID:
                    return row
                held = await self._replace(call, record, row, owner, new_queue_id)
            if held is not None:
                return await self._perform(held, first)
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _reserve(self, call: KeyedCall, owner: str, new_queue_id: Callable[[], str]) -> Row | None:
        """The record of a first call; None when there is one already."""
        row = Row(call.partition, call.row_key, *self._content(call, owner, new_queue_id(), iso(self._clock())))
        try:
            return await self._table.insert(row)
        except StorageConflict:
            return None

    async def _replace(
        self, call: KeyedCall, record: Row, row: Row | None, owner: str, new_queue_id: Callable[[], str]
    ) -> Row | None:
        """The record, ours now: of a call that came to nothing, with a new queue id, or of a holder that is gone, with
        its own. None while the holder may still be at work."""
        is_over = row is not None or not self._is_current(record, call)
        own = record.value["owner"] == owner  # our write, repeated by the storage client after a lost answer
        if not (is_over or own or parse_time(record.value["until"]) <= self._clock()):
            return None
        if own and not is_over:
            return record
        queue_id, made = record.value["queueId"], record.columns["at"]
        if is_over:
            queue_id, made = new_queue_id(), iso(self._clock())
        value, etag, columns = self._content(call, owner, queue_id, made, record.etag)
        try:
            return await self._table.replace(Row(call.partition, call.row_key, value, etag, columns))
        except StorageConflict:
            return None

    def _content(
        self, call: KeyedCall, owner: str, queue_id: str, made: str, etag: str = ""
    ) -> tuple[dict[str, Any], str, dict[str, Any]]:
        until = iso(self._clock() + LEASE)
        value = {"queueId": queue_id, "owner": owner, "until": until, "birth": call.birth}
        return value, etag, {"at": made}

    def _is_current(self, record: Row, call: KeyedCall) -> bool:
        """False for what is older than a key is kept, or belongs to an earlier account of this id."""
        age = self._clock() - parse_time(record.columns["at"])
        return age < KEPT and record.value["birth"] == call.birth

    async def _perform(self, held: Row, first: Callable[[str], Awaitable[Row]]) -> Row:
        newest = [held]
        renewing = asyncio.create_task(self._renew(newest))
        try:
            return await first(held.value["queueId"])
        except OutcomeOpen:
            raise  # the mail may yet be there: the key stays with its queue id
        except Exception:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await self._free(newest[0])
            raise
        finally:
            renewing.cancel()

    async def _renew(self, newest: list[Row]) -> None:
        """Keeps the key for a call that takes long, such as one that fetches attachments by reference: a repeat waits,
        and does not put its own mail in the place. Ends when another call has taken over."""
        for _ in range(MOST_RENEWALS):
            await self._between(RENEWED_EVERY_S)
            try:
                newest[0] = await self._renewed(newest[0])
            except StorageConflict:
                return
            except Exception as problem:  # storage is out of reach; the next look may succeed
                log.warning("a key could not be kept: %s", type(problem).__name__)

    async def _renewed(self, held: Row) -> Row:
        value = held.value | {"until": iso(self._clock() + LEASE)}
        try:
            return await self._table.replace(replace(held, value=value))
        except StorageConflict:
            # Our own write, repeated by the storage client after a lost answer, names its time.
            there = await self._table.get(held.partition, held.key)
            if there is None or there.value != value:
                raise
            return there

    async def _free(self, held: Row) -> None:
        """The key of a failed call is free at once; when that cannot be written, at the end of the lease. It keeps
        its queue id: the call this one took over from may be slow rather than gone, and still store its mail."""
        from azure.core.exceptions import AzureError

        try:
            ended = held.value | {"until": iso(self._clock())}
            await self._table.replace(replace(held, value=ended))
        except StorageConflict:
            pass  # taken over meanwhile
        except AzureError as problem:
            log.warning("a key is freed by the end of its lease: %s", type(problem).__name__)

    async def forget(self, account: str, birth: str) -> None:
        """Removes the keys of an account that is going away; without a `birth`, which a damaged account lacks, all
        keys of its id."""
        if not birth:
            await self._table.clear(storable(account))
            return
        for row in await self._table.partition(storable(account)):
            if row.value["birth"] == birth:
                await self._table.delete(row.partition, row.key)

    async def sweep(self) -> int:
        """Removes the keys that are no longer kept; the number removed."""
        removed = 0
        async for row in self._table.scan("at lt @t", {"t": iso(self._clock() - KEPT)}):
            try:
                removed += await self._table.delete(row.partition, row.key, row.etag)
            except StorageConflict:
                continue  # in use again
        return removed
