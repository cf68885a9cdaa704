"""Throttling as a budget: who may call Graph for a mailbox now, across instances.

Graph takes four requests at once and 10,000 in ten minutes for one app and mailbox (graph.md 11). A quiet mailbox
costs nothing here: its mail simply goes. Under load the sends of all instances share four lanes, each a lease in
storage that one process holds while it has work, and what finds no place comes back at a time of its own instead of
holding a worker. The leases also carry the calls of the current ten minutes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from shared.clock import Clock, iso, parse_time
from shared.errors import StorageConflict
from shared.storage.tables import Row, Table

LANES = 4  # requests at once (graph.md 11)
WINDOW = timedelta(minutes=10)
CALLS = 10_000  # in a window (graph.md 11)
CALLS_PER_LANE = 2_400  # four of these leave a little for reading the mailbox
LEASE = timedelta(seconds=15)
RENEWED = timedelta(seconds=6)  # a lease in use is renewed when less than that is left
LOOKED = timedelta(seconds=1)  # how often a process looks for a further lane
TROUBLED = timedelta(minutes=1)  # after a 429 a mailbox counts as loaded for that long
BURST, BURST_IN = 8, timedelta(seconds=5)  # more mails accepted than that make a mailbox busy
WAITERS = 4  # sends that wait in the process for a place, so that no lane idles; the others go back to the queue
WAIT_S = 1.5  # a queue counts delays in seconds
LONGEST_S = 120.0
FIRST_GUESS_S = 0.5  # how long a send takes, before one was seen
MOST_GUESSED_S = 10.0  # an upload of minutes says nothing about when the next send finds a place
KEPT_EVERY_S = 4.0  # a send under way looks after its place; below RENEWED
MOST_MAILBOXES = 10_000
log = logging.getLogger("graphpost.lanes")


@dataclass(frozen=True)
class Budget:
    """What is left of a mailbox's calls, as far as this process knows; `reset_s` until the next window."""

    limit: int
    remaining: int
    reset_s: int


@dataclass
class _Lease:
    """A lane this process holds."""

    row: Row
    until: datetime
    calls: int


@dataclass
class _Mailbox:
    """What this process knows of one app and mailbox."""

    window: datetime
    calls: int = 0  # by this process in this window
    calls_elsewhere: int = 0  # by others, as their leases last said
    in_flight: int = 0
    waiting: int = 0
    takes_s: float = FIRST_GUESS_S
    next_slot: datetime | None = None
    paused_until: datetime | None = None
    troubled_until: datetime | None = None
    looked: datetime | None = None
    sharing: int = 1  # processes that send for this mailbox now, this one included
    leases: dict[int, _Lease] = field(default_factory=dict)
    accepted: list[datetime] = field(default_factory=list)
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Lanes:
    """Lets sends through, or says when to come back. One for each process."""

    def __init__(
        self,
        table: Table,
        clock: Clock,
        owner: str = "",
        jitter: Callable[[], float] = random.random,
        wait_s: float = WAIT_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._table, self._clock, self._jitter, self._wait_s = table, clock, jitter, wait_s
        self._owner, self._sleep = owner or secrets.token_hex(8), sleep
        self._mailboxes: dict[str, _Mailbox] = {}

    # -- going through ---------------------------------------------------------------------------------------

    async def enter(self, mailbox: str, *, busy: bool = False) -> float:
        """0.0: go now, and `leave` afterwards. Else the seconds after which to come back.

        `busy` says that the mailbox is under load, so that a shared lane is needed even if nothing shows here. Costs
        nothing while the mailbox is quiet, or while a lane held has room.
        """
        known, now = self._known(mailbox), self._clock()
        if (wait_s := self._paused_s(known, now)) > 0:
            return self._slot_s(known, now, wait_s)
        if self._is_quiet(known, now) and not busy:
            known.in_flight += 1
            return 0.0
        async with known.lock:
            await self._renew(known, LANES)
            await self._hold(mailbox, known, known.in_flight + 1)
        if self._goes(known) or await self._gets_a_turn(known):
            return 0.0
        return self._slot_s(known, self._clock(), self._spent_s(known))

    def leave(self, mailbox: str, took_s: float) -> None:
        """The end of a send that was let through, and how long it took."""
        known = self._known(mailbox)
        known.in_flight -= 1
        known.takes_s = max(0.02, 0.8 * known.takes_s + 0.2 * min(took_s, MOST_GUESSED_S))
        known.freed.set()

    @asynccontextmanager
    async def place(self, mailbox: str) -> AsyncIterator[None]:
        """Around a send that was let through, however long it takes."""
        began, keeping = self._clock(), asyncio.create_task(self._keep(mailbox))
        try:
            yield
        finally:
            keeping.cancel()
            self.leave(mailbox, (self._clock() - began).total_seconds())

    async def _keep(self, mailbox: str) -> None:
        """Looks after the places of sends under way until it is cancelled. A send that takes longer than a lease, such
        as an upload, would lose its place to another process; one that began in quiet times gets one now."""
        while True:
            await self._sleep(KEPT_EVERY_S)
            known = self._known(mailbox)
            try:
                async with known.lock:
                    await self._renew(known, known.in_flight)
                    await self._hold(mailbox, known, known.in_flight)
            except Exception as problem:  # the send goes on; the next look may succeed
                log.warning("a place could not be kept: %s", type(problem).__name__)

    def _is_quiet(self, known: _Mailbox, now: datetime) -> bool:
        troubled = known.troubled_until is not None and known.troubled_until > now
        return not (troubled or known.in_flight or known.waiting)

    def _goes(self, known: _Mailbox) -> bool:
        """Takes a place on a lane held, if one is free."""
        held = self._held(known)
        usable = [lease for lease in held if lease.calls < CALLS_PER_LANE]
        if known.in_flight >= len(held) or not usable:
            return False
        known.in_flight += 1
        min(usable, key=lambda lease: lease.calls).calls += 1
        return True

    def _held(self, known: _Mailbox) -> list[_Lease]:
        now = self._clock()
        return [lease for lease in known.leases.values() if lease.until > now]

    async def _gets_a_turn(self, known: _Mailbox) -> bool:
        """Waits a moment for a place on a lane held; only a few may."""
        if known.waiting >= WAITERS or not self._held(known):
            return False
        known.waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                while not self._goes(known):
                    known.freed.clear()
                    await known.freed.wait()
        except TimeoutError:
            return False
        finally:
            known.waiting -= 1
        return True

    # -- when to come back -----------------------------------------------------------------------------------

    def _paused_s(self, known: _Mailbox, now: datetime) -> float:
        """Seconds that nothing may be asked: Graph said so, or the window's calls are used up."""
        until = known.paused_until or now
        if known.calls + known.calls_elsewhere >= CALLS:
            until = max(until, known.window + WINDOW)
        return (until - now).total_seconds()

    def _slot_s(self, known: _Mailbox, now: datetime, at_least_s: float = 0.0) -> float:
        """A time of its own for each that goes back, as far apart as this process's share of the lanes lets them
        through: most come back to a free place."""
        step = timedelta(seconds=known.takes_s * known.sharing / LANES)
        earliest = now + timedelta(seconds=at_least_s) + step
        slot = max(known.next_slot or earliest, earliest)
        if (slot - earliest).total_seconds() > LONGEST_S:
            return at_least_s + LONGEST_S * (0.5 + 0.5 * self._jitter())
        known.next_slot = slot + step
        return (slot - now).total_seconds()

    def _spent_s(self, known: _Mailbox) -> float:
        """Seconds until the lanes held may be used again, when their calls are used up."""
        if not known.leases or any(lease.calls < CALLS_PER_LANE for lease in known.leases.values()):
            return 0.0
        ends = min(parse_time(lease.row.value["window"]) + WINDOW for lease in known.leases.values())
        return max(0.0, (ends - self._clock()).total_seconds())

    def throttled(self, mailbox: str, wait_s: float) -> None:
        """Graph answered 429 for this mailbox: nothing is asked for so long, and it counts as loaded for a while."""
        known, now = self._known(mailbox), self._clock()
        until = now + timedelta(seconds=wait_s)
        known.paused_until = max(known.paused_until or until, until)
        known.troubled_until = max(until, now) + TROUBLED

    # -- leases ----------------------------------------------------------------------------------------------

    async def _renew(self, known: _Mailbox, most: int) -> None:
        """Renews leases that run out soon, so many at most: what is not used is left to others."""
        now = self._clock()
        known.leases = {number: lease for number, lease in known.leases.items() if lease.until > now}
        for number, lease in list(known.leases.items())[:most]:
            if lease.until - now < RENEWED:
                await self._take(known, number, lease.row, lease.calls)

    async def _hold(self, mailbox: str, known: _Mailbox, places: int) -> None:
        """Looks for further lanes when fewer than `places` are held. Calls under way without one, from quiet times,
        count."""
        now = self._clock()
        looked = known.looked is not None and now - known.looked < LOOKED
        if len(self._held(known)) >= min(places, LANES) or looked:
            return
        await self._take_more(mailbox, known, places)
        if len(self._held(known)) < places:
            known.looked = now  # all are taken: asking again at once would only cost

    async def _take_more(self, mailbox: str, known: _Mailbox, places: int) -> None:
        now = self._clock()
        rows = {int(row.key): row for row in await self._table.partition(mailbox)}
        self._learn(known, [row for row in rows.values() if row.value["owner"] != self._owner], now)
        for number in range(LANES):
            row = rows.get(number, Row(mailbox, str(number), {}))
            # One of ours that is not known here: its write was repeated by the storage client after a lost answer.
            taken = row.etag and row.value["owner"] != self._owner and parse_time(row.value["until"]) > now
            lacks = len(self._held(known)) < places
            if lacks and not (number in known.leases or taken or self._calls(row) >= CALLS_PER_LANE):
                await self._take(known, number, row, self._calls(row))

    def _learn(self, known: _Mailbox, others: list[Row], now: datetime) -> None:
        """What the leases of other processes say: their calls, how many they are, and how long a send takes."""
        known.calls_elsewhere = sum(map(self._calls, others))
        live = [row for row in others if parse_time(row.value["until"]) > now]
        known.sharing = 1 + len({row.value["owner"] for row in live})
        if live and not known.leases:
            known.takes_s = min(MOST_GUESSED_S, max(float(row.value["takesS"]) for row in live))

    async def _take(self, known: _Mailbox, number: int, row: Row, calls: int) -> None:
        """Writes the lease for another while. Not held when another process was faster."""
        now = self._clock()
        window = row.value.get("window", iso(now))
        if now - parse_time(window) >= WINDOW:
            window, calls = iso(now), 0
        until = now + LEASE
        value = {"owner": self._owner, "until": iso(until), "calls": calls, "window": window}
        value["takesS"] = round(known.takes_s, 3)
        wanted = Row(row.partition, row.key, value, row.etag, {"until": iso(until)})
        try:
            stored = await (self._table.replace(wanted) if row.etag else self._table.insert(wanted))
        except StorageConflict:
            known.leases.pop(number, None)
        else:
            known.leases[number] = _Lease(stored, until, calls)

    def _calls(self, row: Row) -> int:
        """The calls of the lane's current window."""
        if not row.etag or self._clock() - parse_time(row.value["window"]) >= WINDOW:
            return 0
        return int(row.value["calls"])

    async def sweep(self) -> int:
        """Removes leases that ended a window ago; the number removed."""
        removed = 0
        async for row in self._table.scan("until lt @t", {"t": iso(self._clock() - WINDOW)}):
            with suppress(StorageConflict):  # taken at this moment
                removed += await self._table.delete(row.partition, row.key, row.etag)
        return removed

    # -- the budget ------------------------------------------------------------------------------------------

    def note_call(self, mailbox: str) -> None:
        """Counts one request to Graph, whatever it was for."""
        self._known(mailbox).calls += 1

    def note_accepted(self, mailbox: str) -> bool:
        """Counts one mail that was accepted for sending now. True when so many came that the mailbox is busy."""
        known, now = self._known(mailbox), self._clock()
        known.accepted = [*(at for at in known.accepted if now - at < BURST_IN), now][-BURST - 1 :]
        return len(known.accepted) > BURST

    def budget(self, mailbox: str) -> Budget:
        """What is left of this window's calls."""
        known = self._known(mailbox)
        left = (known.window + WINDOW - self._clock()).total_seconds()
        return Budget(CALLS, max(0, CALLS - known.calls - known.calls_elsewhere), max(0, int(left + 0.999)))

    def _known(self, mailbox: str) -> _Mailbox:
        """What is known of a mailbox, in the window of now."""
        now = self._clock()
        known = self._mailboxes.get(mailbox)
        if known is None:
            self._forget_idle(now)
            known = self._mailboxes[mailbox] = _Mailbox(now)
        elif now - known.window >= WINDOW:
            known.window, known.calls, known.calls_elsewhere = now, 0, 0
        return known

    def _forget_idle(self, now: datetime) -> None:
        if len(self._mailboxes) >= MOST_MAILBOXES:
            used = {name: one for name, one in self._mailboxes.items() if one.in_flight or now - one.window < WINDOW}
            self._mailboxes = used
