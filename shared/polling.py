"""Delta rounds: what changed in the folders of a mailbox, the truth behind every notification.

Where each folder stands is kept as a link that Graph gave (graph.md 5.3), and moved on only after what its page
said was made durable. A quick round looks into the inbox, what the folder tree names and one folder more; a whole
round into every folder. A quiet one writes nothing. A link that Graph forgot leads to a walk through its folder by
id: nothing is told again, and what was not met is asked for. A folder that Graph refuses rests for a while and holds
up no other: whether the mailbox itself is open, the folder tree tells.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach, Record
from shared.changes import Changes
from shared.clock import Clock
from shared.errors import GraphFailure, StorageConflict
from shared.graph import requests
from shared.mailbox_events import MailboxEvents
from shared.mailboxes import Mailboxes, Tree
from shared.markers import Markers
from shared.storage.keys import digest, storable
from shared.storage.tables import Row, Table

PAGES_PER_ROUND = 20
ROUND_FOR = timedelta(minutes=3)  # a function may run for ten; a page that is begun is told to its end
CHECKS_PER_ROUND = 200  # messages asked for by id after a folder was walked anew
CURSOR_KEPT_S = 3600
CLOCKS_DIFFER_S = 300
REST_S, LONGEST_REST_S = 60, 3600  # how long a refused folder is not asked: doubled with each refusal in a row
NEVER = datetime.max.replace(tzinfo=UTC)
EXPIRED = (400, 410)  # a cursor that is broken, forgotten, or of another host
OF_MAILBOX = (0, 401, 429, 503)  # failures that say nothing about the one folder they were met in
log = logging.getLogger("graphpost.polling")


@dataclass(frozen=True)
class Cursor:
    """Where the delta of one folder stands: `link` is the next page or the next round. `first_walk` holds until
    a walk is through. `walk` names a walk that follows a forgotten link, until what it did not meet was asked
    for. `kept` is when it was stored, in epoch seconds. `refused` counts how often in a row Graph refused the
    folder, and until `rests`, in epoch seconds, it is not asked again. `open` is since when, in epoch seconds, pages
    are told that the link does not cover yet: what their worker told before it died, delta may never speak of again."""

    folder: str
    link: str = ""
    first_walk: bool = True
    kept: float = 0
    walk: str = ""
    refused: int = 0
    rests: float = 0
    open: float = 0
    etag: str = ""


@dataclass
class Found:
    """What a round found. `changed`: some entry was met. `walking`: a first walk is not through. `after`: the
    folder a whole round got to before its pages were used up, None when it is through. `told`: when that happened
    which the round was the first to tell. `rests`: when the first of the refused folders is to be asked again, in
    epoch seconds, 0 when none was refused."""

    changed: bool = False
    walking: bool = False
    after: str | None = None
    told: list[datetime] = field(default_factory=list)
    rests: float = 0
    pages: int = PAGES_PER_ROUND
    until: datetime = NEVER  # no page is begun after that
    cut: bool = False  # the pages ran out in the middle of a folder
    is_whole: bool = False


def folders_to_ask(tree: Tree, known: set[str], turn: int) -> list[str]:
    """The folders a quick round looks into: the inbox, those the tree named, those never asked, and one of the
    others, so that every folder has its turn however many there are."""
    inbox = tree.folder_with("\\Inbox")
    first = ([inbox] if inbox else []) + [one for one in tree.named if one in tree.folders]
    unasked = [one for one in tree.folders if one not in known]
    others = [one for one in tree.folders if one in known and one not in first]
    return list(dict.fromkeys([*first, *unasked, *([others[turn % len(others)]] if others else [])]))


def _rest(tree: Tree, after: str) -> list[str]:
    """The folders a whole round still has to look into, in order, and last those named again meanwhile."""
    rest = sorted(one for one in tree.folders if one > after)
    return rest + [one for one in tree.named if one in tree.folders and one <= after]


class Polling:
    """Asks mailboxes for changes, round by round."""

    def __init__(
        self,
        accounts: Accounts,
        access: Access,
        mailboxes: Mailboxes,
        folders: MailboxEvents,
        changes: Changes,
        cursors: Table,
        clock: Clock,
    ) -> None:
        self._accounts, self._access, self._mailboxes, self._folders = accounts, access, mailboxes, folders
        self._changes, self._cursors, self._clock = changes, cursors, clock

    async def poll(self, record: Record, reach: Reach, turn: int = 0, after: str | None = None) -> Found:
        """A quick round, the `turn`-th of its account; with `after` a whole round, from the folder after that one
        on ("" for the start). One call for the folder tree and at least one for each folder looked into. Raises
        GraphFailure for what concerns the whole mailbox, or CredentialError."""
        account = record["account"]
        known, told = await self._folders.before(account)
        tree = await self._mailboxes.refresh(account, reach, known)
        await self._folders.tell(account, told, tree)
        cursors = await self._stored(account)
        found = Found(is_whole=after is not None, until=self._clock() + ROUND_FOR)
        if tree.link:  # without one the tree is not the whole of it
            for gone in set(cursors) - set(tree.folders):
                await self._drop(record, reach, cursors[gone])
        wanted = folders_to_ask(tree, set(cursors), turn) if after is None else _rest(tree, after)
        wanted = self._awake(wanted, [cursors[one] for one in tree.folders if one in cursors])
        asked = await self._ask_all(record, reach, [cursors.get(one) or Cursor(one) for one in wanted], found)
        if asked < len(wanted):
            # What does not fit into a quick round is found by a whole one.
            found.after = "" if after is None else max([after, *wanted[:asked]])
        else:
            await self._mailboxes.asked(account, tree)
        return found

    def _awake(self, wanted: list[str], cursors: list[Cursor]) -> list[str]:
        """The folders wanted without those that rest, and with those that have rested enough."""
        now = self._clock().timestamp()
        # A rest longer than any was noted by a clock that was wrong.
        resting = {one.folder for one in cursors if one.refused and now < one.rests <= now + LONGEST_REST_S}
        rested = [one.folder for one in cursors if one.refused and one.folder not in resting]
        return [one for one in dict.fromkeys([*wanted, *rested]) if one not in resting]

    async def _ask_all(self, record: Record, reach: Reach, cursors: list[Cursor], found: Found) -> int:
        """Asks one folder after the other while pages are left; how many. One that is refused counts as asked."""
        for number, cursor in enumerate(cursors):
            if found.pages <= 0:
                return number
            try:
                now = await self._ask(record, reach, cursor, found)
            except GraphFailure as failure:
                if failure.status in OF_MAILBOX:
                    raise
                await self._let_rest(record["account"], cursor.folder, found)
                continue
            found.walking = found.walking or now.first_walk or bool(now.walk)
            if found.cut:
                return number
        return len(cursors)

    async def _let_rest(self, account: str, folder: str, found: Found) -> None:
        """Notes that Graph refused a folder: the round goes on without it, and it is asked again after a rest."""
        found.pages = found.pages - 1 if self._clock() < found.until else 0
        row = await self._cursors.get(storable(account), digest(folder))
        cursor = _read(row) if row else Cursor(folder)
        rest_s = min(REST_S * 2 ** min(cursor.refused, 10), LONGEST_REST_S)
        rests = self._clock().timestamp() + rest_s
        log.warning("a folder was left out of a round: it rests for %s s", rest_s)
        await self._keep(account, replace(cursor, refused=cursor.refused + 1, rests=rests), cursor.kept)
        found.rests = min(found.rests or rests, rests)

    async def has_walked(self, account: str) -> bool:
        """True when every folder that Graph gives was walked through, so that delta can be held to have told
        everything."""
        tree, cursors = await self._mailboxes.stored(account), await self._stored(account)
        if tree is None or not set(tree.folders) <= set(cursors):
            return False
        return not any((one.first_walk or one.walk) and not one.refused for one in cursors.values())

    # -- one folder ----------------------------------------------------------------------------------------

    async def _ask(self, record: Record, reach: Reach, before: Cursor, found: Found) -> Cursor:
        """Follows one folder's delta while pages are left; where it stands now. The cursor is stored after each
        page that said something, so that a long round is not begun again, and not by a worker that another one
        overtook: that one's pages are asked by nobody else."""
        cursor, account, met = replace(before, refused=0, rests=0), record["account"], set[str]()
        if cursor.walk and not cursor.first_walk:
            cursor = await self._look_for_unmet(record, reach, cursor)
        while found.pages > 0:
            page, cursor = await self._page(account, reach, cursor)
            found.pages -= 1
            if page is None:
                await self._drop(record, reach, cursor)
                return replace(cursor, first_walk=False, walk="")  # the folder went away since the tree was read
            following, entries = page.get("@odata.nextLink"), page.get("value", ())
            if entries and not cursor.open:
                opened = await self._keep(account, replace(cursor, open=self._clock().timestamp()), cursor.kept)
                if opened is None:
                    return cursor
                cursor = opened
            await self._tell(record, reach, cursor, entries, found)
            found.pages = found.pages if self._clock() < found.until else 0
            met |= {Markers.key(one["id"]) for one in entries}
            if not following:
                await self._confirm(record, reach, before, cursor, met, found.is_whole)
                cursor = replace(cursor, open=0)
            cursor = replace(cursor, link=following or page.get("@odata.deltaLink", ""))
            cursor = replace(cursor, first_walk=cursor.first_walk and bool(following))
            if entries or following or self._is_due(cursor, before):
                kept = await self._keep(account, cursor)
                if kept is None:
                    return cursor
                cursor = kept
            if not following:
                break
            found.cut = found.pages <= 0
        if cursor.walk and not cursor.first_walk:
            cursor = await self._look_for_unmet(record, reach, cursor)
        return cursor

    async def _tell(self, record: Record, reach: Reach, cursor: Cursor, entries: Any, found: Found) -> None:
        known = await self._changes.markers_of(record["account"], cursor.folder) if cursor.walk and entries else {}
        for entry in entries:
            if cursor.walk and cursor.first_walk:
                told = await self._changes.met(record, reach, entry, cursor.walk, known)
            else:
                told = await self._changes.entry(record, reach, entry, first_walk=cursor.first_walk)
            found.changed = found.changed or not cursor.first_walk
            found.told += [told] if told else []

    async def _confirm(
        self, record: Record, reach: Reach, before: Cursor, cursor: Cursor, met: set[str], is_whole: bool
    ) -> None:
        """At the end of a round of a folder: asks for what was told by others than this round, where delta may not
        have told of its end. That is what hints told of (whole rounds of push), what was looked up during a first
        walk, and what a worker told that died before it moved the cursor."""
        if before.open:  # in whichever folder it was by then
            await self._changes.unconfirmed(record, reach, "", _before(before.open), met)
        elif not cursor.walk and (is_whole or cursor.first_walk):
            await self._changes.unconfirmed(record, reach, cursor.folder, _before(before.kept), met)

    async def _look_for_unmet(self, record: Record, reach: Reach, cursor: Cursor) -> Cursor:
        """After a walk: what was last seen in this folder and not met there was deleted or moved."""
        if await self._changes.unmet(record, reach, cursor.folder, cursor.walk, CHECKS_PER_ROUND):
            done = replace(cursor, walk="")
            return await self._keep(record["account"], done) or done
        return cursor

    def _is_due(self, cursor: Cursor, before: Cursor) -> bool:
        """After an empty round the older link serves as well, so that a quiet folder costs no write; links do not
        live for ever, so once an hour the newer one is kept all the same."""
        if before.refused or before.open or cursor.first_walk != before.first_walk:
            return True
        return self._clock().timestamp() - before.kept > CURSOR_KEPT_S

    async def _page(self, account: str, reach: Reach, cursor: Cursor) -> tuple[dict[str, Any] | None, Cursor]:
        """The page behind a cursor, or the first of a new walk when there is none or it expired. None when the
        folder is gone."""
        graph, token, expired = self._access.graph(reach), self._access.token_source(reach), bool(cursor.link)
        if cursor.link:
            try:
                answer = await graph.call(reach.mailbox, reach.app, token, graph.follow(cursor.link))
                return answer.json(), cursor
            except GraphFailure as failure:
                if failure.status not in EXPIRED:
                    raise
            walk = digest("walk", cursor.folder, self._clock().isoformat())[:12]
            cursor = replace(cursor, link="", first_walk=True, walk=walk)
        request = requests.messages_delta(graph.client, reach.mailbox, cursor.folder)
        try:
            answer = await graph.call(reach.mailbox, reach.app, token, request)
        except GraphFailure as failure:
            if failure.status != 404:
                raise
            return None, cursor
        if expired:
            await self._accounts.count(account, resyncs=1)
        return answer.json(), cursor

    async def _drop(self, record: Record, reach: Reach, cursor: Cursor) -> None:
        """The folder is gone: what was in it was deleted with it, or moved out before."""
        if await self._changes.unmet(record, reach, cursor.folder, "gone", CHECKS_PER_ROUND):
            await self._cursors.delete(storable(record["account"]), digest(cursor.folder))

    # -- cursors -------------------------------------------------------------------------------------------

    async def _stored(self, account: str) -> dict[str, Cursor]:
        rows = await self._cursors.partition(storable(account))
        return {row.value["folder"]: _read(row) for row in rows}

    async def _keep(self, account: str, cursor: Cursor, kept: float | None = None) -> Cursor | None:
        """The cursor as stored; None when another worker moved it meanwhile. `kept` for one that did not move."""
        kept = self._clock().timestamp() if kept is None else kept
        value = {"folder": cursor.folder, "link": cursor.link, "first_walk": cursor.first_walk, "kept": kept}
        value |= {"walk": cursor.walk} if cursor.walk else {}
        value |= {"refused": cursor.refused, "rests": cursor.rests} if cursor.refused else {}
        value |= {"open": cursor.open} if cursor.open else {}
        row = Row(storable(account), digest(cursor.folder), value, cursor.etag)
        try:
            stored = await (self._cursors.replace(row) if cursor.etag else self._cursors.insert(row))
        except StorageConflict:
            return None
        return replace(cursor, kept=kept, etag=stored.etag)

    async def forget(self, account: str) -> None:
        """Removes the cursors of a deleted account, and which folders were told."""
        await self._folders.forget(account)
        await self._cursors.clear(storable(account))


def _before(epoch_s: float) -> datetime:
    """A moment of our own clock as the slowest of the others may have written it."""
    return datetime.fromtimestamp(max(epoch_s - CLOCKS_DIFFER_S, 0), tz=UTC)


def _read(row: Row) -> Cursor:
    return Cursor(**row.value, etag=row.etag)
