"""What a new message tells of an earlier one: that it bounced, was delivered, or was called junk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shared import report_signs
from shared.accounts import Reach
from shared.html_text import text_of
from shared.message_parts import MessageParts
from shared.messages import addresses_of, headers_of, text_part
from shared.mime_source import Part
from shared.reports import Report, complaint_of, reports_of
from shared.sent_mail import SentMail

_MOST_HTML = 200_000  # characters of a body that are read as text


@dataclass(frozen=True)
class Followup:
    """An event that follows a messageNew: what it is called, its data, and what makes it this one."""

    event: str
    data: dict[str, Any]
    happening: str


@dataclass(frozen=True)
class Findings:
    """What a message reports: `marks` belong into its messageNew, `followups` are told after it. `source` is the
    message's own, when it was read for this."""

    marks: dict[str, Any] = field(default_factory=dict)
    followups: tuple[Followup, ...] = ()
    source: Part | None = None
    was_read: bool = False


class MessageReports:
    """Reads the reports among new messages."""

    def __init__(self, parts: MessageParts, sent: SentMail) -> None:
        self._parts, self._sent = parts, sent

    async def findings(
        self, account: str, reach: Reach, message: dict[str, Any], place: str | None, listed: list[dict[str, Any]]
    ) -> Findings:
        """What a message in the folder of this special use reports (18.4): bounces count in Inbox and Junk, the
        others in Inbox. No call for a message that does not look like a report, one for its source otherwise."""
        if place not in ("\\Inbox", "\\Junk"):
            return Findings()
        headers, is_inbox = headers_of(message), place == "\\Inbox"
        may_report = report_signs.may_be_delivery_report(message, headers, listed)
        may_complain = is_inbox and report_signs.may_be_complaint(message, headers, listed)
        if not may_report and not may_complain:
            return Findings()
        source = await self._parts.source(reach, message["id"], listed)
        sender = next(iter(addresses_of([message.get("from") or {}])), {"address": ""})["address"]
        if may_complain and source is not None and (complaint := complaint_of(source, sender)) is not None:
            data = {"complaintMessage": message["id"], "arf": complaint.arf, "headers": complaint.headers}
            marks = {"isComplaint": True} | _related(complaint.message_id)
            told = Followup("messageComplaint", data, f"complaint {message['id']}")
            return Findings(marks, (told,), source, was_read=True)
        if not may_report:
            return Findings(source=source, was_read=True)
        return await self._delivery(account, reach, message, source, is_inbox)

    async def _delivery(
        self, account: str, reach: Reach, message: dict[str, Any], source: Part | None, is_inbox: bool
    ) -> Findings:
        own = [one["address"] for one in addresses_of(message.get("toRecipients"))]
        reports = reports_of(source, _text(message), own)
        if not reports:
            return Findings(source=source, was_read=True)
        first = reports[0]  # every entry of one report is about the same mail
        queue_id = await self._sent.queue_id_of(account, reach, first.message_id, first.headers)
        known = {"queueId": queue_id} if queue_id else {}
        bounces = [one for one in reports if one.is_bounce]
        marks: dict[str, Any] = {"isBounce": True} | _related(first.message_id) if bounces else {}
        delivered = [] if bounces or not is_inbox else reports
        if delivered:
            marks = {"deliveryReport": _receipt(delivered[0]) | known} | _related(first.message_id)
        told = [
            Followup(
                "messageBounce",
                {"bounceMessage": message["id"]} | one.view() | known,
                f"bounce {message['id']} {one.recipient.lower()}",
            )
            for one in bounces
        ]
        return Findings(marks, tuple(told), source, was_read=True)


def _related(message_id: str) -> dict[str, Any]:
    return {"relatedMessageId": message_id} if message_id else {}


def _receipt(report: Report) -> dict[str, Any]:
    return {name: value for name, value in report.view().items() if name != "messageHeaders"}


def _text(message: dict[str, Any]) -> str:
    kind, content = text_part(message)
    return content if kind == "plain" else text_of(content[:_MOST_HTML])
