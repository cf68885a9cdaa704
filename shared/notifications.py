"""Receives what Graph posts: verifies it without a storage read and turns it into queue messages.

This is on the path of Graph's three-second limit and of its handshake, so it imports the standard library alone.
The queue message's text starts with a tag, because the host re-writes text that looks like JSON
(functions-host.md 13).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TAG = "graph-notifications/1 "
LARGEST = 40_000  # bytes of one queue message; the limit is 49,152 before base64 (functions-host.md 15)
CHANGES = frozenset({"created", "updated", "deleted"})


@dataclass(frozen=True)
class Reply:
    """The answer to Graph, and the queue messages to write before it is given."""

    status: int
    body: str = ""
    messages: list[str] = field(default_factory=list)


def client_state(account: str, key: bytes) -> str:
    """The clientState of an account's subscription: proof that a notification is ours, without a read."""
    derived = hmac.new(key, b"graphpost/client-state", hashlib.sha256).digest()
    mac = hmac.new(derived, account.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return urlsafe_b64encode(mac).rstrip(b"=").decode()


def is_ours(account: str, presented: object, keys: Sequence[bytes]) -> bool:
    """Constant-time comparison under every key of the ring, so that rotation breaks no subscription."""
    return _is_one_of(presented, [client_state(account, key).encode() for key in keys])


def _is_one_of(presented: object, states: Sequence[bytes]) -> bool:
    text = presented if isinstance(presented, str) else ""
    given = text.encode("utf-8", "surrogatepass")
    return any([hmac.compare_digest(state, given) for state in states])  # noqa: C419


def receive(query: Mapping[str, str], body: bytes, keys: Sequence[bytes], *, lifecycle: bool) -> Reply:
    """What to answer and what to queue. A forged or unreadable entry is dropped and still answered 202
    (graph.md 10.5): an attacker learns nothing, and Graph does not repeat what can never be read."""
    if "validationToken" in query:
        return Reply(200, query["validationToken"])
    account = query.get("account", "")
    states = [client_state(account, key).encode() for key in keys] if account else []  # once, not for each entry
    entries = [e for e in _entries(body) if _is_one_of(e.get("clientState"), states)]
    items = [item for entry in entries if (item := _lifecycle(entry) if lifecycle else _change(entry))]
    return Reply(202, messages=_packed(account, "lifecycle" if lifecycle else "changes", items))


def parse(text: str) -> dict[str, Any]:
    """The content of a queue message made here: `{account, kind, items}`."""
    content: dict[str, Any] = json.loads(text.removeprefix(TAG))
    return content


def single(account: str, message_id: str, attempt: int = 0) -> str:
    """The text of a queue message that asks for one message again, `attempt` times so far."""
    content = {"account": account, "kind": "changes", "items": [["updated", message_id, ""]], "attempt": attempt}
    return TAG + json.dumps(content, separators=(",", ":"))


def again(content: dict[str, Any]) -> str:
    """The text of a queue message for the same content, one attempt later."""
    return TAG + json.dumps(content | {"attempt": content.get("attempt", 0) + 1}, separators=(",", ":"))


def _entries(body: bytes) -> list[dict[str, Any]]:
    try:
        value = json.loads(body)["value"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _change(entry: dict[str, Any]) -> list[str] | None:
    resource = entry.get("resourceData")
    message_id = resource.get("id") if isinstance(resource, dict) else None
    change = entry.get("changeType")
    if not isinstance(change, str) or not isinstance(message_id, str):
        return None
    if change not in CHANGES or not 0 < len(message_id) <= 1024:
        return None
    return [change, message_id, str(entry.get("subscriptionId") or "")[:128]]


def _lifecycle(entry: dict[str, Any]) -> list[str] | None:
    event = entry.get("lifecycleEvent")
    if not isinstance(event, str):
        return None
    return [event[:64], "", str(entry.get("subscriptionId") or "")[:128]]


def _packed(account: str, kind: str, items: list[list[str]]) -> list[str]:
    """The items once each, in as few messages as the queue's size limit allows."""
    packed: list[str] = []
    chunk: list[str] = []
    size = 0
    for item in dict.fromkeys(map(tuple, items)):
        written = json.dumps(item, separators=(",", ":"))  # ASCII only: a character is a byte
        size += len(written) + 1
        if size > LARGEST and chunk:
            packed.append(_message(account, kind, chunk))
            chunk, size = [], len(written) + 1
        chunk.append(written)
    return [*packed, _message(account, kind, chunk)] if chunk else packed


def _message(account: str, kind: str, written: list[str]) -> str:
    head = json.dumps({"account": account, "kind": kind}, separators=(",", ":"))
    return f'{TAG}{head[:-1]},"items":[{",".join(written)}]}}'
