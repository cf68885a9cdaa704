"""Sealing everything anew under the newest key: a job in small steps, with its progress in a record.

A step works off one page of one table, stores where the run stands, and queues the next step. A step that comes
twice finds that the run has moved on; one that died is done again. When a run has finished, `keys` says how many
values are still under which key, so that an operator sees when an old key may leave KEY_RING.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from shared.clock import Clock, iso, parse_time
from shared.errors import RecordDamaged, StorageConflict
from shared.sealed import ACCOUNT, EVERYWHERE, Resealer, Sealed
from shared.storage.queues import Queues
from shared.storage.tables import Row, Table
from shared.vault import SealBroken, Vault, key_of

QUEUE = "mailboxes"
PARTITION, KEY = "settings", "reseal"
PAGE = 100
SHOWN = 100  # damaged records that are named; more are only counted
STALLED = timedelta(seconds=60)  # a run that stood still for so long has lost its message
TRIES = 3


@dataclass
class Tally:
    """What one page came to."""

    seen: int = 0
    resealed: int = 0
    damaged: list[dict[str, str]] = field(default_factory=list)
    keys: Counter[str] = field(default_factory=Counter)

    def break_off(self, table: str, partition: str, key: str) -> None:
        self.damaged.append({"table": table, "record": f"{partition}/{key}"})


class Resealing:
    """Starts, carries out and shows runs. At most one runs at a time."""

    def __init__(
        self, tables: Mapping[str, Table], vault: Vault, resealer: Resealer, queues: Queues, clock: Clock
    ) -> None:
        self._tables, self._vault, self._resealer = tables, vault, resealer
        self._queues, self._clock = queues, clock

    # -- for operators -------------------------------------------------------------------------------------

    async def start(self) -> dict[str, Any]:
        """Begins a run, or gives the one that runs a push; its progress."""
        row = await self._row()
        if row is None or row.value["state"] != "running":
            row = await self._begin(row)
            await self._queue(row.value)
        else:
            await self._push(row.value)
        return _view(row.value)

    async def progress(self) -> dict[str, Any]:
        """`{state, started, finished, seen, resealed, damaged, damagedTotal, keys}`; state `idle` before the first
        run."""
        row = await self._row()
        return _view(row.value if row else {})

    async def take_up(self) -> bool:
        """Goes on with a run whose message was lost; True when there was one."""
        row = await self._row()
        return row is not None and row.value["state"] == "running" and await self._push(row.value)

    async def _row(self) -> Row | None:
        try:
            return await self._tables["settings"].get(PARTITION, KEY)
        except RecordDamaged:
            await self._tables["settings"].delete(PARTITION, KEY)  # progress alone is lost with it
            return None

    async def _begin(self, before: Row | None) -> Row:
        now = iso(self._clock())
        value: dict[str, Any] = {
            "run": secrets.token_hex(8), "state": "running", "started": now, "at": now, "finished": None, "step": 0,
            "stage": 0, "after": "", "seen": 0, "resealed": 0, "damaged": [], "damagedTotal": 0, "keys": {},
        }  # fmt: skip
        table = self._tables["settings"]
        try:
            if before is None:
                return await table.insert(Row(PARTITION, KEY, value))
            return await table.replace(Row(PARTITION, KEY, value, before.etag))
        except StorageConflict:
            return await self._row() or Row(PARTITION, KEY, value)  # somebody else began one at the same moment

    # -- steps ---------------------------------------------------------------------------------------------

    async def step(self, job: dict[str, Any]) -> None:
        """One page, if the run has not come further already."""
        row = await self._row()
        if row is None or row.value["run"] != job["run"] or row.value["state"] != "running":
            return
        if row.value["step"] != job["step"]:
            await self._push(row.value)  # dead between storing this step and queueing the next, perhaps
            return
        after = await self._page(row.value)
        try:
            await self._tables["settings"].replace(Row(PARTITION, KEY, after, row.etag))
        except StorageConflict:
            stored = await self._row()
            if stored is None or stored.value != after:
                return  # this step's double was faster; else it was our own write, repeated after a lost answer
        if after["state"] == "running":
            await self._queue(after)

    async def _page(self, state: dict[str, Any]) -> dict[str, Any]:
        """Where the run stands after the page at its place."""
        kind = EVERYWHERE[state["stage"]]
        table, tally = self._tables[kind.table], Tally()
        rows, damaged, following = await table.page(state["after"], PAGE, kind.query)
        for row in rows:
            await self._value(table, row, kind, tally)
            if kind is ACCOUNT:
                await self._subscription(row, tally)
        for partition, key in damaged:
            tally.break_off(kind.table, partition, key)
        return self._advanced(state, tally, following)

    def _advanced(self, state: dict[str, Any], tally: Tally, following: str) -> dict[str, Any]:
        stage = state["stage"] + (not following)
        ended = stage == len(EVERYWHERE)
        now = iso(self._clock())
        counted = {
            "seen": state["seen"] + tally.seen,
            "resealed": state["resealed"] + tally.resealed,
            "damaged": (state["damaged"] + tally.damaged)[:SHOWN],
            "damagedTotal": state["damagedTotal"] + len(tally.damaged),
            "keys": dict(Counter(state["keys"]) + tally.keys),
        }
        place = {"stage": stage, "after": following, "step": state["step"] + 1, "at": now, "by": secrets.token_hex(8)}
        return state | counted | place | ({"state": "finished", "finished": now} if ended else {})

    async def _value(self, table: Table, row: Row, kind: Sealed, tally: Tally) -> None:
        """One value: what others write to at the same moment is read again."""
        found: Row | None = row
        for _ in range(TRIES):
            if found is None or not found.value.get(kind.field):
                return
            try:
                if self._resealer.is_stale(found, kind):
                    found = await self._resealer.write(table, found, kind)
                    tally.resealed += 1
                else:
                    self._vault.open(found.value[kind.field], kind.place(found))
                break
            except SealBroken:
                tally.break_off(kind.table, found.partition, found.key)
                break
            except StorageConflict:
                found = await table.get(row.partition, row.key)
        if found is not None:
            tally.seen += 1
            tally.keys[key_of(found.value.get(kind.field)) or "none"] += 1

    async def _subscription(self, row: Row, tally: Tally) -> None:
        """Notifications are proven with a key of the ring as well: a subscription under an older one is made anew,
        which the account's own job does."""
        subscription = row.value.get("subscription") or {}
        name = (row.value.get("subscribed") or {}).get("key")
        if not subscription.get("id") or row.value.get("deleting") or name == self._vault.newest:
            return
        tally.keys[name or "none"] += 1
        await self._queues.put(QUEUE, {"account": row.value["account"], "do": "subscribe"})

    # -- messages ------------------------------------------------------------------------------------------

    async def _queue(self, state: dict[str, Any]) -> None:
        job = {"account": "", "do": "reseal", "run": state["run"], "step": state["step"]}
        await self._queues.put(QUEUE, job)

    async def _push(self, state: dict[str, Any]) -> bool:
        """Queues the next step again, unless the run has just moved."""
        stalled = self._clock() - parse_time(state["at"]) >= STALLED
        if stalled:
            await self._queue(state)
        return stalled


def _view(state: dict[str, Any]) -> dict[str, Any]:
    return {
        "state": state.get("state", "idle"),
        "started": state.get("started"),
        "finished": state.get("finished"),
        "seen": state.get("seen", 0),
        "resealed": state.get("resealed", 0),
        "damaged": state.get("damaged", []),
        "damagedTotal": state.get("damagedTotal", 0),
        "keys": state.get("keys", {}),
    }
