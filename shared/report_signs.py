"""Which messages are worth reading for a report: bounces, receipts of delivery and complaints are told by what Graph
shows of a message, so that the source of no other is fetched. Pure."""

from __future__ import annotations

import re
from typing import Any

from shared.messages import address_of

_SERVER_NAMES = re.compile(
    r"mail delivery|mailer[- ]?daemon|delivery (?:sub)?system|postmaster|mail administrator|\bNDR\b|non-?delivery",
    re.IGNORECASE,
)
_SERVER_ADDRESSES = re.compile(r"(?:mailer-daemon|postmaster|microsoftexchange[0-9a-f]{32})@", re.IGNORECASE)
_SUBJECTS = re.compile(
    r"\s*(?:undeliver|delivery (?:status notification|failure|delayed)|mail delivery failed|failure notice|"
    r"returned mail|non[- ]?deliver|delivered:|relayed:|expanded:)",
    re.IGNORECASE,
)
_STATUS_PARTS = ("message/delivery-status", "message/global-delivery-status")

Headers = dict[str, list[str]]
Listed = list[dict[str, Any]]


def may_be_delivery_report(message: dict[str, Any], headers: Headers, attachments: Listed) -> bool:
    """Whether a message looks as if a mail server had written it about an earlier one (18.4)."""
    kind = _kind(headers)
    if "report-type=delivery-status" in kind or "report-type=global-delivery-status" in kind:
        return True
    if "x-failed-recipients" in headers or "x-ms-exchange-message-is-ndr" in headers:
        return True
    if any(one["contentType"].lower() in _STATUS_PARTS for one in attachments):
        return True
    who = address_of(message.get("from")) or address_of(message.get("sender")) or {"name": "", "address": ""}
    if _SERVER_ADDRESSES.match(who["address"]) or _SERVER_NAMES.search(who["name"]):
        return True
    is_automatic = "auto-submitted" in headers or who["name"].lower() == "microsoft outlook"
    return is_automatic and _SUBJECTS.match(message.get("subject") or "") is not None


def may_be_complaint(message: dict[str, Any], headers: Headers, attachments: Listed) -> bool:
    """Whether a message looks like a report of junk (RFC 5965), or like Outlook.com's own kind of it."""
    if "report-type=feedback-report" in _kind(headers):
        return True
    if any(one["contentType"].lower() == "message/feedback-report" for one in attachments):
        return True
    who = address_of(message.get("from"))
    return who is not None and who["address"].lower() == "staff@hotmail.com"


def may_hold_events(message: dict[str, Any], headers: Headers, attachments: Listed) -> bool:
    """Whether a message may hold calendar events: a meeting message, or a part or file that is one."""
    if ".eventMessage" in str(message.get("@odata.type", "")) or "text/calendar" in _kind(headers):
        return True
    return any(is_calendar(one) for one in attachments)


def is_calendar(attachment: dict[str, Any]) -> bool:
    """Whether an entry of `attachments` is an iCalendar file."""
    kind = attachment["contentType"].lower().partition(";")[0].strip()
    return kind in ("text/calendar", "application/ics") or attachment.get("filename", "").lower().endswith(".ics")


def _kind(headers: Headers) -> str:
    """The Content-Type of the whole message, without quotes and spaces."""
    return re.sub(r'["\s]', "", " ".join(headers.get("content-type", ()))[:1000]).lower()
