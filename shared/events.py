"""Events: a stored record first, then a message on the delivery queue.

The record's key is made from what happened to which message, so the same happening seen twice (a repeated
notification, a poll and a push) is one event with one id. Events about one thing lie side by side in the order in
which they happened, so that the delivery of one finds those before it with one query.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from shared.clock import Clock, iso
from shared.errors import RecordDamaged, StorageConflict
from shared.event_contents import EventContents
from shared.service_settings import ServiceSettings
from shared.storage.keys import digest, storable
from shared.storage.queues import Queues
from shared.storage.tables import Row, Table

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


def delivery_job(account: str, key: str, queued: datetime) -> dict[str, Any]:
    """The queue message that asks for one event's delivery."""
    return {"account": account, "event": id_of(key), "key": key, "queued": iso(queued)}


class Events:
    """Records events and puts them on the delivery queue."""

    def __init__(
        self, table: Table, queues: Queues, clock: Clock, settings: ServiceSettings, contents: EventContents
    ) -> None:
        self._table, self._queues, self._clock, self._settings = table, queues, clock, settings
        self.contents = contents

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
        Two transactions, three for data over what a record holds. After a crash between them the caller runs again,
        meets its own record, and queues it once more.
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
        value = {"envelope": envelope, "target": target} | ({"contents": contents} if contents else {})
        row = Row(storable(account), key, value, columns=columns)
        try:
            await self._table.insert(row)
        except StorageConflict:
            return await self._resume(account, key)
        await self._queues.put(QUEUE, delivery_job(account, key, now))
        return True

    async def _resume(self, account: str, key: str) -> bool:
        """A record that is there but was never seen by the delivery is queued again. A damaged one was recorded, and
        that will do here."""
        try:
            row = await self._table.get(storable(account), key)
        except RecordDamaged:
            return False
        if row is not None and row.columns["state"] == QUEUED and row.columns["attempts"] == 0:
            await self._queues.put(QUEUE, delivery_job(account, key, self._clock()))
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
