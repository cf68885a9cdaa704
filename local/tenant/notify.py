"""Keeps the subscriptions and posts what they are owed (graph.md 10.4 to 10.6)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
from yarl import URL

from .mailbox import Change
from .message_json import etag
from .subscriptions import Subscription, is_loopback, long_time, validation_error
from .wire_time import to_wire

if TYPE_CHECKING:
    from .world import World

HANDSHAKE_TIMEOUT_S = 10.0  # graph.md 10.4 [D]
ANSWER_TIMEOUT_S = 3.0  # graph.md 10.5 [D]
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 600.0
GIVE_UP_AFTER_S = 4 * 3600.0  # graph.md 10.5 [D]
MOST_ENTRIES_PER_POST = 50
KEPT_POSTS = 10_000


@dataclass(slots=True)
class Post:
    """One payload and the answers it got: a status, or the name of the failure."""

    subscription_id: str | None
    url: str
    payload: Any
    attempts: list[int | str] = field(default_factory=list)

    @property
    def delivered(self) -> bool:
        last = self.attempts[-1] if self.attempts else None
        return isinstance(last, int) and 200 <= last < 300


class Notifier:
    """Turns changes into notifications. Nothing here runs inside the request that caused the change."""

    def __init__(self, world: World) -> None:
        # A reset world brings a new notifier; the tasks of the old one must not post any more.
        previous = getattr(world, "notifier", None)
        if isinstance(previous, Notifier):
            previous.abandon()
        self.subscriptions: dict[str, Subscription] = {}
        self.posts: deque[Post] = deque(maxlen=KEPT_POSTS)
        self._world = world
        self._pending: dict[str, list[dict[str, Any]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._session: aiohttp.ClientSession | None = None
        world.mail.listeners.append(self.on_change)

    # -- subscriptions ------------------------------------------------------------------------------------

    def add(self, subscription: Subscription) -> None:
        """Starts watching; with a filter, what fits already is known from the start."""
        if subscription.filter is not None:
            messages = subscription.mailbox.messages.values()
            subscription.matching = {m.immutable_id for m in messages if subscription.fits(m)}
        self.subscriptions[subscription.id] = subscription

    def find(self, subscription_id: str) -> Subscription | None:
        """The subscription if it is alive; an expired one is forgotten here."""
        found = self.subscriptions.get(subscription_id)
        if found is not None and found.expires_at <= self._world.clock.now():
            del self.subscriptions[subscription_id]
            return None
        return found

    def alive(self) -> list[Subscription]:
        return [entry for key in list(self.subscriptions) if (entry := self.find(key)) is not None]

    def remove(self, subscription_id: str) -> None:
        self.subscriptions.pop(subscription_id, None)
        self._pending.pop(subscription_id, None)

    # -- handshake ----------------------------------------------------------------------------------------

    async def validate(self, url: str) -> None:
        """Raises 400 ValidationError unless `url` answers the validation call (graph.md 10.4 [D])."""
        reached = "Testing client application reachability for subscription"
        token = f"Validation: {reached} Request-Id: {self._world.new_guid()}"
        try:
            status, kind, text = await self._validation_answer(url, token)
        except TimeoutError:
            raise validation_error("Subscription validation request timed out.") from None
        except aiohttp.ClientError:
            status, kind, text = 0, "", ""
        if status != 200 or kind != "text/plain" or text != token:
            message = "Notification endpoint must respond with 200 OK to validation request."
            raise validation_error(f"Subscription validation request failed. {message}")

    async def _validation_answer(self, url: str, token: str) -> tuple[int, str, str]:
        timeout = aiohttp.ClientTimeout(total=HANDSHAKE_TIMEOUT_S)
        async with self._client().post(
            URL(url).update_query(validationToken=token),
            data=b"",
            headers={"Content-Type": "text/plain; charset=utf-8"},
            timeout=timeout,
            allow_redirects=False,
            ssl=not is_loopback(url),
        ) as response:
            return response.status, response.content_type, await response.text()

    # -- changes ------------------------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """Queues what the change means to each subscription and starts its delivery."""
        for subscription in self.alive():
            found = subscription.concerns(change)
            if found and not subscription.silent and not subscription.paused:
                entries = [self._entry(subscription, change, kind, item_id) for kind, item_id in found]
                self._enqueue(subscription, entries)

    def _entry(self, subscription: Subscription, change: Change, kind: str, item_id: str) -> dict[str, Any]:
        """One entry of graph.md 10.5."""
        resource = f"Users/{subscription.mailbox.principal.id}/Messages/{item_id}"
        return {
            "id": f"lsg{self._world.random.getrandbits(60):015x}",
            "subscriptionId": subscription.id,
            "subscriptionExpirationDateTime": long_time(subscription.expires_at) + "+00:00",
            "clientState": subscription.client_state,
            "changeType": kind,
            "resource": resource,
            "tenantId": self._world.directory.tenant_id,
            "resourceData": {
                "@odata.type": "#Microsoft.Graph.Message",
                "@odata.id": resource,
                "@odata.etag": etag(change.message),
                "id": item_id,
            },
        }

    def _enqueue(self, subscription: Subscription, entries: list[dict[str, Any]]) -> None:
        chance = self._world.switches.notification_loss
        kept = [entry for entry in entries if not (chance and self._world.random.random() < chance)]
        if not kept:
            return
        waiting = self._pending.setdefault(subscription.id, [])
        waiting += kept
        if len(waiting) == len(kept):
            self._start(self._flush(subscription))

    async def _flush(self, subscription: Subscription) -> None:
        """Waits a moment so that entries gather, then posts them."""
        await asyncio.sleep(self._world.switches.notification_delay_s)
        entries = self._pending.pop(subscription.id, [])
        switches = self._world.switches
        if switches.notification_shuffle:
            self._world.random.shuffle(entries)
        for start in range(0, len(entries), MOST_ENTRIES_PER_POST):
            payload = {"value": entries[start : start + MOST_ENTRIES_PER_POST]}
            for _ in range(max(1, int(switches.notification_repeat))):
                post = self._record(subscription.id, subscription.notification_url, payload)
                self._start(self._post_until_taken(post))

    async def _post_until_taken(self, post: Post) -> None:
        """Posts with growing pauses until a 2xx comes, for up to four hours (graph.md 10.5 [D])."""
        pause_s, waited_s = FIRST_RETRY_S, 0.0
        while not await self._post(post) and waited_s < GIVE_UP_AFTER_S:
            await asyncio.sleep(pause_s)
            waited_s += pause_s
            pause_s = min(pause_s * 2, LONGEST_RETRY_S)

    async def _post(self, post: Post, headers: dict[str, str] | None = None) -> bool:
        try:
            async with self._client().post(
                post.url,
                json=post.payload,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S),
                allow_redirects=False,
                ssl=not is_loopback(post.url),
            ) as response:
                post.attempts.append(response.status)
        except (aiohttp.ClientError, TimeoutError) as failure:
            post.attempts.append(type(failure).__name__)
        return post.delivered

    # -- for control --------------------------------------------------------------------------------------

    def dump(self) -> list[dict[str, Any]]:
        """Every living subscription with its hidden state and the posts made for it."""
        return [
            {
                **subscription.as_json(),
                "mailbox": subscription.mailbox.principal.upn,
                "immutableIds": subscription.immutable_ids,
                "silent": subscription.silent,
                "paused": subscription.paused,
                "posts": [
                    {"url": post.url, "payload": post.payload, "attempts": list(post.attempts)}
                    for post in list(self.posts)
                    if post.subscription_id == subscription.id
                ],
            }
            for subscription in self.alive()
        ]

    async def lifecycle(self, subscription_id: str, event: str) -> bool:
        """Makes a lifecycle event happen (graph.md 10.6); True when it was posted.

        KeyError for an unknown subscription. Without a lifecycle URL nothing is posted; the effect remains.
        """
        subscription = self.find(subscription_id)
        if subscription is None:
            raise KeyError(subscription_id)
        if event == "reauthorizationRequired":
            subscription.paused = True
        elif event == "subscriptionRemoved":
            self.remove(subscription_id)
        if subscription.lifecycle_url is None:
            return False
        entry = {
            "subscriptionId": subscription.id,
            "subscriptionExpirationDateTime": to_wire(subscription.expires_at),
            "tenantId": self._world.directory.tenant_id,
            "clientState": subscription.client_state,
            "lifecycleEvent": event,
        }
        post = self._record(subscription.id, subscription.lifecycle_url, {"value": [entry]})
        self._start(self._post_until_taken(post))
        return True

    async def resend(self, subscription_id: str | None) -> int:
        """Posts everything posted before once more (of one subscription, or all); how many posts."""
        past = [p for p in self.posts if subscription_id is None or p.subscription_id == subscription_id]
        copies = [Post(post.subscription_id, post.url, post.payload) for post in past]
        self.posts.extend(copies)
        await asyncio.gather(*(self._post(post) for post in copies))
        return len(copies)

    async def forge(self, url: str, payload: Any, headers: dict[str, str] | None = None) -> int | str:
        """Posts any payload to any URL, as an attacker could; the status or the name of the failure."""
        post = self._record(None, url, payload)
        await self._post(post, headers)
        return post.attempts[-1]

    async def close(self) -> None:
        """Stops deliveries and closes connections; safe to call twice."""
        self.abandon()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._session = None

    def abandon(self) -> None:
        """Cancels what is under way, without waiting."""
        for task in self._tasks:
            task.cancel()
        self.subscriptions.clear()
        self._pending.clear()
        if self._session is not None and not self._session.closed:
            closing = asyncio.ensure_future(self._session.close())
            self._tasks.add(closing)
            closing.add_done_callback(self._tasks.discard)

    # -- inside -------------------------------------------------------------------------------------------

    def _record(self, subscription_id: str | None, url: str, payload: Any) -> Post:
        post = Post(subscription_id, url, payload)
        self.posts.append(post)
        return post

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession()
        return self._session
