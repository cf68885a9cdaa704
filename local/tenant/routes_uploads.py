"""Upload sessions over HTTP: begun at Graph, fed at a URL of another service (graph.md 7.3, 15 item 7)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web

from .access import access_denied
from .errors import GraphError
from .graph_call import GraphCall
from .message_input import unknown_in_body, wrong_body
from .messages import Attachment
from .routes_attachments import check_draft
from .uploads import LARGEST_ATTACHMENT, LARGEST_RANGE, PREFIX, UploadSession
from .wire_time import to_wire

if TYPE_CHECKING:
    from .world import World

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_ITEM = {"attachmenttype", "name", "size", "contenttype", "isinline", "contentid"}


async def create_upload_session(call: GraphCall) -> web.Response:
    """201; with a user token only in the caller's own mailbox (graph.md 7.3, known issue)."""
    mailbox = call.open("Mail.ReadWrite")
    if call.caller.kind == "user" and not call.is_own(mailbox):
        raise access_denied()
    message = call.message(mailbox)
    check_draft(message)
    attachment, size = _item((await call.parameters()).get("attachmentitem"))
    session = call.world.mail.uploads.begin(call.caller.app_id, mailbox, message, attachment, size)
    owner, item = quote(mailbox.principal.id), quote(message.immutable_id)
    place = f"api/v2.0/Users('{owner}')/Messages('{item}')/AttachmentSessions('{session.token[:16]}')"
    return call.answer(
        {
            "@odata.context": f"{call.root}/$metadata#microsoft.graph.uploadSession",
            "uploadUrl": f"{call.request.scheme}://{call.request.host}{PREFIX}{place}?authtoken={session.token}",
            "expirationDateTime": to_wire(session.expires),
            "nextExpectedRanges": ["0-"],
        },
        201,
    )


def _item(given: Any) -> tuple[Attachment, int]:
    if not isinstance(given, dict):
        raise GraphError(400, "ErrorInvalidParameter", "The parameter 'AttachmentItem' is required.")
    fields = {name.lower(): value for name, value in given.items() if not name.startswith("@")}
    for name in fields:
        if name not in _ITEM:
            raise unknown_in_body(name, "microsoft.graph.attachmentItem")
    size, name = fields.get("size"), fields.get("name")
    if fields.get("attachmenttype") != "file" or not isinstance(name, str) or not name:
        raise wrong_body("An attachment item needs the attachmentType 'file' and a name.")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= LARGEST_ATTACHMENT:
        # graph.md 7.3 [D] gives the limit; status and code above it are assumed [P].
        raise GraphError(400, "ErrorAttachmentSizeLimitExceeded", "The size of the attachment is not allowed.")
    kind = fields.get("contenttype") or "application/octet-stream"
    return Attachment("", name, kind, b"", bool(fields.get("isinline")), fields.get("contentid")), size


def add_upload_routes(app: web.Application, world: World) -> None:
    """Serves the upload URLs, on a path apart from Graph."""

    def session_of(request: web.Request) -> UploadSession:
        if "Authorization" in request.headers:
            # The URL is the credential; Graph's token has no business here (graph.md 7.3, 15 item 7).
            raise GraphError(401, "InvalidAuthenticationToken", "An upload URL takes no Authorization header.")
        return world.mail.uploads.find(request.query.get("authtoken", ""))

    async def put(request: web.Request) -> web.Response:
        session = session_of(request)
        content = await request.read()
        _check_range(request, session, content)
        world.mail.uploads.add(session, content)
        if session.next_start < session.size:
            return _progress(session)
        return _completed(world, request, session)

    async def get(request: web.Request) -> web.Response:
        return _progress(session_of(request))

    async def delete(request: web.Request) -> web.Response:
        world.mail.uploads.end(session_of(request))
        return web.Response(status=204)

    for method, answer in (("PUT", put), ("GET", get), ("DELETE", delete)):
        app.router.add_route(method, PREFIX + "{tail:.*}", answer)


def _check_range(request: web.Request, session: UploadSession, content: bytes) -> None:
    """Ranges come in order, whole, under 4 MB, and of the size announced (graph.md 7.3 [D]; codes assumed [P])."""
    if len(content) >= LARGEST_RANGE:
        raise GraphError(413, "RequestEntityTooLarge", "A range must be smaller than 4 MB.")
    found = _RANGE.fullmatch(request.headers.get("Content-Range", ""))
    if found is None:
        raise GraphError(400, "ErrorInvalidRequest", "A Content-Range header is required.")
    first, last, total = (int(number) for number in found.groups())
    if total != session.size or last >= total or last - first + 1 != len(content):
        raise GraphError(400, "ErrorInvalidRequest", "The Content-Range header does not fit the content.")
    if first != session.next_start:
        raise GraphError(416, "InvalidContentRange", f"The range expected next begins at {session.next_start}.")


def _progress(session: UploadSession) -> web.Response:
    """Capital letters here, unlike Graph's own answer (graph.md 7.3 [D])."""
    shown = {"ExpirationDateTime": to_wire(session.expires), "NextExpectedRanges": [str(session.next_start)]}
    return web.json_response(shown)


def _completed(world: World, request: web.Request, session: UploadSession) -> web.Response:
    """201 without a body; the id of the attachment is in Location (graph.md 7.3 [D])."""
    world.mail.uploads.end(session)
    message, mailbox = session.message, session.mailbox
    modified, content = to_wire(world.clock.now()), bytes(session.received)
    attachment = replace(session.attachment, id=mailbox.ids.attachment(), content=content, modified=modified)
    message.attachments = [*message.attachments, attachment]
    message.raw = None
    mailbox.changed(message)
    place = request.path.rpartition("/")[0] + f"/Attachments('{attachment.id}')"
    return web.Response(status=201, headers={"Location": f"{request.scheme}://{request.host}{place}"})
