"""What goes wrong around the app, drawn from the seed: Graph, the login service, notifications, processes, storage."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from typing import Any

from local import services
from tests.chaos.listener import Listener
from tests.chaos.programs import QuickApp
from tests.support.tenant import Tenant

PORT_TRIES = 20
GRAPH = {"path_regex": "^/v1.0/"}
SEND = {"method": "POST", "path_regex": "/(sendMail|send)$"}
TOKEN = {"path_regex": "/oauth2/v2.0/token$"}
# What, which requests, what happens to them, and the highest chance of it.
FAULTS: tuple[tuple[str, dict[str, str], dict[str, Any], float], ...] = (
    ("429", GRAPH, {"status": 429, "retry_after": "2"}, 0.3),
    ("429 fraction", GRAPH, {"status": 429, "retry_after": "1.37"}, 0.3),
    ("429 without time", GRAPH, {"status": 429}, 0.3),
    ("503 with time", GRAPH, {"status": 503, "retry_after": "3"}, 0.3),
    ("503", GRAPH, {"status": 503}, 0.2),
    ("504", GRAPH, {"status": 504}, 0.2),
    ("504 after sending", SEND, {"after": {"status": 504}}, 0.5),
    ("dropped after sending", SEND, {"after": {"drop": True}}, 0.5),
    ("dropped after acting", GRAPH, {"after": {"drop": True}}, 0.15),
    ("dropped", GRAPH, {"drop": True}, 0.2),
    ("slow", GRAPH, {"delay_s": 0.8}, 0.4),
    ("slow after sending", SEND, {"after": {"delay_s": 1.5}}, 0.5),
    ("login 503", TOKEN, {"status": 503}, 1.0),
)


class Weather:
    """Changes what goes wrong every few seconds, until told to clear up."""

    def __init__(self, chance: random.Random, tenant: Tenant, listener: Listener) -> None:
        self.seen: Counter[str] = Counter()
        self._names: dict[str, str] = {}
        self._chance, self._tenant, self._listener = chance, tenant, listener

    async def blow(self) -> None:
        """One phase after another, for ever."""
        while True:
            await self._worsen()
            await asyncio.sleep(self._chance.uniform(2, 6))
            await self._count()
            await self.clear()
            await asyncio.sleep(self._chance.uniform(0, 2))

    async def _worsen(self) -> None:
        for name, match, action, most in self._chance.sample(FAULTS, self._chance.randint(1, 3)):
            probability = self._chance.uniform(most / 4, most)
            rule = {"match": match, "action": action, "times": None, "probability": probability}
            made = await self._tenant.control("POST", "/faults", rule)
            self._names[made["id"]] = name
        await self._tenant.switches(
            notification_loss=self._chance.choice([0, 0, 0.3, 0.6]),
            notification_repeat=self._chance.choice([1, 1, 2, 3]),
            notification_shuffle=self._chance.random() < 0.5,
        )
        self._listener.trouble = self._chance.choice([0, 0.1, 0.4])

    async def _count(self) -> None:
        for rule in await self._tenant.faults():
            self.seen[self._names[rule["id"]]] += rule["applied"]

    async def clear(self) -> None:
        """All is well again; where notifications were lost, Graph says so (graph.md 10.6)."""
        lost = (await self._tenant.switches())["notification_loss"] > 0
        await self._tenant.clear_faults()
        await self._tenant.switches(notification_loss=0, notification_repeat=1, notification_shuffle=False)
        self._listener.trouble = 0
        if lost:
            await self.tell_missed()

    async def tell_missed(self) -> None:
        """The lifecycle notification `missed` to every subscription."""
        for subscription in await self._tenant.subscriptions():
            try:
                await self._tenant.lifecycle(subscription["id"], "missed")
            except AssertionError:
                continue  # it ended meanwhile
            self.seen["missed"] += 1


class Reaper:
    """Kills hosts at random instants and starts them again; restarts storage now and then."""

    def __init__(
        self, chance: random.Random, hosts: list[QuickApp], storage: services.Azurite, storage_restarts: int
    ) -> None:
        self.seen: Counter[str] = Counter()
        self._chance, self._hosts, self._storage = chance, hosts, storage
        self._storage_restarts = storage_restarts

    async def reap(self) -> None:
        """One death after another, for ever; never all hosts for long."""
        turn = 0
        while True:
            await asyncio.sleep(self._chance.uniform(1.5, 6))
            turn += 1
            if self._storage_restarts and turn % 4 == 0:
                self._storage_restarts -= 1
                await self._restart_storage()
                continue
            host = self._chance.choice(self._hosts)
            await asyncio.to_thread(host.kill)
            self.seen["kill -9"] += 1
            await asyncio.sleep(self._chance.uniform(0, 2))
            await asyncio.to_thread(host.start)

    async def _restart_storage(self) -> None:
        """Stopped, not killed: Azurite writes its files every few seconds only, while the storage it stands for
        keeps what it acknowledged. Requests under way are cut off all the same."""
        await asyncio.to_thread(self._storage.stop)
        await asyncio.sleep(self._chance.uniform(0, 2))
        await self._start_storage()
        self.seen["storage restart"] += 1

    async def _start_storage(self) -> None:
        """On the ports it had, which another program of the machine may hold for a moment."""
        for _ in range(PORT_TRIES):
            with contextlib.suppress(services.ServiceFailed):
                await asyncio.to_thread(self._storage.start)
                return
            await asyncio.sleep(1)
        await asyncio.to_thread(self._storage.start)

    async def revive(self) -> None:
        """Everything runs."""
        for program in [self._storage, *self._hosts]:
            if not program.running:
                await asyncio.to_thread(program.start)
