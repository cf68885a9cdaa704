"""Message content → RFC 822 bytes, for `$value` of messages made as JSON and for their transport headers."""

from __future__ import annotations

import hashlib
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from .body_text import html_to_text
from .messages import Attachment, Message, NewMessage, Recipient
from .wire_time import from_wire

_GENERATED = frozenset(
    [
        "from",
        "sender",
        "to",
        "cc",
        "bcc",
        "reply-to",
        "subject",
        "date",
        "message-id",
        "in-reply-to",
        "references",
        "importance",
        "mime-version",
        "content-type",
        "content-transfer-encoding",
        "disposition-notification-to",
    ]
)
_FIELDS = (("To", "toRecipients"), ("Cc", "ccRecipients"), ("Bcc", "bccRecipients"), ("Reply-To", "replyTo"))


def write_mime(source: Message | NewMessage) -> bytes:
    """The message as RFC 822; the same message gives the same bytes each time."""
    mail = EmailMessage(policy=policy.SMTP)
    _write_headers(mail, source)
    _write_body(mail, source)
    _fix_boundaries(mail, source.properties.get("internetMessageId") or "")
    return mail.as_bytes()


def _write_headers(mail: EmailMessage, source: Message | NewMessage) -> None:
    properties = source.properties
    for name, key in (("From", "from"), ("Sender", "sender")):
        if properties.get(key) and not (name == "Sender" and properties["sender"] == properties.get("from")):
            _set_addresses(mail, name, [properties[key]])
    for name, key in _FIELDS:
        _set_addresses(mail, name, properties.get(key) or [])
    mail["Subject"] = _one_line(properties.get("subject") or "")
    mail["Date"] = format_datetime(from_wire(properties["sentDateTime"]))
    if properties.get("internetMessageId"):
        mail["Message-ID"] = _one_line(properties["internetMessageId"])
    for name, value in thread_headers(source):
        mail[name] = _one_line(value)
    if properties.get("importance", "normal") != "normal":
        mail["Importance"] = properties["importance"]
    for header in source.headers:
        if header["name"].lower() not in _GENERATED:
            _append(mail, header["name"], _one_line(header["value"]))


def thread_headers(source: Message | NewMessage) -> list[tuple[str, str]]:
    """In-Reply-To and References from headers, else from the MAPI tags of graph.md 5.5 [P]."""
    given = {h["name"].lower(): h["value"] for h in source.headers}
    tags = {key.casefold(): value for key, value in source.extended.items()}
    wanted = (("In-Reply-To", "string 0x1042"), ("References", "string 0x1039"))
    pairs = [(name, given.get(name.lower()) or tags.get(tag) or "") for name, tag in wanted]
    return [(name, value) for name, value in pairs if value]


def listed_headers(source: NewMessage) -> list[dict[str, str]]:
    """The header block of a JSON message as internetMessageHeaders, without Bcc.

    Made straight from the properties: rendering the MIME for it costs milliseconds per message.
    """
    properties = source.properties
    shown = [("From", [properties["from"]])] if properties.get("from") else []
    if properties.get("sender") and properties["sender"] != properties.get("from"):
        shown.append(("Sender", [properties["sender"]]))
    shown += [(name, properties.get(key) or []) for name, key in _FIELDS if name != "Bcc"]
    pairs = [(name, ", ".join(map(_readable, people))) for name, people in shown if people]
    pairs.append(("Subject", _one_line(properties.get("subject") or "")))
    pairs.append(("Date", format_datetime(from_wire(properties["sentDateTime"]))))
    pairs.append(("Message-ID", _one_line(properties.get("internetMessageId") or "")))
    pairs += thread_headers(source)
    if properties.get("importance", "normal") != "normal":
        pairs.append(("Importance", properties["importance"]))
    own = [(h["name"], _one_line(h["value"])) for h in source.headers if h["name"].lower() not in _GENERATED]
    return [{"name": name, "value": value} for name, value in [*pairs, *own, ("MIME-Version", "1.0")]]


def _readable(who: Recipient) -> str:
    one = who.get("emailAddress") or {}
    name, address = one.get("name") or "", one.get("address") or ""
    return f'"{_one_line(name)}" <{address}>' if name and name != address else f"<{address}>"


def _append(mail: EmailMessage, name: str, value: str) -> None:
    try:
        mail[name] = value
    except ValueError:  # a second Subject-like field; the model allows some names only once
        return


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _set_addresses(mail: EmailMessage, name: str, people: list[Recipient]) -> None:
    shown = [who["emailAddress"] for who in people if (who.get("emailAddress") or {}).get("address")]
    if not shown:
        return
    try:
        mail[name] = [_address(one) for one in shown]
    except (ValueError, IndexError):  # a draft may hold a broken address; write it as it stands
        mail[name] = _one_line(", ".join(one["address"] for one in shown)).encode("ascii", "replace").decode()


def _address(one: dict[str, Any]) -> Address:
    name = one.get("name") or ""
    return Address("" if name == one["address"] else _one_line(name), addr_spec=one["address"])


def _write_body(mail: EmailMessage, source: Message | NewMessage) -> None:
    body = source.properties.get("body") or {"contentType": "text", "content": ""}
    if body["contentType"] == "text":
        mail.set_content(body["content"])
    else:
        # Exchange makes the plain part from the html (graph.md 6.2 [D]).
        mail.set_content(source.alternative_text or html_to_text(body["content"]) + "\r\n")
        mail.add_alternative(body["content"], subtype="html")
        html_part = mail.get_payload()[-1]
        for attachment in source.attachments:
            if attachment.is_inline:
                _attach(html_part, attachment)  # type: ignore[arg-type]
    for attachment in source.attachments:
        if not attachment.is_inline or body["contentType"] == "text":
            _attach(mail, attachment)


def _attach(part: EmailMessage, attachment: Attachment) -> None:
    if attachment.content_type == "message/rfc822" and attachment.content.isascii():
        _attach_message(part, attachment)
        return
    main, _, sub = (attachment.content_type or "application/octet-stream").partition("/")
    if main in ("message", "multipart") or not sub:
        main, sub = "application", "octet-stream"
    options: dict[str, Any] = {"filename": attachment.name}
    if attachment.content_id:
        options["cid"] = f"<{attachment.content_id}>"
    add = part.add_related if attachment.is_inline and part.get_content_type() != "text/plain" else part.add_attachment
    add(attachment.content, maintype=main, subtype=sub.split(";")[0], **options)


def _attach_message(part: EmailMessage, attachment: Attachment) -> None:
    """A mail inside the mail, its bytes as they are."""
    if part.get_content_type() != "multipart/mixed":
        part.make_mixed()
    nested = EmailMessage(policy=policy.SMTP)
    nested["Content-Type"] = "message/rfc822"
    nested.add_header("Content-Disposition", "attachment", filename=attachment.name)
    nested.set_payload(attachment.content.decode("ascii"))
    part.attach(nested)


def _fix_boundaries(mail: EmailMessage, seed: str) -> None:
    """Boundaries derived from the message, so that reading `$value` twice gives the same bytes."""
    digest = hashlib.sha256(seed.encode()).hexdigest()[:24]
    parts = [part for part in mail.walk() if part.get_content_maintype() == "multipart"]
    for number, part in enumerate(parts):
        part.set_boundary(f"_{number:03d}_{digest}_")
