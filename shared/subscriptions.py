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
from shared.notifications import client_state
from shared.schedule import Schedule
from shared.service_settings import ServiceSettings
from shared.storage.keys import digest

LIFETIME = timedelta(minutes=4230)
SETTLE_S = 10  # a catch-up starts that long after what made it due
RENEW_BEFORE = timedelta(hours=24)
CHECK_EVERY = timedelta(hours=1)
RETRIES_S = (30, 60, 120, 600, 3600)  # waits before push is tried again; the last one repeats

FOREIGN = (
    "Microsoft Graph does not deliver change notifications for another user's mailbox to an app signed in as a "
    "person. The mailbox is asked for changes every {seconds} seconds. Application access gives push."
)
FAILED = (
    "The subscription at Microsoft Graph could not be had: {problem}. The mailbox is asked for changes every "
    "{seconds} seconds until it can."
)
SEND_ONLY = {"mode": "none", "reason": "The sign-in granted sending only, so the mailbox can not be read."}


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

    async def start(self, record: Record, reach: Reach, attempt: int = 0) -> None:
        """Makes sure changes of a connected mailbox are heard of. Where push is possible but its subscription can
        not be had now, the mailbox is polled until it can, and the record says so."""
        account = record["account"]
        base = await self._settings.notification_base()
        notifications = notifications_of(reach, base, self._poll_interval_s)
        if record.get("sendOnly"):
            await self._accounts.change(account, lambda r: r | {"notifications": SEND_ONLY, "turns": None})
            return
        if notifications["mode"] == "push" and (problem := await self.ensure(account, verify=True)):
            notifications = {"mode": "poll", "reason": FAILED.format(problem=problem, seconds=self._poll_interval_s)}
            wait_s = RETRIES_S[min(attempt, len(RETRIES_S) - 1)]
            await self._accounts.queue_job(account, "subscribe", wait_s, attempt=attempt + 1)
        await self._accounts.change(account, lambda r: r | {"notifications": notifications})
        await self._start_turns(record, notifications["mode"])

    async def start_again(self, account: str, attempt: int, gone: str = "") -> None:
        """Starts anew without connecting anew: from polling back to push, or after Graph removed the subscription
        `gone`."""
        record = await self._accounts.find(account)
        if record is None or record["state"] != "connected":
            return  # connecting the account starts this anew
        try:
            reach = await self._accounts.reach(record)
        except CredentialError:
            return
        if gone and (record.get("subscription") or {}).get("id") == gone:
            await self._accounts.queue_job(account, "catch_up", SETTLE_S)
            await self._forget(account)
        await self.start(record, reach, attempt)

    async def _start_turns(self, record: Record, mode: str) -> None:
        """One recurring job: polling, or for push the hourly look at the subscription."""
        do = "poll" if mode == "poll" else "renew"
        account, now = record["account"], self._clock()
        chain = digest(account, do, iso(now))
        every = timedelta(seconds=self._poll_interval_s) if do == "poll" else CHECK_EVERY
        # The chain before its name: a chain nobody names ends itself, a name without a chain would stay silent.
        await self._schedule.start_chain(chain, QUEUE, {"account": account, "do": do}, now + every)
        await self._accounts.change(account, lambda r: r | {"turns": {"do": do, "chain": chain}})

    # -- push ----------------------------------------------------------------------------------------------

    async def turn(self, job: dict[str, Any]) -> None:
        """One turn of the hourly check."""
        account = job["account"]
        record = await self._accounts.find(account)
        if record is None or (record.get("turns") or {}).get("chain") != job["chain"]:
            await self._schedule.end_chain(job)
            return
        if record["state"] == "connected" and await self.ensure(account) and not self._is_alive(record):
            await self.start_again(account, 0)
        # What a lost notification would have told is found within the hour.
        await self._accounts.queue_job(account, "catch_up")
        await self._schedule.continue_chain(QUEUE, _bare(job), self._clock() + CHECK_EVERY)

    def _is_alive(self, record: Record) -> bool:
        """True while the stored subscription has not run out."""
        subscription = record.get("subscription") or {}
        if not subscription.get("id"):
            return False
        return parse_time(subscription["expirationDateTime"]) > self._clock() + timedelta(seconds=60)

    async def ensure(self, account: str, *, verify: bool = False) -> str:
        """Creates the subscription, or renews it when less than a day is left; with `verify` in any case, since
        a renewal shows whether Graph still has it. "" when all is well, else what went wrong, which is kept on
        the record too."""
        record = await self._accounts.find(account)
        if record is None:
            return ""
        try:
            reach = await self._accounts.reach(record)
            if not self._is_alive(record):
                await self._create(account, reach)
            elif verify or self._ends_soon(record):
                await self._renew(account, reach, record["subscription"]["id"])
        except (GraphFailure, CredentialError) as failure:
            await self._note_error(account, failure)
            return str(failure)
        return ""

    def _ends_soon(self, record: Record) -> bool:
        return parse_time(record["subscription"]["expirationDateTime"]) <= self._clock() + RENEW_BEFORE

    async def _create(self, account: str, reach: Reach) -> None:
        """A new subscription, followed by a look for what came while there was none."""
        await self._accounts.queue_job(account, "catch_up", SETTLE_S)
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
            return
        await self._keep(account, subscription_id, answer.json().get("expirationDateTime", ends))

    async def lifecycle(self, account: str, subscription_id: str, event: str) -> None:
        """Acts on a lifecycle notification (graph.md 10.6); unknown kinds and foreign ids are ignored."""
        record = await self._accounts.find(account)
        current = ((record or {}).get("subscription") or {}).get("id")
        if record is None or (current and current != subscription_id):
            return
        if event == "reauthorizationRequired":
            await self._reauthorize(record, subscription_id)
        elif event == "subscriptionRemoved":
            await self.start_again(account, 0, gone=subscription_id)
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
        now = _milliseconds(self._clock())

        def note(record: Record) -> Record:
            subscription = record.get("subscription") or {}
            retries = (subscription.get("state") or {}).get("retryCount", 0) + 1
            shown = {"state": "error", "time": now, "error": str(failure), "retryCount": retries}
            return record | {"subscription": subscription | {"state": shown}}

        await self._accounts.change(account, note)


def _bare(job: dict[str, Any]) -> dict[str, Any]:
    return {name: job[name] for name in ("account", "do", "chain", "due")}


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
