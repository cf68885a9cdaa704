"""The table of emulated Graph operations and the dispatch to them (graph.md 4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from . import routes_attachments as attachments
from . import routes_delta as delta
from . import routes_folders as folders
from . import routes_messages as messages
from . import routes_sending as sending
from . import routes_subscriptions as subscriptions
from . import routes_uploads as uploads
from . import routes_users as users
from .access import access_denied
from .errors import GraphError
from .graph_call import GraphCall
from .graph_path import fit, split_path
from .query_options import not_emulated
from .routes_batch import batch_of

if TYPE_CHECKING:
    from .world import World

Answer = Callable[[GraphCall], Awaitable[web.StreamResponse]]
Route = tuple[str, tuple[str, ...], Answer]


async def mailbox_settings(call: GraphCall) -> web.Response:
    """403 for a foreign mailbox with a user token, always (graph.md 4 [D]); otherwise not emulated."""
    mailbox = call.open("MailboxSettings.Read")
    if call.caller.kind == "user" and not call.is_own(mailbox):
        raise access_denied()
    raise not_emulated("mailboxSettings")


async def translate_ids(call: GraphCall) -> web.Response:
    raise not_emulated("translateExchangeIds")


# Below the mailbox, both under `messages` and under `mailFolders/{folder}/messages`.
_MESSAGE: list[tuple[str, str, Answer]] = [
    ("GET", "", messages.list_messages),
    ("POST", "", messages.create_message),
    ("GET", "$count", messages.count_messages),
    ("GET", "{message}", messages.get_message),
    ("PATCH", "{message}", messages.update_message),
    ("DELETE", "{message}", messages.delete_message),
    ("GET", "{message}/$value", messages.get_mime),
    ("POST", "{message}/move", messages.move_message),
    ("POST", "{message}/copy", messages.copy_message),
    ("POST", "{message}/send", sending.send_draft),
    ("POST", "{message}/permanentDelete", messages.purge_message),
    ("POST", "{message}/reply", messages.message_action_missing),
    ("POST", "{message}/replyAll", messages.message_action_missing),
    ("POST", "{message}/forward", messages.message_action_missing),
    ("POST", "{message}/createReply", messages.message_action_missing),
    ("POST", "{message}/createReplyAll", messages.message_action_missing),
    ("POST", "{message}/createForward", messages.message_action_missing),
    ("GET", "{message}/attachments", attachments.list_attachments),
    ("POST", "{message}/attachments", attachments.add_attachment),
    ("POST", "{message}/attachments/createUploadSession", uploads.create_upload_session),
    ("GET", "{message}/attachments/{attachment}", attachments.get_attachment),
    ("DELETE", "{message}/attachments/{attachment}", attachments.delete_attachment),
    ("GET", "{message}/attachments/{attachment}/$value", attachments.get_attachment_bytes),
]
_MAILBOX: list[tuple[str, str, Answer]] = [
    ("GET", "", users.get_user),
    ("POST", "sendMail", sending.send_mail),
    ("GET", "mailboxSettings", mailbox_settings),
    ("PATCH", "mailboxSettings", mailbox_settings),
    ("POST", "translateExchangeIds", translate_ids),
    ("GET", "mailFolders", folders.list_folders),
    ("POST", "mailFolders", folders.create_folder),
    ("GET", "mailFolders/delta", delta.folders_delta),
    ("GET", "mailFolders/{folder}", folders.get_folder),
    ("PATCH", "mailFolders/{folder}", folders.rename_folder),
    ("DELETE", "mailFolders/{folder}", folders.delete_folder),
    ("POST", "mailFolders/{folder}/move", folders.move_folder),
    ("GET", "mailFolders/{folder}/childFolders", folders.list_folders),
    ("POST", "mailFolders/{folder}/childFolders", folders.create_folder),
    # Before {message}: the first fitting route wins.
    ("GET", "mailFolders/{folder}/messages/delta", delta.messages_delta),
]
_TENANT: list[tuple[str, str, Answer]] = [
    ("GET", "users", users.list_users),
    ("POST", "$batch", batch_of(lambda method, segments: find_route(method, segments))),
    ("POST", "subscriptions", subscriptions.create_subscription),
    ("GET", "subscriptions", subscriptions.list_subscriptions),
    ("GET", "subscriptions/{subscription}", subscriptions.get_subscription),
    ("PATCH", "subscriptions/{subscription}", subscriptions.renew_subscription),
    ("DELETE", "subscriptions/{subscription}", subscriptions.delete_subscription),
    ("POST", "subscriptions/{subscription}/reauthorize", subscriptions.reauthorize_subscription),
]


def _pattern(*parts: str) -> tuple[str, ...]:
    return tuple(segment for part in parts for segment in part.split("/") if segment)


def _all_routes() -> list[Route]:
    routes: list[Route] = [(method, _pattern(path), answer) for method, path, answer in _TENANT]
    for owner in ("me", "users/{user}"):
        routes += [(method, _pattern(owner, path), answer) for method, path, answer in _MAILBOX]
        for place in ("messages", "mailFolders/{folder}/messages"):
            routes += [(method, _pattern(owner, place, path), answer) for method, path, answer in _MESSAGE]
    return routes


ROUTES = _all_routes()


def find_route(method: str, segments: list[str]) -> tuple[Answer, dict[str, str]]:
    """The operation behind a method and path. GraphError 405 or 400 when there is none [P]."""
    path_known = False
    for wanted, pattern, answer in ROUTES:
        keys = fit(pattern, segments)
        if keys is not None:
            if wanted == method:
                return answer, keys
            path_known = True
    if path_known:
        message = "Specified HTTP method is not allowed for the request target."
        raise GraphError(405, "Request_BadRequest", message)
    raise GraphError(400, "BadRequest", f"Resource not found for the segment '{_first_unknown(segments)}'.")


def _first_unknown(segments: list[str]) -> str:
    """The segment at which no operation goes on."""
    for length in range(1, len(segments) + 1):
        if not any(fit(pattern[:length], segments[:length]) is not None for _, pattern, _ in ROUTES):
            return segments[length - 1]
    return segments[-1] if segments else ""


def add_graph_routes(app: web.Application, world: World) -> None:
    """Serves everything below /v1.0/."""

    async def dispatch(request: web.Request) -> web.StreamResponse:
        # The token comes first (graph.md 15 item 2), even for paths nobody knows.
        caller = world.login.authenticate(request.headers.get("Authorization"))
        segments = split_path(request.raw_path.partition("?")[0])[1:]
        answer, keys = find_route(request.method, segments)
        return await answer(GraphCall(world, request, caller, keys))

    app.router.add_route("*", "/v1.0/{tail:.*}", dispatch)
