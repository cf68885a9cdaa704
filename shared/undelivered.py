"""Events that did not go out: *held* for a paused endpoint, or *dead*, kept to be looked at and replayed.

The event's own record holds the truth (state and reason); a second small table finds such records without reading
all the others: one partition of dead letters, one for each endpoint that something is held for, both in the order in
which the events happened. The record is written before its entry. An entry that is missing is written again when the
queue message comes back, or by the hourly sweep; one that is too many is removed when it is met. So the whole table may
be lost, and no event is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from shared.clock import Clock, iso, parse_time
from shared.damaged_events import DEAD_PARTITION, DamagedEvents
from shared.endpoints import PROBE_EVERY, Endpoints
from shared.errors import RecordDamaged, StorageConflict
from shared.event_contents import EventContents
from shared.events import DEAD, DISCARDED, HELD, QUEUE, QUEUED, delivery_job, id_of
from shared.storage.keys import storable, time_key
from shared.storage.queues import Queues
from shared.storage.tables import Row, Table

BATCH = 100  # put back on the queue in one call or queue message; a job goes on with the rest
STALE_AFTER = timedelta(hours=1)
PROBE_LOST_AFTER = timedelta(minutes=15)
_HELD_PREFIX = "held~"
_HELD, _HELD_SPAN = "PartitionKey ge @f and PartitionKey lt @t", {"f": _HELD_PREFIX, "t": "held~~"}


def parked(row: Row, state: str, endpoint: str, error: dict[str, Any], now: datetime, **columns: Any) -> Row:
    """The event's record as held or dead, with the reason."""
    noted = {"endpoint": endpoint, "at": iso(now), "error": error}
    return Row(
        row.partition,
        row.key,
        row.value | {"parked": noted},
        row.etag,
        row.columns | {"state": state, "until": iso(now), **columns},
    )


class Undelivered:
    """Lists, replays, holds and releases events that did not go out."""

    def __init__(
        self,
        index: Table,
        events: Table,
        endpoints: Endpoints,
        queues: Queues,
        clock: Clock,
        contents: EventContents,
    ) -> None:
        self._index, self._events, self._endpoints, self._contents = index, events, endpoints, contents
        self._queues, self._clock = queues, clock
        self.damaged = DamagedEvents(index, events, clock)

    async def enter(self, row: Row) -> None:
        """Makes the entry of a held or dead event; again does no harm."""
        await self._index.put(_entry(row))

    # -- dead letters ----------------------------------------------------------------------------------------

    async def dead(self, account: str | None = None) -> list[dict[str, Any]]:
        """The dead letters, of one account or all, in the order in which they happened; without payloads."""
        query, given = _wanted(account, None, None)
        return [_view(row) async for row in self._index.scan(query, given)]

    async def find(self, event: str) -> dict[str, Any] | None:
        """One dead letter with its payload. RecordDamaged when that cannot be read."""
        entry = await self.damaged.entry(event)
        row = await self._events.get(*_place(entry)) if entry else None
        if entry is None or row is None or row.columns["state"] != DEAD:
            return None
        return _view(_entry(row)) | {"payload": await self._contents.whole(row)}

    async def replay_one(self, event: str) -> bool:
        """Puts one dead letter back on the queue, its attempts counted anew; False when there is none. RecordDamaged
        when its record cannot be read."""
        entry = await self.damaged.entry(event)
        if entry is None:
            return False
        await self._events.get(*_place(entry))
        return await self._requeue(entry, DEAD)

    async def replay(
        self, *, account: str | None = None, endpoint: str | None = None, since: str | None = None, after: str = ""
    ) -> tuple[int, bool]:
        """Puts dead letters that happened at `since` or later back on the queue: as many as fit into one call, a
        queue job does the rest. The number, and whether a job goes on."""
        query, given = _wanted(account, endpoint, since, after)
        entries = [row async for row in self._index.scan(query, given, BATCH)]
        replayed = 0
        for entry in entries:
            replayed += await self._requeue(entry, DEAD)
        if len(entries) == BATCH:
            rest = {"account": account, "endpoint": endpoint, "since": since, "after": entries[-1].key}
            await self._queues.put(QUEUE, {"do": "replay", **rest})
        return replayed, len(entries) == BATCH

    async def discard(self, event: str) -> bool:
        """Drops one dead letter and its payload; False when there is none. The bare record stays, so that the same
        happening is not told a second time."""
        entry = await self.damaged.entry(event)
        if entry is None:
            return False
        try:
            row = await self._events.get(*_place(entry))
        except RecordDamaged:
            await self.damaged.empty(entry)
            return await self.discard(event)
        if row is not None and row.columns["state"] == DEAD:
            try:
                await self._events.replace(_bare(row))
            except StorageConflict:
                return await self.discard(event)  # replayed at the same moment, or our own write repeated
            await self._contents.drop(row)
        await self._index.delete(entry.partition, entry.key)
        return row is not None and row.columns["state"] in (DEAD, DISCARDED)

    # -- held events -----------------------------------------------------------------------------------------

    async def work(self, job: dict[str, Any]) -> None:
        """One step of a job that this module or the API put on the queue."""
        if job["do"] == "replay":
            wanted = {name: job.get(name) for name in ("account", "endpoint", "since")}
            await self.replay(**wanted, after=job["after"])
        elif job["do"] == "release":
            await self._release(job["endpoint"], job.get("after", ""), bool(job.get("moved")))
        elif job["do"] == "probe":
            await self._probe(job["endpoint"])

    async def start_release(self, endpoint: str, *, moved: bool = False) -> None:
        """Lets everything go that is held for an endpoint. `moved`: although it is paused, because its accounts
        name another target now; what still leads there is held again."""
        await self._queues.put(QUEUE, {"do": "release", "endpoint": endpoint, "moved": moved})

    async def start_probe(self, endpoint: str, delay_s: float = 0) -> None:
        """Begins, or goes on with, the hourly probes of a paused endpoint."""
        await self._queues.put(QUEUE, {"do": "probe", "endpoint": endpoint}, delay_s)

    async def _release(self, endpoint: str, after: str, moved: bool) -> None:
        if not moved and (await self._endpoints.newest(endpoint)).is_paused:
            return
        entries = [row async for row in self._held(endpoint, after, BATCH)]
        for entry in entries:
            await self._requeue(entry, HELD)
        if len(entries) == BATCH:
            job = {"do": "release", "endpoint": endpoint, "moved": moved, "after": entries[-1].key}
            await self._queues.put(QUEUE, job)

    async def _probe(self, endpoint: str) -> None:
        """Lets the oldest held event through to see whether the endpoint answers again."""
        if not await self._endpoints.begin_probe(endpoint):
            return  # resumed, or another message was first
        await self.start_probe(endpoint, PROBE_EVERY.total_seconds())
        async for entry in self._held(endpoint):
            if await self._requeue(entry, HELD, probe=endpoint):
                return

    async def _held(self, endpoint: str, after: str = "", limit: int | None = None) -> AsyncIterator[Row]:
        query = "PartitionKey eq @p and RowKey gt @a"
        async for row in self._index.scan(query, {"p": _HELD_PREFIX + endpoint, "a": after}, limit):
            yield row

    async def held(self) -> dict[str, int]:
        """How many events are held for each endpoint that something is held for."""
        counts: dict[str, int] = {}
        async for row in self._index.scan(_HELD, _HELD_SPAN, only=()):
            endpoint = row.partition.removeprefix(_HELD_PREFIX)
            counts[endpoint] = counts.get(endpoint, 0) + 1
        return counts

    # -- both ------------------------------------------------------------------------------------------------

    async def revive(self, partition: str, key: str) -> None:
        """Puts one held event back on the queue, because one that happened later is waiting for it."""
        row = await self.damaged.read(partition, key)
        if row is not None and row.columns["state"] == HELD:
            await self._requeue(_entry(row), HELD)

    async def _requeue(self, entry: Row, state: str, **more: Any) -> bool:
        """Queued again, from this state; True when it was. The entry goes before the message comes: a delivery that
        fails at once would make it anew. Dying in between, the hourly look finds the queued record. A damaged one is a
        dead letter and stays one."""
        account, key = entry.value["account"], entry.value["key"]
        try:
            row = await self._events.get(*_place(entry))
        except RecordDamaged:
            row = await self.damaged.read(*_place(entry), entry)
            if state == DEAD:
                return False
        if row is not None and row.columns["state"] == state:
            row = await self._back_to_queued(row)
        queued = row is not None and row.columns["state"] == QUEUED
        await self._index.delete(entry.partition, entry.key)
        if queued:
            await self._queues.put(QUEUE, delivery_job(account, key, self._clock()) | more)
        return queued

    async def _back_to_queued(self, row: Row) -> Row | None:
        # Its copies for webhook routes were made before it was looked at first.
        fresh = {name: value for name, value in row.value.items() if name not in ("parked", "routes")}
        columns = row.columns | {"state": QUEUED, "until": iso(self._clock())}
        if row.columns["state"] == DEAD:
            columns |= {"attempts": 0}
        try:
            return await self._events.replace(Row(row.partition, row.key, fresh, row.etag, columns))
        except StorageConflict:
            # Somebody was faster, or it was our own write, repeated after a lost answer: either way it is read anew.
            return await self._events.get(row.partition, row.key)

    # -- upkeep ----------------------------------------------------------------------------------------------

    async def take_up(self, found: set[tuple[str, str]]) -> None:
        """Hourly: goes on with probes and releases whose message was lost, and makes missing entries of held events.
        `found` are the partitions and keys of the held events."""
        await self._enter_missing(found)
        held = await self.held()
        for health in await self._endpoints.all():
            count = held.pop(health.endpoint, 0)
            if not health.is_paused and count:
                await self.start_release(health.endpoint)
            elif health.is_paused and parse_time(health.value["nextProbe"]) + PROBE_LOST_AFTER < self._clock():
                await self.start_probe(health.endpoint)
        for endpoint in held:
            await self.start_release(endpoint)

    async def _enter_missing(self, found: set[tuple[str, str]]) -> None:
        missing = found and found - {_place(entry) async for entry in self._index.scan(_HELD, _HELD_SPAN)}
        for partition, key in missing:
            row = await self.damaged.read(partition, key)
            if row is not None and row.columns["state"] == HELD:
                await self.enter(row)

    async def reconcile(self, dead: set[tuple[str, str]]) -> int:
        """Hourly: makes missing entries of dead letters and removes entries of what is no longer dead. `dead` are
        the partitions and keys of the dead events; the number of entries corrected."""
        limit, corrected = iso(self._clock() - STALE_AFTER), 0
        missing = set(dead)
        async for entry in self._index.scan("PartitionKey eq @p", {"p": DEAD_PARTITION}):
            place = _place(entry)
            missing.discard(place)
            if place not in dead and entry.value["at"] < limit:
                corrected += await self._index.delete(entry.partition, entry.key)
        for partition, key in missing:
            row = await self.damaged.read(partition, key)  # which makes the entry of a damaged one
            if row is not None and row.columns["state"] == DEAD:
                await self.enter(row)
            corrected += 1
        return corrected

    async def forget(self, account: str) -> None:
        """Drops what is dead or held of a deleted account, but the news of its deletion: nothing else of it is shown,
        replayed or released any more."""
        async for entry in self._index.scan("account eq @a", {"a": storable(account)}):
            if entry.value.get("type") == "accountDeleted":
                continue
            row = None
            with suppress(RecordDamaged):
                row = await self._events.get(*_place(entry))
            if row is not None and row.columns["state"] in (DEAD, HELD):
                with suppress(StorageConflict):  # put back at the same moment: its delivery finds no account
                    await self._events.replace(_bare(row))
            await self._index.delete(entry.partition, entry.key)

    async def drop(self, row: Row) -> None:
        """Removes the entry of an event that is too old to be kept."""
        entry = _entry(row)
        await self._index.delete(entry.partition, entry.key)


def _bare(row: Row) -> Row:
    """The record without what it would have told."""
    envelope = {name: value for name, value in row.value["envelope"].items() if name != "data"}
    return Row(row.partition, row.key, {"envelope": envelope}, row.etag, row.columns | {"state": DISCARDED})


def _entry(row: Row) -> Row:
    """The entry of a held or dead event."""
    envelope, noted = row.value["envelope"], row.value["parked"]
    event = id_of(row.key)
    held = row.columns["state"] == HELD
    value = {
        "account": envelope["account"],
        "key": row.key,
        "event": event,
        "type": envelope["event"],
        "date": envelope["date"],
        "attempts": row.columns["attempts"],
        **noted,
    }
    value |= {"route": row.value["route"]} if "route" in row.value else {}
    columns = {"account": storable(envelope["account"]), "event": event, "endpoint": noted["endpoint"]}
    partition = _HELD_PREFIX + noted["endpoint"] if held else DEAD_PARTITION
    return Row(partition, f"{_time(envelope['date'])}~{event}", value, columns=columns)


def _place(entry: Row) -> tuple[str, str]:
    """Partition and key of the event that an entry stands for."""
    return entry.columns["account"], entry.value["key"]


def _time(text: str) -> str:
    return time_key(parse_time(text).timestamp())


def _wanted(
    account: str | None, endpoint: str | None, since: str | None, after: str = ""
) -> tuple[str, dict[str, Any]]:
    """The query for dead letters."""
    parts, given = ["PartitionKey eq @p"], {"p": DEAD_PARTITION}
    if account is not None:
        parts, given = [*parts, "account eq @a"], given | {"a": storable(account)}
    if endpoint is not None:
        parts, given = [*parts, "endpoint eq @e"], given | {"e": endpoint}
    if since is not None:
        parts, given = [*parts, "RowKey ge @s"], given | {"s": _time(since)}
    if after:
        parts, given = [*parts, "RowKey gt @k"], given | {"k": after}
    return " and ".join(parts), given


def _view(entry: Row) -> dict[str, Any]:
    """A dead letter as the API lists it."""
    value = entry.value
    return {
        "id": value["event"],
        "account": value["account"],
        "event": value["type"],
        "date": value["date"],
        "endpoint": value["endpoint"] or None,
        "attemptsMade": value["attempts"],
        "failed": value["at"],
        "error": value["error"],
    } | ({"route": value["route"]} if "route" in value else {})
