"""Delivery of recorded events: a signed POST to the customer, at least once and in order about each thing.

A receiver discards repeats by the event id, which stays the same for every attempt, crash and replay. What cannot be
delivered becomes a dead letter; what is meant for a paused endpoint is held (`undelivered.py`, `endpoints.py`).
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from shared.accounts import Accounts
from shared.clock import Clock, iso, parse_time
from shared.endpoints import PROBE_EVERY, Endpoints, Flights, Health
from shared.errors import RecordDamaged, StorageConflict
from shared.event_contents import EventContents
from shared.event_counters import EventCounters
from shared.events import DEAD, DELIVERED, HELD, QUEUE, QUEUED, SKIPPED, before, delivery_job, id_of
from shared.service_settings import ServiceSettings
from shared.storage.keys import storable
from shared.storage.queues import Queues
from shared.storage.tables import Row, Table
from shared.undelivered import Undelivered, parked
from shared.vault import SealBroken
from shared.webhook_attempt import DELIVERED as ARRIVED
from shared.webhook_attempt import RETRY, Outcome, Sender
from shared.webhook_routing import WebhookRoutes, fits
from shared.webhook_target import Attempt, Target, headers_of, target_of

# The waits after each failed attempt, in seconds; ten attempts are made, and each wait is given or taken a fifth
# (emailengine.md 18.2).
PAUSES_S = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0)
ATTEMPTS = len(PAUSES_S) + 1
CLAIM_S = 120.0  # an attempt without an outcome after that has lost its process
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 60.0  # before an event that may not go yet is looked at again
log = logging.getLogger("graphpost.webhooks")


def pause_s(attempt: int, jitter: Callable[[], float] = random.random) -> float:
    """The wait after failed attempt number `attempt` (1 is the first), give or take a fifth."""
    return PAUSES_S[min(attempt, len(PAUSES_S)) - 1] * (0.8 + 0.4 * jitter())


def wants(event: str, data: dict[str, Any], path: str | None, settings: dict[str, Any]) -> bool:
    """Whether the service's settings let this event out (18.3)."""
    allowed = settings.get("webhookEvents") or []
    if not settings.get("webhooksEnabled") or not ("*" in allowed or event in allowed):
        return False
    if event == "messageNew" and settings.get("inboxNewOnly"):
        return data.get("messageSpecialUse") == "\\Inbox" or path == "INBOX"
    return True


@dataclass(frozen=True)
class Delivery:
    """One attempt about to be made: the record, the message that asked for it, and where it goes."""

    row: Row
    job: dict[str, Any]
    target: Target
    health: Health

    @property
    def number(self) -> int:
        """1 for the first attempt."""
        return int(self.row.columns["attempts"]) + 1

    @property
    def is_probe(self) -> bool:
        """Whether this is the hourly look whether a paused endpoint answers again."""
        return self.job.get("probe") == self.target.endpoint


class Webhooks:
    """Delivers recorded events."""

    def __init__(
        self,
        events: Table,
        counters: EventCounters,
        queues: Queues,
        clock: Clock,
        settings: ServiceSettings,
        accounts: Accounts,
        sender: Sender,
        endpoints: Endpoints,
        undelivered: Undelivered,
        contents: EventContents,
        routes: WebhookRoutes,
        spread: Callable[[Row], Awaitable[None]],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._events, self._counters, self._queues, self._clock = events, counters, queues, clock
        self._settings, self._accounts, self._sender = settings, accounts, sender
        self._endpoints, self._undelivered, self._flights = endpoints, undelivered, Flights(clock)
        self._contents, self._routes, self._spread, self._jitter = contents, routes, spread, jitter
        self.on_attempt: Callable[[str, str, Outcome], None] = lambda account, event, outcome: None

    async def deliver(self, job: dict[str, Any]) -> None:
        """One queue message: an attempt to deliver one event, or one step of a replay, release or probe.

        An event may be queued more than once. The first message to claim the attempt makes it; the others look
        again when the claim has run out, in case its worker died.
        """
        if "do" in job:
            await self._undelivered.work(job)
            return
        row = await self._undelivered.damaged.read(storable(job["account"]), job.get("key") or job["event"])
        if row is None or row.columns["state"] != QUEUED:
            if row is not None and row.columns["state"] in (HELD, DEAD):
                await self._enter(row)  # whoever parked it may have died before that
            return
        if row.columns["attempts"] != job.get("attempt", 0) and (wait_s := self._claimed_for_s(row)) > 0:
            await self._queues.put(QUEUE, job, wait_s)
            return
        delivery = await self._prepared(row, job)
        if delivery is None:
            return
        with self._flights.seat(delivery.health) as seated:
            earlier_s = await self._earlier_s(row) if seated else 0.0
            if earlier_s is None:
                await self._attempt(delivery)
            else:
                await self._put_back(job, earlier_s)

    def _claimed_for_s(self, row: Row) -> float:
        """Seconds until the claim on this event runs out."""
        until = parse_time(row.columns["until"])
        return max(0.0, (until - self._clock()).total_seconds())

    # -- before the attempt ----------------------------------------------------------------------------------

    async def _prepared(self, row: Row, job: dict[str, Any]) -> Delivery | None:
        """The delivery to make; None when there is none, and the record says why."""
        # Read outside: settings that cannot be opened concern every event, and pass with the key ring.
        settings = await self._settings.all()
        try:
            target = await self._target(job["account"], row.value, settings)
        except SealBroken as problem:
            log.error("event %s: the account's webhook target can not be opened: %s", id_of(row.key), problem)
            reason = f"The account's sealed webhook target can not be opened: {problem}. Check KEY_RING, or set it anew"
            await self._bury(row, job, "", {"reason": reason})
            return None
        if target is None:
            if await self._settle(row, SKIPPED) and "route" not in row.value:
                await self._count(row)
                await self._contents.drop(row)
            return None
        delivery = Delivery(row, job, target, await self._endpoints.health(target.endpoint))
        if job.get("probe") and not delivery.is_probe:
            # The accounts of the paused endpoint lead elsewhere by now: everything held for it may go.
            await self._undelivered.start_release(job["probe"], moved=True)
        if delivery.health.is_paused and not delivery.is_probe:
            await self._hold(row, job, target)
            return None
        return delivery

    async def _target(self, account: str, event: dict[str, Any], settings: dict[str, Any]) -> Target | None:
        """Where the event goes; None for nowhere. SealBroken when the account's own target cannot be opened."""
        envelope = event["envelope"]
        if route := event.get("route"):
            return await self._route_target(route, account, envelope, settings)
        if not wants(envelope["event"], envelope["data"], envelope.get("path"), settings):
            return None
        record = await self._accounts.find(account)
        if envelope["event"] == "accountDeleted":
            record = {"account": account, "webhooksSealed": event.get("target")}
        if record is None:
            return None
        own_url, own_headers = self._accounts.opened_webhook_of(record)
        url = own_url or settings.get("webhooks") or ""
        return target_of(url, (settings.get("webhooksCustomHeaders") or []) + own_headers) if url else None

    async def _route_target(
        self, route_id: str, account: str, envelope: dict[str, Any], settings: dict[str, Any]
    ) -> Target | None:
        """The same for the copy of a webhook route, whose filter is asked once more: it may have changed."""
        route = await self._routes.find(route_id)
        if not settings.get("webhooksEnabled") or route is None or not fits(route, envelope):
            return None
        headers: list[dict[str, str]] = route.get("customHeaders") or []
        if envelope["event"] != "accountDeleted":
            record = await self._accounts.find(account)
            if record is None:
                return None
            headers = headers + self._accounts.opened_webhook_of(record)[1]
        return target_of(route["targetUrl"], headers)

    async def _put_back(self, job: dict[str, Any], wait_s: float) -> None:
        """The message again, later each time: something earlier about the same thing is on its way, or the endpoint
        is in trouble and has enough attempts under way."""
        waits = job.get("waits", 0)
        pause = min(FIRST_WAIT_S * 1.6 ** min(waits, 20), LONGEST_WAIT_S) * (0.8 + 0.4 * self._jitter())
        await self._queues.put(QUEUE, job | {"waits": waits + 1}, max(wait_s, pause))

    async def _earlier_s(self, row: Row) -> float | None:
        """Seconds until the next attempt of an earlier event about the same thing; None when there is none. One
        transaction, none for an event that comes first. Dead letters hold nothing up."""
        span = before(row.key)
        if span is None:
            return None
        query = "PartitionKey eq @p and RowKey ge @f and RowKey lt @t and (state eq 'queued' or state eq 'held')"
        given = {"p": row.partition, "f": span[0], "t": span[1]}
        async for earlier in self._events.scan(query, given, 1, only=("state", "until")):
            if earlier.columns["state"] == HELD:
                # This one may go, so that one may, too; if it may not after all, it is held again.
                await self._undelivered.revive(earlier.partition, earlier.key)
            until = earlier.columns.get("until")
            return self._claimed_for_s(earlier) - CLAIM_S if until else 0.0
        return None

    # -- the attempt -----------------------------------------------------------------------------------------

    async def _attempt(self, delivery: Delivery) -> None:
        secrets = await self._settings.signing_secrets()
        claimed = await self._settle(delivery.row, QUEUED, delivery.number, CLAIM_S)
        if claimed is None:
            # Another message of this event was faster, or it was our own write, repeated after a lost answer. A
            # message that comes later tells which.
            await self._queues.put(QUEUE, delivery.job, CLAIM_S)
            return
        await self._count(delivery.row)
        outcome = await self._post(delivery, secrets)
        self.on_attempt(delivery.job["account"], delivery.row.value["envelope"]["event"], outcome)
        if outcome.kind == ARRIVED:
            if await self._settle(claimed, DELIVERED, delivery.number):
                await self._contents.drop(claimed)
            if await self._endpoints.succeeded(delivery.target):
                await self._undelivered.start_release(delivery.target.endpoint)
            return
        await self._failed(claimed, delivery, outcome)
        error = {"event": delivery.row.value["envelope"]["event"], **outcome.error}
        if await self._endpoints.failed(delivery.target, error):
            await self._undelivered.start_probe(delivery.target.endpoint, PROBE_EVERY.total_seconds())

    async def _post(self, delivery: Delivery, secrets: list[str]) -> Outcome:
        envelope = await self._contents.whole(delivery.row)
        text = json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))
        body = text.encode(errors="replace")  # half a character, cut by somebody before us
        now = self._clock()
        attempt = Attempt(
            account=delivery.job["account"],
            event=delivery.row.value.get("event") or id_of(delivery.row.key),
            delivery=id_of(delivery.row.key),
            route=delivery.row.value.get("route", ""),
            number=delivery.number,
            waited_s=int((now - parse_time(delivery.job["queued"])).total_seconds()),
            timestamp=int(now.timestamp()),
        )
        headers = headers_of(attempt, body, secrets, delivery.target)
        return await self._sender.post(delivery.target.url, headers, body)

    async def _failed(self, claimed: Row, delivery: Delivery, outcome: Outcome) -> None:
        """What follows a failed attempt: the next one, a place among the dead, or, after a probe, its old place."""
        number = delivery.number
        if delivery.is_probe:
            await self._hold(claimed, delivery.job, delivery.target, attempts=number - 1)
        elif outcome.kind == RETRY and number < ATTEMPTS:
            wait_s = max(pause_s(number, self._jitter), outcome.retry_after_s)
            await self._settle(claimed, QUEUED, number, wait_s + CLAIM_S)
            job = {name: value for name, value in delivery.job.items() if name not in ("waits", "probe")}
            await self._queues.put(QUEUE, job | {"attempt": number}, wait_s)
        else:
            await self._bury(claimed, delivery.job, delivery.target.endpoint, outcome.error)

    # -- the record ------------------------------------------------------------------------------------------

    async def _settle(self, row: Row, state: str, attempts: int | None = None, claimed_s: float = 0) -> Row | None:
        """The record in its new state; None when another message of the same event was faster."""
        until = iso(self._clock() + timedelta(seconds=claimed_s))
        made = row.columns["attempts"] if attempts is None else attempts
        columns = row.columns | {"state": state, "attempts": made, "until": until, "counted": True}
        return await self._replaced(Row(row.partition, row.key, row.value, row.etag, columns))

    async def _replaced(self, row: Row) -> Row | None:
        try:
            return await self._events.replace(row)
        except StorageConflict:
            return None

    async def _bury(self, row: Row, job: dict[str, Any], endpoint: str, error: dict[str, Any]) -> None:
        """Makes it a dead letter."""
        dead = await self._replaced(parked(row, DEAD, endpoint, error, self._clock(), counted=True))
        if dead is None:
            # Another message was faster, or it was our own write, repeated: a later message makes the entry.
            await self._queues.put(QUEUE, job, CLAIM_S)
            return
        log.warning("graphpost.webhooks.dead event=%s", id_of(row.key))
        await self._enter(dead)
        await self._count(row)

    async def _hold(self, row: Row, job: dict[str, Any], target: Target, *, attempts: int | None = None) -> None:
        """Keeps it until its endpoint is resumed."""
        made = row.columns["attempts"] if attempts is None else attempts
        error = {"reason": "The endpoint is paused"}
        held = await self._replaced(parked(row, HELD, target.endpoint, error, self._clock(), attempts=made))
        if held is None:
            await self._queues.put(QUEUE, job, CLAIM_S)
            return
        await self._enter(held)

    async def _enter(self, row: Row) -> None:
        await self._undelivered.enter(row)
        endpoint = row.value["parked"]["endpoint"]
        if row.columns["state"] == HELD and not (await self._endpoints.newest(endpoint)).is_paused:
            # Resumed meanwhile, perhaps after the events held before were let go.
            await self._undelivered.start_release(endpoint)

    async def _count(self, row: Row) -> None:
        """Counts an event for its account, unless this version of its record was counted."""
        account, event = row.value["envelope"]["account"], row.value["envelope"]["event"]
        if row.columns.get("counted") or row.columns["attempts"] > 0:
            return
        if route := row.value.get("route"):
            await self._counters.count_route(route)
            return
        if event != "accountDeleted":  # nobody is left to show it; an account made again starts from nothing
            await self._counters.count(account, event)

    # -- upkeep ----------------------------------------------------------------------------------------------

    async def take_up(self, older_than: timedelta) -> int:
        """Queues again events whose message was lost, and goes on with probes and releases; the events queued."""
        limit, found = iso(self._clock() - older_than), 0
        held: set[tuple[str, str]] = set()
        query = "state eq 'queued' or state eq 'held'"
        async for seen in self._events.scan(query, only=("state", "until", "date")):
            if (seen.columns.get("until") or seen.columns.get("date") or "") >= limit:
                continue
            if seen.columns["state"] == HELD:
                held.add((seen.partition, seen.key))
            else:
                found += await self._queue_again(seen, limit)
        await self._undelivered.take_up(held)
        return found

    async def _queue_again(self, seen: Row, limit: str) -> int:
        row = await self._undelivered.damaged.read(seen.partition, seen.key)
        if row is None or (row.columns.get("until") or row.value["envelope"]["date"]) >= limit:
            return 0
        await self._spread(row)  # who recorded it may have died before that
        await self._queues.put(QUEUE, delivery_job(row.value["envelope"]["account"], row.key, self._clock()))
        return 1

    async def forget(self, account: str) -> None:
        """Removes the counters of a deleted account, and what it would still show or replay."""
        await self._counters.forget(account)
        await self._undelivered.forget(account)

    async def sweep(self, older_than: timedelta) -> int:
        """Removes events that ended longer ago than that; the number removed. Dead letters are kept as long from
        their death on; held events become dead letters instead."""
        limit, removed = iso(self._clock() - older_than), 0
        dead: set[tuple[str, str]] = set()
        async for seen in self._events.scan("state ne 'queued'", only=("state", "until", "date")):
            state = seen.columns["state"]
            if state == DEAD and seen.columns["until"] >= limit:
                dead.add((seen.partition, seen.key))
            elif state == HELD or (seen.columns.get("date") or "") < limit:
                removed += await self._retire(seen, limit)
        await self._undelivered.reconcile(dead)
        await self._endpoints.sweep()
        return removed

    async def _retire(self, seen: Row, limit: str) -> int:
        """Ends one event that is old; 1 when its record is gone."""
        if seen.columns["state"] == HELD and seen.columns.get("date", "") >= limit:
            return 0
        try:
            row = await self._events.get(seen.partition, seen.key)
        except RecordDamaged:
            return await self._undelivered.damaged.end(seen)
        if row is None or row.value["envelope"]["date"] >= limit:
            return 0  # one from before the date was a column
        if row.columns["state"] == HELD:
            job = delivery_job(row.value["envelope"]["account"], row.key, self._clock())
            reason = {"reason": "The endpoint was paused for a month"}
            await self._undelivered.drop(row)
            await self._bury(row, job, row.value["parked"]["endpoint"], reason)
            return 0
        if row.columns["state"] == DEAD:
            await self._undelivered.drop(row)
        return int(await self._events.delete(row.partition, row.key))
