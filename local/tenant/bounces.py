"""Non-delivery reports for unknown recipients of a local domain (graph.md 6.1 [D], 15 item 3)."""

from __future__ import annotations

from email.header import Header
from email.utils import format_datetime
from typing import TYPE_CHECKING

from .messages import NewMessage
from .mime_reading import read_mime

if TYPE_CHECKING:
    from .world import World

_STATUS = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"


def undeliverable(world: World, content: NewMessage, address: str, sender: str) -> NewMessage:
    """The report Exchange sends back: a multipart/report from Microsoft Outlook to the sender."""
    domain = sender.rpartition("@")[2]
    subject = " ".join(f"Undeliverable: {content.properties.get('subject') or ''}".split())
    original = " ".join(str(content.properties["internetMessageId"]).split())
    boundary = f"_{world.random.getrandbits(96):024x}_"
    lines = [
        f"From: Microsoft Outlook <MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@{domain}>",
        f"To: {sender}",
        f"Subject: {subject if subject.isascii() else Header(subject, 'utf-8', maxlinelen=998).encode()}",
        f"Date: {format_datetime(world.clock.now())}",
        f"Message-ID: {world.mail.new_message_id(sender)}",
        f"In-Reply-To: {original}",
        f"References: {original}",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        "",
        f"Your message to {address} couldn't be delivered.",
        "",
        _STATUS,
        f"--{boundary}",
        "Content-Type: message/delivery-status",
        "",
        f"Reporting-MTA: dns;mail.{domain}",
        "",
        f"Final-Recipient: rfc822;{address}",
        "Action: failed",
        "Status: 5.1.10",
        f"Diagnostic-Code: smtp;{_STATUS}",
        "",
        f"--{boundary}--",
        "",
    ]
    return read_mime("\r\n".join(lines).encode())
