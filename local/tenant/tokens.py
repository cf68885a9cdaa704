"""Signing keys of the login service: RS256 tokens, their check, the published key set, rollover."""

from __future__ import annotations

import base64
import functools
import hashlib
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

# Expiry and audience are judged by the caller, against the tenant's clock and its own rules.
SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_aud": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


@functools.cache
def _private_key(index: int) -> RSAPrivateKey:
    """The n-th key of this process; kept across resets because making one takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def base64url(raw: bytes) -> str:
    """Base64url without padding, as in every part of a JWT."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unsigned(number: int) -> str:
    return base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


@functools.cache
def _key_id(index: int) -> str:
    modulus = _private_key(index).public_key().public_numbers().n
    return base64url(hashlib.sha256(str(modulus).encode()).digest())[:27]


class KeyRing:
    """The keys in use: the newest signs, all published ones verify (graph.md 12.1 [D]: keys roll over)."""

    def __init__(self) -> None:
        self._indexes = [0]

    @property
    def key_id(self) -> str:
        """The `kid` of the key that signs now."""
        return _key_id(self._indexes[-1])

    def roll(self, *, drop_old: bool = False) -> str:
        """The `kid` of a new signing key; the old ones stay published unless dropped."""
        following = self._indexes[-1] + 1
        self._indexes = [following] if drop_old else [*self._indexes, following]
        return self.key_id

    def sign(self, claims: dict[str, Any]) -> str:
        """The claims as RS256 JWT."""
        key = _private_key(self._indexes[-1])
        return jwt.encode(claims, key, algorithm="RS256", headers={"kid": self.key_id})

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token signed here, expired or not. Raises jwt.InvalidTokenError for any other."""
        wanted = jwt.get_unverified_header(token).get("kid")
        for index in self._indexes:
            if _key_id(index) == wanted:
                public = _private_key(index).public_key()
                return dict(jwt.decode(token, public, algorithms=["RS256"], options=SIGNATURE_ONLY))
        raise jwt.InvalidTokenError(f"no key {wanted!r}")

    def jwks(self, issuer: str) -> dict[str, Any]:
        """The key set document; newest key first."""
        keys = []
        for index in reversed(self._indexes):
            numbers = _private_key(index).public_key().public_numbers()
            key_id = _key_id(index)
            public = {"n": _unsigned(numbers.n), "e": _unsigned(numbers.e)}
            keys.append(
                {
                    "kty": "RSA",
                    "use": "sig",
                    "alg": "RS256",
                    "kid": key_id,
                    "x5t": key_id,
                    **public,
                    "issuer": issuer,
                }
            )
        return {"keys": keys}
