"""Checks the id_token of a sign-in: signature, issuer, audience, expiry and nonce.

MSAL checks none of the first four since 1.38 (graph.md 13.3), so this is where a forged or foreign token ends.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from shared.login_http import LoginHttp

LEEWAY_S = 300  # clocks of both sides may differ by five minutes, as everywhere at Microsoft


class IdTokenRefused(Exception):
    """The id_token does not prove who signed in. The text says which check failed."""


class IdTokens:
    """Verifies tokens of one login host. Signing keys are kept, and fetched anew for an unknown key id."""

    def __init__(self, http: LoginHttp) -> None:
        self._http = http
        self._keys: dict[str, dict[str, Any]] = {}

    def verify(self, token: str, *, authority: str, client_id: str, nonce: str) -> dict[str, Any]:
        """The claims. `nonce` is the value kept with the sign-in; on the wire it travels as its SHA-256 (13.4).

        Raises IdTokenRefused; `requests` exceptions when the keys cannot be fetched.
        """
        import jwt

        discovery = self._discovery(authority)
        try:
            header = jwt.get_unverified_header(token)
            key = self._key(discovery["jwks_uri"], header.get("kid", ""))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=client_id,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud", "oid", "tid"], "verify_iss": False},
            )
        except jwt.PyJWTError as problem:
            raise IdTokenRefused(f"id_token: {problem}") from None
        self._check_issuer(claims, discovery["issuer"])
        expected = hashlib.sha256(nonce.encode("ascii")).hexdigest()
        if claims.get("nonce") != expected:
            raise IdTokenRefused("id_token: the nonce is of another sign-in")
        return claims

    def _check_issuer(self, claims: dict[str, Any], pattern: str) -> None:
        # For shared authorities the documented issuer holds the literal {tenantid} (graph.md 12.1).
        expected = pattern.replace("{tenantid}", str(claims["tid"]))
        if self._http.to_official(str(claims["iss"])) != expected:
            raise IdTokenRefused("id_token: the issuer is not the login service")

    def _discovery(self, authority: str) -> dict[str, Any]:
        answer = self._http.get(f"{authority}/v2.0/.well-known/openid-configuration")
        answer.raise_for_status()
        document: dict[str, Any] = json.loads(answer.text)
        return document

    def _key(self, address: str, key_id: str) -> Any:
        import jwt

        if key_id not in self._keys:
            answer = self._http.get(address)
            answer.raise_for_status()
            self._keys = {key["kid"]: key for key in json.loads(answer.text).get("keys", []) if "kid" in key}
        if key_id not in self._keys:
            raise IdTokenRefused("id_token: it is signed with a key the login service does not publish")
        return jwt.PyJWK(self._keys[key_id], algorithm="RS256").key
