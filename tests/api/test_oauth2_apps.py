"""OAuth2 applications over the API."""

import re
from typing import Any

import pytest

from tests.support.rest import CLIENT_ID, TENANT_ID, Rest, keys_of, unique

NO_APP = {"statusCode": 404, "error": "Not Found", "message": "Document was not found", "code": "NotFound"}
WHOLE: dict[str, Any] = {
    "name": "Mail of Contoso", "description": "For the help desk", "title": "Sign in with Contoso",
    "provider": "outlook", "enabled": True, "clientId": CLIENT_ID, "clientSecret": "a-very-secret-word",
    "authority": "organizations", "redirectUrl": "https://mail.example/oauth", "cloud": "gcc-high",
    "extraScopes": ["Mail.Send.Shared", "https://graph.microsoft.com/User.ReadBasic.All"], "skipScopes": ["Mail.Send"],
    "tenant": "contoso.example",
}  # fmt: skip


async def test_an_application_reads_back_with_its_secret_masked(rest: Rest) -> None:
    """Every field is shown but the secret; the list shows the same without the count of accounts."""
    made = await rest.ok("POST", "/v1/oauth2", WHOLE)
    assert set(made) == {"id", "created"}
    assert made["created"] is True
    assert re.fullmatch(r"[A-Za-z0-9_-]{16}", made["id"])
    shown = await rest.ok("GET", f"/v1/oauth2/{made['id']}")
    assert {name: shown[name] for name in WHOLE} == WHOLE | {"clientSecret": "******"}
    assert (shown["accounts"], shown["baseScopes"], shown["lastError"]) == (0, "api", None)
    assert (shown["includeInListing"], shown["id"]) == (True, made["id"])
    assert shown["created"] == shown["updated"]
    listed = await rest.ok("GET", "/v1/oauth2")
    assert listed == {
        "total": 1, "page": 0, "pages": 1, "apps": [{k: v for k, v in shown.items() if k != "accounts"}],
    }  # fmt: skip
    assert "a-very-secret-word" not in str(shown) + str(listed)
    assert b"a-very-secret-word" not in rest.bytes_at_rest()


async def test_a_new_application_is_disabled_unless_said_otherwise(rest: Rest) -> None:
    """The contract's defaults: not enabled, not listed, no secret shown where there is none."""
    made = await rest.ok("POST", "/v1/oauth2", {"name": "Bare", "provider": "outlook"})
    shown = await rest.ok("GET", f"/v1/oauth2/{made['id']}")
    assert (shown["enabled"], shown["includeInListing"]) == (False, False)
    assert "clientSecret" not in shown


async def test_an_update_changes_only_what_it_names(rest: Rest) -> None:
    """Other fields stay; the time of the update moves on; null clears."""
    app = (await rest.ok("POST", "/v1/oauth2", WHOLE))["id"]
    before = await rest.ok("GET", f"/v1/oauth2/{app}")
    assert await rest.ok("PUT", f"/v1/oauth2/{app}", {"name": "Other", "title": None}) == {"id": app, "updated": True}
    after = await rest.ok("GET", f"/v1/oauth2/{app}")
    assert after.pop("updated") >= before.pop("updated")
    assert after == {k: v for k, v in before.items() if k != "title"} | {"name": "Other"}
    await rest.ok("PUT", f"/v1/oauth2/{app}", {"clientId": False, "clientSecret": None})
    after = await rest.ok("GET", f"/v1/oauth2/{app}")
    assert not {"clientId", "clientSecret"} & set(after)


async def test_a_masked_secret_written_back_is_unchanged(rest: Rest) -> None:
    """After a client has read and written the application whole, sign-ins still work."""
    app = await rest.outlook_app()
    shown = await rest.ok("GET", f"/v1/oauth2/{app}")
    writable = ("name", "enabled", "clientId", "clientSecret", "authority", "extraScopes")
    await rest.ok("PUT", f"/v1/oauth2/{app}", {name: shown[name] for name in writable})
    form = {"account": unique("signed"), "redirectUrl": "https://x.example/", "type": app}
    link = (await rest.ok("POST", "/v1/authentication/form", form))["url"]
    back, _ = await rest.sign_in(link, "ann@contoso.example")
    assert (back["account"], back["state"]) == (form["account"], "new")
    await rest.connected(form["account"])


async def test_a_changed_secret_is_used_from_then_on(rest: Rest) -> None:
    """An account that failed for a wrong client secret connects once the application has the right one."""
    account = unique("secret")
    app = await rest.service_app(clientSecret="wrong")
    await rest.create(account, {"provider": app, "auth": {"user": "support@contoso.example"}})
    record = await rest.in_state(account, "authenticationError")
    assert "7000215" in record["lastError"]["response"]
    await rest.ok("PUT", f"/v1/oauth2/{app}", {"clientSecret": "local-app-secret"})
    await rest.ok("PUT", f"/v1/account/{account}/reconnect", {"reconnect": True})
    assert (await rest.in_state(account, "connected"))["lastError"] is None


async def test_accounts_of_a_deleted_application_stay(rest: Rest) -> None:
    """Delete tells how many accounts used it; they become of type `oauth2` and can still be read and deleted."""
    account = unique("left")
    await rest.own(account)
    app = (await rest.get(account))["app"]
    assert (await rest.ok("GET", f"/v1/oauth2/{app}"))["accounts"] == 1
    assert await rest.ok("DELETE", f"/v1/oauth2/{app}") == {"id": app, "deleted": True, "accounts": 1}
    assert (await rest.get(account))["type"] == "oauth2"
    assert (await rest.ok("GET", "/v1/accounts"))["accounts"][0]["type"] == "oauth2"
    assert (await rest.call("GET", f"/v1/oauth2/{app}")).body == NO_APP
    await rest.ok("DELETE", f"/v1/account/{account}")


async def test_unknown_applications_are_a_404(rest: Rest) -> None:
    """For every operation, also with ids that are no ids."""
    for app in ("AAAAAAAAAAAAAAAA", "%F0%9F%98%80", "a%2Fb", "x" * 256):
        for method, body in (("GET", None), ("PUT", {"name": "n"}), ("DELETE", None)):
            answer = await rest.call(method, f"/v1/oauth2/{app}", body)
            assert (answer.status, answer.body) == (404, NO_APP), (method, app)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("name", "x" * 257), ("name", None), ("description", "x" * 1025), ("title", "x" * 257),
        ("provider", "gmail"), ("provider", "Outlook"), ("provider", None), ("enabled", "perhaps"), ("clientId", 5),
        ("clientSecret", "x" * 257), ("baseScopes", "imap"), ("extraScopes", ["x" * 256]), ("extraScopes", ["a b"]),
        ("skipScopes", [5]), ("authority", "common/../x"), ("authority", "x" * 1025), ("cloud", "mars"),
        ("redirectUrl", "javascript:alert(1)"), ("tenant", "a b"), ("googleProjectId", "x"), ("id", "x"),
    ],
)  # fmt: skip
async def test_wrong_fields_are_named_and_nothing_is_stored(rest: Rest, field: str, value: Any) -> None:
    """Each wrong or unknown field of a create is a 400 under its own name."""
    body = {"name": "n", "provider": "outlook", field: value}
    assert keys_of(await rest.call("POST", "/v1/oauth2", body)) == {field}
    assert (await rest.ok("GET", "/v1/oauth2"))["total"] == 0


@pytest.mark.parametrize("field", ["provider", "baseScopes", "created"])
async def test_fixed_fields_cannot_be_updated(rest: Rest, field: str) -> None:
    """What an application is cannot change under the accounts that use it."""
    app = await rest.outlook_app()
    assert keys_of(await rest.call("PUT", f"/v1/oauth2/{app}", {field: "outlook"})) == {field}


@pytest.mark.parametrize("authority", [None, "common", "organizations", "consumers"])
async def test_application_access_needs_a_tenant(rest: Rest, authority: str | None) -> None:
    """Client credentials work within one tenant only, so a shared authority is refused, unless `tenant` names one."""
    body = {"name": "n", "provider": "outlookService"} | ({"authority": authority} if authority else {})
    assert keys_of(await rest.call("POST", "/v1/oauth2", body)) == {"authority"}
    await rest.ok("POST", "/v1/oauth2", body | {"tenant": TENANT_ID})


async def test_scopes_may_be_one_text(rest: Rest) -> None:
    """`extraScopes: "x"` stands for a list of one."""
    body = {"name": "n", "provider": "outlook", "extraScopes": "Mail.Send.Shared"}
    app = (await rest.ok("POST", "/v1/oauth2", body))["id"]
    assert (await rest.ok("GET", f"/v1/oauth2/{app}"))["extraScopes"] == ["Mail.Send.Shared"]


async def test_the_list_is_paged(rest: Rest) -> None:
    """Oldest first, from page zero."""
    ids = [await rest.outlook_app(name=f"App {number}") for number in range(5)]
    pages = [await rest.ok("GET", f"/v1/oauth2?page={page}&pageSize=2") for page in range(4)]
    assert [app["id"] for page in pages for app in page["apps"]] == ids
    assert {(page["total"], page["pages"]) for page in pages} == {(5, 3)}


async def test_a_disabled_application_starts_no_new_sign_in(rest: Rest) -> None:
    """Its id is dropped from a set-up link."""
    app = await rest.outlook_app(enabled=False)
    link = await rest.ok("POST", "/v1/authentication/form", {"redirectUrl": "https://x.example/", "type": app})
    assert "type=" not in link["url"]
    await rest.ok("PUT", f"/v1/oauth2/{app}", {"enabled": True})
    link = await rest.ok("POST", "/v1/authentication/form", {"redirectUrl": "https://x.example/", "type": app})
    assert link["url"].endswith(f"&type={app}")


async def test_a_reader_app_is_kept_shown_and_cleared(rest: Rest) -> None:
    """`readerApp` names the application that reads the shared mailboxes of this app's people."""
    service = {"name": "Reader", "provider": "outlookService", "enabled": True, "authority": TENANT_ID}
    reader = (await rest.ok("POST", "/v1/oauth2", service))["id"]
    app = (await rest.ok("POST", "/v1/oauth2", {"name": "People", "provider": "outlook", "readerApp": reader}))["id"]
    assert (await rest.ok("GET", f"/v1/oauth2/{app}"))["readerApp"] == reader
    await rest.ok("PUT", f"/v1/oauth2/{app}", {"readerApp": None})
    assert "readerApp" not in await rest.ok("GET", f"/v1/oauth2/{app}")
    await rest.ok("PUT", f"/v1/oauth2/{app}", {"readerApp": reader})
    assert (await rest.ok("GET", f"/v1/oauth2/{app}"))["readerApp"] == reader


@pytest.mark.parametrize("case", ["unknown", "people", "reader of a reader"])
async def test_a_reader_that_can_not_read_is_refused_by_name(rest: Rest, case: str) -> None:
    """It must exist and have application access, and an application reads for itself; nothing is stored."""
    service = {"name": "Reader", "provider": "outlookService", "enabled": True, "authority": TENANT_ID}
    reader = (await rest.ok("POST", "/v1/oauth2", service))["id"]
    people = (await rest.ok("POST", "/v1/oauth2", {"name": "People", "provider": "outlook"}))["id"]
    body = {"name": "X", "provider": "outlook", "readerApp": {"unknown": "no-such-app", "people": people}.get(case)}
    if case == "reader of a reader":
        body = service | {"readerApp": reader}
    before = (await rest.ok("GET", "/v1/oauth2"))["total"]
    answer = await rest.call("POST", "/v1/oauth2", body)
    assert answer.status == 400
    assert [field["key"] for field in answer.body["fields"]] == ["readerApp"]
    assert (await rest.ok("GET", "/v1/oauth2"))["total"] == before
    answer = await rest.call("PUT", f"/v1/oauth2/{people}", {"readerApp": people})
    assert (answer.status, answer.body["fields"][0]["key"]) == (400, "readerApp")
