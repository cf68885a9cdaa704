"""Where a webhook goes and what it carries: the target, its headers, its signatures.

Two signatures travel with every attempt: the contract's `X-EE-Wh-Signature` (emailengine.md 18.2) and that of
Standard Webhooks (standardwebhooks.com), whose key is written `whsec_` + base64 of the service secret's bytes.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit

from shared import __version__
from shared.storage.keys import digest
from shared.vault import encode

FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "host"})
USER_AGENT = f"Graphpost/{__version__} (+https://github.com/graphpost/graphpost)"


@dataclass(frozen=True)
class Target:
    """Where an event goes: the URL without user info, and the headers that customers added."""

    url: str
    headers: dict[str, str]

    @property
    def endpoint(self) -> str:
        """The id of what answers at this URL: 24 hex digits, the same whatever the credentials."""
        return digest(self.url.partition("#")[0])[:24]


def target_of(url: str, custom: list[dict[str, str]]) -> Target:
    """User info in the URL becomes a Basic Authorization header; later headers of one name win (18.2)."""
    parts = urlsplit(url)
    headers: dict[str, str] = {}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode()
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    for entry in custom:
        earlier = next((name for name in headers if name.lower() == entry["key"].lower()), entry["key"])
        headers.pop(earlier, None)
        headers[entry["key"]] = entry.get("value", "")
    return Target(urlunsplit(parts), headers)


def signature(body: bytes, secret: str) -> str:
    """The contract's signature: base64url HMAC-SHA256 of the raw body, without padding (18.2)."""
    return encode(hmac.new(secret.encode(), body, hashlib.sha256).digest())


def standard_signature(event: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> str:
    """The value of `webhook-signature`: one `v1,<base64>` for each secret, newest first, over
    `<id>.<timestamp>.<body>`. A receiver accepts the webhook when one of them is right."""
    signed = f"{event}.{timestamp}.".encode() + body
    macs = (hmac.new(secret.encode(), signed, hashlib.sha256).digest() for secret in secrets)
    return " ".join("v1," + b64encode(mac).decode() for mac in macs)


@dataclass(frozen=True)
class Attempt:
    """What the headers of one attempt say. `number` is 1 for the first; times are in seconds. `delivery` tells apart
    what one event is to several targets, `route` names the webhook route that it goes to."""

    account: str
    event: str
    number: int
    waited_s: int
    timestamp: int
    delivery: str = ""
    route: str = ""


def headers_of(attempt: Attempt, body: bytes, secrets: Sequence[str], target: Target) -> dict[str, str]:
    """The headers of one attempt. What customers add wins over ours, except where it would break the framing."""
    headers = {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "X-EE-Wh-Id": digest(attempt.account, attempt.delivery or attempt.event)[:16],
        "X-EE-Wh-Attempts-Made": str(attempt.number - 1),
        "X-EE-Wh-Queued-Time": f"{max(0, attempt.waited_s)}s",
        "X-EE-Wh-Event-Id": attempt.event,
        "X-EE-Wh-Signature": signature(body, secrets[0]),
        "webhook-id": attempt.event,
        "webhook-timestamp": str(attempt.timestamp),
        "webhook-signature": standard_signature(attempt.event, attempt.timestamp, body, secrets),
    }
    headers |= {"X-EE-Wh-Custom-Route": attempt.route} if attempt.route else {}
    added = {name: value for name, value in target.headers.items() if name.lower() not in FRAMING}
    taken = {name.lower() for name in added}
    return {name: value for name, value in headers.items() if name.lower() not in taken} | added
