"""Delta of a folder's messages and of the folder tree (graph.md 5.3)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from .delta import Page, Position, Round
from .errors import GraphError
from .filter_language import parse_filter
from .folders import Folder
from .graph_call import GraphCall
from .mailbox import Mailbox
from .message_json import MESSAGE_TYPE, View, message_id, message_json, read_path
from .messages import ALL_PROPERTIES, Message
from .query_options import option, read_expand, read_select
from .routes_folders import FOLDER_PROPERTIES, FOLDER_TYPE

# graph.md 5.3 [D]: with $filter=receivedDateTime at most this many messages come.
MOST_WITH_FILTER = 5000
_CHANGE_TYPES = ("created", "updated", "deleted")
_ORDER = "receiveddatetime desc"


async def messages_delta(call: GraphCall) -> web.Response:
    """A page of changes in one folder, with a nextLink or, at the end of the round, a deltaLink."""
    mailbox = call.open("Mail.ReadBasic")
    folder = call.folder(mailbox)
    scope = (mailbox.principal.id, folder.id)
    position = _position(call, scope) or Position(scope, _message_options(call), 0)
    page = call.world.mail.delta.page(position, lambda start: _message_round(mailbox, folder, start))
    view = call.view(mailbox)
    view.select = position.options["select"]
    view.expand = position.options["expand"]
    entries = (_message_entry(key, folder, view) for key in page.keys)
    tail = f"mailFolders('{folder.id}')/messages"
    return _page_answer(call, mailbox, f"{tail}/$delta", page, [entry for entry in entries if entry])


async def folders_delta(call: GraphCall) -> web.Response:
    """A page of changes in the folder tree, all levels flat; count changes appear (graph.md 5.3 [D])."""
    mailbox = call.open("Mail.ReadBasic")
    scope = (mailbox.principal.id, "")
    position = _position(call, scope) or Position(scope, _folder_options(call), 0)
    page = call.world.mail.delta.page(position, lambda start: _folder_round(mailbox, start))
    select = position.options["select"]
    return _page_answer(
        call, mailbox, "mailFolders/$delta", page, [_folder_entry(key, mailbox, select) for key in page.keys]
    )


def _position(call: GraphCall, scope: tuple[str, str]) -> Position | None:
    token = option(call.options, "deltatoken") or option(call.options, "skiptoken")
    return None if token is None else call.world.mail.delta.redeem(token, scope)


def _page_size(call: GraphCall) -> int | None:
    """$top and maxpagesize are wishes (graph.md 5.3 [D])."""
    top = option(call.options, "top")
    wished = int(top) if top and top.isdigit() else None
    return call.preferences.page_size or wished or None


def _message_options(call: GraphCall) -> dict[str, Any]:
    """The options allowed on the first call only; everything else is refused (graph.md 5.3 [D])."""
    if option(call.options, "search") is not None:
        raise GraphError(400, "BadRequest", "The query parameter '$search' is not supported with delta.")
    order = " ".join((option(call.options, "orderby") or "").lower().split())
    if order not in ("", _ORDER):
        raise GraphError(400, "BadRequest", "Only '$orderby=receivedDateTime desc' is supported with delta.")
    change_type = call.options.get("changeType")
    if change_type is not None and change_type not in _CHANGE_TYPES:
        raise GraphError(400, "BadRequest", f"The value '{change_type}' of changeType is not valid.")
    written = option(call.options, "filter")
    return {
        "select": read_select(call.options, ALL_PROPERTIES, MESSAGE_TYPE),
        "expand": read_expand(option(call.options, "expand") or "", ALL_PROPERTIES, MESSAGE_TYPE),
        "filter": _received_filter(written) if written else None,
        "newest_first": bool(order),
        "change_type": change_type,
        "page_size": _page_size(call),
    }


def _received_filter(text: str) -> Any:
    words = text.split()
    if len(words) != 3 or words[0].lower() != "receiveddatetime" or words[1].lower() not in ("ge", "gt"):
        raise GraphError(400, "BadRequest", "Delta supports only '$filter=receivedDateTime ge|gt <time>'.")
    return parse_filter(text, ALL_PROPERTIES, MESSAGE_TYPE)


def _message_round(mailbox: Mailbox, folder: Folder, start: Position) -> Round:
    """What changed in the folder since the sequence of the position, oldest change first."""
    since, options = start.since, start.options
    live = [message for message in folder.items.values() if message.last_seq > since]
    if options["filter"] is not None:
        test = options["filter"].matches
        live = [m for m in live if test(lambda path, m=m: read_path(m, path))]
    live.sort(key=lambda message: message.last_seq)
    if options["newest_first"]:
        live.sort(key=lambda message: message.properties["receivedDateTime"], reverse=True)
    if options["filter"] is not None:
        live = live[:MOST_WITH_FILTER]
    keys: list[Any] = [(_change_kind(message, since), message) for message in live]
    gone = {
        immutable: (immutable, rest)
        for sequence, entered, immutable, rest in folder.departures
        # Items that came and went since the last round were never seen: nothing to take back.
        if sequence > since >= entered
    }
    keys += [("deleted", pair) for pair in gone.values()]
    wanted = options["change_type"]
    if wanted is not None:
        keys = [key for key in keys if (key[0] if key[0] in ("created", "deleted") else "updated") == wanted]
    return Round(start.scope, options, since, mailbox.sequence, keys)


def _change_kind(message: Message, since: int) -> str:
    if message.entered_seq > since:
        return "created"
    return "updated" if message.content_seq > since else "read"


def _message_entry(key: tuple[str, Any], folder: Folder, view: View) -> dict[str, Any] | None:
    kind, subject = key
    if kind == "deleted":
        if view.preferences.immutable_ids and subject[0] in folder.items:
            return None  # it came back under the same id
        gone_id = subject[0] if view.preferences.immutable_ids else subject[1]
        return {"@odata.type": "#microsoft.graph.message", "id": gone_id, "@removed": {"reason": "deleted"}}
    if subject.removed or subject.folder is not folder:
        return None  # it left while the round was read; the next round says so
    if kind == "read":
        # graph.md 5.3 [F]: a pure isRead change comes partial and without etag.
        shown = {
            "@odata.type": "#microsoft.graph.message",
            "id": message_id(subject, view.preferences.immutable_ids),
        }
        return {**shown, "isRead": subject.properties["isRead"]}
    return {"@odata.type": "#microsoft.graph.message", **message_json(subject, view)}


def _folder_options(call: GraphCall) -> dict[str, Any]:
    return {
        "select": read_select(call.options, FOLDER_PROPERTIES, FOLDER_TYPE),
        "page_size": _page_size(call),
    }


def _folder_round(mailbox: Mailbox, start: Position) -> Round:
    since = start.since
    changed = [folder for folder in mailbox.visible_folders() if folder.changed_at_seq > since]
    keys: list[Any] = list(changed)
    keys += [gone for sequence, created, gone in mailbox.removed_folders if sequence > since >= created]
    return Round(start.scope, start.options, since, mailbox.sequence, keys)


def _folder_entry(key: Folder | str, mailbox: Mailbox, select: list[str] | None) -> dict[str, Any]:
    gone = key if isinstance(key, str) else (key.id if key.id not in mailbox.folders else None)
    if gone is not None or isinstance(key, str):
        return {"@odata.type": "#microsoft.graph.mailFolder", "id": gone, "@removed": {"reason": "deleted"}}
    shown = mailbox.folder_json(key)
    kept = shown if select is None else {name: shown[name] for name in ("id", *select) if name in shown}
    return {"@odata.type": "#microsoft.graph.mailFolder", **kept}


def _page_answer(
    call: GraphCall, mailbox: Mailbox, tail: str, page: Page, entries: list[dict[str, Any]]
) -> web.Response:
    link, parameter = ("@odata.deltaLink", "$deltatoken") if page.is_last else ("@odata.nextLink", "$skiptoken")
    answer = {"@odata.context": call.context(mailbox, tail), link: f"{call.here()}?{parameter}={page.token}"}
    return call.answer({**answer, "value": entries})
