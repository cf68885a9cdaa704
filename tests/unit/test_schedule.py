"""The schedule: chains that neither end nor double, whatever dies."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local import services
from shared.schedule import SAFETY_S, Schedule
from shared.storage.account import StorageAccount
from shared.storage.tables import Table

START = datetime(2026, 3, 2, 8, 0, 0, tzinfo=UTC)


class Board:
    """A schedule over real storage, with a queue that keeps what it is given and a clock that stands."""

    def __init__(self, storage: str, name: str) -> None:
        self.account = StorageAccount({"connection_string": storage})
        self.table = Table(self.account, name)
        self.now = START
        self.queued: list[tuple[str, dict[str, Any], float]] = []
        self.schedule = Schedule(self.table, self, lambda: self.now)  # type: ignore[arg-type]

    async def put(self, queue: str, job: dict[str, Any], delay_s: float = 0) -> None:
        """Keeps a message."""
        self.queued.append((queue, job, delay_s))

    async def rows(self) -> int:
        """How many rows wait."""
        return len(await self.table.partition("due"))

    async def begin(self, in_s: float = 3600) -> None:
        """A chain whose first turn is that far away."""
        await self.schedule.start_chain("c", "q", {"account": "a"}, START + timedelta(seconds=in_s))

    async def tick(self, after_s: float = 0) -> list[dict[str, Any]]:
        """Moves the clock and runs the timer; the jobs it put on the queue."""
        self.now += timedelta(seconds=after_s)
        before = len(self.queued)
        await self.schedule.tick(self.now)
        return [job for _, job, _ in self.queued[before:]]

    async def done(self, job: dict[str, Any], in_s: float = 3600) -> bool:
        """A worker ends its turn."""
        return await self.schedule.continue_chain("q", job, self.now + timedelta(seconds=in_s))


@pytest.fixture
async def board(quiet_azurite: services.Azurite) -> AsyncIterator[Board]:
    """A board with a table of its own."""
    import secrets

    made = Board(quiet_azurite.connection_string, f"schedule{secrets.token_hex(4)}")
    yield made
    await made.table.close()
    await made.account.close()


async def test_a_chain_runs_turn_after_turn_with_one_row(board: Board) -> None:
    """Ten hours, ten turns, never more than one row."""
    await board.begin()
    for _ in range(10):
        (job,) = await board.tick(3600)
        assert job["account"] == "a"
        assert await board.rows() == 1
        assert await board.done(job)
        assert await board.tick() == []
        assert await board.rows() == 1


async def test_nothing_is_started_before_its_minute(board: Board) -> None:
    """The timer takes what is due within the next minute, with the rest of the wait as delay."""
    await board.begin(3600)
    assert await board.tick(3600 - 61) == []
    (job,) = await board.tick(21)
    assert board.queued[-1][2] == pytest.approx(40, abs=1)
    assert job["chain"] == "c"


async def test_a_timer_that_was_late_starts_everything_at_once(board: Board) -> None:
    """After a day without timers each chain runs one turn, not a day's worth."""
    await board.begin()
    (job,) = await board.tick(86_400)
    assert board.queued[-1][2] == 0
    assert await board.tick() == []
    assert await board.done(job)


async def test_a_worker_that_dies_is_followed_by_the_safety_row(board: Board) -> None:
    """Its turn is started again after ten minutes, once, and the chain goes on."""
    await board.begin()
    await board.tick(3600)
    assert await board.tick(SAFETY_S - 120) == []
    (again,) = await board.tick(120)
    assert await board.done(again)
    assert await board.rows() == 1


async def test_a_job_put_on_the_queue_twice_starts_no_second_chain(board: Board) -> None:
    """The first that ends its turn goes on; the second is told that it was overtaken."""
    await board.begin()
    (job,) = await board.tick(3600)
    assert await board.done(job) is True
    assert await board.done(job) is False
    assert await board.rows() == 1


async def test_a_timer_that_dies_between_queue_and_row_doubles_no_chain(board: Board) -> None:
    """The message is out, the row is not moved: the next timer puts it out again, one turn wins."""
    await board.begin()
    swap = board.table.swap

    async def die(*_: Any) -> None:
        raise KeyboardInterrupt

    board.table.swap = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        await board.tick(3600)
    board.table.swap = swap  # type: ignore[method-assign]
    first = board.queued[-1][1]
    (second,) = await board.tick()
    assert sorted([await board.done(first), await board.done(second)]) == [False, True]
    assert await board.rows() == 1


async def test_a_worker_that_dies_between_row_and_message_costs_only_the_wait(board: Board) -> None:
    """For short intervals the message is put out by the worker; when it dies first, the safety row does it."""
    await board.begin()
    (job,) = await board.tick(3600)
    put = board.put

    async def die(*_: Any) -> None:
        raise KeyboardInterrupt

    board.put = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        await board.done(job, in_s=5)
    board.put = put  # type: ignore[method-assign]
    (again,) = await board.tick(SAFETY_S + 10)
    assert await board.done(again)
    assert await board.rows() == 1


async def test_a_short_interval_needs_no_timer(board: Board) -> None:
    """The next turn is on the queue at once; the row is its safety net only."""
    await board.begin()
    (job,) = await board.tick(3600)
    before = len(board.queued)
    assert await board.done(job, in_s=5)
    (queued,) = board.queued[before:]
    assert queued[2] == pytest.approx(5, abs=0.1)
    board.now += timedelta(seconds=5)
    assert await board.done(queued[1], in_s=5)
    assert await board.rows() == 1


async def test_an_ended_chain_stays_ended(board: Board) -> None:
    """No row, no turn; a message that is still under way cannot revive it."""
    await board.begin()
    (job,) = await board.tick(3600)
    await board.schedule.end_chain(job)
    assert await board.rows() == 0
    assert await board.done(job) is False
    assert await board.tick(86_400) == []


async def test_a_single_job_far_away_waits_in_the_table(board: Board) -> None:
    """Beyond what a queue can hide, and it leaves the table when its time has come."""
    await board.schedule.once(START + timedelta(days=30), "q", {"queueId": "1"})
    assert (board.queued, await board.rows()) == ([], 1)
    assert await board.tick(30 * 86_400 - 30) == [{"queueId": "1"}]
    assert await board.rows() == 0


async def test_two_jobs_of_one_moment_do_not_replace_each_other(board: Board) -> None:
    """Nor do jobs of different queues."""
    for number in range(3):
        await board.schedule.once(START + timedelta(days=30), "q", {"queueId": str(number)})
    await board.schedule.once(START + timedelta(days=30), "other", {"queueId": "0"})
    assert len(await board.tick(30 * 86_400)) == 4


async def test_a_timer_takes_everything_due_the_oldest_first(board: Board) -> None:
    """However much it is, in portions."""
    for number in range(7):
        await board.schedule.once(START + timedelta(days=30, seconds=number), "q", {"n": number})
    board.now += timedelta(days=31)
    assert await board.schedule.tick(board.now, most=3) == 7
    assert [job["n"] for _, job, _ in board.queued] == list(range(7))


async def test_a_timer_whose_minute_is_over_leaves_the_rest_to_the_next(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left over is taken next time."""
    monkeypatch.setattr("shared.schedule.TICK_FOR", timedelta(0))
    for number in range(5):
        await board.schedule.once(START + timedelta(days=30, seconds=number), "q", {"n": number})
    board.now += timedelta(days=31)
    assert await board.schedule.tick(board.now, most=3) == 3
    assert [job["n"] for _, job, _ in board.queued] == [0, 1, 2]
    assert await board.schedule.tick(board.now, most=3) == 2
