"""The subscription of a mailbox: created where Graph delivers, renewed in time, removed with its account.

With a person's token Graph supports subscriptions on the signed-in user's own mailbox only; on a shared mailbox
creation may even succeed and then stay silent (graph.md 10.2), so none is made there. Clocks differ: what is left
of a subscription is counted from when we got it, on our own clock, by how long Graph said it lasts.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from shared.access import Access
from shared.accounts import Accounts, Reach, Record
from shared.clock import Clock, iso, parse_time
from shared.errors import CredentialError, GraphFailure
from shared.graph import requests
from shared.graph.client import Answer
from shared.hearing import Hearing
from shared.notifications import client_state
from shared.oauth_apps import OauthApps
from shared.service_settings import ServiceSettings

LIFETIME = timedelta(minutes=4230)
RENEW_BEFORE = timedelta(hours=24)
SKEW = timedelta(hours=1)  # a subscription from further in the future was noted by a clock that was wrong
LEASE = timedelta(minutes=4)  # one instance at a time creates or renews (emailengine.md 21)
SETTLE_S = 10  # a look at what came meanwhile starts that long after what made it due
RETRIES_S = (5, 30, 60, 120, 600, 3600)  # waits before push is tried again; the last one repeats
# What of a record holds for its subscription and its mailbox alone, and goes with them.
OF_SUBSCRIPTION = ("subscription", "subscribed", "subscribing", "proof")
OF_MAILBOX = (*OF_SUBSCRIPTION, "inbox", "canary", "reader", "audited", "turns")


def retry_wait_s(failures: int) -> int:
    """The wait after so many failures in a row. The first is short: a handshake that timed out has woken its
    endpoint (graph.md 10.4)."""
    return RETRIES_S[min(max(failures, 1), len(RETRIES_S)) - 1]


def is_refusal(failure: GraphFailure | CredentialError) -> bool:
    """True when somebody has to act before the same token may do this."""
    if isinstance(failure, CredentialError):
        return not failure.transient
    return failure.status in (401, 403)


class Subscriptions:
    """Creates, renews and removes subscriptions."""

    def __init__(
        self,
        accounts: Accounts,
        access: Access,
        apps: OauthApps,
        settings: ServiceSettings,
        clock: Clock,
        key_ring: Sequence[tuple[str, bytes]],
        poll_s: tuple[int, int],
    ) -> None:
        """`poll_s`: the shortest and the longest wait between two looks at a mailbox that is polled."""
        self._accounts, self._access, self._apps = accounts, access, apps
        self._settings, self._clock, self._poll_s = settings, clock, poll_s
        self._keys, self._key_names = [key for _, key in key_ring], [name for name, _ in key_ring]

    async def see_to(self, record: Record, reach: Reach, *, verify: bool = False) -> Record:
        """Sees that the subscription is what it should be: created, renewed in its last day, made anew where
        the address, the app or the key is another by now, or gone where Graph would not deliver; with `verify` renewed
        in any case, which shows whether Graph still has it. The record as it is then. What goes wrong is noted on it,
        and tried again; only the refusal of a reader is raised."""
        base = await self._settings.notification_base()
        if reach.is_foreign or not base:
            if "subscription" not in record and record.get("notifications") == self._hearing(base).of(record, reach):
                return record
            await self._end(record)
            return await self.tell(record["account"], reach, _without_subscription) or record
        if not self._is_due(record, reach, base, verify) or not (lease := await self._claim(record["account"], record)):
            return record
        try:
            await self._create_or_renew(record, reach, base, lease)
        except (GraphFailure, CredentialError) as failure:
            await self._note_error(record["account"], reach, failure, lease)
            if reach.reader and is_refusal(failure):
                raise
        return await self._accounts.find(record["account"]) or record

    async def tell(
        self, account: str, reach: Reach, change: Callable[[Record], Record | None] = lambda record: record
    ) -> Record | None:
        """Applies a change to the record together with what the account then says of how it hears. A change that
        gives None leaves the record as it is."""
        hearing = self._hearing(await self._settings.notification_base())

        def apply(record: Record) -> Record | None:
            changed = change(record)
            return None if changed is None else changed | {"notifications": hearing.of(changed, reach)}

        return await self._accounts.change(account, apply)

    def _hearing(self, base: str) -> Hearing:
        return Hearing(base, *self._poll_s)

    async def leave_reader(self, record: Record, reach: Reach, failure: GraphFailure | CredentialError) -> None:
        """The reader was refused: its subscription ends, and the person's own token reads until it is tried
        again."""
        await self._end(record)
        noted = {"app": reach.app.id, "client": reach.app.client_id, "problem": str(failure)[:300]}
        noted |= {"refused": iso(self._clock())}
        account = record["account"]
        left = await self._accounts.change(account, lambda r: _without_subscription(r) | {"reader": noted})
        if left is not None:
            await self.tell(account, await self._accounts.reading_reach(left))

    # -- when ----------------------------------------------------------------------------------------------

    def _is_due(self, record: Record, reach: Reach, base: str, verify: bool) -> bool:
        subscription, now = record.get("subscription") or {}, self._clock()
        is_good = subscription.get("id") and not self._is_ending(record) and not self._is_outdated(record, reach, base)
        if is_good and not verify:
            return False
        state = subscription.get("state") or {}
        if state.get("state") != "error" or verify:
            return True
        failed = datetime.fromtimestamp(state["time"] / 1000, tz=UTC)
        wait_s = max(retry_wait_s(state.get("retryCount", 1)), state.get("retryAfter", 0))
        return not failed <= now < failed + timedelta(seconds=wait_s)

    def _made_with(self, reach: Reach, base: str) -> dict[str, str]:
        """What a subscription made now is made with, as the record keeps it."""
        return {"app": reach.app.id, "client": reach.app.client_id, "base": base, "key": self._key_names[0]}

    def _is_outdated(self, record: Record, reach: Reach, base: str) -> bool:
        """True when it leads to another address, belongs to another app, or is proven with a key that may leave the
        ring: Graph lets none of it be changed, so that only another subscription helps."""
        held = record.get("subscribed") or {}
        return any(held.get(name) != value for name, value in self._made_with(reach, base).items())

    def _is_ending(self, record: Record) -> bool:
        left, whole = self._left(record)
        return left <= min(RENEW_BEFORE, whole / 2) or left > whole + SKEW

    def _left(self, record: Record) -> tuple[timedelta, timedelta]:
        """How long the subscription still lasts, and how long it was granted for."""
        held = record.get("subscribed")
        if not held:
            return parse_time(record["subscription"]["expirationDateTime"]) - self._clock(), LIFETIME
        granted = timedelta(seconds=held["granted_s"])
        return parse_time(held["since"]) + granted - self._clock(), granted

    async def _claim(self, account: str, seen: Record) -> str:
        """The lease with which this instance alone may create or renew for the next four minutes; "" without."""
        mine = secrets.token_hex(8)
        doing = "renewing" if (seen.get("subscription") or {}).get("id") else "creating"

        def claim(record: Record) -> Record | None:
            held, now = record.get("subscribing"), self._clock()
            # A lease that ends later than any could is one of a clock gone wrong.
            if held and held["by"] != mine and now < parse_time(held["until"]) <= now + 2 * LEASE:
                return None
            if (record.get("subscription") or {}).get("id") != (seen.get("subscription") or {}).get("id"):
                return None  # another instance was faster and is done
            return _with_state(record, doing, now) | {"subscribing": {"by": mine, "until": iso(now + LEASE)}}

        stored = await self._accounts.change(account, claim)
        return mine if stored is not None and _is_held(stored, mine) else ""

    # -- at Graph ------------------------------------------------------------------------------------------

    async def _create_or_renew(self, record: Record, reach: Reach, base: str, lease: str) -> None:
        subscription_id = (record.get("subscription") or {}).get("id")
        if subscription_id and self._is_outdated(record, reach, base):
            await self._end(record)
            await self._accounts.change(record["account"], _without_a_dead_one)
        elif subscription_id:
            try:
                answer, granted = await self._lasting(
                    lambda ends: self._access.call(reach, lambda c: requests.renew(c, subscription_id, ends))
                )
            except GraphFailure as failure:
                if failure.status != 404:
                    raise
                # Gone at Graph: should none come in its place, the account must not claim push.
                await self._accounts.change(record["account"], _without_a_dead_one)
            else:
                made = {"id": subscription_id} | answer.json()
                await self._keep(record["account"], reach, made, granted, base, lease)
                return
        await self._create(record["account"], reach, base, lease)

    async def _create(self, account: str, reach: Reach, base: str, lease: str) -> None:
        """A new subscription, followed by a look at what changed while there was none."""
        await self._accounts.queue_job(account, "catch_up", SETTLE_S)
        query = f"?account={quote(account, safe='')}"
        body = {
            "changeType": "created,updated,deleted",
            "notificationUrl": f"{base}/oauth/msg/notification{query}",
            "lifecycleNotificationUrl": f"{base}/oauth/msg/lifecycle{query}",
            "resource": reach.mailbox.resource("messages"),
            "clientState": client_state(account, self._keys[0]),
        }
        await self._remove_strays(reach, body["notificationUrl"])
        answer, granted = await self._lasting(
            lambda ends: self._access.call(reach, lambda c: requests.subscribe(c, body | {"expirationDateTime": ends}))
        )
        made = answer.json()
        kept = await self._keep(account, reach, made, granted, base, lease)
        if kept is None or (kept.get("subscription") or {}).get("id") != made["id"]:
            # The account was deleted, or the lease ran out, meanwhile: nobody else knows of this subscription.
            with suppress(GraphFailure, CredentialError):
                await self._access.call(reach, lambda c: requests.unsubscribe(c, made["id"]))

    async def _remove_strays(self, reach: Reach, notification_url: str) -> None:
        """Ends subscriptions of this account that no record knows: a process died before it stored them. Where Graph
        can not be asked they run out by themselves."""
        graph = self._access.graph(reach)
        try:
            request = requests.subscriptions(graph.client)
            async for page in graph.pages(reach.mailbox, reach.app, self._access.token_source(reach), request):
                for one in page.get("value", ()):
                    if one.get("notificationUrl") == notification_url:
                        await self._access.call(reach, lambda c, i=one["id"]: requests.unsubscribe(c, i))  # type: ignore[misc]
        except GraphFailure:
            return

    async def _lasting(self, ask: Callable[[str], Awaitable[Answer]]) -> tuple[Answer, timedelta]:
        """Asks for the usual lifetime; where Graph finds the end too far or in the past, once more by Graph's own
        clock and limit (graph.md 10.3). The answer, and how long the subscription lasts from now on."""
        try:
            answer = await ask(iso(self._clock() + LIFETIME))
        except GraphFailure as failure:
            ends = other_end(failure, self._clock())
            if ends is None:
                raise
            answer = await ask(iso(ends))
        now = _date(answer.headers.get("date", "")) or self._clock()
        return answer, parse_time(answer.json()["expirationDateTime"]) - now

    async def _end(self, record: Record) -> None:
        """Ends the subscription at Graph with the token of the app that made it, as far as Graph can be reached;
        else it runs out by itself."""
        subscription_id = (record.get("subscription") or {}).get("id")
        if not subscription_id:
            return
        app = await self._apps.find((record.get("subscribed") or {}).get("app") or "none")
        try:
            if app is not None and app.is_application:
                await self._access.call_as(app, lambda c: requests.unsubscribe(c, subscription_id))
            else:
                reach = await self._accounts.reach(record)
                await self._access.call(reach, lambda c: requests.unsubscribe(c, subscription_id))
        except (GraphFailure, CredentialError):
            return

    async def remove(self, record: Record) -> None:
        """Ends the subscription of an account that is deleted or leads to another mailbox."""
        await self._end(record)

    # -- lifecycle -----------------------------------------------------------------------------------------

    async def lifecycle(self, account: str, subscription_id: str, event: str) -> None:
        """Acts on a lifecycle notification (graph.md 10.6). Unknown kinds and foreign ids are ignored; each may
        come twice and in any order."""
        record = await self._accounts.find(account)
        current = ((record or {}).get("subscription") or {}).get("id")
        if record is None or (current and current != subscription_id):
            return
        if event == "reauthorizationRequired":
            # Renewing reauthorizes as well (graph.md 10.6), and shows whether Graph still has it.
            await self._accounts.queue_job(account, "subscribe")
        elif event == "subscriptionRemoved":
            await self._accounts.queue_job(account, "subscribe", gone=subscription_id)
        elif event == "missed":
            await self._accounts.queue_job(account, "catch_up")

    async def forget(self, account: str, subscription_id: str) -> bool:
        """Drops a subscription that Graph removed; False when it is not the one in force."""
        record = await self._accounts.find(account)
        if record is None or (record.get("subscription") or {}).get("id") != subscription_id:
            return False
        await self._accounts.change(account, _without_subscription)
        return True

    # -- the record ----------------------------------------------------------------------------------------

    async def _keep(
        self, account: str, reach: Reach, made: dict[str, Any], granted: timedelta, base: str, lease: str
    ) -> Record | None:
        """Stores what Graph gave, unless somebody else has taken over since."""
        now = self._clock()
        state = {"state": "created", "time": int(now.timestamp() * 1000)}
        kept = {"id": made["id"], "expirationDateTime": made["expirationDateTime"], "state": state}
        held = {"since": iso(now), "granted_s": int(granted.total_seconds()), **self._made_with(reach, base)}

        def keep(record: Record) -> Record | None:
            if not _is_held(record, lease):
                return None
            del record["subscribing"]
            return record | {"subscription": kept, "subscribed": held}

        return await self.tell(account, reach, keep)

    async def _note_error(
        self, account: str, reach: Reach, failure: GraphFailure | CredentialError, lease: str
    ) -> None:
        """Notes what went wrong and when it is tried again, unless somebody else has taken over since. A subscription
        that has run out meanwhile is none."""
        now, told_s = self._clock(), math.ceil(getattr(failure, "retry_after_s", None) or 0)
        told = {"retryAfter": told_s} if told_s else {}

        def note(record: Record) -> Record | None:
            if not _is_held(record, lease):
                return None
            del record["subscribing"]
            if (record.get("subscription") or {}).get("id") and self._left(record)[0] <= timedelta(0):
                record = _without_subscription(record, keep_state=True)
            return _with_state(record, "error", now, error=str(failure), **told)

        stored = await self.tell(account, reach, note)
        failures = (((stored or {}).get("subscription") or {}).get("state") or {}).get("retryCount", 1)
        wait_s = max(retry_wait_s(failures), told_s)
        await self._accounts.queue_job(account, "subscribe", wait_s, failures=failures)


def other_end(failure: GraphFailure, now: datetime) -> datetime | None:
    """The end to ask for after Graph refused one: by the time in its answer, within the limit its text names. None
    when the refusal is about something else."""
    if failure.status != 400 or "expiration" not in failure.message.lower():
        return None
    limit = re.search(r"(\d+)\s+minutes", failure.message)
    longest = min(LIFETIME, timedelta(minutes=int(limit[1]) - 5)) if limit else LIFETIME
    return (_date(failure.date) or now) + longest


def _date(header: str) -> datetime | None:
    try:
        return parsedate_to_datetime(header)
    except (ValueError, TypeError, OverflowError):
        return None


def is_being_made(record: Record, now: datetime) -> bool:
    """True while an instance is creating or renewing the account's subscription, whose id may not be stored yet."""
    held = record.get("subscribing")
    return held is not None and parse_time(held["until"]) > now


def _is_held(record: Record, lease: str) -> bool:
    return bool((record.get("subscribing") or {}).get("by") == lease)


def _with_state(record: Record, state: str, now: datetime, **more: str | int) -> Record:
    """The record with the state EmailEngine shows; an error counts as one more in a row."""
    subscription = record.get("subscription") or {}
    failures = (subscription.get("state") or {}).get("retryCount", 0) + (state == "error")
    shown = {"state": state, "time": int(now.timestamp() * 1000), **more, "retryCount": failures}
    return record | {"subscription": subscription | {"state": shown}}


def _without_a_dead_one(record: Record) -> Record:
    lease = {"subscribing": record["subscribing"]} if record.get("subscribing") else {}
    return _without_subscription(record, keep_state=True) | lease


def _without_subscription(record: Record, keep_state: bool = False) -> Record:
    before, turns = record.get("subscription") or {}, record.get("turns") or {}
    state = before.get("state")
    kept = {name: value for name, value in record.items() if name not in OF_SUBSCRIPTION}
    if before.get("id") and turns:
        kept["turns"] = turns | {"wake": True}  # those of push sleep for up to an hour
    return kept | ({"subscription": {"state": state}} if keep_state and state else {})
