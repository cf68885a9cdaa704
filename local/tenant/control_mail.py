"""Control over mail: put messages into mailboxes, look at what is in them, see subscriptions."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .control_input import ControlError, json_object, known_principal, people, person, required

if TYPE_CHECKING:
    from .world import World


def _recipients(world: World, body: dict[str, Any], named: list[dict[str, str]]) -> list[str]:
    """Addresses of the mailboxes to deliver to: the one named, else every local addressee."""
    if body.get("mailbox"):
        reference = str(body["mailbox"])
        found = world.directory.find(reference) or world.directory.mailbox_for_address(reference)
        mailbox = known_principal(found, reference)
        return [mailbox.mail or mailbox.upn]
    local = [p["address"] for p in named if world.directory.mailbox_for_address(p["address"]) is not None]
    if not local:
        raise ControlError(404, "None of the addresses has a mailbox in this tenant.")
    return local


def _attachments(value: object) -> list[dict[str, Any]]:
    """The attachments in the names Graph uses, as the mail store takes them."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) and one.get("name") for one in value):
        raise ControlError(400, "attachments is a list of {name, content_type, content_base64 or link}.")
    return [_attachment(one) for one in value]


def _attachment(given: dict[str, Any]) -> dict[str, Any]:
    content = str(given.get("content_base64", ""))
    decoded(content, f"content_base64 of {given['name']!r}")
    return {
        "name": given["name"],
        "contentType": given.get("content_type") or "application/octet-stream",
        "contentBytes": content,
        "isInline": bool(given.get("is_inline")),
        "contentId": given.get("content_id"),
        "link": given.get("link"),
    }


def decoded(text: str, what: str) -> bytes:
    """The bytes of a base64 text. Raises ControlError 400 naming what was wrong."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ControlError(400, f"{what} is not base64.") from error


def _headers(value: object) -> dict[str, str]:
    """Header fields by name, from an object or a list of {name, value}."""
    if isinstance(value, list):
        return {str(one["name"]): str(one["value"]) for one in value}
    return {str(name): str(text) for name, text in value.items()} if isinstance(value, dict) else {}


def _deliver(world: World, body: dict[str, Any]) -> list[dict[str, Any]]:
    (sender,) = required(body, "from")
    to, cc = people(body.get("to")), people(body.get("cc"))
    raw = decoded(str(body["raw_base64"]), "raw_base64") if body.get("raw_base64") else None
    return world.mail.deliver(
        person(sender),
        _recipients(world, body, [*to, *cc, *people(body.get("bcc"))]),
        to=to or None,
        cc=cc,
        subject=str(body.get("subject") or ""),
        text=body.get("text"),
        html=body.get("html"),
        headers=_headers(body.get("headers")),
        folder=body.get("folder"),
        attachments=_attachments(body.get("attachments")),
        message_id=body.get("message_id"),
        raw=raw,
    )


def add_mail_control(app: web.Application, world: World, prefix: str) -> None:
    """Mount /deliver, /mailboxes, /subscriptions and /lifecycle under the prefix."""

    def mailbox(request: web.Request) -> str:
        reference = request.match_info["ref"]
        found = world.directory.find(reference) or world.directory.mailbox_for_address(reference)
        principal = known_principal(found, reference)
        if not principal.has_mailbox:
            raise ControlError(404, f"{reference!r} has no mailbox here: it is of kind {principal.kind}.")
        return principal.id

    async def deliver(request: web.Request) -> web.Response:
        body = await json_object(request)
        try:
            return web.json_response({"delivered": _deliver(world, body)}, status=201)
        except KeyError as error:
            raise ControlError(404, f"No such mailbox or folder: {error}.") from error

    async def messages(request: web.Request) -> web.Response:
        """A mailbox, or with `external:<address>` the mail that left the tenant for that address."""
        reference, folder = request.match_info["ref"], request.query.get("folder")
        source = reference if reference.startswith("external:") else mailbox(request)
        try:
            return web.json_response({"value": world.mail.dump(source, folder)})
        except KeyError as error:
            raise ControlError(404, f"No folder {folder!r}.") from error

    async def folders(request: web.Request) -> web.Response:
        return web.json_response({"value": world.mail.folders(mailbox(request))})

    async def subscriptions(_: web.Request) -> web.Response:
        return web.json_response({"value": world.notifier.dump()})

    async def lifecycle(request: web.Request) -> web.Response:
        subscription_id, event = required(await json_object(request), "subscription_id", "event")
        try:
            await world.notifier.lifecycle(subscription_id, event)
        except LookupError as error:
            raise ControlError(404, f"No subscription {subscription_id!r}.") from error
        return web.json_response({"subscription_id": subscription_id, "event": event})

    app.router.add_post(f"{prefix}/deliver", deliver)
    app.router.add_get(f"{prefix}/mailboxes/{{ref}}/messages", messages)
    app.router.add_get(f"{prefix}/mailboxes/{{ref}}/folders", folders)
    app.router.add_get(f"{prefix}/subscriptions", subscriptions)
    app.router.add_post(f"{prefix}/lifecycle", lifecycle)
