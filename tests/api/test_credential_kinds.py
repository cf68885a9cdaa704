"""Where tokens come from: every kind of credential, and how seldom the login service is asked. Each test has its
own storage and tenant, so that what the login service is asked is this app's doing alone."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from local import services
from tests.support.application import Application
from tests.support.people import (
    ANN,
    CLIENT_ID,
    CLIENT_SECRET,
    RITA,
    SUPPORT,
    TENANT_ID,
    People,
    until,
)
from tests.support.tenant import Tenant

SECRET = "an-application-secret"
IDENTITY = "33333333-4444-5555-6666-777777777777"
TOKEN = "/oauth2/v2.0/token$"
IDENTITY_PRINCIPAL = "44444444-5555-6666-7777-888888888888"
FEDERATED = {
    "issuer": f"https://login.microsoftonline.com/{TENANT_ID}/v2.0",
    "subject": IDENTITY_PRINCIPAL,
    "audience": "api://AzureADTokenExchange",
}

Start = Callable[..., People]


@pytest.fixture(scope="module")
def ground(service_logs: Path) -> Iterator[tuple[services.Azurite, Tenant, int, Path]]:
    """Storage and a tenant of this file alone, and the port its apps listen on."""
    logs, port = service_logs / "credentials", services.free_port()
    url = f"http://{services.LOOPBACK}:{port}"
    with services.Azurite(logs=logs) as storage, services.Tenant(service_url=url, logs=logs) as tenant:
        yield storage, Tenant(tenant), port, logs


@pytest.fixture
async def start(ground: tuple[services.Azurite, Tenant, int, Path]) -> AsyncIterator[Start]:
    """Starts the app with settings of the test's choice; it is emptied and stopped afterwards."""
    storage, tenant, port, logs = ground
    await tenant.reset()
    started: list[People] = []
    with ExitStack() as running:

        def run(**settings: str) -> People:
            usual = services.app_settings(storage=storage.connection_string, tenant_url=tenant.url)
            host = services.App(port, settings=usual | settings, poll_seconds=0.2, logs=logs)
            people = People(Application(running.enter_context(host)), tenant)
            started.append(people)
            return people

        yield run
        for people in started:
            for listed in (await people.api("GET", "/v1/accounts?pageSize=1000"))["accounts"]:
                await people.app.call("DELETE", f"/v1/account/{listed['account']}")


async def token_requests(people: People) -> list[dict[str, Any]]:
    """Every request for a token since the log was cleared."""
    return await people.tenant.log(surface="login", method="POST", path=TOKEN)


async def login_calls(people: People) -> int:
    """Requests of any kind to the login service, the identity endpoint included."""
    counts = await people.tenant.counts()
    return int(counts["login"]) + int(counts["msi"])


def certificate() -> tuple[str, str]:
    """A key with its self-signed certificate as PEM, and the certificate alone."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Graphpost test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = made.public_bytes(serialization.Encoding.PEM).decode()
    return private + public, public


def application() -> dict[str, str]:
    """Settings of an app with application access, under a client id of its own: tokens of an app are kept as long
    as they last, and another test's would serve."""
    return {
        "OAUTH_APP_CLIENT_ID": str(uuid.uuid4()),
        "OAUTH_APP_PROVIDER": "outlookService",
        "OAUTH_APP_AUTHORITY": TENANT_ID,
    }


async def only_app(people: People, **credentials: Any) -> str:
    """Registers the app of the settings at the tenant, with these credentials; its id at the service."""
    client_id = people.app.host.settings["OAUTH_APP_CLIENT_ID"]
    roles = ["Mail.ReadWrite", "Mail.Send", "User.Read.All"]
    await people.tenant.add_application(client_id=client_id, application_roles=roles, **credentials)
    (shown,) = [one for one in (await people.api("GET", "/v1/oauth2"))["apps"] if one["clientId"] == client_id]
    return str(shown["id"])


async def connects_and_sends(people: People, account: str, provider: str, mailbox: str = SUPPORT) -> None:
    """A mailbox reached with application access connects with push, and mail leaves as it."""
    oauth2 = {"provider": provider, "auth": {"user": mailbox}}
    body = {"account": account, "name": account, "email": mailbox, "oauth2": oauth2}
    await people.api("POST", "/v1/account", body)
    shown = await people.in_state(account, "connected", "authenticationError", "connectError")
    assert (shown["state"], shown["lastError"], shown["type"]) == ("connected", None, "outlookService")
    mail = await people.arrived(await people.submit(account))
    assert mail["from"]["emailAddress"]["address"] == mailbox
    copies = await people.tenant.messages(mailbox, "sentitems")
    assert mail["internetMessageId"] in [copy["internetMessageId"] for copy in copies]


# -- application access ---------------------------------------------------------------------------------------


async def test_application_access_by_secret(start: Start) -> None:
    """An app of the settings with a secret opens mailboxes without anybody signing in."""
    people = start(**application(), OAUTH_APP_CLIENT_SECRET=SECRET)
    await connects_and_sends(people, "support", await only_app(people, secrets=[SECRET]))


@pytest.mark.parametrize("one_line", [False, True])
async def test_application_access_by_certificate(start: Start, one_line: bool) -> None:
    """A certificate registered at the tenant replaces the secret; its PEM may be one line with `\\n`."""
    people_pem, public = certificate()
    pem = people_pem.replace("\n", "\\n") if one_line else people_pem
    people = start(**application(), OAUTH_APP_CERTIFICATE=pem)
    provider = await only_app(people, certificates=[public])
    await connects_and_sends(people, "support", provider)
    text = (await people.app.call("GET", f"/v1/oauth2/{provider}")).body
    assert "PRIVATE KEY" not in str(text)


async def test_a_certificate_that_is_not_registered_is_explained(start: Start) -> None:
    """The account says that the certificate is not the one registered."""
    people = start(**application(), OAUTH_APP_CERTIFICATE=certificate()[0])
    oauth2 = {"provider": await only_app(people, certificates=[certificate()[1]]), "auth": {"user": SUPPORT}}
    await people.api("POST", "/v1/account", {"account": "support", "name": "S", "oauth2": oauth2})
    error = (await people.in_state("support", "authenticationError"))["lastError"]
    assert "AADSTS700027" in error["response"]
    assert error["description"] == "The certificate is not the one registered for the app."


async def test_application_access_by_managed_identity(start: Start) -> None:
    """A managed identity that the app registration trusts replaces the secret."""
    people = start(**application(), OAUTH_APP_MANAGED_IDENTITY=IDENTITY)
    await connects_and_sends(people, "support", await only_app(people, federated=[FEDERATED]))
    assert (await people.tenant.counts())["msi"] == 1


async def test_an_identity_that_is_not_trusted_is_explained(start: Start) -> None:
    """Without the federated credential the account names what is missing."""
    people = start(**application(), OAUTH_APP_MANAGED_IDENTITY=IDENTITY)
    oauth2 = {"provider": await only_app(people), "auth": {"user": SUPPORT}}
    await people.api("POST", "/v1/account", {"account": "support", "name": "S", "oauth2": oauth2})
    error = (await people.in_state("support", "authenticationError"))["lastError"]
    assert "AADSTS700213" in error["response"]
    assert "federated credential" in error["description"]


async def test_an_identity_endpoint_out_of_reach_is_a_connect_error(start: Start) -> None:
    """An outage of the identity endpoint is no refusal, and the account recovers by itself."""
    people = start(**application(), OAUTH_APP_MANAGED_IDENTITY=IDENTITY)
    await people.tenant.add_fault({"drop": True}, match={"path_regex": "^/msi/token"}, times=None)
    oauth2 = {"provider": await only_app(people, federated=[FEDERATED]), "auth": {"user": SUPPORT}}
    await people.api("POST", "/v1/account", {"account": "support", "name": "S", "oauth2": oauth2})
    shown = await people.in_state("support", "connectError", "authenticationError", "connected")
    assert shown["state"] == "connectError"
    await people.tenant.clear_faults()
    await people.in_state("support", "connected")


async def test_children_of_application_access_have_its_rights(start: Start) -> None:
    """An account may borrow from one with application access; its mailbox needs no Full Access."""
    people = start(**application(), OAUTH_APP_CLIENT_SECRET=SECRET)
    await connects_and_sends(people, "relay", await only_app(people, secrets=[SECRET]), "relay@contoso.example")
    await people.borrower("locked", "relay", "locked@contoso.example")
    shown = await people.in_state("locked", "connected", "authenticationError")
    assert (shown["state"], shown["type"]) == ("connected", "delegated")
    mail = await people.arrived(await people.submit("locked"))
    assert mail["from"]["emailAddress"]["address"] == "locked@contoso.example"


async def test_many_mailboxes_share_one_application_token(start: Start) -> None:
    """Application access asks for one token, however many mailboxes use it."""
    people = start(**application(), OAUTH_APP_CLIENT_SECRET=SECRET)
    provider = await only_app(people, secrets=[SECRET])
    for name in ("support", "sales", "relay"):
        await connects_and_sends(people, name, provider, f"{name}@contoso.example")
    assert len(await token_requests(people)) == 1


# -- imported tokens ------------------------------------------------------------------------------------------


async def registered(people: People) -> str:
    """The app people sign in with, made once for the storage of this file."""
    for shown in (await people.api("GET", "/v1/oauth2"))["apps"]:
        if shown["provider"] == "outlook":
            return str(shown["id"])
    return await people.register()


def in_an_hour(hours: float = 1) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


@pytest.mark.parametrize(
    ("kinds", "hours", "asked"),
    [
        (("accessToken",), None, 0),
        (("accessToken",), 1, 0),
        (("refreshToken",), None, 1),
        (("accessToken", "refreshToken"), 1, 0),
        (("accessToken", "refreshToken"), None, 1),
        (("accessToken", "refreshToken"), -1, 1),
    ],
)
async def test_imported_tokens_connect_the_own_mailbox(
    start: Start, kinds: tuple[str, ...], hours: int | None, asked: int
) -> None:
    """Tokens obtained elsewhere work, and the login service is asked only when no usable access token came along."""
    people = start()
    provider = await registered(people)
    minted = await people.tenant.token(user=ANN)
    names = {"accessToken": minted["access_token"], "refreshToken": minted["refresh_token"]}
    tokens = {kind: names[kind] for kind in kinds} | ({"expires": in_an_hour(hours)} if hours else {})
    await people.person("ann", provider, **tokens)
    shown = await people.in_state("ann", "connected", "authenticationError")
    assert (shown["state"], shown["type"], shown["lastError"]) == ("connected", "outlook", None)
    mail = await people.arrived(await people.submit("ann"))
    assert mail["from"]["emailAddress"]["address"] == ANN
    assert len(await token_requests(people)) == asked


async def test_an_imported_refresh_token_is_replaced_by_the_newer_one(start: Start) -> None:
    """After the first use the newer refresh token is the one that is used."""
    people = start()
    await people.person("ann", await registered(people))
    await people.in_state("ann", "connected")
    before = (await token_requests(people))[-1]["number"]
    await people.tenant.add_fault({"status": 401}, match={"path_regex": "sendMail$"})
    assert await people.arrived(await people.submit("ann"))
    (refresh,) = await people.tenant.log(surface="login", method="POST", path=TOKEN, since=str(before))
    assert refresh["status"] == 200


async def test_an_expired_access_token_alone_is_an_authentication_error(start: Start) -> None:
    """With nothing to renew it with, an expired token says that the person must sign in."""
    people = start()
    token = (await people.tenant.token(user=ANN))["access_token"]
    await people.person("ann", await registered(people), accessToken=token, expires=in_an_hour(-1))
    error = (await people.in_state("ann", "authenticationError"))["lastError"]
    assert error["response"] == "The account has no usable credentials"
    assert "POST /v1/authentication/form" in error["description"]
    assert await token_requests(people) == []


# -- the warm path --------------------------------------------------------------------------------------------


async def test_the_warm_path_never_asks_the_login_service(start: Start) -> None:
    """With a token in use, submits and account reads for holder and child cause no request to the login service."""
    people = start()
    await people.person("ann", await registered(people))
    await people.in_state("ann", "connected")
    await people.borrower("support", "ann")
    await people.in_state("support", "connected")
    before = await login_calls(people)
    for _ in range(5):
        for account in ("ann", "support"):
            await people.account(account)
            assert await people.arrived(await people.submit(account))
    await people.api("GET", "/v1/accounts")
    assert await login_calls(people) == before


async def test_a_fresh_process_uses_the_stored_token(start: Start) -> None:
    """After a crash the next process sends with the token in storage: no request to the login service, not one."""
    people = start()
    await people.person("ann", await registered(people))
    await people.in_state("ann", "connected")
    await people.borrower("support", "ann")
    await people.in_state("support", "connected")
    before = await login_calls(people)
    people.app.host.kill()
    people.app.host.start()
    assert await people.arrived(await people.submit("support"))
    assert await people.arrived(await people.submit("ann"))
    assert await login_calls(people) == before


async def test_a_fresh_process_uses_the_stored_application_token(start: Start) -> None:
    """The same for application access: the secret is not sent again while the token lasts."""
    people = start(**application(), OAUTH_APP_CLIENT_SECRET=SECRET)
    await connects_and_sends(people, "support", await only_app(people, secrets=[SECRET]))
    before = await login_calls(people)
    people.app.host.kill()
    people.app.host.start()
    assert await people.arrived(await people.submit("support"))
    assert await login_calls(people) == before


async def test_a_refused_token_is_renewed_once_and_the_call_succeeds(start: Start) -> None:
    """A 401 from Graph means one refresh, one more try, and the mail is sent once."""
    people = start()
    await people.person("ann", await registered(people))
    await people.in_state("ann", "connected")
    before = len(await token_requests(people))
    await people.tenant.add_fault({"status": 401}, match={"path_regex": "sendMail$"})
    message_id = await people.submit("ann")
    assert await people.arrived(message_id)
    assert len(await token_requests(people)) == before + 1
    sends = await people.tenant.log(surface="graph", method="POST", path="sendMail$")
    assert [one["status"] for one in sends] == [401, 202]
    held = await people.tenant.messages(RITA, "inbox")
    assert [mail["internetMessageId"] for mail in held].count(message_id) == 1


async def at_rest(people: People) -> bool:
    """Whether the account is heard of by push, and Graph was asked nothing for two seconds."""
    before = len(await people.tenant.log(surface="graph"))
    await asyncio.sleep(2)
    is_push = ((await people.account("ann")).get("notifications") or {}).get("mode") == "push"
    return is_push and len(await people.tenant.log(surface="graph")) == before


async def test_many_sends_at_once_renew_the_token_once(start: Start) -> None:
    """When a token ends while ten mails wait, one request renews it for all of them."""
    people = start()
    await people.person("ann", await registered(people))
    await people.in_state("ann", "connected")
    await until("push and quiet", lambda: at_rest(people))  # no call may be under way when the tokens end
    await people.tenant.revoke_tokens(ANN, access_tokens=True)
    refresh = (await people.tenant.token(user=ANN))["refresh_token"]
    before = len(await token_requests(people))
    oauth2 = {"provider": await registered(people), "auth": {"user": ANN}, "refreshToken": refresh}
    await people.api("PUT", "/v1/account/ann", {"oauth2": oauth2})
    sent = await asyncio.gather(*[people.submit("ann", subject=f"Number {number}") for number in range(10)])
    for message_id in sent:
        assert await people.arrived(message_id)
    asked = (await token_requests(people))[before:]
    assert [one["status"] for one in asked] == [200]


async def test_signing_in_stores_what_later_sends_need(start: Start) -> None:
    """After a hosted sign-in the first mail is sent with the token of the sign-in: no further token request."""
    people = start()
    provider = await registered(people)
    page = await people.sign_in(await people.form(account="ann", type=provider))
    assert page.status == 200
    await people.in_state("ann", "connected")
    assert await people.arrived(await people.submit("ann"))
    asked = await token_requests(people)
    assert len(asked) == 1, "the exchange of the code"
    await people.tenant.add_fault({"status": 401}, match={"path_regex": "sendMail$"})
    assert await people.arrived(await people.submit("ann"))
    assert len(await token_requests(people)) == 2, "the refresh token of the sign-in renews"


async def test_an_app_of_the_settings_signs_people_in(start: Start) -> None:
    """The app that settings define is offered on the page and works like a registered one."""
    settings = {"OAUTH_APP_CLIENT_ID": CLIENT_ID, "OAUTH_APP_CLIENT_SECRET": CLIENT_SECRET}
    people = start(**settings, OAUTH_APP_NAME="Contoso sign-in", OAUTH_APP_AUTHORITY=TENANT_ID)
    shown = (await people.api("GET", "/v1/oauth2"))["apps"][0]
    page = await people.sign_in(await people.form(account="ann", type=shown["id"]))
    assert page.status == 200
    began = time.monotonic()
    await people.in_state("ann", "connected")
    assert time.monotonic() - began < 30
    assert (await people.account("ann"))["oauth2"]["provider"] == shown["id"]
