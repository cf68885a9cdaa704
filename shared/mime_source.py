"""The parts of a mail's MIME source, read with bounds and in time linear in its length. Pure.

The standard library's parser takes time that grows with depth times length, and fails on deep nesting; what is read
here came from anywhere. Broken MIME gives fewer parts, never an error.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

MOST_BYTES = 2_000_000  # of one source; what lies behind is not read
MOST_PARTS = 60
DEEPEST = 8
_HEADER_BYTES = 128 * 1024
_MOST_HEADERS = 300
_LONGEST_VALUE = 8_000
_LONGEST_PARAMETERS = 1_000
_LONGEST_ENCODED = 2_000  # encoded words are decoded in values up to this length
_FIELD = re.compile(rb"([!-9;-~]{1,100})[ \t]*:")
_PARAMETER = re.compile(r';\s*+([\w*.-]{1,60})\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]*+))')
# Decoders that take quadratic time, read escapes, or are no character sets.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "utf-7"})

Headers = Mapping[str, list[str]]


@dataclass(frozen=True)
class Part:
    """One part: its headers by lower-case name, its type in lower case, its content as on the wire. `parts` are
    those inside a multipart."""

    headers: Headers
    kind: str
    parameters: Mapping[str, str]
    content: bytes = field(repr=False)
    parts: tuple[Part, ...] = ()

    @property
    def filename(self) -> str:
        """The name given to the part, or ""."""
        disposition = parameters_of(first(self.headers, "content-disposition"))
        return disposition.get("filename") or self.parameters.get("name") or ""

    def walk(self) -> Iterator[Part]:
        """This part and all inside it, in order."""
        yield self
        for one in self.parts:
            yield from one.walk()

    def decoded(self) -> bytes:
        """The content without its transfer encoding."""
        encoding = first(self.headers, "content-transfer-encoding").strip().lower()
        if encoding == "quoted-printable":
            return binascii.a2b_qp(self.content)
        if encoding != "base64":
            return self.content
        clean = re.sub(rb"[^A-Za-z0-9+/]", b"", self.content)
        clean = clean[:-1] if len(clean) % 4 == 1 else clean  # one character alone is no byte
        return binascii.a2b_base64(clean + b"=" * (-len(clean) % 4))

    def text(self) -> str:
        """The content as text, whatever its character set claims."""
        return as_text(self.decoded(), self.parameters.get("charset", ""))


def first(headers: Headers, name: str) -> str:
    """The first value of a header, or ""."""
    return next(iter(headers.get(name, ())), "")


def read(raw: bytes) -> Part:
    """The source with its parts. Bytes behind the bound are left out."""
    return _Reader().part(raw[:MOST_BYTES], 0)


def read_headers(raw: bytes) -> dict[str, list[str]]:
    """The header block at the start of a mail, by lower-case name, unfolded and decoded."""
    return _split(raw)[0]


class _Reader:
    def __init__(self) -> None:
        self._left = MOST_PARTS

    def part(self, raw: bytes, depth: int, usual: str = "text/plain") -> Part:
        self._left -= 1
        headers, content = _split(raw)
        given = first(headers, "content-type")
        kind = given.partition(";")[0].strip().lower() or usual
        parameters = parameters_of(given)
        parts: tuple[Part, ...] = ()
        if kind.startswith("multipart/") and depth < DEEPEST and parameters.get("boundary"):
            inner = "message/rfc822" if kind == "multipart/digest" else "text/plain"
            pieces = _pieces(content, parameters["boundary"])
            parts = tuple(self.part(one, depth + 1, inner) for one in pieces if self._left > 0)
        return Part(headers, kind, parameters, content, parts)


def _pieces(content: bytes, boundary: str) -> Iterator[bytes]:
    """What lies between the lines of a boundary. A last piece that is not closed counts too."""
    mark = re.escape(boundary.encode("utf-8", "replace"))
    start: int | None = None
    for line in re.finditer(rb"^--" + mark + rb"(--)?[ \t]*+\r?$", content, re.MULTILINE):
        if start is not None:
            yield content[start : line.start()].removesuffix(b"\n").removesuffix(b"\r")
        if line[1]:
            return
        start = line.end() + 1
    if start is not None:
        yield content[start:]


def _split(raw: bytes) -> tuple[dict[str, list[str]], bytes]:
    """(headers, what follows the blank line)."""
    found: list[tuple[bytes, list[bytes]]] = []
    at = 0
    while at < min(len(raw), _HEADER_BYTES):
        end = raw.find(b"\n", at)
        line = raw[at:] if end < 0 else raw[at:end]
        after = len(raw) if end < 0 else end + 1
        if not line.strip(b"\r"):
            return _headers(found), raw[after:]
        if line[:1] in (b" ", b"\t") and found:
            found[-1][1].append(line)
        elif (name := _FIELD.match(line)) is not None:
            found.append((name[1], [line[name.end() :]]))
        elif found or not line.startswith(b"From "):  # an mbox line may stand before the headers
            return _headers(found), raw[at:]  # no blank line, or no headers at all
        at = after
    return _headers(found), raw[at:]


def _headers(found: list[tuple[bytes, list[bytes]]]) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, lines in found[:_MOST_HEADERS]:
        value = b" ".join(line.strip() for line in lines)[:_LONGEST_VALUE]
        headers.setdefault(name.decode("ascii").lower(), []).append(_unencoded(as_text(value)))
    return headers


def _unencoded(value: str) -> str:
    if "=?" not in value or len(value) > _LONGEST_ENCODED:
        return value
    from email.errors import MessageError
    from email.header import decode_header

    try:
        pieces = decode_header(value)
        return "".join(one if isinstance(one, str) else as_text(one, charset or "ascii") for one, charset in pieces)
    except (MessageError, ValueError):
        return value


def parameters_of(value: str) -> dict[str, str]:
    """The parameters of a header such as Content-Type, by lower-case name."""
    found: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(value[:_LONGEST_PARAMETERS]):
        text = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
        if name.endswith("*"):  # RFC 2231: charset'language'percent-encoded
            from urllib.parse import unquote_to_bytes

            charset, _, rest = text.partition("'")
            text = as_text(unquote_to_bytes(rest.partition("'")[2]), charset)
        found.setdefault(name.lower().rstrip("*"), text)
    return found


def as_text(raw: bytes, charset: str = "") -> str:
    """Text of these bytes: UTF-8 unless something else is claimed and known; what does not fit is replaced."""
    try:
        name = codecs.lookup(charset.strip() or "utf-8").name
    except (LookupError, ValueError):
        name = "utf-8"
    try:
        return raw.decode("utf-8" if name in _NO_CHARSETS or name == "ascii" else name, "replace")
    except (LookupError, ValueError):
        return raw.decode("utf-8", "replace")
