"""Header fields as bytes, each written in one pass. Pure.

The standard library reads a value back and folds it again and again, which takes quadratic time on long lists of
names; here the pieces are measured once and put into lines.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence

from shared.errors import InvalidInput

MOST_RECIPIENTS = 1000  # the highest a tenant can allow (graph.md 6.6)
LARGEST_HEADERS = 256 * 1024  # bytes (graph.md 6.6)
# Everything Python or a mail server may take for the end of a line, and the other controls.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LINE = 78  # where lines are folded
_LONGEST = 990  # of a line that has no place to fold: 998 with its end (RFC 5322 2.1.1)
_WORD_BYTES = 45  # of text in one encoded word, which has at most 75 characters (RFC 2047 2)
# A name stays in one word where a line holds it: readers put a space between two, even where none belongs.
_NAME_BYTES = 690
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\- ]+")
_DOT_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+)*")
_PIECES = re.compile(r"[ \t]*[^ \t]+")
_PLAIN_VALUE = re.compile(r"[ -~]*")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SEGMENT = 60  # characters of one section of a long parameter (RFC 2231 3)


def one_line(text: str | None) -> str:
    """The text without line breaks and control characters, which would end the header it goes into."""
    return CONTROLS.sub(" ", text or "").strip()


def address_field(name: str, recipients: Sequence[Mapping[str, str]]) -> bytes:
    """A field of addresses, `{name, address}` each."""
    last = len(recipients) - 1
    pieces: list[str] = []
    for number, one in enumerate(recipients):
        shown = _address(one)
        shown[-1] += "," if number < last else ""
        pieces += [f" {piece}" for piece in shown]
    return _folded(name, pieces)


def text_field(name: str, text: str) -> bytes:
    """A field that people read; what looks like an encoded word in it is text, too."""
    text = one_line(text)
    return _unstructured(name, text, is_plain=text.isascii() and "=?" not in text)


def given_field(name: str, value: str) -> bytes:
    """A field as the caller wrote it. Only characters beyond ASCII are encoded."""
    value = CONTROLS.sub(" ", value.replace("\t", " ")).strip()
    return _unstructured(name, value, is_plain=value.isascii())


def ids_field(name: str, ids: Iterable[str]) -> bytes:
    """A field of Message-IDs."""
    return _folded(name, [f" {one}" for one in ids])


def parameter_field(name: str, value: str, parameters: Iterable[tuple[str, str]]) -> bytes:
    """A field with a value and parameters, as Content-Type has them (RFC 2045 5.1, RFC 2231)."""
    pieces = [f" {value}"]
    for parameter, content in parameters:
        for piece in _parameter(parameter, one_line(content)):
            pieces[-1] += ";"
            pieces.append(f" {piece}")
    return _folded(name, pieces)


def check_recipients(fields: Mapping[str, Sequence[object]]) -> None:
    """InvalidInput when there is no recipient, or there are more than Exchange takes."""
    found = {name: len(fields.get(name) or ()) for name in ("to", "cc", "bcc")}
    total = sum(found.values())
    if not total:
        raise InvalidInput.field("to", 'At least one recipient is needed in "to", "cc" or "bcc"')
    if total > MOST_RECIPIENTS:
        most = max(found, key=lambda name: found[name])
        text = f'"{most}" has too many recipients: {total} altogether, Exchange takes {MOST_RECIPIENTS} in one mail'
        raise InvalidInput.field(most, text)


def check_size(size: int, field: str) -> None:
    """InvalidInput for more bytes of headers than Exchange takes."""
    if size > LARGEST_HEADERS:
        text = f'"{field}" is too long: the headers have {size} bytes, Exchange takes {LARGEST_HEADERS}'
        raise InvalidInput.field(field, text)


def ascii_domain(domain: str) -> str:
    """Internationalised domains travel in their ASCII form; what cannot be converted is left to Graph."""
    try:
        return domain.encode("idna").decode() if not domain.isascii() else domain
    except UnicodeError:
        return domain


def _address(one: Mapping[str, str]) -> list[str]:
    local, _, domain = one["address"].rpartition("@")
    local = local if _DOT_ATOM.fullmatch(local) else _quoted(local)
    address, name = f"{local}@{ascii_domain(domain)}", one_line(one.get("name"))
    return [*_phrase(name), f"<{address}>"] if name else [address]


def _phrase(name: str) -> list[str]:
    """A display name. One with an @ is encoded: readers of addresses were seen to stumble over it (graph.md 6.3)."""
    if not name.isascii() or "@" in name or "=?" in name or len(name) > _LONGEST // 2:
        return _encoded_words(name, _NAME_BYTES)
    return [name] if _ATOMS.fullmatch(name) and "  " not in name else [_quoted(name)]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unstructured(name: str, text: str, *, is_plain: bool) -> bytes:
    pieces = _PIECES.findall(text)
    if not is_plain or any(len(piece) > _LONGEST for piece in pieces):
        pieces = [f" {word}" for word in _encoded_words(text)]
    elif pieces:
        pieces[0] = " " + pieces[0]
    return _folded(name, pieces)


def _encoded_words(text: str, most_bytes: int = _WORD_BYTES) -> list[str]:
    """RFC 2047 words that together stand for the text; none is cut inside a character, nor, where it can be helped,
    beside a space, which some readers double there."""
    words, start, size = [], 0, 0
    for at, character in enumerate(text):
        width = len(character.encode("utf-8", "replace"))
        if size + width > most_bytes:
            cut = next((n for n in range(at, max(start, at - 9), -1) if " " not in text[n - 1 : n + 1]), at)
            words.append(text[start:cut])
            start, size = cut, len(text[cut:at].encode("utf-8", "replace"))
        size += width
    words.append(text[start:])
    return [f"=?utf-8?b?{base64.b64encode(word.encode('utf-8', 'replace')).decode()}?=" for word in words]


def _parameter(name: str, value: str) -> list[str]:
    """`name="value"`, or the sections of a value that is long or not ASCII."""
    if _PLAIN_VALUE.fullmatch(value) and len(value) < _LONGEST // 2:
        return [f"{name}={_quoted(value)}"]
    sections, section = [], ""
    for byte in value.encode("utf-8", "replace"):
        section += chr(byte) if byte in _UNRESERVED else f"%{byte:02X}"
        if len(section) >= _SEGMENT:
            sections.append(section)
            section = ""
    if section or not sections:
        sections.append(section)
    if len(sections) == 1:
        return [f"{name}*=utf-8''{sections[0]}"]
    sections[0] = f"utf-8''{sections[0]}"
    return [f"{name}*{number}*={section}" for number, section in enumerate(sections)]


def _folded(name: str, pieces: Iterable[str]) -> bytes:
    """The field with its pieces, each of which begins with the space at which a line may end."""
    lines, line, is_empty = [], f"{name}:", True
    for piece in pieces:
        if len(line) + len(piece) > _LINE and not is_empty:
            lines.append(line)
            line = ""
        line, is_empty = line + piece, False
    lines.append(line + " " * is_empty)
    return ("\r\n".join(lines) + "\r\n").encode("ascii", "replace")
