"""Reports about mail: bounces, receipts of delivery (RFC 3464, and how servers write them freely) and complaints
(RFC 5965), read from a message's source. Pure.

Everything here came from anywhere: what is taken over is bounded, and what cannot be understood gives no report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from shared.clock import iso
from shared.mime_source import Headers, Part, first, read_headers

MOST_RECIPIENTS = 100  # of one report
_LONGEST_TEXT = 30_000  # of a free-form report
_LONGEST_FIELD = 1_000
_LONGEST_LINE = 1_000
_RETURNED = frozenset({"message/rfc822", "message/rfc822-headers", "text/rfc822-headers", "message/global"})
_STATUS_KINDS = frozenset({"message/delivery-status", "message/global-delivery-status"})

ADDRESS = re.compile(r"\w[\w.!#$%&'*+?^{|}~-]{0,63}+@[\w-]{1,63}+(?:\.[\w-]{1,63}+){0,10}+", re.ASCII)
_ENHANCED = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?!\.?\d)")
_REPLY = re.compile(r"(?<![\d.])([45]\d\d)[ -](?=\S)")
_MESSAGE_ID = re.compile(r"^[ \t>]{0,8}Message-ID:[ \t]{0,8}(<[^<>\s]{1,500}>)", re.IGNORECASE | re.MULTILINE)
_NAMES_RECIPIENT = re.compile(
    r"your message to|could ?n['’o]t be delivered|could not be delivered|following address|following recipient|"
    r"failed recipient|delivery to the following|<[^<>@\s]{1,64}@[^<>\s]{1,250}>:",
    re.IGNORECASE,
)
_SAYS_FAILED = re.compile(
    r"could ?n['’o]?t be delivered|could not be delivered|not be delivered|delivery (?:has )?failed|undeliver|"
    r"permanent (?:fatal )?(?:error|failure)|returned to sender|failure notice|user unknown|does not exist|rejected",
    re.IGNORECASE,
)
_SAYS_DELAYED = re.compile(
    r"not yet been delivered|has been delayed|delivery.{0,20} delayed|will be retried|will keep trying|"
    r"warning message only|do not need to resend",
    re.IGNORECASE,
)
_NOT_RECIPIENTS = re.compile(r"^(?:mailer-daemon|postmaster|microsoftexchange[0-9a-f]{32})@", re.IGNORECASE)


@dataclass(frozen=True)
class Report:
    """What became of a mail for one recipient. `action` is failed, delayed, delivered, relayed or expanded;
    `message_id` and `headers` are those of the mail, as far as it was returned."""

    recipient: str
    action: str
    status: str
    message: str
    source: str
    mta: str
    message_id: str
    headers: Headers = field(default_factory=dict, repr=False)

    @property
    def is_bounce(self) -> bool:
        return self.action in ("failed", "delayed")

    def view(self) -> dict[str, Any]:
        """The contract's fields (18.4) that the report itself knows; empty ones are left out."""
        response = {"source": self.source, "message": self.message, "status": self.status}
        shown: dict[str, Any] = {"recipient": self.recipient, "action": self.action}
        shown["response"] = {name: value for name, value in response.items() if value}
        rest = {"mta": self.mta, "messageId": self.message_id, "messageHeaders": self.headers}
        return shown | {name: value for name, value in rest.items() if value}


def reports_of(source: Part | None, text: str, own: Iterable[str] = ()) -> list[Report]:
    """What a message reports about the recipients of an earlier one, at most one entry for each. `text` is its body as
    text, for servers that write freely and for a source that is not at hand. `own` are addresses of the mailbox, which
    are no recipients. Empty when it is no report."""
    returned = _returned_headers(source, text)
    message_id = first(returned, "message-id").strip()
    if not message_id and source is not None:
        message_id = first(source.headers, "in-reply-to").strip()
    found = list(_standard(source, message_id, returned)) if source is not None else []
    if not found:
        free = _free_form(source, text, {one.lower() for one in own}, message_id, returned)
        found = [free] if free else []
    return found


# -- RFC 3464 --------------------------------------------------------------------------------------------------


def _standard(source: Part, message_id: str, returned: Headers) -> Iterator[Report]:
    seen: set[str] = set()
    for part in source.walk():
        if part.kind not in _STATUS_KINDS:
            continue
        about_mail: dict[str, list[str]] = {}
        for block in _blocks(part.text()):
            if not {"final-recipient", "original-recipient"} & set(block):
                about_mail |= block
                continue
            report = _report(about_mail | block, message_id, returned)
            if report.recipient and report.action and report.recipient.lower() not in seen:
                seen.add(report.recipient.lower())
                yield report
            if len(seen) >= MOST_RECIPIENTS:
                return


def _blocks(text: str) -> Iterator[dict[str, list[str]]]:
    """The groups of fields of a delivery status, which blank lines divide."""
    for block in re.split(r"\n[ \t\r]*+\n", text.lstrip()):
        headers = read_headers(block.encode("utf-8", "replace"))
        if headers:
            yield headers


def _report(fields: Headers, message_id: str, returned: Headers) -> Report:
    kind, _, diagnostic = first(fields, "diagnostic-code").partition(";")
    if not diagnostic:
        kind, diagnostic = "", kind
    diagnostic = " ".join(diagnostic.split())[:_LONGEST_FIELD]
    status = _ENHANCED.search(first(fields, "status")) or _ENHANCED.search(diagnostic)
    recipient = first(fields, "final-recipient") or first(fields, "original-recipient")
    action = first(fields, "action").strip().lower().partition(" ")[0][:20]
    if not action and status:  # left out by some; the class of the status says it (RFC 3463)
        action = {"2": "delivered", "4": "delayed"}.get(status[1][:1], "failed")
    return Report(
        recipient=_after_type(recipient).strip("<>"),
        action=action,
        status=status[1] if status else "",
        message=diagnostic,
        source=kind.strip().lower()[:40] or ("smtp" if diagnostic else ""),
        mta=_after_type(first(fields, "remote-mta") or first(fields, "reporting-mta")),
        message_id=message_id,
        headers=returned,
    )


def _after_type(value: str) -> str:
    """`rfc822; ann@x.example` without the type before it."""
    kind, semicolon, rest = value.partition(";")
    return (rest if semicolon else kind).strip()[:_LONGEST_FIELD]


# -- free forms ------------------------------------------------------------------------------------------------


def _free_form(source: Part | None, text: str, own: set[str], message_id: str, returned: Headers) -> Report | None:
    """The report of a server that writes as it likes: Exim, qmail, Exchange without its status part, and others."""
    told = _told_part(source, text)
    named = _addresses(first(source.headers, "x-failed-recipients")) if source else []
    recipient = next(iter(named), "") or _recipient_in(told, own)
    reply = next((found for line in told if (found := _reply_in(line))), None)
    whole = "\n".join(told)
    has_failed = reply is not None or _SAYS_FAILED.search(whole) is not None
    is_delayed = _SAYS_DELAYED.search(whole) is not None and (reply is None or reply[0].startswith("4"))
    if not recipient or not (has_failed or is_delayed):
        return None
    status, message = reply or ("", next((line.strip() for line in told if _SAYS_FAILED.search(line)), ""))
    return Report(
        recipient=recipient,
        action="delayed" if is_delayed else "failed",
        status=status if "." in status else {"4": "4.0.0"}.get(status[:1], "5.0.0"),
        message=message[:_LONGEST_FIELD],
        source="smtp" if reply else "",
        mta="",
        message_id=message_id,
        headers=returned,
    )


def _told_part(source: Part | None, text: str) -> list[str]:
    """The lines in which the server speaks, without the mail that it returned below them."""
    if source is not None:
        plain = next((one.text() for one in source.walk() if one.kind == "text/plain"), "")
        text = plain or text
    text = text[:_LONGEST_TEXT]
    below = _MESSAGE_ID.search(text)
    if below is not None:
        text = text[: below.start()]
    return [line[:_LONGEST_LINE] for line in text.splitlines()]


def _recipient_in(lines: list[str], own: set[str]) -> str:
    """The address that a report is about: one in a line that says so, else the first that can be."""
    possible: list[str] = []
    for number, line in enumerate(lines):
        found = [one for one in _addresses(line) if one.lower() not in own and not _NOT_RECIPIENTS.match(one)]
        announced = any(_NAMES_RECIPIENT.search(one) for one in lines[max(0, number - 2) : number + 1] if one.strip())
        if found and announced:
            return found[0]
        possible += found[:1]
    return next(iter(possible), "")


def _addresses(line: str) -> list[str]:
    return [str(one) for one in ADDRESS.findall(line[:_LONGEST_LINE])]


def _reply_in(line: str) -> tuple[str, str] | None:
    """(status, reply) of an SMTP reply in a line."""
    code = _REPLY.search(line)
    status = _ENHANCED.search(line)
    if code is None and (status is None or status[1].startswith("2")):
        return None
    start = min(found.start() for found in (code, status) if found is not None)
    reply = line[start:].strip().strip("'\"")
    return (status[1] if status else code[1] if code else ""), reply


# -- the mail that is reported about -----------------------------------------------------------------------------


def _returned_headers(source: Part | None, text: str) -> dict[str, list[str]]:
    """The headers of the mail a report returns, {} when it returns none."""
    for part in source.walk() if source is not None else ():
        if part.kind in _RETURNED:
            headers = read_headers(part.decoded().lstrip(b"\r\n"))
            if headers:
                return headers
    told = next((one.text() for one in source.walk() if one.kind == "text/plain"), "") if source else ""
    for shown in (told, text):
        shown = shown[:_LONGEST_TEXT].replace("\r", "")
        if (found := _MESSAGE_ID.search(shown)) is not None:
            start = shown.rfind("\n\n", 0, found.start())
            headers = read_headers(shown[start + 2 if start >= 0 else 0 :].lstrip().encode("utf-8", "replace"))
            return headers if "message-id" in headers else {"message-id": [found[1]]}
    return {}


# -- complaints --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Complaint:
    """Somebody called a mail junk: `arf` and `headers` as in the contract (18.4)."""

    arf: dict[str, Any]
    headers: dict[str, Any]

    @property
    def message_id(self) -> str:
        return str(self.headers.get("messageId", ""))


def complaint_of(source: Part, sender: str = "") -> Complaint | None:
    """The complaint that a message is: a feedback report, or a mail of Outlook.com's junk reporting. None when it is
    none."""
    returned = _returned_headers(source, "")
    for part in source.walk():
        if part.kind == "message/feedback-report":
            fields = read_headers(part.decoded().lstrip(b"\r\n"))
            arf = _arf(fields, sender) if first(fields, "feedback-type") else None
            return Complaint(arf, _mail_headers(returned)) if arf else None
    if sender.lower() == "staff@hotmail.com" and returned:
        recipient = first(returned, "x-hmxmroriginalrecipient")
        arf = {"source": "Hotmail", "feedbackType": "abuse", "abuseType": "complaint"}
        return Complaint(arf | ({"originalRcptTo": [recipient]} if recipient else {}), _mail_headers(returned))
    return None


def _arf(fields: Headers, sender: str) -> dict[str, Any]:
    agent = first(fields, "user-agent").partition("/")[0].strip()
    date = first(fields, "arrival-date") or first(fields, "received-date")
    shown = {
        "source": agent or sender.rpartition("@")[2],
        "feedbackType": first(fields, "feedback-type").strip().lower(),
        "abuseType": first(fields, "abuse-type").strip().lower(),
        "originalMailFrom": first(fields, "original-mail-from").strip().strip("<>"),
        "originalRcptTo": [one.strip().strip("<>") for one in fields.get("original-rcpt-to", ())][:MOST_RECIPIENTS],
        "sourceIp": first(fields, "source-ip").strip(),
        "arrivalDate": _moment(date),
    }
    return {name: value for name, value in shown.items() if value}


def _mail_headers(headers: Headers) -> dict[str, Any]:
    shown = {
        "messageId": first(headers, "message-id").strip(),
        "from": next(iter(_addresses(first(headers, "from"))), ""),
        "to": _addresses(" ".join(headers.get("to", ()))),
        "subject": first(headers, "subject"),
        "date": _moment(first(headers, "date")),
    }
    return {name: value for name, value in shown.items() if value}


def _moment(text: str) -> str:
    """A mail date as the contract writes times; "" when it is none."""
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text[:100])
        return iso(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, TypeError, OverflowError, IndexError):
        return ""
