"""Accounts: create, read, list, change, reconnect, delete, in every way to reach a mailbox."""

import asyncio
from typing import Any

import pytest

from tests.support.rest import NO_ACCOUNT, Hooks, Rest, keys_of, segment, unique, until
from tests.support.tenant import Tenant

ANN, JOHN, SUPPORT = "ann@contoso.example", "john@contoso.example", "support@contoso.example"
INFO, INFO_UPN = "info@contoso.example", "infombx@contoso.onmicrosoft.example"

STRANGE_IDS = {
    "slash": "a/b",
    "hash": "a#b",
    "question mark": "a?b=c",
    "percent": "100%",
    "percent that looks encoded": "a%2Fb",
    "space": "a b",
    "at": "ann@contoso.example",
    "emoji": "📬",
    "256 emoji": "😀" * 256,
    "double quotes": 'say "hi"',
    "single quotes": "o'neill' or '1' eq '1",
    "dots": "..",
    "dot": ".",
    "leading equals sign": "=A1",
    "escaped by hand": "=2F",
    "backslash": "a\\b",
    "semicolon and plus": "a;b+c&d",
    "line break": "a\nb",
    "umlaut, composed": "\u00e9",
    "umlaut, decomposed": "e\u0301",
    "html": "<b>&amp;</b>",
    "braces": "{account}",
    "a word that is a route": "reconnect",
}


# -- ways to reach a mailbox ----------------------------------------------------------------------------------


async def test_an_account_with_its_own_tokens_connects(rest: Rest, tenant: Tenant) -> None:
    """Imported tokens open the signed-in user's own mailbox, with push."""
    account = unique("own")
    tokens, app = await tenant.token(user=ANN), await rest.outlook_app()
    oauth2 = {
        "provider": app, "auth": {"user": ANN}, "accessToken": tokens["access_token"],
        "refreshToken": tokens["refresh_token"],
    }  # fmt: skip
    assert await rest.create(account, oauth2, email=ANN) == {"account": account, "state": "new"}
    record = await rest.connected(account)
    assert (record["type"], record["app"], record["state"]) == ("outlook", app, "connected")
    assert (record["lastError"], record["connections"], record["baseScopes"]) == (None, 1, "api")
    assert (record["smtpStatus"], record["sendOnly"]) == (None, False)
    assert record["oauth2"]["accessToken"] == record["oauth2"]["refreshToken"] == "******"
    assert (record["oauth2"]["provider"], record["oauth2"]["auth"]) == (app, {"user": ANN})
    assert record["notifications"]["mode"] == "push"
    assert [one["id"] for one in await tenant.subscriptions()] == [record["outlookSubscription"]["id"]]
    assert "clientState" not in str(record)
    used = {entry["path"].split("?")[0] for entry in await tenant.log(surface="graph") if entry["status"] == 200}
    assert "/v1.0/me" in used


async def test_an_access_token_alone_connects_while_it_lasts(rest: Rest, tenant: Tenant) -> None:
    """Without a refresh token the access token is used up to its end."""
    account = unique("own")
    tokens = await tenant.token(user=ANN)
    oauth2 = {
        "provider": await rest.outlook_app(), "auth": {"user": ANN}, "accessToken": tokens["access_token"],
        "expires": "2999-01-01T00:00:00.000Z",
    }  # fmt: skip
    await rest.create(account, oauth2)
    await rest.connected(account)
    assert not await tenant.log(surface="login", path="token")


async def test_direct_shared_access_opens_the_shared_mailbox_with_its_own_tokens(rest: Rest, tenant: Tenant) -> None:
    """`user` signed in, `delegatedUser` is whose mailbox it is; the address may differ from the principal name."""
    account = unique("direct")
    tokens = await tenant.token(user=ANN)
    oauth2 = {
        "provider": await rest.outlook_app(), "auth": {"user": ANN, "delegatedUser": INFO_UPN},
        "accessToken": tokens["access_token"], "refreshToken": tokens["refresh_token"],
    }  # fmt: skip
    await rest.create(account, oauth2, email=INFO)
    record = await rest.connected(account)
    assert (record["type"], record["email"]) == ("outlook", INFO)
    assert record["oauth2"]["auth"] == {"user": ANN, "delegatedUser": INFO_UPN}
    assert record["notifications"]["mode"] == "poll"
    assert not await tenant.subscriptions()
    paths = [entry["path"] for entry in await tenant.log(surface="graph")]
    assert all("/users/infombx" in path for path in paths), paths


@pytest.mark.parametrize("with_provider", [False, True])
async def test_delegated_access_borrows_the_parents_credentials(rest: Rest, with_provider: bool) -> None:
    """With or without `oauth2.provider` the account is of type `delegated` and holds no tokens."""
    parent, child = unique("parent"), unique("child")
    await rest.own(parent)
    app = (await rest.get(parent))["app"]
    auth = {"delegatedUser": SUPPORT, "delegatedAccount": parent}
    oauth2 = {"auth": auth} | ({"provider": app} if with_provider else {})
    assert await rest.create(child, oauth2, email=SUPPORT) == {"account": child, "state": "new"}
    record = await rest.connected(child)
    assert (record["type"], record["app"]) == ("delegated", app)
    assert record["oauth2"] == oauth2
    assert record["notifications"]["mode"] == "poll"


async def test_application_access_needs_no_sign_in_and_gets_push(rest: Rest, tenant: Tenant) -> None:
    """An outlookService account opens the mailbox its `auth` names, and so do accounts that borrow from it."""
    parent, child = unique("service"), unique("child")
    app = await rest.service_app()
    await rest.create(parent, {"provider": app, "auth": {"user": SUPPORT}}, email=SUPPORT)
    record = await rest.connected(parent)
    assert (record["type"], record["app"], record["notifications"]["mode"]) == ("outlookService", app, "push")
    assert "accessToken" not in record["oauth2"]
    await rest.create(child, {"auth": {"delegatedUser": INFO_UPN, "delegatedAccount": parent}}, email=INFO)
    record = await rest.connected(child)
    assert (record["type"], record["notifications"]["mode"]) == ("delegated", "push")
    assert len(await tenant.subscriptions()) == 2


async def test_an_account_without_credentials_is_unset(rest: Rest) -> None:
    """`oauth2: false`, `imap: false` and `smtp: false` are what a send-nothing account of old clients looks like."""
    account = unique("bare")
    await rest.create(account, oauth2=None, imap=False, smtp=False)
    await rest.ok("PUT", f"/v1/account/{account}/reconnect", {"reconnect": True})
    record = await rest.get(account)
    assert (record["state"], record["type"], record["lastError"]) == ("unset", "sending", None)
    assert "oauth2" not in record


async def test_servers_of_other_protocols_are_refused_with_the_way_out(rest: Rest) -> None:
    """IMAP and SMTP credentials are a 400 that names the field and says what to do instead; nothing is stored."""
    account = unique("imap")
    server = {"host": "mail.example", "port": 993, "auth": {"user": "u", "pass": "p"}}
    answer = await rest.call("POST", "/v1/account", {"account": account, "name": "n", "imap": server, "smtp": server})
    assert keys_of(answer) == {"imap", "smtp"}
    for entry in answer.body["fields"]:
        assert "/v1/authentication/form" in entry["message"]
        assert "delegatedAccount" in entry["message"]
    assert (await rest.call("GET", f"/v1/account/{account}")).body == NO_ACCOUNT


@pytest.mark.parametrize("provider", [None, "", "AAAAAAAAAAAAAAAA", "outlook", "gmail", "a/b?#\\", "😀" * 256])
async def test_an_app_that_does_not_exist_is_refused(rest: Rest, provider: str | None) -> None:
    """An account that is to hold credentials needs an OAuth2 app that is there."""
    account = unique("noapp")
    for authorize in ({}, {"authorize": True, "redirectUrl": "https://x.example/"}):
        oauth2 = {"provider": provider, "auth": {"user": ANN}, **authorize}
        answer = await rest.call("POST", "/v1/account", {"account": account, "name": "n", "oauth2": oauth2})
        assert (answer.status, answer.body["message"]) == (400, "Invalid or missing OAuth2 provider")
    assert (await rest.call("GET", f"/v1/account/{account}")).body == NO_ACCOUNT


async def test_the_literal_outlook_names_the_only_app(rest: Rest, tenant: Tenant) -> None:
    """`provider: outlook` works as long as it is not ambiguous; the account then carries the app's id."""
    account, app = unique("literal"), await rest.outlook_app()
    tokens = await tenant.token(user=ANN)
    oauth2 = {"provider": "outlook", "auth": {"user": ANN}, "refreshToken": tokens["refresh_token"]}
    await rest.create(account, oauth2)
    assert (await rest.connected(account))["oauth2"]["provider"] == app
    await rest.outlook_app()
    answer = await rest.call("POST", "/v1/account", {"account": unique("x"), "name": "n", "oauth2": oauth2})
    assert answer.body["message"] == "Invalid or missing OAuth2 provider"


async def test_delegated_account_needs_delegated_user(rest: Rest) -> None:
    """On create and on update, with partial and without."""
    account = unique("half")
    oauth2 = {"auth": {"delegatedAccount": "parent"}}
    assert keys_of(await rest.call("POST", "/v1/account", {"account": account, "name": "n", "oauth2": oauth2})) == {
        "delegatedUser"
    }
    await rest.create(account)
    for partial in (True, False):
        body = {"oauth2": oauth2 | {"partial": partial}}
        assert keys_of(await rest.call("PUT", f"/v1/account/{account}", body)) == {"delegatedUser"}
    assert (await rest.get(account))["state"] == "unset"


async def test_application_apps_do_not_sign_anybody_in(rest: Rest) -> None:
    """`authorize` with an application-only app is refused with the contract's sentence."""
    oauth2 = {"authorize": True, "provider": await rest.service_app(), "redirectUrl": "https://x.example/"}
    answer = await rest.call("POST", "/v1/account", {"account": None, "name": "n", "oauth2": oauth2})
    message = "Application-only OAuth providers do not support interactive authorization"
    assert (answer.status, answer.body["message"]) == (400, message)


async def test_authorize_creates_nothing_before_the_sign_in(rest: Rest) -> None:
    """The answer is a sign-in address; the account appears when the person has signed in, with what was asked."""
    account = unique("authorize")
    oauth2 = {
        "authorize": True, "provider": await rest.outlook_app(), "redirectUrl": "https://x.example/back?tab=1",
        "auth": {"delegatedUser": INFO_UPN},
    }  # fmt: skip
    body = {"account": account, "name": "Info", "email": INFO, "oauth2": oauth2, "logs": True, "tz": "Europe/Tallinn"}
    answer = await rest.ok("POST", "/v1/account", body)
    assert set(answer) == {"redirect"}
    assert "login_hint" not in answer["redirect"]
    assert (await rest.call("GET", f"/v1/account/{account}")).body == NO_ACCOUNT
    back, _ = await rest.sign_in(answer["redirect"], ANN)
    assert back == {"target": "https://x.example/back", "tab": "1", "account": account, "state": "new"}
    record = await rest.connected(account)
    assert record["oauth2"]["auth"] == {"user": ANN, "delegatedUser": INFO_UPN}
    assert (record["email"], record["name"], record["logs"], record["tz"]) == (INFO, "Info", True, "Europe/Tallinn")


# -- ids ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STRANGE_IDS)
async def test_any_text_is_an_account_id(rest: Rest, kind: str) -> None:
    """Create, read, list, change, bind a token, queue a mail and delete work with ids of any characters."""
    account = STRANGE_IDS[kind]
    path = f"/v1/account/{segment(account)}"
    assert await rest.create(account, email=ANN) == {"account": account, "state": "new"}
    assert await rest.create(account, email=ANN) == {"account": account, "state": "existing"}
    assert (await rest.get(account))["account"] == account
    assert [entry["account"] for entry in (await rest.ok("GET", "/v1/accounts"))["accounts"]] == [account]
    assert await rest.ok("PUT", path, {"name": "Änderung"}) == {"account": account}
    assert (await rest.get(account))["name"] == "Änderung"
    token = await rest.ok("POST", "/v1/tokens", {"account": account, "description": "bound"})
    assert (await rest.ok("GET", path, token=token["token"]))["account"] == account
    assert (await rest.ok("GET", f"/v1/tokens?account={segment(account)}"))["total"] == 1
    assert await rest.ok("DELETE", path) == {"account": account, "deleted": True}
    assert (await rest.call("GET", path)).body == NO_ACCOUNT
    assert (await rest.call("GET", path, token=token["token"])).status == 401


async def test_ids_that_look_alike_are_different_accounts(rest: Rest) -> None:
    """No two of the strange ids share a record, nor do ids that differ in case only."""
    ids = [*STRANGE_IDS.values(), "case", "CASE", "x" * 256, "x" * 255 + "y", "😀" * 255 + "😁"]
    for number, account in enumerate(ids):
        await rest.create(account, name=str(number))
    listed = (await rest.ok("GET", "/v1/accounts?pageSize=1000"))["accounts"]
    assert [entry["account"] for entry in listed] == sorted(ids)
    assert {entry["account"]: entry["name"] for entry in listed} == {one: str(n) for n, one in enumerate(ids)}


async def test_an_id_is_made_when_none_is_given(rest: Rest) -> None:
    """`account: null` gives sixteen characters from 0-9a-z, each time others."""
    made = [(await rest.create(None))["account"] for _ in range(5)]
    assert len(set(made)) == 5
    assert all(len(one) == 16 and set(one) <= set("0123456789abcdefghijklmnopqrstuvwxyz") for one in made)
    for account in made:
        assert (await rest.get(account))["account"] == account


async def test_an_id_is_trimmed_and_never_empty(rest: Rest) -> None:
    """Spaces around an id do not count, and nothing but spaces is no id."""
    account = unique("trim")
    assert (await rest.create(f"  {account} "))["account"] == account
    assert (await rest.create(account))["state"] == "existing"
    for blank in ("", "   "):
        assert keys_of(await rest.call("POST", "/v1/account", {"account": blank, "name": "n"})) == {"account"}
    assert keys_of(await rest.call("POST", "/v1/account", {"name": "n"})) == {"account"}


# -- create and update ----------------------------------------------------------------------------------------


async def test_an_existing_id_is_updated(rest: Rest, tenant: Tenant, hooks: Hooks) -> None:
    """A second create changes the given fields, keeps the others, and is no second accountAdded."""
    account = unique("twice")
    await rest.own(account, logs=True, tz="Europe/Tallinn")
    await hooks.wait(account, "authenticationSuccess")
    before = await rest.get(account)
    assert await rest.create(account, name="New name", tz="Europe/Berlin") == {"account": account, "state": "existing"}
    after = await rest.get(account)
    assert after == before | {"name": "New name", "tz": "Europe/Berlin", "counters": after["counters"]}
    assert (await rest.ok("GET", "/v1/accounts"))["total"] == 1
    assert len(hooks.of(account, "accountAdded")) == 1


async def test_two_creates_at_once_make_one_account(rest: Rest, hooks: Hooks) -> None:
    """One is told `new`, the others `existing`, and there is one accountAdded."""
    account = unique("race")
    answers = await asyncio.gather(*(rest.create(account, name=f"Racer {number}") for number in range(6)))
    assert sorted(answer["state"] for answer in answers) == ["existing"] * 5 + ["new"]
    await hooks.wait(account, "accountAdded")
    assert (await rest.get(account))["name"] in {f"Racer {number}" for number in range(6)}
    assert len(hooks.of(account, "accountAdded")) == 1


async def test_every_stored_field_reads_back(rest: Rest) -> None:
    """What create accepts is what get shows, in the contract's forms."""
    account = unique("fields")
    fields: dict[str, Any] = {
        "name": "Ünï", "email": ANN, "expectedEmail": JOHN, "path": ["*"], "subconnections": ["x"], "copy": None,
        "logs": True, "notifyFrom": "2026-03-01T10:00:00.000Z", "syncFrom": 1772359200000,
        "smtpEhloName": "mail.example", "imapIndexer": "fast", "locale": "et", "tz": "Europe/Tallinn",
        "webhooks": "https://hooks.example/in?x=1",
    }  # fmt: skip
    await rest.create(account, **fields)
    record = await rest.get(account)
    shown = {name: record.get(name) for name in fields}
    assert shown == fields | {"syncFrom": "2026-03-01T10:00:00.000Z"}
    single = unique("single")
    await rest.create(single, path="INBOX", subconnections="Sent", notifyFrom="now", email="")
    record = await rest.get(single)
    assert (record["path"], record["subconnections"]) == (["INBOX"], ["Sent"])
    assert record["notifyFrom"].endswith("Z")
    assert "email" not in record
    asked = await rest.ok("GET", f"/v1/account/{single}?quota=true")
    moving = ("counters",)  # events may be counted between the two reads
    steady = {name: value for name, value in asked.items() if name not in moving}
    assert steady == {name: value for name, value in record.items() if name not in moving} | {"quota": False}


async def test_an_update_changes_only_what_it_names(rest: Rest) -> None:
    """Absent fields stay, `expectedEmail: null` clears, and the state of a connected account is not touched."""
    account = unique("put")
    await rest.own(account, expectedEmail=ANN, tz="Europe/Tallinn")
    before = await rest.get(account)
    assert await rest.ok("PUT", f"/v1/account/{account}", {"name": "Other"}) == {"account": account}
    assert await rest.ok("PUT", f"/v1/account/{account}", {"expectedEmail": None}) == {"account": account}
    after = await rest.get(account)
    assert "expectedEmail" not in after
    assert after | {"expectedEmail": ANN} == before | {"name": "Other", "counters": after["counters"]}


async def test_updates_at_once_do_not_lose_each_other(rest: Rest) -> None:
    """Each of many concurrent updates of different fields is there afterwards."""
    account = unique("many")
    await rest.create(account)
    fields = {"name": "N", "email": ANN, "tz": "UTC", "locale": "de", "logs": True, "smtpEhloName": "e", "path": ["a"]}
    await asyncio.gather(*(rest.ok("PUT", f"/v1/account/{account}", {k: v}) for k, v in fields.items()))
    record = await rest.get(account)
    assert {name: record[name] for name in fields} == fields


async def test_partial_merges_oauth2_and_without_it_oauth2_is_replaced(rest: Rest) -> None:
    """`partial: true` keeps what is not given; a plain oauth2 stands as it is."""
    parent, child = unique("parent"), unique("child")
    await rest.own(parent)
    await rest.create(child, {"auth": {"user": "x", "delegatedUser": SUPPORT, "delegatedAccount": parent}})
    path = f"/v1/account/{child}"
    await rest.ok("PUT", path, {"oauth2": {"partial": True, "auth": {"delegatedUser": INFO_UPN}}})
    merged = (await rest.get(child))["oauth2"]["auth"]
    assert merged == {"user": "x", "delegatedUser": INFO_UPN, "delegatedAccount": parent}
    await rest.connected(child)
    await rest.ok("PUT", path, {"oauth2": {"auth": {"delegatedUser": SUPPORT, "delegatedAccount": parent}}})
    assert (await rest.get(child))["oauth2"]["auth"] == {"delegatedUser": SUPPORT, "delegatedAccount": parent}
    await rest.connected(child)


async def test_unknown_accounts_are_a_404_everywhere(rest: Rest) -> None:
    """Every operation on an account that is not there answers the same, and creates nothing."""
    account = unique("none")
    mail = {"to": {"address": "rita@contoso.example"}, "subject": "s", "text": "t"}
    for method, path, body in (
        ("GET", "", None), ("PUT", "", {"name": "n"}), ("PUT", "", {"oauth2": {"auth": {"user": "x"}}}),
        ("DELETE", "", None), ("PUT", "/reconnect", {"reconnect": True}), ("POST", "/submit", mail),
    ):  # fmt: skip
        answer = await rest.call(method, f"/v1/account/{account}{path}", body)
        assert (answer.status, answer.body) == (404, NO_ACCOUNT), (method, path)
    answer = await rest.call("POST", "/v1/tokens", {"account": account, "description": "d"})
    assert answer.status == 404
    assert not [row for _, row in rest.rows("accounts", "links", "tokens") if account in row["PartitionKey"]]


# -- masks ----------------------------------------------------------------------------------------------------


async def test_secrets_of_an_account_read_as_a_mask(rest: Rest) -> None:
    """Passwords in URLs and values of custom headers never come back."""
    account = unique("mask")
    await rest.create(
        account, webhooks="https://user:pass-word@hooks.example/in", proxy="socks://who:proxy-word@proxy.example:1080",
        webhooksCustomHeaders=[{"key": "X-Key", "value": "header-word"}],
    )  # fmt: skip
    record = await rest.get(account)
    assert record["webhooks"] == "https://user:******@hooks.example/in"
    assert record["proxy"] == "socks://who:******@proxy.example:1080"
    assert record["webhooksCustomHeaders"] == [{"key": "X-Key", "value": "******"}]
    listed = await rest.ok("GET", "/v1/accounts")
    assert "word" not in str(record) + str(listed)
    at_rest = rest.bytes_at_rest()
    assert not [word for word in (b"pass-word", b"header-word", b"proxy-word") if word in at_rest]


async def test_masks_written_back_leave_the_secrets_as_they_are(rest: Rest, hooks: Hooks) -> None:
    """A client that reads an account and writes it back whole changes nothing; the next webhook still has both."""
    account = unique("mask")
    url = hooks.receiver.url.replace("http://", "http://user:pass-word@")
    await rest.create(
        account, webhooks=url, webhooksCustomHeaders=[{"key": "X-Key", "value": "one"}, {"key": "X-Two", "value": "2"}]
    )
    shown = await rest.get(account)
    back = {name: shown[name] for name in ("name", "webhooks", "webhooksCustomHeaders", "notifyFrom", "logs")}
    back["webhooksCustomHeaders"][1]["value"] = "two"
    await rest.ok("PUT", f"/v1/account/{account}", back)
    await rest.ok("PUT", f"/v1/account/{account}", await _with_own_credentials(rest))
    heard = await hooks.receiver.wait_for(lambda one: one.json["event"] == "accountInitialized", 30)
    assert heard.json["account"] == account
    assert heard.headers["Authorization"] == "Basic dXNlcjpwYXNzLXdvcmQ="
    assert (heard.headers["X-Key"], heard.headers["X-Two"]) == ("one", "two")


async def _with_own_credentials(rest: Rest) -> dict[str, Any]:
    tokens = await rest.tenant.token(user=ANN)
    return {
        "oauth2": {
            "provider": await rest.outlook_app(), "auth": {"user": ANN}, "refreshToken": tokens["refresh_token"],
        }
    }  # fmt: skip


async def test_a_mask_that_stands_for_nothing_is_refused(rest: Rest) -> None:
    """A masked value where none is stored would become a password of six stars."""
    account = unique("mask")
    await rest.create(account, webhooks="https://user:one@a.example/")
    for wrong in (
        {"webhooks": "https://user:******@b.example/"}, {"webhooksCustomHeaders": [{"key": "X", "value": "******"}]},
    ):  # fmt: skip
        assert keys_of(await rest.call("PUT", f"/v1/account/{account}", wrong)) <= {"webhooks", "value"}
    assert (await rest.get(account))["webhooks"] == "https://user:******@a.example/"


async def test_masked_tokens_written_back_keep_the_tokens(rest: Rest, tenant: Tenant) -> None:
    """An account written back whole, tokens masked, stays connected even when it must refresh."""
    account = unique("mask")
    record = await rest.own(account)
    back = {name: record["oauth2"][name] for name in ("provider", "auth", "accessToken", "refreshToken")}
    for partial in ({}, {"partial": True}):
        await rest.ok("PUT", f"/v1/account/{account}", {"name": "Ann", "oauth2": back | partial})
        record = await rest.connected(account)
        assert (record["name"], record["oauth2"]["auth"]) == ("Ann", {"user": ANN})
    await tenant.deliver("carl@customer.example", [ANN])
    await rest.ok("PUT", f"/v1/account/{account}/reconnect", {"reconnect": True})
    await rest.connected(account)


async def test_a_new_access_token_alone_keeps_the_refresh_token(rest: Rest, tenant: Tenant) -> None:
    """A partial update with only an access token, or with the refresh token masked, can still be renewed."""
    account = unique("renew")
    await rest.own(account)
    for more in ({"partial": True}, {"refreshToken": "******"}):
        shown = (await rest.get(account))["oauth2"]
        ended = {"accessToken": "used up", "expires": "2020-01-01T00:00:00.000Z"}
        oauth2 = {"provider": shown["provider"], "auth": shown["auth"], **ended, **more}
        await tenant.clear_log()
        await rest.ok("PUT", f"/v1/account/{account}", {"oauth2": oauth2})
        await rest.connected(account)
        assert await tenant.log(surface="login", path="/token")


# -- the list -------------------------------------------------------------------------------------------------


async def test_the_list_is_sorted_by_id_and_paged(rest: Rest) -> None:
    """Pages count from zero; beyond the end there is an empty page."""
    ids = [f"p-{number:02}" for number in (5, 3, 9, 0, 7, 1, 8, 2, 6, 4)]
    for account in ids:
        await rest.create(account)
    pages = [await rest.ok("GET", f"/v1/accounts?page={page}&pageSize=4") for page in range(4)]
    assert [[entry["account"] for entry in page["accounts"]] for page in pages] == [
        sorted(ids)[:4], sorted(ids)[4:8], sorted(ids)[8:], [],
    ]  # fmt: skip
    for number, page in enumerate(pages):
        assert {name: page[name] for name in ("total", "page", "pages", "query", "state")} == {
            "total": 10, "page": number, "pages": 3, "query": False, "state": "*",
        }  # fmt: skip


async def test_an_empty_list_has_no_pages(rest: Rest) -> None:
    """No accounts: totals are zero."""
    assert await rest.ok("GET", "/v1/accounts") == {
        "total": 0, "page": 0, "pages": 0, "query": False, "state": "*", "accounts": [],
    }  # fmt: skip


async def test_the_list_is_filtered_by_state_and_text(rest: Rest) -> None:
    """`query` looks into id, name and address in any case; totals and echoes follow the filter."""
    await rest.own("Alpha", name="First")
    await rest.create("beta", name="ALPHAbet", email="b@x.example")
    await rest.create("gamma", name="Third", email="the-alpha@x.example")
    await rest.create("delta", name="Nothing")
    found = await rest.ok("GET", "/v1/accounts?query=aLpHa")
    assert [entry["account"] for entry in found["accounts"]] == ["Alpha", "beta", "gamma"]
    assert (found["total"], found["query"]) == (3, "aLpHa")
    found = await rest.ok("GET", "/v1/accounts?query=alpha&state=unset&pageSize=1")
    assert [entry["account"] for entry in found["accounts"]] == ["beta"]
    assert (found["total"], found["pages"], found["state"]) == (2, 2, "unset")
    assert (await rest.ok("GET", "/v1/accounts?state=paused"))["total"] == 0
    assert (await rest.ok("GET", "/v1/accounts?query="))["query"] is False
    assert keys_of(await rest.call("GET", "/v1/accounts?state=happy")) == {"state"}


async def test_an_entry_of_the_list_says_how_the_account_is(rest: Rest) -> None:
    """Type, app, state and last error; a broken delegation is `invalid` with its reason and breaks nothing else."""
    await rest.own("a-own")
    await rest.create("b-orphan", {"auth": {"delegatedUser": SUPPORT, "delegatedAccount": "gone"}}, email=SUPPORT)
    own, orphan = (await rest.ok("GET", "/v1/accounts"))["accounts"]
    app = (await rest.get("a-own"))["app"]
    assert own["counters"] == {"events": {}}
    assert {name: own[name] for name in ("account", "name", "email", "type", "app", "state", "lastError")} == {
        "account": "a-own", "name": "A Name", "email": ANN, "type": "outlook", "app": app, "state": "connected",
        "lastError": None,
    }  # fmt: skip
    reason = 'Missing account data for delegated account "gone"'
    assert (orphan["type"], orphan["state"], orphan["delegationError"]) == ("invalid", "authenticationError", reason)
    shown = await rest.get("b-orphan")
    assert (shown["type"], shown["delegationError"], shown["lastError"]["response"]) == ("delegated", reason, reason)


# -- reconnect ------------------------------------------------------------------------------------------------


async def test_reconnect_echoes_what_it_was_asked(rest: Rest) -> None:
    """False, or nothing, does nothing."""
    account = unique("reconnect")
    await rest.own(account)
    path = f"/v1/account/{account}/reconnect"
    await rest.tenant.clear_log()
    assert await rest.ok("PUT", path, {"reconnect": False}) == {"reconnect": False}
    assert await rest.ok("PUT", path, {}) == {"reconnect": False}
    assert not [entry for entry in await rest.tenant.log(surface="graph") if entry["path"] == "/v1.0/me"]
    assert await rest.ok("PUT", path, {"reconnect": True}) == {"reconnect": True}


async def test_reconnect_looks_at_the_mailbox_again(rest: Rest, tenant: Tenant) -> None:
    """A connected account whose rights were taken away shows that after a reconnect, and heals with another."""
    parent, child = unique("parent"), unique("child")
    await rest.own(parent)
    await rest.create(child, {"auth": {"delegatedUser": SUPPORT, "delegatedAccount": parent}}, email=SUPPORT)
    await rest.connected(child)
    await tenant.revoke(ANN, SUPPORT, "full_access")
    assert await rest.ok("PUT", f"/v1/account/{child}/reconnect", {"reconnect": True}) == {"reconnect": True}
    record = await rest.in_state(child, "authenticationError")
    assert record["lastError"]["serverResponseCode"] == "ApiRequestError"
    await tenant.grant(ANN, SUPPORT, "full_access")
    await rest.ok("PUT", f"/v1/account/{child}/reconnect", {"reconnect": True})
    assert (await rest.in_state(child, "connected"))["lastError"] is None


async def test_fresh_tokens_reconnect_an_account_in_error(rest: Rest, tenant: Tenant) -> None:
    """Tokens that are refused give authenticationError; an update with good ones heals the account by itself."""
    account = unique("stale")
    app = await rest.outlook_app()
    await rest.create(account, {"provider": app, "auth": {"user": ANN}, "refreshToken": "worthless"}, email=ANN)
    record = await rest.in_state(account, "authenticationError")
    assert record["lastError"]["serverResponseCode"] in ("OauthRenewError", "TokenGenerationError")
    assert "worthless" not in str(record)
    mail = await rest.call("POST", f"/v1/account/{account}/submit", {"to": {"address": ANN}, "text": "queued anyway"})
    assert mail.status == 200
    tokens = await tenant.token(user=ANN)
    fresh = {"oauth2": {"partial": True, "refreshToken": tokens["refresh_token"]}}
    await rest.ok("PUT", f"/v1/account/{account}", fresh)
    assert (await rest.connected(account))["lastError"] is None


# -- delete ---------------------------------------------------------------------------------------------------


async def test_delete_ends_everything_the_account_has(rest: Rest, tenant: Tenant) -> None:
    """Its subscription at Microsoft, its tokens, its queued mail and its stored credentials are gone with it."""
    account, other = unique("leaves"), unique("stays")
    await rest.own(account)
    await rest.own(other, JOHN)
    tokens = [await rest.ok("POST", "/v1/tokens", {"account": one, "description": "d"}) for one in (account, other)]
    later = {"to": {"address": JOHN}, "text": "t", "sendAt": "2999-01-01T00:00:00Z"}
    for one in (account, other):
        await rest.ok("POST", f"/v1/account/{one}/submit", later)
    assert len(await tenant.subscriptions()) == 2
    assert (await rest.ok("GET", "/v1/outbox"))["total"] == 2
    assert await rest.ok("DELETE", f"/v1/account/{account}?revoke=true") == {"account": account, "deleted": True}
    stayed = (await rest.get(other))["outlookSubscription"]["id"]
    assert [one["id"] for one in await tenant.subscriptions()] == [stayed]
    assert (await rest.call("GET", f"/v1/account/{account}", token=tokens[0]["token"])).status == 401
    assert (await rest.call("GET", f"/v1/account/{other}", token=tokens[1]["token"])).status == 200
    assert [one["account"] for one in (await rest.ok("GET", "/v1/outbox"))["messages"]] == [other]
    assert (await rest.call("DELETE", f"/v1/account/{account}")).body == NO_ACCOUNT
    left = [table for table, row in rest.rows() if row["PartitionKey"] == account]
    assert not set(left) & {"accounts", "credentials", "trees", "cursors"}, left


async def test_children_of_a_deleted_account_turn_invalid_and_a_new_parent_heals_them(rest: Rest) -> None:
    """Children stay, say whom they miss, refuse nothing but mail, and connect when the parent is there again."""
    parent, child, grandchild = unique("parent"), unique("child"), unique("grandchild")
    await rest.own(parent)
    await rest.create(child, {"auth": {"delegatedUser": SUPPORT, "delegatedAccount": parent}}, email=SUPPORT)
    await rest.create(grandchild, {"auth": {"delegatedUser": INFO_UPN, "delegatedAccount": child}}, email=INFO)
    await rest.connected(child)
    await rest.connected(grandchild)
    await rest.ok("DELETE", f"/v1/account/{parent}")
    reason = f'Missing account data for delegated account "{parent}"'
    for one in (child, grandchild):
        record = await rest.in_state(one, "authenticationError")
        assert (record["delegationError"], record["lastError"]["response"]) == (reason, reason)
    types = {entry["account"]: entry["type"] for entry in (await rest.ok("GET", "/v1/accounts"))["accounts"]}
    assert types == {child: "invalid", grandchild: "invalid"}
    await rest.own(parent)
    for one in (child, grandchild):
        record = await rest.in_state(one, "connected")
        assert record["lastError"] is None
        assert "delegationError" not in record


async def test_a_parent_may_be_created_after_its_children(rest: Rest) -> None:
    """The order of creation is free."""
    parent, child = unique("parent"), unique("child")
    auth = {"delegatedUser": SUPPORT, "delegatedAccount": parent}
    assert (await rest.create(child, {"auth": auth}, email=SUPPORT))["state"] == "new"
    await rest.in_state(child, "authenticationError")
    await rest.own(parent)
    await rest.in_state(child, "connected")


# -- events ---------------------------------------------------------------------------------------------------


async def test_the_life_of_an_account_is_told_once_each(rest: Rest, hooks: Hooks) -> None:
    """accountAdded, accountInitialized, authenticationSuccess, accountDeleted: one each, with their data."""
    account = unique("life")
    await rest.own(account)
    added = await hooks.wait(account, "accountAdded")
    assert (added["data"], added["serviceUrl"]) == ({"account": account}, rest.app.url)
    assert (await hooks.wait(account, "accountInitialized"))["data"] == {"initialized": True}
    assert (await hooks.wait(account, "authenticationSuccess"))["data"] == {"user": ANN}
    await rest.ok("PUT", f"/v1/account/{account}/reconnect", {"reconnect": True})
    await rest.ok("PUT", f"/v1/account/{account}", {"name": "Again"})

    async def counted() -> bool:
        counts = (await rest.get(account))["counters"]["events"]
        return counts == {"accountAdded": 1, "accountInitialized": 1, "authenticationSuccess": 1}

    await until("the counters", counted)
    await rest.ok("DELETE", f"/v1/account/{account}")
    assert (await hooks.wait(account, "accountDeleted"))["data"] == {"account": account}
    await rest.own(account)
    again = await hooks.receiver.wait_for(
        lambda one: one.json["event"] == "authenticationSuccess" and one.json["date"] > added["date"]
        and len(hooks.of(account, "authenticationSuccess")) == 2
    )  # fmt: skip
    assert again.json["account"] == account
    names = [one.json["event"] for one in hooks.of(account)]
    assert sorted(names) == [
        *["accountAdded"] * 2, "accountDeleted", *["accountInitialized"] * 2, *["authenticationSuccess"] * 2,
    ]  # fmt: skip
    assert len({one.headers["X-EE-Wh-Event-Id"] for one in hooks.of(account)}) == len(names)
