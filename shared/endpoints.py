"""How each webhook target is doing: failing since when, paused or not, and what went wrong last.

A target that has failed for three days without a single success is *paused*: its events are held without an attempt,
and one of them probes it every hour. The first success, or a call of the API, resumes it. A target that is doing well
costs a read each half minute, and a write once an hour that tells when it was last heard.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from shared.clock import Clock, iso, parse_time
from shared.errors import StorageConflict
from shared.storage.tables import Row, Table
from shared.vault import SealBroken, Vault
from shared.webhook_target import Target

PARTITION = "endpoint"
KEPT_S = 30.0
MOST_KEPT = 5000
PAUSE_AFTER = timedelta(days=3)
PAUSE_FAILURES = 10  # in a row, so that one failure before and one after a quiet weekend pause nothing
PROBE_EVERY = timedelta(hours=1)
PROBE_EARLY = timedelta(minutes=1)  # clocks of instances and of the queue differ
HEARD_EVERY = timedelta(hours=1)
FORGET_AFTER = timedelta(days=30)
MOST_AT_ONCE = 4
SLOW_S = 3.0
SHOWN = ("failingSince", "lastError", "lastSuccess", "pausedAt", "nextProbe")
HEALTHY, FAILING, PAUSED = "healthy", "failing", "paused"
log = logging.getLogger("graphpost.endpoints")

Value = dict[str, Any]


@dataclass(frozen=True)
class Health:
    """What is known of one endpoint; `value` is empty before its first attempt."""

    endpoint: str
    value: Value

    @property
    def is_paused(self) -> bool:
        return bool(self.value.get("pausedAt"))

    @property
    def is_failing(self) -> bool:
        return bool(self.value.get("failures"))

    @property
    def state(self) -> str:
        return PAUSED if self.is_paused else FAILING if self.is_failing else HEALTHY


class Endpoints:
    """Notes and shows the health of endpoints."""

    def __init__(self, table: Table, vault: Vault, clock: Clock) -> None:
        self._table, self._vault, self._clock = table, vault, clock
        self._kept: dict[str, tuple[float, Health]] = {}

    async def health(self, endpoint: str) -> Health:
        """The endpoint's health, up to half a minute old. No transaction when it was read here a moment ago."""
        now = self._clock().timestamp()
        kept = self._kept.get(endpoint)
        if kept is not None and kept[0] <= now < kept[0] + KEPT_S:
            return kept[1]
        return await self.newest(endpoint)

    async def newest(self, endpoint: str) -> Health:
        """The endpoint's health as it is stored. One transaction."""
        row = await self._table.get(PARTITION, endpoint)
        return self._keep(Health(endpoint, row.value if row else {}))

    async def succeeded(self, target: Target) -> bool:
        """Notes a delivery; True when it resumes a paused endpoint. No transaction when nothing is news."""
        now, known = self._clock(), (await self.health(target.endpoint)).value
        heard = known.get("lastSuccess")
        if heard and not known.get("lastError") and now - parse_time(heard) < HEARD_EVERY:
            return False
        resumed = False

        def mutate(value: Value) -> Value:
            nonlocal resumed
            resumed = resumed or bool(value.get("pausedAt"))
            return _named(self._vault, target) | {"lastSuccess": iso(now)}

        await self._change(target.endpoint, mutate)
        if resumed:
            log.warning("graphpost.webhooks.resumed endpoint=%s: it answers again", target.endpoint)
        return resumed

    async def failed(self, target: Target, error: dict[str, Any]) -> bool:
        """Notes a failed attempt; True when it pauses the endpoint."""
        now = self._clock()
        paused = False

        def mutate(value: Value) -> Value:
            nonlocal paused
            since = value.get("failingSince") or iso(now)
            failures = value.get("failures", 0) + 1
            long = now - parse_time(since) >= PAUSE_AFTER and failures >= PAUSE_FAILURES
            pauses = long and not value.get("pausedAt")
            paused = paused or pauses
            noted = {"failingSince": since, "failures": failures, "lastError": {"date": iso(now), **error}}
            if pauses:
                noted |= {"pausedAt": iso(now), "nextProbe": iso(now + PROBE_EVERY)}
            return value | _named(self._vault, target, value) | noted

        await self._change(target.endpoint, mutate)
        if paused:
            log.error("graphpost.webhooks.paused endpoint=%s: it failed for days, its events are held", target.endpoint)
        return paused

    async def resume(self, endpoint: str) -> bool | None:
        """Ends a pause by hand: the endpoint starts anew, its last error stays until a success. False when it was
        not paused, None when there is no such endpoint."""
        resumed = False

        def mutate(value: Value) -> Value | None:
            nonlocal resumed
            if not value.get("pausedAt"):
                return None
            resumed = True
            dropped = ("pausedAt", "nextProbe", "failingSince", "failures")
            return {k: v for k, v in value.items() if k not in dropped}

        if not (await self.newest(endpoint)).value:
            return None
        await self._change(endpoint, mutate)
        return resumed

    async def begin_probe(self, endpoint: str) -> bool:
        """True for the one caller who is to send the hourly probe."""
        now, begun = self._clock(), False

        def mutate(value: Value) -> Value | None:
            nonlocal begun
            begun = bool(value.get("pausedAt")) and parse_time(value["nextProbe"]) - PROBE_EARLY <= now
            return value | {"nextProbe": iso(now + PROBE_EVERY)} if begun else None

        await self._change(endpoint, mutate)
        return begun

    async def all(self) -> list[Health]:
        """Every endpoint that was tried within the last month."""
        return [Health(row.key, row.value) for row in await self._table.partition(PARTITION)]

    def view(self, health: Health, held: int) -> dict[str, Any]:
        """An endpoint as the API shows it; the URL without credentials."""
        value = health.value
        shown = {name: value.get(name) for name in SHOWN}
        view = {"id": health.endpoint, "url": self._url(health), "state": health.state, "held": held}
        return view | {"failures": value.get("failures", 0)} | shown

    async def sweep(self) -> int:
        """Forgets endpoints without an attempt for a month, unless they are paused; the number forgotten."""
        limit, removed = iso(self._clock() - FORGET_AFTER), 0
        for health in await self.all():
            error = health.value.get("lastError") or {}
            last = max(health.value.get("lastSuccess") or "", error.get("date") or "")
            if last < limit and not health.is_paused:
                removed += await self._table.delete(PARTITION, health.endpoint)
        return removed

    def _url(self, health: Health) -> str:
        try:
            return self._vault.open(health.value["url"], _place(health.endpoint)).decode()
        except (KeyError, SealBroken):
            return f"{health.value.get('origin', '')}/******"

    def _keep(self, health: Health) -> Health:
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[health.endpoint] = (self._clock().timestamp(), health)
        return health

    async def _change(self, endpoint: str, mutate: Callable[[Value], Value | None]) -> None:
        """Compare-and-swap, tried a few times. Health that many attempts write at once may miss one of them."""
        for _ in range(8):
            row = await self._table.get(PARTITION, endpoint)
            value = mutate(row.value if row else {})
            if value is None:
                self._keep(Health(endpoint, row.value if row else {}))
                return
            try:
                if row is None:
                    await self._table.insert(Row(PARTITION, endpoint, value))
                else:
                    await self._table.replace(Row(PARTITION, endpoint, value, row.etag))
            except StorageConflict:
                continue
            self._keep(Health(endpoint, value))
            return


def _place(endpoint: str) -> str:
    return f"endpoints/{endpoint}/url"


def _named(vault: Vault, target: Target, known: Value | None = None) -> Value:
    """What names the endpoint. Its URL is sealed: path and query of a webhook are often its only secret."""
    if known and known.get("url") and not vault.is_stale(known["url"]):
        return {}
    parts = urlsplit(target.url)
    sealed = vault.seal(target.url.partition("#")[0].encode(), _place(target.endpoint))
    return {"url": sealed, "origin": f"{parts.scheme}://{parts.netloc}"}


class Flights:
    """The attempts under way in this process. An endpoint that fails or is slow gets few at once, so that its time-outs
    do not take every slot of the queue trigger from the others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun: dict[str, list[float]] = {}
        self._slow: set[str] = set()

    def _is_crowded(self, health: Health) -> bool:
        begun = self._begun.get(health.endpoint, ())
        if len(begun) < MOST_AT_ONCE:
            return False
        now = self._clock().timestamp()
        return health.is_failing or health.endpoint in self._slow or now - min(begun) >= SLOW_S

    @contextmanager
    def seat(self, health: Health) -> Iterator[bool]:
        """Around one attempt: True when it may be made, false when it must wait. The seat is taken with the look, so
        that messages that come together do not all find it free."""
        if self._is_crowded(health):
            yield False
            return
        endpoint, begun = health.endpoint, self._clock().timestamp()
        self._begun.setdefault(endpoint, []).append(begun)
        try:
            yield True
        finally:
            self._begun[endpoint].remove(begun)
            if not self._begun[endpoint]:
                del self._begun[endpoint]
            slow = self._clock().timestamp() - begun >= SLOW_S
            (self._slow.add if slow else self._slow.discard)(endpoint)
