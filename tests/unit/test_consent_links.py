"""The parts of the hosted sign-in that need neither browser nor tenant: links, fields, claims."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from shared.consent import NONCE, Consent, PageError, account_fields, add_query, new_nonce, sign
from shared.credentials import SignIn
from shared.errors import ApiError, StorageConflict
from shared.oauth_apps import OauthApp
from shared.storage.tables import Row
from shared.token_records import Stored
from shared.vault import Vault, decode, encode

APP = OauthApp(id="app", name="Contoso", provider="outlook", client_id="client")
ANN, BOX = "ann@contoso.example", "support@contoso.example"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "service secret"

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("url", "result"),
    [
        ("https://a.example", "https://a.example?account=x&state=new"),
        ("https://a.example/", "https://a.example/?account=x&state=new"),
        ("https://a.example/?", "https://a.example/?account=x&state=new"),
        ("https://a.example/?tab=1", "https://a.example/?tab=1&account=x&state=new"),
        ("https://a.example/?flag&e=&n=%E9&p=a+b%20c;d", "https://a.example/?flag&e=&n=%E9&p=a+b%20c;d&account=x&state=new"),
        ("https://a.example/?a=1&&b=2#part", "https://a.example/?a=1&b=2&account=x&state=new#part"),
        ("https://a.example/?state=old&%61ccount=z&statement=1", "https://a.example/?statement=1&account=x&state=new"),
        ("https://u@a.example:8443/p;v=1?q=1", "https://u@a.example:8443/p;v=1?q=1&account=x&state=new"),
    ],
)
def test_parameters_are_added_to_the_query_as_it_was_written(url: str, result: str) -> None:
    """Whatever the address holds stays as it is, except older parameters of the same names."""
    assert add_query(url, account="x", state="new") == result


def test_added_values_are_encoded() -> None:
    """Account ids may hold anything."""
    target = add_query("https://a.example/", account='a&b=c#d"/ü🦊', state="new")
    assert parse_qs(urlsplit(target).query) == {"account": ['a&b=c#d"/ü🦊'], "state": ["new"]}


def test_nonces_are_random_and_of_the_contracts_form() -> None:
    """Sixteen bytes of chance in 22 characters."""
    made = {new_nonce() for _ in range(200)}
    assert len(made) == 200
    assert all(NONCE.fullmatch(one) and len(decode(one)) == 16 for one in made)


def test_the_signature_is_the_one_that_clients_compute() -> None:
    """A known answer: HMAC-SHA256 of the JSON under the secret, base64url without padding."""
    assert sign(b"{}", "key") == "p3dyTZQ-tI3Gm8qKSm1XoE2z-ex-HeTlgehgJlvfMDI"


@pytest.mark.parametrize(
    ("setup", "email", "auth"),
    [
        ({}, ANN, {"user": "upn"}),
        ({"email": BOX}, ANN, {"user": "upn"}),
        ({"email": BOX, "delegated": True}, BOX, {"user": "upn", "delegatedUser": BOX}),
        ({"delegated": True}, ANN, {"user": "upn"}),
        ({"email": ANN.upper(), "delegated": True}, ANN, {"user": "upn"}),
        ({"auth": {"delegatedUser": "id"}}, "id", {"user": "upn", "delegatedUser": "id"}),
        ({"auth": {"delegatedUser": "id"}, "fields": {"email": BOX}}, BOX, {"user": "upn", "delegatedUser": "id"}),
        ({"auth": {"user": "claimed@x.example"}}, ANN, {"user": "upn"}),
        ({"auth": {"delegatedUser": None, "delegatedAccount": ""}}, ANN, {"user": "upn"}),
    ],
)
def test_whose_mailbox_it_is_follows_from_who_signed_in(setup: Json, email: str, auth: Json) -> None:
    """The three cases of the contract; who signed in is never taken from what was asked for."""
    fields = account_fields(setup, APP, ANN, "upn", "Ann Smith")
    assert fields["email"] == email
    assert fields["oauth2"] == {"provider": "app", "auth": auth}


@pytest.mark.parametrize(
    ("given", "display", "name"), [("Given", "Ann", "Given"), (None, "Ann", "Ann"), (None, "", ANN), ("", "", ANN)]
)
def test_the_name_defaults_to_the_display_name(given: str | None, display: str, name: str) -> None:
    """A given name wins, then the directory's, then the address."""
    assert account_fields({"name": given}, APP, ANN, ANN, display)["name"] == name


# -- with everything around it replaced -----------------------------------------------------------------------


class Memory:
    """A table in memory, as strict about conflicts as the real one."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}

    async def get(self, partition: str, key: str) -> Row | None:
        return self.rows.get((partition, key))

    async def insert(self, row: Row) -> Row:
        if (row.partition, row.key) in self.rows:
            raise StorageConflict("exists")
        self.rows[row.partition, row.key] = replace(row, etag="1")
        return row

    async def delete(self, partition: str, key: str, etag: str | None = None) -> bool:
        return self.rows.pop((partition, key), None) is not None

    async def scan(self) -> Any:
        for row in list(self.rows.values()):
            yield row


class World:
    """Everything that Consent calls, with the answers a test chooses."""

    def __init__(self) -> None:
        self.pending, self.nonces = Memory(), Memory()
        self.now = NOW
        self.profile: Json = {"mail": ANN, "userPrincipalName": ANN, "displayName": "Ann"}
        self.created: list[Json] = []
        self.failure: Exception | None = None
        vault = Vault([("k1", b"k" * 32)])
        self.consent = Consent(
            self.pending, self.nonces, vault, self, self, self, self, self, lambda app: self, lambda: self.now,  # type: ignore[arg-type]
        )  # fmt: skip
        self.client = _Client()

    # settings, apps
    async def service_url(self) -> str:
        return "https://service.example"

    async def service_secret(self) -> str:
        return SECRET

    async def find(self, name: str) -> Any:
        return APP if name == "app" else None

    # credentials
    async def begin_sign_in(self, app: OauthApp, **options: Any) -> tuple[str, Json]:
        return f"https://login.example/?state={options['state']}", {"nonce": "n"}

    async def finish_sign_in(self, app: OauthApp, flow: Json, query: Json) -> SignIn:
        return SignIn({}, "token", Stored(token="token"))

    # graph
    async def call(self, *_: Any) -> Any:
        return _Json(self.profile)

    # onboarding
    async def create(self, fields: Json, stored: Stored) -> dict[str, str]:
        if self.failure:
            raise self.failure
        self.created.append(fields)
        return {"account": fields["account"], "state": "new"}

    async def begin(self, **blob: Any) -> str:
        """The state of a sign-in begun with a link."""
        address = await self.consent.begin_form({"n": new_nonce(), "account": "ann", **blob}, APP)
        return address.partition("state=")[2]


class _Client:
    def __getattr__(self, name: str) -> Any:
        return _Client()

    def __call__(self, *_: Any, **__: Any) -> Any:
        return _Client()


class _Json:
    def __init__(self, content: Json) -> None:
        self.content = content

    def json(self) -> Json:
        return self.content


async def test_a_profile_without_any_address_ends_the_sign_in() -> None:
    """Neither mail nor principal name: the contract's text, and nothing is created or claimed."""
    world = World()
    world.profile = {"displayName": "Ann", "mail": None}
    with pytest.raises(PageError) as refused:
        await world.consent.callback({"code": "c", "state": await world.begin()})
    assert (refused.value.status, refused.value.text) == (
        400, "Oauth failed: failed to retrieve account email address",
    )  # fmt: skip
    assert (world.created, world.nonces.rows, world.pending.rows) == ([], {}, {})


@pytest.mark.parametrize("failure", [ApiError(400, "Invalid or missing OAuth2 provider"), RuntimeError("storage")])
async def test_a_failed_creation_gives_the_claim_back(failure: Exception) -> None:
    """When the account cannot be created the link is as good as before, and works once it can."""
    world, nonce = World(), new_nonce()
    world.failure = failure
    with pytest.raises(type(failure)):
        await world.consent.callback({"code": "c", "state": await world.begin(n=nonce)})
    assert world.nonces.rows == {}
    world.failure = None
    created, _ = await world.consent.callback({"code": "c", "state": await world.begin(n=nonce)})
    assert created == {"account": "ann", "state": "new"}
    with pytest.raises(PageError) as refused:
        await world.consent.callback({"code": "c", "state": await world.begin(n=nonce)})
    assert (refused.value.status, refused.value.text) == (403, "Invalid or expired account setup URL")
    assert len(world.created) == 1


async def test_a_pending_set_up_shows_nothing_of_its_content() -> None:
    """What waits in storage is sealed: neither address nor the flow's secrets can be read."""
    world = World()
    await world.begin(email=ANN, redirectUrl="https://a.example/?token=x")
    (row,) = world.pending.rows.values()
    assert ANN not in json.dumps(row.value)
    assert "a.example" not in json.dumps(row.value)


@pytest.mark.parametrize(("hours", "works"), [(23.9, True), (24.1, False)])
async def test_a_set_up_waits_for_a_day(hours: float, works: bool) -> None:
    """The callback may come up to 24 hours after the start."""
    world = World()
    state = await world.begin()
    world.now += timedelta(hours=hours)
    if works:
        assert await world.consent.callback({"code": "c", "state": state})
        return
    with pytest.raises(PageError, match="session expired"):
        await world.consent.callback({"code": "c", "state": state})


async def test_the_sweep_removes_what_can_never_be_used_again() -> None:
    """Set-ups past their day go, and nonces only once their links are too old to open."""
    world = World()
    await world.begin()
    await world.consent.callback({"code": "c", "state": await world.begin()})
    assert await world.consent.sweep() == 0
    world.now += timedelta(hours=25)
    assert await world.consent.sweep() == 1
    assert (len(world.pending.rows), len(world.nonces.rows)) == (0, 1)
    world.now += timedelta(hours=24)
    assert await world.consent.sweep() == 1
    assert world.nonces.rows == {}


@pytest.mark.parametrize("made", [None, "x", float("inf"), float("nan"), -1, True, 10**15])
async def test_a_link_whose_time_is_no_time_is_not_good_forever(made: Any) -> None:
    """A time that cannot be compared never makes a link that does not end."""
    world = World()
    raw = json.dumps({"n": new_nonce(), "t": made}).encode()
    with pytest.raises(PageError, match="Invalid or expired account setup URL"):
        await world.consent.open_link(encode(raw), sign(raw, SECRET))
