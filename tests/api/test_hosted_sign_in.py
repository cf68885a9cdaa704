"""Hosted sign-in over HTTP: the signed link, the choice of an app, Microsoft's page, the callback, and every way
it can fail. After a failure the tests look into the tables: nothing may have become of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from local.services import Azurite
from shared.clock import iso, utc_now
from shared.consent import STATE_PREFIX, new_nonce
from shared.storage.tables import Row
from tests.support.application import Application
from tests.support.pages import Page
from tests.support.people import ANN, CLIENT_ID, JOHN, SHARED_SCOPES, SUPPORT, People
from tests.support.stored import added, services_over, snapshot
from tests.support.tenant import Tenant

SECRET = "a secret that the test knows, to sign links as clients do"
BACK = "https://myapp.example/settings?tab=mail&x=%C3%A9"
INFO, INFO_UPN = "info@contoso.example", "infombx@contoso.onmicrosoft.example"
INVALID = "Invalid request. Check your input and try again."
EXPIRED = "Invalid or expired account setup URL"


@pytest.fixture
async def people(app: Application, tenant: Tenant) -> AsyncIterator[People]:
    """A service without accounts or apps, whose link secret is known, before a fresh tenant."""
    await tenant.reset()
    made = People(app, tenant)
    await made.remove_everything()
    await made.api("POST", "/v1/settings", {"serviceSecret": SECRET})
    yield made
    await made.remove_everything()


@pytest.fixture
async def app_id(people: People) -> str:
    """The only OAuth2 app of the service."""
    return await people.register()


def encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(app: Application, blob: Any, secret: str = SECRET, **more: str) -> str:
    """A link as a client makes it that knows the service secret."""
    raw = blob if isinstance(blob, bytes) else json.dumps(blob).encode()
    mac = hmac.new(secret.encode(), raw, hashlib.sha256).digest()
    return f"{app.url}/accounts/new?{urlencode({'data': encode(raw), 'sig': encode(mac), **more})}"


def query_of(url: str) -> dict[str, str]:
    """The query of a URL, each name once."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query, keep_blank_values=True).items()}


def blob_of(link: str) -> dict[str, Any]:
    """The set-up inside a link."""
    data = query_of(link)["data"]
    blob: dict[str, Any] = json.loads(base64.urlsafe_b64decode(data + "=" * (-len(data) % 4)))
    return blob


def says(page: Page, status: int, text: str) -> None:
    """The page has this status and this text as its own paragraph, and promises that nothing was stored."""
    assert (page.status, page.texts[1]) == (status, text), page.texts
    assert page.heading == "Sign-in did not finish"


class Watch:
    """What is new in the tables since it was made."""

    def __init__(self, azurite: Azurite) -> None:
        self._connection = azurite.connection_string
        self._before = snapshot(self._connection)

    def new_rows(self) -> dict[str, Any]:
        return added(self._before, snapshot(self._connection))


@pytest.fixture
def watch(azurite: Azurite, people: People, app_id: str) -> Watch:
    """The tables as they are once the app is registered."""
    return Watch(azurite)


# -- the link -------------------------------------------------------------------------------------------------


async def test_the_link_carries_the_given_fields_signed_and_a_fresh_nonce(people: People, app_id: str) -> None:
    """Two links for one set-up differ only in nonce and time, and their signature is the HMAC of the JSON."""
    given = {"account": "ann", "name": "Änn 🦊", "email": ANN, "expectedEmail": ANN, "redirectUrl": BACK}
    given |= {"syncFrom": "2026-01-02T03:04:05.000Z", "notifyFrom": "2026-02-02T03:04:05.000Z"}
    given |= {"path": ["INBOX"], "subconnections": ["\\Sent"], "delegated": True}
    links = [await people.form(**given, type=app_id) for _ in range(2)]
    blobs = [blob_of(link) for link in links]
    for link, blob in zip(links, blobs, strict=True):
        assert link.startswith(f"{people.app.url}/accounts/new?")
        assert {name: value for name, value in blob.items() if name not in ("n", "t")} == given
        assert len(blob["n"]) == 22
        assert abs(blob["t"] / 1000 - time.time()) < 30
        raw = base64.urlsafe_b64decode(query_of(link)["data"] + "==")
        assert query_of(link)["sig"] == encode(hmac.new(SECRET.encode(), raw, hashlib.sha256).digest())
        assert query_of(link)["type"] == app_id
    assert blobs[0]["n"] != blobs[1]["n"]


async def test_empty_fields_are_left_out_of_the_link(people: People, app_id: str) -> None:
    """A link made from the one required field holds it, the nonce and the time, nothing else."""
    link = await people.form(account=None, name="", delegated=False, email="")
    assert set(blob_of(link)) == {"redirectUrl", "n", "t"}
    assert "type" not in query_of(link)


@pytest.mark.parametrize("kind", ["imap", "unknown-app", False, "disabled"])
async def test_the_type_of_an_unusable_app_is_dropped_from_the_link(people: People, app_id: str, kind: Any) -> None:
    """A `type` that names no enabled app does not appear in the link."""
    if kind == "disabled":
        kind = await people.register(name="Off", enabled=False)
    assert "type" not in query_of(await people.form(type=kind))


# -- from the link to Microsoft -------------------------------------------------------------------------------


async def test_the_only_app_is_not_asked_for(people: People, app_id: str) -> None:
    """With one app the link leads straight to Microsoft, with everything the contract puts into the address."""
    authorize = await people.authorize_address(await people.form(email=ANN))
    assert authorize.startswith(f"{people.tenant.url}/common/oauth2/v2.0/authorize?")
    query = query_of(authorize)
    assert query["client_id"] == CLIENT_ID
    assert query["response_type"] == "code"
    assert query["response_mode"] == "query"
    assert (query["prompt"], query["client_info"]) == ("select_account", "1")
    assert query["redirect_uri"] == f"{people.app.url}/oauth"
    assert query["state"].startswith(STATE_PREFIX)
    assert len(query["state"].removeprefix(STATE_PREFIX)) == 22
    assert query["login_hint"] == ANN
    assert query["code_challenge_method"] == "S256"
    graph = "https://graph.microsoft.com/"
    names = {"Mail.ReadWrite", "Mail.Send", "User.Read", *SHARED_SCOPES}
    asked = set(query["scope"].split())
    assert {graph + name for name in names} | {"offline_access"} <= asked
    assert asked - {graph + name for name in names} <= {"offline_access", "openid", "profile"}


async def test_the_person_chooses_among_several_apps(people: People, app_id: str) -> None:
    """One button per enabled sign-in app, by title; the one pressed is the app Microsoft is asked with."""
    titled = await people.register(name="second", title="Fabrikam & <Söhne>", skipScopes=["Mail.Send"])
    await people.register(name="Off", title="Off", enabled=False)
    await people.register_application(title="Application")
    link = await people.form(email=ANN)
    page = Page(await people.visit(link))
    assert (page.status, page.heading) == (200, "Connect a mailbox")
    assert [(form.button.strip(), form.fields["type"]) for form in page.forms] == [
        ("Contoso", app_id),
        ("Fabrikam & <Söhne>", titled),
    ]
    form = page.forms[1]
    assert (form.method, form.action) == ("post", "/accounts/new")
    chosen = await people.post(people.app.url + form.action, **form.fields)
    assert chosen.status == 302
    assert "Mail.Send " not in query_of(chosen.headers["Location"])["scope"].replace("/", " ") + " "
    done = Page(await people.visit(await people.approve(chosen.headers["Location"])))
    assert done.status == 200
    account = query_of(done.target)["account"]
    assert (await people.account(account))["oauth2"]["provider"] == titled


@pytest.mark.parametrize("kind", ["imap", "nonsense"])
async def test_an_unknown_type_shows_the_choice(people: People, app_id: str, kind: str) -> None:
    """A `type` that is no app is as good as none: the choice with several apps, straight on with one."""
    link = f"{await people.form()}&type={kind}"
    assert (await people.visit(link)).status == 302
    await people.register(name="second")
    assert len(Page(await people.visit(link)).forms) == 2


async def test_without_any_app_the_page_says_so(people: People) -> None:
    """A service without apps shows no button and says whom to ask."""
    page = Page(await people.visit(await people.form()))
    assert (page.status, page.forms) == (200, [])
    assert any("No sign-in is set up" in text for text in page.texts)


async def test_an_application_only_app_cannot_be_signed_in_with(people: People, watch: Watch) -> None:
    """Both ways to start a sign-in refuse an app with application access, by the contract's text."""
    application = await people.register_application()
    link = await people.form(type=application)
    text = "Application-only OAuth providers do not support interactive authorization"
    says(Page(await people.visit(link)), 400, text)
    body = {"account": "x", "name": "X", "oauth2": {"authorize": True, "provider": application}}
    refused = await people.app.call("POST", "/v1/account", body)
    assert (refused.status, refused.body["message"]) == (400, text)
    assert "pending" not in watch.new_rows()


@pytest.mark.parametrize("expected", [None, ANN])
async def test_the_shared_address_is_no_login_hint(people: People, app_id: str, expected: str | None) -> None:
    """With `delegated` the hint is the expected person or absent, since a shared mailbox cannot sign in."""
    link = await people.form(email=SUPPORT, delegated=True, **({"expectedEmail": expected} if expected else {}))
    assert query_of(await people.authorize_address(link)).get("login_hint") == expected


# -- the way through ------------------------------------------------------------------------------------------


async def test_a_person_connects_the_own_mailbox(people: People, app_id: str) -> None:
    """The page leads to redirectUrl with `account` and `state` beside its own query, and the account connects."""
    link = await people.form(account="ann/ü", email="wanted@contoso.example", redirectUrl=BACK + "#part", path="INBOX")
    page = await people.sign_in(link)
    assert (page.status, page.heading) == (200, "The mailbox is connected")
    assert page.target == f"{BACK}&account=ann%2F%C3%BC&state=new#part"
    assert page.links == [page.target]
    shown = await people.in_state("ann/ü", "connected")
    assert shown["email"] == ANN, "the signed-in address wins over what was asked for"
    assert (shown["name"], shown["type"], shown["lastError"]) == ("Ann Smith", "outlook", None)
    assert shown["oauth2"]["auth"] == {"user": ANN}
    assert shown["oauth2"]["accessToken"] == shown["oauth2"]["refreshToken"] == "******"
    assert shown["path"] == ["INBOX"]
    assert await people.arrived(await people.submit("ann/ü"))


async def test_signing_in_again_updates_the_account(people: People, app_id: str) -> None:
    """A second link for the same id ends with `state=existing`, and there is still one account."""
    first = await people.sign_in(await people.form(account="ann", name="First"))
    second = await people.sign_in(await people.form(account="ann", name="Second"))
    assert [query_of(page.target)["state"] for page in (first, second)] == ["new", "existing"]
    listed = (await people.api("GET", "/v1/accounts"))["accounts"]
    assert [(one["account"], one["name"]) for one in listed] == [("ann", "Second")]


async def test_own_parameters_called_account_and_state_are_replaced(people: People, app_id: str) -> None:
    """redirectUrl's own `state` and `account` do not survive beside ours, or the client could read the wrong one."""
    page = await people.sign_in(await people.form(account="ann", redirectUrl="https://a.example/?state=x&y=1&account=z"))
    assert page.target == "https://a.example/?y=1&account=ann&state=new"


async def test_a_delegated_sign_in_connects_the_shared_mailbox(people: People, app_id: str) -> None:
    """With `delegated` the mailbox is the given one, reached with the rights of who signed in; mail leaves as it."""
    page = await people.sign_in(await people.form(account="support", name="Desk", email=SUPPORT, delegated=True))
    assert query_of(page.target)["account"] == "support"
    shown = await people.in_state("support", "connected")
    assert shown["oauth2"]["auth"] == {"user": ANN, "delegatedUser": SUPPORT}
    assert (shown["email"], shown["name"]) == (SUPPORT, "Desk")
    mail = await people.arrived(await people.submit("support"))
    assert mail["from"]["emailAddress"]["address"] == SUPPORT


async def test_delegated_with_the_own_address_is_the_own_mailbox(people: People, app_id: str) -> None:
    """`delegated` changes nothing when the mailbox is that of the person who signs in."""
    page = await people.sign_in(await people.form(account="ann", email=ANN.upper(), delegated=True))
    assert page.status == 200
    shown = await people.account("ann")
    assert (shown["email"], shown["oauth2"]["auth"]) == (ANN, {"user": ANN})


async def test_without_an_id_one_is_made(people: People, app_id: str) -> None:
    """An account without an id gets one of sixteen letters and digits, which the page hands over."""
    page = await people.sign_in(await people.form())
    made = query_of(page.target)["account"]
    assert len(made) == 16
    assert made.isalnum()
    assert (await people.account(made))["email"] == ANN


async def test_a_link_signed_by_the_client_does_not_expire(people: People, app_id: str) -> None:
    """A blob without nonce and time, keys in any order, works on its signature alone, and works again."""
    link = signed(people.app, {"redirectUrl": "https://a.example/", "email": ANN, "account": "ann"}, type=app_id)
    pages = [await people.sign_in(link) for _ in range(2)]
    assert [query_of(page.target)["state"] for page in pages] == ["new", "existing"]


async def test_a_link_signed_by_the_client_may_have_no_way_back(people: People, app_id: str) -> None:
    """Without redirectUrl the page says that it can be closed and leads nowhere."""
    page = await people.sign_in(signed(people.app, {"account": "ann"}))
    assert (page.status, page.target, page.links) == (200, "", [])
    assert "You can close this page." in page.texts


# -- authorize over the API -----------------------------------------------------------------------------------


async def authorized(people: People, app_id: str, **fields: Any) -> str:
    """The address that POST /v1/account with `authorize` gives."""
    auth = fields.pop("auth", None)
    oauth2 = {"authorize": True, "provider": app_id, "redirectUrl": BACK, **({"auth": auth} if auth else {})}
    body = {"account": "acc", "name": "Given", **fields, "oauth2": oauth2}
    answer = await people.api("POST", "/v1/account", body)
    assert set(answer) == {"redirect"}
    return str(answer["redirect"])


async def test_authorize_creates_nothing_before_the_callback(people: People, app_id: str, watch: Watch) -> None:
    """The API answers with Microsoft's address, without a login hint; the account appears with the callback."""
    authorize = await authorized(people, app_id, email="other@contoso.example", webhooks="https://hook.example/x")
    assert "login_hint" not in query_of(authorize)
    assert set(watch.new_rows()) <= {"pending"}
    page = Page(await people.visit(await people.approve(authorize)))
    assert page.target == f"{BACK}&account=acc&state=new"
    shown = await people.in_state("acc", "connected")
    assert (shown["email"], shown["name"], shown["webhooks"]) == (ANN, "Given", "https://hook.example/x")


async def test_authorize_keeps_the_delegation_asked_for(people: People, app_id: str) -> None:
    """`delegatedUser` given with `authorize` is the mailbox; `email` defaults to it."""
    authorize = await authorized(people, app_id, auth={"delegatedUser": SUPPORT})
    assert Page(await people.visit(await people.approve(authorize))).status == 200
    shown = await people.in_state("acc", "connected")
    assert shown["oauth2"]["auth"] == {"user": ANN, "delegatedUser": SUPPORT}
    assert shown["email"] == SUPPORT


async def test_public_address_and_principal_name_may_differ(people: People, app_id: str) -> None:
    """`email` shows the public address while the mailbox is opened by its principal name, and mail has the former."""
    authorize = await authorized(people, app_id, email=INFO, auth={"delegatedUser": INFO_UPN})
    assert Page(await people.visit(await people.approve(authorize))).status == 200
    shown = await people.in_state("acc", "connected")
    assert (shown["email"], shown["oauth2"]["auth"]["delegatedUser"]) == (INFO, INFO_UPN)
    mail = await people.arrived(await people.submit("acc"))
    assert mail["from"]["emailAddress"]["address"] == INFO


async def test_a_person_whose_principal_name_is_not_the_address(people: People, app_id: str) -> None:
    """The mail address becomes `email`, the principal name becomes `user`."""
    await people.tenant.change_principal(ANN, upn="ann.upn@contoso.onmicrosoft.example")
    page = await people.sign_in(await people.form(account="ann"), "ann.upn@contoso.onmicrosoft.example")
    assert page.status == 200
    shown = await people.account("ann")
    assert (shown["email"], shown["oauth2"]["auth"]["user"]) == (ANN, "ann.upn@contoso.onmicrosoft.example")


async def test_a_person_without_a_mail_address_has_the_principal_name(people: People, app_id: str) -> None:
    """Where the profile has no `mail` the principal name stands in for it."""
    await people.tenant.change_principal(ANN, mail=None)
    assert (await people.sign_in(await people.form(account="ann"))).status == 200
    assert (await people.account("ann"))["email"] == ANN


@pytest.mark.parametrize("provider", ["no-such-app", "", "disabled"])
async def test_authorize_needs_an_enabled_app(people: People, app_id: str, watch: Watch, provider: str) -> None:
    """Without an app that exists and is enabled no sign-in starts."""
    if provider == "disabled":
        provider = await people.register(enabled=False)
    body = {"account": "x", "name": "X", "oauth2": {"authorize": True, "provider": provider}}
    refused = await people.app.call("POST", "/v1/account", body)
    assert (refused.status, refused.body["message"]) == (400, "Invalid or missing OAuth2 provider")
    assert "pending" not in watch.new_rows()


# -- the expected person --------------------------------------------------------------------------------------


async def test_somebody_else_is_sent_to_sign_in_again(people: People, app_id: str, watch: Watch) -> None:
    """The page names both people, stores nothing, and its link leads the right person to the end of the set-up."""
    link = await people.form(account="ann", expectedEmail=ANN.upper(), redirectUrl=BACK)
    page = await people.sign_in(link, JOHN)
    assert (page.status, page.heading) == (403, "Another account is expected")
    assert JOHN in page.source
    assert ANN.upper() in page.source
    (retry,) = page.links
    assert retry.startswith(f"{people.tenant.url}/common/oauth2/v2.0/authorize?")
    assert query_of(retry)["prompt"] == "select_account"
    assert set(watch.new_rows()) == {"pending"}, "only the set-up waits for the second attempt"
    done = Page(await people.visit(await people.approve(retry)))
    assert done.target == f"{BACK}&account=ann&state=new"
    assert (await people.account("ann"))["email"] == ANN


async def test_the_link_of_a_mismatch_works_once_too(people: People, app_id: str) -> None:
    """The address of the first attempt is used up; only the retry's fresh state works."""
    authorize = await people.authorize_address(await people.form(account="ann", expectedEmail=ANN))
    assert Page(await people.visit(await people.approve(authorize, JOHN))).status == 403
    says(Page(await people.visit(await people.approve(authorize))), 400, "Oauth failed: session expired")


async def test_an_expectation_stored_on_the_account_counts(people: People, app_id: str) -> None:
    """An account with its own expectedEmail is not taken over through a link without one."""
    await people.sign_in(await people.form(account="ann", expectedEmail=ANN))
    before = await people.in_state("ann", "connected")
    page = await people.sign_in(await people.form(account="ann"), JOHN)
    assert (page.status, page.heading) == (403, "Another account is expected")
    assert (await people.account("ann"))["email"] == before["email"] == ANN


async def test_either_proven_address_meets_the_expectation(people: People, app_id: str) -> None:
    """Mail address and principal name are both proven by Microsoft; either may be the expected one."""
    upn = "ann.upn@contoso.onmicrosoft.example"
    await people.tenant.change_principal(ANN, upn=upn)
    for expected in (upn.upper(), ANN):
        assert (await people.sign_in(await people.form(account="ann", expectedEmail=expected), upn)).status == 200


async def test_the_expectation_of_authorize_counts(people: People, app_id: str, watch: Watch) -> None:
    """`expectedEmail` of POST /v1/account with `authorize` refuses somebody else."""
    authorize = await authorized(people, app_id, expectedEmail=ANN)
    assert Page(await people.visit(await people.approve(authorize, JOHN))).status == 403
    assert set(watch.new_rows()) <= {"pending"}


# -- links that are refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    ["", "data=&sig=", "data=e30", "sig=e30", "data=!!&sig=e30", "data=e30&sig=!!", "data=e30&sig=a", "data=%C3%A9"],
)
async def test_a_malformed_link_is_refused(people: People, watch: Watch, query: str) -> None:
    """Missing or undecodable `data` and `sig` give the contract's page, by GET and by POST."""
    says(Page(await people.visit(f"{people.app.url}/accounts/new?{query}")), 400, INVALID)
    fields = {name: value[0] for name, value in parse_qs(query).items()}
    says(Page(await people.post(f"{people.app.url}/accounts/new", **fields)), 400, INVALID)
    assert watch.new_rows() == {}


@pytest.mark.parametrize("blob", [b"not json", b"[]", b'"text"', b"null", b'{"email": 5}', b'{"redirectUrl": []}'])
async def test_a_signed_link_of_another_shape_is_refused(people: People, watch: Watch, blob: bytes) -> None:
    """Even signed, only an object with texts where texts belong is a set-up."""
    says(Page(await people.visit(signed(people.app, blob))), 400, INVALID)
    assert watch.new_rows() == {}


@pytest.mark.parametrize("target", ["javascript:alert(1)", "data:text/html,x", "//evil.example", "myapp.example"])
async def test_a_signed_link_leads_back_to_web_addresses_only(people: People, watch: Watch, target: str) -> None:
    """A redirectUrl that is no http(s) address is refused before anybody signs in."""
    says(Page(await people.visit(signed(people.app, {"redirectUrl": target}))), 400, INVALID)


async def test_a_forged_link_is_refused(people: People, watch: Watch) -> None:
    """A changed set-up, a changed signature and another secret all fail, by GET and by POST."""
    link = await people.form(account="ann")
    query = query_of(link)
    changed = encode(json.dumps({**blob_of(link), "account": "other"}).encode())
    other_mac = encode(bytes([base64.urlsafe_b64decode(query["sig"] + "=")[0] ^ 1]) + b"x" * 31)
    forged = [
        f"{people.app.url}/accounts/new?{urlencode({**query, 'data': changed})}",
        f"{people.app.url}/accounts/new?{urlencode({**query, 'sig': other_mac})}",
        signed(people.app, {"account": "ann"}, secret="guessed"),
        signed(people.app, {"account": "ann"}, secret=""),
    ]
    for one in forged:
        says(Page(await people.visit(one)), 403, "Signature validation failed")
        posted = Page(await people.post(f"{people.app.url}/accounts/new", **query_of(one)))
        says(posted, 403, "Signature validation failed")
    assert watch.new_rows() == {}


async def test_a_link_is_spent_by_success(people: People, app_id: str) -> None:
    """After a sign-in the same link is refused, and so is a sign-in that was begun with it before."""
    link = await people.form(account="ann")
    begun = await people.approve(await people.authorize_address(link), JOHN)
    assert (await people.sign_in(link)).status == 200
    says(Page(await people.visit(link)), 403, EXPIRED)
    says(Page(await people.post(f"{people.app.url}/accounts/new", **query_of(link))), 403, EXPIRED)
    says(Page(await people.visit(begun)), 403, EXPIRED)
    assert (await people.account("ann"))["email"] == ANN, "the second person did not take the account over"


async def test_a_link_is_not_spent_by_failure(people: People, app_id: str) -> None:
    """A cancelled sign-in leaves the link as good as new."""
    link = await people.form(account="ann")
    cancelled = await people.post(await people.authorize_address(link), cancel="1")
    says(Page(await people.visit(cancelled.headers["Location"])), 400, "Oauth failed: access_denied")
    assert (await people.sign_in(link)).status == 200


@pytest.mark.parametrize(("age_s", "status"), [(24 * 3600 - 120, 302), (24 * 3600 - 30, 403), (10**9, 403)])
async def test_a_link_ends_a_minute_before_a_day(people: People, app_id: str, age_s: int, status: int) -> None:
    """A link is good for 24 hours less 60 seconds."""
    blob = {"account": "ann", "n": new_nonce(), "t": int((time.time() - age_s) * 1000)}
    answer = await people.visit(signed(people.app, blob))
    assert answer.status == status
    if status != 302:
        says(Page(answer), 403, EXPIRED)


@pytest.mark.parametrize("blob", [{"n": "AAAAAAAAAAAAAAAAAAAAAA"}, {"n": "AAAAAAAAAAAAAAAAAAAAAA", "t": "soon"}])
async def test_a_link_with_a_nonce_needs_a_time(people: People, app_id: str, blob: dict[str, Any]) -> None:
    """A nonce without a readable time is too old."""
    says(Page(await people.visit(signed(people.app, blob))), 403, EXPIRED)


@pytest.mark.parametrize("nonce", ["", "short", "A" * 23, "A" * 21 + "!", "A" * 22 + "===", "A" * 22 + "\n", None])
async def test_a_malformed_nonce_is_refused(people: People, watch: Watch, nonce: str | None) -> None:
    """The nonce of a link has 21 or 22 characters of base64, with or without padding."""
    blob = {"t": int(time.time() * 1000)} | ({"n": nonce} if nonce is not None else {})
    text = "Invalid nonce format. Please generate a new authentication URL."
    says(Page(await people.visit(signed(people.app, blob))), 400, text)
    assert watch.new_rows() == {}


@pytest.mark.parametrize("nonce", ["A" * 21, "ab/+_-" + "A" * 16, "AAAAAAAAAAAAAAAAAAAAAA=="])
async def test_nonces_of_every_alphabet_work_once(people: People, app_id: str, nonce: str) -> None:
    """Old clients write nonces in plain base64; these too open the way once."""
    nonce = nonce.replace("A" * 16, secrets.token_hex(8))
    nonce = nonce if "ab/+" in nonce else nonce.replace("AAAAAAAA", secrets.token_hex(4), 1)
    link = signed(people.app, {"account": "ann", "n": nonce, "t": int(time.time() * 1000)})
    assert (await people.sign_in(link)).status == 200
    says(Page(await people.visit(link)), 403, EXPIRED)


# -- callbacks that are refused -------------------------------------------------------------------------------

WORDS = (
    "invalid_request unauthorized_client access_denied unsupported_response_type server_error "
    "temporarily_unavailable invalid_resource login_required interaction_required consent_required"
).split()


@pytest.mark.parametrize("word", WORDS)
async def test_every_refusal_of_microsoft_is_shown(people: People, watch: Watch, word: str) -> None:
    """An error at the sign-in page comes back as `Oauth failed: <error>` with Microsoft's explanation."""
    authorize = await people.authorize_address(await people.form(account="ann"))
    await people.tenant.login_errors(next_authorize_error={"error": word, "description": "In Microsoft's own words."})
    back = await people.post(authorize, user=ANN)
    assert query_of(back.headers["Location"])["error"] == word
    page = Page(await people.visit(back.headers["Location"]))
    says(page, 400, f"Oauth failed: {word}")
    assert any("In Microsoft's own words." in text for text in page.texts)
    assert set(watch.new_rows()) <= {"pending"}


async def test_markup_in_an_error_stays_text(people: People, watch: Watch) -> None:
    """What anybody can put into the query of /oauth reaches the page as text: no element comes of it."""
    markup = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    query = urlencode({"error": markup, "error_description": f"</p></main>{markup}"})
    page = Page(await people.visit(f"{people.app.url}/oauth?{query}"))
    says(page, 400, f"Oauth failed: {markup}")
    assert not {"script", "img"} & set(page.elements)
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "no-referrer"


async def test_markup_in_a_link_stays_text(people: People, app_id: str) -> None:
    """Names, addresses and titles on the pages are text too."""
    await people.register(name="b", title="</button><script>x</script>")
    page = Page(await people.visit(await people.form(email="o'x&y@contoso.example")))
    assert "script" not in page.elements
    account = '"><script>x</script>'
    link = await people.form(account=account, redirectUrl='https://a.example/?q="><b>', type=app_id)
    done = await people.sign_in(link)
    assert not {"script", "b"} & set(done.elements)
    assert query_of(done.target)["account"] == account


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "no code received"),
        ("code=", "no code received"),
        ("state=account:add:AAAAAAAAAAAAAAAAAAAAAA", "no code received"),
        ("code=x", "invalid state received"),
        ("code=x&state=", "invalid state received"),
        ("code=x&state=AAAAAAAAAAAAAAAAAAAAAA", "invalid state received"),
        ("code=x&state=account:delete:AAAAAAAAAAAAAAAAAAAAAA", "invalid state received"),
        ("code=x&state=account:add:", "invalid state format"),
        ("code=x&state=account:add:short", "invalid state format"),
        ("code=x&state=account:add:AAAAAAAAAAAAAAAAAAAAA'", "invalid state format"),
        ("code=x&state=account:add:AAAAAAAAAAAAAAAAAAAAAA", "session expired"),
        ("code=x&state=account:add:AAAA%2FAAAAAAAA%2BAAAAAAAA", "session expired"),
    ],
)
async def test_a_callback_nobody_began_is_refused(people: People, watch: Watch, query: str, text: str) -> None:
    """Wrong, malformed and unknown states each give their page, and leave no trace."""
    says(Page(await people.visit(f"{people.app.url}/oauth?{query}")), 400, f"Oauth failed: {text}")
    assert watch.new_rows() == {}


async def test_a_state_works_once(people: People, app_id: str) -> None:
    """The callback's address opened a second time does nothing."""
    callback = await people.approve(await people.authorize_address(await people.form(account="ann")))
    assert Page(await people.visit(callback)).status == 200
    await people.api("DELETE", "/v1/account/ann")
    says(Page(await people.visit(callback)), 400, "Oauth failed: session expired")
    assert (await people.app.call("GET", "/v1/account/ann")).status == 404


async def test_a_code_of_another_sign_in_is_refused(people: People, watch: Watch) -> None:
    """A code that belongs to another person's sign-in does not go through with this state."""
    mine = await people.approve(await people.authorize_address(await people.form(account="ann")))
    theirs = query_of(await people.approve(await people.authorize_address(await people.form(account="j")), JOHN))
    crossed = urlencode({**query_of(mine), "code": theirs["code"]})
    says(Page(await people.visit(f"{people.app.url}/oauth?{crossed}")), 400, "Oauth failed: did not get token")
    assert set(watch.new_rows()) <= {"pending"}


async def test_two_callbacks_at_once_make_one_account(people: People, app_id: str, azurite: Azurite) -> None:
    """Of eight callbacks with one state exactly one succeeds, and one account without an id of its own is made."""
    callback = await people.approve(await people.authorize_address(await people.form()))
    pages = [Page(one) for one in await asyncio.gather(*[people.visit(callback) for _ in range(8)])]
    assert sorted(page.status for page in pages) == [200] + [400] * 7
    for page in pages:
        if page.status == 400:
            says(page, 400, "Oauth failed: session expired")
    assert len(snapshot(azurite.connection_string)["accounts"]) == 1


async def test_two_sign_ins_of_one_link_at_once_make_one_account(people: People, app_id: str, azurite: Azurite) -> None:
    """Two browsers that opened one link: the first to finish has it, the other is told that it is used."""
    link = await people.form()
    callbacks = [await people.approve(await people.authorize_address(link), user) for user in (ANN, JOHN)]
    pages = [Page(one) for one in await asyncio.gather(*[people.visit(callback) for callback in callbacks])]
    assert sorted(page.status for page in pages) == [200, 403]
    says(next(page for page in pages if page.status == 403), 403, EXPIRED)
    assert len(snapshot(azurite.connection_string)["accounts"]) == 1


async def test_a_session_ends_after_a_day(people: People, watch: Watch, azurite: Azurite) -> None:
    """A sign-in begun more than 24 hours ago is over, whatever the clean-up did."""

    def day_ago() -> Any:
        return utc_now() - timedelta(hours=24, minutes=1)

    async with services_over(
        azurite.connection_string, people.tenant.url, day_ago, SERVICE_URL=people.app.url
    ) as yesterday:
        app = (await yesterday.consent.offered_apps())[0]
        authorize = await yesterday.consent.begin_form({"account": "ann"}, app)
    says(Page(await people.visit(await people.approve(authorize))), 400, "Oauth failed: session expired")
    assert watch.new_rows() == {}


async def test_a_session_that_cannot_be_opened_is_invalid(people: People, watch: Watch, azurite: Azurite) -> None:
    """A set-up sealed for another place or damaged is refused as invalid."""
    key = new_nonce()
    async with services_over(azurite.connection_string, people.tenant.url) as services:
        ends = iso(utc_now() + timedelta(hours=1))
        row = Row(key, "setup", {"sealed": "v1.k1." + "A" * 64, "ends": ends})
        await services.tables["pending"].insert(row)
    page = Page(await people.visit(f"{people.app.url}/oauth?code=x&state=account:add:{key}"))
    says(page, 400, "Oauth failed: invalid session")
    assert watch.new_rows() == {}


@pytest.mark.parametrize("gone", ["deleted", "disabled"])
async def test_an_app_that_went_away_ends_the_sign_in(people: People, app_id: str, azurite: Azurite, gone: str) -> None:
    """An app deleted or disabled while the person was at Microsoft gives the contract's 404."""
    callback = await people.approve(await people.authorize_address(await people.form(account="ann")))
    if gone == "deleted":
        await people.api("DELETE", f"/v1/oauth2/{app_id}")
    else:
        await people.api("PUT", f"/v1/oauth2/{app_id}", {"enabled": False})
    watch = Watch(azurite)
    says(Page(await people.visit(callback)), 404, "Missing or disabled OAuth2 app")
    assert watch.new_rows() == {}


# -- no token, no profile -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aadsts", "hint"),
    [(7000215, "PUT /v1/oauth2"), (7000222, "az ad app credential reset"), (53003, "Conditional Access"), (90024, "")],
)
async def test_a_refused_code_is_explained(people: People, app_id: str, watch: Watch, aadsts: int, hint: str) -> None:
    """The page says that there was no token, below it Microsoft's words and the fix; the app notes the failure."""
    callback = await people.approve(await people.authorize_address(await people.form(account="ann")))
    await people.tenant.login_errors(token_errors=[{"aadsts": aadsts}])
    page = Page(await people.visit(callback))
    says(page, 400, "Oauth failed: did not get token")
    assert f"AADSTS{aadsts}" in page.texts[2]
    assert hint in page.texts[2]
    assert f"AADSTS{aadsts}" in (await people.api("GET", f"/v1/oauth2/{app_id}"))["lastError"]["response"]
    assert watch.new_rows() == {}


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_login_service_that_fails_gives_no_token(people: People, watch: Watch, status: int) -> None:
    """An outage of the token endpoint ends the sign-in like a refusal does, and stores nothing."""
    callback = await people.approve(await people.authorize_address(await people.form(account="ann")))
    await people.tenant.login_errors(token_status={"status": status})
    says(Page(await people.visit(callback)), 400, "Oauth failed: did not get token")
    assert watch.new_rows() == {}


async def test_a_wrong_client_secret_is_explained(people: People, app_id: str) -> None:
    """With a wrong secret the person sees that no token came, with what an administrator does about it."""
    await people.api("PUT", f"/v1/oauth2/{app_id}", {"clientSecret": "wrong"})
    page = await people.sign_in(await people.form(account="ann"))
    says(page, 400, "Oauth failed: did not get token")
    assert "AADSTS7000215" in page.texts[2]


@pytest.mark.parametrize(("action", "status"), [({"status": 403}, 403), ({"status": 404}, 404), ({"status": 503}, 503)])
async def test_a_refused_profile_ends_the_sign_in(
    people: People, watch: Watch, action: dict[str, Any], status: int
) -> None:
    """The page has Graph's status and Graph's message."""
    callback = await people.approve(await people.authorize_address(await people.form(account="ann")))
    message = "Graph's own <words>"
    await people.tenant.add_fault({**action, "message": message}, match={"path_regex": "/me$"}, times=None)
    page = Page(await people.visit(callback))
    assert (page.status, page.heading) == (status, "Sign-in did not finish")
    assert message in page.texts[1]
    assert watch.new_rows() == {}


async def test_graph_out_of_reach_ends_the_sign_in(people: People, watch: Watch) -> None:
    """Without an answer of Graph there is no status to pass on: 500."""
    callback = await people.approve(await people.authorize_address(await people.form(account="ann")))
    await people.tenant.add_fault({"drop": True}, match={"path_regex": "/me$"}, times=None)
    assert Page(await people.visit(callback)).status == 500
    assert watch.new_rows() == {}


async def test_keys_that_rolled_over_are_fetched(people: People, app_id: str) -> None:
    """A sign-in after Microsoft replaced its signing keys works: the unknown key is fetched."""
    assert (await people.sign_in(await people.form(account="one"))).status == 200
    for drop_old in (False, True):
        await people.tenant.control("POST", "/keys/roll", {"drop_old": drop_old})
        assert (await people.sign_in(await people.form(account="two"))).status == 200


async def test_an_id_token_of_an_unpublished_key_is_refused(people: People, watch: Watch) -> None:
    """When the login service does not publish the key that signed, the identity is not proven: nothing is stored."""
    await people.tenant.control("POST", "/keys/roll", {"drop_old": True})
    callback = await people.approve(await people.authorize_address(await people.form(account="ann")))
    await people.tenant.add_fault({"status": 503}, match={"path_regex": "/discovery/v2.0/keys$"}, times=None)
    assert Page(await people.visit(callback)).status == 400
    assert watch.new_rows() == {}
