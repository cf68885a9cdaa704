"""Log lines of single accounts, for those that ask for it (`logs: true`, emailengine.md 6.1, 19.4).

A line says what was called and what came of it: never a body, a secret or a query. Lines are kept in memory until the
job or the call that wrote them is over, and then written together, so that an account without logs costs nothing and
one with logs a transaction for each job.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from shared.accounts import Record, lane_of
from shared.clock import Clock, iso
from shared.service_settings import ServiceSettings
from shared.storage.keys import storable
from shared.storage.tables import Row, Table

MOST_LINES = 10_000
LINES_AT_ONCE = 500  # of one job; the rest is counted
LONGEST = 500  # characters of one value
KEPT_FOR = timedelta(days=30)
MOST_KNOWN = 5000
_LATEST_MS = 10**15  # keys count down from here, so that the newest lines come first
_TIME = len('{"time": "2026-01-01T00:00:00.000Z"')
_OWNER = re.compile(r"^/(me|users/[^/]+)(?=/|$)")
log = logging.getLogger("graphpost.account_logs")


class AccountLogs:
    """Writes and shows the lines."""

    def __init__(self, table: Table, settings: ServiceSettings, clock: Clock) -> None:
        self._table, self._settings, self._clock = table, settings, clock
        self._lanes: dict[str, str] = {}  # of the accounts with logs that this process has met
        self._accounts: dict[str, str] = {}  # and the other way round
        self._waiting: defaultdict[str, list[str]] = defaultdict(list)

    # -- writing -------------------------------------------------------------------------------------------

    def meet(self, record: Record) -> None:
        """Called with each record that is read: from now on its lines are kept, or no longer."""
        account = record["account"]
        if not record.get("deleting") and (record.get("logs") or self._rules().get("all")):
            if len(self._lanes) >= MOST_KNOWN:
                self._lanes.clear()
                self._accounts.clear()
            self._lanes[account] = lane_of(record)
            self._accounts[self._lanes[account]] = account
        elif account in self._lanes:
            self._accounts.pop(self._lanes.pop(account), None)

    def add(self, account: str, message: str, **fields: Any) -> None:
        """One line, if the account keeps any."""
        if account not in self._lanes:
            return
        lines = self._waiting[account]
        if len(lines) < LINES_AT_ONCE:
            shown = {"time": iso(self._clock()), "msg": message}
            shown |= {name: _short(value) for name, value in fields.items() if value is not None}
            lines.append(json.dumps(shown, ensure_ascii=False))

    def add_call(self, lane: str, method: str, request: Any, status: int, code: str, ms: int) -> None:
        """One call of Graph for the mailbox of this lane. Only the path is kept, and of it what is behind the owner."""
        if account := self._accounts.get(lane):
            path = urlsplit(request.url).path.partition("/v1.0")[2]
            path = _OWNER.sub("", path) or "/"
            self.add(account, "graph call", method=method, path=path, status=status, code=code or None, ms=ms)

    async def save(self) -> None:
        """Writes the lines that wait. Never fails: whose lines they are has done its work."""
        while self._waiting:
            account, lines = self._waiting.popitem()
            key = f"{_LATEST_MS - int(self._clock().timestamp() * 1000):015d}~{secrets.token_hex(4)}"
            try:
                await self._table.insert(Row(storable(account), key, {"lines": lines}))
            except Exception as problem:
                log.warning("log lines were not saved: %s", type(problem).__name__)

    # -- reading -------------------------------------------------------------------------------------------

    async def lines(self, account: str) -> list[str]:
        """The newest lines, oldest first, as many as the setting `logs.maxLogLines` says."""
        most = self._rules(await self._settings.all()).get("maxLogLines", MOST_LINES)
        found: list[str] = []
        if most:
            async for row in self._table.scan("PartitionKey eq @p", {"p": storable(account)}):
                found += reversed(row.value["lines"])
                if len(found) >= most:
                    break
        # Jobs run side by side and write when they end; a line begins with its time.
        newest = found[:most][::-1]
        newest.sort(key=lambda line: line[:_TIME])
        return newest

    def _rules(self, settings: dict[str, Any] | None = None) -> dict[str, Any]:
        values = self._settings.known if settings is None else settings
        return values.get("logs") or {}

    # -- upkeep --------------------------------------------------------------------------------------------

    async def forget(self, account: str) -> None:
        """Removes the lines of a deleted account."""
        self._waiting.pop(account, None)
        self._accounts.pop(self._lanes.pop(account, ""), None)
        await self._table.clear(storable(account))

    async def sweep(self, known: Callable[[], Awaitable[set[str]]]) -> int:
        """Removes what is too old or too much, and the lines of accounts that are gone; how many rows. `known` gives
        the partitions of all accounts and is asked after looking."""
        oldest = f"{_LATEST_MS - int((self._clock() - KEPT_FOR).timestamp() * 1000):015d}"
        most = self._rules(await self._settings.all()).get("maxLogLines", MOST_LINES)
        kept: dict[str, list[str]] = defaultdict(list)
        for partition, key in await self._table.keys():
            kept[partition].append(key)
        accounts, removed = await known() if kept else set(), 0
        for partition, keys in kept.items():
            gone = [key for place, key in enumerate(sorted(keys)) if place >= most or key > oldest]
            gone = gone if partition in accounts else keys
            await self._table.delete_all(partition, gone)
            removed += len(gone)
        return removed


def _short(value: Any) -> Any:
    return value if isinstance(value, int) else str(value)[:LONGEST]
