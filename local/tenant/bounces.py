"""Non-delivery reports for unknown recipients of a local domain (graph.md 6.1 [D], 15 item 3).

The form is RFC 3464's; wording, sender, headers and parts are those seen in reports of Exchange Online [P].
"""

from __future__ import annotations

from email.header import Header
from email.utils import format_datetime
from html import escape
from typing import TYPE_CHECKING

from .messages import NewMessage
from .mime_reading import read_mime, with_headers
from .mime_writing import listed_headers

if TYPE_CHECKING:
    from .world import World

_STATUS = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient {} not found by SMTP address lookup"
_LARGEST_RETURNED = 50_000  # a larger mail comes back as its headers alone [P]


def undeliverable(world: World, content: NewMessage, address: str, sender: str) -> NewMessage:
    """The report Exchange sends back: a multipart/report from Microsoft Outlook to the sender."""
    domain = sender.rpartition("@")[2]
    subject = " ".join(f"Undeliverable: {content.properties.get('subject') or ''}".split())
    original = " ".join(str(content.properties["internetMessageId"]).split())
    boundary = f"_{world.random.getrandbits(96):024x}_"
    kind, returned = _returned(content)
    head = [
        f"From: Microsoft Outlook <MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@{domain}>",
        f"To: {sender}",
        f"Subject: {subject if subject.isascii() else Header(subject, 'utf-8', maxlinelen=998).encode()}",
        f"Date: {format_datetime(world.clock.now())}",
        f"Message-ID: {world.mail.new_message_id(sender)}",
        f"In-Reply-To: {original}",
        f"References: {original}",
        "Auto-Submitted: auto-replied",
        "X-MS-Exchange-Message-Is-Ndr:",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"',
        "",
        f"--{boundary}",
        *_told(address, f"{boundary}alt"),
        f"--{boundary}",
        "Content-Type: message/delivery-status",
        "",
        f"Reporting-MTA: dns;mail.{domain}",
        f"Received-From-MTA: dns;mail.{domain}",
        f"Arrival-Date: {format_datetime(world.clock.now())}",
        "",
        f"Final-Recipient: rfc822;{address}",
        "Action: failed",
        "Status: 5.1.10",
        f"Diagnostic-Code: smtp;{_STATUS.format(address)}",
        "",
        f"--{boundary}",
        f"Content-Type: {kind}",
        "",
    ]
    source = "\r\n".join([*head, ""]).encode() + returned + f"\r\n--{boundary}--\r\n".encode()
    return read_mime(source)


def _told(address: str, boundary: str) -> list[str]:
    """What a person reads, as text and as HTML."""
    text = f"Your message to {address} couldn't be delivered."
    status = _STATUS.format(address)
    return [
        f'Content-Type: multipart/alternative; boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        "",
        text,
        "",
        f"{address} wasn't found at the recipient's domain.",
        "",
        f"Remote Server returned '{status}'",
        f"--{boundary}",
        "Content-Type: text/html; charset=utf-8",
        "",
        f"<html><body><p><b>{escape(text)}</b></p><p>Remote Server returned '{escape(status)}'</p></body></html>",
        f"--{boundary}--",
    ]


def _returned(content: NewMessage) -> tuple[str, bytes]:
    """The mail that comes back: its content type, and its source without Bcc."""
    if content.raw is not None:
        source = with_headers(content.raw, {"bcc"}, [], [])
    else:
        lines = [f"{one['name']}: {one['value']}" for one in listed_headers(content) if one["name"].lower() != "bcc"]
        source = "\r\n".join([*lines, "", str(content.properties["body"]["content"])]).encode()
    if len(source) <= _LARGEST_RETURNED:
        return "message/rfc822", source
    headers = source.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    return "text/rfc822-headers", headers.replace(b"\n", b"\r\n") + b"\r\n"
