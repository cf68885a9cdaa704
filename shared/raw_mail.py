"""A mail that was given as MIME: its header is completed, its body travels byte for byte (emailengine.md 14.8).
Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.utils import format_datetime
from typing import Any

from shared import mime, raw_parts
from shared.address_lists import addresses_in
from shared.clock import iso, parse_time
from shared.errors import InvalidInput
from shared.mail_headers import address_field, check_size, given_field, ids_field, one_line

_BARE_FEED = re.compile(rb"(?<!\r)\n")
_NAME = re.compile(rb"([!-9;-~]{1,200})[ \t]*:")
_LONGEST_SUBJECT = 2000  # bytes that are decoded, for showing
_ADDRESSES = {"from": "from", "to": "to", "cc": "cc", "bcc": "bcc", "replyTo": "reply-to"}
_RECIPIENTS = ("to", "cc", "bcc")
_TRUE = frozenset({"true", "1", "yes", "y", "on"})
# What the caller says in the MIME to this service alone.
CONTROL = ("x-ee-send-at", "x-ee-delivery-attempts", "x-ee-gateway", "x-ee-tracking-enabled")


@dataclass(frozen=True)
class RawMail:
    """Header fields in order, each with its line ends, and everything from the blank line on."""

    fields: tuple[tuple[str, bytes], ...]
    body: bytes

    def values(self, name: str) -> list[bytes]:
        """What the fields of this name (lower case) say, with their folds."""
        return [field.partition(b":")[2].strip() for known, field in self.fields if known == name]

    def text(self, name: str) -> str:
        """The first field of this name as text, unfolded; "" for none."""
        found = self.values(name)
        return one_line(found[0].decode("utf-8", "replace")) if found else ""

    def addresses(self, name: str) -> list[str]:
        """Every address in the fields of this name."""
        return [address for value in self.values(name) for address in addresses_in(value)]

    def subject(self) -> str:
        """The subject as people read it."""
        text = self.text("subject")[:_LONGEST_SUBJECT]
        try:
            return one_line(str(make_header(decode_header(text)))) if "=?" in text else text
        except (LookupError, ValueError):
            return text

    def without(self, names: Iterable[str]) -> RawMail:
        """The mail without the fields of these names."""
        dropped = frozenset(names)
        return RawMail(tuple(field for field in self.fields if field[0] not in dropped), self.body)

    def with_fields(self, *fields: bytes) -> RawMail:
        """The mail with these fields behind its own, in the place of those of the same names."""
        named = tuple((field.partition(b":")[0].decode("ascii").lower(), field) for field in fields)
        kept = self.without(name for name, _ in named)
        return RawMail((*kept.fields, *named), self.body)

    def whole(self) -> bytes:
        """The mail as it travels. InvalidInput when its header is larger than Exchange takes."""
        head = [field for _, field in self.fields]
        check_size(sum(map(len, head)), "raw")
        return b"".join([*head, self.body])


def read(raw: str) -> RawMail:
    """The mail behind the base64 of a submit, with line ends of CRLF. InvalidInput when it does not begin as a mail
    does."""
    return parsed(_BARE_FEED.sub(b"\r\n", base64.b64decode(raw)).lstrip(b"\r\n"))


def parsed(content: bytes) -> RawMail:
    """The mail in bytes whose line ends are CRLF. InvalidInput like `read`."""
    fields: list[tuple[str, bytes]] = []
    at = 0
    while at < len(content) and not content.startswith(b"\r\n", at):
        end = _end_of_field(content, at)
        name = _NAME.match(content, at, end)
        if name is None:
            if fields or not content.startswith(b"From ", at):
                break
        else:
            fields.append((name[1].decode("ascii").lower(), _ended(content[at:end])))
        at = end
    if not fields:
        raise InvalidInput.field("raw", '"raw" must be a whole mail in base64: header fields, a blank line, the body')
    check_size(at, "raw")
    rest = content[at:]
    return RawMail(tuple(fields), rest if rest.startswith(b"\r\n") else b"\r\n" + rest)


def _end_of_field(content: bytes, at: int) -> int:
    """Behind the field that begins there, with its folded lines."""
    while (at := content.find(b"\r\n", at)) >= 0:
        at += 2
        if content[at : at + 1] not in (b" ", b"\t"):
            return at
    return len(content)


def _ended(field: bytes) -> bytes:
    return field if field.endswith(b"\r\n") else field + b"\r\n"


def controls(mail: RawMail) -> dict[str, Any]:
    """What the control headers ask for, as fields of a submit. InvalidInput where one can not be read."""
    asked: dict[str, Any] = {}
    if at := mail.text("x-ee-send-at"):
        asked["sendAt"] = _moment(at)
    if attempts := mail.text("x-ee-delivery-attempts"):
        if not re.fullmatch(r"0*[1-9][0-9]?|0*100", attempts):
            raise InvalidInput.field("raw", '"raw" has a header X-EE-Delivery-Attempts that is not from 1 to 100')
        asked["deliveryAttempts"] = int(attempts)
    if tracking := mail.text("x-ee-tracking-enabled"):
        asked["trackingEnabled"] = tracking.lower() in _TRUE
    return asked


def _moment(text: str) -> str:
    """A date, or milliseconds since 1970."""
    try:
        if re.fullmatch(r"[0-9]{1,16}", text):
            return iso(datetime.fromtimestamp(int(text) / 1000, tz=UTC))
        return iso(parse_time(text))
    except (ValueError, OverflowError, OSError):
        raise InvalidInput.field("raw", '"raw" has a header X-EE-Send-At that is not a date') from None


def overridden(mail: RawMail, fields: Mapping[str, Any]) -> RawMail:
    """The mail with the header fields that are given beside it: addresses, `headers`, threading."""
    new = [address_field(_written(name), many) for name, many in _given_addresses(fields)]
    new += [given_field(name, value) for name, value in (fields.get("headers") or {}).items()]
    own = {name for name, _ in mail.fields} | {name.lower() for name in fields.get("headers") or ()}
    threading = [
        field for field in mime.threading_fields(fields) if field.partition(b":")[0].lower().decode() not in own
    ]
    return mail.with_fields(*new, *threading)


def _given_addresses(fields: Mapping[str, Any]) -> Iterable[tuple[str, list[dict[str, str]]]]:
    for field, name in _ADDRESSES.items():
        given = fields.get(field)
        if given:
            yield name, [given] if isinstance(given, dict) else given


def _written(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


def with_html(mail: RawMail, rewrite: Callable[[str], str]) -> RawMail:
    """The mail with its HTML rewritten."""
    return parsed(raw_parts.with_html(mail.whole(), rewrite))


def completed(mail: RawMail, *, message_id: str, date: datetime | None, now: datetime, queue_id: str) -> RawMail:
    """The mail with what it lacks: Message-ID, Date, MIME-Version; with our stamp, and with `date` where it is sent
    later."""
    own = {name for name, _ in mail.fields}
    new = [ids_field("Message-ID", [message_id])] if mail.text("message-id") != message_id else []
    if date is not None or not mail.text("date"):
        new.append(given_field("Date", format_datetime(date or now)))
    if "mime-version" not in own:
        new.append(given_field("MIME-Version", "1.0"))
    if queue_id:
        new.append(given_field(mime.STAMP, queue_id))
    return mail.without((*CONTROL, mime.STAMP.lower())).with_fields(*new)


def recipients(mail: RawMail) -> dict[str, list[dict[str, str]]]:
    """`to`, `cc` and `bcc` as a submit names them, without the names."""
    return {name: [{"address": address} for address in mail.addresses(name)] for name in _RECIPIENTS}
