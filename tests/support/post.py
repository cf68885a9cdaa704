"""Delivery of webhooks under a clock that the test moves, and processes that die where the test wants."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shared.events import EVENT_TYPES
from shared.storage.keys import digest
from shared.storage.tables import Row, Table
from shared.wiring import Services
from tests.support.receiver import Receiver
from tests.support.workshop import Workshop


class Post:
    """A workshop whose webhooks go to a receiver."""

    def __init__(self, shop: Workshop, receiver: Receiver) -> None:
        self.shop, self.receiver = shop, receiver
        self.times: list[float] = []
        self.account = f"post-{id(self):x}"

    async def hear(self, url: str | None = None, **settings: Any) -> None:
        """Sends every event but accountAdded to this receiver, or to another target."""
        wanted = [name for name in EVENT_TYPES if name != "accountAdded"]
        target = self.receiver.url if url is None else url
        values = {"webhooksEnabled": True, "webhooks": target, "webhookEvents": wanted, **settings}
        await self.shop.services.service_settings.write(values)

    async def open(self, url: str | None = None, **settings: Any) -> None:
        """An account without credentials, whose events go to this receiver or to another target."""
        await self.hear(url, **settings)
        await self.shop.services.onboarding.create({"account": self.account, "name": "x"})
        await self.run()

    async def emit(self, url: str, **settings: Any) -> str:
        """One event of a new account without credentials; the account."""
        values = {"webhooksEnabled": True, "webhooks": url, "webhookEvents": ["*"], **settings}
        await self.shop.services.service_settings.write(values)
        await self.shop.services.onboarding.create({"account": self.account, "name": "x"})
        return self.account

    async def tell(self, what: str, event: str = "messageNew", *, about: str = "", order: int = 0) -> None:
        """Records an event; `what` becomes its data's id, by which `heard` knows it."""
        await self.shop.services.events.emit(
            self.account, event, {"id": what}, happening=f"{event} {what}", about=about, order=order
        )

    def heard(self) -> list[str]:
        """The `what` of every request that came, in order."""
        return [one.json["data"]["id"] for one in self.receiver.requests]

    async def run(self, seconds: float = 0, services: Services | None = None) -> None:
        """Delivers what is due, for that long."""
        started = self.shop.clock()
        while True:
            for name, job in self.shop.queues.take_due():
                if name == "webhooks":
                    before = len(self.receiver.requests)
                    await (services or self.shop.services).webhooks.deliver(job)
                    made = len(self.receiver.requests) - before
                    self.times += [(self.shop.clock() - started).total_seconds()] * made
            following = self.shop.queues.next_due()
            left = seconds - (self.shop.clock() - started).total_seconds()
            if left <= 0:
                return
            pause = left if following is None else min(left, (following - self.shop.clock()).total_seconds())
            self.shop.advance(max(0.0, pause) + 0.001)

    async def rows(self) -> list[Row]:
        """The account's recorded events, without accountAdded."""
        found = await self.shop.services.tables["events"].partition(self.account)
        return [row for row in found if row.value["envelope"]["event"] != "accountAdded"]

    async def states(self) -> dict[str, str]:
        """What became of each event, by its `what`."""
        return {row.value["envelope"]["data"]["id"]: row.columns["state"] for row in await self.rows()}

    async def states_of(self, what: str) -> str:
        """What became of one event about a thing of the same name, whose data may be gone."""
        (state,) = {
            row.columns["state"] for row in await self.rows() if row.key.startswith(digest(what)[:24])
        }  # fmt: skip
        return str(state)


class Died(BaseException):
    """The process ended here."""


@contextmanager
def dying(services: Services, at: int, *, after: bool) -> Iterator[list[str]]:
    """Inside, the process dies at its `at`th step towards storage, queues or receivers: before the step, or after it
    was taken. The names of the steps so far; the last one is fatal if there were enough."""
    steps: list[str] = []

    def count(name: str) -> bool:
        steps.append(name)
        return len(steps) == at

    def mortal(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        async def step(*given: Any, **named: Any) -> Any:
            fatal = count(name)
            if fatal and not after:
                raise Died
            done = await work(*given, **named)
            if fatal:
                raise Died
            return done

        return step

    def mortal_scan(name: str, work: Callable[..., AsyncIterator[Row]]) -> Callable[..., AsyncIterator[Row]]:
        async def step(*given: Any, **named: Any) -> AsyncIterator[Row]:
            if count(name):
                raise Died
            async for row in work(*given, **named):
                yield row

        return step

    kept: list[tuple[Any, str, Any]] = []

    def patch(thing: Any, name: str, wrap: Callable[[str, Any], Any], label: str) -> None:
        kept.append((thing, name, thing.__dict__.get(name)))
        setattr(thing, name, wrap(label, getattr(thing, name)))

    for table in services.tables.values():
        assert isinstance(table, Table)
        for name in ("get", "insert", "replace", "put", "delete"):
            patch(table, name, mortal, f"{table.name} {name}")
        patch(table, "scan", mortal_scan, f"{table.name} scan")
    patch(services.queues, "put", mortal, "queue put")
    patch(services.webhooks._sender, "post", mortal, "post")
    try:
        yield steps
    finally:
        for thing, name, before in kept:
            if before is None:
                delattr(thing, name)
            else:
                setattr(thing, name, before)
