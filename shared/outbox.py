"""Sending what was accepted: one attempt a call, with an honest end.

A mail is `queued`, then `sending` from before the Graph call until after it, then `sent`, `failed`, or, when
nobody can tell, `unknown`. A send whose answer was unclear is looked for by its Message-ID; it is never
repeated on a guess.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach, Record, auth_of, delegate_of
from shared.clock import Clock, iso, parse_time
from shared.errors import ApiError, CredentialError, GraphFailure, StorageConflict
from shared.graph import requests
from shared.graph.failures import MEANINGS, hint, is_transient
from shared.schedule import Schedule
from shared.storage.blobs import Blobs
from shared.storage.keys import storable
from shared.storage.tables import Row, Table
from shared.webhooks import Events

QUEUE = "outbox"
INLINE_LIMIT = 500_000  # a body up to this size is kept in the record, a larger one in a blob
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 3600.0
RUN_S = 600  # a send still marked so long after its start has lost its process
# Waits before each look for a mail whose send was unclear; the last one repeats. Exchange files the copy within
# seconds, sometimes later (graph.md 6.1), so absence counts only when it was seen several times over minutes.
LOOKS_S = (15, 45, 90, 300)
ABSENCES = 3
EARLY_TRIES, EARLY_S = 3, 2  # a message that finds no record looks again that often, after that long
CLOCKS_DIFFER = timedelta(seconds=2)
MOST_LOOKS = 10
WAITING, SENDING, UNCLEAR = "queued", "sending", "unclear"


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


def is_queue_id(text: str) -> bool:
    """Whether this can be one of ours; anything else may not even be allowed as a key."""
    return re.fullmatch(r"[0-9a-f]{19}", text) is not None


def shard(queue_id: str) -> str:
    """The partition of a queue id: its last two digits, which are random."""
    return queue_id[-2:]


def pause_s(attempt: int, jitter: Callable[[], float] = random.random) -> float:
    """The wait after failed attempt number `attempt`: 5 s doubling up to an hour, give or take a fifth."""
    return min(FIRST_PAUSE_S * 2.0 ** (attempt - 1), LONGEST_PAUSE_S) * (0.8 + 0.4 * jitter())


class Outbox:
    """Stores accepted mails, sends them, and shows what waits."""

    def __init__(
        self,
        table: Table,
        blobs: Blobs,
        schedule: Schedule,
        accounts: Accounts,
        access: Access,
        events: Events,
        clock: Clock,
    ) -> None:
        self._table, self._blobs, self._schedule = table, blobs, schedule
        self._accounts, self._access, self._events, self._clock = accounts, access, events, clock

    # -- accepting -----------------------------------------------------------------------------------------

    async def add(self, sending: Sending, send_at: datetime, attempts: int) -> None:
        """Makes the mail durable and queues its send. Two transactions, one more for a large body."""
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
        }
        if len(sending.body) <= INLINE_LIMIT:
            value["body"] = base64.b64encode(sending.body).decode()
        else:
            await self._blobs.put(_blob(sending.queue_id), sending.body)
        columns = {"state": WAITING, "account": storable(sending.account)}
        # The message before the record: dying in between, nothing was accepted and nothing is sent. The other way
        # round, a caller who got no answer would find the mail sent an hour later, beside his second try.
        await self._schedule.once(send_at, QUEUE, {"queueId": sending.queue_id})
        with suppress(StorageConflict):  # our own write, repeated by the storage client after a lost answer
            await self._table.insert(Row(shard(sending.queue_id), sending.queue_id, value, columns=columns))

    # -- sending -------------------------------------------------------------------------------------------

    async def send(self, job: dict[str, Any]) -> None:
        """One attempt, or one look for a mail whose send was unclear."""
        queue_id = job["queueId"]
        row = await self._table.get(shard(queue_id), queue_id)
        if row is None:
            # Cancelled, deleted with its account, or faster here than its record.
            if job.get("early", 0) < EARLY_TRIES:
                when = self._clock() + timedelta(seconds=EARLY_S)
                await self._schedule.once(when, QUEUE, {"queueId": queue_id, "early": job.get("early", 0) + 1})
            return
        state, early = row.columns["state"], self._is_early(row)
        if state in (WAITING, UNCLEAR) and early:
            # A message of an earlier turn, or a clock ahead of ours.
            await self._schedule.once(parse_time(row.value["nextAttempt"]), QUEUE, job)
        elif state == WAITING:
            await self._attempt(row)
        elif state == SENDING and not self._is_lost(row):
            await self._schedule.once(self._clock() + timedelta(seconds=60), QUEUE, job)
        elif state in (SENDING, UNCLEAR):
            await self._look(row, "the process that sent it ended before Graph answered")

    def _is_early(self, row: Row) -> bool:
        following = row.value["nextAttempt"]
        return isinstance(following, str) and parse_time(following) - self._clock() > CLOCKS_DIFFER

    def _is_lost(self, row: Row) -> bool:
        since = parse_time(row.value["sendingSince"])
        return self._clock() - since >= timedelta(seconds=RUN_S)

    async def _attempt(self, row: Row) -> None:
        value = row.value | {"sendingSince": iso(self._clock()), "attemptsMade": row.value["attemptsMade"] + 1}
        try:
            row = await self._table.replace(Row(row.partition, row.key, value, row.etag, _columns(row, SENDING)))
        except StorageConflict:
            # Another worker took it, or it was cancelled, or this was our own write, repeated after a lost answer.
            # A message that comes later tells which; without one the mail could be forgotten.
            await self._schedule.once(self._clock() + timedelta(seconds=RUN_S), QUEUE, {"queueId": row.key})
            return
        record = await self._accounts.find(value["account"])
        if record is None:
            await self._remove(row)
            return
        try:
            reach = await self._accounts.reach(record)
            await self._transmit(row, reach)
        except CredentialError as failure:
            await self._failed(row, record, str(failure), "AuthenticationFails", again=True)
        except GraphFailure as failure:
            await self._refused(row, record, failure)
        else:
            await self._sent(row)

    async def _transmit(self, row: Row, reach: Reach) -> None:
        stored = row.value.get("body")
        body = base64.b64decode(stored) if stored is not None else await self._blobs.get(_blob(row.key))
        if body is None:
            raise GraphFailure(400, "BodyMissing", "The stored body of the mail is gone")
        if row.value["structured"]:
            message = json.loads(body)
            await self._access.call(reach, lambda c: requests.send_structured(c, reach.mailbox, message))
        else:
            await self._access.call(reach, lambda c: requests.send_mime(c, reach.mailbox, body))

    async def _sent(self, row: Row) -> None:
        """The event first: dying in between, the next look finds the mail and records the same event."""
        data = self._about(row) | {
            "originalMessageId": row.value["messageId"],
            "envelope": row.value["envelope"],
        }
        await self._events.emit(row.value["account"], "messageSent", data, happening=f"sent {row.key}")
        await self._end(row, "sent")

    async def _refused(self, row: Row, record: Record, failure: GraphFailure) -> None:
        """Graph answered with an error, or not at all."""
        if failure.may_have_acted:
            # A server that was busy rarely did the work all the same, so two looks are enough.
            needed = 2 if failure.status == 503 else ABSENCES
            await self._look_later(replace(row, value=row.value | {"absencesNeeded": needed}), str(failure))
            return
        mailbox = auth_of(record).get("delegatedUser") or record.get("email") or record["account"]
        holder = await self._accounts.find((record.get("reach") or {}).get("holder") or "") or record
        text = " ".join(filter(None, (str(failure), hint(failure, mailbox, delegate_of(holder)))))
        code = MEANINGS[failure.code].code if failure.code in MEANINGS else failure.code
        if failure.status == 429:
            await self._wait(row, failure.retry_after_s or pause_s(2), counts=False)
            return
        again = is_transient(failure) or failure.status == 401
        await self._failed(row, record, text, code, status=failure.status, again=again, wait_s=failure.retry_after_s)

    async def _failed(
        self,
        row: Row,
        record: Record,
        text: str,
        code: str,
        *,
        again: bool,
        status: int = 0,
        wait_s: float | None = None,
    ) -> None:
        """A failed attempt: the next one is queued while attempts are left and it may help."""
        made, most = row.value["attemptsMade"], row.value["attempts"]
        retries = again and made < most
        wait_s = max(wait_s or 0.0, pause_s(made)) if retries else 0.0
        following = iso(self._clock() + timedelta(seconds=wait_s)) if retries else False
        job = {"id": row.key, "attemptsMade": made, "attempts": most, "nextAttempt": following}
        data = self._about(row) | {"envelope": row.value["envelope"], "error": text, "errorCode": code, "job": job}
        await self._events.emit(record["account"], "messageDeliveryError", data, happening=f"attempt {row.key} {made}")
        error = {"message": text, "code": code, "statusCode": status}
        if retries:
            await self._wait(row, wait_s, counts=True, error=error)
        else:
            await self._give_up(row, "failed", error)

    async def _give_up(self, row: Row, state: str, error: dict[str, Any]) -> None:
        data = self._about(row) | {"error": error["message"], "errorCode": error["code"]}
        await self._events.emit(row.value["account"], "messageFailed", data, happening=f"failed {row.key}")
        await self._end(row, state, error)

    async def _wait(self, row: Row, wait_s: float, *, counts: bool, error: dict[str, Any] | None = None) -> None:
        when = self._clock() + timedelta(seconds=wait_s)
        made = row.value["attemptsMade"] - (0 if counts else 1)
        value = row.value | {"nextAttempt": iso(when), "attemptsMade": made, "error": error}
        await self._settle(row, value, WAITING)
        await self._schedule.once(when, QUEUE, {"queueId": row.key})

    # -- unclear outcomes ----------------------------------------------------------------------------------

    async def _look_later(self, row: Row, reason: str, *, absences: int = 0) -> None:
        looks = row.value.get("looks", 0)
        when = self._clock() + timedelta(seconds=LOOKS_S[min(looks, len(LOOKS_S) - 1)])
        value = row.value | {"looks": looks + 1, "absences": absences, "reason": reason, "nextAttempt": iso(when)}
        await self._settle(row, value, UNCLEAR)
        await self._schedule.once(when, QUEUE, {"queueId": row.key})

    async def _look(self, row: Row, reason: str) -> None:
        """Looks for the mail in its mailbox. Found: sent. Absent in several looks, over minutes: not sent, so it
        is tried again. Neither, because nobody could look or it hangs in Drafts: unknown in the end."""
        reason = row.value.get("reason") or reason
        told = await self._events.seen(row.value["account"], f"sent {row.key}")
        finding = "sent" if told else await self._find(row)
        absences = row.value.get("absences", 0) + (finding == "absent")
        if finding == "sent":
            await self._sent(row)
        elif absences >= row.value.get("absencesNeeded", ABSENCES):
            record = await self._accounts.get(row.value["account"])
            fresh = replace(row, value=row.value | {"looks": 0, "absences": 0, "reason": ""})
            await self._failed(fresh, record, f"Not sent: {reason}", "ConnectionError", again=True)
        elif row.value.get("looks", 0) < MOST_LOOKS:
            await self._look_later(row, reason, absences=absences)
        else:
            text = (
                f"It is not known whether the mail was sent: {reason}, and its mailbox could not tell ({finding}). "
                "It is not sent again by itself; check with the recipient."
            )
            await self._give_up(row, "unknown", {"message": text, "code": "SendOutcomeUnknown", "statusCode": 0})

    async def _find(self, row: Row) -> str:
        """sent, draft (there but not sent), absent, or unreachable."""
        try:
            record = await self._accounts.get(row.value["account"])
            reach = await self._accounts.reach(record)
            message_id = row.value["messageId"]
            answer = await self._access.call(reach, lambda c: requests.sent_copy(c, reach.mailbox, message_id))
        except (CredentialError, GraphFailure, ApiError):
            return "unreachable"
        found = answer.json().get("value", ())
        if any(not one.get("isDraft") for one in found):
            return "sent"
        return "draft" if found else "absent"

    # -- the record ----------------------------------------------------------------------------------------

    @staticmethod
    def _about(row: Row) -> dict[str, Any]:
        return {"messageId": row.value["messageId"], "queueId": row.key}

    async def _settle(self, row: Row, value: dict[str, Any], state: str) -> None:
        with suppress(StorageConflict):  # cancelled meanwhile, or our own write after a lost answer
            await self._table.replace(Row(row.partition, row.key, value, row.etag, _columns(row, state)))

    async def _end(self, row: Row, state: str, error: dict[str, Any] | None = None) -> None:
        """The record without the body stays for a while, so that its end can be looked up."""
        value = {name: content for name, content in row.value.items() if name != "body"}
        value |= {"nextAttempt": False, "ended": iso(self._clock()), "error": error}
        await self._settle(row, value, state)
        if "body" not in row.value:
            await self._blobs.delete(_blob(row.key))

    async def drop_account(self, account: str) -> None:
        """Removes every mail of an account that is going away."""
        query = "account eq @a"
        async for row in self._table.scan(query, {"a": storable(account)}):
            await self._remove(row)

    async def _remove(self, row: Row, etag: str | None = None) -> bool:
        """The record and its body."""
        removed = await self._table.delete(row.partition, row.key, etag)
        if "body" not in row.value:
            await self._blobs.delete(_blob(row.key))
        return removed

    async def cancel(self, queue_id: str) -> bool:
        """True when the mail was waiting and is now gone; false when unknown or being sent."""
        row = await self._table.get(shard(queue_id), queue_id) if is_queue_id(queue_id) else None
        if row is None or row.columns["state"] != WAITING:
            return False
        try:
            return await self._remove(row, row.etag)
        except StorageConflict:
            return False  # a worker took it at the same moment

    async def entry(self, queue_id: str) -> dict[str, Any] | None:
        """One entry as the API shows it (15); delivered ones are gone."""
        row = await self._table.get(shard(queue_id), queue_id) if is_queue_id(queue_id) else None
        return entry_view(row) if row is not None and row.columns["state"] != "sent" else None

    async def entries(self) -> list[dict[str, Any]]:
        """Every entry that is not delivered, oldest first."""
        rows = [row async for row in self._table.scan("state ne 'sent'")]
        return [entry_view(row) for row in sorted(rows, key=lambda row: row.key)]

    async def take_up(self, older_than: timedelta) -> int:
        """Queues again what should have moved long ago, because its message was lost; the number queued."""
        limit, found = iso(self._clock() - older_than), 0
        async for row in self._table.scan("state eq 'queued' or state eq 'sending' or state eq 'unclear'"):
            since = row.value["sendingSince"] if row.columns["state"] == SENDING else row.value["nextAttempt"]
            if since < limit:
                await self._schedule.once(self._clock(), QUEUE, {"queueId": row.key})
                found += 1
        return found

    async def sweep(self, older_than: timedelta) -> int:
        """Removes the records of ended mails older than that; the number removed."""
        limit, removed = iso(self._clock() - older_than), 0
        async for row in self._table.scan("state eq 'sent' or state eq 'failed' or state eq 'unknown'"):
            if row.value.get("ended", limit) < limit:
                removed += await self._table.delete(row.partition, row.key)
        return removed


def _columns(row: Row, state: str) -> dict[str, Any]:
    return {"state": state, "account": row.columns["account"]}


def _blob(queue_id: str) -> str:
    return f"outbox/{queue_id}"


_PROGRESS = {
    WAITING: "queued",
    SENDING: "processing",
    UNCLEAR: "processing",
    "sent": "submitted",
    "failed": "error",
    "unknown": "error",
}


def entry_view(row: Row) -> dict[str, Any]:
    """A queue entry of the contract (15)."""
    value = row.value
    progress: dict[str, Any] = {"status": _PROGRESS[row.columns["state"]]}
    if value.get("error"):
        progress["error"] = value["error"]
    return {
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
