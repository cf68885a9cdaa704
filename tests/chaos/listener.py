"""The customer's webhook endpoint: notes everything it is sent, and then answers well, badly, late or not at all."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from local.services import LOOPBACK

MOODS = ("fine", "error", "slow", "drop")


@dataclass(frozen=True)
class Heard:
    """One delivery as it came, in the order of arrival."""

    event_id: str
    signature: str
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The envelope."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


class Listener:
    """Listens between entering and leaving; `trouble` is the chance that a delivery is not answered well."""

    def __init__(self, chance: random.Random) -> None:
        self.heard: list[Heard] = []
        self.trouble = 0.0
        self.refused = 0
        self._chance = chance

    @property
    def url(self) -> str:
        """Where webhooks go."""
        return f"http://{LOOPBACK}:{self._port}/hook"

    async def __aenter__(self) -> Listener:
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_post("/hook", self._receive)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, 0).start()
        self._port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        body, headers = await request.read(), request.headers
        signature = headers.get("X-EE-Wh-Signature", "")
        self.heard.append(Heard(headers["X-EE-Wh-Event-Id"], signature, body))
        mood = self._chance.choice(MOODS[1:]) if self._chance.random() < self.trouble else "fine"
        self.refused += mood in ("error", "drop")
        if mood == "slow":
            await asyncio.sleep(self._chance.uniform(0.2, 1.5))
        if mood == "drop" and request.transport is not None:
            request.transport.abort()
        return web.Response(status=500 if mood == "error" else 200)
