"""The outbox as records: what waits, who may change it, what callers see of it.

A mail's row is the one place that decides: it is inserted once, every step of sending changes it by compare-and-swap,
and it outlives its mail for a while without the body, so that a late message or a repeated request finds the end and
not a gap. The body lies beside the document, so that neither a step nor a listing moves it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from shared.clock import Clock, iso, parse_time
from shared.errors import ApiError, OutcomeOpen, RecordDamaged, RecordTooLarge, StorageConflict
from shared.mail_parts import Part, part_name
from shared.schedule import Schedule
from shared.storage.blobs import Blobs
from shared.storage.keys import storable
from shared.storage.tables import Row, Table

QUEUE = "outbox"
PUTS_AT_ONCE = 4
INLINE_LIMIT = 500_000  # a body up to this size is kept in the record, a larger one in a blob
WAITING, SENDING, UNCLEAR = "queued", "sending", "unclear"
SENT, FAILED, UNKNOWN, CANCELLED = "sent", "failed", "unknown", "cancelled"
UNDERWAY = (WAITING, SENDING, UNCLEAR)
VOID = "void"  # stands where a mail could not be stored, so that no write still under way can bring it back
HIDDEN = (SENT, CANCELLED, VOID)
COLUMNS = ("state", "account")  # what a reader needs who does not send


@dataclass(frozen=True)
class Sending:
    """A mail as it is stored: everything the send function needs, built when it was accepted."""

    queue_id: str
    account: str
    message_id: str
    envelope: dict[str, Any]
    subject: str
    created: str
    structured: bool
    body: bytes = field(repr=False)
    birth: str = ""  # which account of this id: one that was deleted and made again must not send it
    lane: str = ""
    key: str = ""
    payload: str = ""  # hash of the request that brought it, when it had a key
    writer: str = ""  # names the call that built it: two may compete for one queue id
    draft: str = ""  # the message of the mailbox that is sent, when there is no body
    parts: tuple[Part, ...] = ()  # attachments that no longer fit into the body's request
    reference: dict[str, Any] | None = None  # what the caller is told of the message this one refers to


def is_queue_id(text: str) -> bool:
    """Whether this can be one of ours; anything else may not even be allowed as a key."""
    return re.fullmatch(r"[0-9a-f]{19}", text) is not None


def queue_id_of(blob: str) -> str:
    """The queue id of the mail whose body or part this blob is."""
    return blob.split("/")[1].partition("-")[0]


def shard(queue_id: str) -> str:
    """The partition of a queue id: its last two digits, which are random."""
    return queue_id[-2:]


def with_state(row: Row, state: str) -> dict[str, Any]:
    """The columns of a row in another state."""
    return {"state": state, "account": row.columns["account"]}


class OutboxRecords:
    """Stores accepted mails and shows what waits. `Outbox` adds the sending."""

    def __init__(self, table: Table, blobs: Blobs, schedule: Schedule, clock: Clock) -> None:
        self._table, self._blobs, self._schedule, self._clock = table, blobs, schedule, clock

    # -- accepting -----------------------------------------------------------------------------------------

    async def add(self, sending: Sending, send_at: datetime, attempts: int, *, busy: bool = False) -> Row:
        """Makes the mail durable and queues its send. Two transactions, one more for a large body and for each part.

        The row that stands for the queue id afterwards: this mail's, or that of another call that was given the same
        id and was faster; `writer` of its document tells. Raises OutcomeOpen when storage could not tell either.
        """
        row = self._row(sending, send_at, attempts)
        if "blob" in row.value:
            await self._blobs.put(row.value["blob"], sending.body)
            await self._put_parts(row.value["blob"], sending.parts)
        # The message before the record: dying in between, nothing was accepted and nothing is sent. The other way
        # round, a caller who got no answer would find the mail sent an hour later, beside his second try.
        job = self.job(row) | ({"busy": True} if busy else {})
        await self._schedule.once(send_at, QUEUE, job)
        try:
            return await self._table.insert(row)
        except RecordTooLarge:
            raise
        except StorageConflict:
            return await self._decided(row)
        except Exception as problem:
            return await self._called_off(row, problem)

    async def _put_parts(self, blob: str, parts: Sequence[Part]) -> None:
        """Keeps the parts, one blob each, a few at a time."""
        for first in range(0, len(parts), PUTS_AT_ONCE):
            some = enumerate(parts[first : first + PUTS_AT_ONCE], first)
            await asyncio.gather(*(self._blobs.put(part_name(blob, n), part.content) for n, part in some))

    def _row(self, sending: Sending, send_at: datetime, attempts: int) -> Row:
        body = sending.body
        value = {
            "account": sending.account,
            "messageId": sending.message_id,
            "envelope": sending.envelope,
            "subject": sending.subject,
            "created": sending.created,
            "scheduled": iso(send_at),
            "nextAttempt": iso(send_at),
            "structured": sending.structured,
            "attempts": attempts,
            "attemptsMade": 0,
            "birth": sending.birth,
            "lane": sending.lane,
            "writer": sending.writer,
        }
        if sending.key:
            value |= {"idempotencyKey": sending.key, "payload": sending.payload}
        if sending.reference:
            value["reference"] = sending.reference
        if sending.draft:
            value["draft"] = sending.draft
        if sending.reference:
            value["reference"] = sending.reference
        if sending.parts:
            value["parts"] = [part.listed() for part in sending.parts]
        if len(body) > INLINE_LIMIT or sending.parts:
            value["blob"], body = f"outbox/{sending.queue_id}-{sending.writer}", b""
        columns = {"state": WAITING, "account": storable(sending.account)}
        return Row(shard(sending.queue_id), sending.queue_id, value, columns=columns, body=body)

    @staticmethod
    def job(row: Row) -> dict[str, Any]:
        """The message that sends this mail."""
        lane = row.value.get("lane")
        return {"queueId": row.key} | ({"mailbox": lane} if lane else {})

    async def _decided(self, row: Row) -> Row:
        """What stands in the place of a row that could not be inserted: itself, written by a repeat of the storage
        client whose first answer was lost, or another."""
        there = await self.stored(row.key)
        if there is None or there.value.get("writer") != row.value["writer"]:
            if "blob" in row.value:
                await self._drop_blobs(row)
            if there is None or there.columns["state"] == VOID:
                raise ApiError(503, "The mail could not be stored. Send it again", "StorageUnavailable")
        return there

    async def _called_off(self, row: Row, problem: Exception) -> Row:
        """After a failed insert, which may have been carried out or may still be: a void row takes its place, and
        `problem` is raised; or the row is there, and the mail is accepted."""
        columns = {"state": VOID, "account": row.columns["account"]}
        value = {"account": row.value["account"], "birth": row.value["birth"], "ended": iso(self._clock())}
        value |= {name: row.value[name] for name in ("blob", "parts") if name in row.value}
        try:
            await self._table.insert(Row(row.partition, row.key, value, columns=columns))
        except StorageConflict:
            there = await self.stored(row.key)
            if there is not None and there.columns["state"] != VOID:
                return there
        except Exception:
            raise OutcomeOpen() from problem
        raise problem

    async def stored(self, queue_id: str) -> Row | None:
        """The row of a mail without its body, whatever became of it."""
        return await self._table.get(shard(queue_id), queue_id, COLUMNS)

    # -- ending --------------------------------------------------------------------------------------------

    async def _ended(self, row: Row, state: str, error: dict[str, Any] | None = None, **more: Any) -> None:
        """The record without the body stays for a while, so that its end can be looked up. StorageConflict."""
        value = {name: content for name, content in row.value.items() if name != "body"}
        value |= {"nextAttempt": False, "ended": iso(self._clock()), "error": error, **more}
        await self._table.replace(replace(row, value=value, columns=with_state(row, state), body=b""))
        await self._drop_blobs(row)

    async def _drop_blobs(self, row: Row) -> None:
        if "blob" in row.value:
            await self._blobs.delete(row.value["blob"])
            for number in range(len(row.value.get("parts") or ())):
                await self._blobs.delete(part_name(row.value["blob"], number))

    async def _remove(self, row: Row) -> None:
        """The record and its body."""
        await self._table.delete(row.partition, row.key)
        await self._drop_blobs(row)

    async def drop_account(self, account: str, birth: str) -> None:
        """Removes every mail of an account that is going away, but not those of a later one with its id; damaged ones
        too. Without a `birth`, which a damaged account lacks, all."""
        for partition, key in await self._table.keys("account eq @a", {"a": storable(account)}):
            try:
                row = await self.stored(key)
            except RecordDamaged:
                await self._table.delete(partition, key)  # the sweep finds its draft and contents
                continue
            if row is not None and (not birth or row.value.get("birth", birth) == birth):
                await self._remove(row)

    async def cancel(self, queue_id: str) -> bool:
        """True when the mail was waiting and is now never sent; false when unknown or being sent. A damaged record,
        with which nothing else can be done, goes."""
        try:
            row = await self.stored(queue_id) if is_queue_id(queue_id) else None
        except RecordDamaged:
            return await self._table.delete(shard(queue_id), queue_id)
        if row is None or row.columns["state"] != WAITING:
            return False
        by = secrets.token_hex(8)
        try:
            await self._ended(row, CANCELLED, cancelledBy=by)
        except StorageConflict:
            # A worker or another caller was faster, or it was our own write, repeated after a lost answer.
            there = await self.stored(queue_id)
            if there is None or there.value.get("cancelledBy") != by:
                return False
            await self._drop_blobs(row)
        if row.value.get("parts"):
            await self._schedule.once(self._clock(), QUEUE, {"queueId": row.key, "clear": True})
        return True

    # -- looking -------------------------------------------------------------------------------------------

    async def entry(self, queue_id: str) -> dict[str, Any] | None:
        """One entry as the API shows it (15); delivered and cancelled ones are gone."""
        row = await self.stored(queue_id) if is_queue_id(queue_id) else None
        return entry_view(row) if row is not None and row.columns["state"] not in HIDDEN else None

    async def entries(self) -> list[dict[str, Any]]:
        """Every entry that is not delivered: delayed ones, then waiting, active and failed ones, each oldest first
        (15)."""
        query = " and ".join(f"state ne '{state}'" for state in HIDDEN)
        rows = [row async for row in self._table.scan(query, columns=COLUMNS)]
        now = self._clock()
        rows.sort(key=lambda row: (_place(row, now), row.value["scheduled"], row.key))
        return [entry_view(row) for row in rows]

    async def take_up(self, older_than: timedelta) -> int:
        """Queues again what should have moved long ago, because its message was lost; the number queued."""
        limit, found = iso(self._clock() - older_than), 0
        query = "state eq 'queued' or state eq 'sending' or state eq 'unclear'"
        async for row in self._table.scan(query, columns=COLUMNS):
            since = row.value["sendingSince"] if row.columns["state"] == SENDING else row.value["nextAttempt"]
            if since < limit:
                await self._schedule.once(self._clock(), QUEUE, self.job(row))
                found += 1
        return found

    async def sweep(self, older_than: timedelta) -> int:
        """Removes the records of ended mails older than that; the number removed."""
        limit, removed = iso(self._clock() - older_than), 0
        query = " or ".join(f"state eq '{state}'" for state in (SENT, FAILED, UNKNOWN, CANCELLED, VOID))
        async for row in self._table.scan(query, columns=COLUMNS):
            if row.value.get("ended", limit) < limit:
                await self._drop_blobs(row)  # again: the process may have died before it did
                removed += await self._table.delete(row.partition, row.key)
        return removed


def _place(row: Row, now: datetime) -> int:
    """0 delayed, 1 waiting, 2 active, 3 failed."""
    state = row.columns["state"]
    if state == WAITING:
        return 0 if parse_time(row.value["nextAttempt"]) > now else 1
    return 2 if state in (SENDING, UNCLEAR) else 3


_PROGRESS = {
    WAITING: "queued",
    SENDING: "processing",
    UNCLEAR: "processing",
    FAILED: "error",
    UNKNOWN: "error",
}


def entry_view(row: Row) -> dict[str, Any]:
    """A queue entry of the contract (15)."""
    value = row.value
    progress: dict[str, Any] = {"status": _PROGRESS[row.columns["state"]]}
    if value.get("error"):
        progress["error"] = value["error"]
    shown = {
        "queueId": row.key,
        "account": value["account"],
        "source": "api",
        "messageId": value["messageId"],
        "envelope": value["envelope"],
        "subject": value["subject"],
        "created": value["created"],
        "scheduled": value["scheduled"],
        "nextAttempt": value["nextAttempt"],
        "attemptsMade": value["attemptsMade"],
        "attempts": value["attempts"],
        "progress": progress,
        "useStructuredFormat": value["structured"],
    }
    return shown | ({"idempotencyKey": value["idempotencyKey"]} if "idempotencyKey" in value else {})
