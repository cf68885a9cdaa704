"""Addresses in a header field as it came (RFC 5322 3.4), read in one pass. Pure.

Lenient: what is not an address is passed over. Nested comments and quotes in any number cost no more than their length.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    rb'"((?:[^"\\]|\\.)*+)("?)'  # 1, 2: a quoted text, perhaps without its end
    rb"|([()<>,:;])"  # 3: a mark
    rb"|\\."
    rb'|[^"()<>,:;\\]++'
    rb"|.",
    re.DOTALL,
)
_AROUND = re.compile(r"([@.])")  # where white space may stand in an address
_ADDRESS = re.compile(r"[^\s@<>,;:()\"]+@[^\s@<>,;:()\"]+")
_QUOTED_ADDRESS = re.compile(r'"[^"]+"@[^\s@<>,;:()"]+')


class _Entry:
    """One entry of a list: a name with an address in angle brackets, or an address alone."""

    def __init__(self) -> None:
        self.plain: list[str] = []
        self.angle: list[str] | None = None
        self.is_open = False

    def add(self, text: str) -> None:
        if self.angle is None:
            self.plain.append(text)
        elif self.is_open:
            self.angle.append(text)

    def address(self) -> str:
        """The address, or "" when there is none."""
        text = "".join(self.plain if self.angle is None else self.angle)
        # A source route stands before the address proper (RFC 5322 4.4).
        address = "".join(piece.strip() for piece in _AROUND.split(text.rpartition(":")[2]))
        return address if _ADDRESS.fullmatch(address) or _QUOTED_ADDRESS.fullmatch(address) else ""


def addresses_in(value: bytes) -> list[str]:
    """The addresses of a field's value, in order."""
    entries, depth = [_Entry()], 0
    for token in _TOKEN.finditer(value):
        mark, entry = token[3], entries[-1]
        if depth or mark in (b"(", b")"):
            depth = max(0, depth + (mark == b"(") - (mark == b")"))
        elif mark == b"<":
            entry.angle, entry.is_open = [], True
        elif mark == b">":
            entry.is_open = False
        elif mark in (b",", b";"):
            entries.append(_Entry())
        elif mark == b":" and not entry.is_open:
            entry.plain.clear()  # the name of a group
        else:
            entry.add(token[0].decode("utf-8", "replace"))
    return [address for entry in entries if (address := entry.address())]
