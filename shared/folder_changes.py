"""Making, renaming, moving and deleting folders (emailengine.md 9.3 to 9.5).

The next call sees the change: the stored tree is brought up to date before the answer, by hand where Graph's own news
are late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach
from shared.errors import ApiError, CredentialError, GraphFailure, InvalidInput
from shared.graph import edits
from shared.graph.edits import ROOT
from shared.graph.failures import to_api
from shared.mailboxes import WHOLE, Mailboxes, Place, Tree, joined, unescaped, well_known_name
from shared.waiting import Sleep, Waiting, call

NO_PARENT, NO_FOLDER = "Not able to find parent folder", "Not able to find mailbox folder"
Paths = str | Sequence[str]


def failed(what: str, status: int, code: str, response: str) -> ApiError:
    """The contract's answer when a folder or message could not be changed."""
    shown = {"response": response}
    return ApiError(status, f"{what} failed", code, details=shown, info=shown)


def refused(what: str, failure: GraphFailure, missing: str) -> ApiError:
    """The answer for a refusal of Graph; `missing` says what is not there when that is the reason."""
    if failure.status == 404:
        return failed(what, 404, "NotFound", missing)
    if 400 <= failure.status < 500 and failure.status not in (401, 408, 425, 429):
        return failed(what, 400, failure.code, failure.message)
    return to_api(failure)


class FolderChanges:
    """Changes the folders of accounts."""

    def __init__(self, accounts: Accounts, access: Access, mailboxes: Mailboxes, sleep: Sleep) -> None:
        self._accounts, self._access, self._mailboxes, self._sleep = accounts, access, mailboxes, sleep

    # -- create --------------------------------------------------------------------------------------------

    async def create(self, account: str, path: Paths) -> dict[str, Any]:
        """The contract's answer (9.3); `created` is false for a folder that was there already.

        Raises NotFound for an account or parent that is not there, StateRefuses, ApiError for a refusal of Graph.
        """
        _, reach = await self._accounts.usable(account)
        wanted = _checked("path", path)
        place = (await self._mailboxes.tree(account, reach)).place(wanted)
        if place is not None:
            return _shown(place, created=False)
        parent = await self._parent(account, reach, "Create", wanted)
        name = unescaped(wanted.rpartition("/")[2])
        try:
            made = await self._call(reach, lambda c: edits.create_folder(c, reach.mailbox, parent, name), again=False)
        except GraphFailure as failure:
            return await self._there(account, reach, wanted, failure)
        folder_id = _id_of(made.json())
        tree = await self._updated(account, reach, lambda t: _put(t, folder_id, name, parent))
        return _shown(Place(folder_id, tree.path(folder_id) or wanted), created=True)

    async def _there(self, account: str, reach: Reach, wanted: str, failure: GraphFailure) -> dict[str, Any]:
        """After a refusal: the folder may have been made by somebody else at this moment."""
        if failure.status == 409:
            place = await self._mailboxes.resolve(account, reach, wanted)
            if place is not None:
                return _shown(place, created=False)
        raise refused("Create", failure, NO_PARENT)

    async def _parent(self, account: str, reach: Reach, what: str, path: str) -> str:
        """The id of the folder above this path."""
        above = path.rpartition("/")[0]
        if not above:
            return ROOT
        place = await self._mailboxes.resolve(account, reach, above)
        if place is None:
            raise failed(what, 404, "NotFound", NO_PARENT)
        return place.id

    # -- rename and move -----------------------------------------------------------------------------------

    async def rename(self, account: str, path: Paths, new_path: Paths | None) -> dict[str, Any]:
        """The contract's answer (9.4). Without a new path nothing changes: Graph knows no subscribed folders.

        Raises what `create` raises. When the second of two steps is refused, the first is taken back.
        """
        _, reach = await self._accounts.usable(account)
        place = await self._mailboxes.resolve(account, reach, _joined("path", path))
        if place is None:
            raise failed("Rename", 404, "NotFound", NO_FOLDER)
        if new_path is None:
            return {"path": place.path, "renamed": False}
        wanted = _checked("newPath", new_path)
        parent, name = await self._parent(account, reach, "Rename", wanted), unescaped(wanted.rpartition("/")[2])
        tree = await self._mailboxes.tree(account, reach)
        taken = tree.place(wanted)
        if taken is None or taken.id != place.id:
            _check_target(tree, place.id, parent, taken)
            await self._relocate(account, reach, tree, place.id, parent, name)
        tree = await self._updated(account, reach, lambda t: _put(t, place.id, name, parent))
        renamed = {"path": place.path, "newPath": tree.path(place.id) or wanted, "mailboxId": place.id}
        return renamed | {"renamed": True}

    async def _relocate(self, account: str, reach: Reach, tree: Tree, folder_id: str, parent: str, name: str) -> None:
        """The folder under its new name and parent, with as many calls as that takes."""
        old_name, old_parent = tree.folders[folder_id]
        moves = parent != (old_parent if old_parent in tree.folders else ROOT)
        steps: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = []
        if moves:
            back = self._to_parent(reach, folder_id, old_parent or ROOT)
            steps.append((self._to_parent(reach, folder_id, parent), back))
        if name != old_name:
            rename = (self._to_name(reach, folder_id, name), self._to_name(reach, folder_id, old_name))
            # The name it goes through on the way must be free there, too.
            steps.insert(0 if not _is_taken(tree, old_parent, name, folder_id) else len(steps), rename)
        for number, (step, _) in enumerate(steps):
            try:
                await self._call(reach, step)
            except GraphFailure as failure:
                if number and not failure.may_have_acted:
                    with suppress(GraphFailure, CredentialError):
                        await self._call(reach, steps[0][1])
                raise await self._gone(account, reach, failure) from None

    @staticmethod
    def _to_parent(reach: Reach, folder_id: str, parent: str) -> Callable[[Any], Any]:
        return lambda c: edits.move_folder(c, reach.mailbox, folder_id, parent)

    @staticmethod
    def _to_name(reach: Reach, folder_id: str, name: str) -> Callable[[Any], Any]:
        return lambda c: edits.rename_folder(c, reach.mailbox, folder_id, name)

    async def _gone(self, account: str, reach: Reach, failure: GraphFailure, what: str = "Rename") -> ApiError:
        """The answer for a refused change; a folder that is not there any more leaves the tree."""
        if failure.status == 404:
            with suppress(GraphFailure, CredentialError):
                await self._mailboxes.refresh(account, reach, await self._mailboxes.stored(account))
        return refused(what, failure, NO_FOLDER)

    # -- delete --------------------------------------------------------------------------------------------

    async def delete(self, account: str, path: Paths) -> dict[str, Any]:
        """The contract's answer (9.5). Raises what `create` raises."""
        _, reach = await self._accounts.usable(account)
        place = await self._mailboxes.resolve(account, reach, _joined("path", path))
        if place is None:
            raise failed("Delete", 404, "NotFound", NO_FOLDER)
        before = (await self._mailboxes.stored(account) or Tree()).folders.get(place.id)
        try:
            await self._call(reach, lambda c: edits.delete_folder(c, reach.mailbox, place.id), again=False)
        except GraphFailure as failure:
            raise await self._gone(account, reach, failure, "Delete") from None
        await self._updated(account, reach, lambda t: _drop(t, place.id, before))
        return {"path": place.path, "mailboxId": place.id, "deleted": True}

    # -- the tree ------------------------------------------------------------------------------------------

    async def _updated(self, account: str, reach: Reach, correct: Callable[[Tree], bool]) -> Tree:
        """The stored tree with the change in it. `correct` puts in what Graph's own news do not have yet, and says
        whether there was anything."""
        tree = await self._mailboxes.stored(account)
        with suppress(GraphFailure, CredentialError):  # the change took place whatever becomes of this
            tree = await self._mailboxes.refresh(account, reach, tree)
        if tree is None:
            return Tree()
        if correct(tree):
            await self._mailboxes.keep(account, tree)
        return tree

    async def _call(self, reach: Reach, build: Callable[[Any], Any], *, again: bool = True) -> Any:
        return await call(self._access, reach, build, Waiting(self._sleep), repeatable=again)


def _joined(key: str, path: Paths) -> str:
    """The path as one text; `\\All` is no folder that could be changed."""
    wanted = joined(path)
    if wanted.casefold() == WHOLE.casefold():
        raise InvalidInput.field(key, f'"{key}" is the whole mailbox and no folder')
    return wanted


def _checked(key: str, path: Paths) -> str:
    """A path that a folder can be given."""
    wanted = _joined(key, path)
    if "" in (part.strip() for part in wanted.split("/")):
        raise InvalidInput.field(key, f'"{key}" has an empty name in it')
    if well_known_name(wanted) and wanted.startswith("\\"):
        raise InvalidInput.field(key, f'"{key}" stands for a folder of Exchange, which can not be made or replaced')
    return wanted


def _shown(place: Place, *, created: bool) -> dict[str, Any]:
    return {"path": place.path, "mailboxId": place.id, "created": created}


def _id_of(made: Any) -> str:
    folder_id = made.get("id") if isinstance(made, dict) else None
    if not folder_id:
        raise GraphFailure(502, "InvalidAnswer", "Graph's answer has no id", may_have_acted=True)
    return str(folder_id)


def _check_target(tree: Tree, folder_id: str, parent: str, taken: Place | None) -> None:
    """Refuses what would leave two folders of one name, or a folder inside itself."""
    if taken is not None:
        raise failed("Rename", 400, "ErrorFolderExists", "A folder with the specified name already exists.")
    above, steps = parent, 0
    while above in tree.folders and steps < len(tree.folders):
        if above == folder_id:
            raise failed("Rename", 400, "ErrorMoveCopyFailed", "A folder can not be moved below itself.")
        above, steps = tree.folders[above][1], steps + 1


def _is_taken(tree: Tree, parent: str, name: str, but: str) -> bool:
    """Whether a sibling has this name. Exchange does not tell names apart by upper and lower case."""
    beside = (known for one, known in tree.folders.items() if one != but and known[1] == parent)
    return any(known[0].casefold() == name.casefold() for known in beside)


def _put(tree: Tree, folder_id: str, name: str, parent: str) -> bool:
    known, above = tree.folders.get(folder_id), "" if parent == ROOT else parent
    is_there = known is not None and known[0] == name and (known[1] if known[1] in tree.folders else "") == above
    if not is_there:
        tree.folders[folder_id] = (name, above)
    return not is_there


def _drop(tree: Tree, folder_id: str, before: tuple[str, str] | None) -> bool:
    """Takes the folder out with those below it, unless it lies elsewhere now."""
    if tree.folders.get(folder_id) != before:
        return False
    gone = {folder_id}
    while below := {one for one, (_, parent) in tree.folders.items() if parent in gone} - gone:
        gone |= below
    for one in gone & set(tree.folders):
        del tree.folders[one]
    return True
