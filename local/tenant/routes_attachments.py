"""Attachments of a message: list, read, add to a draft, delete (graph.md 7)."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from .errors import GraphError
from .graph_call import GraphCall
from .ids import looks_like_id
from .mailbox import item_not_found, malformed_id
from .message_input import read_attachment
from .message_json import attachment_json, attachment_select
from .messages import Attachment, Message
from .query_options import option
from .wire_time import to_wire


async def list_attachments(call: GraphCall) -> web.Response:
    """All attachments, inline ones too; $filter is ignored (graph.md 5.1 [D])."""
    mailbox = call.open("Mail.Read")
    message = call.message(mailbox)
    select = attachment_select(option(call.options, "select"))
    context = call.context(mailbox, f"messages('{message.rest_id}')/attachments")
    return call.answer(
        {
            "@odata.context": context,
            "value": [attachment_json(entry, select) for entry in message.attachments],
        }
    )


async def get_attachment(call: GraphCall) -> web.Response:
    mailbox = call.open("Mail.Read")
    message = call.message(mailbox)
    shown = attachment_json(_found(call, message), attachment_select(option(call.options, "select")))
    context = call.context(mailbox, f"messages('{message.rest_id}')/attachments/$entity")
    return call.answer({"@odata.context": context, **shown})


async def get_attachment_bytes(call: GraphCall) -> web.Response:
    """The bytes of a file attachment, the MIME of an attached message (graph.md 7.2 [D])."""
    attachment = _found(call, call.message(call.open("Mail.Read")))
    if attachment.link:
        # graph.md 7.2 [D]: 405; the wording is assumed.
        raise GraphError(405, "ErrorInvalidRequest", "The content of a reference attachment can not be read.")
    kind = "text/plain" if attachment.is_item else attachment.content_type
    return web.Response(body=attachment.content, headers={"Content-Type": kind})


async def add_attachment(call: GraphCall) -> web.Response:
    """201; the whole request stays under 4 MB, so the content under 3 MB (graph.md 7.3 [D])."""
    mailbox = call.open("Mail.ReadWrite")
    message = call.message(mailbox)
    check_draft(message)
    given = read_attachment(await call.json_body())
    attachment = replace(given, id=mailbox.ids.attachment(), modified=to_wire(call.world.clock.now()))
    message.attachments = [*message.attachments, attachment]
    message.raw = None
    mailbox.changed(message)
    context = call.context(mailbox, f"messages('{message.rest_id}')/attachments/$entity")
    return call.answer({"@odata.context": context, **attachment_json(attachment)}, 201)


async def delete_attachment(call: GraphCall) -> web.Response:
    mailbox = call.open("Mail.ReadWrite")
    message = call.message(mailbox)
    gone = _found(call, message)
    message.attachments = [entry for entry in message.attachments if entry is not gone]
    message.raw = None
    mailbox.changed(message)
    return web.Response(status=204)


def _found(call: GraphCall, message: Message) -> Attachment:
    wanted = call.keys["attachment"]
    for attachment in message.attachments:
        if attachment.id == wanted:
            return attachment
    raise item_not_found() if looks_like_id(wanted) else malformed_id()


def check_draft(message: Message) -> None:
    """Raises 400 unless attachments may still be added."""
    if not message.properties["isDraft"]:
        # graph.md 7.3 speaks of drafts only; the code is assumed [P].
        message_text = "Update operation is invalid for property of a sent message."
        raise GraphError(400, "ErrorInvalidPropertyUpdateSentMessage", message_text)
