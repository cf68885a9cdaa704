"""The programs of a run: storage on disk, the tenant, two hosts over both, and the address they share.

What is waited for in the host (hidden messages, the pause after a failure) is shortened by the factor of the run, down
to the one second that storage queues can tell apart. The longest run of a function is not: work is no quicker here.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import aiohttp
from aiohttp import web

from local import services
from tests.chaos.pace import Pace

HIDDEN_S, RETRY_S = 600, 30  # functions-host.md; host.json
OVERRIDE = "AzureFunctionsJobHost__"


class QuickTenant(services.Tenant):
    """The tenant at the pace of the run."""

    def __init__(self, pace: Pace, service_url: str, logs: Path) -> None:
        super().__init__(service_url=service_url, logs=logs)
        self._pace = pace

    def command(self) -> list[str]:
        """Through the wrapper."""
        return ["tests.chaos.quick_tenant" if part == "local.tenant" else part for part in super().command()]

    def environment(self) -> dict[str, str]:
        """With the pace."""
        return super().environment() | self._pace.environment()


class QuickApp(services.App):
    """One host with the app, at the pace of the run, reached by its public address through the front."""

    def __init__(
        self, name: str, pace: Pace, settings: dict[str, str], service_url: str, skew_s: float, logs: Path
    ) -> None:
        self.name = name
        hidden_s = max(5, math.ceil(pace.real_s(HIDDEN_S)))
        super().__init__(settings=settings, poll_seconds=0.5, hidden_seconds=hidden_s, logs=logs)
        self._pace, self._service_url, self.skew_s = pace, service_url, skew_s

    def command(self) -> list[str]:
        """Through the wrapper, logging only what failed."""
        changed = ["tests.chaos.quick_host" if part == "local.host" else part for part in super().command()]
        return [*changed, "--quiet"]

    def environment(self) -> dict[str, str]:
        """With the pace, the shortened times, and the one public address."""
        retry_s = max(1, math.ceil(self._pace.real_s(RETRY_S)))
        shortened = {f"{OVERRIDE}extensions__queues__visibilityTimeout": f"00:00:{retry_s:02}"}
        public = {"SERVICE_URL": self._service_url}
        return super().environment() | self._pace.environment(self.skew_s) | shortened | public


class Front:
    """The service's public address: passes each request on to one of the hosts that run, 502 when it fails."""

    def __init__(self, chance: random.Random) -> None:
        self.hosts: list[QuickApp] = []
        self._chance = chance
        self.port = services.free_port()

    @property
    def url(self) -> str:
        """What `SERVICE_URL` is."""
        return f"http://{services.LOOPBACK}:{self.port}"

    async def __aenter__(self) -> Front:
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_route("*", "/{tail:.*}", self._pass_on)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, services.LOOPBACK, self.port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.Response:
        alive = [host for host in self.hosts if host.running]
        if not alive:
            return web.Response(status=502)
        url = self._chance.choice(alive).url + request.raw_path
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "content-length")}
        try:
            async with self._session.request(
                request.method, url, data=await request.read(), headers=headers, allow_redirects=False
            ) as answer:
                kept = {k: v for k, v in answer.headers.items() if k.lower() in ("content-type", "retry-after")}
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)
        except (aiohttp.ClientError, TimeoutError):
            return web.Response(status=502)
