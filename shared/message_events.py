"""What an event says of a message: the data of messageNew and messageUpdated, as the settings let it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared import report_signs
from shared.accounts import Reach
from shared.calendar_events import MOST_EVENTS, events_of
from shared.mailboxes import Mailboxes
from shared.markers import Markers
from shared.message_parts import MessageParts
from shared.message_reports import Findings, Followup, MessageReports
from shared.messages import cut, headers_of, message_view, text_part
from shared.mime_source import as_text
from shared.service_settings import ServiceSettings

LARGEST_TEXT = 5_000_000  # bytes of text in an event


@dataclass(frozen=True)
class News:
    """A new message as it is told: the data of its messageNew, the path of its folder, and what follows from it."""

    data: dict[str, Any]
    path: str | None
    followups: tuple[Followup, ...] = ()


class MessageEvents:
    """Builds the data of events."""

    def __init__(
        self,
        parts: MessageParts,
        reports: MessageReports,
        mailboxes: Mailboxes,
        markers: Markers,
        settings: ServiceSettings,
        web_safe: Callable[[str], str] | None = None,
    ) -> None:
        """`web_safe` makes HTML safe for a page, for the setting `notifyWebSafeHtml`."""
        self._parts, self._reports, self._mailboxes = parts, reports, mailboxes
        self._markers, self._settings, self._web_safe = markers, settings, web_safe

    async def new(self, account: str, reach: Reach, message: dict[str, Any]) -> News:
        """A message that was not reported before."""
        folder = message.get("parentFolderId") or ""
        tree = await self._mailboxes.tree(account, reach, needs=folder or None)
        listed = await self._parts.attachments(reach, message)
        data = message_view(message, listed)
        special_use = tree.special_use(folder)
        if special_use:
            data["messageSpecialUse"] = special_use
        data["seemsLikeNew"] = special_use != "\\Sent" and await self._markers.is_first_with(account, message)
        findings = await self._reports.findings(account, reach, message, special_use, listed)
        data |= findings.marks
        await self._enrich(reach, message, data, listed, findings)
        return News(data, tree.path(folder), findings.followups)

    async def update(
        self, account: str, message: dict[str, Any], flags: list[str]
    ) -> tuple[dict[str, Any], str | None]:
        """(data, path of the folder) of a message whose flags are these now."""
        tree = await self._mailboxes.stored(account)
        path = tree.path(message.get("parentFolderId") or "") if tree else None
        data: dict[str, Any] = {"id": message["id"], "changes": {"flags": {"value": flags}}}
        if message.get("conversationId"):
            data["threadId"] = message["conversationId"]
        return data, path

    async def place(self, account: str, folder: str) -> tuple[str, str | None] | None:
        """(path, special use) of a folder as it was last known; None for one that is not known."""
        tree = await self._mailboxes.stored(account) if folder else None
        path = tree.path(folder) if tree else None
        return (path, tree.special_use(folder)) if tree and path else None

    async def _enrich(
        self,
        reach: Reach,
        message: dict[str, Any],
        data: dict[str, Any],
        listed: list[dict[str, Any]],
        findings: Findings,
    ) -> None:
        """Leaves what the settings let out, and adds what they ask for (18.4)."""
        settings = await self._settings.all()
        headers = headers_of(message)
        wanted = {name.lower() for name in settings.get("notifyHeaders") or ()}
        data.pop("headers", None)
        if shown := {k: v for k, v in headers.items() if k in wanted or "*" in wanted}:
            data["headers"] = shown
        if settings.get("notifyText"):
            data["text"] |= self._text(message, settings)
        if settings.get("notifyAttachments") and listed:
            limit = settings.get("notifyAttachmentSize")
            data["attachments"] = await self._parts.with_contents(reach, listed, limit)
        if settings.get("notifyCalendarEvents") and report_signs.may_hold_events(message, headers, listed):
            found = await self._calendar_events(reach, message, listed, findings)
            data |= {"calendarEvents": found} if found else {}

    def _text(self, message: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        kind, content = text_part(message)
        limit = settings.get("notifyTextSize")
        text, has_more = cut(content, LARGEST_TEXT if limit is None else min(limit, LARGEST_TEXT))
        if kind == "html" and self._web_safe and settings.get("notifyWebSafeHtml"):
            # After the cut: safe HTML that is cut is not safe any more.
            return {kind: self._web_safe(text), "hasMore": has_more, "webSafe": True}
        return {kind: text, "hasMore": has_more}

    async def _calendar_events(
        self, reach: Reach, message: dict[str, Any], listed: list[dict[str, Any]], findings: Findings
    ) -> list[dict[str, Any]]:
        """The events in attached calendars, else those in the message's own source, where Exchange keeps a meeting."""
        found: list[dict[str, Any]] = []
        for one in listed:
            if report_signs.is_calendar(one) and len(found) < MOST_EVENTS:
                content = await self._parts.content(reach, one) or b""
                found += events_of(content, as_text(content), one["id"], one.get("filename", ""))
        if not found:
            source = findings.source
            if not findings.was_read:
                source = await self._parts.source(reach, message["id"], listed)
            for part in source.walk() if source else ():
                if part.kind in ("text/calendar", "application/ics") and not found:
                    found += events_of(part.decoded(), part.text(), filename=part.filename)
        return found[:MOST_EVENTS]


def with_flags(message: dict[str, Any], flags: list[str]) -> dict[str, Any]:
    """The message with these flags instead of its own."""
    status = "flagged" if "\\Flagged" in flags else "notFlagged"
    return message | {
        "isRead": "\\Seen" in flags,
        "isDraft": "\\Draft" in flags,
        "flag": {"flagStatus": status},
    }
