"""Attachments put on a message that was just made, because one request could not carry them (graph.md 7.3)."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

from shared.access import Access
from shared.accounts import Reach
from shared.clock import Clock
from shared.errors import GraphFailure
from shared.graph import requests
from shared.graph.uploads import Patience, Upload
from shared.mail_parts import SIMPLE_BYTES, Part
from shared.waiting import Sleep

RUN_FOR = timedelta(seconds=150)  # an HTTP answer leaves the function app within 230 s


class Attaching:
    """Adds attachments while a caller waits."""

    def __init__(self, access: Access, clock: Clock, sleep: Sleep) -> None:
        self._access, self._clock, self._sleep = access, clock, sleep

    async def add(self, reach: Reach, message_id: str, parts: tuple[Part, ...]) -> None:
        """Every part is on the message. Raises GraphFailure, CredentialError and SessionLost, after which some are."""
        patience = Patience(self._clock, self._clock() + RUN_FOR, self._sleep)
        for part in parts:
            patience.check()
            if len(part.content) > SIMPLE_BYTES:
                await self._upload(reach, message_id, part, patience)
            else:
                attached = _described(part) | {"contentBytes": base64.b64encode(part.content).decode()}
                await self._access.call(reach, _attach(reach, message_id, attached))

    async def _upload(self, reach: Reach, message_id: str, part: Part, patience: Patience) -> None:
        item = _described(part) | {"size": len(part.content)}
        answer = await self._access.call(reach, lambda c: requests.upload_session(c, reach.mailbox, message_id, item))
        url = answer.json().get("uploadUrl")
        if not isinstance(url, str):
            raise GraphFailure(502, "InvalidAnswer", "Graph's answer has no uploadUrl")

        async def read(start: int, length: int) -> bytes:
            return part.content[start : start + length]

        graph = self._access.graph(reach)
        await Upload(graph, reach.mailbox, reach.app, url, len(part.content), patience).run(read, resumed=False)


def _attach(reach: Reach, message_id: str, attached: dict[str, Any]) -> Any:
    return lambda c: requests.attach(c, reach.mailbox, message_id, attached)


def _described(part: Part) -> dict[str, Any]:
    """Name and kind of a part in Graph's words (graph.md 7.1)."""
    shown: dict[str, Any] = {"name": part.name, "contentType": part.content_type}
    return shown | ({"contentId": part.cid, "isInline": part.inline} if part.cid else {})
