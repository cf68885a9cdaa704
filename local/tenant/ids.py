"""Identifiers in the shapes Exchange gives them, drawn from the tenant's seeded random source.

Shapes: graph.md 2.2 (url-safe base64 with `=`, `-`, `_`, 100 to 200 characters, case-sensitive) and the
samples of graph.md 3.1 and 3.2.
"""

from __future__ import annotations

import base64
import random
import re
import uuid

_IMMUTABLE_PREFIX = "AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0A"
_ORDINARY_PREFIX = "AAMkADk0"
_FOLDER_PREFIX = "AQMkADYA"
_WELL_FORMED = re.compile(r"A[AQ][A-Za-z0-9_\-]{40,}={0,2}")


class IdSource:
    """Makes ids for one mailbox; the same seed and the same calls give the same ids."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._mailbox_part = self._text(24)

    def immutable(self) -> str:
        """An id that stays the same while the item stays in the mailbox (graph.md 2.4 [D])."""
        return _IMMUTABLE_PREFIX + self._text(47)

    def ordinary(self) -> str:
        """An id that is replaced when the item moves (graph.md 4 [D])."""
        return _ORDINARY_PREFIX + self._mailbox_part + self._text(59)

    def folder(self) -> str:
        """A folder id; constant for the life of the folder (graph.md 2.4 [D])."""
        return _FOLDER_PREFIX + self._text(71)

    def conversation(self) -> str:
        return "AAQkADYx" + self._mailbox_part + self._text(35)

    def conversation_index(self) -> str:
        """Standard base64 of 22 bytes, the header block of a conversation index."""
        return base64.b64encode(b"\x01\xdb" + self._rng.randbytes(20)).decode()

    def attachment(self) -> str:
        return _ORDINARY_PREFIX + self._mailbox_part + self._text(77)

    def guid(self) -> str:
        return str(uuid.UUID(bytes=self._rng.randbytes(16), version=4))

    def _text(self, size: int) -> str:
        return base64.urlsafe_b64encode(self._rng.randbytes(size)).decode()


def looks_like_id(text: str) -> bool:
    """False for text that Exchange refuses as malformed before looking for it (graph.md 4, notes [F])."""
    return _WELL_FORMED.fullmatch(text) is not None


def change_key(sequence: int) -> str:
    """The changeKey of an item state; the etag is `W/"<changeKey>"` (graph.md 3.1)."""
    return base64.b64encode(b"\x09\x00\x00\x00\x16" + sequence.to_bytes(7, "big")).decode()
