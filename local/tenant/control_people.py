"""Control over what people do in their mail programs: read, flag, move and delete, outside Graph and its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from .control_input import ControlError, json_object, known_principal, required
from .errors import GraphError
from .routes_messages import apply_changes

if TYPE_CHECKING:
    from .mailbox import Mailbox
    from .messages import Message
    from .world import World


def add_people_control(app: web.Application, world: World) -> None:
    """Mount PATCH, DELETE and /move on /_tenant/mailboxes/{ref}/messages/{id}; 404 when the message is gone."""

    def found(request: web.Request) -> tuple[Mailbox, Message]:
        reference = request.match_info["ref"]
        owner = world.directory.find(reference) or world.directory.mailbox_for_address(reference)
        box = world.mail.mailbox(known_principal(owner, reference))
        try:
            return box, box.find(request.match_info["message"])
        except GraphError as error:
            raise ControlError(404, "No such message.") from error

    async def change(request: web.Request) -> web.Response:
        """What PATCH of a message takes at Graph: {isRead, flag, categories, ...}."""
        changes: dict[str, Any] = await json_object(request)
        box, message = found(request)
        apply_changes(box, message, changes)
        return web.json_response({"id": message.immutable_id})

    async def move(request: web.Request) -> web.Response:
        """{folder}: by well-known name or id."""
        (folder,) = required(await json_object(request), "folder")
        box, message = found(request)
        try:
            target = box.folder(str(folder))
        except GraphError as error:
            raise ControlError(404, f"No folder {folder!r}.") from error
        box.move(message, target)
        return web.json_response({"id": message.immutable_id})

    async def delete(request: web.Request) -> web.Response:
        """Deleted for good."""
        box, message = found(request)
        box.remove(message, purge=True)
        return web.json_response({"id": message.immutable_id})

    path = "/_tenant/mailboxes/{ref}/messages/{message}"
    app.router.add_patch(path, change)
    app.router.add_post(f"{path}/move", move)
    app.router.add_delete(path, delete)
