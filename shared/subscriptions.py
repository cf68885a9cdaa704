"""How an account hears of changes: a subscription where Graph really delivers, polling where it does not.

With a person's token Graph supports subscriptions on the signed-in user's own mailbox only; on a shared mailbox
creation may even succeed and then stay silent (graph.md 10.2). So the mode follows from how the mailbox is
reached, never from the answer of POST /subscriptions, and the record says which mode it is and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from shared.access import Access
from shared.accounts import QUEUE, Accounts, Reach, Record
from shared.clock import Clock, iso, parse_time
from shared.errors import CredentialError, GraphFailure
from shared.graph import requests
from shared.graph.failures import is_transient
from shared.notifications import client_state
from shared.schedule import Schedule
from shared.service_settings import ServiceSettings
from shared.storage.keys import digest

LIFETIME = timedelta(minutes=4230)
RENEW_BEFORE = timedelta(hours=24)
CHECK_EVERY = timedelta(hours=1)
RETRIES_S = (30, 60, 120, 600)

FOREIGN = (
    "Microsoft Graph does not deliver change notifications for another user's mailbox to an app signed in as a "
    "person. The mailbox is asked for changes every {seconds} seconds. Application access gives push."
)


def notifications_of(reach: Reach, base_url: str, poll_interval_s: int) -> dict[str, str]:
    """`{mode, reason}`: push or poll, and why."""
    if reach.is_foreign:
        return {"mode": "poll", "reason": FOREIGN.format(seconds=poll_interval_s)}
    if not base_url:
        return {"mode": "poll", "reason": "No public URL is set: set serviceUrl (POST /v1/settings) to get push."}
    whose = "application access" if reach.is_application else "the signed-in user's own mailbox"
    return {"mode": "push", "reason": f"Microsoft Graph delivers change notifications for {whose}."}


class Subscriptions:
    """Creates, renews and removes subscriptions, and starts polling."""

    def __init__(
        self,
        accounts: Accounts,
        access: Access,
        schedule: Schedule,
        settings: ServiceSettings,
        clock: Clock,
        key_ring: Sequence[tuple[str, bytes]],
        poll_interval_s: int,
    ) -> None:
        self._accounts, self._access, self._schedule = accounts, access, schedule
        self._settings, self._clock = settings, clock
        self._keys = [key for _, key in key_ring]
        self._poll_interval_s = poll_interval_s

    async def start(self, record: Record, reach: Reach) -> None:
        """Makes sure changes of a connected mailbox are heard of."""
        base = await self._settings.notification_base()
        notifications = notifications_of(reach, base, self._poll_interval_s)
        account = record["account"]
        await self._accounts.change(account, lambda r: r | {"notifications": notifications})
        if notifications["mode"] == "push":
            await self.ensure(account)
        await self._start_turns(record, notifications["mode"])

    async def _start_turns(self, record: Record, mode: str) -> None:
        """One recurring job: polling, or for push the hourly look at the subscription."""
        do = "poll" if mode == "poll" else "renew"
        now = self._clock()
        chain = digest(record["account"], do, iso(now))
        stored = await self._accounts.change(record["account"], lambda r: r | {"turns": {"do": do, "chain": chain}})
        if stored is not None:
            every = timedelta(seconds=self._poll_interval_s) if do == "poll" else CHECK_EVERY
            job = {"account": record["account"], "do": do}
            await self._schedule.start_chain(chain, QUEUE, job, now + every)

    # -- push ----------------------------------------------------------------------------------------------

    async def turn(self, job: dict[str, Any]) -> None:
        """One turn of the hourly check."""
        record = await self._accounts.find(job["account"])
        if record is None or (record.get("turns") or {}).get("chain") != job["chain"]:
            await self._schedule.end_chain(job)
            return
        await self.ensure(job["account"])
        await self._schedule.continue_chain(QUEUE, _bare(job), self._clock() + CHECK_EVERY)

    async def ensure(self, account: str) -> None:
        """Creates the subscription, or renews it when less than a day is left. Failures are kept on the record
        and tried again."""
        record = await self._accounts.find(account)
        if record is None or (record.get("notifications") or {}).get("mode") != "push":
            return
        try:
            reach = await self._accounts.reach(record)
            subscription = record.get("subscription") or {}
            now = self._clock()
            ends = parse_time(subscription["expirationDateTime"]) if subscription.get("id") else now
            if ends <= now + timedelta(seconds=60):
                await self._create(account, reach)
            elif ends <= now + RENEW_BEFORE:
                await self._renew(account, reach, subscription["id"])
        except (GraphFailure, CredentialError) as failure:
            await self._note_error(account, failure)

    async def _create(self, account: str, reach: Reach) -> None:
        await self._note(account, "creating")
        base = await self._settings.notification_base()
        query = f"?account={quote(account, safe='')}"
        body = {
            "changeType": "created,updated,deleted",
            "notificationUrl": f"{base}/oauth/msg/notification{query}",
            "lifecycleNotificationUrl": f"{base}/oauth/msg/lifecycle{query}",
            "resource": reach.mailbox.resource("messages"),
            "expirationDateTime": iso(self._clock() + LIFETIME),
            "clientState": client_state(account, self._keys[0]),
        }
        answer = await self._access.call(reach, lambda c: requests.subscribe(c, body))
        created = answer.json()
        await self._keep(account, created["id"], created["expirationDateTime"])

    async def _renew(self, account: str, reach: Reach, subscription_id: str) -> None:
        await self._note(account, "renewing")
        ends = iso(self._clock() + LIFETIME)
        try:
            answer = await self._access.call(reach, lambda c: requests.renew(c, subscription_id, ends))
        except GraphFailure as failure:
            if failure.status != 404:
                raise
            await self._create(account, reach)  # expired or removed at Graph
            await self._accounts.queue_job(account, "catch_up")
            return
        await self._keep(account, subscription_id, answer.json().get("expirationDateTime", ends))

    async def lifecycle(self, account: str, subscription_id: str, event: str) -> None:
        """Acts on a lifecycle notification (graph.md 10.6); unknown kinds and foreign ids are ignored."""
        record = await self._accounts.find(account)
        current = ((record or {}).get("subscription") or {}).get("id")
        if record is None or current != subscription_id:
            return
        if event == "reauthorizationRequired":
            await self._reauthorize(record, subscription_id)
        elif event == "subscriptionRemoved":
            await self._forget(account)
            await self.ensure(account)
            await self._accounts.queue_job(account, "catch_up")
        elif event == "missed":
            await self._accounts.queue_job(account, "catch_up")

    async def _reauthorize(self, record: Record, subscription_id: str) -> None:
        account = record["account"]
        try:
            reach = await self._accounts.reach(record)
            await self._access.call(reach, lambda c: requests.reauthorize(c, subscription_id))
            await self._renew(account, reach, subscription_id)
        except (GraphFailure, CredentialError) as failure:
            await self._note_error(account, failure)

    async def remove(self, record: Record) -> None:
        """Ends the subscription at Graph as far as Graph can be reached; without it, it runs out by itself."""
        subscription_id = (record.get("subscription") or {}).get("id")
        if not subscription_id:
            return
        try:
            reach = await self._accounts.reach(record)
            await self._access.call(reach, lambda c: requests.unsubscribe(c, subscription_id))
        except (GraphFailure, CredentialError):
            return

    # -- the record's `subscription` -------------------------------------------------------------------------

    async def _keep(self, account: str, subscription_id: str, ends: str) -> None:
        state = {"state": "created", "time": _milliseconds(self._clock())}
        kept = {"id": subscription_id, "expirationDateTime": ends, "state": state}
        await self._accounts.change(account, lambda r: r | {"subscription": kept})

    async def _forget(self, account: str) -> None:
        await self._accounts.change(account, lambda r: {k: v for k, v in r.items() if k != "subscription"})

    async def _note(self, account: str, state: str) -> None:
        now = _milliseconds(self._clock())

        def note(record: Record) -> Record:
            subscription = record.get("subscription") or {}
            retries = (subscription.get("state") or {}).get("retryCount", 0)
            shown = {"state": state, "time": now, "retryCount": retries}
            return record | {"subscription": subscription | {"state": shown}}

        await self._accounts.change(account, note)

    async def _note_error(self, account: str, failure: GraphFailure | CredentialError) -> None:
        """Keeps the error, and tries again soon when it may pass, at the hourly check otherwise."""
        now, retries = _milliseconds(self._clock()), 0

        def note(record: Record) -> Record:
            nonlocal retries
            subscription = record.get("subscription") or {}
            retries = (subscription.get("state") or {}).get("retryCount", 0) + 1
            shown = {"state": "error", "time": now, "error": str(failure), "retryCount": retries}
            return record | {"subscription": subscription | {"state": shown}}

        await self._accounts.change(account, note)
        handshake = isinstance(failure, GraphFailure) and failure.status == 400
        passing = isinstance(failure, GraphFailure) and (is_transient(failure) or handshake)
        if passing and retries <= len(RETRIES_S):
            await self._accounts.queue_job(account, "subscribe", RETRIES_S[retries - 1])


def _bare(job: dict[str, Any]) -> dict[str, Any]:
    return {name: job[name] for name in ("account", "do", "chain", "due")}


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
