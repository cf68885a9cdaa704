"""One key, many callers, any order of their steps, deaths between any two of them: one mail, one queue id."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local import services
from shared.outbox_records import CANCELLED
from tests.support.workshop import RITA, Workshop

BOUNDED = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
CALLERS = 3
# go; die before or after the step; the storage client repeats a write whose answer was lost; the lease ends first
ACTIONS = ["go"] * 6 + ["die", "die after", "repeat", "repeat", "lease ends", "lease ends"]
STEPS = st.lists(st.tuples(st.integers(0, CALLERS - 1), st.sampled_from(ACTIONS)), min_size=20, max_size=48)
_acting: ContextVar["Caller | None"] = ContextVar("acting", default=None)
_names = itertools.count()


class Died(BaseException):
    """The process of a caller is gone."""


class Caller:
    """One request; it makes a step only when told."""

    def __init__(self, work: Callable[[], Awaitable[Any]]) -> None:
        self._told: asyncio.Queue[str] = asyncio.Queue()
        self._stands = asyncio.Event()
        self.task = asyncio.ensure_future(self._run(work))

    async def _run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        _acting.set(self)
        try:
            return await work()
        except Died:
            return None
        finally:
            self._stands.set()

    async def standing(self) -> None:
        """Waits until the caller stands before a step, or is done."""
        await self._stands.wait()

    async def tell(self, action: str) -> None:
        """Lets the caller make one step."""
        if not self.task.done():
            await self.standing()
            self._stands.clear()
            self._told.put_nowait(action)
            await self.standing()

    async def step(self, act: Callable[[], Awaitable[Any]], *, write: bool) -> Any:
        """One operation of storage, in the way it was told."""
        self._stands.set()
        action = await self._told.get()
        if action == "die":
            raise Died
        found = await act()
        if action == "die after":
            raise Died
        return await act() if action == "repeat" and write else found


def gated(target: Any, name: str, *, write: bool) -> None:
    """Makes a method of storage a step of whoever calls it."""
    method = getattr(target, name)

    async def stepwise(*given: Any, **named: Any) -> Any:
        caller = _acting.get()
        if caller is None:
            return await method(*given, **named)
        return await caller.step(lambda: method(*given, **named), write=write)

    setattr(target, name, stepwise)


class Stage:
    """One workshop for every example, each with a key of its own."""

    def __init__(self, storage: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self._open(storage))

    async def _open(self, storage: str) -> None:
        self.shop = shop = await Workshop(storage).start()
        self.account = await shop.own()
        for table in (shop.services.tables["idempotency"], shop.services.tables["outbox"]):
            await table.get("warm", "up")
            for name in ("insert", "replace", "delete"):
                gated(table, name, write=True)
            gated(table, "get", write=False)
        gated(shop.services.queues, "put", write=False)

        async def pause(_seconds: float) -> None:
            caller = _acting.get()
            if caller is not None:
                await caller.step(lambda: asyncio.sleep(0), write=False)
            else:
                shop.advance(31)

        shop.services.idempotency._pause = pause

    def close(self) -> None:
        """Ends the workshop."""
        self.loop.run_until_complete(self.shop.stop())
        self.loop.close()

    def submit(self, name: str) -> Callable[[], Awaitable[Any]]:
        """A request with this key."""
        fields = {"to": [{"address": RITA}], "subject": name, "text": "x"}
        return lambda: self.shop.services.submit.accept(self.account, fields, key=name)

    async def play(self, name: str, steps: list[tuple[int, str]]) -> list[Any]:
        """The answers of all callers that lived, after these steps and then, in turns, all that are left."""
        callers = [Caller(self.submit(name)) for _ in range(CALLERS)]
        for which, action in steps:
            if action == "lease ends":
                self.shop.advance(31)
            await callers[which].tell("go" if action == "lease ends" else action)
        for number in itertools.count():
            if all(caller.task.done() for caller in callers):
                break
            assert number < 500, "the callers wait for each other"
            await callers[number % CALLERS].tell("go")
            if number % 40 == 39:
                self.shop.advance(31)  # the lease of one who died
        return [answer for caller in callers if (answer := await caller.task) is not None]

    def mails(self, name: str) -> int:
        """How many mails with this subject the recipient has."""
        return sum(one["subject"] == name for one in self.shop.world.mail.dump(RITA, "inbox"))


@pytest.fixture(scope="module")
def stage(quiet_azurite: services.Azurite) -> Iterator[Stage]:
    """Services whose steps the test conducts."""
    made = Stage(quiet_azurite.connection_string)
    yield made
    made.close()


@BOUNDED
@given(steps=STEPS)
def test_callers_of_one_key_in_any_order_get_one_mail_and_one_answer(
    stage: Stage, steps: list[tuple[int, str]]
) -> None:
    """Every answer names the same mail, at most one says MISS, and a late repeat finds it; the recipient has one."""
    name = f"key {next(_names)}"

    async def example() -> None:
        answers = await stage.play(name, steps)
        answers.append(await stage.submit(name)())
        assert len({(one["queueId"], one["messageId"], one["sendAt"]) for one in answers}) == 1
        assert sum(one["idempotency"]["status"] == "MISS" for one in answers) <= 1
        await stage.shop.run_for(400, tick_s=200)
        assert stage.mails(name) == 1

    stage.loop.run_until_complete(example())


@BOUNDED
@given(steps=STEPS)
def test_a_cancelled_mail_stays_cancelled_whatever_its_callers_do(stage: Stage, steps: list[tuple[int, str]]) -> None:
    """Cancelled after the first answer: neither repeats nor late messages bring it back."""
    name = f"key {next(_names)}"

    async def example() -> None:
        first = await stage.submit(name)()
        assert await stage.shop.services.outbox.cancel(first["queueId"]) is True
        for answer in await stage.play(name, steps):
            assert answer["queueId"] == first["queueId"]
        row = await stage.shop.services.outbox.stored(first["queueId"])
        assert row is not None
        assert row.columns["state"] == CANCELLED
        await stage.shop.run_for(400, tick_s=200)
        assert stage.mails(name) == 0

    stage.loop.run_until_complete(example())
