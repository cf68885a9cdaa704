"""Flushing an account: what is known of its folders and messages is forgotten, and it starts over (emailengine.md 6.8).

The wish is kept on the record until all of it is done, and holds off a second one meanwhile. What was told before is
told again under new event ids where it falls into the new time: the time of the flush is part of every happening.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from shared.accounts import Accounts, Record
from shared.clock import Clock, iso
from shared.errors import ApiError, account_not_found

SOON_S = 3
LOCKED_FOR = timedelta(minutes=10)  # a flush that has not ended by then has lost its message
AGAIN_S = 5
Forget = Callable[[str], Awaitable[None]]


class Flushing:
    """Begins flushes and carries them out."""

    def __init__(self, accounts: Accounts, clock: Clock, forget: Sequence[Forget]) -> None:
        """`forget`: what removes the folders, cursors and markers of an account."""
        self._accounts, self._clock, self._forget = accounts, clock, forget

    async def begin(self, account: str, fields: dict[str, Any]) -> None:
        """Marks the account and queues the work; NotFound, or 429 while another flush is under way. `fields` may
        hold `notifyFrom` (now without it), `syncFrom` and `imapIndexer`."""
        now = self._clock()
        given = {name: value for name, value in fields.items() if value is not None}
        wish = {"id": secrets.token_hex(8), "until": iso(now + LOCKED_FOR), "fields": {"notifyFrom": iso(now)} | given}
        # Before the mark, so that what is marked is also done when this process dies.
        await self._accounts.queue_job(account, "flush", SOON_S, flush=wish["id"])

        def mark(record: Record) -> Record:
            if (record.get("flushing") or {}).get("until", "") > iso(now):
                return record
            return record | {"flushing": wish} | _connecting(record)

        marked = await self._accounts.change(account, mark)
        if marked is None:
            raise account_not_found()
        if marked["flushing"]["id"] != wish["id"]:
            text = "One flush operation at a time allowed, try again later"
            raise ApiError(429, text, "LockFail", {"Retry-After": str(AGAIN_S)})
        await self._accounts.queue_job(account, "flush", flush=wish["id"])

    async def work(self, account: str, flush: str) -> None:
        """Carries out one flush; nothing when it was done before. Each step may be repeated."""
        record = await self._accounts.find(account)
        if record is None or (record.get("flushing") or {}).get("id") != flush:
            return
        for forget in self._forget:
            await forget(account)
        await self._accounts.queue_job(account, "initialise", SOON_S)
        fields: Record = record["flushing"]["fields"]

        def done(current: Record) -> Record:
            if (current.get("flushing") or {}).get("id") != flush:
                return current
            kept = {name: value for name, value in current.items() if name not in ("flushing", "initialized")}
            news = {"flushed": flush, "heardUntil": min(fields["notifyFrom"], iso(self._clock()))}
            return kept | fields | news | _connecting(current)

        await self._accounts.change(account, done)
        await self._accounts.queue_job(account, "initialise")


def _connecting(record: Record) -> Record:
    """While it is flushed nothing new is looked at; an account without credentials has nothing to connect with."""
    return {} if record["state"] == "unset" else {"state": "connecting"}
