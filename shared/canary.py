"""The canary: a draft of our own whose notification proves that a subscription delivers.

Its subject carries a stamp that only this service can make, and only a draft is taken for one, so that nobody can
hide a mail from the events by making up a subject. It is erased as soon as it was heard of, and is never reported
itself: not by the account that made it, nor by another account with the same mailbox.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

from shared.access import Access
from shared.accounts import Reach
from shared.drafts import erase
from shared.graph import requests
from shared.markers import Markers
from shared.vault import derive, encode

SUBJECT = "Graphpost delivery check "
BODY = "This draft checks that Microsoft 365 announces changes of this mailbox. It is removed within minutes."


def stamp(account: str, key: bytes) -> str:
    """The subject of the account's canary: whose it is, without telling the name, and the proof that it is ours."""
    return _signed(encode(_mac(derive(key, "canary"), account)[:9]), key)


def _signed(owner: str, key: bytes) -> str:
    return f"{SUBJECT}{owner}.{encode(_mac(derive(key, 'canary'), f'owner {owner}')[:15])}"


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


class Canary:
    """Sends, knows and removes canaries."""

    def __init__(self, access: Access, markers: Markers, key_ring: Sequence[tuple[str, bytes]]) -> None:
        self._access, self._markers = access, markers
        self._keys = [key for _, key in key_ring]

    def is_one(self, message: dict[str, Any]) -> bool:
        """True for a draft that this service stamped for whatever account, under any key of the ring."""
        subject = message.get("subject") or ""
        if not message.get("isDraft") or not subject.startswith(SUBJECT):
            return False
        given = subject.encode("utf-8", "surrogatepass")
        owner = subject.removeprefix(SUBJECT).partition(".")[0]
        stamps = [_signed(owner, key).encode("utf-8", "surrogatepass") for key in self._keys]
        return any([hmac.compare_digest(one, given) for one in stamps])  # noqa: C419

    async def send(self, account: str, reach: Reach) -> str:
        """Makes the draft; its message id, noted as ours. Two Graph calls at most. Raises GraphFailure (403 where
        the token may not write) or CredentialError."""
        draft = {"subject": stamp(account, self._keys[0]), "body": {"contentType": "text", "content": BODY}}
        body = json.dumps(draft).encode()
        made = await self._access.call(reach, lambda c: requests.create_draft(c, reach.mailbox, body, structured=True))
        message_id = str(made.json()["id"])
        await self._markers.note_canary(account, message_id)
        return message_id

    async def remove(self, account: str, reach: Reach, message_id: str) -> None:
        """Erases a canary; without an id, whatever a process left behind that died while it made one."""
        found = [message_id] if message_id else await self._strays(account, reach)
        for one in found:
            await self._markers.note_canary(account, one)
            await erase(self._access, reach, one)

    async def _strays(self, account: str, reach: Reach) -> list[str]:
        found: list[str] = []
        for key in self._keys:
            subject = stamp(account, key)
            answer = await self._access.call(reach, lambda c, s=subject: requests.with_subject(c, reach.mailbox, s))  # type: ignore[misc]
            found += [one["id"] for one in answer.json().get("value", ()) if self.is_one(one)]
        return found
