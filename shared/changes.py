"""From what Graph says changed to events, the same set whichever way it was heard of.

Two sources feed one rule: notifications (hints about single messages) and delta rounds (the truth of a folder).
A message received since the account began, and not yet reported, is new; any other change of a message is an
update when its flags differ from those reported last, or a deletion when it is gone.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach, Record
from shared.clock import Clock, iso, parse_time
from shared.errors import GraphFailure, StorageConflict
from shared.graph import requests
from shared.graph.failures import is_transient
from shared.mailboxes import Mailboxes
from shared.messages import attachment_view, cut, flags_of, headers_of, message_view, text_part
from shared.notifications import single
from shared.service_settings import ServiceSettings
from shared.storage.keys import digest, storable
from shared.storage.queues import Queues
from shared.storage.tables import Row, Table
from shared.vault import encode
from shared.webhooks import Events

# A message is reported as new only while its marker is kept, so that forgetting a marker cannot repeat it.
NEW_FOR = timedelta(days=25)
MARKERS_FOR = timedelta(days=30)
CATCH_UP_MARGIN = timedelta(minutes=2)
PUT_OFF_S = 60
LARGEST_TEXT = 300_000  # bytes of text in an event: its record holds less than a megabyte
log = logging.getLogger("graphpost.changes")


def tracked_since(record: Record, now: datetime) -> datetime:
    """Messages received from then on are news. Graph keeps whole seconds, so the start is rounded down."""
    started = parse_time(record["notifyFrom"]) if record.get("notifyFrom") else datetime.min.replace(tzinfo=UTC)
    return max(started.replace(microsecond=0), now - NEW_FOR)


class Changes:
    """Turns hints and delta rounds into events."""

    def __init__(
        self,
        accounts: Accounts,
        access: Access,
        mailboxes: Mailboxes,
        events: Events,
        settings: ServiceSettings,
        markers: Table,
        queues: Queues,
        clock: Clock,
    ) -> None:
        self._accounts, self._access, self._mailboxes = accounts, access, mailboxes
        self._events, self._settings, self._markers = events, settings, markers
        self._queues, self._clock = queues, clock

    # -- sources -------------------------------------------------------------------------------------------

    async def hinted(self, account: str, items: list[list[str]]) -> None:
        """Works off the entries of one notification queue message: `[change, message id, subscription id]`."""
        record = await self._accounts.find(account)
        if record is None:
            return
        reach = await self._accounts.reach(record)
        # Not compared with the stored subscription: clientState proved the account, and a subscription made a
        # moment ago may speak before its id is stored.
        for change, message_id, *_ in items:
            try:
                await self.observe(record, reach, message_id, created=change == "created")
            except GraphFailure as failure:
                await self.put_off(account, message_id, failure)

    async def put_off(self, account: str, message_id: str, failure: GraphFailure) -> None:
        """A message that Graph fails on is asked for again by itself, so that it does not hold up the others;
        what is refused for good is left to the next catch-up. Raises what concerns the whole mailbox."""
        if failure.status in (0, 401, 429, 503):
            raise failure
        if is_transient(failure):
            await self._queues.put_text("notifications", single(account, message_id), PUT_OFF_S)
        else:
            log.warning("a message was left out: graph answered %s %s", failure.status, failure.code)

    async def catch_up(self, account: str) -> None:
        """Looks for messages received since shortly before the last contact: for push accounts whose
        notifications may have been lost, and for mailboxes whose first walk is still under way."""
        record = await self._accounts.find(account)
        if record is None or record.get("sendOnly"):
            return
        reach = await self._accounts.reach(record)
        now = self._clock()
        heard = parse_time(record.get("heardUntil") or record["created"])
        since = max(heard - CATCH_UP_MARGIN, tracked_since(record, now))
        graph = self._access.graph(reach)
        request = requests.received_since(graph.client, reach.mailbox, since)
        async for page in graph.pages(reach.mailbox, reach.app, self._access.token_source(reach), request):
            found = [["created", one["id"]] for one in page.get("value", ())]
            await self.hinted(account, found)
        await self._accounts.note_contact(account, now, heard=True)

    async def entry(self, record: Record, reach: Reach, entry: dict[str, Any], *, first_walk: bool) -> None:
        """One entry of a folder's delta. On the first walk through a folder, mail from before the account is
        passed over; later, any entry is a change."""
        try:
            await self._entry(record, reach, entry, first_walk)
        except GraphFailure as failure:
            await self.put_off(record["account"], entry["id"], failure)

    async def _entry(self, record: Record, reach: Reach, entry: dict[str, Any], first_walk: bool) -> None:
        if "@removed" in entry:
            await self._maybe_deleted(record, reach, entry["id"])
            return
        received = entry.get("receivedDateTime")
        is_news = not received or parse_time(received) >= tracked_since(record, self._clock())
        if first_walk and not is_news:
            return
        marker = await self._marker(record["account"], entry["id"])
        # A bare isRead entry says nothing of the other flags (graph.md 5.3).
        is_whole = "isRead" in entry and "flag" in entry
        if (marker is None and is_news) or not is_whole:
            await self.observe(record, reach, entry["id"])
        else:
            await self._updated(record, entry, marker)

    # -- one message ---------------------------------------------------------------------------------------

    async def observe(self, record: Record, reach: Reach, message_id: str, created: bool = False) -> None:
        """Something happened to this message: fetches it and reports what is news."""
        marker = await self._marker(record["account"], message_id)
        if marker is not None and created:
            return
        try:
            answer = await self._access.call(reach, lambda c: requests.message(c, reach.mailbox, message_id))
        except GraphFailure as failure:
            if failure.status not in (400, 404):
                raise
            await self._gone(record, message_id, known=marker is not None, created=created)
            return
        message = answer.json()
        received = message.get("receivedDateTime")
        if marker is None and received and parse_time(received) >= tracked_since(record, self._clock()):
            await self._new(record, reach, message)
        else:
            await self._updated(record, message, marker)

    async def _maybe_deleted(self, record: Record, reach: Reach, message_id: str) -> None:
        """Removed from one folder: moved, or deleted when a GET says it is gone."""
        try:
            await self._access.call(reach, lambda c: requests.message(c, reach.mailbox, message_id))
        except GraphFailure as failure:
            if failure.status not in (400, 404):
                raise
            await self._gone(record, message_id, known=True, created=False)

    async def _gone(self, record: Record, message_id: str, *, known: bool, created: bool) -> None:
        event = "messageMissing" if created and not known else "messageDeleted"
        await self._events.emit(
            record["account"], event, {"id": message_id}, path="\\All", special_use="\\All",
            happening=f"{event} {message_id}",
        )  # fmt: skip

    async def _new(self, record: Record, reach: Reach, message: dict[str, Any]) -> None:
        account, folder = record["account"], message.get("parentFolderId") or ""
        tree = await self._mailboxes.tree(account, reach, needs=folder or None)
        attachments = await self._attachments(reach, message)
        data = message_view(message, attachments)
        special_use = tree.special_use(folder)
        if special_use:
            data["messageSpecialUse"] = special_use
        data["seemsLikeNew"] = special_use != "\\Sent" and await self._first_with_id(account, message)
        await self._trim(data, message)
        path = tree.path(folder)
        await self._events.emit(account, "messageNew", data, path=path, happening=f"new {message['id']}")
        await self._mark(account, message["id"], {"flags": flags_of(message), "changes": 0})

    async def _updated(self, record: Record, message: dict[str, Any], marker: Row | None) -> None:
        flags = flags_of(message)
        if marker is not None and marker.value["flags"] == flags:
            return
        account, number = record["account"], marker.value["changes"] + 1 if marker else 1
        tree = await self._mailboxes.stored(account)
        path = tree.path(message.get("parentFolderId") or "") if tree else None
        data: dict[str, Any] = {"id": message["id"], "changes": {"flags": {"value": flags}}}
        if message.get("conversationId"):
            data["threadId"] = message["conversationId"]
        happening = f"updated {message['id']} {number} {' '.join(flags)}"
        await self._events.emit(account, "messageUpdated", data, path=path, happening=happening)
        await self._mark(account, message["id"], {"flags": flags, "changes": number})

    async def _attachments(self, reach: Reach, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Listed only when there can be some: one call more (graph.md 3.1)."""
        _, content = text_part(message)
        if not message.get("hasAttachments") and "cid:" not in content:
            return []
        answer = await self._access.call(reach, lambda c: requests.attachments(c, reach.mailbox, message["id"]))
        found = answer.json().get("value", ())
        return [attachment_view(_attachment_id(message["id"], one["id"]), one) for one in found]

    async def _trim(self, data: dict[str, Any], message: dict[str, Any]) -> None:
        """Leaves what the settings let out: chosen headers, and the text when asked for (18.4)."""
        settings = await self._settings.all()
        wanted = {name.lower() for name in settings.get("notifyHeaders") or ()}
        headers = {k: v for k, v in headers_of(message).items() if k in wanted or "*" in wanted}
        data.pop("headers", None)
        if headers:
            data["headers"] = headers
        if settings.get("notifyText"):
            kind, content = text_part(message)
            limit = settings.get("notifyTextSize")
            shown, has_more = cut(content, LARGEST_TEXT if limit is None else min(limit, LARGEST_TEXT))
            data["text"] |= {kind: shown, "hasMore": has_more}

    # -- markers -------------------------------------------------------------------------------------------

    async def _marker(self, account: str, message_id: str) -> Row | None:
        return await self._markers.get(storable(account), digest("message", message_id))

    async def _mark(self, account: str, message_id: str, value: dict[str, Any]) -> None:
        value = value | {"at": iso(self._clock())}
        await self._markers.put(Row(storable(account), digest("message", message_id), value))

    async def _first_with_id(self, account: str, message: dict[str, Any]) -> bool:
        """True when no other message with this Message-ID was reported: an estimate, as in the contract."""
        header = message.get("internetMessageId")
        if not header:
            return True
        row = Row(storable(account), digest("message-id", header), {"message": message["id"], "at": iso(self._clock())})
        try:
            await self._markers.insert(row)
        except StorageConflict:
            found = await self._markers.get(row.partition, row.key)
            return found is None or found.value["message"] == message["id"]
        return True

    async def forget(self, account: str) -> None:
        """Removes the markers of a deleted account."""
        for row in await self._markers.partition(storable(account)):
            await self._markers.delete(row.partition, row.key)

    async def sweep(self, older_than: timedelta) -> int:
        """Removes markers not touched for that long; the number removed."""
        limit, removed = iso(self._clock() - older_than), 0
        async for row in self._markers.scan():
            if row.value["at"] < limit:
                removed += await self._markers.delete(row.partition, row.key)
        return removed


def _attachment_id(message_id: str, attachment_id: str) -> str:
    """Opaque to clients: the message and the attachment in one id (1.6)."""
    return encode(f"{message_id}\n{attachment_id}".encode())
