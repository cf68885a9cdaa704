"""Subscriptions and notifications (graph.md 10)."""

# Fixtures are imported by name and shadowed by the parameters.
# ruff: noqa: F401, F811

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from .mail_fixtures import IMMUTABLE, GraphClient, Office, Receiver, fits_openapi, hook, mail, office, who


def _request(office: Office, url: str, resource: str = "me/messages", **changes: Any) -> dict[str, Any]:
    until = office.world.clock.now() + timedelta(minutes=changes.pop("minutes", 60))
    return {
        "changeType": "created,updated,deleted",
        "notificationUrl": url,
        "resource": resource,
        "expirationDateTime": until.isoformat().replace("+00:00", "Z"),
        "clientState": "s3cret",
        **changes,
    }


async def _subscribed(
    office: Office, hook: Receiver, client: GraphClient, resource: str = "me/messages", **changes: Any
) -> dict[str, Any]:
    body = _request(office, hook.url, resource, **changes)
    return (await client.post("/subscriptions", body, headers=IMMUTABLE)).json


async def test_creation_validates_both_urls_and_echoes_the_rest(
    office: Office, hook: Receiver, fits_openapi: Callable[[str, Any], None]
) -> None:
    ann = await office.user("ann")
    made = await _subscribed(office, hook, ann, lifecycleNotificationUrl=hook.url)
    fits_openapi("subscription", made)
    assert hook.handshakes == 2
    assert made["clientState"] == "s3cret"
    assert made["creatorId"] == office.person("ann").id
    listed = (await ann.get("/subscriptions")).json
    fits_openapi("subscriptionCollectionResponse", listed)
    assert [(entry["id"], entry["clientState"]) for entry in listed["value"]] == [(made["id"], None)]
    john = await office.user("john")
    assert (await john.get("/subscriptions"))["value"] == []
    await john.get(f"/subscriptions/{made['id']}", expect=404)
    await ann.delete(f"/subscriptions/{made['id']}")
    await ann.get(f"/subscriptions/{made['id']}", expect=404)


async def test_a_failed_handshake_refuses_the_subscription(office: Office, hook: Receiver) -> None:
    ann = await office.user("ann")
    failed = (
        400,
        "ValidationError",
        "Subscription validation request failed. Notification endpoint must respond with 200 OK to validation request.",
    )
    answers: list[Callable[[str], web.Response]] = [
        lambda token: web.Response(text=token, status=202),
        lambda token: web.Response(text="x" + token),
        lambda token: web.json_response(token),
    ]
    for handshake in answers:
        hook.handshake = handshake
        assert (await ann.post("/subscriptions", _request(office, hook.url), expect=400)).error == failed
    assert (await ann.get("/subscriptions"))["value"] == []


async def test_a_slow_handshake_times_out(office: Office, hook: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.tenant.notify.HANDSHAKE_TIMEOUT_S", 0.1)

    async def never(request: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    from aiohttp.test_utils import TestServer

    app = web.Application()
    app.router.add_post("/slow", never)
    async with TestServer(app) as server:
        ann = await office.user("ann")
        body = _request(office, str(server.make_url("/slow")))
        answer = await ann.post("/subscriptions", body, expect=400)
    assert answer.error == (400, "ValidationError", "Subscription validation request timed out.")


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (
            {"minutes": 10100},
            "ExtensionError",
            "Subscription expiration can only be 10070 minutes in the future.",
        ),
        ({"clientState": "x" * 129}, "ValidationError", None),
        ({"changeType": "created,moved"}, "ValidationError", None),
        ({"notificationUrl": "http://hooks.example/x"}, "ValidationError", None),
        ({"lifecycleNotificationUrl": "http://hooks.example/x"}, "ValidationError", None),
        ({"includeResourceData": True}, "ExtensionError", None),
        ({"resource": "me/events"}, "ExtensionError", None),
        ({"wrong": 1}, "RequestBodyRead", None),
    ],
)
async def test_wrong_subscriptions_are_400(
    office: Office, hook: Receiver, change: dict[str, Any], code: str, text: str | None
) -> None:
    ann = await office.user("ann")
    answer = await ann.post("/subscriptions", _request(office, hook.url, **change), expect=400)
    assert answer.error[1] == code
    assert text is None or answer.error[2] == text
    assert hook.handshakes == 0


async def test_life_is_at_least_45_minutes_renewable_and_ends_by_the_clock(office: Office, hook: Receiver) -> None:
    from local.tenant.wire_time import from_wire

    ann = await office.user("ann")
    made = await _subscribed(office, hook, ann, minutes=5)
    assert from_wire(made["expirationDateTime"]) - office.world.clock.now() > timedelta(minutes=44)
    path = f"/subscriptions/{made['id']}"
    answer = await ann.patch(path, {}, expect=400)
    assert answer.error[2] == (
        "Subscription must contain either the 'expirationDateTime' or 'notificationUrl' property and its value."
    )
    until = (office.world.clock.now() + timedelta(days=2)).isoformat()
    assert (await ann.patch(path, {"expirationDateTime": until}))["expirationDateTime"] > made["expirationDateTime"]
    await ann.post(f"{path}/reauthorize", expect=204)
    # The token would expire as well, so the end of life is brought near instead of moving the clock.
    office.world.notifier.subscriptions[made["id"]].expires_at = office.world.clock.now()
    await ann.get(path, expect=404)
    office.deliver("ann")
    await asyncio.sleep(0.15)
    assert hook.entries == []


async def test_changes_are_notified_with_state_and_immutable_ids(office: Office, hook: Receiver) -> None:
    ann = await office.user("ann")
    made = await _subscribed(office, hook, ann)
    first, second = office.deliver("ann"), office.deliver("ann")
    entries = await hook.until(2)
    assert len(hook.payloads) == 1
    assert {entry["resourceData"]["id"] for entry in entries} == {first, second}
    entry = entries[0]
    assert (entry["changeType"], entry["clientState"], entry["subscriptionId"]) == (
        "created",
        "s3cret",
        made["id"],
    )
    assert entry["resource"] == f"Users/{office.person('ann').id}/Messages/{entry['resourceData']['id']}"
    assert entry["tenantId"] == office.world.directory.tenant_id
    assert entry["resourceData"]["@odata.type"] == "#Microsoft.Graph.Message"
    await ann.patch(f"/me/messages/{first}", {"isRead": True})
    await ann.post(f"/me/messages/{second}/permanentDelete", expect=204)
    entries = await hook.until(4)
    assert {(e["changeType"], e["resourceData"]["id"]) for e in entries[2:]} == {
        ("updated", first),
        ("deleted", second),
    }


async def test_moves_show_as_updated_or_as_deleted_and_created(office: Office, hook: Receiver) -> None:
    ann = await office.user("ann")
    item = office.deliver("ann")
    await _subscribed(office, hook, ann)
    await _subscribed(office, hook, ann, "/me/mailFolders('inbox')/messages")
    await ann.post("/subscriptions", _request(office, hook.url))
    await ann.post(f"/me/messages/{item}/move", {"destinationId": "junkemail"})
    entries = await hook.until(4)
    assert sorted(entry["changeType"] for entry in entries) == ["created", "deleted", "deleted", "updated"]


async def test_drafts_and_sent_items_raise_events(office: Office, hook: Receiver) -> None:
    ann = await office.user("ann")
    await _subscribed(office, hook, ann)
    draft = await ann.post("/me/messages", mail(), headers=IMMUTABLE)
    await ann.post(f"/me/messages/{draft['id']}/send", expect=202)
    entries = await hook.until(2)
    assert [entry["changeType"] for entry in entries] == ["created", "updated"]


async def test_a_filter_turns_entering_and_leaving_into_created_and_deleted(office: Office, hook: Receiver) -> None:
    ann = await office.user("ann")
    await _subscribed(office, hook, ann, "me/messages?$filter=isRead eq true")
    item = office.deliver("ann")
    await ann.patch(f"/me/messages/{item}", {"isRead": True})
    await hook.until(1)
    await ann.patch(f"/me/messages/{item}", {"isRead": False})
    entries = await hook.until(2)
    assert [entry["changeType"] for entry in entries] == ["created", "deleted"]


async def test_foreign_mailbox_with_user_token_is_silent_or_forbidden(office: Office, hook: Receiver) -> None:
    ann = await office.user("ann")
    resource = "users/support@contoso.example/messages"
    await _subscribed(office, hook, ann, resource)
    assert hook.handshakes == 1
    office.deliver("support")
    await asyncio.sleep(0.2)
    assert hook.payloads == []
    office.world.switches.shared_subscription_mode = "forbidden"
    answer = await ann.post("/subscriptions", _request(office, hook.url, resource), expect=403)
    text = "Operation: Create; Exception: [Status Code: Forbidden; Reason: Forbidden]"
    assert answer.error == (403, "ExtensionError", text)
    app = await office.app()
    await _subscribed(office, hook, app, resource)
    office.deliver("support")
    await hook.until(1)
    sender = await office.user("ann", "Mail.Send")
    await sender.post("/subscriptions", _request(office, hook.url), expect=403)


async def test_refused_notifications_are_retried(
    office: Office, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.tenant.notify.FIRST_RETRY_S", 0.05)
    ann = await office.user("ann")
    await _subscribed(office, hook, ann)
    hook.answers = [500, 429]
    office.deliver("ann")
    await hook.until(1)
    assert len(hook.payloads) == 3
    await asyncio.sleep(0.1)  # the answer has to get back to the tenant
    (dumped,) = office.world.notifier.dump()
    assert dumped["posts"][0]["attempts"] == [500, 429, 202]


async def test_switches_repeat_and_lose_notifications(office: Office, hook: Receiver) -> None:
    ann = await office.user("ann")
    await _subscribed(office, hook, ann)
    office.world.switches.notification_repeat = 3
    office.deliver("ann")
    entries = await hook.until(3)
    assert len({entry["id"] for entry in entries}) == 1
    office.world.switches.notification_loss = 1.0
    office.deliver("ann")
    await asyncio.sleep(0.15)
    assert len(hook.entries) == 3


async def test_lifecycle_events_pause_until_reauthorized(office: Office, hook: Receiver) -> None:
    ann = await office.user("ann")
    made = await _subscribed(office, hook, ann, lifecycleNotificationUrl=hook.url)
    assert await office.world.notifier.lifecycle(made["id"], "reauthorizationRequired")
    (event,) = await hook.until(1)
    assert (event["lifecycleEvent"], event["clientState"]) == ("reauthorizationRequired", "s3cret")
    office.deliver("ann")
    await asyncio.sleep(0.15)
    assert len(hook.entries) == 1
    await ann.post(f"/subscriptions/{made['id']}/reauthorize", expect=204)
    office.deliver("ann")
    await hook.until(2)
    await office.world.notifier.lifecycle(made["id"], "subscriptionRemoved")
    await ann.get(f"/subscriptions/{made['id']}", expect=404)
    with pytest.raises(KeyError):
        await office.world.notifier.lifecycle(made["id"], "missed")


async def test_control_resends_and_forges(office: Office, hook: Receiver) -> None:
    ann = await office.user("ann")
    made = await _subscribed(office, hook, ann)
    office.deliver("ann")
    await hook.until(1)
    assert await office.control("/notifications/resend", {"all": True}) == {"posts": 1}
    assert len(hook.entries) == 2
    forged = {"subscription_id": made["id"], "payload": {"value": [{"clientState": "guess"}]}}
    assert await office.control("/notifications/forge", forged) == {"answer": 202}
    assert hook.entries[-1] == {"clientState": "guess"}


async def test_a_request_does_not_wait_for_its_notifications(office: Office, hook: Receiver) -> None:
    ann = await office.user("ann")
    await _subscribed(office, hook, ann)
    office.world.switches.notification_delay_s = 30
    await asyncio.wait_for(ann.post("/me/sendMail", {"message": mail()}, expect=202), 1)
