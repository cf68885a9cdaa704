"""Events: a stored record first, then a message on the delivery queue.

The record's key is made from what happened to which message, so the same happening seen twice (a repeated
notification, a poll and a push) is one event with one id. Events about one thing lie side by side in the order in
which they happened, so that the delivery of one finds those before it with one query.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

from shared.clock import Clock, iso
from shared.errors import RecordDamaged, StorageConflict
from shared.event_contents import EventContents
from shared.service_settings import ServiceSettings
from shared.storage.keys import digest, storable
from shared.storage.queues import Queues
from shared.storage.tables import Row, Table
from shared.webhook_routing import WebhookRoutes

QUEUE = "webhooks"

# What can become of an event. `queued` waits or is being sent; `held` waits for a paused endpoint; `dead` is kept to
# be looked at and replayed; the others are ends.
QUEUED, HELD, DEAD = "queued", "held", "dead"
DELIVERED, SKIPPED, DISCARDED = "delivered", "skipped", "discarded"

EVENT_TYPES = (
    "accountAdded accountInitialized accountDeleted authenticationSuccess authenticationError connectError "
    "messageNew messageUpdated messageDeleted messageMissing messageSent messageFailed messageDeliveryError "
    "messageBounce messageComplaint mailboxNew mailboxDeleted mailboxReset trackOpen trackClick "
    "listUnsubscribe listSubscribe exportCompleted exportFailed"
).split()


def event_id(account: str, happening: str) -> str:
    """The id of what happened: the same on every instance, for every repeat."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{account}\x00{happening}"))


def event_key(event: str, about: str = "", order: int = 0) -> str:
    """The row key of an event: what it is about, its place among those, its id."""
    return f"{digest(about or event)[:24]}~{order:010d}~{event}"


def id_of(key: str) -> str:
    """The event's id. Records from before events had an order are keyed by it alone."""
    return key.rpartition("~")[2]


def before(key: str) -> tuple[str, str] | None:
    """The range of keys of what happened earlier to the same thing; None when nothing can have."""
    subject, _, rest = key.partition("~")
    order = rest.partition("~")[0]
    return (f"{subject}~", f"{subject}~{order}~") if order.strip("0") else None


def copy_of(row: Row, route: str) -> Row:
    """The event once more, for one webhook route: a record of its own, with its own attempts and its own place in the
    order of what goes to that route. The event's id stays what it was."""
    subject, order, event = row.key.split("~")
    key = f"{digest(subject, route)[:24]}~{order}~{event_id(event, route)}"
    columns = {"state": QUEUED, "attempts": 0, "date": row.value["envelope"]["date"]}
    value = {"envelope": row.value["envelope"], "event": event, "route": route}
    value |= {"contents": row.value["contents"]} if "contents" in row.value else {}
    return Row(row.partition, key, value, columns=columns)


def delivery_job(account: str, key: str, queued: datetime) -> dict[str, Any]:
    """The queue message that asks for one event's delivery."""
    return {"account": account, "event": id_of(key), "key": key, "queued": iso(queued)}


class Events:
    """Records events and puts them on the delivery queue."""

    def __init__(
        self,
        table: Table,
        queues: Queues,
        clock: Clock,
        settings: ServiceSettings,
        contents: EventContents,
        routes: WebhookRoutes,
    ) -> None:
        self._table, self._queues, self._clock, self._settings = table, queues, clock, settings
        self.contents, self._routes = contents, routes
        self.on_event: Callable[[str, str], None] = lambda account, event: None

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
        about: str = "",
        order: int = 0,
    ) -> bool:
        """Records one event and queues its delivery. False when this happening was recorded before.

        `happening` names what happened to what (for instance a message id and "new"); without it the event is
        taken as unique. `about` is the thing it happened to, and `order` (0 to 9,999,999,999) its place: an event is
        delivered after those of a lower order about the same thing. Both must be the same whenever the same
        happening is told. `target` is the account's sealed webhook, kept with an event that outlives the account.
        Two transactions, three for data over what a record holds, and two for each webhook route that wants it. After a
        crash between them the caller runs again, meets its own record, and queues it once more.
        """
        now = self._clock()
        key = event_key(event_id(account, happening) if happening else str(uuid.uuid4()), about, order)
        envelope: dict[str, Any] = {
            "serviceUrl": await self._settings.service_url(),
            "account": account,
            "date": iso(now),
        }
        envelope |= {"path": path} if path is not None else {}
        envelope |= {"specialUse": special_use} if special_use is not None else {}
        kept, contents = await self.contents.lighten(account, key, data)
        envelope |= {"event": event, "data": kept}
        columns = {"state": QUEUED, "attempts": 0, "date": iso(now)}
        value: dict[str, Any] = {"envelope": envelope, "target": target} | ({"contents": contents} if contents else {})
        value |= {"routes": routes} if (routes := await self._routes.wanting(envelope)) else {}
        row = Row(storable(account), key, value, columns=columns)
        try:
            await self._table.insert(row)
        except StorageConflict:
            return await self._resume(account, key)
        self.on_event(account, event)
        await self._queue(row)
        return True

    async def _queue(self, row: Row) -> None:
        """Asks for the delivery of an event, last where it has copies for webhook routes: who finds the event not yet
        looked at finds the copies missing, perhaps, and makes them."""
        await self.spread(row)
        await self._queues.put(QUEUE, delivery_job(row.value["envelope"]["account"], row.key, self._clock()))

    async def spread(self, row: Row) -> None:
        """Makes and queues the event's copies for webhook routes. Those that are there and were looked at stay."""
        for route in row.value.get("routes", ()):
            copy = copy_of(row, route)
            try:
                await self._table.insert(copy)
            except StorageConflict:
                if not await self._is_unseen(copy):
                    continue
            await self._queues.put(QUEUE, delivery_job(copy.value["envelope"]["account"], copy.key, self._clock()))

    async def _is_unseen(self, copy: Row) -> bool:
        try:
            found = await self._table.get(copy.partition, copy.key)
        except RecordDamaged:
            return False
        return found is not None and found.columns["state"] == QUEUED and found.columns["attempts"] == 0

    async def _resume(self, account: str, key: str) -> bool:
        """A record that is there but was never seen by the delivery is queued again. A damaged one was recorded, and
        that will do here."""
        try:
            row = await self._table.get(storable(account), key)
        except RecordDamaged:
            return False
        if row is not None and row.columns["state"] == QUEUED and row.columns["attempts"] == 0:
            await self._queue(row)
        elif row is not None and row.columns["state"] in (DELIVERED, SKIPPED, DISCARDED):
            await self.contents.drop(row)  # written anew just now, for nobody
        return False

    async def seen(self, account: str, happening: str, *, about: str = "", order: int = 0) -> bool:
        """True when an event of this happening was recorded, with the same `about` and `order` as in `emit`. One
        transaction, two when it was not."""
        event = event_id(account, happening)
        for key in (event_key(event, about, order), event):
            try:
                found = await self._table.get(storable(account), key) is not None
            except RecordDamaged:
                found = True
            if found:
                return True
        return False
