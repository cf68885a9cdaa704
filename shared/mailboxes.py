"""The folder tree of a mailbox: ids to paths and special uses, kept per account.

Folder names are localised, so special uses are found by the ids of the well-known names (graph.md 3.2).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.access import Access
from shared.accounts import Reach
from shared.errors import GraphFailure
from shared.graph import requests
from shared.storage.keys import storable
from shared.storage.tables import Row, Table

KEY = "tree"
WELL_KNOWN = {
    "inbox": "\\Inbox",
    "sentitems": "\\Sent",
    "drafts": "\\Drafts",
    "junkemail": "\\Junk",
    "deleteditems": "\\Trash",
    "archive": "\\Archive",
}

WHOLE = "\\All"  # a path that means every message of the mailbox; no folder
_REFUSALS = frozenset({400, 403, 404, 405, 410, 501})
_ROLES = {special_use.lower(): name for name, special_use in WELL_KNOWN.items()}

Counts = dict[str, tuple[int, int]]  # by folder id: messages, unread ones


@dataclass(frozen=True)
class Place:
    """A folder as a client named it: its id at Graph, and its path and special use as the API shows them."""

    id: str
    path: str
    special_use: str | None = None


def joined(path: str | Sequence[str]) -> str:
    """A path as one text: given as text, or as an array of segments (9.1)."""
    return path if isinstance(path, str) else "/".join(path)


def escaped(name: str) -> str:
    """A folder's name as a segment of a path: `%` and `/` escaped (9.1)."""
    return name.replace("%", "%25").replace("/", "%2F")


def unescaped(segment: str) -> str:
    """The name behind a segment of a path."""
    return segment.replace("%2F", "/").replace("%2f", "/").replace("%25", "%")


def well_known_name(path: str) -> str | None:
    """Graph's own name of the folder that `inbox` in any case, or a tag such as `\\Sent`, stands for (9.1)."""
    return "inbox" if path.lower() == "inbox" else _ROLES.get(path.lower())


@dataclass
class Tree:
    """Folders by id: (display name, parent id). `roles` maps ids of well-known folders to special uses. `named` are
    folders that a round named as changed and whose messages were not asked for yet. `hidden` are those that Outlook
    does not show."""

    folders: dict[str, tuple[str, str]] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    link: str = ""
    named: list[str] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)

    def path(self, folder_id: str) -> str | None:
        """Display names from the root joined with `/`; `%` and `/` inside a name are escaped (9.1)."""
        names: list[str] = []
        root = self._root()
        while folder_id != root and (folder := self.folders.get(folder_id)) is not None and len(names) < 300:
            names.append(escaped(folder[0]))
            folder_id = folder[1]
        return "/".join(reversed(names)) or None

    def paths(self, *, visible: bool = False) -> dict[str, str]:
        """Every folder's path by its id, or those of the folders that are neither hidden nor below a hidden one."""
        root, below = self._root(), dict[str, list[str]]()
        for folder_id, (_, parent) in self.folders.items():
            if folder_id != root and not (visible and folder_id in self.hidden):
                top = parent == root or parent not in self.folders
                below.setdefault("" if top else parent, []).append(folder_id)
        found: dict[str, str] = {}
        waiting = [("", "")]
        while waiting:
            parent, prefix = waiting.pop()
            for child in below.get(parent, ()):
                found[child] = prefix + escaped(self.folders[child][0])
                waiting.append((child, found[child] + "/"))
        return found

    def _root(self) -> str | None:
        """The folder above the inbox, in case the tree was given with it: no part of any path."""
        inbox = self.folder_with("\\Inbox")
        return self.folders[inbox][1] if inbox in self.folders else None

    def place(self, path: str) -> Place | None:
        """The folder a client means by this path (9.1): `inbox` in any case, also as first segment; a special-use
        tag; else exactly the path that is shown. None when there is none."""
        inbox = self.folder_with("\\Inbox")
        role = WELL_KNOWN.get(well_known_name(path) or "")
        if role:
            return self._place(self.folder_with(role))
        head, _, rest = path.partition("/")
        if head.lower() == "inbox" and rest and inbox:
            path = f"{self.path(inbox)}/{rest}"
        return self._place(next((one for one, known in self.paths().items() if known == path), None))

    def _place(self, folder_id: str | None) -> Place | None:
        path = self.path(folder_id) if folder_id else None
        return Place(folder_id, path, self.special_use(folder_id)) if folder_id and path else None

    def special_use(self, folder_id: str) -> str | None:
        return self.roles.get(folder_id)

    def folder_with(self, special_use: str) -> str | None:
        """The id of the folder with this special use."""
        return next((one for one, role in self.roles.items() if role == special_use), None)

    def document(self) -> dict[str, Any]:
        """The tree as it is stored: folders are named once and then by position, since ids are long."""
        place = {folder_id: index for index, folder_id in enumerate(self.folders)}
        rows = [[i, name, place.get(parent, -1)] for i, (name, parent) in self.folders.items()]
        hidden = sorted(place[one] for one in self.hidden if one in place)
        named = [place[one] for one in self.named if one in place]
        return {"folders": rows, "roles": self.roles, "link": self.link, "named": named, "hidden": hidden}

    @classmethod
    def from_document(cls, stored: dict[str, Any]) -> Tree:
        rows = stored["folders"]
        folders = {i: (name, rows[at][0] if at >= 0 else "") for i, name, at in rows}
        hidden = {rows[at][0] for at in stored.get("hidden", ())}
        named = [one if isinstance(one, str) else rows[one][0] for one in stored.get("named", ())]
        return cls(folders, stored["roles"], stored["link"], named, hidden)

    def copy(self) -> Tree:
        """A tree of its own with the same content."""
        return Tree(dict(self.folders), dict(self.roles), self.link, list(self.named), set(self.hidden))


class Mailboxes:
    """Loads and refreshes trees."""

    def __init__(self, table: Table, access: Access) -> None:
        self._table, self._access = table, access

    async def stored(self, account: str) -> Tree | None:
        """The tree as last seen. One transaction, no call."""
        row = await self._table.get(storable(account), KEY)
        return Tree.from_document(row.value) if row else None

    async def tree(self, account: str, reach: Reach, needs: str | None = None) -> Tree:
        """The stored tree; loaded first when there is none or it lacks the folder `needs`."""
        tree = await self.stored(account)
        if tree is None or (needs and needs not in tree.folders):
            tree = await self.refresh(account, reach, tree)
        return tree

    async def resolve(self, account: str, reach: Reach, path: str | Sequence[str]) -> Place | None:
        """The folder a client means by a path (9.1), text or segments; the tree is read anew once when it does not
        hold the path. None when there is no such folder; `\\All` is none."""
        wanted, stored = joined(path), await self.stored(account)
        found = stored.place(wanted) if stored else None
        if found is None and wanted and wanted != WHOLE:
            tree = await self.refresh(account, reach, stored)
            found = tree.place(wanted) or await self._made_since(account, reach, tree, wanted)
        return found

    async def _made_since(self, account: str, reach: Reach, tree: Tree, path: str) -> Place | None:
        """The well-known folder that a tag means, where the mailbox got it after its roles were looked up: an archive
        appears with its first use (graph.md 3.2)."""
        name = well_known_name(path)
        if name is None:
            return None
        try:
            found = (await self._access.call(reach, lambda c: requests.folder(c, reach.mailbox, name))).json()
        except GraphFailure as failure:
            if failure.status not in (403, 404):
                raise
            return None
        tree.roles[found["id"]] = WELL_KNOWN[name]
        await self._table.put(Row(storable(account), KEY, tree.document()))
        return tree.place(path)

    async def holding(self, account: str, reach: Reach, folders: Collection[str]) -> Tree:
        """The stored tree; read anew once when it lacks one of these folders. What still lacks then, or when Graph
        refuses, has no path."""
        stored = await self.stored(account)
        if stored is not None and all(one in stored.folders for one in folders):
            return stored
        try:
            return await self.refresh(account, reach, stored)
        except GraphFailure:
            return stored or Tree()

    async def counted(self, account: str, reach: Reach) -> tuple[Tree, Counts]:
        """The tree with the number of messages and of unread ones in each folder, all as they are now."""
        stored, counts = await self.stored(account), Counts()
        tree = await self._loaded(reach, Tree(roles=dict(stored.roles) if stored else {}), counts)
        if stored is None:
            tree.named = list(tree.folders)
            await self._table.put(Row(storable(account), KEY, tree.document()))
        return tree, counts

    async def _loaded(self, reach: Reach, tree: Tree, counts: Counts) -> Tree:
        """The whole tree anew."""
        try:
            await self._round(reach, tree, counts)
        except GraphFailure as failure:
            if failure.status not in _REFUSALS:
                raise
            tree = Tree()
            await self._inbox_alone(reach, tree, counts)
        tree.roles = tree.roles or await self._roles(reach)
        return tree

    async def refresh(self, account: str, reach: Reach, tree: Tree | None) -> Tree:
        """The tree after a round of folder delta. `named` has grown by what the round named: new, renamed, or
        with changed counts. One call when nothing changed."""
        fresh = tree.copy() if tree else Tree()
        try:
            changed = await self._round(reach, fresh)
        except GraphFailure as failure:
            if failure.status not in _REFUSALS:
                raise
            expired = fresh.link and failure.status in (400, 410)
            # An expired cursor: start again (graph.md 5.3). The well-known folders too are looked up anew, since
            # a mailbox that was made again under the same address has other ids.
            fresh = Tree()
            changed = await self._round(reach, fresh) if expired else await self._inbox_alone(reach, fresh)
        if not fresh.roles:
            fresh.roles = await self._roles(reach)
        fresh.named = [one for one in dict.fromkeys([*fresh.named, *changed]) if one in fresh.folders]
        if tree is None or fresh.document() != tree.document():
            await self._table.put(Row(storable(account), KEY, fresh.document()))
        return fresh

    async def keep(self, account: str, tree: Tree) -> None:
        """Stores a tree that was changed by hand, because Graph's news of a change are late."""
        await self._table.put(Row(storable(account), KEY, tree.document()))

    async def asked(self, account: str, tree: Tree) -> None:
        """Notes that the messages of every folder named were asked for. Where another worker stored a later tree
        meanwhile, this older one names again what that one found."""
        if tree.named:
            tree.named = []
            await self._table.put(Row(storable(account), KEY, tree.document()))

    async def _round(self, reach: Reach, tree: Tree, counts: Counts | None = None) -> list[str]:
        graph = self._access.graph(reach)
        request = graph.follow(tree.link) if tree.link else requests.folders_delta(graph.client, reach.mailbox)
        changed: list[str] = []
        page: dict[str, Any] = {}
        async for page in graph.pages(reach.mailbox, reach.app, self._access.token_source(reach), request):
            for folder in page.get("value", ()):
                if "@removed" in folder:
                    tree.folders.pop(folder["id"], None)
                    continue
                changed.append(folder["id"])
                _take(tree, folder, counts)
        # Without changes the older link serves as well, and the record need not be written.
        if changed or not tree.link:
            tree.link = page.get("@odata.deltaLink", "")
        return changed

    async def _inbox_alone(self, reach: Reach, tree: Tree, counts: Counts | None = None) -> list[str]:
        """With rights on single folders only, the tree is refused; the inbox may be open all the same."""
        inbox = (await self._access.call(reach, lambda c: requests.folder(c, reach.mailbox, "inbox"))).json()
        tree.folders = {}
        _take(tree, {"displayName": "Inbox", **inbox, "parentFolderId": ""}, counts)
        tree.roles = {inbox["id"]: WELL_KNOWN["inbox"]}
        return [inbox["id"]]

    async def _roles(self, reach: Reach) -> dict[str, str]:
        roles: dict[str, str] = {}
        for name, special_use in WELL_KNOWN.items():
            try:
                answer = await self._access.call(reach, lambda c, n=name: requests.folder(c, reach.mailbox, n))  # type: ignore[misc]
            except GraphFailure as failure:
                if failure.status not in (403, 404):
                    raise
                continue  # never created in this mailbox (graph.md 3.2), or nothing to be seen in
            roles[answer.json()["id"]] = special_use
        return roles

    async def forget(self, account: str) -> None:
        """Removes the stored tree of a deleted account."""
        await self._table.delete(storable(account), KEY)


def _take(tree: Tree, folder: dict[str, Any], counts: Counts | None) -> None:
    """Notes what Graph says of one folder. Entries of delta may name only what changed (graph.md 5.3)."""
    folder_id = folder["id"]
    old = tree.folders.get(folder_id, ("", ""))
    tree.folders[folder_id] = (folder.get("displayName") or old[0], folder.get("parentFolderId") or old[1])
    if folder.get("isHidden"):
        tree.hidden.add(folder_id)
    elif "isHidden" in folder:
        tree.hidden.discard(folder_id)
    if counts is not None:
        counts[folder_id] = (folder.get("totalItemCount") or 0, folder.get("unreadItemCount") or 0)
