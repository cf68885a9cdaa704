"""The one recurring job of an account: see to its subscription, ask for changes, look for gaps, come again.

Delta is the truth for every mailbox; notifications only tell of changes sooner. With proven push a turn comes once
an hour, otherwise as often as the mailbox is active: the wait is an eighth of the time since something last
changed, within the shortest and the longest wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from shared.accounts import QUEUE, Accounts, Reach, Record
from shared.changes import Changes, tracked_since
from shared.clock import Clock, iso, parse_time
from shared.errors import CredentialError, GraphFailure
from shared.graph.failures import is_transient
from shared.hearing import is_proven
from shared.polling import Found, Polling
from shared.proof import Proof
from shared.schedule import Schedule
from shared.storage.keys import digest
from shared.subscriptions import Subscriptions, is_refusal

CHECK_EVERY = timedelta(hours=1)
IDLE_SHARE = 8  # the wait is this part of the time since something last changed
CONTACT_NOTED = timedelta(minutes=5)
LATE_AFTER = timedelta(minutes=10)  # a change that a delta round tells that long after it happened came late
AUDIT_MARGIN = timedelta(minutes=12)
CATCH_UP_MARGIN = timedelta(minutes=2)
CANARY_LOOK_S = 30
OUTAGE = 3  # failed turns in a row before the account's state tells of it
SLOWED = 5  # times the shortest wait while Graph or the login service refuses

T = TypeVar("T")


@dataclass(frozen=True)
class Turn:
    """What one turn hands on to the next, in its job. `active`: when something last changed, in epoch seconds.
    `after`: how far a whole round got, None when none is under way."""

    active: float
    number: int = 0
    failures: int = 0
    after: str | None = None

    @classmethod
    def of(cls, job: dict[str, Any], now: datetime) -> Turn:
        return cls(job.get("active", now.timestamp()), job.get("number", 0), job.get("failures", 0), job.get("after"))


class Sync:
    """Runs the turns of all accounts."""

    def __init__(
        self,
        accounts: Accounts,
        schedule: Schedule,
        subscriptions: Subscriptions,
        proof: Proof,
        polling: Polling,
        changes: Changes,
        clock: Clock,
        poll_s: tuple[int, int],
    ) -> None:
        """`poll_s`: the shortest and the longest wait between two looks at a mailbox that is polled."""
        self._accounts, self._schedule, self._subscriptions = accounts, schedule, subscriptions
        self._proof, self._polling, self._changes = proof, polling, changes
        self._clock, self._poll_s = clock, poll_s

    # -- starting ------------------------------------------------------------------------------------------

    async def start(self, record: Record) -> None:
        """Makes sure changes of a connected mailbox are heard of, however it was heard before. One that was
        connected all along keeps its turns and their waits: it is they that ask for this when they fail."""
        account = record["account"]
        if record.get("sendOnly"):
            reach = await self._accounts.reach(record)
            await self._subscriptions.tell(account, reach, lambda r: r | {"turns": None})
            return
        was_connected = (record.get("unfinished") or {}).get("was") == "connected"
        if not was_connected or not (record.get("turns") or {}).get("chain"):
            await self._start_turns(account)
        await self._with_reader(record, self._see_to_push)

    async def subscribe(self, account: str, gone: str = "", failures: int | None = None) -> None:
        """Tries again to have a subscription, or has a new one after Graph removed the one called `gone`.
        `failures` is how many there were when this was put off; with more by now, another try is under way."""
        if gone:
            await self._subscriptions.forget(account, gone)
        record = await self._accounts.find(account)
        if record is None or record["state"] != "connected":
            return  # connecting the account starts this anew
        subscription = record.get("subscription") or {}
        if gone and subscription.get("id"):
            return  # another one is in force
        state = subscription.get("state") or {}
        if failures is not None and failures != state.get("retryCount", 0):
            return
        await self._with_reader(record, self._see_to_push)

    async def _see_to_push(self, record: Record, reach: Reach) -> Record:
        record = await self._subscriptions.see_to(record, reach, verify=True)
        if (record.get("turns") or {}).get("wake"):
            await self._start_turns(record["account"])  # a subscription was lost, and nobody listens meanwhile
        return await self._proof.seek(record, reach)

    async def _start_turns(self, account: str) -> None:
        now = self._clock()
        chain = digest(account, "sync", iso(now))
        first = now + timedelta(seconds=self._poll_s[0])
        # The chain before its name: a chain nobody names ends itself, a name without a chain would stay silent.
        job = {"account": account, "do": "sync", "active": now.timestamp()}
        await self._schedule.start_chain(chain, QUEUE, job, first)
        await self._accounts.change(account, lambda r: r | {"turns": {"do": "sync", "chain": chain}})

    async def take_up(self) -> int:
        """Gives accounts whose recurring job is gone (its row was damaged or deleted) a new one; how many."""
        known, found = await self._schedule.chains(), 0
        lost = [one async for one in self._accounts.all() if self._has_lost_turns(one, known)]
        if lost:
            known |= await self._schedule.chains()  # a row that moved during the first look was missed by it
        for record in lost:
            if self._has_lost_turns(record, known):
                await self._start_turns(record["account"])
                found += 1
        return found

    @staticmethod
    def _has_lost_turns(record: Record, chains: set[str]) -> bool:
        chain = (record.get("turns") or {}).get("chain")
        return record["state"] == "connected" and chain is not None and chain not in chains

    # -- turns ---------------------------------------------------------------------------------------------

    async def turn(self, job: dict[str, Any]) -> None:
        """One turn. A failure of Graph ends the turn, never the chain of turns."""
        account, now = job["account"], self._clock()
        record = await self._accounts.find(account)
        if record is None or (record.get("turns") or {}).get("chain") != job["chain"]:
            await self._schedule.end_chain(job)
            return
        turn = Turn.of(job, now)
        following, wait_s = Turn(turn.active, turn.number + 1, 0, turn.after), float(self._poll_s[0] * SLOWED)
        try:
            if record["state"] == "connected":
                record = await self._reader_again(record)
                following, wait_s = await self._with_reader(record, lambda r, reach: self._take(r, reach, turn))
        except CredentialError:
            pass  # noted on the holder by the call itself
        except GraphFailure as failure:
            if is_transient(failure):
                wait_s = max(float(self._poll_s[0]), failure.retry_after_s or 0)
            else:
                wait_s = min(wait_s * 2 ** min(turn.failures, 10), CHECK_EVERY.total_seconds())
            following = Turn(turn.active, turn.number + 1, turn.failures + 1, turn.after)
            if not is_transient(failure) or following.failures == OUTAGE:
                await self._accounts.queue_job(account, "initialise", force=True)
        bare = {"account": account, "do": "sync", "chain": job["chain"], "due": job["due"]}
        bare |= {"active": following.active, "number": following.number, "failures": following.failures}
        bare |= {"after": following.after} if following.after is not None else {}
        await self._schedule.continue_chain(QUEUE, bare, self._clock() + timedelta(seconds=wait_s))

    async def _take(self, record: Record, reach: Reach, turn: Turn) -> tuple[Turn, float]:
        """The work of one turn; what the next one needs, and how many seconds later it comes."""
        now = self._clock()
        record = await self._subscriptions.see_to(record, reach)
        was_proven = is_proven(record) and not reach.is_foreign
        after = "" if was_proven and turn.after is None else turn.after
        found = await self._polling.poll(record, reach, turn.number, after)
        if was_proven and (late := self._late(record, found)):
            record = await self._proof.doubt(record, reach, late)
        if not reach.is_foreign:
            record = await self._proof.seek(record, reach)
        if found.walking:
            await self._catch_up_with(record, reach)
        elif found.after is None:
            await self._audit(record, reach)
        if found.changed:
            await self._note_contact(record)
        active = now.timestamp() if found.changed else min(turn.active, now.timestamp())
        wait_s = self._wait_s(record, reach, found, active)
        if found.rests:  # a refused folder is asked again when it has rested
            wait_s = min(wait_s, max(found.rests - self._clock().timestamp(), self._poll_s[0]))
        return Turn(active, turn.number + 1, 0, found.after), wait_s

    def _wait_s(self, record: Record, reach: Reach, found: Found, active: float) -> float:
        shortest, longest = self._poll_s
        if found.walking or found.after is not None:
            return shortest
        if is_proven(record) and not reach.is_foreign:
            return CHECK_EVERY.total_seconds()
        idle_s = self._clock().timestamp() - active
        wait_s = min(max(idle_s / IDLE_SHARE, shortest), longest)
        is_waiting = (record.get("canary") or {}).get("state") == "waiting"
        return min(wait_s, max(CANARY_LOOK_S, shortest)) if is_waiting else wait_s

    def _late(self, record: Record, found: Found) -> int:
        """Changes that happened under a proven subscription and were told only now, by delta."""
        proven, limit = parse_time(record["proof"]["at"]), self._clock() - LATE_AFTER
        return sum(1 for when in found.told if proven < when < limit)

    async def catch_up(self, account: str, after: str = "") -> None:
        """A whole round now, in as many steps as it takes: after an outage, a pause or a loss that Graph told of.
        Raises GraphFailure or CredentialError."""
        record = await self._accounts.find(account)
        if record is None or record.get("sendOnly"):
            return

        async def look(record: Record, reach: Reach) -> Found:
            found = await self._polling.poll(record, reach, after=after)
            if found.walking:
                await self._catch_up_with(record, reach)
            return found

        found = await self._with_reader(record, look)
        if found.after is not None:
            await self._accounts.queue_job(account, "catch_up", self._poll_s[0], after=found.after)
        await self._note_contact(record)

    # -- gaps ----------------------------------------------------------------------------------------------

    async def _catch_up_with(self, record: Record, reach: Reach) -> None:
        """A long walk must not hold up what arrives meanwhile."""
        now = self._clock()
        since = max(_heard_until(record) - CATCH_UP_MARGIN, tracked_since(record, now))
        await self._changes.look_since(record, reach, since)
        await self._accounts.note_contact(record["account"], now, heard=True)

    async def _audit(self, record: Record, reach: Reach) -> None:
        """Once an hour, by another way than delta: every message received in the hour before the last ten minutes
        must have been told. One that was not is told now, and counted."""
        now, audited = self._clock(), record.get("audited")
        if audited and timedelta(0) <= now - parse_time(audited) < CHECK_EVERY:
            return
        if not await self._polling.has_walked(record["account"]):
            return
        heard, until = _heard_until(record), now - LATE_AFTER
        since, gaps = max(heard - AUDIT_MARGIN, tracked_since(record, now)), 0
        if since < until:
            gaps = await self._changes.look_since(record, reach, since, until)
        noted = {"audited": iso(now), "heardUntil": iso(max(heard, until)), "syncTime": iso(now)}
        await self._accounts.change(record["account"], lambda r: r | noted)
        if gaps:
            await self._accounts.count(record["account"], gaps=gaps)

    async def _note_contact(self, record: Record) -> None:
        noted, now = record.get("syncTime"), self._clock()
        if not noted or not timedelta(0) <= now - parse_time(noted) < CONTACT_NOTED:
            await self._accounts.note_contact(record["account"], now)

    # -- readers -------------------------------------------------------------------------------------------

    async def _with_reader(self, record: Record, work: Callable[[Record, Reach], Awaitable[T]]) -> T:
        """Reads with the reader app where there is one; where it is refused, with the person's own rights."""
        reach = await self._accounts.reading_reach(record)
        try:
            return await work(record, reach)
        except (GraphFailure, CredentialError) as failure:
            if not reach.reader or not is_refusal(failure):
                raise
            await self._subscriptions.leave_reader(record, reach, failure)
        record = await self._accounts.get(record["account"])
        await self._start_turns(record["account"])  # those of push sleep for up to an hour
        return await work(record, await self._accounts.reading_reach(record))

    async def _reader_again(self, record: Record) -> Record:
        """A refused reader is tried again after an hour: the administrator may have acted."""
        refused = (record.get("reader") or {}).get("refused")
        if not refused or timedelta(0) <= self._clock() - parse_time(refused) < CHECK_EVERY:
            return record
        forgiven = await self._accounts.change(
            record["account"], lambda r: {k: v for k, v in r.items() if k != "reader"}
        )
        return forgiven or record


def _heard_until(record: Record) -> datetime:
    return parse_time(record.get("heardUntil") or record["created"])
