"""Sending what was accepted: one attempt a call, with an honest end.

A mail is `queued`, then `sending` from before the Graph call until after it, then `sent`, `failed`, or, when
nobody can tell, `unknown`. A send whose answer was unclear is looked for in the mailbox; it is never repeated on a
guess.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from shared import draft_mail, traces
from shared.access import Access
from shared.accounts import Accounts, Reach, Record, auth_of, delegate_of
from shared.clock import Clock, iso, parse_time
from shared.errors import ApiError, CredentialError, GraphFailure, RecordDamaged, StorageConflict
from shared.events import Events
from shared.graph import requests
from shared.graph.failures import MEANINGS, hint, is_throttled, is_transient
from shared.graph.uploads import OutOfTime
from shared.lanes import Lanes
from shared.large_mail import LargeMail
from shared.outbox_records import (
    QUEUE,
    SENDING,
    SENT,
    UNCLEAR,
    UNDERWAY,
    UNKNOWN,
    WAITING,
    OutboxRecords,
    queue_id_of,
    shard,
    with_state,
)
from shared.schedule import Schedule
from shared.storage.blobs import Blobs
from shared.storage.tables import Row, Table

log = logging.getLogger("graphpost.outbox")
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 3600.0
# Throttled without being told for how long: 2 s doubling up to a minute (graph.md 11).
FIRST_THROTTLED_S, LONGEST_THROTTLED_S = 2.0, 60.0
RUN_S = 600  # a send still marked so long after its start has lost its process
# Waits before each look for a mail whose send was unclear; the last one repeats. Exchange files the copy within
# seconds, sometimes later (graph.md 6.1), so absence counts only when it was seen several times over minutes.
LOOKS_S = (15, 45, 90, 300)
ABSENCES = 3
EARLY_S = (2, 5, 15, 45)  # waits after which a message that finds no record looks again
CLOCKS_DIFFER = timedelta(seconds=2)
MOST_LOOKS = 10
LAST = 10**6  # the order of a mail's last event, after those of its attempts
_SHOWED = {
    traces.DRAFT: "the mail lies in Drafts, not sent",
    traces.ABSENT: "no copy was found",
    traces.UNREACHABLE: "the mailbox could not be asked",
    traces.GONE: "its draft is gone and no copy was found",
}


def pause_s(attempt: int, jitter: Callable[[], float] = random.random) -> float:
    """The wait after failed attempt number `attempt`: 5 s doubling up to an hour, give or take a fifth."""
    return min(FIRST_PAUSE_S * 2.0 ** (attempt - 1), LONGEST_PAUSE_S) * (0.8 + 0.4 * jitter())


def throttled_s(times: int, jitter: Callable[[], float] = random.random) -> float:
    """The wait after the answer number `times` in a row that said "too much" and not for how long."""
    return min(FIRST_THROTTLED_S * 2.0 ** min(times - 1, 10), LONGEST_THROTTLED_S) * (0.8 + 0.4 * jitter())


class Outbox(OutboxRecords):
    """Sends accepted mails."""

    def __init__(
        self,
        table: Table,
        blobs: Blobs,
        schedule: Schedule,
        accounts: Accounts,
        access: Access,
        events: Events,
        lanes: Lanes,
        clock: Clock,
        large: LargeMail,
    ) -> None:
        super().__init__(table, blobs, schedule, clock)
        self._accounts, self._access, self._events, self._lanes = accounts, access, events, lanes
        self._large = large

    # -- sending -------------------------------------------------------------------------------------------

    async def send(self, job: dict[str, Any]) -> None:
        """One attempt, or one look for a mail whose send was unclear; or, when the mailbox has no room for another
        call now, the message put back to a later time."""
        lane = job.get("mailbox", "")
        if not lane:
            await self._take_turn(job)
            return
        wait_s = await self._lanes.enter(lane, busy=bool(job.get("busy")))
        if wait_s > 0:
            await self._schedule.once(self._clock() + timedelta(seconds=wait_s), QUEUE, job | {"busy": True})
            return
        async with self._lanes.place(lane):
            await self._take_turn(job)

    async def _take_turn(self, job: dict[str, Any]) -> None:
        queue_id = job["queueId"]
        if job.get("clear"):  # it was taken back: its draft goes
            await self._large.end(queue_id, shard(queue_id), "")
            return
        row = await self._table.get(shard(queue_id), queue_id)
        if row is None:
            await self._wait_for_record(job)
            return
        state = row.columns["state"]
        if state in UNDERWAY and row.value.get("ending"):
            await self._finish(row)
        elif state in (WAITING, UNCLEAR) and self._is_early(row):
            # A message of an earlier turn, or a clock ahead of ours.
            await self._schedule.once(parse_time(row.value["nextAttempt"]), QUEUE, self.job(row))
        elif state == WAITING:
            await self._attempt(row)
        elif state == SENDING and not self._is_lost(row):
            await self._schedule.once(self._clock() + timedelta(seconds=60), QUEUE, self.job(row))
        elif state in (SENDING, UNCLEAR):
            await self._look(row, "the process that sent it ended before Graph answered")

    async def _wait_for_record(self, job: dict[str, Any]) -> None:
        """Deleted with its account, never accepted, or faster here than its record."""
        early = job.get("early", 0)
        if early < len(EARLY_S):
            when = self._clock() + timedelta(seconds=EARLY_S[early])
            await self._schedule.once(when, QUEUE, job | {"early": early + 1})

    def _is_early(self, row: Row) -> bool:
        following = row.value["nextAttempt"]
        return isinstance(following, str) and parse_time(following) - self._clock() > CLOCKS_DIFFER

    def _is_lost(self, row: Row) -> bool:
        since = parse_time(row.value["sendingSince"])
        return self._clock() - since >= timedelta(seconds=RUN_S)

    async def _attempt(self, row: Row) -> None:
        began = await self._begun(row)
        if began is None:
            return
        row, record = began, await self._owner(began)
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
        except StorageConflict:
            log.warning("another run has taken over mail %s", row.key)
        else:
            await self._sent(row)

    async def _owner(self, row: Row) -> Record | None:
        """The account the mail was accepted for; None when it is gone, also when another has its id now."""
        record = await self._accounts.find(row.value["account"])
        if record is None or row.value.get("birth", record.get("birth")) != record.get("birth"):
            return None
        return record

    async def _begun(self, row: Row) -> Row | None:
        """The row marked as being sent by this call; None when another has it, or it was cancelled."""
        worker, made = secrets.token_hex(8), row.value["attemptsMade"] + 1
        value = row.value | {"sendingSince": iso(self._clock()), "attemptsMade": made, "worker": worker}
        try:
            return await self._table.merge(replace(row, value=value, columns=with_state(row, SENDING)))
        except StorageConflict:
            there = await self._table.get(row.partition, row.key)
        if there is None or there.columns["state"] != SENDING:
            return None  # cancelled, deleted or done meanwhile
        if there.value.get("worker") == worker:
            return there  # our own write, repeated by the storage client after a lost answer
        # Another worker has it. Should that one die, a message that comes later finds out.
        await self._schedule.once(self._clock() + timedelta(seconds=RUN_S), QUEUE, self.job(row))
        return None

    async def _transmit(self, row: Row, reach: Reach) -> None:
        if row.value.get("draft"):
            await draft_mail.send(self._access, row, reach)
            return
        body = await self._body(row)
        if row.value.get("parts"):
            await self._large.transmit(row, reach, body)
            return
        if row.value["structured"]:
            message = json.loads(body)
            await self._access.call(reach, lambda c: requests.send_structured(c, reach.mailbox, message))
        else:
            await self._access.call(reach, lambda c: requests.send_mime(c, reach.mailbox, body))

    async def _body(self, row: Row) -> bytes:
        """The mail as it was built: beside the record, in a blob, or in the record as rows of an earlier version have
        it."""
        body = row.body or base64.b64decode(row.value.get("body") or "")
        found = body or await self._blobs.get(row.value.get("blob") or f"outbox/{row.key}")
        if found is None:
            raise GraphFailure(400, "BodyMissing", "The stored body of the mail is gone")
        return found

    async def _tell(self, row: Row, event: str, data: dict[str, Any], happening: str, order: int = LAST) -> None:
        """One event about this mail; every one goes out through here."""
        data = {"messageId": row.value["messageId"], "queueId": row.key} | data
        await self._events.emit(row.value["account"], event, data, happening=happening, about=row.key, order=order)

    async def _sent(self, row: Row) -> None:
        """The event first: dying in between, the next look finds the mail and records the same event."""
        data = {"originalMessageId": row.value["messageId"], "envelope": row.value["envelope"]}
        await self._tell(row, "messageSent", data, f"sent {row.key}")
        await self._end(row, SENT)

    async def _refused(self, row: Row, record: Record, failure: GraphFailure) -> None:
        """Graph answered with an error, or not at all."""
        if failure.may_have_acted:
            # A server that was busy rarely did the work all the same, so two looks are enough.
            needed = 2 if failure.status == 503 else ABSENCES
            noted = replace(row, value=row.value | {"absencesNeeded": needed})
            await self._look_later(noted, str(failure), at_least_s=failure.retry_after_s or 0)
            return
        if failure.status == 503 and failure.retry_after_s is not None and not row.value.get("parts"):
            # Turned away by the throttling in front of the mailbox, as far as anybody can tell: one look is enough,
            # and it was no attempt. The draft of a large mail shows by itself whether it was sent.
            value = row.value | {"absencesNeeded": 1, "attemptsMade": row.value["attemptsMade"] - 1, "unspent": True}
            await self._look_later(replace(row, value=value), str(failure), at_least_s=failure.retry_after_s)
            return
        if is_throttled(failure):
            await self._throttled(row, failure)
            return
        mailbox = auth_of(record).get("delegatedUser") or record.get("email") or record["account"]
        holder = await self._accounts.find((record.get("reach") or {}).get("holder") or "") or record
        text = " ".join(filter(None, (str(failure), hint(failure, mailbox, delegate_of(holder)))))
        code = MEANINGS[failure.code].code if failure.code in MEANINGS else failure.code
        again = is_transient(failure) or failure.status == 401
        await self._failed(row, record, text, code, status=failure.status, again=again, wait_s=failure.retry_after_s)

    async def _throttled(self, row: Row, failure: GraphFailure) -> None:
        """Turned away for a while, which is no attempt. The wait is the one told, or grows."""
        times = row.value.get("throttled", 0) + 1
        wait_s = failure.retry_after_s or throttled_s(times)
        if failure.status == 429 and not isinstance(failure, OutOfTime) and row.value.get("lane"):
            self._lanes.throttled(row.value["lane"], wait_s)
        value = row.value | {"throttled": times, "attemptsMade": row.value["attemptsMade"] - 1}
        await self._wait(replace(row, value=value), wait_s, row.value.get("error"))

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
        data = {"envelope": row.value["envelope"], "error": text, "errorCode": code, "job": job}
        await self._tell(row, "messageDeliveryError", data, f"attempt {row.key} {made}", order=made)
        error = {"message": text, "code": code, "statusCode": status}
        if retries:
            await self._wait(replace(row, value=row.value | {"throttled": 0}), wait_s, error)
        else:
            await self._give_up(row, "failed", error)

    async def _give_up(self, row: Row, state: str, error: dict[str, Any]) -> None:
        """The end is written down before it is told: a process that dies in between is followed by one that tells the
        same, and not by another try."""
        ending = {"state": state, "error": error, "by": secrets.token_hex(8)}
        value = row.value | {"ending": ending, "nextAttempt": iso(self._clock())}
        try:
            row = await self._table.merge(replace(row, value=value, columns=with_state(row, UNCLEAR)))
        except StorageConflict:
            there = await self._table.get(row.partition, row.key)
            if there is None or there.value.get("ending") != ending:
                return  # deleted meanwhile, or another run has it
            row = there  # our own write, repeated by the storage client after a lost answer
        await self._finish(row)

    async def _finish(self, row: Row) -> None:
        ending = row.value["ending"]
        data = {"error": ending["error"]["message"], "errorCode": ending["error"]["code"]}
        await self._tell(row, "messageFailed", data, f"failed {row.key}")
        kept = replace(row, value={name: content for name, content in row.value.items() if name != "ending"})
        await self._end(kept, ending["state"], ending["error"])

    async def _wait(self, row: Row, wait_s: float, error: dict[str, Any] | None) -> None:
        when = self._clock() + timedelta(seconds=wait_s)
        await self._settle(row, row.value | {"nextAttempt": iso(when), "error": error}, WAITING)
        await self._schedule.once(when, QUEUE, self.job(row))

    # -- unclear outcomes ----------------------------------------------------------------------------------

    async def _look_later(self, row: Row, reason: str, *, absences: int = 0, at_least_s: float = 0) -> None:
        looks = row.value.get("looks", 0)
        when = self._clock() + timedelta(seconds=max(LOOKS_S[min(looks, len(LOOKS_S) - 1)], at_least_s))
        value = row.value | {"looks": looks + 1, "absences": absences, "reason": reason, "nextAttempt": iso(when)}
        await self._settle(row, value, UNCLEAR)
        await self._schedule.once(when, QUEUE, self.job(row))

    async def _look(self, row: Row, reason: str) -> None:
        """Looks for the mail in its mailbox. Found: sent. Absent in several looks, over minutes: not sent, so it
        is tried again. Neither, because nobody could look or it hangs in Drafts: unknown in the end."""
        record, reason = await self._owner(row), row.value.get("reason") or reason
        if record is None:
            await self._remove(row)
            return
        told = await self._events.seen(row.value["account"], f"sent {row.key}", about=row.key, order=LAST)
        finding, wait_s = (traces.FOUND, 0.0) if told else await self._find(row)
        # What lies in Drafts may be about to leave, so that earlier absences say nothing any more.
        seen = 0 if finding == traces.DRAFT else row.value.get("absences", 0)
        absences = seen + (finding == traces.ABSENT)
        if finding == traces.FOUND:
            await self._sent(row)
        elif absences >= row.value.get("absencesNeeded", ABSENCES):
            anew = {"looks": 0, "absences": 0, "absencesNeeded": ABSENCES, "reason": "", "unspent": False}
            fresh = replace(row, value=row.value | anew)
            if row.value.get("unspent"):
                await self._attempt(fresh)
            else:
                await self._failed(fresh, record, f"Not sent: {reason}", "ConnectionError", again=True)
        elif row.value.get("looks", 0) < MOST_LOOKS:
            await self._look_later(row, reason, absences=absences, at_least_s=wait_s)
        else:
            text = (
                f"It is not known whether the mail was sent: {reason}, and when its mailbox was looked at, "
                f"{_SHOWED[finding]}. It is not sent again by itself; check with the recipient."
            )
            await self._give_up(row, UNKNOWN, {"message": text, "code": "SendOutcomeUnknown", "statusCode": 0})

    async def _find(self, row: Row) -> tuple[str, float]:
        """sent, draft (there but not sent), absent, or unreachable; and how long Graph wants not to be asked."""
        try:
            record = await self._accounts.get(row.value["account"])
            reach = await self._accounts.reach(record)
            if row.value.get("draft"):
                return await draft_mail.finding(self._access, row, reach), 0.0
            if row.value.get("parts"):
                return await self._large.finding(row, reach), 0.0
            return await traces.look(self._access, reach, row.value["messageId"], row.key), 0.0
        except (CredentialError, GraphFailure, ApiError) as failure:
            return traces.UNREACHABLE, getattr(failure, "retry_after_s", None) or 0.0

    # -- the record ----------------------------------------------------------------------------------------

    async def _settle(self, row: Row, value: dict[str, Any], state: str) -> None:
        with suppress(StorageConflict):  # deleted meanwhile, or our own write after a lost answer
            await self._table.merge(replace(row, value=value, columns=with_state(row, state)))

    async def _end(self, row: Row, state: str, error: dict[str, Any] | None = None) -> None:
        """The record without the body stays for a while, so that its end can be looked up; a draft that was not sent
        goes."""
        with suppress(StorageConflict):  # deleted meanwhile, or our own write after a lost answer
            await self._ended(row, state, error)
        if row.value.get("parts"):
            await self._large.end(row.key, row.partition, state)

    async def _remove(self, row: Row) -> None:
        if row.value.get("parts"):
            await self._large.end(row.key, row.partition, "")
        await super()._remove(row)

    async def sweep_large(self, older_than: timedelta, most: int = 1000) -> int:
        """Removes drafts and stored contents that belong to no mail under way: drafts of mails that have ended, and
        contents of submits that never got their record, older than that; the number removed. Looks at the first
        so many of each."""
        removed = 0
        async for draft in self._large.drafts(most):
            try:
                row = await self.stored(draft.key)
                state = row.columns["state"] if row else ""
                if state not in UNDERWAY:
                    removed += await self._large.end(draft.key, draft.partition, state)
            except RecordDamaged as problem:  # of the mail or its account: its draft stays until that has gone
                log.error("the draft of mail %s is left: %s", draft.key, problem)
        return removed + await self._sweep_contents(self._clock() - older_than, most)

    async def _needs(self, queue_id: str, blob: str) -> bool:
        """Whether a mail that may still be sent has its content here; also when its record cannot be read."""
        try:
            row = await self.stored(queue_id)
        except RecordDamaged:
            return True
        return row is not None and row.columns["state"] in UNDERWAY and row.value.get("blob", blob) == blob

    async def _sweep_contents(self, before: datetime, most: int) -> int:
        removed, seen, kept = 0, "", ""
        async for name in self._blobs.old("outbox/", before):
            queue_id, blob = queue_id_of(name), "/".join(name.split("/")[:2])
            if blob != seen:
                seen, kept, most = blob, blob if await self._needs(queue_id, blob) else "", most - 1
            if blob != kept:
                await self._blobs.delete(name)
                removed += 1
            if most <= 0:
                break
        return removed
