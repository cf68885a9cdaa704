"""A webhook receiver inside the test: keeps what it is sent and answers as told."""

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from multidict import CIMultiDictProxy

from local.services import LOOPBACK


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass
class Receiver:
    """Listens on a free port between `start` and `stop`."""

    port: int = 0
    tls: ssl.SSLContext | None = None
    requests: list[Received] = field(default_factory=list)
    gate: asyncio.Event | None = None  # answers wait until it is set
    _answers: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    _about: dict[str, int] = field(default_factory=dict)
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where to send webhooks."""
        return f"http://{LOOPBACK}:{self.port}/webhook"

    async def start(self) -> "Receiver":
        """Begin to listen."""
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_route("*", "/{tail:.*}", self._receive)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, self.port, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        """Listen no more."""
        if self._runner:
            await self._runner.cleanup()

    def answer_next(self, *statuses: int) -> None:
        """Answer the next requests with these statuses, one each; 200 after that."""
        self._answers.extend((status, {}) for status in statuses)

    def answer_with(self, status: int, **headers: str) -> None:
        """Answer the next request with this status and these headers; `_` in a name stands for a hyphen."""
        self._answers.append((status, {name.replace("_", "-"): value for name, value in headers.items()}))

    def answer_about(self, account: str, status: int) -> None:
        """Answer the next request about this account with this status, whatever else comes before it."""
        self._about[account] = status

    async def wait_for(
        self, predicate: Callable[[Received], bool] = lambda _: True, timeout_s: float = 60
    ) -> Received:
        """The first request that fits, past or to come. AssertionError if none comes in time."""

        def fitting() -> Received | None:
            return next((item for item in self.requests if predicate(item)), None)

        try:
            async with asyncio.timeout(timeout_s), self._arrived:
                await self._arrived.wait_for(lambda: fitting() is not None)
        except TimeoutError:
            others = [item.body[:300] for item in self.requests]
            raise AssertionError(f"no such webhook within {timeout_s} s, only {others}") from None
        found = fitting()
        assert found is not None
        return found

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._arrived:
            self.requests.append(Received(request.method, request.raw_path, request.headers, body))
            self._arrived.notify_all()
        if self.gate is not None:
            await self.gate.wait()
        for account in [one for one in self._about if one.encode() in body]:
            return web.Response(status=self._about.pop(account))
        status, headers = self._answers.popleft() if self._answers else (200, {})
        return web.Response(status=status, headers=headers)
