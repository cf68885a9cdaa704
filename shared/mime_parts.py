"""The parts of a MIME message as bytes: texts, files, mails inside a mail, and what holds them. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import mimetypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.mail_headers import parameter_field

MESSAGE = "message/rfc822"
CALENDAR = "text/calendar"
_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_PARAMETER = re.compile(r'\s*;\s*([\w.+-]+)\s*=\s*(?:"((?:[^"\\\x00-\x1f]|\\[ -~])*+)"|([^\s;",]+))', re.ASCII)
_MOST_PARAMETERS = 20
_FIRST_FIELD = re.compile(rb"[!-9;-~]{1,76}[ \t]*:")
_LONGEST_LINE = 998  # of an SMTP line, without its end (RFC 5322 2.1.1)
_LINE_END = re.compile(r"\r\n|\r|\n")
_BARE_FEED = re.compile(rb"(?<!\r)\n")
_NOT_PLAIN = re.compile(r"[^\t\n\r -~]")
_SHORT = 900  # characters of a line that may stay as it is

Attachment = Mapping[str, Any]


@dataclass(frozen=True)
class Entity:
    """One part: its header fields, and its body in pieces."""

    fields: Sequence[bytes]
    body: Sequence[bytes]
    is_8bit: bool = False

    def pieces(self) -> list[bytes]:
        """The part as it stands in what holds it."""
        return [*self.fields, b"\r\n", *self.body]


class Boundaries:
    """Separators that no content can have foreseen: the queue id they are made of has random digits."""

    def __init__(self, *seed: str) -> None:
        self._seed, self._count = hashlib.sha256("\n".join(seed).encode("utf-8", "replace")).hexdigest()[:32], 0

    def following(self) -> str:
        # `=_` comes out of neither quoted-printable nor base64.
        self._count += 1
        return f"=_{self._seed}_{self._count}"


def text_entity(text: str, subtype: str) -> Entity:
    """A text in UTF-8: as it is when it is short plain lines, else quoted-printable, which every transport leaves
    alone."""
    text = _LINE_END.sub("\r\n", text)
    text += "" if text.endswith("\r\n") else "\r\n"
    raw, encoding = text.encode("utf-8", "replace"), b"7bit"
    if _NOT_PLAIN.search(text) or any(len(line) > _SHORT for line in text.split("\r\n")):
        raw, encoding = _BARE_FEED.sub(b"\r\n", binascii.b2a_qp(raw)), b"quoted-printable"
    kind = parameter_field("Content-Type", f"text/{subtype}", [("charset", "utf-8")])
    return Entity([kind, b"Content-Transfer-Encoding: " + encoding + b"\r\n"], [raw])


def holding(subtype: str, parts: Sequence[Entity], boundaries: Boundaries) -> Entity:
    """A multipart of these parts."""
    boundary = boundaries.following()
    line, is_8bit = f"\r\n--{boundary}\r\n".encode(), any(part.is_8bit for part in parts)
    body: list[bytes] = []
    for part in parts:
        body += [line, *part.pieces()]
    body[0] = line[2:]  # the first one follows the blank line behind the header
    kind = parameter_field("Content-Type", f"multipart/{subtype}", [("boundary", boundary)])
    # What holds 8bit may not claim less (RFC 2045 6.4).
    encoding = [b"Content-Transfer-Encoding: 8bit\r\n"] if is_8bit else []
    return Entity([kind, *encoding], [*body, f"\r\n--{boundary}--\r\n".encode()], is_8bit)


def file_entity(attachment: Attachment) -> Entity:
    """A file in base64, under its type and name."""
    disposition = attachment.get("contentDisposition") or ("inline" if attachment.get("cid") else "attachment")
    fields = [
        parameter_field("Content-Type", *typed(attachment)),
        b"Content-Transfer-Encoding: base64\r\n",
        parameter_field("Content-Disposition", disposition, [("filename", filename_of(attachment))]),
    ]
    if attachment.get("cid"):
        fields.append(parameter_field("Content-ID", f"<{attachment['cid'].strip('<>')}>", ()))
    return Entity(fields, [_in_base64(base64.b64decode(attachment["content"]))])


def invitation_entity(attachment: Attachment) -> Entity:
    """A calendar message beside the texts, where calendars look for it."""
    kind, parameters = typed(attachment)
    names = {name for name, _ in parameters}
    more = [("charset", "utf-8")] if "charset" not in names else []
    more += [("name", attachment["filename"])] if attachment.get("filename") and "name" not in names else []
    fields = [parameter_field("Content-Type", kind, [*parameters, *more]), b"Content-Transfer-Encoding: base64\r\n"]
    return Entity(fields, [_in_base64(base64.b64decode(attachment["content"]))])


def mail_entity(attachment: Attachment, content: bytes) -> Entity:
    """A mail inside a mail, its bytes as they are."""
    encoding = b"7bit" if content.isascii() else b"8bit"
    fields = [
        parameter_field("Content-Type", MESSAGE, ()),
        b"Content-Transfer-Encoding: " + encoding + b"\r\n",
        parameter_field("Content-Disposition", "attachment", [("filename", filename_of(attachment))]),
    ]
    return Entity(fields, [content], encoding == b"8bit")


def wire_form(content: bytes) -> bytes | None:
    """A mail as it may stand inside another one, where it must not be encoded (RFC 2046 5.2.1); None when it is
    not a mail, or has bytes or lines that no transport carries as they are.

    Line ends of CRLF are kept; a mail with bare line feeds throughout gets the CRLF that mail has on the wire.
    """
    if b"\r" not in content:
        content = content.replace(b"\n", b"\r\n")
    lines = content.split(b"\r\n")
    is_clean = not any(b"\r" in line or b"\n" in line or len(line) > _LONGEST_LINE for line in lines)
    return content if is_clean and b"\0" not in content and _FIRST_FIELD.match(content) else None


def is_invitation(attachment: Attachment) -> bool:
    """Whether this is a calendar message (a `method` says what it asks for) that is not sent as a file."""
    if attachment.get("contentDisposition") == "attachment":
        return False
    kind, parameters = typed(attachment)
    return kind == CALENDAR and any(name == "method" for name, _ in parameters)


def content_type_of(attachment: Attachment) -> str:
    """The type given, or guessed from the name, without parameters."""
    return typed(attachment)[0]


def typed(attachment: Attachment) -> tuple[str, list[tuple[str, str]]]:
    """The type given, with its parameters, or the one guessed from the name. Types whose content readers take apart
    may not be encoded: a mail travels as one when its bytes allow it, anything else as plain bytes."""
    given = attachment.get("contentType") or ""
    head, _, _ = given.partition(";")
    guessed = mimetypes.guess_type(attachment.get("filename") or "")[0] or ""
    for kind, parameters in ((head.strip().lower(), given[len(head) :]), (guessed, "")):
        if _TYPE.fullmatch(kind) and not kind.startswith(("multipart/", "message/")):
            return kind, _parameters(parameters)
        if kind == MESSAGE and wire_form(base64.b64decode(attachment.get("content") or "")) is not None:
            return kind, []
    return "application/octet-stream", []


def _parameters(text: str) -> list[tuple[str, str]]:
    """The parameters up to the first that is not one."""
    found: dict[str, str] = {}
    at = 0
    while len(found) < _MOST_PARAMETERS and (match := _PARAMETER.match(text, at)) is not None:
        value = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
        found.setdefault(match[1].lower(), value)
        at = match.end()
    return list(found.items())


def filename_of(attachment: Attachment) -> str:
    """The name given, or one made from the type."""
    given = attachment.get("filename")
    return given or "attachment" + (mimetypes.guess_extension(content_type_of(attachment)) or ".bin")


def _in_base64(content: bytes) -> bytes:
    return base64.encodebytes(content).replace(b"\n", b"\r\n")
