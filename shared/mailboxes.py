"""The folder tree of a mailbox: ids to paths and special uses, kept per account.

Folder names are localised, so special uses are found by the ids of the well-known names (graph.md 3.2).
"""

from __future__ import annotations

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

_REFUSALS = frozenset({400, 403, 404, 405, 410, 501})


@dataclass
class Tree:
    """Folders by id: (display name, parent id). `roles` maps ids of well-known folders to special uses. `named` are
    folders that a round named as changed and whose messages were not asked for yet."""

    folders: dict[str, tuple[str, str]] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    link: str = ""
    named: list[str] = field(default_factory=list)

    def path(self, folder_id: str) -> str | None:
        """Display names from the root joined with `/`; `%` and `/` inside a name are escaped (9.1)."""
        names: list[str] = []
        while (folder := self.folders.get(folder_id)) is not None and len(names) < 300:
            names.append(folder[0].replace("%", "%25").replace("/", "%2F"))
            folder_id = folder[1]
        return "/".join(reversed(names)) or None

    def special_use(self, folder_id: str) -> str | None:
        return self.roles.get(folder_id)

    def folder_with(self, special_use: str) -> str | None:
        """The id of the folder with this special use."""
        return next((one for one, role in self.roles.items() if role == special_use), None)

    def document(self) -> dict[str, Any]:
        """The tree as it is stored: parents as positions, since ids are long."""
        place = {folder_id: index for index, folder_id in enumerate(self.folders)}
        rows = [[i, name, place.get(parent, -1)] for i, (name, parent) in self.folders.items()]
        return {"folders": rows, "roles": self.roles, "link": self.link, "named": self.named}

    @classmethod
    def from_document(cls, stored: dict[str, Any]) -> Tree:
        rows = stored["folders"]
        folders = {i: (name, rows[at][0] if at >= 0 else "") for i, name, at in rows}
        return cls(folders, stored["roles"], stored["link"], stored.get("named", []))


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

    async def refresh(self, account: str, reach: Reach, tree: Tree | None) -> Tree:
        """The tree after a round of folder delta. `named` has grown by what the round named: new, renamed, or
        with changed counts. One call when nothing changed."""
        fresh = Tree(dict(tree.folders), dict(tree.roles), tree.link, list(tree.named)) if tree else Tree()
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

    async def asked(self, account: str, tree: Tree) -> None:
        """Notes that the messages of every folder named were asked for. Where another worker stored a later tree
        meanwhile, this older one names again what that one found."""
        if tree.named:
            tree.named = []
            await self._table.put(Row(storable(account), KEY, tree.document()))

    async def _round(self, reach: Reach, tree: Tree) -> list[str]:
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
                old = tree.folders.get(folder["id"], ("", ""))
                tree.folders[folder["id"]] = (
                    folder.get("displayName") or old[0],
                    folder.get("parentFolderId") or old[1],
                )
        # Without changes the older link serves as well, and the record need not be written.
        if changed or not tree.link:
            tree.link = page.get("@odata.deltaLink", "")
        return changed

    async def _inbox_alone(self, reach: Reach, tree: Tree) -> list[str]:
        """With rights on single folders only, the tree is refused; the inbox may be open all the same."""
        inbox = (await self._access.call(reach, lambda c: requests.folder(c, reach.mailbox, "inbox"))).json()
        tree.folders = {inbox["id"]: (inbox.get("displayName") or "Inbox", "")}
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
