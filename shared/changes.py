"""From what Graph says changed to events, the same set whichever way it was heard of.

Two sources feed one rule: notifications (hints about single messages) and delta rounds (the truth of a folder).
A message received since the account began, and not yet reported, is new; any other change of a message is an
update when its flags differ from those reported last, or a deletion when it is gone. What is told is always what
a GET says, never what a page said a moment ago, so that two workers cannot tell an older state after a newer one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach, Record
from shared.clock import Clock, iso, parse_time
from shared.errors import GraphFailure, StorageConflict
from shared.events import Events
from shared.graph import requests
from shared.graph.failures import is_transient
from shared.markers import Marker, Markers
from shared.message_events import MessageEvents, with_flags
from shared.messages import flags_of
from shared.notifications import single
from shared.storage.queues import Queues

# A message is reported as new only while its marker is kept, so that forgetting a marker cannot repeat it.
NEW_FOR = timedelta(days=25)
MARKERS_FOR = timedelta(days=30)
PUT_OFF_S = 60
PUT_OFF_LONGEST_S = 3600
PUT_OFF_TIMES = 30  # about a day; a message that Graph still fails on then is left out and counted
RACES = 8  # times in a row that another worker may be faster with one message
FOLLOWS = 1  # the place of what a new message reports: after its messageNew
LAST = 10**9  # the place of a message's end among its events
CREATED, UPDATED = frozenset({"created"}), frozenset({"updated"})
log = logging.getLogger("graphpost.changes")

# When that happened which was told now and never before; None when nothing was, or nobody knows when.
Told = datetime | None


def tracked_since(record: Record, now: datetime) -> datetime:
    """Messages received from then on are news. Graph keeps whole seconds, so the start is rounded down."""
    started = parse_time(record["notifyFrom"]) if record.get("notifyFrom") else datetime.min.replace(tzinfo=UTC)
    return max(started.replace(microsecond=0), now - NEW_FOR)


def by_message(items: list[list[str]]) -> dict[str, frozenset[str]]:
    """What a batch of hints says of each message, in order of first mention: one fetch answers all of it."""
    found: dict[str, frozenset[str]] = {}
    for change, message_id, *_ in items:
        found[message_id] = found.get(message_id, frozenset()) | {change}
    return found


class Changes:
    """Turns hints and delta rounds into events."""

    def __init__(
        self,
        accounts: Accounts,
        access: Access,
        events: Events,
        texts: MessageEvents,
        markers: Markers,
        queues: Queues,
        clock: Clock,
        is_canary: Callable[[dict[str, Any]], bool],
    ) -> None:
        self._accounts, self._access = accounts, access
        self._events, self._texts, self._markers = events, texts, markers
        self._queues, self._clock, self._is_canary = queues, clock, is_canary

    # -- sources -------------------------------------------------------------------------------------------

    async def hinted(self, account: str, items: list[list[str]], attempt: int = 0) -> None:
        """Works off the entries of one notification queue message: `[change, message id, subscription id]`.
        Raises GraphFailure or CredentialError for what concerns the whole mailbox."""
        record = await self._accounts.find(account)
        if record is None or record.get("sendOnly"):
            return
        reach = await self._accounts.reading_reach(record)
        for message_id, kinds in by_message(items).items():
            try:
                await self.observe(record, reach, message_id, kinds)
            except GraphFailure as failure:
                await self._put_off(record, reach, message_id, failure, attempt)

    async def look_since(self, record: Record, reach: Reach, since: datetime, until: datetime | None = None) -> int:
        """Looks at every message received in that time, one call for a hundred; how many were told for the first
        time, because nothing had told of them before."""
        graph, told = self._access.graph(reach), 0
        request = requests.received_since(graph.client, reach.mailbox, since)
        async for page in graph.pages(reach.mailbox, reach.app, self._access.token_source(reach), request):
            for one in page.get("value", ()):
                if until is not None and parse_time(one["receivedDateTime"]) > until:
                    continue
                try:
                    told += await self.observe(record, reach, one["id"], CREATED) is not None
                except GraphFailure as failure:
                    await self._put_off(record, reach, one["id"], failure)
        return told

    async def entry(self, record: Record, reach: Reach, entry: dict[str, Any], *, first_walk: bool) -> Told:
        """One entry of a folder's delta. On the first walk through a folder, mail from before the account is
        passed over; later, any entry is a change."""
        try:
            return await self._entry(record, reach, entry, first_walk)
        except GraphFailure as failure:
            await self._put_off(record, reach, entry["id"], failure)
            return None

    async def _entry(self, record: Record, reach: Reach, entry: dict[str, Any], first_walk: bool) -> Told:
        if "@removed" not in entry and first_walk and not self._is_news(record, entry):
            return None
        marker = await self._markers.get(record["account"], entry["id"])
        if "@removed" not in entry and marker is not None and await self._is_known(record, entry, marker):
            return None
        return await self.observe(record, reach, entry["id"], UPDATED)

    async def met(
        self, record: Record, reach: Reach, entry: dict[str, Any], walk: str, known: dict[str, Marker]
    ) -> Told:
        """One entry of a folder that is walked anew. `known` are the markers of the folder: each that is met is
        told from those that are not, which `unmet` looks for."""
        try:
            marker = known.get(self._markers.key(entry["id"]))
            if marker is None and (self._is_news(record, entry) or "@removed" in entry):
                marker = await self._markers.get(record["account"], entry["id"])
            if marker is None and not self._is_news(record, entry):
                return None
            if marker is not None and await self._is_known(record, entry, marker, walk):
                return None
            return await self.observe(record, reach, entry["id"], UPDATED, walk)
        except GraphFailure as failure:
            await self._put_off(record, reach, entry["id"], failure)
            return None

    async def markers_of(self, account: str, folder: str) -> dict[str, Marker]:
        """What was reported of the messages last seen in a folder, for `met`."""
        return await self._markers.in_folder(account, folder)

    async def unmet(self, record: Record, reach: Reach, folder: str, walk: str, most: int) -> bool:
        """Asks for the messages that were last seen in a folder and not met by this walk of it: deleted, or moved
        meanwhile. At most so many; True when none is left."""
        found = await self._markers.in_folder(record["account"], folder)
        missing = [one for one in found.values() if one.walk != walk and one.id and not one.canary]
        if missing:
            # A mailbox that is no longer open answers 404 for its messages too (graph.md 9.1): that deletes nothing.
            await self._access.call(reach, lambda c: requests.folder(c, reach.mailbox, "inbox"))
        for marker in missing[:most]:
            try:
                await self.observe(record, reach, marker.id, UPDATED, walk)
            except GraphFailure as failure:
                await self._put_off(record, reach, marker.id, failure)
        return len(missing) <= most

    async def unconfirmed(self, record: Record, reach: Reach, folder: str, since: datetime, met: set[str]) -> None:
        """After a delta round of a folder: asks for messages last seen there ("" for anywhere) that were told of since
        then and that the round did not name. Delta never speaks of what came and went between two of its rounds, so
        their end may be untold."""
        for key, marker in (await self._markers.in_folder(record["account"], folder, iso(since))).items():
            if key in met or marker.canary or not marker.id or not marker.folder:
                continue
            try:
                await self.observe(record, reach, marker.id, UPDATED)
            except GraphFailure as failure:
                await self._put_off(record, reach, marker.id, failure)

    async def _put_off(
        self, record: Record, reach: Reach, message_id: str, failure: GraphFailure, attempt: int = 0
    ) -> None:
        """A message that Graph fails on is asked for again by itself, so that it does not hold up the others;
        what is refused for good is left out and counted. Raises what concerns the whole mailbox."""
        if failure.status in (0, 401, 429, 503):
            raise failure
        if failure.status == 403:  # of the mailbox rather than of the message, when the inbox is refused too
            await self._access.call(reach, lambda c: requests.folder(c, reach.mailbox, "inbox"))
        # 404 for what belongs to a message: it is just being deleted, which the next look tells.
        if (is_transient(failure) or failure.status == 404) and attempt < PUT_OFF_TIMES:
            wait_s = min(PUT_OFF_S * 2**attempt, PUT_OFF_LONGEST_S)
            await self._queues.put_text("notifications", single(record["account"], message_id, attempt + 1), wait_s)
            return
        log.warning("a message was left out: graph answered %s %s", failure.status, failure.code)
        await self._leave_out(record, message_id)

    async def _leave_out(self, record: Record, message_id: str) -> None:
        """Counts a message that was not told as new and that Graph never gives. Should Graph give it after all, it
        is told like one never heard of."""
        account = record["account"]
        marker = await self._markers.get(account, message_id) or Marker(self._markers.key(message_id), message_id)
        if marker.left or marker.canary or (marker.etag and not (marker.pending and marker.changes == 0)):
            return  # counted before, or told as new; an update that was claimed waits until Graph gives the message
        if marker.pending and await self._events.seen(account, _named(record, f"new {message_id}"), about=message_id):
            return  # told by a worker that died before it could note it
        try:
            await self._markers.keep(account, replace(marker, id=message_id, left=True, pending=False))
        except StorageConflict:
            return  # another worker told of it, or left it out and counted it
        await self._accounts.count(account, gaps=1)

    def _is_news(self, record: Record, entry: dict[str, Any]) -> bool:
        received = entry.get("receivedDateTime")
        return "@removed" not in entry and (
            not received or parse_time(received) >= tracked_since(record, self._clock())
        )

    async def _is_known(self, record: Record, entry: dict[str, Any], marker: Marker, walk: str = "") -> bool:
        """True when an entry says what was reported already; then only the place of the message is noted."""
        if marker.canary:
            return True
        # A bare isRead entry says nothing of the other flags (graph.md 5.3).
        is_whole = "isRead" in entry and "flag" in entry
        if not is_whole or marker.pending or marker.left or marker.flags != flags_of(entry):
            return False
        try:
            await self._place(record["account"], entry, marker, walk)
        except StorageConflict:
            return False
        return True

    # -- one message ---------------------------------------------------------------------------------------

    async def observe(
        self, record: Record, reach: Reach, message_id: str, kinds: frozenset[str] = UPDATED, walk: str = ""
    ) -> Told:
        """Something of these `kinds` happened to this message: fetches it and reports what is news."""
        for _ in range(RACES):
            try:
                return await self._observe(record, reach, message_id, kinds, walk)
            except StorageConflict:
                continue  # another worker told something of this message meanwhile: look again
        raise StorageConflict("a message is reported by too many workers at once")

    async def _observe(self, record: Record, reach: Reach, message_id: str, kinds: frozenset[str], walk: str) -> Told:
        account = record["account"]
        marker = await self._markers.get(account, message_id)
        if marker is not None and (marker.canary or (kinds == CREATED and not marker.pending and not marker.left)):
            return None
        try:
            answer = await self._access.call(reach, lambda c: requests.message(c, reach.mailbox, message_id))
        except GraphFailure as failure:
            if failure.status not in (400, 404):
                raise
            await self._check_open(reach)
            await self._gone(record, message_id, marker, created="created" in kinds)
            return None
        message = answer.json()
        if self._is_canary(message):
            await self._markers.note_canary(account, message_id)
            return None
        known = marker if marker is not None and not marker.left else None
        if self._is_news(record, message) and (known is None or (known.pending and known.changes == 0)):
            return await self._new(record, reach, message, marker, walk)
        return await self._updated(record, message, marker, walk)

    async def _check_open(self, reach: Reach) -> None:
        """A shared mailbox that is no longer open answers 404 for its messages too (graph.md 9.1): that deletes
        nothing. GraphFailure with 403 when it is closed, which `_put_off` takes for what it is."""
        try:
            if reach.is_foreign:
                await self._access.call(reach, lambda c: requests.folder(c, reach.mailbox, "inbox"))
        except GraphFailure as failure:
            if failure.status != 404:
                raise
            raise GraphFailure(403, failure.code, failure.message) from None

    async def _gone(self, record: Record, message_id: str, marker: Marker | None, *, created: bool) -> None:
        event = "messageMissing" if created and marker is None else "messageDeleted"
        known = await self._texts.place(record["account"], marker.folder) if marker is not None else None
        path, special_use = known or ("\\All", "\\All")
        await self._emit(
            record, event, {"id": message_id}, f"{event} {message_id}", LAST, path=path, special_use=special_use
        )
        if marker is not None and marker.folder:
            await self._markers.keep(record["account"], replace(marker, folder="", pending=False))

    async def _new(
        self, record: Record, reach: Reach, message: dict[str, Any], marker: Marker | None, walk: str
    ) -> Told:
        account = record["account"]
        if marker is None or (marker.left and not marker.pending):
            fresh = _marker_of(message, marker, walk)  # one that was left out stays so until it was told
            left = marker is not None and marker.left
            marker = await self._markers.keep(account, replace(fresh, changes=0, pending=True, left=left))
        # As claimed, perhaps by a worker that died after it: the same event again.
        news = await self._texts.new(account, reach, with_flags(message, marker.flags))
        first = await self._emit(record, "messageNew", news.data, f"new {message['id']}", 0, path=news.path)
        for one in news.followups:
            await self._emit(record, one.event, one.data, one.happening, FOLLOWS, about=message["id"])
        marker = await self._markers.keep(account, replace(marker, pending=False, left=False))
        await self._updated(record, message, marker, walk)
        return parse_time(message["receivedDateTime"]) if first and message.get("receivedDateTime") else None

    async def _updated(self, record: Record, message: dict[str, Any], marker: Marker | None, walk: str) -> Told:
        account, first = record["account"], False
        if marker is not None and marker.pending:
            await self._emit_update(record, message, marker)
            marker = await self._markers.keep(account, replace(marker, pending=False))
        if marker is not None and not marker.left and marker.flags == flags_of(message):
            await self._place(account, message, marker, walk)
            return None
        claimed = await self._markers.keep(account, replace(_marker_of(message, marker, walk), pending=True))
        first = await self._emit_update(record, message, claimed)
        await self._markers.keep(account, replace(claimed, pending=False))
        changed = message.get("lastModifiedDateTime")
        return parse_time(changed) if first and changed else None

    async def _place(self, account: str, message: dict[str, Any], marker: Marker, walk: str) -> None:
        """Notes where a message is now, and the walk that met it, when that is news."""
        folder = message.get("parentFolderId") or marker.folder
        placed = replace(marker, id=message["id"], folder=folder, walk=walk or marker.walk)
        if placed != marker:
            await self._markers.keep(account, placed)

    # -- events --------------------------------------------------------------------------------------------

    async def _emit_update(self, record: Record, message: dict[str, Any], marker: Marker) -> bool:
        data, path = await self._texts.update(record["account"], message, marker.flags)
        happening = f"updated {message['id']} {marker.changes} {' '.join(marker.flags)}"
        return await self._emit(record, "messageUpdated", data, happening, marker.changes, path=path)

    async def _emit(
        self,
        record: Record,
        event: str,
        data: dict[str, Any],
        happening: str,
        order: int,
        about: str = "",
        **place: str | None,
    ) -> bool:
        """Every event about a message goes through here; True when it was not recorded before. `order` is its
        place among the events of its message, which `about` names where the data does not begin with its id."""
        return await self._events.emit(
            record["account"],
            event,
            data,
            happening=_named(record, happening),
            about=about or data["id"],
            order=order,
            **place,
        )

    async def forget(self, account: str) -> None:
        """Removes the markers of a deleted account."""
        await self._markers.forget(account)

    async def sweep(self, older_than: timedelta) -> int:
        """Removes markers not touched for that long; the number removed."""
        return await self._markers.sweep(older_than)


def _named(record: Record, happening: str) -> str:
    """The happening under the name it is told by: after a flush everything may be told once more."""
    return f"{happening} after {record['flushed']}" if record.get("flushed") else happening


def _marker_of(message: dict[str, Any], before: Marker | None, walk: str) -> Marker:
    """The marker of a message as it is now, one change after `before`."""
    changes = before.changes + 1 if before is not None and not before.left else 1
    return Marker(
        key=Markers.key(message["id"]),
        id=message["id"],
        flags=flags_of(message),
        changes=changes,
        folder=message.get("parentFolderId") or "",
        walk=walk or (before.walk if before else ""),
        etag=before.etag if before else "",
    )
