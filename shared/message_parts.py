"""What belongs to a message and costs calls of its own: its attachments, their contents, its source."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from shared.access import Access
from shared.accounts import Reach
from shared.attachments import attachment_id, parse_attachment_id
from shared.errors import GraphFailure
from shared.graph import event_requests, requests
from shared.graph.client import Answer
from shared.messages import attachment_view, text_part
from shared.mime_source import Part, read

LARGEST_SOURCE = 30_000_000  # bytes of attachments behind which a source is not fetched
LARGEST_CONTENTS = 20_000_000  # bytes of attachments in one event
MOST_CONTENTS = 50  # attachments of one message whose contents are fetched, a call each
_OVERHEAD = 4096  # the size Graph names may count more than the bytes
# An answer that will be the same tomorrow, or concerns this part alone: the event goes out without it.
_OF_THE_PART = frozenset({400, 403, 404, 405, 406, 410, 413, 415, 422, 500, 501})


class MessageParts:
    """Fetches parts of messages."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def attachments(self, reach: Reach, message: dict[str, Any]) -> list[dict[str, Any]]:
        """The entries of `attachments`, without contents. Listed only when there can be some: one call more
        (graph.md 3.1)."""
        _, content = text_part(message)
        if not message.get("hasAttachments") and "cid:" not in content:
            return []
        answer = await self._access.call(reach, lambda c: requests.attachments(c, reach.mailbox, message["id"]))
        found = answer.json().get("value", ())
        return [attachment_view(attachment_id(message["id"], one["id"]), one) for one in found]

    async def source(self, reach: Reach, message_id: str, attachments: list[dict[str, Any]]) -> Part | None:
        """The parts of a message's source; None where Graph has none to give or it is very large. One call."""
        if sum(one["encodedSize"] for one in attachments) > LARGEST_SOURCE:
            return None
        answer = await self._part(reach, lambda c: event_requests.source(c, reach.mailbox, message_id))
        return read(answer.body) if answer else None

    async def with_contents(
        self, reach: Reach, attachments: list[dict[str, Any]], limit: int | None
    ) -> list[dict[str, Any]]:
        """The entries, those of files and messages up to `limit` bytes with their base64 `content`, as far as one
        event carries it. A call for each of them."""
        left, calls, shown = LARGEST_CONTENTS, MOST_CONTENTS, []
        for one in attachments:
            most = left if limit is None else min(limit, left)
            content = None
            if calls > 0 and one["encodedSize"] <= most + most // 2 + _OVERHEAD:
                calls -= 1
                content = await self.content(reach, one)
            if content is not None and len(content) <= most:
                left -= len(content)
                one = one | {"content": base64.b64encode(content).decode()}
            shown.append(one)
        return shown

    async def content(self, reach: Reach, attachment: dict[str, Any]) -> bytes | None:
        """The bytes of one attachment, a message as MIME; None where there are none."""
        ids = parse_attachment_id(attachment["id"])
        if ids is None:
            return None
        build = requests.attachment_value if attachment["contentType"] == "message/rfc822" else requests.attachment
        answer = await self._part(reach, lambda c: build(c, reach.mailbox, *ids))
        if answer is None:
            return None
        if build is requests.attachment_value:
            return answer.body
        try:
            return base64.b64decode(answer.json()["contentBytes"], validate=True)
        except (binascii.Error, ValueError, TypeError, KeyError, GraphFailure):
            return None  # a link to a file elsewhere

    async def _part(self, reach: Reach, build: Any) -> Answer | None:
        try:
            return await self._access.call(reach, build)
        except GraphFailure as failure:
            if failure.status not in _OF_THE_PART:
                raise
            return None
