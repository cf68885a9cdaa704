"""What an event says of a message: the data of messageNew and messageUpdated, as the settings let it out."""

from __future__ import annotations

from typing import Any

from shared.access import Access
from shared.accounts import Reach
from shared.attachments import attachment_id
from shared.graph import requests
from shared.mailboxes import Mailboxes
from shared.markers import Markers
from shared.messages import attachment_view, cut, headers_of, message_view, text_part
from shared.service_settings import ServiceSettings

LARGEST_TEXT = 300_000  # bytes of text in an event: its record holds less than a megabyte


class MessageEvents:
    """Builds the data of events; each method gives (data, path of the folder)."""

    def __init__(self, access: Access, mailboxes: Mailboxes, markers: Markers, settings: ServiceSettings) -> None:
        self._access, self._mailboxes = access, mailboxes
        self._markers, self._settings = markers, settings

    async def new(self, account: str, reach: Reach, message: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        """A message that was not reported before."""
        folder = message.get("parentFolderId") or ""
        tree = await self._mailboxes.tree(account, reach, needs=folder or None)
        data = message_view(message, await self._attachments(reach, message))
        special_use = tree.special_use(folder)
        if special_use:
            data["messageSpecialUse"] = special_use
        data["seemsLikeNew"] = special_use != "\\Sent" and await self._markers.is_first_with(account, message)
        await self._trim(data, message)
        return data, tree.path(folder)

    async def update(
        self, account: str, message: dict[str, Any], flags: list[str]
    ) -> tuple[dict[str, Any], str | None]:
        """A message whose flags are these now."""
        tree = await self._mailboxes.stored(account)
        path = tree.path(message.get("parentFolderId") or "") if tree else None
        data: dict[str, Any] = {"id": message["id"], "changes": {"flags": {"value": flags}}}
        if message.get("conversationId"):
            data["threadId"] = message["conversationId"]
        return data, path

    async def _attachments(self, reach: Reach, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Listed only when there can be some: one call more (graph.md 3.1)."""
        _, content = text_part(message)
        if not message.get("hasAttachments") and "cid:" not in content:
            return []
        answer = await self._access.call(reach, lambda c: requests.attachments(c, reach.mailbox, message["id"]))
        found = answer.json().get("value", ())
        return [attachment_view(attachment_id(message["id"], one["id"]), one) for one in found]

    async def _trim(self, data: dict[str, Any], message: dict[str, Any]) -> None:
        """Leaves what the settings let out: chosen headers, and the text when asked for (18.4)."""
        settings = await self._settings.all()
        wanted = {name.lower() for name in settings.get("notifyHeaders") or ()}
        headers = {k: v for k, v in headers_of(message).items() if k in wanted or "*" in wanted}
        data.pop("headers", None)
        if headers:
            data["headers"] = headers
        if settings.get("notifyText"):
            kind, content = text_part(message)
            limit = settings.get("notifyTextSize")
            shown, has_more = cut(content, LARGEST_TEXT if limit is None else min(limit, LARGEST_TEXT))
            data["text"] |= {kind: shown, "hasMore": has_more}


def with_flags(message: dict[str, Any], flags: list[str]) -> dict[str, Any]:
    """The message with these flags instead of its own."""
    status = "flagged" if "\\Flagged" in flags else "notFlagged"
    return message | {
        "isRead": "\\Seen" in flags,
        "isDraft": "\\Draft" in flags,
        "flag": {"flagStatus": status},
    }
