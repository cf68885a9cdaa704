"""A MIME message as fields of a mail, for storing it as a message resource, which has no MIME. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import Message
from email.policy import compat32
from email.utils import getaddresses
from typing import Any

from shared.errors import InvalidInput
from shared.mail_headers import one_line
from shared.raw_mail import RawMail

# Taking apart costs about lines times depth; more than any real mail of that size needs is refused.
MOST_WORK = 5_000_000
_LONGEST_NAMED = 65_536  # characters of an address header from which the names are read
_LONGEST_DECODED = 2_000  # characters of a name or subject that are decoded
_ADDRESSES = {"from": "from", "to": "to", "cc": "cc", "bcc": "bcc", "replyTo": "reply-to"}


def fields_of(mail: RawMail) -> dict[str, Any]:
    """Addresses, subject, texts and attachments of a mail. InvalidInput for one that can not be taken apart."""
    fields: dict[str, Any] = {name: found for name, header in _ADDRESSES.items() if (found := _people(mail, header))}
    if "from" in fields:
        fields["from"] = fields["from"][0]
    fields["subject"] = mail.subject()
    if message_id := mail.text("message-id"):
        fields["messageId"] = message_id
    whole = mail.whole()
    if whole.count(b"\n") * (1 + whole.lower().count(b"boundary=")) > MOST_WORK:
        raise _unreadable()
    try:
        return fields | _content(message_from_bytes(whole, policy=compat32))
    except (RecursionError, ValueError, LookupError, TypeError, AttributeError, IndexError):
        raise _unreadable() from None


def _unreadable() -> InvalidInput:
    return InvalidInput.field("raw", '"raw" is nested too deeply or broken, and can not be taken apart')


def header_block(mail: RawMail) -> str:
    """The header as it came, for the property in which Exchange keeps it."""
    return b"".join(field for _, field in mail.fields).decode("utf-8", "replace").replace("\0", "")


def _people(mail: RawMail, header: str) -> list[dict[str, str]]:
    """Names and addresses of a header; of a very long one the addresses alone."""
    plain = [{"name": "", "address": one} for one in mail.addresses(header)]
    text = ", ".join(value.decode("utf-8", "replace") for value in mail.values(header))
    if len(text) > _LONGEST_NAMED:
        return plain
    known = {one["address"] for one in plain}
    try:
        found = getaddresses([text])
    except RecursionError:  # brackets within brackets
        return plain
    named = [{"name": _decoded(name), "address": address} for name, address in found]
    named = [one for one in named if one["address"] in known]
    return named if len(named) == len(plain) else plain


def _decoded(text: str) -> str:
    """Encoded words as people read them."""
    if "=?" not in text or len(text) > _LONGEST_DECODED:
        return one_line(text)
    try:
        return one_line(str(make_header(decode_header(text))))
    except (LookupError, ValueError):
        return one_line(text)


def _leaves(mail: Message) -> Iterator[Message]:
    """The parts that hold something, in order."""
    waiting: list[Message] = [mail]
    while waiting:
        part = waiting.pop()
        inner = part.get_payload()
        if part.get_content_maintype() == "multipart" and isinstance(inner, list):
            waiting.extend(one for one in reversed(inner) if isinstance(one, Message))
        else:
            yield part


def _content(mail: Message) -> dict[str, Any]:
    """The first plain text and HTML that are no files, and everything else as attachments."""
    found: dict[str, Any] = {}
    attachments: list[dict[str, Any]] = []
    for part in _leaves(mail):
        kind = {"text/plain": "text", "text/html": "html"}.get(part.get_content_type())
        if kind and kind not in found and part.get_content_disposition() != "attachment" and not part.get_filename():
            found[kind] = _text(part)
        elif (content := _bytes(part)) or part.get_filename():
            attachments.append(_attachment(part, content))
    return found | ({"attachments": attachments} if attachments else {})


def _text(part: Message) -> str:
    content, charset = _bytes(part), part.get_content_charset() or "utf-8"
    try:
        text = content.decode(charset, "replace")
    except (LookupError, ValueError):
        text = content.decode("utf-8", "replace")
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _bytes(part: Message) -> bytes:
    inner = part.get_payload()
    if isinstance(inner, list):  # a mail inside the mail
        return inner[0].as_bytes() if inner and isinstance(inner[0], Message) else b""
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""


def _attachment(part: Message, content: bytes) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "content": base64.b64encode(content).decode(),
        "contentType": part.get_content_type(),
        "contentDisposition": "inline" if part.get_content_disposition() == "inline" else None,
        "filename": _decoded(str(part.get_filename() or ""))[:256],
        "cid": one_line(str(part.get("Content-ID") or ""))[:256],
    }
    return {name: value for name, value in shown.items() if value}
