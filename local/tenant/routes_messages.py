"""List, read, create, change, delete and move messages (graph.md 3.1, 4, 5.1)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .access import access_denied
from .errors import GraphError
from .graph_call import GraphCall
from .mailbox import Mailbox
from .mapi_state import stored_state
from .message_input import read_changes, read_extended, read_message
from .message_json import MESSAGE_TYPE, View, etag, message_json, read_path
from .messages import ALL_PROPERTIES, Message, NewMessage
from .mime_reading import read_mime, with_headers
from .mime_writing import write_mime
from .query_options import ListQuery, Order, not_emulated, option, read_list_query
from .search_language import check_options, found_by

if TYPE_CHECKING:
    from .folders import Folder

# Editing one of these re-renders a draft that came as MIME (graph.md 16: "Exchange re-renders on change").
_PART_OF_MIME = frozenset(
    ["subject", "body", "toRecipients", "ccRecipients", "bccRecipients", "replyTo", "internetMessageId"]
)


async def list_messages(call: GraphCall) -> web.Response:
    """A page of messages of the mailbox or of one folder, newest first unless ordered otherwise [P]."""
    mailbox = call.open("Mail.ReadBasic")
    folder = call.folder(mailbox) if "folder" in call.keys else None
    options = _continued(call.options)
    view = call.view(mailbox)
    query, found = _found(call, view, options, folder.newest_first() if folder else mailbox.all_newest_first())
    view.select, view.expand = query.select, query.expand
    tail = f"mailFolders('{folder.id}')/messages" if folder else "messages"
    answer: dict[str, Any] = {"@odata.context": call.context(mailbox, tail)}
    if query.count:
        answer["@odata.count"] = len(found)
    answer["value"] = [message_json(message, view) for message in found[query.skip : query.skip + query.top]]
    if query.skip + query.top < len(found):
        answer["@odata.nextLink"] = _next_link(call, options, query.skip + query.top)
    return call.answer(answer)


async def count_messages(call: GraphCall) -> web.Response:
    """`/messages/$count`: a plain number (graph.md 4, notes [D])."""
    mailbox = call.open("Mail.ReadBasic")
    folder = call.folder(mailbox) if "folder" in call.keys else None
    query = read_list_query(call.options, ALL_PROPERTIES, MESSAGE_TYPE)
    messages = folder.newest_first() if folder else mailbox.all_newest_first()
    found = _matching(messages, query, call.preferences.immutable_ids)
    return web.Response(text=str(len(found)))


def _found(
    call: GraphCall, view: View, options: Mapping[str, str], messages: list[Message]
) -> tuple[ListQuery, list[Message]]:
    """The checked options and what they find: by $filter, or by $search, which is not for Mail.ReadBasic (5.2 [D])."""
    words = option(options, "search")
    if words is None:
        query = read_list_query(options, ALL_PROPERTIES, MESSAGE_TYPE)
        return query, _matching(messages, query, call.preferences.immutable_ids)
    if view.hidden:
        raise access_denied()
    continued = options is not call.options  # a nextLink of ours counts on in its own way
    others = {name: value for name, value in options.items() if name.lower() != "$search"}
    check_options({name: value for name, value in others.items() if not continued or name.lower() != "$skip"})
    query = read_list_query(others, ALL_PROPERTIES, MESSAGE_TYPE)
    query.count = False
    return query, found_by(messages, words)


def _matching(messages: list[Message], query: ListQuery, immutable: bool = False) -> list[Message]:
    if query.filter is not None:
        test = query.filter.matches
        messages = [m for m in messages if test(lambda path, m=m: read_path(m, path, immutable))]
    # Sorting is stable, so the last key first gives the order of all keys.
    for order in reversed(query.order):
        messages = sorted(messages, key=_sort_key(order), reverse=order.descending)
    return messages


def _sort_key(order: Order) -> Any:
    def key(message: Message) -> str:
        value = read_path(message, order.path)
        return "" if value is None else str(value).casefold()

    return key


def _next_link(call: GraphCall, options: Mapping[str, str], skip: int) -> str:
    """An opaque link on the host the caller used; the options travel inside the token (4, notes [D])."""
    kept = {key: value for key, value in options.items() if key.lower() != "$skip"}
    token = base64.urlsafe_b64encode(json.dumps({**kept, "$skip": str(skip)}).encode()).decode()
    return f"{call.here()}?$skiptoken={token}"


def _continued(options: Mapping[str, str]) -> Mapping[str, str]:
    """The options of the first call when this one follows a nextLink."""
    token = option(options, "skiptoken")
    if token is None:
        return options
    try:
        kept = json.loads(base64.urlsafe_b64decode(token))
        return {str(key): str(value) for key, value in kept.items()}
    except (ValueError, AttributeError):
        raise GraphError(400, "BadRequest", "Badly formed token.") from None


async def get_message(call: GraphCall) -> web.Response:
    mailbox = call.open("Mail.ReadBasic")
    view = call.view(mailbox)
    message = call.message(mailbox)
    shown = {"@odata.context": call.context(mailbox, "messages/$entity"), **message_json(message, view)}
    return _with_etag(call.answer(shown), message)


async def get_mime(call: GraphCall) -> web.Response:
    """The message as RFC 822: byte for byte as it came, or generated for messages made as JSON."""
    message = call.message(call.open("Mail.Read"))
    raw = message.raw if message.raw is not None else write_mime(message)
    return web.Response(body=raw, content_type="text/plain")


async def create_message(call: GraphCall) -> web.Response:
    """A draft, from JSON or from text/plain base64 MIME; 201 (graph.md 4 [D])."""
    mailbox = call.open("Mail.ReadWrite")
    folder = call.folder(mailbox) if "folder" in call.keys else mailbox.well_known["drafts"]
    content = _mime_draft(call, await call.mime_body()) if call.is_mime else read_message(await call.json_body())
    if not content.properties.get("internetMessageId"):
        content.properties["internetMessageId"] = call.world.mail.new_message_id(mailbox.principal.upn)
    state = {} if call.is_mime else stored_state(content)
    message = mailbox.add(content, folder, **{"isDraft": True, **state})
    return _message_answer(call, mailbox, message, 201)


def _mime_draft(call: GraphCall, raw: bytes) -> NewMessage:
    content = read_mime(raw)
    if call.world.switches.mime_from == "authenticated_user":
        # graph.md 6.3 [F]: the From of a MIME message may not count; a later PATCH of `from` does.
        content.properties.update({"from": None, "sender": None})
    return content


async def update_message(call: GraphCall) -> web.Response:
    """The changed message. What may change is in graph.md 3.1 [D]."""
    mailbox = call.open("Mail.ReadWrite")
    message = call.message(mailbox)
    _check_if_match(call, message)
    given = await call.json_body()
    changes = read_changes(given, message.properties["isDraft"])
    extended = read_extended(given.get("singleValueExtendedProperties"))
    apply_changes(mailbox, message, changes, extended)
    return _message_answer(call, mailbox, message, 200)


def apply_changes(
    mailbox: Mailbox, message: Message, changes: dict[str, Any], extended: dict[str, str] | None = None
) -> None:
    """Sets the properties and records the edit; a pure isRead change is marked as such (5.3 [F])."""
    read_changed = "isRead" in changes and mailbox.set_read(message, changes["isRead"])
    others = {name: value for name, value in changes.items() if name != "isRead"}
    if not others and not extended:
        if read_changed:
            mailbox.changed(message, only_read_state=True)
        return
    message.properties.update(others)
    message.extended.update(extended or {})
    _keep_mime_true(message, others)
    mailbox.changed(message)


def _keep_mime_true(message: Message, changes: dict[str, Any]) -> None:
    if message.raw is None:
        return
    if _PART_OF_MIME & changes.keys():
        message.raw = None
        if "body" in changes:
            message.alternative_text = None
    elif message.properties["isDraft"] and {"from", "sender"} & changes.keys():
        names = [(name, message.properties[name.lower()]) for name in ("From", "Sender") if name.lower() in changes]
        lines = [(name, f"<{who['emailAddress']['address']}>") for name, who in names if who]
        message.raw = with_headers(message.raw, {name.lower() for name, _ in names}, [], lines)


def _check_if_match(call: GraphCall, message: Message) -> None:
    """graph.md 2.3: 412 for a stale If-Match; the code is of 9.1."""
    wanted = call.request.headers.get("If-Match")
    if wanted not in (None, "*", etag(message)):
        message_text = "The send or update operation could not be performed because the change key passed in the "
        raise GraphError(
            412, "ErrorIrresolvableConflict", message_text + "request does not match the current change key."
        )


async def delete_message(call: GraphCall) -> web.Response:
    """204; the item goes to Deleted Items, from there (or the dumpster) out of sight (graph.md 4 [D])."""
    mailbox = call.open("Mail.ReadWrite")
    message = call.message(mailbox)
    _check_if_match(call, message)
    deleted, dumpster = mailbox.well_known["deleteditems"], mailbox.well_known["recoverableitemsdeletions"]
    if message.folder is dumpster:
        mailbox.remove(message, purge=True)
    else:
        mailbox.move(message, dumpster if message.folder is deleted else deleted)
    return web.Response(status=204)


async def purge_message(call: GraphCall) -> web.Response:
    """204; a second call is 403 ErrorCannotDeleteObject (graph.md 4 [F])."""
    mailbox = call.open("Mail.ReadWrite")
    call.check_length()
    if mailbox.was_purged(call.keys["message"]):
        raise GraphError(403, "ErrorCannotDeleteObject", "Cannot delete the object.")
    mailbox.remove(call.message(mailbox), purge=True)
    return web.Response(status=204)


async def move_message(call: GraphCall) -> web.Response:
    mailbox = call.open("Mail.ReadWrite")
    message = call.message(mailbox)
    target = await destination(call, mailbox)
    if target is not message.folder:
        mailbox.move(message, target)
    return _message_answer(call, mailbox, message, 201)


async def copy_message(call: GraphCall) -> web.Response:
    mailbox = call.open("Mail.ReadWrite")
    message = call.message(mailbox)
    target = await destination(call, mailbox)
    kept = {name: value for name, value in message.properties.items() if not name.startswith("conversation")}
    copy = mailbox.add(replace(as_content(message), properties=kept), target)
    return _message_answer(call, mailbox, copy, 201)


async def destination(call: GraphCall, mailbox: Mailbox) -> Folder:
    """The folder named by `destinationId`, an id or a well-known name (graph.md 3.2 [D])."""
    wanted = (await call.parameters()).get("destinationid")
    if not isinstance(wanted, str) or not wanted:
        raise GraphError(400, "ErrorInvalidParameter", "The parameter 'DestinationId' is required.")
    return mailbox.folder(wanted)


def as_content(message: Message) -> NewMessage:
    """The stored message as content for another copy or for sending."""
    return NewMessage(
        dict(message.properties),
        message.attachments,
        message.extended,
        message.headers,
        message.raw,
        message.alternative_text,
        message.passed_transport,
    )


async def message_action_missing(call: GraphCall) -> web.Response:
    """501 for the actions this stand-in lacks."""
    raise not_emulated("reply, replyAll, forward and their create... forms on messages")


def _message_answer(call: GraphCall, mailbox: Mailbox, message: Message, status: int) -> web.Response:
    shown = {
        "@odata.context": call.context(mailbox, "messages/$entity"),
        **message_json(message, call.view(mailbox)),
    }
    return _with_etag(call.answer(shown, status), message)


def _with_etag(response: web.Response, message: Message) -> web.Response:
    response.headers["ETag"] = etag(message)
    return response
