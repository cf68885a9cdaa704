"""Whether a subscription really delivers: proven by any genuine notification, sought with a canary.

An account calls itself `push` only while the proof holds. It is withdrawn when a delta round had to tell what a
notification should have told minutes before.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import timedelta

from shared.accounts import Accounts, Reach, Record
from shared.canary import Canary
from shared.clock import Clock, iso, parse_time
from shared.errors import CredentialError, GraphFailure
from shared.hearing import PROOF_WITHIN, is_proven
from shared.subscriptions import Subscriptions

AGAIN_AFTER = timedelta(hours=1)


class Proof:
    """Notes, seeks and withdraws proofs."""

    def __init__(self, accounts: Accounts, subscriptions: Subscriptions, canary: Canary, clock: Clock) -> None:
        self._accounts, self._subscriptions = accounts, subscriptions
        self._canary, self._clock = canary, clock

    async def heard(self, record: Record, subscription_ids: Iterable[str]) -> None:
        """Genuine notifications came for these subscriptions. Costs nothing once the proof is noted."""
        current = (record.get("subscription") or {}).get("id")
        if is_proven(record) or current not in set(subscription_ids):
            return
        try:
            reach = await self._accounts.reading_reach(record)
        except CredentialError:
            return
        proof = {"for": current, "at": iso(self._clock())}
        proven = await self._subscriptions.tell(record["account"], reach, lambda r: r | {"proof": proof})
        if proven is not None:
            await self._clear(proven, reach)

    async def seek(self, record: Record, reach: Reach) -> Record:
        """Where a subscription is not proven: sends a canary, gives up on it after two minutes, and sends the next
        one an hour later. Where it is: removes what is left of one. The record as it is then."""
        current, canary = (record.get("subscription") or {}).get("id"), record.get("canary") or {}
        if not current or is_proven(record):
            return await self._clear(record, reach)
        # A time ahead of this clock was written by another one: it says nothing about the age.
        age = self._clock() - parse_time(canary["at"]) if canary else timedelta(0)
        if canary.get("for") != current or age >= AGAIN_AFTER or age < -PROOF_WITHIN:
            return await self._send(await self._clear(record, reach), reach, current)
        if canary["state"] == "waiting" and age >= PROOF_WITHIN:
            return await self._silent(record, reach)
        return record

    async def doubt(self, record: Record, reach: Reach, late: int) -> Record:
        """So many changes were told by a delta round that no notification told of in time: the proof no longer
        holds, and is sought anew."""
        account = record["account"]
        await self._accounts.count(account, late=late)
        return await self._subscriptions.tell(account, reach, lambda r: _without(r, "proof")) or record

    async def _send(self, record: Record, reach: Reach, current: str) -> Record:
        """The intent is stored first, so that a draft whose maker died is looked for and removed. Of several workers
        the one that stored it sends."""
        account, seen, by = record["account"], record.get("canary"), secrets.token_hex(4)
        intent = {"for": current, "at": iso(self._clock()), "state": "waiting", "id": "", "by": by}

        def claim(newest: Record) -> Record | None:
            return newest | {"canary": intent} if newest.get("canary") == seen else None

        claimed = await self._subscriptions.tell(account, reach, claim)
        if (claimed or {}).get("canary") != intent:
            return claimed or record
        try:
            sent = intent | {"id": await self._canary.send(account, reach)}
        except GraphFailure as failure:
            if failure.status != 403:
                return record | {"canary": intent}
            sent = intent | {"state": "passive"}  # may read but not write: the first change proves it
        stored = await self._subscriptions.tell(account, reach, lambda r: r | {"canary": sent})
        if stored is not None and is_proven(stored):
            return await self._clear(stored, reach)  # heard of before its id was stored
        return stored or record

    async def _silent(self, record: Record, reach: Reach) -> Record:
        canary = record["canary"]
        if not await self._removed(record, reach):
            return record
        silent = canary | {"state": "silent", "id": ""}
        return await self._subscriptions.tell(record["account"], reach, lambda r: r | {"canary": silent}) or record

    async def _clear(self, record: Record, reach: Reach) -> Record:
        """Removes a canary that has served, and its note."""
        if not record.get("canary") or not await self._removed(record, reach):
            return record
        return await self._accounts.change(record["account"], lambda r: _without(r, "canary")) or record

    async def _removed(self, record: Record, reach: Reach) -> bool:
        """True when no draft is left in the mailbox; False when Graph could not be asked, for a later turn."""
        canary = record["canary"]
        if canary["state"] != "waiting":
            return True
        try:
            await self._canary.remove(record["account"], reach, canary["id"])
        except (GraphFailure, CredentialError):
            return False
        return True

    async def leave(self, record: Record) -> None:
        """Removes a canary from the mailbox of an account that ends, as far as Graph can be reached."""
        if not record.get("canary"):
            return
        try:
            await self._removed(record, await self._accounts.reading_reach(record))
        except CredentialError:
            return


def _without(record: Record, name: str) -> Record:
    return {key: value for key, value in record.items() if key != name}
