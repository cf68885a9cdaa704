"""POST, GET, PATCH, DELETE /subscriptions and reauthorize (graph.md 10.1 to 10.4)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from .access import open_principal
from .errors import GraphError
from .graph_call import GraphCall
from .subscriptions import (
    MOST_PER_MAILBOX,
    Subscription,
    check_creation,
    check_url,
    expiration,
    read_change_types,
    read_resource,
    validation_error,
)


async def create_subscription(call: GraphCall) -> web.Response:
    """201 after both URLs passed the handshake; the handshake runs while this request is open (10.4 [D])."""
    given = await call.json_body()
    check_creation(given)
    subscription = _accepted(call, given)
    notifier = call.world.notifier
    # Equal URLs get two validation calls (graph.md 10.1 [D]).
    for url in (subscription.notification_url, subscription.lifecycle_url):
        if url is not None:
            await notifier.validate(url)
    notifier.add(subscription)
    return _answer(call, subscription, 201)


def _accepted(call: GraphCall, given: dict[str, Any]) -> Subscription:
    """The subscription these properties describe, when the caller may watch that mailbox."""
    watched = read_resource(given["resource"])
    # A read permission is needed; one that only writes or sends does not suffice (graph.md 10.1 [D]).
    owner = open_principal(call.world, call.caller, watched.reference, "Mail.ReadBasic")
    mailbox = call.world.mail.mailbox(owner)
    is_foreign = call.caller.kind == "user" and not call.is_own(mailbox)
    if is_foreign and call.world.switches.shared_subscription_mode == "forbidden":
        raise _forbidden()
    folder_id = mailbox.folder(watched.folder).id if watched.folder is not None else None
    if sum(1 for entry in call.world.notifier.alive() if entry.mailbox is mailbox) >= MOST_PER_MAILBOX:
        raise _forbidden()
    switches, now = call.world.switches, call.world.clock.now()
    return Subscription(
        id=call.world.new_guid(),
        application_id=call.caller.app_id,
        creator_id=_creator(call),
        mailbox=mailbox,
        folder_id=folder_id,
        resource=given["resource"],
        change_types=read_change_types(given["changeType"]),
        notification_url=given["notificationUrl"],
        lifecycle_url=given.get("lifecycleNotificationUrl"),
        client_state=given.get("clientState"),
        expires_at=expiration(given["expirationDateTime"], now, switches.subscription_ceiling_minutes),
        immutable_ids=call.preferences.immutable_ids,
        silent=is_foreign,
        tls_version=given.get("latestSupportedTlsVersion") or "v1_2",
        filter=watched.filter,
    )


def _forbidden() -> GraphError:
    """graph.md 10.2 (a) [F]."""
    message = "Operation: Create; Exception: [Status Code: Forbidden; Reason: Forbidden]"
    return GraphError(403, "ExtensionError", message)


def _creator(call: GraphCall) -> str:
    """The user id or, for an application, its own id (graph.md 10.1 [D])."""
    return call.caller.principal.id if call.caller.principal is not None else call.caller.app_id


async def list_subscriptions(call: GraphCall) -> web.Response:
    """Of the app and user; an application token sees all of the app (graph.md 10.3 [D])."""
    shown = [entry.as_json(with_client_state=False) for entry in call.world.notifier.alive() if _may_see(call, entry)]
    return call.answer({"@odata.context": f"{call.root}/$metadata#subscriptions", "value": shown})


def _may_see(call: GraphCall, subscription: Subscription) -> bool:
    if subscription.application_id != call.caller.app_id:
        return False
    return call.caller.kind == "app" or subscription.creator_id == _creator(call)


def _found(call: GraphCall) -> Subscription:
    """404 for expired, removed and other people's subscriptions (graph.md 10.3 [D]; code assumed [P])."""
    subscription = call.world.notifier.find(call.keys["subscription"])
    if subscription is None or not _may_see(call, subscription):
        raise GraphError(404, "ResourceNotFound", "The object was not found.")
    return subscription


async def get_subscription(call: GraphCall) -> web.Response:
    return _answer(call, _found(call), 200)


async def renew_subscription(call: GraphCall) -> web.Response:
    """New expiration and/or notification URL; a new URL is validated first (graph.md 10.3, 10.4 [D])."""
    subscription = _found(call)
    given = await call.json_body()
    until, url = given.get("expirationDateTime"), given.get("notificationUrl")
    if until is None and url is None:
        message = (
            "Subscription must contain either the 'expirationDateTime' or 'notificationUrl' property and its value."
        )
        raise validation_error(message)
    ceiling = call.world.switches.subscription_ceiling_minutes
    expires_at = expiration(until, call.world.clock.now(), ceiling) if until is not None else subscription.expires_at
    if url is not None:
        check_url("notificationUrl", url)
        if url != subscription.notification_url:
            await call.world.notifier.validate(url)
        subscription.notification_url = url
    subscription.expires_at = expires_at
    subscription.paused = subscription.paused and until is None
    return _answer(call, subscription, 200)


async def delete_subscription(call: GraphCall) -> web.Response:
    call.world.notifier.remove(_found(call).id)
    return web.Response(status=204)


async def reauthorize_subscription(call: GraphCall) -> web.Response:
    """204; notifications flow again, the life is not extended (graph.md 10.6 [D])."""
    subscription = _found(call)
    call.check_length()
    subscription.paused = False
    return web.Response(status=204)


def _answer(call: GraphCall, subscription: Subscription, status: int) -> web.Response:
    context = f"{call.root}/$metadata#subscriptions/$entity"
    return call.answer({"@odata.context": context, **subscription.as_json()}, status)
