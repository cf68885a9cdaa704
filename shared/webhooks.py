"""Events and their delivery: an event is a stored record first, then a signed POST to the customer.

The record's key is made from what happened to which message, so the same happening seen twice (a repeated
notification, a poll and a push) is one event with one id. Delivery is at least once; a receiver discards
repeats by `X-EE-Wh-Event-Id`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import random
import uuid
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from shared import __version__
from shared.clock import Clock, iso, parse_time
from shared.errors import StorageConflict
from shared.storage.keys import digest, storable
from shared.storage.queues import Queues
from shared.storage.tables import Row, Table
from shared.vault import encode

if TYPE_CHECKING:
    import httpx

    from shared.accounts import Accounts
    from shared.service_settings import ServiceSettings

QUEUE = "webhooks"
ATTEMPTS = 10
FIRST_PAUSE_S = 5.0
TIMEOUT_S = 30.0
FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "host"})
CLAIM_S = 120.0  # an attempt without an outcome after that has lost its process
USER_AGENT = f"Graphpost/{__version__} (+https://github.com/graphpost/graphpost)"

EVENT_TYPES = (
    "accountAdded accountInitialized accountDeleted authenticationSuccess authenticationError connectError "
    "messageNew messageUpdated messageDeleted messageMissing messageSent messageFailed messageDeliveryError "
    "messageBounce messageComplaint mailboxNew mailboxDeleted mailboxReset trackOpen trackClick "
    "listUnsubscribe listSubscribe exportCompleted exportFailed"
).split()


def pause_s(attempt: int, jitter: Callable[[], float] = random.random) -> float:
    """The wait after failed attempt number `attempt` (1 is the first): 5 s doubling, give or take a fifth."""
    return FIRST_PAUSE_S * 2.0 ** (attempt - 1) * (0.8 + 0.4 * jitter())


def signature(body: bytes, secret: str) -> str:
    """The contract's signature: base64url HMAC-SHA256 of the raw body, without padding (18.2)."""
    return encode(hmac.new(secret.encode(), body, hashlib.sha256).digest())


@dataclass(frozen=True)
class Target:
    """Where an event goes: the URL without user info, and the headers that customers added."""

    url: str
    headers: dict[str, str]


def target_of(url: str, custom: list[dict[str, str]]) -> Target:
    """User info in the URL becomes a Basic Authorization header; later headers of one name win (18.2)."""
    parts = urlsplit(url)
    headers: dict[str, str] = {}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode()
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    for entry in custom:
        earlier = next((name for name in headers if name.lower() == entry["key"].lower()), entry["key"])
        headers.pop(earlier, None)
        headers[entry["key"]] = entry.get("value", "")
    return Target(urlunsplit(parts), headers)


def wants(event: str, data: dict[str, Any], path: str | None, settings: dict[str, Any]) -> bool:
    """Whether the service's settings let this event out (18.3)."""
    allowed = settings.get("webhookEvents") or []
    if not settings.get("webhooksEnabled") or not ("*" in allowed or event in allowed):
        return False
    if event == "messageNew" and settings.get("inboxNewOnly"):
        return data.get("messageSpecialUse") == "\\Inbox" or path == "INBOX"
    return True


class Events:
    """Records events and puts them on the delivery queue."""

    def __init__(self, table: Table, queues: Queues, clock: Clock, settings: ServiceSettings) -> None:
        self._table, self._queues, self._clock, self._settings = table, queues, clock, settings

    async def emit(
        self,
        account: str,
        event: str,
        data: dict[str, Any],
        *,
        path: str | None = None,
        special_use: str | None = None,
        happening: str | None = None,
        target: str | None = None,
    ) -> bool:
        """Records one event and queues its delivery. False when this happening was recorded before.

        `happening` names what happened to what (for instance a message id and "new"); without it the event is
        taken as unique. `target` is the account's sealed webhook, kept with an event that outlives the account.
        Two transactions. After a crash between them the caller runs again, meets its own record, and queues it
        once more.
        """
        now = self._clock()
        event_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{account}\x00{happening}") if happening else uuid.uuid4())
        envelope: dict[str, Any] = {
            "serviceUrl": await self._settings.service_url(),
            "account": account,
            "date": iso(now),
        }
        envelope |= {"path": path} if path is not None else {}
        envelope |= {"specialUse": special_use} if special_use is not None else {}
        envelope |= {"event": event, "data": data}
        row = Row(
            storable(account),
            event_id,
            {"envelope": envelope, "target": target},
            columns={"state": "queued", "attempts": 0},
        )
        try:
            await self._table.insert(row)
        except StorageConflict:
            return await self._resume(account, event_id)
        await self._enqueue(account, event_id, now)
        return True

    async def _resume(self, account: str, event_id: str) -> bool:
        """A record that is there but was never seen by the delivery is queued again."""
        row = await self._table.get(storable(account), event_id)
        if row is not None and row.columns["state"] == "queued" and row.columns["attempts"] == 0:
            await self._enqueue(account, event_id, self._clock())
        return False

    async def _enqueue(self, account: str, event_id: str, queued: datetime) -> None:
        job = {"account": account, "event": event_id, "queued": iso(queued)}
        await self._queues.put(QUEUE, job)

    async def seen(self, account: str, happening: str) -> bool:
        """True when an event of this happening was recorded."""
        event_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{account}\x00{happening}"))
        return await self._table.get(storable(account), event_id) is not None


class Webhooks:
    """Delivers recorded events."""

    def __init__(
        self,
        events: Table,
        counters: Table,
        queues: Queues,
        clock: Clock,
        settings: ServiceSettings,
        accounts: Accounts,
        http: Callable[[], httpx.AsyncClient],
    ) -> None:
        self._events, self._counters, self._queues, self._clock = events, counters, queues, clock
        self._settings, self._accounts, self._http = settings, accounts, http

    async def deliver(self, job: dict[str, Any]) -> None:
        """One delivery attempt of one event; queues the next attempt when it fails.

        Repeated notifications queue an event more than once. The first message to claim the attempt makes it; the
        others look again when the claim has run out, in case its worker died.
        """
        row = await self._events.get(storable(job["account"]), job["event"])
        if row is None or row.columns["state"] != "queued":
            return
        attempt = int(row.columns["attempts"]) + 1
        if attempt != job.get("attempt", 0) + 1 and (wait_s := self._claimed_for_s(row)) > 0:
            await self._queues.put(QUEUE, job, wait_s)
            return
        target = await self._target(job["account"], row.value)
        if target is None:
            if await self._settle(row, "skipped") and attempt == 1:
                await self._count(job["account"], row.value["envelope"]["event"])
            return
        secret = await self._settings.service_secret()
        claimed = await self._settle(row, "queued", attempt, CLAIM_S)
        if claimed is None:
            # Another message of this event was faster, or it was our own write, repeated after a lost answer. A
            # message that comes later tells which.
            await self._queues.put(QUEUE, job, CLAIM_S)
            return
        if attempt == 1:
            await self._count(job["account"], row.value["envelope"]["event"])
        outcome = await self._post(target, row.value["envelope"], job, attempt, secret)
        if outcome == "retry" and attempt < ATTEMPTS:
            wait_s = pause_s(attempt)
            await self._settle(claimed, "queued", attempt, wait_s + CLAIM_S)
            await self._queues.put(QUEUE, job | {"attempt": attempt}, wait_s)
        else:
            await self._settle(claimed, "delivered" if outcome == "delivered" else "failed", attempt)

    def _claimed_for_s(self, row: Row) -> float:
        """Seconds until the claim on this event runs out."""
        until = parse_time(row.columns["until"])
        return max(0.0, (until - self._clock()).total_seconds())

    async def _target(self, account: str, event: dict[str, Any]) -> Target | None:
        settings, envelope = await self._settings.all(), event["envelope"]
        if not wants(envelope["event"], envelope["data"], envelope.get("path"), settings):
            return None
        record = await self._accounts.find(account)
        if envelope["event"] == "accountDeleted":
            record = {"account": account, "webhooksSealed": event.get("target")}
        if record is None:
            return None
        own_url, own_headers = self._accounts.webhook_of(record)
        url = own_url or settings.get("webhooks") or ""
        return target_of(url, (settings.get("webhooksCustomHeaders") or []) + own_headers) if url else None

    async def _post(
        self, target: Target, envelope: dict[str, Any], job: dict[str, Any], attempt: int, secret: str
    ) -> str:
        """delivered, failed (final) or retry."""
        import httpx

        body = json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()
        waited_s = int((self._clock() - parse_time(job["queued"])).total_seconds())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "X-EE-Wh-Id": digest(job["account"], job["event"])[:16],
            "X-EE-Wh-Attempts-Made": str(attempt - 1),
            "X-EE-Wh-Queued-Time": f"{max(0, waited_s)}s",
            "X-EE-Wh-Event-Id": job["event"],
            "X-EE-Wh-Signature": signature(body, secret),
        }
        if await _is_link_local(target.url):
            return "failed"
        added = {name: value for name, value in target.headers.items() if name.lower() not in FRAMING}
        taken = {name.lower() for name in added}
        ours = {name: value for name, value in headers.items() if name.lower() not in taken}
        request: dict[str, Any] = {"content": body, "headers": ours | added, "timeout": TIMEOUT_S}
        try:
            async with asyncio.timeout(TIMEOUT_S), self._http().stream("POST", target.url, **request) as answer:
                outcome = answer.is_success, answer.is_redirect  # what it says is not read
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, TimeoutError):
            return "retry"
        if outcome[0]:
            return "delivered"
        # Redirects are not followed: the signature was meant for this address alone (18.2).
        return "failed" if outcome[1] else "retry"

    async def _settle(self, row: Row, state: str, attempts: int = 0, claimed_s: float = 0) -> Row | None:
        """The record in its new state; None when another message of the same event was faster."""
        until = iso(self._clock() + timedelta(seconds=claimed_s))
        columns = {"state": state, "attempts": attempts, "until": until}
        try:
            return await self._events.replace(Row(row.partition, row.key, row.value, row.etag, columns))
        except StorageConflict:
            return None

    async def _count(self, account: str, event: str) -> None:
        """Counts an event into the account's `counters` (6.2); a lost race is tried again."""
        if event == "accountDeleted":
            return  # nobody is left to show it, and an account made again under the id starts from nothing
        key = storable(account)
        for _ in range(5):
            row = await self._counters.get(key, "events")
            try:
                if row is None:
                    await self._counters.insert(Row(key, "events", {event: 1}))
                else:
                    counts = row.value | {event: row.value.get(event, 0) + 1}
                    await self._counters.replace(Row(key, "events", counts, row.etag))
            except StorageConflict:
                continue
            return

    async def take_up(self, older_than: timedelta) -> int:
        """Queues again events whose message was lost; the number queued."""
        limit, found = iso(self._clock() - older_than), 0
        async for row in self._events.scan("state eq 'queued'"):
            if (row.columns.get("until") or row.value["envelope"]["date"]) < limit:
                job = {"account": row.value["envelope"]["account"], "event": row.key, "queued": iso(self._clock())}
                await self._queues.put(QUEUE, job)
                found += 1
        return found

    async def forget(self, account: str) -> None:
        """Removes the counters of a deleted account."""
        await self._counters.delete(storable(account), "events")

    async def sweep(self, older_than: timedelta) -> int:
        """Removes settled events older than that; the number removed."""
        limit, removed = iso(self._clock() - older_than), 0
        async for row in self._events.scan("state ne 'queued'"):
            if row.value.get("envelope", {}).get("date", limit) < limit:
                removed += await self._events.delete(row.partition, row.key)
        return removed


async def _is_link_local(url: str) -> bool:
    """Addresses of the platform's own metadata services are never a webhook target, however they are spelled."""
    host = urlsplit(url).hostname or ""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False  # the delivery itself fails on it and is tried again
    addresses = [ipaddress.ip_address(str(place[0]).partition("%")[0]) for *_, place in found]
    return any((getattr(one, "ipv4_mapped", None) or one).is_link_local for one in addresses)
