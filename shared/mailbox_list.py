"""The list of folders as the API shows it (emailengine.md 9.2). Pure but for where the tree comes from."""

from __future__ import annotations

from typing import Any

from shared.accounts import Accounts
from shared.errors import StateRefuses
from shared.mailboxes import WHOLE, Counts, Mailboxes, Tree, unescaped

# Special uses come first, in this order.
ORDER = ("\\Inbox", "\\Flagged", "\\Sent", "\\Drafts", WHOLE, "\\Archive", "\\Junk", "\\Trash")
VIRTUAL = {
    "id": "virtual_all",
    "path": WHOLE,
    "delimiter": "/",
    "parentPath": "",
    "name": "All Mail",
    "listed": True,
    "subscribed": False,
    "noSelect": True,
    "specialUse": WHOLE,
    "specialUseSource": "extension",
}


def mailbox_views(tree: Tree, counts: Counts | None) -> list[dict[str, Any]]:
    """Every folder that Outlook shows, and the virtual one of all mail; with `status` where there are counts."""
    views = [_view(tree, folder_id, path, counts) for folder_id, path in tree.paths(visible=True).items()]
    return sorted([*views, dict(VIRTUAL)], key=_rank)


def _view(tree: Tree, folder_id: str, path: str, counts: Counts | None) -> dict[str, Any]:
    parent, _, name = path.rpartition("/")
    view: dict[str, Any] = {"id": folder_id, "path": path, "delimiter": "/"}
    view |= {"parentPath": parent} if parent else {}
    view |= {"name": unescaped(name), "listed": True, "subscribed": True}
    if special_use := tree.special_use(folder_id):
        view |= {"specialUse": special_use, "specialUseSource": "extension"}
    if counts is not None:
        messages, unseen = counts.get(folder_id, (0, 0))
        view["status"] = {"messages": messages, "unseen": unseen}
    return view


def _rank(view: dict[str, Any]) -> tuple[int, str, str]:
    use = view.get("specialUse")
    return ORDER.index(use) if use in ORDER else len(ORDER), view["path"].casefold(), view["path"]


class MailboxList:
    """Lists the folders of accounts."""

    def __init__(self, accounts: Accounts, mailboxes: Mailboxes) -> None:
        self._accounts, self._mailboxes = accounts, mailboxes

    async def of(self, account: str, *, counters: bool = False) -> list[dict[str, Any]]:
        """The folders as they are now: one call, or with counters a call for each 250 of them or so.

        An account that is out of order shows the folders it had; StateRefuses where none are known, or counters are
        asked for. Raises NotFound, GraphFailure and CredentialError too.
        """
        try:
            _, reach = await self._accounts.usable(account)
        except StateRefuses:
            stored = None if counters else await self._mailboxes.stored(account)
            if stored is None:
                raise
            return mailbox_views(stored, None)
        if counters:
            return mailbox_views(*await self._mailboxes.counted(account, reach))
        stored = await self._mailboxes.stored(account)
        return mailbox_views(await self._mailboxes.refresh(account, reach, stored), None)
