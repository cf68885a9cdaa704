"""What access tokens are used for: their rate limits and the audit log (emailengine.md 3).

A limit holds over all instances, so its count stands in storage. A process takes calls from it a twentieth at a time
and hands them out from memory: a token with a large limit then costs little, one with a small limit is counted call by
call. Never more calls are let through than the limit says; what a process took and did not use is lost with the window.
"""

from __future__ import annotations

import math
import re
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from shared.clock import Clock, iso
from shared.errors import ApiError, StorageConflict
from shared.storage.tables import Row, Table

RATE = "rate"
LOG, _LOG_END = "log~", "log~~"
SHARE = 20  # of a limit's calls are taken at once
TRIES = 20
MOST_LEASES = 5000
SHOWN = 1000  # entries that are kept of one token
KEPT_FOR = timedelta(days=30)
LONGEST_PATH = 1024
_LATEST_MS = 10**15  # keys count down from here, so that the newest entry comes first
_TOKEN = re.compile(r"(?<=/)[0-9a-f]{64}(?=/|$)")


@dataclass(frozen=True)
class RateLimit:
    """A limit and whose calls count towards it: a token's own, or that of the token it was made with."""

    key: str
    most: int
    window_s: int


@dataclass(frozen=True)
class Allowance:
    """What is left of a limit in the window that runs."""

    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """The three fields of a limited token's answers (1.2)."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_s),
        }


@dataclass
class _Lease:
    """Calls that this process may let through: `left` of the `taken` that all processes together took so far."""

    start: float
    taken: int
    left: int


class TokenUse:
    """Counts and logs the calls of access tokens."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table, self._clock = table, clock
        self._leases: dict[str, _Lease] = {}

    # -- rate limits ---------------------------------------------------------------------------------------

    async def spend(self, limit: RateLimit) -> Allowance:
        """Lets one call through; 429 when the window has no more. No transaction while the process has calls left,
        and none for calls that are refused."""
        now = self._clock().timestamp()
        lease = self._leases.get(limit.key)
        if lease is None or not _runs(lease.start, limit, now) or (lease.left <= 0 and lease.taken < limit.most):
            lease = await self._take(limit, now)
        reset_s = min(max(1, math.ceil(lease.start + limit.window_s - now)), limit.window_s)
        if lease.left <= 0:
            raise _exceeded(limit, reset_s)
        lease.left -= 1
        return Allowance(limit.most, limit.most - lease.taken + lease.left, reset_s)

    async def _take(self, limit: RateLimit, now: float) -> _Lease:
        """The lease with some more calls, as far as there are any."""
        for _ in range(TRIES):
            row = await self._table.get(limit.key, RATE)
            start, taken = (row.value["start"], row.value["taken"]) if row else (now, 0)
            if not _runs(start, limit, now):
                start, taken = now, 0
            wanted = min(max(1, limit.most // SHARE), limit.most - taken)
            if wanted <= 0:
                return self._lease(limit, start, taken, 0)
            value = {"start": start, "taken": taken + wanted, "until": start + limit.window_s}
            try:
                if row is None:
                    await self._table.insert(Row(limit.key, RATE, value))
                else:
                    await self._table.replace(Row(limit.key, RATE, value, row.etag))
            except StorageConflict:
                continue
            return self._lease(limit, start, taken + wanted, wanted)
        raise _exceeded(limit, 1)  # so many at once that the count itself is the limit

    def _lease(self, limit: RateLimit, start: float, taken: int, more: int) -> _Lease:
        """Read anew: other calls of this process may have taken some while this one waited for storage."""
        known = self._leases.get(limit.key)
        if known is None or known.start != start:
            if len(self._leases) >= MOST_LEASES:
                self._leases.clear()
            known = self._leases[limit.key] = _Lease(start, 0, 0)
        known.taken = max(known.taken, taken)
        known.left += more
        return known

    # -- the log -------------------------------------------------------------------------------------------

    async def note(self, token: str, entry: dict[str, Any]) -> None:
        """Adds an entry to a token's log. One transaction."""
        now = self._clock()
        key = f"{LOG}{_LATEST_MS - int(now.timestamp() * 1000):015d}~{secrets.token_hex(4)}"
        path = _TOKEN.sub("******", entry["path"])[:LONGEST_PATH]  # an id or a token, nobody can tell
        await self._table.insert(Row(token, key, entry | {"time": iso(now), "path": path}))

    async def entries(self, token: str) -> list[dict[str, Any]]:
        """The newest entries of a token's log, newest first."""
        query = "PartitionKey eq @p and RowKey ge @f and RowKey lt @t"
        given = {"p": token, "f": LOG, "t": _LOG_END}
        return [row.value async for row in self._table.scan(query, given, SHOWN)]

    # -- upkeep --------------------------------------------------------------------------------------------

    async def forget(self, token: str) -> None:
        """Removes what is kept of a deleted token."""
        self._leases.pop(token, None)
        await self._table.clear(token)

    async def sweep(self, known: Callable[[], Awaitable[set[str]]]) -> int:
        """Cuts each log to its newest entries and its age, and removes what is kept of tokens that are not `known`,
        which is asked after looking, so that none made meanwhile is taken for gone."""
        oldest = f"{LOG}{_LATEST_MS - int((self._clock() - KEPT_FOR).timestamp() * 1000):015d}"
        kept: dict[str, list[str]] = defaultdict(list)
        for partition, key in await self._table.keys():
            kept[partition].append(key)
        tokens, removed = await known(), 0
        for token, keys in kept.items():
            logged = sorted(key for key in keys if key.startswith(LOG))
            gone = [key for place, key in enumerate(logged) if place >= SHOWN or key > oldest]
            gone = gone if token in tokens else keys
            await self._table.delete_all(token, gone)
            removed += len(gone)
        return removed


def _runs(start: float, limit: RateLimit, now: float) -> bool:
    """Whether a window that began then is still the one in force. One from the future was noted by a wrong clock."""
    return start - limit.window_s <= now < start + limit.window_s


def _exceeded(limit: RateLimit, reset_s: int) -> ApiError:
    headers = {"X-RateLimit-Limit": str(limit.most), "X-RateLimit-Reset": str(reset_s), "Retry-After": str(reset_s)}
    return ApiError(429, "Rate limit exceeded", headers=headers, ttl=reset_s)
