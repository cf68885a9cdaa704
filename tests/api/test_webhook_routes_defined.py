"""Webhook routes: their definitions over the API, and what goes to them."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from shared.webhook_routing import fits
from tests.support.desk import eventually
from tests.support.post import Died, Post, dying
from tests.support.receiver import Receiver
from tests.support.rest import Hooks, Rest, keys_of, unique
from tests.support.workshop import Workshop

ITEM = "/v1/webhookRoutes/webhookRoute"
NOT_FOUND = {"statusCode": 404, "error": "Not Found", "message": "Document was not found", "code": "NotFound"}


@pytest.fixture
async def other() -> AsyncIterator[Receiver]:
    """The target of a route."""
    listening = await Receiver().start()
    yield listening
    await listening.stop()


@pytest.fixture
async def post(workshop: Workshop, receiver: Receiver) -> Post:
    """An account whose events go to the test's receiver."""
    post = Post(workshop, receiver)
    await post.open()
    return post


async def routed(post: Post, other: Receiver, **fields: Any) -> str:
    """A route of the workshop that leads to the other receiver."""
    route = {"name": "r", "enabled": True, "targetUrl": other.url, "customHeaders": [], "filter": {}}
    return await post.shop.services.webhook_routes.create(route | fields)


def heard(receiver: Receiver) -> list[str]:
    """The ids in the data of what a receiver was sent, in order."""
    return [one.json["data"]["id"] for one in receiver.requests]


# -- definitions -----------------------------------------------------------------------------------------------------


async def test_a_route_is_defined_shown_changed_and_deleted(rest: Rest) -> None:
    """In the contract's shape, with our filter; secrets are masked, and masks written back keep them."""
    empty = {"total": 0, "page": 0, "pages": 0, "webhooks": []}
    assert await rest.ok("GET", "/v1/webhookRoutes") == empty
    body = {
        "name": "Ticket desk", "description": "Inbox only", "enabled": True,
        "targetUrl": "https://user:pass-word@tickets.example/in",
        "customHeaders": [{"key": "X-Key", "value": "head-word"}],
        "filter": {"events": "messageNew", "specialUses": ["\\Inbox"]},
    }  # fmt: skip
    made = await rest.ok("POST", ITEM, body)
    assert made == {"id": made["id"], "created": True}
    assert re.fullmatch("[A-Za-z0-9_-]{16}", made["id"])
    listed = await rest.ok("GET", "/v1/webhookRoutes")
    assert (listed["total"], listed["page"], listed["pages"]) == (1, 0, 1)
    (entry,) = listed["webhooks"]
    assert entry.pop("created") == entry.pop("updated")
    masked: dict[str, Any] = {"targetUrl": "https://user:******@tickets.example/in"}
    masked |= {"customHeaders": [{"key": "X-Key", "value": "******"}]}
    wanted = {"events": ["messageNew"], "accounts": [], "paths": [], "specialUses": ["\\Inbox"]}
    assert entry == body | masked | {"id": made["id"], "tcount": 0, "webhookErrorFlag": None, "filter": wanted}
    assert not [word for word in (b"pass-word", b"head-word") if word in rest.bytes_at_rest()]
    change = {"name": "Desk", "description": None, **masked, "filter": {"paths": ["Sales"]}}
    assert await rest.ok("PUT", f"{ITEM}/{made['id']}", change) == {"id": made["id"], "updated": True}
    shown = await rest.ok("GET", f"{ITEM}/{made['id']}")
    assert (shown["name"], shown["description"], shown["enabled"], shown["v"]) == ("Desk", None, True, 2)
    assert (shown["content"], shown["targetUrl"]) == ({"fn": "", "map": ""}, masked["targetUrl"])
    assert shown["filter"] == {"events": [], "accounts": [], "paths": ["Sales"], "specialUses": []}
    assert await rest.ok("DELETE", f"{ITEM}/{made['id']}") == {"id": made["id"], "deleted": True}
    assert await rest.ok("DELETE", f"{ITEM}/{made['id']}") == {"id": made["id"], "deleted": False}
    assert await rest.ok("GET", "/v1/webhookRoutes") == empty


async def test_unknown_routes_are_not_found_and_nothing_comes_of_wrong_ones(rest: Rest) -> None:
    """Every wrong field is named; masks stand for nothing in a new route."""
    for method, body in (("GET", None), ("PUT", {"name": "x"})):
        answer = await rest.call(method, f"{ITEM}/AAAAAAAAAAAAAAAA", body)
        assert (answer.status, answer.body) == (404, NOT_FOUND)
    whole = {"name": "r", "targetUrl": "https://x.example/"}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"name": None}, "name"), ({"name": ""}, "name"), ({"targetUrl": "ftp://x.example"}, "targetUrl"),
        ({"targetUrl": "https://u:******@x.example/"}, "targetUrl"),
        ({"targetUrl": "http://169.254.169.254/"}, "targetUrl"),
        ({"customHeaders": [{"key": "a b"}]}, "key"), ({"customHeaders": [{"key": "a", "value": "******"}]}, "value"),
        ({"filter": {"events": ["messageOld"]}}, "events"), ({"filter": {"fn": "return true"}}, "fn"),
        ({"filter": {"specialUses": ["Inbox"]}}, "specialUses"), ({"filter": "x"}, "filter"), ({"fn": "x"}, "fn"),
        ({"enabled": "perhaps"}, "enabled"), ({"name": "a\x00b"}, "name"), ({"filter": {"paths": [5]}}, "paths"),
    ]  # fmt: skip
    for fields, named in wrong:
        assert named in keys_of(await rest.call("POST", ITEM, whole | fields)), fields
    assert (await rest.ok("GET", "/v1/webhookRoutes"))["total"] == 0


async def test_only_an_administrator_defines_routes(rest: Rest) -> None:
    """A route leads every account's mail away: the group webhook may look, not define."""
    permissions = {"actions": ["read", "write", "destructive"], "groups": ["webhook"]}
    token = (await rest.ok("POST", "/v1/tokens", {"description": "t", "permissions": permissions}))["token"]
    assert (await rest.call("GET", "/v1/webhookRoutes", token=token)).status == 200
    answer = await rest.call("POST", ITEM, {"name": "r", "targetUrl": "https://x.example/"}, token=token)
    assert (answer.status, answer.body["requiredPermission"]) == (403, "admin:write")


# -- delivery --------------------------------------------------------------------------------------------------------


async def test_an_event_reaches_the_main_target_and_each_route_that_wants_it(
    rest: Rest, hooks: Hooks, other: Receiver
) -> None:
    """Under one event id, with the route's headers and then the account's; without `webhookEvents`."""
    await rest.ok("POST", "/v1/settings", {"webhookEvents": ["accountAdded"]})
    headers = [{"key": "X-One", "value": "route"}, {"key": "X-Two", "value": "route"}]
    body = {"name": "r", "enabled": True, "targetUrl": other.url, "customHeaders": headers}
    account = unique("routed")
    wanted = (await rest.ok("POST", ITEM, body | {"filter": {"accounts": account}}))["id"]
    await rest.ok("POST", ITEM, body | {"name": "off", "enabled": False})
    await rest.ok("POST", ITEM, body | {"name": "else", "filter": {"events": ["messageNew"]}})
    await rest.create(unique("unrouted"))
    own = [{"key": "x-two", "value": "account"}]
    await rest.create(account, webhooksCustomHeaders=own)
    routed = await other.wait_for(lambda one: one.json["event"] == "accountAdded")
    main = await hooks.receiver.wait_for(lambda one: one.json["account"] == account)
    assert routed.json == main.json
    assert (routed.headers["X-One"], routed.headers["x-two"]) == ("route", "account")
    for name in ("X-EE-Wh-Event-Id", "webhook-id", "X-EE-Wh-Signature"):
        assert routed.headers[name] == main.headers[name]
    assert routed.headers["X-EE-Wh-Custom-Route"] == wanted
    assert "X-EE-Wh-Custom-Route" not in main.headers
    assert routed.headers["X-EE-Wh-Id"] != main.headers["X-EE-Wh-Id"]
    await rest.ok("DELETE", f"/v1/account/{account}")
    await other.wait_for(lambda one: one.json["event"] == "accountDeleted")

    async def counted() -> bool:
        shown = await rest.ok("GET", f"{ITEM}/{wanted}")
        return bool(shown["tcount"] == 2)

    await eventually(counted, "two events counted for the route")
    assert {one.json["account"] for one in other.requests} == {account}
    assert (await rest.ok("GET", "/v1/webhooks/dead"))["total"] == 0


async def test_a_route_in_trouble_does_not_hold_up_the_main_target(post: Post, other: Receiver) -> None:
    """Each keeps its own order about one message, its own attempts and its own dead letters."""
    route = await routed(post, other)
    other.answer_next(*[500] * 3, 410)
    for number in range(3):
        await post.tell(f"{number}", "messageUpdated", about="m", order=number + 1)
    await post.run()
    assert (heard(post.receiver), heard(other)) == (["0", "1", "2"], ["0"])
    await post.run(600)
    assert heard(post.receiver) == ["0", "1", "2"]
    assert heard(other) == ["0", "0", "0", "0", "1", "2"]
    (letter,) = await post.shop.services.undelivered.dead()
    assert (letter["route"], letter["attemptsMade"], letter["error"]["status"]) == (route, 4, 410)
    assert await post.shop.services.undelivered.replay_one(letter["id"])
    await post.run()
    again = other.requests[-1]
    assert (again.json["data"]["id"], again.headers["X-EE-Wh-Custom-Route"]) == ("0", route)
    assert again.headers["webhook-id"] == other.requests[0].headers["webhook-id"]
    assert heard(post.receiver) == ["0", "1", "2"]


async def test_a_dead_main_target_and_a_dead_route_are_two_letters_of_one_event(post: Post, other: Receiver) -> None:
    """Each is replayed and dropped by itself."""
    await routed(post, other)
    post.receiver.answer_next(410)
    other.answer_next(410)
    await post.tell("x", about="m")
    await post.run()
    first, second = await post.shop.services.undelivered.dead()
    assert first["id"] != second["id"]
    letters = {one.get("route", ""): one["id"] for one in (first, second)}
    assert await post.shop.services.undelivered.discard(letters.pop(""))
    (left,) = await post.shop.services.undelivered.dead()
    assert left["id"] in letters.values()


@pytest.mark.parametrize("deed", ["delete", "disable", "filter", "off"])
async def test_what_waits_for_a_route_that_no_longer_wants_it_is_dropped(
    post: Post, other: Receiver, deed: str
) -> None:
    """The filter is asked again at each attempt; nothing is left waiting."""
    route = await routed(post, other)
    other.answer_next(500)
    await post.tell("x", about="m")
    await post.run()
    routes = post.shop.services.webhook_routes
    if deed == "delete":
        assert await routes.delete(route)
    elif deed == "off":
        await post.shop.services.service_settings.write({"webhooksEnabled": False})
    else:
        await routes.update(route, {"enabled": False} if deed == "disable" else {"filter": {"events": ["trackOpen"]}})
    await post.run(600)
    assert heard(other) == ["x"]
    assert sorted(row.columns["state"] for row in await post.rows()) == ["delivered", "skipped"]


async def test_a_process_that_dies_while_recording_loses_no_route(post: Post, other: Receiver) -> None:
    """Wherever it dies: the caller runs again, or nobody does and the hourly look finds it; each target hears of it,
    under one id, and no record is doubled."""
    at, done = 0, False
    await routed(post, other)
    while not done:
        at += 1
        for again in (True, False):
            what = f"{at} {again}"
            try:
                with dying(post.shop.services, at, after=True):
                    await post.tell(what, about=what)
                done = True
            except Died:
                if again:
                    await post.tell(what, about=what)
            post.shop.advance(1300)
            await post.shop.services.webhooks.take_up(timedelta(minutes=20))
            await post.run(300)
            states = [row.columns["state"] for row in await post.rows() if row.value["envelope"]["data"]["id"] == what]
            assert states in ([], ["delivered"] * 2), what
            assert states or not (again or done), what
            for target in (post.receiver, other):
                ids = {one.headers["webhook-id"] for one in target.requests if one.json["data"]["id"] == what}
                assert len(ids) == len(states) / 2, what
    assert at >= 4


@pytest.mark.parametrize(
    ("wanted", "event", "fitting"),
    [
        ({}, {}, True), ({"events": ["*"]}, {}, True), ({"events": ["messageDeleted"]}, {}, False),
        ({"accounts": ["a"]}, {}, True), ({"accounts": ["b"]}, {}, False), ({"paths": ["Posteingang"]}, {}, True),
        ({"paths": ["inbox"]}, {}, True), ({"paths": ["Sent"]}, {}, False), ({"specialUses": ["\\Inbox"]}, {}, True),
        ({"specialUses": ["\\Sent"]}, {}, False),
        ({"specialUses": ["\\All"]}, {"data": {}, "specialUse": "\\All"}, True),
        ({"paths": ["INBOX"]}, {"data": {}, "path": None}, False), ({"paths": ["x"]}, {"data": {}, "path": "x"}, True),
        ({"events": ["messageNew"], "accounts": ["b"]}, {}, False),
    ],
)  # fmt: skip
def test_a_filter_lets_through_what_it_asks_for(wanted: dict[str, Any], event: dict[str, Any], fitting: bool) -> None:
    """Every part of it must fit; INBOX is the inbox in every language."""
    envelope = {"event": "messageNew", "account": "a", "path": "Posteingang", "data": {"messageSpecialUse": "\\Inbox"}}
    assert fits({"enabled": True, "filter": wanted}, envelope | event) is fitting
    assert not fits({"enabled": False, "filter": wanted}, envelope | event)
