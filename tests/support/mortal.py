"""A workshop whose processes die: the app's own triggers over a moved clock, with the host's ways of repeating."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, NamedTuple

import azure.functions as func
import httpx

import function_app
from shared import wiring
from shared.api.app import create_app
from shared.wiring import Services
from tests.support.fate import Fate
from tests.support.receiver import Receiver
from tests.support.workshop import Workshop

Json = dict[str, Any]
TOKEN = "0123456789abcdef" * 4
HIDDEN_S = 600  # a message whose process died is seen again after that (functions-host.md)
RETRY_S = 30  # one whose function failed after that (host.json, visibilityTimeout)
MOST_TRIES = 5  # host.json, maxDequeueCount


class Returned(NamedTuple):
    """A message that was taken before, and how often."""

    job: Any
    tries: int


def _triggers(kind: str) -> dict[str, Callable[..., Awaitable[None]]]:
    """The app's functions with this kind of trigger, by queue, or by name where there is no queue."""
    found: dict[str, Callable[..., Awaitable[None]]] = {}
    # Not by get_functions, which a process may call only once.
    for function in [builder._function for builder in function_app.app._function_builders]:
        trigger = function.get_trigger()
        assert trigger is not None
        binding = trigger.get_dict_repr()
        if binding["type"].lower() == kind:
            found[binding.get("queueName") or function.get_function_name()] = function.get_user_function()
    return found


class Mortal(Workshop):
    """Services that can be killed at any effect; queue messages come back, timers go on, webhooks are heard."""

    def __init__(self, storage: str, **settings: str) -> None:
        # Turns of polling are an hour apart, since days pass here.
        super().__init__(storage, **{"BOOTSTRAP_TOKEN": TOKEN, "POLL_INTERVAL_SECONDS": "3600", **settings})
        self.fate = Fate()
        self.receiver = Receiver()
        self.failures: list[str] = []  # what triggers raised
        self.poison: list[tuple[str, Any]] = []
        self._on_queue = _triggers("queuetrigger")
        self._timers = _triggers("timertrigger")
        self._stack = contextlib.ExitStack()

    async def start(self, *, real_queues: bool = False) -> Mortal:
        """Everything up, and every event sent to `receiver`."""
        await super().start(real_queues=real_queues)
        self._stack.enter_context(self.fate.over_the_wire())
        await self.receiver.start()
        hooks = {"webhooksEnabled": True, "webhooks": self.receiver.url, "webhookEvents": ["*"]}
        await self.services.service_settings.write(hooks)
        return self

    async def stop(self) -> None:
        """Ends everything, the changed clients included."""
        self._stack.close()
        wiring._services = None
        await self.receiver.stop()
        await super().stop()

    def build(self) -> Services:
        """A new process: empty memories, and mortal."""
        made = super().build()
        made.queues.put = self.fate.queue(made.queues.put)  # type: ignore[method-assign]
        made.queues.put_text = self.fate.queue(made.queues.put_text)  # type: ignore[method-assign]
        wiring._services = made
        return made

    async def reborn(self) -> None:
        """The dead process is gone, another one has started."""
        dead = self.services
        self.fate.reborn()
        self.services = self.build()
        with contextlib.suppress(Exception):
            await dead.close()

    # -- work --------------------------------------------------------------------------------------------------

    async def run(self, name: str, job: Any) -> None:
        """One queue message through the app's own trigger."""
        text = job if isinstance(job, str) else json.dumps({"job": job})
        await self._on_queue[name](func.QueueMessage(body=text.encode()))

    async def run_due(self) -> int:
        """Works off what is due, one message at a time; how many. A message that failed, or whose process died,
        comes back as the host brings it back."""
        done = 0
        while due := self._take_one():
            name, job, tries = due
            done += 1
            try:
                with self.fate.watching(name):
                    await self.run(name, job)
            except BaseException as problem:
                if self.fate.dead:
                    await self.reborn()
                    self._give_back(name, job, tries, HIDDEN_S)
                elif isinstance(problem, Exception):
                    self.failures.append(f"{name}: {problem!r}")
                    self._give_back(name, job, tries, RETRY_S)
                else:
                    raise
        return done

    def _take_one(self) -> tuple[str, Any, int] | None:
        now = self.clock()
        due = [one for one in self.queues.waiting if one[0] <= now]
        if not due:
            return None
        first = min(due, key=lambda one: one[0])
        self.queues.waiting.remove(first)
        _, name, job = first
        return (name, job.job, job.tries) if isinstance(job, Returned) else (name, job, 0)

    def _give_back(self, name: str, job: Any, tries: int, wait_s: float) -> None:
        if tries + 1 >= MOST_TRIES:
            self.poison.append((name, job))
            return
        self.queues.waiting.append((self.clock() + timedelta(seconds=wait_s), name, Returned(job, tries + 1)))

    async def tick(self, name: str) -> None:
        """One run of a timer; a timer that died runs again at its next time, not before."""
        try:
            with self.fate.watching(name):
                await self._timers[name](None)
        except BaseException:
            if not self.fate.dead:
                raise
            await self.reborn()

    async def hours(self, count: int, tick_s: float = 1800) -> None:
        """Lets hours pass, the timers included."""
        for _ in range(count):
            await self.run_for(3600, tick_s)
            await self.tick("sweep")
            await self.run_due()

    # -- clients -----------------------------------------------------------------------------------------------

    async def request(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response | None:
        """One request to the API; None when the process died before its answer."""
        given = {"Authorization": f"Bearer {TOKEN}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        transport = httpx.ASGITransport(create_app(self.services))
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
                with self.fate.watching("http"):
                    return await client.request(method, path, json=body, headers=given)
        except BaseException:
            if not self.fate.dead:
                raise
            await self.reborn()
            return None

    def heard(self, account: str, *events: str) -> dict[str, Json]:
        """What the receiver was told of an account, by event id."""
        return {
            one.headers["X-EE-Wh-Event-Id"]: one.json
            for one in self.receiver.requests
            if one.json["account"] == account and (not events or one.json["event"] in events)
        }
