"""sendMail and sending a draft (graph.md 6)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from .errors import GraphError
from .graph_call import GraphCall
from .mailbox import item_not_found
from .message_input import read_message, unknown_in_body, wrong_body
from .mime_reading import read_mime
from .routes_messages import as_content
from .sending import submit


async def send_mail(call: GraphCall) -> web.Response:
    """202 without body. JSON takes both spellings of its parameters; MIME always keeps the copy (6.3 [D])."""
    mailbox = call.open("Mail.Send")
    if call.is_mime:
        submit(call.world, call.caller, mailbox, read_mime(await call.mime_body()))
        return web.Response(status=202)
    given = await call.parameters()
    for name in given:
        if not name.startswith("@") and name not in ("message", "savetosentitems"):
            raise unknown_in_body(name, "microsoft.graph.sendMail")
    content = read_message(_message_of(given))
    submit(call.world, call.caller, mailbox, content, _keeps_copy(given.get("savetosentitems")))
    return web.Response(status=202)


def _message_of(given: dict[str, Any]) -> dict[str, Any]:
    message = given.get("message")
    if not isinstance(message, dict):
        raise GraphError(400, "ErrorInvalidParameter", "The parameter 'Message' is required.")
    return message


def _keeps_copy(flag: Any) -> bool:
    """saveToSentItems; absent or null means true (graph.md 4, notes [D])."""
    if flag is None or isinstance(flag, bool):
        return flag is not False
    # Old samples write "true" and "false" as text.
    if isinstance(flag, str) and flag.lower() in ("true", "false"):
        return flag.lower() == "true"
    raise wrong_body("Cannot convert the value of 'SaveToSentItems' to the expected type 'Edm.Boolean'.")


async def send_draft(call: GraphCall) -> web.Response:
    """202; the draft is gone from Drafts and its immutable id finds the sent copy (graph.md 2.4, 6.1 [D])."""
    mailbox = call.open("Mail.Send")
    call.check_length()
    message = call.message(mailbox)
    if not message.properties["isDraft"]:
        # graph.md 6.5: 404 on /send means it was sent already.
        raise item_not_found()
    submit(call.world, call.caller, mailbox, as_content(message), draft=message)
    return web.Response(status=202)
