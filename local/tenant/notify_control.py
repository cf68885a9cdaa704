"""Control of notifications, delta tokens and special folders, under /_tenant/ (not part of Graph)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from .folders import WELL_KNOWN_NAMES

if TYPE_CHECKING:
    from .world import World


def add_notify_control(app: web.Application, world: World) -> None:
    """Adds resend, forge, delta expiry and making of well-known folders."""

    async def resend(request: web.Request) -> web.Response:
        """{subscription_id} or {all: true}: past notifications once more; answers {"posts": n}."""
        given = await _object(request)
        wanted = given.get("subscription_id")
        if wanted is None and not given.get("all"):
            raise web.HTTPBadRequest(text="subscription_id or all is needed")
        return web.json_response({"posts": await world.notifier.resend(wanted)})

    async def forge(request: web.Request) -> web.Response:
        """{url | subscription_id, payload, headers?}: any payload; answers {"answer": status or failure}."""
        given = await _object(request)
        url = given.get("url")
        if url is None:
            subscription = world.notifier.find(str(given.get("subscription_id")))
            if subscription is None:
                raise web.HTTPNotFound(text="no such subscription")
            url = subscription.notification_url
        return web.json_response(
            {"answer": await world.notifier.forge(url, given.get("payload"), given.get("headers"))}
        )

    async def expire_delta(request: web.Request) -> web.Response:
        """{mailbox?}: forgets delta tokens, so that the next use is 410; answers {"expired": n}."""
        reference = (await _object(request)).get("mailbox")
        owner = world.directory.find(reference) if reference else None
        if reference and owner is None:
            raise web.HTTPNotFound(text="no such mailbox")
        return web.json_response({"expired": world.mail.delta.expire(owner.id if owner else None)})

    async def make_folder(request: web.Request) -> web.Response:
        """{mailbox, name}: makes a well-known folder a new mailbox lacks, such as archive."""
        given = await _object(request)
        owner = world.directory.mailbox_for_address(str(given.get("mailbox")))
        name = str(given.get("name")).lower()
        if owner is None or name not in WELL_KNOWN_NAMES:
            raise web.HTTPNotFound(text="no such mailbox or well-known name")
        folder = world.mail.mailbox(owner).ensure_well_known(name)
        return web.json_response({"id": folder.id, "displayName": folder.name})

    app.router.add_post("/_tenant/notifications/resend", resend)
    app.router.add_post("/_tenant/notifications/forge", forge)
    app.router.add_post("/_tenant/delta/expire", expire_delta)
    app.router.add_post("/_tenant/mail/well-known-folder", make_folder)


async def _object(request: web.Request) -> dict[str, Any]:
    given = await request.json() if request.can_read_body else {}
    if not isinstance(given, dict):
        raise web.HTTPBadRequest(text="a JSON object is needed")
    return given
