"""Token records: what is stored of a credential holder, sealed, and whose turn it is to renew it.

A renewal is claimed on the record before the login service is asked, so that many processes that find the same
token too old ask once. The claim is part of the record's version: a sign-in or a deletion in the middle takes it
away, and the renewal's own write then fails. A claim whose process died ends by itself.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from shared import login_failures
from shared.clock import Clock, iso, parse_time
from shared.errors import RecordDamaged, StorageConflict
from shared.sealed import CREDENTIALS, Resealer
from shared.storage.tables import Row, Table
from shared.vault import KeyMissing, SealBroken, Vault

KEY = "cache"
MARGIN = timedelta(minutes=5)  # MSAL too takes a token with less left as expired (graph.md 13.5)
LAST_USE = timedelta(seconds=30)  # a token with less left may end on its way to Graph
CLAIM_S = 40  # more than a request for a token takes: two time-outs of 15 s
LOOKS_S = (0.1, 0.2, 0.4, 0.8)  # pauses while somebody else renews; the last one repeats
Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True)
class AccessToken:
    """A bearer token and the time up to which it is used."""

    value: str = field(repr=False)
    ends: datetime

    def is_fresh(self, now: datetime) -> bool:
        """True while nobody need think of renewing it."""
        return now + MARGIN < self.ends

    def is_valid(self, now: datetime) -> bool:
        """True while it can still be used, for instance until somebody else has renewed it."""
        return now + LAST_USE < self.ends


@dataclass
class Stored:
    """The content of a holder's record: sealed, but for the claim on it."""

    cache: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    ends: str = ""
    imported: dict[str, str] = field(default_factory=dict, repr=False)
    scope: list[str] = field(default_factory=list)
    row: Row | None = field(default=None, repr=False)

    def current(self) -> AccessToken | None:
        """The stored access token, however old."""
        return AccessToken(self.token, parse_time(self.ends)) if self.token else None

    @property
    def claim(self) -> dict[str, str]:
        """Who renews it, and until when: `{by, until}`; empty when nobody does."""
        return (self.row.value.get("renewing") if self.row else None) or {}


class TokenRecords:
    """Reads and writes token records."""

    def __init__(
        self, table: Table, vault: Vault, clock: Clock, resealer: Resealer | None = None, pause: Pause = asyncio.sleep
    ) -> None:
        self._table, self._vault, self._clock, self._pause = table, vault, clock, pause
        self._resealer = resealer or Resealer(vault)

    async def load(self, key: str) -> Stored:
        """What is stored; CredentialError when it can not be opened, saying why and what to do."""
        try:
            row = await self._table.get(key, KEY)
            if row is None:
                return Stored()
            content = json.loads(self._vault.open(row.value.get("sealed") or "", CREDENTIALS.place(row)))
        except KeyMissing as problem:
            raise login_failures.unreadable(str(problem), "Put the key back into KEY_RING. Otherwise: ") from None
        except (SealBroken, RecordDamaged) as problem:
            raise login_failures.unreadable(str(problem)) from None
        if not row.value.get("renewing"):  # else the write would take the claim away from who renews it
            row = await self._resealer.renewed(self._table, row, CREDENTIALS)
        return Stored(**content, row=row)

    async def put(self, key: str, stored: Stored) -> None:
        """Stores over whatever was there, claims on it included."""
        await self._table.put(Row(key, KEY, self._sealed(key, stored)))

    async def delete(self, key: str) -> None:
        await self._table.delete(key, KEY)

    # -- renewing ------------------------------------------------------------------------------------------

    async def claim(self, key: str, stored: Stored) -> Stored | None:
        """The right to renew what was loaded; None when somebody else has it."""
        now = self._clock()
        if stored.claim and now < parse_time(stored.claim["until"]) < now + timedelta(seconds=2 * CLAIM_S):
            return None
        mine = {"by": secrets.token_hex(8), "until": iso(now + timedelta(seconds=CLAIM_S))}
        value = self._sealed(key, stored) | {"renewing": mine}
        row = await self._write(stored, Row(key, KEY, value))
        if row is not None:
            return replace(stored, row=row)
        found = await self.load(key)
        # The storage client repeats a write whose answer was lost, and then meets what it wrote itself.
        return found if found.claim == mine else None

    async def settle(self, key: str, claimed: Stored, fresh: Stored) -> bool:
        """Stores what was renewed under the claim. False when the record changed meanwhile: somebody signed in
        anew, the account was deleted, or the claim had run out."""
        return await self._write(claimed, Row(key, KEY, self._sealed(key, fresh))) is not None

    async def release(self, key: str, claimed: Stored) -> bool:
        """Gives the claim back after a failure. False when the record changed meanwhile."""
        return await self._write(claimed, Row(key, KEY, self._sealed(key, claimed))) is not None

    async def wait(self, key: str, seen: Stored) -> None:
        """Returns when the record is another than the one seen, or when its claim must have run out by any clock."""
        waited = 0.0
        for turn in range(1000):
            step = LOOKS_S[min(turn, len(LOOKS_S) - 1)]
            await self._pause(step)
            waited += step
            found = await self.load(key)
            if waited >= CLAIM_S or _version(found) != _version(seen):
                return

    async def _write(self, seen: Stored, row: Row) -> Row | None:
        """The row as stored over the version seen; None when it is another by now."""
        try:
            if seen.row is None:
                return await self._table.insert(row)
            return await self._table.replace(replace(row, etag=seen.row.etag))
        except StorageConflict:
            return None

    def _sealed(self, key: str, stored: Stored) -> dict[str, Any]:
        content = {
            "cache": stored.cache,
            "token": stored.token,
            "ends": stored.ends,
            "imported": stored.imported,
            "scope": stored.scope,
        }
        sealed = self._vault.seal(json.dumps(content).encode(), CREDENTIALS.place(Row(key, KEY, {})))
        return {"sealed": sealed, "at": iso(self._clock())}


def _version(stored: Stored) -> str:
    return stored.row.etag if stored.row else ""
