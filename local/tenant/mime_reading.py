"""RFC 822 bytes → message content, and header surgery that leaves the body byte for byte (graph.md 6.3)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses, parsedate_to_datetime
from typing import Any

from .messages import Attachment, NewMessage, recipient
from .wire_time import to_wire

_ADDRESS_FIELDS = frozenset({"to", "cc", "bcc", "reply-to", "from", "sender"})
_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:")


def split_header_fields(raw: bytes) -> tuple[list[bytes], bytes]:
    """(header fields with their folded lines and line ends, everything from the blank line on)."""
    fields: list[bytes] = []
    position = 0
    while position < len(raw):
        end = raw.find(b"\n", position)
        line = raw[position:] if end < 0 else raw[position : end + 1]
        if not line.strip(b"\r\n"):
            break
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += line
        elif _FIELD.match(line):
            fields.append(line)
        else:
            break
        position += len(line)
    return fields, raw[position:]


def field_name(field: bytes) -> str:
    return field.split(b":", 1)[0].strip().decode("ascii", "replace").lower()


def with_headers(raw: bytes, drop: set[str], first: list[tuple[str, str]], last: list[tuple[str, str]]) -> bytes:
    """`raw` without the fields named in `drop` (lower case), with new fields before and after the rest."""
    fields, rest = split_header_fields(raw)
    kept = [field for field in fields if field_name(field) not in drop]
    line = lambda pair: f"{pair[0]}: {pair[1]}\r\n".encode()  # noqa: E731
    return b"".join([*map(line, first), *kept, *map(line, last), rest])


def header_list(raw: bytes) -> list[dict[str, str]]:
    """The internetMessageHeaders of a message: every field in order, unfolded and decoded."""
    return [{"name": header["name"], "value": _decoded(header["value"])} for header in _undecoded(raw)]


def _undecoded(raw: bytes) -> list[dict[str, str]]:
    listed = []
    for field in split_header_fields(raw)[0]:
        name, _, value = field.partition(b":")
        text = re.sub(r"\r?\n[ \t]+", " ", value.decode("utf-8", "replace")).strip()
        listed.append({"name": name.strip().decode("ascii", "replace"), "value": text})
    return listed


def _decoded(text: str) -> str:
    if "=?" not in text:
        return text
    try:
        return str(make_header(decode_header(text)))
    except (LookupError, ValueError):
        return text


def read_mime(raw: bytes) -> NewMessage:
    """The content of an RFC 822 message; `raw` is kept as it came."""
    parsed = message_from_bytes(raw, policy=policy.default)
    headers = header_list(raw)
    content = NewMessage(_header_properties(headers, _undecoded(raw)), headers=headers, raw=raw)
    _read_parts(parsed, content)  # type: ignore[arg-type]
    return content


def _header_properties(headers: list[dict[str, str]], undecoded: list[dict[str, str]]) -> dict[str, Any]:
    values: dict[str, list[str]] = {}
    for header, wire in zip(headers, undecoded, strict=True):
        # Addresses are read before their names are decoded: an encoded name may hold commas and brackets.
        source = wire if header["name"].lower() in _ADDRESS_FIELDS else header
        values.setdefault(header["name"].lower(), []).append(source["value"])
    first = lambda name: values.get(name, [""])[0]  # noqa: E731
    properties: dict[str, Any] = {
        "subject": first("subject"),
        "internetMessageId": first("message-id").strip(),
        "importance": first("importance").strip().lower(),
        "isReadReceiptRequested": "disposition-notification-to" in values,
        "toRecipients": _addresses(values.get("to", [])),
        "ccRecipients": _addresses(values.get("cc", [])),
        "bccRecipients": _addresses(values.get("bcc", [])),
        "replyTo": _addresses(values.get("reply-to", [])),
        "from": next(iter(_addresses(values.get("from", []))), None),
        "sender": next(iter(_addresses(values.get("sender", []))), None),
    }
    if properties["importance"] not in ("low", "normal", "high"):
        properties["importance"] = "normal"
    sent = _date(first("date"))
    return {**properties, "sentDateTime": to_wire(sent)} if sent else properties


def _addresses(values: list[str]) -> list[dict[str, dict[str, str]]]:
    return [recipient(address, _decoded(name)) for name, address in getaddresses(values) if address]


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _read_parts(parsed: EmailMessage, content: NewMessage) -> None:
    texts: dict[str, str] = {}
    leaves = _leaves(parsed)
    nested = iter(_nested_messages(content.raw or b"") if any(map(_is_message, leaves)) else [])
    for part in leaves:
        subtype = part.get_content_type()
        is_attachment = part.get_content_disposition() == "attachment" or part.get_filename() is not None
        if subtype in ("text/plain", "text/html") and not is_attachment and subtype not in texts:
            texts[subtype] = _text_of(part)
        else:
            content.attachments.append(_attachment(part, next(nested) if _is_message(part) else None))
    if "text/html" in texts:
        content.properties["body"] = {"contentType": "html", "content": texts["text/html"]}
        content.alternative_text = texts.get("text/plain")
    else:
        content.properties["body"] = {"contentType": "text", "content": texts.get("text/plain", "")}


def _leaves(part: EmailMessage) -> list[EmailMessage]:
    """The parts that carry content, in order; a nested message counts as one part."""
    if part.get_content_maintype() != "multipart":
        return [part]
    found: list[EmailMessage] = []
    for child in part.iter_parts():
        found += _leaves(child)  # type: ignore[arg-type]
    return found


def _text_of(part: EmailMessage) -> str:
    payload = part.get_payload(decode=True) or b""
    try:
        return payload.decode(part.get_content_charset() or "utf-8", "replace")  # type: ignore[union-attr]
    except LookupError:
        return payload.decode("utf-8", "replace")  # type: ignore[union-attr]


def _is_message(part: EmailMessage) -> bool:
    return part.get_content_type() == "message/rfc822"


def _nested_messages(raw: bytes) -> list[bytes]:
    """The message/rfc822 parts of a message in order, byte for byte; what is inside them is not looked at."""
    fields, rest = split_header_fields(raw)
    headers: Any = message_from_bytes(b"".join(fields), policy=policy.default)
    body = rest.removeprefix(b"\r").removeprefix(b"\n")
    if _is_message(headers):
        return [body]
    boundary = headers.get_boundary()
    if headers.get_content_maintype() != "multipart" or not boundary:
        return []
    lines = list(re.finditer(rb"(?m)^--" + re.escape(boundary.encode()) + rb"(?:--)?[ \t]*\r?$", body))
    ends = [line.start() for line in lines[1:]]
    parts = [body[line.end() + 1 : end] for line, end in zip(lines, ends, strict=False)]
    return [found for part in parts for found in _nested_messages(part.removesuffix(b"\n").removesuffix(b"\r"))]


def _attachment(part: EmailMessage, source: bytes | None) -> Attachment:
    if source is not None:
        # Exchange makes an item of it, shown by its subject when the part has no name [P].
        name = part.get_filename() or read_mime(source).properties["subject"] or "message"
        return Attachment("", name, "message/rfc822", source, is_item=True)
    nested = part.get_content_type().startswith("message/")
    if nested and part.is_multipart():
        payload = b"".join(child.as_bytes() for child in part.get_payload())  # type: ignore[union-attr]
    else:
        payload = part.get_payload(decode=True) or b""  # type: ignore[assignment]
    content_id = (part.get("Content-ID") or "").strip().strip("<>") or None
    is_inline = part.get_content_disposition() != "attachment" and content_id is not None
    name = part.get_filename() or ("message.eml" if nested else "attachment")
    return Attachment("", name, part.get_content_type(), payload, is_inline, content_id)
