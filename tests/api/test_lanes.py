"""Four calls at once for a mailbox, across processes, without holding up the others."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from shared.lanes import CALLS, CALLS_PER_LANE, LANES, LEASE, WAITERS, Lanes
from shared.outbox_records import QUEUE
from shared.storage.account import StorageAccount
from shared.storage.tables import Row, Table
from shared.wiring import Services
from tests.support.workshop import RITA, SUPPORT, Workshop

TO = [{"address": RITA}]
BOX = "0123456789abcdef"


class Hand:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime.fromisoformat("2026-11-20T12:00:00+00:00")

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        """Moves it on."""
        self.now += timedelta(seconds=seconds)


class Crew:
    """Several processes on one table."""

    def __init__(self, connection_string: str) -> None:
        self.storage = StorageAccount({"connection_string": connection_string})
        self.table = Table(self.storage, f"lanes{secrets.token_hex(4)}")
        self.clock = Hand()

    def process(self, name: str = "") -> Lanes:
        """One process; it does not wait in the process unless a test wants it."""
        return Lanes(self.table, self.clock, name, jitter=lambda: 0.5, wait_s=0.05)


@pytest.fixture
async def crew(quiet_azurite: Any) -> AsyncIterator[Crew]:
    """A table of this test's own."""
    made = Crew(quiet_azurite.connection_string)
    yield made
    await made.table.close()


async def enter(lanes: Lanes, times: int, *, busy: bool = True) -> list[float]:
    """That many calls at once, one after the other; what each was told."""
    return [await lanes.enter(BOX, busy=busy) for _ in range(times)]


async def test_one_send_after_the_other_needs_no_storage(crew: Crew) -> None:
    """A quiet mailbox costs nothing, however many mails it sends in turn."""
    lanes = crew.process()
    for _ in range(20):
        assert await lanes.enter(BOX) == 0
        lanes.leave(BOX, 0.1)
    assert crew.storage.transactions == 0


async def test_at_most_four_go_at_once_and_the_others_get_times_of_their_own(crew: Crew) -> None:
    """In one process: four, then ever later."""
    told = await enter(crew.process(), 10, busy=False)
    assert told[:LANES] == [0.0] * LANES
    assert all(later > earlier > 0 for earlier, later in pairwise(told[LANES:]))


async def test_at_most_four_go_at_once_in_two_processes(crew: Crew) -> None:
    """Busy jobs share the lanes: what one process holds, the other has not."""
    one, two = crew.process("one"), crew.process("two")
    told = [wait_s for _ in range(6) for lanes in (one, two) for wait_s in await enter(lanes, 1)]
    assert told.count(0.0) == LANES


async def test_processes_that_grab_at_the_same_moment_do_not_hold_one_lane_twice(crew: Crew) -> None:
    """Compare-and-swap decides each lane."""
    crew_of_six = [crew.process(str(number)) for number in range(6)]
    told = await asyncio.gather(*(enter(lanes, 3) for lanes in crew_of_six))
    assert 1 <= sum(wait_s == 0 for each in told for wait_s in each) <= LANES


async def test_a_lane_held_is_kept_for_many_sends_and_renewed_rarely(crew: Crew) -> None:
    """Two hundred sends over twenty seconds: a handful of transactions."""
    lanes = crew.process()
    await enter(lanes, 1)
    lanes.leave(BOX, 0.1)
    before = crew.storage.transactions
    for _ in range(200):
        assert await lanes.enter(BOX, busy=True) == 0
        lanes.leave(BOX, 0.1)
        crew.clock.move(0.1)
    assert crew.storage.transactions - before <= 6


async def test_the_lanes_of_a_process_that_died_are_free_when_their_leases_end(crew: Crew) -> None:
    """Not before, and all of them after."""
    dead, alive = crew.process("dead"), crew.process("alive")
    assert await enter(dead, LANES) == [0.0] * LANES
    assert (await enter(alive, 1))[0] > 0
    crew.clock.move(LEASE.total_seconds() + 1)
    assert await enter(alive, LANES) == [0.0] * LANES


async def test_after_a_429_nothing_is_asked_until_its_time_and_then_with_a_lane(crew: Crew) -> None:
    """Everything waits at least as long as Graph said; the mailbox counts as loaded for a minute."""
    lanes = crew.process()
    lanes.throttled(BOX, 30)
    assert min(await enter(lanes, 5, busy=False)) > 30
    crew.clock.move(31)
    before = crew.storage.transactions
    assert await lanes.enter(BOX) == 0
    assert crew.storage.transactions > before
    lanes.leave(BOX, 0.1)
    crew.clock.move(100)
    before = crew.storage.transactions
    assert await lanes.enter(BOX) == 0
    assert crew.storage.transactions == before


async def test_the_calls_of_ten_minutes_are_kept_and_come_back(crew: Crew) -> None:
    """Four lanes carry 9,600 calls in a window, in whatever processes, and more in the next."""
    for number in range(LANES):
        window = crew.clock().isoformat()
        value = {"owner": "dead", "until": window, "calls": CALLS_PER_LANE - 1, "window": window, "takesS": 0.1}
        await crew.table.insert(Row(BOX, str(number), value, columns={"until": window}))
    crew.clock.move(1)
    lanes = crew.process()
    assert await enter(lanes, LANES) == [0.0] * LANES
    for _ in range(LANES):
        lanes.leave(BOX, 0.1)
    (refused,) = await enter(lanes, 1)
    assert refused > 590
    crew.clock.move(refused + 1)
    assert await enter(lanes, 1) == [0.0]


async def test_the_budget_counts_every_call_and_starts_again_after_ten_minutes(crew: Crew) -> None:
    """10,000, less what was called; nothing goes when it is used up."""
    lanes = crew.process()
    for _ in range(10):
        lanes.note_call(BOX)
    crew.clock.move(60)
    assert (lanes.budget(BOX).limit, lanes.budget(BOX).remaining) == (CALLS, CALLS - 10)
    assert lanes.budget(BOX).reset_s == 540
    for _ in range(CALLS):
        lanes.note_call(BOX)
    assert lanes.budget(BOX).remaining == 0
    assert await lanes.enter(BOX) > 540
    crew.clock.move(541)
    assert lanes.budget(BOX).remaining == CALLS
    assert await lanes.enter(BOX) == 0


async def test_a_burst_of_accepted_mails_makes_the_mailbox_busy_and_a_trickle_does_not(crew: Crew) -> None:
    """Nine within five seconds."""
    lanes = crew.process()
    assert [lanes.note_accepted(BOX) for _ in range(10)] == [False] * 8 + [True] * 2
    crew.clock.move(6)
    for _ in range(20):
        assert lanes.note_accepted(BOX) is False
        crew.clock.move(1)


async def test_a_few_wait_for_a_place_and_take_it_in_the_same_turn(crew: Crew) -> None:
    """Lanes do not idle for want of a message: who waits goes when another leaves."""
    lanes = Lanes(crew.table, crew.clock, "one", wait_s=20)
    await enter(lanes, LANES)
    waiting = [asyncio.ensure_future(lanes.enter(BOX, busy=True)) for _ in range(WAITERS)]
    for _ in range(100):  # turns of the loop; nothing on the way asks storage
        await asyncio.sleep(0)
    assert await lanes.enter(BOX, busy=True) > 0
    for _ in range(WAITERS):
        lanes.leave(BOX, 0.1)
    assert await asyncio.gather(*waiting) == [0.0] * WAITERS


async def test_a_send_that_takes_minutes_keeps_its_place(crew: Crew) -> None:
    """Begun in quiet times or not: other processes find three places beside it, and all four afterwards."""
    other = crew.process("other")
    for busy in (False, True):
        ticks: asyncio.Queue[None] = asyncio.Queue()

        async def tick(seconds: float, ticks: asyncio.Queue[None] = ticks) -> None:
            await ticks.get()

        lanes = Lanes(crew.table, crew.clock, "slow", jitter=lambda: 0.5, wait_s=0.05, sleep=tick)
        assert await lanes.enter(BOX, busy=busy) == 0
        async with lanes.place(BOX):
            for _ in range(20):
                crew.clock.move(LEASE.total_seconds() - 5)
                ticks.put_nowait(None)
                await asyncio.sleep(0.05)
            assert (await enter(other, LANES)).count(0.0) == LANES - 1
        for _ in range(LANES - 1):
            other.leave(BOX, 0.1)
        crew.clock.move(LEASE.total_seconds() + 1)
        assert await enter(other, LANES) == [0.0] * LANES
        for _ in range(LANES):
            other.leave(BOX, 0.1)
        crew.clock.move(LEASE.total_seconds() + 1)


async def test_an_upload_of_minutes_does_not_send_the_others_far_away(crew: Crew) -> None:
    """What waits beside it comes back within seconds of each other."""
    lanes = crew.process()
    await enter(lanes, LANES)
    lanes.leave(BOX, 300.0)
    await enter(lanes, 1)
    told = await enter(lanes, 3)
    assert max(told) < 5


async def test_the_outbox_keeps_the_place_of_a_mail_under_way(workshop: Workshop) -> None:
    """However long Graph takes, its mailbox has one place less for other processes."""
    shop = workshop
    account = await shop.application(SUPPORT)
    await shop.services.submit.accept(account, {"to": TO, "text": "x"})
    lane = shop.services.accounts.lane(account)
    lanes, other = shop.services.lanes, shop.build()

    async def tick(seconds: float) -> None:
        await asyncio.sleep(0.05)

    lanes._sleep = tick
    told: list[float] = []
    graph = next(iter(shop.services.graphs.values()))
    send = graph._send

    async def slowly(*given: Any, **named: Any) -> Any:
        for _ in range(0 if told else 4):
            shop.advance(8)
            await asyncio.sleep(0.3)
        told.extend([await other.lanes.enter(lane, busy=True) for _ in range(0 if told else LANES)])
        return await send(*given, **named)

    graph._send = slowly  # type: ignore[method-assign]
    await shop.run_due()
    await other.close()
    assert told.count(0.0) == LANES - 1


async def test_the_sweep_removes_lanes_nobody_has_used_for_a_window(crew: Crew) -> None:
    """A mailbox that had its burst long ago leaves nothing."""
    lanes = crew.process()
    await enter(lanes, 2)
    assert await lanes.sweep() == 0
    crew.clock.move(1000)
    assert await lanes.sweep() == 2


# -- the whole way ---------------------------------------------------------------------------------------------------


class Trigger:
    """The queue trigger of several instances: each takes up to eight messages, and four more while those run."""

    SLOTS = 12

    def __init__(self, shop: Workshop, instances: list[Services]) -> None:
        self.shop, self.instances = shop, instances
        self.rounds = 0
        self.put_back: Counter[str] = Counter()
        self.sent_in_round: dict[str, int] = {}

    async def run(self, most_rounds: int) -> None:
        """Rounds until nothing waits. What falls due is handed out in order, a slotful for each instance."""
        ready: list[Any] = []
        while self.rounds < most_rounds:
            ready += [job for name, job in self.shop.queues.take_due() if name == QUEUE]
            if not ready:
                following = min((one[0] for one in self.shop.queues.waiting if one[1] == QUEUE), default=None)
                if following is None:
                    return
                self.shop.advance(max(0.0, (following - self.shop.clock()).total_seconds()) + 0.001)
                continue
            self.rounds += 1
            hands, ready = ready[: self.SLOTS * len(self.instances)], ready[self.SLOTS * len(self.instances) :]
            await asyncio.gather(*(self._send(number, job) for number, job in enumerate(hands)))
        raise AssertionError(f"not done after {most_rounds} rounds")

    async def _send(self, number: int, job: Any) -> None:
        await self.instances[number % len(self.instances)].outbox.send(job)
        row = await self.instances[0].outbox.stored(job["queueId"])
        if row is not None and row.columns["state"] == "sent":
            self.sent_in_round.setdefault(job["queueId"], self.rounds)
        else:
            self.put_back[job["queueId"]] += 1


async def test_a_burst_in_two_processes_is_delivered_once_with_few_429s_and_another_mailbox_goes_on(
    workshop: Workshop,
) -> None:
    """500 mails of one mailbox, and one of another in the middle of them, against a tenant that takes four at once."""
    shop = workshop
    holder = await shop.own()
    account = await shop.delegated(SUPPORT, holder)
    shop.world.switches.capture_bodies = False
    shop.world.faults.add({"path_regex": "/sendMail$"}, {"delay_s": 0.02}, None)  # so that sends overlap
    second = shop.build()
    instances = [shop.services, second]
    accepted = [
        await instances[number % 2].submit.accept(account, {"to": TO, "text": "x", "subject": f"burst {number}"})
        for number in range(500)
    ]
    other = await shop.services.submit.accept(holder, {"to": TO, "text": "x", "subject": "between"})
    # The other mailbox's mail stands in the middle of the queue.
    (own,) = [one for one in shop.queues.waiting if one[2].get("queueId") == other["queueId"]]
    shop.queues.waiting.remove(own)
    shop.queues.waiting.insert(250, (shop.queues.waiting[249][0], *own[1:]))

    trigger = Trigger(shop, instances)
    await trigger.run(most_rounds=600)
    await second.close()
    subjects = Counter(one["subject"] for one in shop.world.mail.dump(RITA, "inbox"))
    assert subjects == Counter({f"burst {number}": 1 for number in range(500)}) + Counter({"between": 1})
    answers = Counter(one.status for one in shop.requests("POST", "sendMail$"))
    assert answers[202] == 501
    assert answers[429] <= 10
    # It goes in the round in which it is first handed out: 250 messages before it, 24 in a round.
    assert trigger.sent_in_round[other["queueId"]] <= 250 // (2 * Trigger.SLOTS) + 1
    assert trigger.put_back[other["queueId"]] == 0
    figures = {"429": answers[429], "rounds": trigger.rounds, "put back": sum(trigger.put_back.values())}
    assert figures["put back"] <= 4 * len(accepted), figures
    print(figures)  # noqa: T201


async def test_mailboxes_of_different_people_do_not_share_their_places(workshop: Workshop) -> None:
    """`me` of one person is not `me` of another: each has its own four."""
    one, two = await workshop.own(), await workshop.own("bob@contoso.example")
    records = [await workshop.record(account) for account in (one, two)]
    reaches = [await workshop.services.accounts.reach(record) for record in records]
    assert reaches[0].lane != reaches[1].lane
    assert [workshop.services.accounts.lane(account) for account in (one, two)] == [reach.lane for reach in reaches]
    workshop.world.switches.concurrency_limit = 0
    graph = workshop.services.access.graph(reaches[0])
    for _ in range(4):
        await graph._in_flight[f"{reaches[0].app.client_id} {reaches[0].mailbox.key}"].acquire()
    answer = await workshop.services.submit.accept(two, {"to": TO, "text": "x"})
    async with asyncio.timeout(60):
        await workshop.run_due()
    assert len(workshop.arrived(RITA, answer["messageId"])) == 1
