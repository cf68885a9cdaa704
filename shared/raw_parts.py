"""What is inside a mail that was given as MIME, its HTML and its files: found without writing it anew, so that the
rest stays as it is. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import default
from typing import Any

from shared.mail_headers import one_line
from shared.mail_parts import Part
from shared.mime_parts import typed

_DEEPEST = 10
_UNTOUCHABLE = ("multipart/signed", "multipart/encrypted")  # changing a word would break what they are for
_ENCODED = ("base64", "quoted-printable")
_LONGEST_HEAD = 16_384  # of a part, for its name
_FOLD = re.compile(rb"\r\n[ \t]+")
Rewrite = Callable[[str], str]


@dataclass(frozen=True)
class _Part:
    """Where a part stands: its header from `start`, its body from `body` to `end`."""

    start: int
    body: int
    end: int


def with_html(mail: bytes, rewrite: Rewrite) -> bytes:
    """The whole mail with its HTML rewritten: every HTML part that is no attachment. Signed and encrypted mails, and
    parts that can not be read, stay as they are."""
    pieces: list[bytes] = []
    at = 0
    for part in _html_parts(mail, 0, len(mail), 0):
        changed = _rewritten(mail, part, rewrite)
        if changed is not None:
            pieces += [mail[at : part.start], changed]
            at = part.end
    return b"".join([*pieces, mail[at:]])


def _html_parts(mail: bytes, start: int, end: int, depth: int) -> Iterator[_Part]:
    body = _body_of(mail, start, end)
    fields = _fields(mail[start:body])
    kind, parameters = typed_of(fields)
    if kind == "text/html":
        if not fields.get("content-disposition", "").lower().startswith("attachment"):
            yield _Part(start, body, end)
    elif kind.startswith("multipart/") and kind not in _UNTOUCHABLE and depth < _DEEPEST:
        for inner_start, inner_end in _between(mail, body, end, parameters.get("boundary", "")):
            yield from _html_parts(mail, inner_start, inner_end, depth + 1)


def without_files(mail: bytes, over: int) -> tuple[bytes, list[Part]]:
    """The mail without its largest attachments, at least `over` bytes less if it has so many, and the attachments.
    Signed and encrypted mails stay whole."""
    gap = mail.find(b"\r\n\r\n")
    kind, parameters = typed_of(_fields(mail[: max(gap, 0)]))
    if gap < 0 or kind != "multipart/mixed":
        return mail, []
    found = [one for one in _between(mail, gap + 4, len(mail), parameters.get("boundary", "")) if _is_file(mail, *one)]
    apart: list[tuple[int, int]] = []
    for start, end in sorted(found, key=lambda one: one[0] - one[1]):
        if over > 0:
            apart.append((start, end))
            over -= end - start
    pieces: list[bytes] = []
    at = 0
    for start, end in sorted(apart):
        # The separator line before a part goes with it; the one behind it stands for both.
        pieces.append(mail[at : mail.rfind(b"\r\n--", 0, start)])
        at = end
    return b"".join([*pieces, mail[at:]]), [_file(mail, *one) for one in sorted(apart)]


def _is_file(mail: bytes, start: int, end: int) -> bool:
    fields = _head(mail, start, end)
    is_readable = fields.get("content-transfer-encoding", "7bit").lower() in ("7bit", "8bit", "binary", *_ENCODED)
    kind = typed_of(fields)[0]
    is_attached = fields.get("content-disposition", "").lower().startswith("attachment")
    return is_attached and is_readable and not kind.startswith(("multipart/", "message/"))


def _head(mail: bytes, start: int, end: int) -> dict[str, str]:
    return _fields(mail[start : _body_of(mail, start, end)])


def _body_of(mail: bytes, start: int, end: int) -> int:
    """Where a part's body begins. Its header may be empty: the line end before it is the separator's."""
    gap = mail.find(b"\r\n\r\n", max(0, start - 2), end)
    return gap + 4 if gap >= 0 else end


def _file(mail: bytes, start: int, end: int) -> Part:
    """An attachment as it travels by itself."""
    body = _body_of(mail, start, end)
    named: Any = message_from_bytes(mail[start : min(body, start + _LONGEST_HEAD)], policy=default)
    fields = _fields(mail[start:body])
    content = mail[body:end]
    with suppress(ValueError):
        content = _decoded(content, fields.get("content-transfer-encoding", "7bit").lower())
    return Part(
        name=one_line(named.get_filename()) or "attachment",
        content_type=typed_of(fields)[0],
        cid=fields.get("content-id", "").strip("<>"),
        inline=False,
        content=content,
    )


def _fields(head: bytes) -> dict[str, str]:
    """The header fields of a part by lower-case name, unfolded; the first of each name."""
    found: dict[str, str] = {}
    for line in _FOLD.sub(b" ", head).split(b"\r\n"):
        name, mark, value = line.partition(b":")
        if mark:
            found.setdefault(name.strip().decode("latin-1").lower(), value.strip().decode("latin-1"))
    return found


def typed_of(fields: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Content type and parameters of a part; plain text where it says nothing (RFC 2045 5.2)."""
    given = fields.get("content-type") or "text/plain"
    kind, _, rest = given.partition(";")
    _, parameters = typed({"contentType": f"text/x;{rest}"})
    return kind.strip().lower(), dict(parameters)


def _between(mail: bytes, start: int, end: int, boundary: str) -> Iterator[tuple[int, int]]:
    """The parts of a multipart: header and body of each, without the line end that belongs to the separator."""
    if not boundary:
        return
    separator = re.compile(rb"\r\n--" + re.escape(boundary.encode("latin-1", "replace")) + rb"(--)?[ \t]*+(?=\r\n)")
    head = 0
    for found in separator.finditer(mail, start - 2, end):
        if head:
            yield head, found.start()
        if found[1]:
            return
        head = found.end() + 2


def _rewritten(mail: bytes, part: _Part, rewrite: Rewrite) -> bytes | None:
    """The part with its HTML rewritten, in its own character set; None when it can not be read or did not change."""
    fields = _fields(mail[part.start : part.body])
    charset = typed_of(fields)[1].get("charset", "utf-8")
    encoding = fields.get("content-transfer-encoding", "7bit").lower()
    try:
        html = _decoded(mail[part.body : part.end], encoding).decode(charset)
        changed = rewrite(html)
        content = changed.encode(charset, "xmlcharrefreplace")
    except (LookupError, ValueError):
        return None
    if changed == html:
        return None
    kept = [line for line in _lines(mail[part.start : part.body]) if not _is_encoding(line)]
    wire = base64.encodebytes(content).replace(b"\n", b"\r\n")
    return b"".join(kept) + b"Content-Transfer-Encoding: base64\r\n\r\n" + wire.removesuffix(b"\r\n")


def _decoded(content: bytes, encoding: str) -> bytes:
    if encoding == "base64":
        return base64.b64decode(b"".join(content.split()), validate=True)
    if encoding == "quoted-printable":
        return binascii.a2b_qp(content)
    if encoding in ("7bit", "8bit", "binary"):
        return content
    raise ValueError(encoding)


def _lines(head: bytes) -> list[bytes]:
    """The header fields of a part with their folds and line ends."""
    found: list[bytes] = []
    for line in head.rstrip(b"\r\n").split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and found:
            found[-1] += line + b"\r\n"
        elif line:
            found.append(line + b"\r\n")
    return found


def _is_encoding(field: bytes) -> bool:
    return field.partition(b":")[0].strip().lower() == b"content-transfer-encoding"
