"""Seals secrets at rest with AES-256-GCM under a key ring.

A sealed value is `v1.<key name>.<base64url(nonce + ciphertext)>`. The place a value belongs to (table, record
and field) is authenticated with it, so that a sealed value copied into another record does not open. New
values use the newest key; values under older keys of the ring still open, and `is_stale` tells the caller to
write them back under the newest.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Sequence

NONCE_BYTES = 12
NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")  # of a key, as in KEY_RING


class SealBroken(Exception):
    """The value was damaged, belongs to another record, or its key is no longer in the ring."""


class KeyMissing(SealBroken):
    """The value is whole as far as can be told, but this process does not hold its key: with the key it opens."""


def derive(key: bytes, label: str) -> bytes:
    """A key of its own for one purpose, so that a key in use for sealing never signs anything."""
    return hmac.new(key, b"graphpost/" + label.encode(), hashlib.sha256).digest()


def encode(raw: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The bytes behind base64url text, padded or not. ValueError for anything else."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as problem:
        raise ValueError(str(problem)) from None


class Vault:
    """Seals and opens under one key ring: `keys` is (name, 32 bytes), newest first."""

    def __init__(self, keys: Sequence[tuple[str, bytes]], random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._newest = keys[0][0]
        self._keys = {name: derive(key, "seal") for name, key in keys}
        self._random_bytes = random_bytes

    def seal(self, secret: bytes, place: str) -> str:
        """The sealed text of a secret that belongs at `place`."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = self._random_bytes(NONCE_BYTES)
        box = AESGCM(self._keys[self._newest]).encrypt(nonce, secret, place.encode())
        return f"v1.{self._newest}.{encode(nonce + box)}"

    def open(self, sealed: str, place: str) -> bytes:
        """The secret. SealBroken when it cannot be opened at this place with this ring."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        name, text = _parts(sealed)
        if not name:
            raise SealBroken("not a sealed value")
        if name not in self._keys:
            raise KeyMissing(f"no key named {name!r} in the key ring")
        try:
            raw = decode(text)
            return AESGCM(self._keys[name]).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError):
            raise SealBroken("the sealed value is damaged or belongs to another record") from None

    def is_stale(self, sealed: str) -> bool:
        """True when the value is under an older key and should be written back."""
        return not sealed.startswith(f"v1.{self._newest}.")

    @property
    def newest(self) -> str:
        """The name of the key that new values are sealed under."""
        return self._newest


def key_of(sealed: object) -> str:
    """The name of the key a sealed value is under; "" for what is no sealed value."""
    return _parts(sealed)[0]


def _parts(sealed: object) -> tuple[str, str]:
    """Key name and text. Whatever stands in a record is refused here, a name that no key can have included."""
    if not isinstance(sealed, str):
        return "", ""
    version, _, rest = sealed.partition(".")
    name, _, text = rest.partition(".")
    return (name, text) if version == "v1" and NAME.fullmatch(name) else ("", "")
