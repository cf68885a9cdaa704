"""One run: the system is set up, used and disturbed by one seed, left to come to rest, and judged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.queue import QueueServiceClient

from local import services
from tests.chaos import oracle
from tests.chaos.listener import Listener
from tests.chaos.oracle import Evidence, Verdict
from tests.chaos.pace import Pace
from tests.chaos.people import RECIPIENT, Clients, People, paced
from tests.chaos.programs import Front, QuickApp, QuickTenant
from tests.chaos.race import race
from tests.chaos.weather import Reaper, Weather
from tests.support.application import Application
from tests.support.desk import Desk
from tests.support.tenant import Tenant

ANN, SUPPORT, SALES = "ann@contoso.example", "support@contoso.example", "sales@contoso.example"
SECRET = "secret of the run"
WORK = ("outbox", "notifications", "webhooks")  # queues that are empty at rest
START_S = 120.0


@dataclass(frozen=True)
class Plan:
    """How much happens, and how fast time passes inside."""

    seed: int
    submits: int = 1000
    deliveries: int = 1000
    factor: float = 20.0
    per_s: float = 12.0  # submits a second, and deliveries
    storage_restarts: int = 2
    rest_h: float = 3.0  # hours inside the run in which something must happen, as long as something is owed
    longest_h: float = 24.0  # hours inside the run after which it must have come to rest


@dataclass
class Outcome:
    """What the table shows of a run."""

    plan: Plan
    verdict: Verdict
    done: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class Run:
    """The programs and actors of one seed."""

    def __init__(self, plan: Plan, logs: Path) -> None:
        self.plan, self.logs = plan, logs
        self._chance = random.Random(plan.seed)
        self.pace = Pace(time.time(), plan.factor)
        self.front = Front(random.Random(plan.seed + 1))
        self.listener = Listener(random.Random(plan.seed + 2))
        self.storage = services.Azurite(location=logs / "storage", logs=logs)
        self.service = QuickTenant(self.pace, self.front.url, logs)
        self.tenant = Tenant(self.service)
        self.app = Application(cast(services.App, self.front))
        self.mailboxes: dict[str, str] = {}
        self._heard, self._told = -1, 0.0  # how much the receiver was told, and when the last of it

    # -- setting up --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Storage, tenant, two hosts of which one has a wrong clock, and four accounts that are connected."""
        await asyncio.to_thread(self.storage.start)
        await asyncio.to_thread(self.service.start)
        await self.tenant.reset(random_seed=self.plan.seed)
        await self.tenant.switches(capture_bodies=False)
        settings = services.app_settings(
            storage=self.storage.connection_string, tenant_url=self.service.url, poll_interval_s=60
        )
        skew_s = self._chance.choice([-1, 1]) * self._chance.uniform(60, 240)
        self.hosts = [
            QuickApp(name, self.pace, settings, self.front.url, skew, self.logs)
            for name, skew in (("host-a", 0.0), ("host-b", skew_s))
        ]
        await asyncio.to_thread(self.hosts[0].start)
        self.front.hosts = self.hosts
        await self._accounts()
        await asyncio.to_thread(self.hosts[1].start)

    async def _accounts(self) -> None:
        """Made while only the host with the right clock runs."""
        desk = Desk(self.app, self.tenant)
        await desk.hear(self.listener.url, serviceSecret=SECRET)
        self.holder = await desk.own(ANN)
        support = await desk.delegated(SUPPORT, self.holder, wait=False)
        sales = await desk.application(SALES, wait=False)
        self.mailboxes = {self.holder: ANN, support: SUPPORT, sales: SALES}
        deadline = time.monotonic() + START_S
        while set((await self._states()).values()) != {"connected"}:
            assert time.monotonic() < deadline, f"not connected: {await self._states()}"
            await asyncio.sleep(0.5)
        await self._listening(deadline)

    async def _listening(self, deadline: float) -> None:
        """Until every account says how it hears of changes."""
        for account in self.mailboxes:
            while not (await self._get(f"/v1/account/{account}")).get("notifications"):
                assert time.monotonic() < deadline, f"{account} does not listen"
                await asyncio.sleep(0.5)

    async def _get(self, path: str) -> Any:
        answer = await self.app.call("GET", path)
        assert answer.status == 200, f"{path}: {answer.status}"
        return answer.body

    async def _states(self) -> dict[str, str]:
        return {account: (await self._get(f"/v1/account/{account}"))["state"] for account in self.mailboxes}

    # -- use and trouble ---------------------------------------------------------------------------------------

    async def storm(self) -> None:
        """Everybody at work while everything goes wrong, then everything is well again."""
        plan = self.plan
        clients_chance, people_chance = random.Random(plan.seed + 3), random.Random(plan.seed + 4)
        self.clients = Clients(clients_chance, self.app, list(self.mailboxes))
        self.people = People(people_chance, self.tenant, self.mailboxes)
        self.weather = Weather(random.Random(plan.seed + 5), self.tenant, self.listener)
        self.reaper = Reaper(random.Random(plan.seed + 6), self.hosts, self.storage, plan.storage_restarts)
        async with asyncio.TaskGroup() as group:
            # In one group, so that the clients do not wait for ever for what a failed trouble-maker left down.
            trouble = [group.create_task(self.weather.blow()), group.create_task(self.reaper.reap())]
            await asyncio.gather(
                paced(self.clients.submit, plan.submits, plan.per_s),
                paced(self.people.deliver, plan.deliveries, plan.per_s),
            )
            for task in trouble:
                task.cancel()
        await self.reaper.revive()
        await self.weather.clear()
        await self.weather.tell_missed()

    # -- rest --------------------------------------------------------------------------------------------------

    async def rest(self) -> Verdict:
        """The verdict once nothing moves any more. The hourly look is called early and again, since an hour is
        long even here; it runs by itself as well."""
        end = time.monotonic() + self.pace.real_s(self.plan.longest_h * 3600)
        while True:
            await self._quiet(end)
            verdict = oracle.judge(await self._evidence())
            if not verdict.problems or time.monotonic() > min(end, self._stuck_at()):
                return verdict
            await self.weather.tell_missed()
            await self.app.call("POST", "/admin/functions/sweep")
            await asyncio.sleep(self.pace.real_s(600))

    def _stuck_at(self) -> float:
        """When to give up, unless somebody is told something before."""
        if len(self.listener.heard) != self._heard:
            self._heard, self._told = len(self.listener.heard), time.monotonic()
        return self._told + self.pace.real_s(self.plan.rest_h * 3600)

    async def _quiet(self, end: float) -> None:
        """Until the queues are empty and nobody was told anything for as long as a message can be hidden, or for so
        long that nothing more will come."""
        calm_s, busy = self.pace.real_s(700), time.monotonic()
        while time.monotonic() < min(end, self._stuck_at(), max(busy, self._told) + calm_s):
            if sum((await asyncio.to_thread(self._lengths, "")).values()):
                busy = time.monotonic()
            await asyncio.sleep(0.5)

    def _lengths(self, suffix: str) -> dict[str, int]:
        """How many messages wait on the queues, the hidden ones included."""
        found = {}
        with QueueServiceClient.from_connection_string(self.storage.connection_string) as client:
            for name in WORK if not suffix else (*WORK, "mailboxes"):
                try:
                    properties = client.get_queue_client(name + suffix).get_queue_properties()
                    found[name + suffix] = properties.approximate_message_count or 0
                except ResourceNotFoundError:
                    found[name + suffix] = 0
                except AzureError:
                    found[name + suffix] = 1  # cannot be asked: not at rest
        return found

    async def _evidence(self) -> Evidence:
        boxes, sent = {}, {}
        for account, address in self.mailboxes.items():
            boxes[account] = [one for one in await self.tenant.messages(address) if not one["isDraft"]]
            sent[account] = await self.tenant.messages(address, "sentitems")
        return Evidence(
            submitted=self.clients.submitted,
            delivered=self.people.delivered,
            heard=list(self.listener.heard),
            inbox=await self.tenant.messages(RECIPIENT, "inbox"),
            boxes=boxes,
            sent=sent,
            states=await self._states(),
            poison=await asyncio.to_thread(self._lengths, "-poison"),
            secret=SECRET,
        )

    async def throttled(self) -> int:
        """How often Graph answered 429, as far as its log goes back."""
        return sum(one["status"] == 429 for one in await self.tenant.log(surface="graph"))

    async def stop(self) -> None:
        """Ends every program."""
        for program in [*getattr(self, "hosts", []), self.service, self.storage]:
            await asyncio.to_thread(program.stop)


async def play(plan: Plan, logs: Path) -> Outcome:
    """One seed from beginning to end. Its logs stay when something is wrong."""
    _empty(logs)
    started, run = time.monotonic(), Run(plan, logs)
    outcome = Outcome(plan, Verdict())
    try:
        async with run.listener, run.front:
            await run.start()
            await run.storm()
            outcome.verdict = await run.rest()
            outcome.done = run.weather.seen + run.reaper.seen + run.people.deeds + run.clients.answers
            outcome.done["429 in all"] = await run.throttled()
            outcome.done["skewed s"] = int(abs(run.hosts[1].skew_s))
            for host in run.hosts:
                await asyncio.to_thread(host.stop)
            for problem in await race(run.storage, run.service, run.pace, run.holder):
                outcome.verdict.wrong("token race", problem)
    except (AssertionError, services.ServiceFailed, aiohttp.ClientError, ExceptionGroup) as problem:
        outcome.verdict.wrong("broken off", repr(problem))
    finally:
        await run.stop()
        outcome.seconds = time.monotonic() - started
        _leave_traces(outcome, logs)
    return outcome


def _empty(logs: Path) -> None:
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)


def _leave_traces(outcome: Outcome, logs: Path) -> None:
    """A report beside the programs' logs for a failed seed; nothing for a good one."""
    if not outcome.verdict.problems:
        shutil.rmtree(logs, ignore_errors=True)
        return
    report = {
        "plan": vars(outcome.plan),
        "counts": outcome.verdict.counts,
        "done": outcome.done,
        "problems": outcome.verdict.problems,
    }
    with contextlib.suppress(OSError):
        (logs / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
