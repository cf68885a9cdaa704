"""Dead letters and endpoints over the API."""

from typing import Any

import pytest

from tests.support.receiver import Receiver
from tests.support.rest import Hooks, Rest, keys_of, unique, until


async def refused(rest: Rest, receiver: Receiver) -> tuple[str, dict[str, Any]]:
    """An account whose first event the receiver refuses for good, and the dead letter it became."""
    account = unique("letter")
    receiver.answer_about(account, 410)
    await rest.create(account)

    async def look() -> Any:
        return (await rest.ok("GET", f"/v1/webhooks/dead?account={account}"))["events"]

    (letter,) = await until("the dead letter", look)
    return account, letter


async def test_a_dead_letter_is_listed_shown_and_replayed(rest: Rest, hooks: Hooks) -> None:
    """The list has no payload, the letter has; a replay arrives under the same id, and then it is gone."""
    account, letter = await refused(rest, hooks.receiver)
    (heard,) = hooks.of(account)
    assert letter["id"] == heard.headers["webhook-id"]
    assert (letter["account"], letter["event"], letter["attemptsMade"]) == (account, "accountAdded", 1)
    assert letter["error"]["status"] == 410
    assert "payload" not in letter
    listed = await rest.ok("GET", f"/v1/webhooks/dead?account={account}&pageSize=1")
    assert (listed["total"], listed["page"], listed["pages"]) == (1, 0, 1)
    assert (await rest.ok("GET", f"/v1/webhooks/dead?account={account}&page=1"))["events"] == []
    assert await rest.ok("GET", f"/v1/webhooks/dead/{letter['id']}") == letter | {"payload": heard.json}
    assert await rest.ok("POST", f"/v1/webhooks/dead/{letter['id']}/replay") == {"replayed": 1}
    await hooks.receiver.wait_for(lambda _: len(hooks.of(account)) == 2, 90)
    assert hooks.of(account)[1].headers["webhook-id"] == letter["id"]
    assert (await rest.call("GET", f"/v1/webhooks/dead/{letter['id']}")).status == 404
    assert (await rest.call("POST", f"/v1/webhooks/dead/{letter['id']}/replay")).status == 404


async def test_dead_letters_are_replayed_together_or_dropped(rest: Rest, hooks: Hooks) -> None:
    """By account; one that is dropped is not among them."""
    account, letter = await refused(rest, hooks.receiver)
    other, dropped = await refused(rest, hooks.receiver)
    assert await rest.ok("DELETE", f"/v1/webhooks/dead/{dropped['id']}") == {"deleted": True}
    assert await rest.ok("DELETE", f"/v1/webhooks/dead/{dropped['id']}") == {"deleted": False}
    body = {"account": account, "since": letter["date"], "endpoint": letter["endpoint"]}
    assert await rest.ok("POST", "/v1/webhooks/replay", {"account": "nobody"}) == {"replayed": 0, "more": False}
    assert await rest.ok("POST", "/v1/webhooks/replay", body) == {"replayed": 1, "more": False}
    assert await rest.ok("POST", "/v1/webhooks/replay") == {"replayed": 0, "more": False}
    await hooks.receiver.wait_for(lambda _: len(hooks.of(account)) == 2, 90)
    assert len(hooks.of(other)) == 1


async def test_endpoints_are_listed_and_only_paused_ones_are_resumed(rest: Rest, hooks: Hooks) -> None:
    """With their last error until something arrives; an unknown one is not found."""
    account, letter = await refused(rest, hooks.receiver)

    async def look() -> Any:
        found = (await rest.ok("GET", "/v1/webhooks/endpoints?pageSize=1000"))["endpoints"]
        return [one for one in found if one["id"] == letter["endpoint"] and one["failures"]]

    (shown,) = await until("the endpoint", look)
    assert (shown["url"], shown["state"], shown["held"]) == (hooks.receiver.url, "failing", 0)
    assert shown["lastError"]["status"] == 410
    assert await rest.ok("POST", f"/v1/webhooks/endpoints/{shown['id']}/resume") == {"resumed": False}
    assert (await rest.call("POST", f"/v1/webhooks/endpoints/{'0' * 24}/resume")).status == 404
    assert hooks.of(account)


@pytest.mark.parametrize(
    ("method", "path", "body", "key"),
    [
        ("GET", "/v1/webhooks/dead?page=-1", None, "page"), ("GET", "/v1/webhooks/dead?event=x", None, "event"),
        ("GET", "/v1/webhooks/endpoints?pageSize=0", None, "pageSize"),
        ("POST", "/v1/webhooks/replay", {"endpoint": "x"}, "endpoint"),
        ("POST", "/v1/webhooks/replay", {"since": "yesterday"}, "since"),
        ("POST", "/v1/webhooks/replay", {"all": True}, "all"),
        ("POST", "/v1/settings", {"webhooks": "http://169.254.169.254/"}, "webhooks"),
        ("POST", "/v1/settings", {"webhooks": "https://10.1.2.3/"}, "webhooks"),
        ("POST", "/v1/settings", {"webhooks": "http://[fd00::1]/"}, "webhooks"),
        ("POST", "/v1/settings", {"serviceSecretOld": "mine"}, "serviceSecretOld"),
        ("POST", "/v1/account", {"account": "inside", "name": "x", "webhooks": "http://192.168.0.1/"}, "webhooks"),
    ],
)  # fmt: skip
async def test_what_can_not_be_is_refused_by_name(rest: Rest, method: str, path: str, body: Any, key: str) -> None:
    """A 400 that names the field, and nothing is written."""
    assert keys_of(await rest.call(method, path, body)) == {key}
    assert (await rest.call("GET", "/v1/account/inside")).status == 404
    assert await rest.ok("GET", "/v1/settings?webhooks=true") == {"webhooks": None}


@pytest.mark.parametrize("event", ["x", "' or event ne '", "%2F", "a" * 200, "%F0%9F%8E%89"])
async def test_an_id_that_is_none_is_not_found(rest: Rest, event: str) -> None:
    """Whatever is written there."""
    assert (await rest.call("GET", f"/v1/webhooks/dead/{event.replace(' ', '%20')}")).status == 404


async def test_an_accounts_target_is_refused_on_update_too(rest: Rest) -> None:
    """And the old one stays."""
    account = unique("target")
    await rest.create(account, webhooks="https://hooks.invalid/in")
    answer = await rest.call("PUT", f"/v1/account/{account}", {"webhooks": "http://100.64.0.1/"})
    assert keys_of(answer) == {"webhooks"}
    assert (await rest.get(account))["webhooks"] == "https://hooks.invalid/in"


async def test_webhooks_have_a_permission_of_their_own(rest: Rest) -> None:
    """A token that may read webhooks may not replay; one bound to an account may neither."""
    reader = {"description": "d", "permissions": {"actions": ["read"], "groups": ["webhook"]}}
    token = (await rest.ok("POST", "/v1/tokens", reader))["token"]
    await rest.ok("GET", "/v1/webhooks/dead", token=token)
    await rest.ok("GET", "/v1/webhooks/endpoints", token=token)
    assert (await rest.call("POST", "/v1/webhooks/replay", {}, token=token)).status == 403
    assert (await rest.call("DELETE", "/v1/webhooks/dead/x", token=token)).status == 403
    account = unique("bound")
    await rest.create(account)
    bound = (await rest.ok("POST", "/v1/tokens", {"description": "d", "account": account}))["token"]
    assert (await rest.call("GET", f"/v1/webhooks/dead?account={account}", token=bound)).status == 403
