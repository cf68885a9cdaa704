"""Links that lead back here from a mail: what they ask for is signed, so that nobody can make one up.

The form is that of the set-up links (emailengine.md 7.1), without a nonce: such a link lies in a mailbox for years. Its
`act` tells what it is for, and no link is good for anything else.
"""

from __future__ import annotations

import hmac
import json
from typing import Any
from urllib.parse import urlencode

from shared.consent import sign
from shared.errors import Forbidden
from shared.service_settings import ServiceSettings
from shared.vault import decode, encode

LONGEST = 16_384  # characters of `data`


def link(base: str, path: str, blob: dict[str, Any], secret: str) -> str:
    """`<base><path>?data=…&sig=…`."""
    raw = json.dumps(blob, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return f"{base.rstrip('/')}{path}?{urlencode({'data': encode(raw), 'sig': sign(raw, secret)})}"


class SignedLinks:
    """Makes and opens them."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings

    async def base(self, given: str | None) -> str:
        """Where the links lead: the caller's `baseUrl`, or the service's own address, "" when it has none."""
        return (given or await self._settings.service_url()).rstrip("/")

    async def secret(self) -> str:
        return await self._settings.service_secret()

    async def opened(self, act: str, data: str, signature: str) -> dict[str, str]:
        """What the link says. Forbidden when it was not signed here, or for something else. A secret that was replaced
        is good for a day."""
        try:
            raw, given = decode(data[:LONGEST]), decode(signature[:200])
            secrets = await self._settings.signing_secrets() if raw and given else []
            sound = [secret for secret in secrets if hmac.compare_digest(given, decode(sign(raw, secret)))]
            blob = json.loads(raw) if sound else None
        except (ValueError, RecursionError):
            blob = None
        if not isinstance(blob, dict) or blob.get("act") != act:
            raise Forbidden("Signature validation failed")
        return {name: value for name, value in blob.items() if isinstance(value, str)}
