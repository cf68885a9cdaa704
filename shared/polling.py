"""Polling: the delta of each folder, for mailboxes that Graph sends no notifications about.

Where each folder stands is kept as a link that Graph gave (graph.md 5.3), and moved on only after what its page
said was made durable. A turn looks into a few folders; a quiet one writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from shared.access import Access
from shared.accounts import QUEUE, Accounts, Reach, Record
from shared.changes import Changes
from shared.clock import Clock, parse_time
from shared.errors import CredentialError, GraphFailure, StorageConflict
from shared.graph import requests
from shared.graph.failures import is_transient
from shared.mailboxes import Mailboxes, Tree
from shared.schedule import Schedule
from shared.storage.keys import digest, storable
from shared.storage.tables import Row, Table

PAGES_PER_TURN = 20
OTHERS_PER_TURN = 3
CURSOR_KEPT_S = 3600
CONTACT_NOTED_S = 300
EXPIRED = (400, 410)  # a cursor that is broken, forgotten, or of another host
OUTAGE = 3  # failed turns in a row before the account's state tells of it
SLOWED = 5  # times the interval between turns while Graph or the login service refuses


@dataclass(frozen=True)
class Cursor:
    """Where the delta of one folder stands: `link` is the next page or the next round. `first_walk` holds until
    the first round is through. `kept` is when it was stored, in epoch seconds."""

    folder: str
    link: str = ""
    first_walk: bool = True
    kept: float = 0
    etag: str = ""


def folders_to_ask(tree: Tree, known: set[str], changed: list[str], turn: int) -> list[str]:
    """The folders one turn looks into: the inbox and Sent Items, those whose counts changed, those never asked,
    and a few of the others, so that every folder has its turn however many there are."""
    always = [tree.folder_with("\\Inbox"), tree.folder_with("\\Sent")]
    first = [f for f in always if f] + [f for f in changed if f in tree.folders]
    unasked = [f for f in tree.folders if f not in known]
    others = [f for f in tree.folders if f in known and f not in first]
    start = turn * OTHERS_PER_TURN % len(others) if others else 0
    return list(dict.fromkeys([*first, *unasked, *(others + others)[start : start + OTHERS_PER_TURN]]))


class Polling:
    """Asks mailboxes for changes, turn by turn."""

    def __init__(
        self,
        accounts: Accounts,
        access: Access,
        mailboxes: Mailboxes,
        changes: Changes,
        schedule: Schedule,
        cursors: Table,
        clock: Clock,
        interval_s: int,
    ) -> None:
        self._accounts, self._access, self._mailboxes = accounts, access, mailboxes
        self._changes, self._schedule, self._cursors = changes, schedule, cursors
        self._clock, self._interval_s = clock, interval_s

    async def turn(self, job: dict[str, Any]) -> None:
        """One turn. A failure of Graph ends the turn, never the chain of turns."""
        record = await self._accounts.find(job["account"])
        if record is None or (record.get("turns") or {}).get("chain") != job["chain"]:
            await self._schedule.end_chain(job)
            return
        wait_s, failures = float(self._interval_s), 0
        try:
            if record["state"] != "connected":
                wait_s *= SLOWED
            else:
                await self.poll(record)
        except CredentialError:
            wait_s *= SLOWED  # noted on the holder by the call itself
        except GraphFailure as failure:
            wait_s = max(wait_s, failure.retry_after_s or 0) if is_transient(failure) else SLOWED * wait_s
            failures = job.get("failures", 0) + 1
            if not is_transient(failure) or failures == OUTAGE:
                await self._accounts.queue_job(job["account"], "initialise", force=True)
        bare = {name: job[name] for name in ("account", "do", "chain", "due")} | {"failures": failures}
        await self._schedule.continue_chain(QUEUE, bare, self._clock() + timedelta(seconds=wait_s))

    async def poll(self, record: Record) -> None:
        """Asks for changes: one call for the folder tree and one for each folder looked into."""
        account, now = record["account"], self._clock()
        reach = await self._accounts.reach(record)
        tree, changed = await self._mailboxes.refresh(account, reach, await self._mailboxes.stored(account))
        cursors = await self._stored(account)
        if tree.link:  # without one the tree is not the whole of it
            for gone in set(cursors) - set(tree.folders):
                await self._cursors.delete(storable(account), digest(gone))
        pages, walking = PAGES_PER_TURN, False
        for folder in folders_to_ask(tree, set(cursors), changed, int(now.timestamp() / self._interval_s)):
            if pages > 0:
                cursor, read = await self._ask(record, reach, cursors.get(folder) or Cursor(folder), pages)
                pages, walking = pages - read, walking or cursor.first_walk
        if walking:
            await self._changes.catch_up(account)  # a long first walk must not hold up what arrives meanwhile
        elif self._is_contact_old(record):
            await self._accounts.note_contact(account, now, heard=True)

    def _is_contact_old(self, record: Record) -> bool:
        noted = record.get("syncTime")
        return not noted or self._clock() - parse_time(noted) > timedelta(seconds=CONTACT_NOTED_S)

    # -- one folder ----------------------------------------------------------------------------------------

    async def _ask(self, record: Record, reach: Reach, before: Cursor, pages: int) -> tuple[Cursor, int]:
        """Follows one folder's delta for at most so many pages; where it stands now, and the pages read. The
        cursor is stored after each page that said something, so that a long round is not begun again."""
        cursor, read = before, 0
        while read < pages:
            page, cursor = await self._page(reach, cursor)
            read += 1
            if page is None:
                await self._cursors.delete(storable(record["account"]), digest(cursor.folder))
                return replace(cursor, first_walk=False), read  # the folder went away since the tree was read
            for entry in page.get("value", ()):
                await self._changes.entry(record, reach, entry, first_walk=cursor.first_walk)
            following = page.get("@odata.nextLink")
            cursor = replace(cursor, link=following or page.get("@odata.deltaLink", ""))
            cursor = replace(cursor, first_walk=cursor.first_walk and bool(following))
            if page.get("value") or following or self._is_due(cursor, before):
                cursor = await self._keep(record["account"], cursor)
            if not following:
                break
        return cursor, read

    def _is_due(self, cursor: Cursor, before: Cursor) -> bool:
        """After an empty round the older link serves as well, so that a quiet folder costs no write; links do not
        live for ever, so once an hour the newer one is kept all the same."""
        return cursor.first_walk != before.first_walk or self._clock().timestamp() - before.kept > CURSOR_KEPT_S

    async def _page(self, reach: Reach, cursor: Cursor) -> tuple[dict[str, Any] | None, Cursor]:
        """The page behind a cursor, or the first of a new walk when there is none or it expired. None when the
        folder is gone."""
        graph, token = self._access.graph(reach), self._access.token_source(reach)
        if cursor.link:
            try:
                answer = await graph.call(reach.mailbox, reach.app, token, graph.follow(cursor.link))
                return answer.json(), cursor
            except GraphFailure as failure:
                if failure.status not in EXPIRED:
                    raise
        cursor = replace(cursor, link="", first_walk=True)
        request = requests.messages_delta(graph.client, reach.mailbox, cursor.folder)
        try:
            return (await graph.call(reach.mailbox, reach.app, token, request)).json(), cursor
        except GraphFailure as failure:
            if failure.status != 404:
                raise
        return None, cursor

    # -- cursors -------------------------------------------------------------------------------------------

    async def _stored(self, account: str) -> dict[str, Cursor]:
        rows = await self._cursors.partition(storable(account))
        return {row.value["folder"]: Cursor(**row.value, etag=row.etag) for row in rows}

    async def _keep(self, account: str, cursor: Cursor) -> Cursor:
        """The cursor as stored."""
        now = self._clock().timestamp()
        value = {"folder": cursor.folder, "link": cursor.link, "first_walk": cursor.first_walk, "kept": now}
        row = Row(storable(account), digest(cursor.folder), value, cursor.etag)
        try:
            stored = await (self._cursors.replace(row) if cursor.etag else self._cursors.insert(row))
        except StorageConflict:
            return cursor  # another turn of the same mailbox was faster; its cursor is as good
        return replace(cursor, kept=now, etag=stored.etag)

    async def forget(self, account: str) -> None:
        """Removes the cursors of a deleted account."""
        for row in await self._cursors.partition(storable(account)):
            await self._cursors.delete(row.partition, row.key)
