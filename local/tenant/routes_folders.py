"""Mail folders: list, read, create, rename, move, delete (graph.md 3.2, 4)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from .errors import GraphError
from .folders import Folder
from .graph_call import GraphCall
from .mailbox import Mailbox
from .message_input import unknown_in_body, wrong_body
from .query_options import ListQuery, read_list_query, read_select
from .routes_messages import destination

FOLDER_TYPE = "microsoft.graph.mailFolder"
# v1.0 metadata has no wellKnownName and no sizeInBytes, so selecting them is a 400 (graph.md 3.2 [S] [F]).
FOLDER_PROPERTIES = frozenset(
    [
        "id",
        "displayName",
        "parentFolderId",
        "childFolderCount",
        "unreadItemCount",
        "totalItemCount",
        "isHidden",
        "childFolders",
        "singleValueExtendedProperties",
        "multiValueExtendedProperties",
        "messages",
        "messageRules",
    ]
)


async def list_folders(call: GraphCall) -> web.Response:
    """The children of the root (or of the folder in the path), default page 10 (graph.md 4 [D])."""
    mailbox = call.open("Mail.ReadBasic")
    parent = call.folder(mailbox) if "folder" in call.keys else mailbox.root
    query = read_list_query(call.options, FOLDER_PROPERTIES, FOLDER_TYPE)
    hidden_too = call.options.get("includeHiddenFolders", "").lower() == "true"
    found = [f for f in mailbox.children(parent) if hidden_too or not f.is_hidden]
    listed = _matching(mailbox, found, query)
    tail = f"mailFolders('{parent.id}')/childFolders" if "folder" in call.keys else "mailFolders"
    answer: dict[str, Any] = {"@odata.context": call.context(mailbox, tail)}
    if query.count:
        answer["@odata.count"] = len(listed)
    page = listed[query.skip : query.skip + query.top]
    answer["value"] = [_selected(entry, query.select) for entry in page]
    if query.skip + query.top < len(listed):
        following = call.request.rel_url.update_query({"$skip": str(query.skip + query.top)})
        answer["@odata.nextLink"] = f"{call.request.scheme}://{call.request.host}{following.raw_path_qs}"
    return call.answer(answer)


def _matching(mailbox: Mailbox, folders: list[Folder], query: ListQuery) -> list[dict[str, Any]]:
    shown = [mailbox.folder_json(folder) for folder in folders]
    if query.filter is not None:
        test = query.filter.matches
        shown = [entry for entry in shown if test(lambda path, entry=entry: entry.get(path))]
    for order in reversed(query.order):
        shown.sort(key=lambda entry, path=order.path: str(entry.get(path)).casefold(), reverse=order.descending)
    return shown


def _selected(shown: dict[str, Any], select: list[str] | None) -> dict[str, Any]:
    return shown if select is None else {key: shown[key] for key in ("id", *select) if key in shown}


async def get_folder(call: GraphCall) -> web.Response:
    mailbox = call.open("Mail.ReadBasic")
    select = read_select(call.options, FOLDER_PROPERTIES, FOLDER_TYPE)
    return _folder_answer(call, mailbox, call.folder(mailbox), 200, select)


async def create_folder(call: GraphCall) -> web.Response:
    """201; 409 ErrorFolderExists for a name taken beside it (graph.md 9.1)."""
    mailbox = call.open("Mail.ReadWrite")
    parent = call.folder(mailbox) if "folder" in call.keys else mailbox.root
    given = await call.json_body()
    _check_names(given)
    name = _name(given)
    _check_free(mailbox, parent, name)
    folder = mailbox.make_folder(name, parent, hidden=given.get("isHidden") is True)
    return _folder_answer(call, mailbox, folder, 201)


async def rename_folder(call: GraphCall) -> web.Response:
    mailbox = call.open("Mail.ReadWrite")
    folder = call.folder(mailbox)
    given = await call.json_body()
    _check_names(given)
    name = _name(given)
    if folder.parent is not None and name.casefold() != folder.name.casefold():
        _check_free(mailbox, folder.parent, name)
    mailbox.rename_folder(folder, name)
    return _folder_answer(call, mailbox, folder, 200)


async def delete_folder(call: GraphCall) -> web.Response:
    """204. A well-known folder cannot be deleted: 403 with an EWS code, assumed [P]."""
    mailbox = call.open("Mail.ReadWrite")
    folder = call.folder(mailbox)
    if folder.well_known is not None:
        raise GraphError(403, "ErrorDeleteDistinguishedFolder", "Distinguished folders cannot be deleted.")
    mailbox.remove_folder(folder)
    return web.Response(status=204)


async def move_folder(call: GraphCall) -> web.Response:
    """200 with the folder; its id stays, folders do not take part in id changes (graph.md 2.4 [D])."""
    mailbox = call.open("Mail.ReadWrite")
    folder = call.folder(mailbox)
    target = await destination(call, mailbox)
    _check_movable(folder, target)
    if target is not folder.parent:
        _check_free(mailbox, target, folder.name)
    mailbox.move_folder(folder, target)
    return _folder_answer(call, mailbox, folder, 200)


def _check_movable(folder: Folder, target: Folder) -> None:
    """A well-known folder stays, and none goes below itself: EWS codes, assumed [P]."""
    if folder.well_known is not None:
        raise GraphError(403, "ErrorMoveDistinguishedFolder", "Distinguished folders cannot be moved.")
    above: Folder | None = target
    while above is not None:
        if above is folder:
            raise GraphError(400, "ErrorMoveCopyFailed", "The move or copy operation failed.")
        above = above.parent


def _check_names(given: dict[str, Any]) -> None:
    for name in given:
        if not name.startswith("@") and name not in FOLDER_PROPERTIES:
            raise unknown_in_body(name, FOLDER_TYPE)


def _name(given: dict[str, Any]) -> str:
    name = given.get("displayName")
    if not isinstance(name, str) or not name.strip():
        raise wrong_body("The property 'displayName' is required and must be a non-empty text.")
    return name


def _check_free(mailbox: Mailbox, parent: Folder, name: str) -> None:
    if any(sibling.name.casefold() == name.casefold() for sibling in mailbox.children(parent)):
        raise GraphError(409, "ErrorFolderExists", "A folder with the specified name already exists.")


def _folder_answer(
    call: GraphCall, mailbox: Mailbox, folder: Folder, status: int, select: list[str] | None = None
) -> web.Response:
    shown = _selected(mailbox.folder_json(folder), select)
    return call.answer({"@odata.context": call.context(mailbox, "mailFolders/$entity"), **shown}, status)
