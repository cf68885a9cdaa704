"""Keys that Table Storage accepts, made from ids that callers choose freely.

Partition and row keys must not hold `/ \\ # ?` or control characters and end at 1 KiB
(docs: "Understanding the Table service data model"). Account ids may hold all of these and emoji, so every
byte outside a small alphabet is written `=XX`, and what grows too long ends in a hash.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@-")
_LONGEST = 300
_KEPT = 200
_IMPOSSIBLE = re.compile(r"[/\\#?\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LONGEST_OF_ALL = 512  # 1 KiB of UTF-16


def storable(text: str) -> str:
    """The key of any text: readable where it can be, one to one, at most 300 characters."""
    raw = text.encode("utf-8", "surrogatepass")
    key = "".join(chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in raw)
    if len(key) <= _LONGEST:
        return key
    # `=~` cannot come out of the escaping above, so a shortened key never equals a plain one.
    return f"{key[:_KEPT]}=~{hashlib.sha256(raw).hexdigest()}"


def possible(*keys: str) -> bool:
    """Whether records can have these keys. An id from a caller that can not be one names nothing; asked for it, Table
    Storage answers with an error that looks like an outage."""
    return not any(_IMPOSSIBLE.search(key) or len(key) > _LONGEST_OF_ALL for key in keys)


def digest(*parts: str) -> str:
    """40 hex digits that stand for the parts, in order."""
    return hashlib.sha256("\x00".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]


def queue_id(send_at_ms: int, random_hex: Callable[[int], str] = secrets.token_hex) -> str:
    """A queueId: 19 hex digits, ordered by time of sending (emailengine.md 1.6)."""
    return f"{send_at_ms:012x}"[-12:][1:] + random_hex(4)


def document_id(random_number: Callable[[int], int] = secrets.randbelow) -> str:
    """An id of the contract's form: 16 base64url characters over a time and a counter (1.6)."""
    from shared.vault import encode

    return encode(int(time.time() * 1000).to_bytes(8, "big") + random_number(2**32).to_bytes(4, "big"))


def time_key(epoch_s: float) -> str:
    """A row key that sorts by time."""
    return f"{int(epoch_s * 1000):015d}"
