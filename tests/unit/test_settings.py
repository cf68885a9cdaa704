"""Application settings: read once, checked all together, and never shown."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from shared.settings import TABLE, Settings, SettingsError

KEY = base64.b64encode(b"k" * 32).decode()
TOKEN = "0123456789abcdef" * 4
GOOD = {"AzureWebJobsStorage": "UseDevelopmentStorage=true", "KEY_RING": f"k1:{KEY}"}


def problems(**changes: str) -> list[str]:
    """What is wrong with the good settings after these changes."""
    with pytest.raises(SettingsError) as refused:
        Settings.from_env(GOOD | changes)
    return refused.value.problems


def test_the_least_that_is_needed() -> None:
    """Storage and a key ring are enough; everything else has its default."""
    settings = Settings.from_env(GOOD)
    assert settings.key_ring == (("k1", b"k" * 32),)
    assert settings.storage == {"connection_string": "UseDevelopmentStorage=true"}
    assert (settings.send_format, settings.poll_interval_s, settings.service_url) == ("mime", 15, "")
    assert settings.oauth_app_extra_scopes == ("User.ReadBasic.All", "Mail.ReadWrite.Shared", "Mail.Send.Shared")


def test_every_problem_is_named_at_once() -> None:
    """One start is enough to learn everything that is wrong, by the name of each setting."""
    wrong = {
        "AzureWebJobsStorage": "",
        "KEY_RING": "",
        "SERVICE_URL": "mail.contoso.example",
        "BOOTSTRAP_TOKEN": "short",
        "LOGIN_ENDPOINT": "ftp://x",
        "GRAPH_ENDPOINT": "x",
        "SEND_FORMAT": "pigeon",
        "POLL_INTERVAL_SECONDS": "0",
        "OAUTH_APP_PROVIDER": "gmail",
        "OAUTH_APP_CLOUD": "cumulus",
        "OAUTH_APP_CLIENT_SECRET": "a-secret",
    }
    found = problems(**wrong)
    for name in (*wrong, "OAUTH_APP_CLIENT_ID"):
        assert any(name in problem for problem in found), name
    assert len(found) == len(wrong)
    with pytest.raises(SettingsError) as refused:
        Settings.from_env(GOOD | wrong)
    assert all(problem in str(refused.value) for problem in found)


SECRETS = {
    "KEY_RING": "k1:c2VjcmV0LWtleS1tYXRlcmlhbA==",
    "BOOTSTRAP_TOKEN": "S3CR3T-bootstrap-token",
    "SERVICE_URL": "https://user:S3CR3T\u2100@host",
    "LOGIN_ENDPOINT": "S3CR3T-login",
    "OAUTH_APP_CLIENT_SECRET": "S3CR3T-client",
    "OAUTH_APP_CERTIFICATE": "-----BEGIN PRIVATE KEY-----S3CR3T",
    "AzureWebJobsStorage": "",
    "AzureWebJobsStorage__clientId": "S3CR3T-id",
    "SEND_FORMAT": "S3CR3T-format",
    "POLL_INTERVAL_SECONDS": "S3CR3T-seconds",
}


def test_no_value_is_in_the_text() -> None:
    """Problems name settings, never what they hold: the text goes to logs."""
    text = "\n".join(problems(**SECRETS))
    assert "S3CR3T" not in text
    assert "c2VjcmV0" not in text


@pytest.mark.parametrize(
    "ring",
    [
        "k1", "k1:", f":{KEY}", "k1:AAAA", f"k1:{KEY},k1:{KEY}", f"k 1:{KEY}", f"{'k' * 33}:{KEY}", f"k1:{KEY}é", ",",
        f"k1:{KEY};k2:{KEY}",
    ],
)  # fmt: skip
def test_a_malformed_key_ring_says_how_to_make_one(ring: str) -> None:
    """Keys are 32 bytes of base64 under names of their own; the problem says how to get one."""
    (problem,) = problems(KEY_RING=ring)
    assert problem.startswith("KEY_RING must be name:base64-of-32-bytes")
    assert "openssl rand -base64 32" in problem


def test_a_key_ring_may_have_several_keys() -> None:
    """The newest key stands first; blanks around keys do no harm."""
    other = base64.b64encode(b"o" * 32).decode()
    settings = Settings.from_env(GOOD | {"KEY_RING": f" k2:{other} , k1:{KEY},"})
    assert [name for name, _ in settings.key_ring] == ["k2", "k1"]


@pytest.mark.parametrize("token", ["0" * 63, "0" * 65, "A" * 64, "g" * 64])
def test_the_bootstrap_token_has_the_form_of_a_token(token: str) -> None:
    """64 lower-case hex digits, or the problem says how to make them."""
    (problem,) = problems(BOOTSTRAP_TOKEN=token)
    assert "openssl rand -hex 32" in problem


@pytest.mark.parametrize("value", ["0", "-1", "3601", "1.5", "ten", "²"])
def test_seconds_are_whole_and_within_reason(value: str) -> None:
    """Intervals are 1 to 3600 seconds."""
    assert problems(POLL_INTERVAL_SECONDS=value) == [
        "POLL_INTERVAL_SECONDS must be a whole number of seconds from 1 to 3600"
    ]
    assert Settings.from_env(GOOD | {"POLL_INTERVAL_SECONDS": "10"}).poll_interval_s == 10


def test_the_longest_wait_follows_the_shortest_and_is_never_below_it() -> None:
    """Twenty times the shortest unless it is set, an hour at most; one below the shortest is a problem."""
    assert Settings.from_env(GOOD).poll_longest_s == 300
    assert Settings.from_env(GOOD | {"POLL_INTERVAL_SECONDS": "1800"}).poll_longest_s == 3600
    assert Settings.from_env(GOOD | {"POLL_LONGEST_SECONDS": "60"}).poll_longest_s == 60
    assert problems(POLL_LONGEST_SECONDS="14") == ["POLL_LONGEST_SECONDS must not be less than POLL_INTERVAL_SECONDS"]


def test_addresses_lose_their_last_slash() -> None:
    """Base URLs are joined with paths that begin with a slash."""
    settings = Settings.from_env(
        GOOD | {"SERVICE_URL": "https://mail.contoso.example/", "GRAPH_ENDPOINT": "http://127.0.0.1:7080/v1.0/"}
    )
    assert settings.service_url == "https://mail.contoso.example"
    assert settings.graph_endpoint == "http://127.0.0.1:7080"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("graphpost.azurewebsites.net", "https://graphpost.azurewebsites.net"),
        ("localhost:7071", "http://localhost:7071"),
        ("127.0.0.1:7071", "http://127.0.0.1:7071"),
    ],
)
def test_azure_names_the_service_url(host: str, url: str) -> None:
    """Without SERVICE_URL the host name that Azure gives is used; SERVICE_URL wins over it."""
    assert Settings.from_env(GOOD | {"WEBSITE_HOSTNAME": host}).service_url == url
    own = Settings.from_env(GOOD | {"WEBSITE_HOSTNAME": host, "SERVICE_URL": "https://own.example"})
    assert own.service_url == "https://own.example"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"AzureWebJobsStorage__accountName": "acc"}, {"accountName": "acc"}),
        (
            {f"AzureWebJobsStorage__{kind}ServiceUri": "https://s" for kind in ("blob", "queue", "table")},
            {f"{kind}ServiceUri": "https://s" for kind in ("blob", "queue", "table")},
        ),
    ],
)
def test_storage_may_be_reached_with_an_identity(given: dict[str, str], kept: dict[str, str]) -> None:
    """The identity form of the host's storage connection is understood."""
    assert Settings.from_env({"KEY_RING": GOOD["KEY_RING"], **given}).storage == kept


CREDENTIALS: dict[str, Any] = {
    "OAUTH_APP_CLIENT_SECRET": "secret",
    "OAUTH_APP_CERTIFICATE": "pem",
    "OAUTH_APP_MANAGED_IDENTITY": "identity",
}


@pytest.mark.parametrize("name", CREDENTIALS)
def test_an_app_of_the_settings_has_one_credential(name: str) -> None:
    """Exactly one of secret, certificate and identity completes a client id; none or two are a problem."""
    Settings.from_env(GOOD | {"OAUTH_APP_CLIENT_ID": "id", name: CREDENTIALS[name]})
    assert problems(OAUTH_APP_CLIENT_ID="id") == problems(OAUTH_APP_CLIENT_ID="id", **CREDENTIALS)
    assert problems(**{name: CREDENTIALS[name]}) == [f"{name} is set but OAUTH_APP_CLIENT_ID is not"]


@pytest.mark.parametrize("authority", ["", "common", "organizations", "consumers"])
def test_application_access_needs_the_tenant(authority: str) -> None:
    """An app with application access cannot use an authority that many tenants share."""
    app = {"OAUTH_APP_CLIENT_ID": "id", "OAUTH_APP_CLIENT_SECRET": "s", "OAUTH_APP_PROVIDER": "outlookService"}
    (problem,) = problems(**app, OAUTH_APP_AUTHORITY=authority)
    assert problem.startswith("OAUTH_APP_AUTHORITY must be the tenant id")


def test_every_setting_has_a_purpose_and_a_field() -> None:
    """Each row of the table says what it is for and is a field of the settings."""
    fields = Settings.__dataclass_fields__
    for row in TABLE:
        assert row.purpose.endswith("."), row.name
        assert row.field in fields, row.name
        assert row.field == row.name.lower() or row.field in ("poll_interval_s", "poll_longest_s")


@pytest.mark.parametrize(
    ("value", "development", "allowed"),
    [
        (None, False, ()), (None, True, ("127.0.0.0/8", "::1/128")), ("none", True, ()),
        ("all", False, ("0.0.0.0/0", "::/0")), ("10.1.2.3/16, fd00:1::/32", True, ("10.1.0.0/16", "fd00:1::/32")),
    ],
)  # fmt: skip
def test_private_webhook_targets_are_networks(value: str | None, development: bool, allowed: tuple[str, ...]) -> None:
    """None by default; loopback where a development setting says that all runs on one machine."""
    given = {"WEBHOOK_PRIVATE_TARGETS": value} if value else {}
    given |= {"GRAPH_ENDPOINT": "http://127.0.0.1:7080"} if development else {}
    assert Settings.from_env(GOOD | given).webhook_private_targets == allowed


@pytest.mark.parametrize("value", ["10.0.0.0/33", "loopback", "10.0.0.0/8;127.0.0.1", "all none"])
def test_wrong_private_webhook_targets_are_named(value: str) -> None:
    """With an example of what is right."""
    (problem,) = problems(WEBHOOK_PRIVATE_TARGETS=value)
    assert problem.startswith("WEBHOOK_PRIVATE_TARGETS must be all, none, or networks such as 10.1.0.0/16")


def test_a_reference_that_azure_could_not_follow_is_no_value() -> None:
    """Each setting may be a Key Vault reference; its bare text is a problem that says what to look at."""
    reference = "@Microsoft.KeyVault(SecretUri=https://kv-x.vault.azure.net/secrets/key-ring)"
    found = problems(KEY_RING=reference, OAUTH_APP_CLIENT_ID="id", OAUTH_APP_CLIENT_SECRET=reference)
    assert [problem.partition(" ")[0] for problem in found[:2]] == ["KEY_RING", "OAUTH_APP_CLIENT_SECRET"]
    assert all("Key Vault reference that Azure could not follow" in problem for problem in found[:2])


def test_storage_by_identity_names_every_service() -> None:
    """Without an account name, the address of each of the three services is needed."""
    given = {"AzureWebJobsStorage": "", "AzureWebJobsStorage__tableServiceUri": "https://t"}
    found = problems(**given)
    assert [problem.partition(" ")[0] for problem in found] == [
        "AzureWebJobsStorage__blobServiceUri", "AzureWebJobsStorage__queueServiceUri",
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["0" * 63, "A" * 64, "g" * 64])
def test_the_id_of_the_bootstrap_token_has_the_form_of_an_id(value: str) -> None:
    """64 lower-case hex digits, or the problem says what makes them."""
    (problem,) = problems(BOOTSTRAP_TOKEN_ID=value)
    assert "scripts/first_token.py" in problem
