"""What stands around the mail: flush and sync, tokens of mailboxes, checks of apps, and what does not exist here."""

import json
from typing import Any

import pytest

from tests.support.desk import APPLICATION, DELEGATED, eventually
from tests.support.rest import NO_ACCOUNT, Hooks, Rest, keys_of, unique
from tests.support.workshop import ANN, SUPPORT, Workshop


async def test_the_licence_is_inactive_and_nothing_is_configured_by_itself(rest: Rest) -> None:
    """What clients of the contract check."""
    assert await rest.ok("GET", "/v1/license") == {"active": False, "details": False, "type": "Graphpost"}
    found = await rest.ok("GET", "/v1/autoconfig?email=ann@contoso.example")
    assert found == {"imap": False, "smtp": False, "_source": "unknown"}
    assert keys_of(await rest.call("GET", "/v1/autoconfig")) == {"email"}
    verified = await rest.ok("POST", "/v1/verifyAccount", {"mailboxes": True, "imap": {"host": "x"}, "smtp": False})
    for name in ("imap", "smtp"):
        assert (verified[name]["success"], verified[name]["code"]) == (False, "NotSupported")
    assert keys_of(await rest.call("POST", "/v1/verifyAccount", {"imap": [], "other": 1})) >= {"other"}


async def test_what_other_backends_have_is_empty_or_not_found(rest: Rest) -> None:
    """Lists are empty pages; everything else is a 404 that says so, after the token was looked at."""
    empty = {"total": 0, "page": 0, "pages": 0}
    assert await rest.ok("GET", "/v1/gateways?pageSize=5") == empty | {"gateways": []}
    assert await rest.ok("GET", "/v1/pubsub/status") == empty | {"apps": []}
    for method, path in (
        ("POST", "/v1/gateway"), ("GET", "/v1/gateway/a"), ("PUT", "/v1/gateway/edit/a"), ("DELETE", "/v1/gateway/a"),
        ("POST", "/v1/unified/search"), ("POST", "/v1/chat/a"), ("POST", "/v1/delivery-test/account/a"),
        ("GET", "/v1/delivery-test/check/a"), ("POST", "/v1/license"), ("DELETE", "/v1/license"),
    ):  # fmt: skip
        answer = await rest.call(method, path, {"any": "thing"} if method != "GET" else None)
        assert answer.status == 404, path
        assert "exist" in answer.body["message"]
        assert (await rest.call(method, path, token=None)).status == 401


async def test_signatures_are_not_supported(rest: Rest) -> None:
    """Microsoft Graph has none."""
    await rest.create(account := unique("sign"))
    shown = await rest.ok("GET", f"/v1/account/{account}/server-signatures")
    assert shown == {"signatures": [], "signaturesSupported": False}
    for method, path in (
        ("GET", "server-signatures"), ("GET", "oauth-token"), ("PUT", "sync"), ("PUT", "flush"),
    ):  # fmt: skip
        answer = await rest.call(method, f"/v1/account/nobody/{path}", {} if method == "PUT" else None)
        assert (answer.status, answer.body) == (404, NO_ACCOUNT), path


# -- sync and flush --------------------------------------------------------------------------------------------------


async def test_a_flush_starts_the_account_over(rest: Rest, hooks: Hooks) -> None:
    """It is connected again, says so once more, and listens from the time that was asked for."""
    await rest.own(account := unique("flush"))
    path = f"/v1/account/{account}/flush"
    assert await rest.ok("PUT", path) == {"flush": False}
    assert await rest.ok("PUT", path, {"flush": "false"}) == {"flush": False}
    body = {"flush": True, "notifyFrom": "2026-03-01T10:00:00Z", "syncFrom": None, "imapIndexer": "fast"}
    assert await rest.ok("PUT", path, body) == {"flush": True}

    async def told_twice() -> bool:
        return len(hooks.of(account, "accountInitialized")) == 2

    await eventually(told_twice, "accountInitialized again")
    shown = await rest.in_state(account, "connected")
    assert (shown["notifyFrom"], shown["imapIndexer"]) == ("2026-03-01T10:00:00.000Z", "fast")
    first, second = hooks.of(account, "accountInitialized")
    assert first.headers["webhook-id"] != second.headers["webhook-id"]
    for wrong in ({"flush": "perhaps"}, {"notifyFrom": "soon"}, {"imapIndexer": "slow"}, {"other": 1}):
        assert keys_of(await rest.call("PUT", path, wrong)) == set(wrong)


async def test_one_flush_at_a_time(workshop: Workshop) -> None:
    """The second is refused until the first is done; a flush that came twice is carried out once."""
    account = await workshop.own()
    path = f"/v1/account/{account}/flush"
    assert await workshop.call("PUT", path, {"flush": True}) == (200, {"flush": True})
    status, body = await workshop.call("PUT", path, {"flush": True})
    assert (status, body["code"]) == (429, "LockFail")
    assert body["message"] == "One flush operation at a time allowed, try again later"
    await workshop.run_for(30)
    record = await workshop.record(account)
    assert (record["state"], "flushing" in record) == ("connected", False)
    assert len(await workshop.events(account, "accountInitialized")) == 2
    assert await workshop.call("PUT", path, {"flush": True}) == (200, {"flush": True})
    await workshop.run_for(30)
    assert len(await workshop.events(account, "accountInitialized")) == 3


async def test_a_flush_whose_message_was_lost_holds_nothing_up_for_ever(workshop: Workshop) -> None:
    """The lock ends by itself."""
    account = await workshop.own()
    path = f"/v1/account/{account}/flush"
    await workshop.call("PUT", path, {"flush": True})
    workshop.queues.waiting = [one for one in workshop.queues.waiting if '"do": "flush"' not in json.dumps(one[2])]
    workshop.advance(601)
    assert await workshop.call("PUT", path, {"flush": True}) == (200, {"flush": True})
    await workshop.run_for(30)
    assert len(await workshop.events(account, "accountInitialized")) == 2


async def test_after_a_flush_mail_since_then_is_told_once_more(workshop: Workshop) -> None:
    """With a time in the past what lies there is told again, under new ids; what changes later is told, too."""
    account = await workshop.own(notifyFrom="2020-01-01T00:00:00.000Z")
    await workshop.settle()
    await workshop.run_for(120)
    message = workshop.deliver(ANN, "Told twice")
    await workshop.settle()
    workshop.mark(ANN, message, isRead=True)
    await workshop.settle()
    await workshop.run_for(3700)
    before = await workshop.happenings(account)
    assert before["messageNew", message, ""] == before["messageUpdated", message, "\\Seen"] == 1
    start = (await workshop.events(account, "accountInitialized"))[0]["date"]
    await workshop.call("PUT", f"/v1/account/{account}/flush", {"flush": True, "notifyFrom": start})
    await workshop.run_for(600)
    assert (await workshop.happenings(account))["messageNew", message, ""] == 2
    for is_read in (False, True):
        workshop.mark(ANN, message, isRead=is_read)
        await workshop.settle()
        await workshop.run_for(3700)
    assert (await workshop.happenings(account))["messageUpdated", message, "\\Seen"] == 2


async def test_a_sync_looks_into_every_folder_now(workshop: Workshop) -> None:
    """What no notification told is told, without waiting for the next turn."""
    account = await workshop.own()
    await workshop.settle()
    await workshop.run_for(120)
    workshop.lose = lambda: True
    message = workshop.deliver(ANN, "Unheard")
    assert await workshop.call("PUT", f"/v1/account/{account}/sync") == (200, {"sync": False})
    assert await workshop.call("PUT", f"/v1/account/{account}/sync", {"sync": True}) == (200, {"sync": True})
    await workshop.run_due()
    assert (await workshop.happenings(account))["messageNew", message, ""] == 1


# -- tokens of mailboxes ---------------------------------------------------------------------------------------------


async def test_the_token_of_a_mailbox_is_given_out_where_that_is_allowed(rest: Rest) -> None:
    """Of a delegated account it is that of the person who signed in; bound tokens get none of somebody else."""
    await rest.own(ann := unique("ann"))
    auth = {"delegatedAccount": ann, "delegatedUser": SUPPORT}
    await rest.create(shared := unique("shared"), {"auth": auth})
    await rest.connected(shared)
    first = await rest.call("GET", f"/v1/account/{ann}/oauth-token")
    own = first.body
    assert (first.status, first.headers["Cache-Control"]) == (200, "no-store")
    assert (own["account"], own["user"], own["provider"]) == (ann, ANN, "outlook")
    assert own["expires"].endswith("Z")
    assert any(scope.endswith("/Mail.Send") for scope in own["registeredScopes"])
    borrowed = await rest.ok("GET", f"/v1/account/{shared}/oauth-token")
    assert borrowed == own | {"account": shared, "cached": True}
    bound = await rest.ok("POST", "/v1/tokens", {"account": shared, "description": "b"})
    answer = await rest.call("GET", f"/v1/account/{shared}/oauth-token", token=bound["token"])
    assert (answer.status, answer.body["message"]) == (403, "Unauthorized account")
    await rest.create(bare := unique("bare"))
    answer = await rest.call("GET", f"/v1/account/{bare}/oauth-token")
    assert (answer.status, answer.body["code"]) == (403, "AccountNotOAuth2")


async def test_tokens_of_mailboxes_are_not_given_out_unless_the_operator_allows_it(workshop: Workshop) -> None:
    """Off as long as nobody sets OAUTH_TOKENS_API."""
    account = await workshop.own()
    status, body = await workshop.call("GET", f"/v1/account/{account}/oauth-token")
    assert (status, body["code"], body["message"]) == (403, "ApiEndpointDisabled", "Disabled API endpoint")


async def test_a_refused_renewal_is_told_as_such(workshop: Workshop) -> None:
    """With what was asked of the login service; never with a token."""
    services = workshop.build(OAUTH_TOKENS_API="true")
    app = await services.apps.create({"name": "x", **DELEGATED})
    oauth2 = {"provider": app, "auth": {"user": ANN}, "refreshToken": "worthless"}
    await services.onboarding.create({"account": "stale", "name": "x", "oauth2": oauth2})
    status, body = await workshop.call("GET", "/v1/account/stale/oauth-token", services=services)
    assert (status, body["code"], body["authenticationFailed"]) == (403, "OauthRenewError", True)
    assert body["tokenRequest"]["grant"] == "refresh_token"
    assert "worthless" not in str(body)
    assert (await services.accounts.get("stale"))["state"] == "authenticationError"
    await services.close()


# -- checks of apps --------------------------------------------------------------------------------------------------


def statuses(body: Any) -> dict[str, str]:
    """The outcome of each step."""
    return {step["id"]: step["status"] for step in body["steps"]}


async def test_an_application_is_checked_step_by_step(rest: Rest) -> None:
    """Its record, a token, a mailbox; what is not asked for is skipped, and nothing after a failure is tried."""
    app = await rest.service_app()
    body = await rest.ok("POST", f"/v1/oauth2/{app}/verify")
    assert (body["app"], body["provider"], body["account"], body["ok"]) == (app, "outlookService", None, True)
    assert body["authMethod"] == "clientSecret"
    assert statuses(body) == {"config": "ok", "enabled": "ok", "token": "ok", "connection": "skip"}
    await rest.create(account := unique("svc"), {"provider": app, "auth": {"user": SUPPORT}})
    await rest.connected(account)
    body = await rest.ok("POST", f"/v1/oauth2/{app}/verify", {"account": account, "testConnection": True})
    assert statuses(body)["connection"] == "ok"
    other = await rest.service_app(clientSecret="mistaken-word", clientId=APPLICATION["clientId"], name="Other")
    body = await rest.ok("POST", f"/v1/oauth2/{other}/verify", {"testConnection": True})
    assert statuses(body) == {"config": "ok", "enabled": "ok", "token": "fail", "connection": "skip"}
    assert (body["ok"], [bool(step["hint"]) for step in body["steps"]]) == (False, [False, False, True, False])
    assert "mistaken-word" not in str(body)
    people = await rest.outlook_app(enabled=False)
    body = await rest.ok("POST", f"/v1/oauth2/{people}/verify")
    assert statuses(body) == {"config": "ok", "enabled": "skip", "token": "skip", "connection": "skip"}
    assert keys_of(await rest.call("POST", f"/v1/oauth2/{people}/verify", {"account": account})) == {"account"}
    assert (await rest.call("POST", f"/v1/oauth2/{people}/verify", {"account": "nobody"})).status == 404
    assert (await rest.call("POST", "/v1/oauth2/AAAAAAAAAAAAAAAA/verify")).status == 404


@pytest.mark.parametrize("quota", ["true", "1"])
async def test_the_quota_is_not_known(rest: Rest, quota: str) -> None:
    """Graph does not tell it; without the question there is no answer."""
    await rest.create(account := unique("quota"))
    assert (await rest.ok("GET", f"/v1/account/{account}?quota={quota}"))["quota"] is False
    assert "quota" not in await rest.get(account)
