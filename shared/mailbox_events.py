"""mailboxNew and mailboxDeleted: which folders came and went, told once each.

A record keeps the folders as they were told last. It is read before Graph is asked for the tree, so the tree is never
older than it, and changed by compare-and-swap before anything is told: what a change leads to is noted in the record,
told, and then crossed off. A process that dies in between is followed by one that tells the same under the same ids.
The first look at a mailbox tells nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from shared.clock import Clock
from shared.errors import RecordTooLarge, StorageConflict
from shared.events import Events
from shared.mailboxes import KEY as TREE
from shared.mailboxes import Tree
from shared.storage.keys import storable
from shared.storage.tables import Row, Table

KEY = "told"
log = logging.getLogger("graphpost.mailboxes")


@dataclass
class Told:
    """The folders told last: path and special use by id. `number` counts the changes, from the time of the first look
    on, so that it never comes again when that was forgotten. `due` are the events of the last change while they may
    be untold: (event, folder id, path, special use). Without `etag` nothing was told yet."""

    folders: dict[str, list[str]] = field(default_factory=dict)
    number: int = 0
    due: list[list[str]] = field(default_factory=list)
    etag: str = ""


def folders_of(tree: Tree) -> dict[str, list[str]]:
    """Path and special use of every folder that is not hidden, by id."""
    return {one: [path, tree.special_use(one) or ""] for one, path in tree.paths(visible=True).items()}


def changes_between(old: dict[str, list[str]], new: dict[str, list[str]]) -> list[list[str]]:
    """The events that lead from one set of folders to the other; a folder with another path went and came."""
    gone = [["mailboxDeleted", one, *old[one]] for one in old if one not in new or new[one][0] != old[one][0]]
    came = [["mailboxNew", one, *new[one]] for one in new if one not in old or new[one][0] != old[one][0]]
    # From the leaves when they go, from the root when they come.
    return sorted(gone, key=lambda one: one[2], reverse=True) + sorted(came, key=lambda one: one[2])


class MailboxEvents:
    """Tells of folders."""

    def __init__(self, table: Table, events: Events, clock: Clock) -> None:
        self._table, self._events, self._clock = table, events, clock

    async def before(self, account: str) -> tuple[Tree | None, Told]:
        """The stored tree and what was told last, to be read before Graph is asked. One transaction."""
        rows = {row.key: row for row in await self._table.partition(storable(account))}
        tree = Tree.from_document(rows[TREE].value) if TREE in rows else None
        if KEY not in rows:
            return tree, Told()
        value = rows[KEY].value
        return tree, Told(value["folders"], value["number"], value.get("due", []), rows[KEY].etag)

    async def tell(self, account: str, told: Told, tree: Tree) -> None:
        """Tells what is different in the tree. Nothing when another worker told something meanwhile: what that one
        left is found by the next look."""
        if not tree.link:  # not the whole of it
            return
        try:
            if told.due:
                told = await self._finish(account, told)
            folders = folders_of(tree)
            due = changes_between(told.folders, folders) if told.etag else []
            if told.etag and not due:
                return
            number = told.number + 1 if told.etag else int(self._clock().timestamp())
            told = await self._keep(account, Told(folders, number, due, told.etag))
            if due:
                await self._finish(account, told)
        except StorageConflict:
            return
        except RecordTooLarge:
            log.warning("a mailbox has too many folders for events about them")

    async def _finish(self, account: str, told: Told) -> Told:
        for place, (event, folder, path, special_use) in enumerate(told.due):
            data: dict[str, Any] = {"path": path, "name": _name(path)}
            data |= {"specialUse": special_use} if special_use else {}
            await self._events.emit(
                account, event, data, path=path, happening=f"{event} {folder} {told.number} {place}",
                about=f"mailbox {folder}", order=2 * told.number + (event == "mailboxNew"),
            )  # fmt: skip
        return await self._keep(account, Told(told.folders, told.number, [], told.etag))

    async def _keep(self, account: str, told: Told) -> Told:
        value = {"folders": told.folders, "number": told.number} | ({"due": told.due} if told.due else {})
        row = Row(storable(account), KEY, value, told.etag)
        stored = await (self._table.replace(row) if told.etag else self._table.insert(row))
        return Told(told.folders, told.number, told.due, stored.etag)

    async def forget(self, account: str) -> None:
        """The account is deleted or leads to another mailbox: the next look at it is the first one."""
        await self._table.delete(storable(account), KEY)


def _name(path: str) -> str:
    return path.rpartition("/")[2].replace("%2F", "/").replace("%25", "%")
