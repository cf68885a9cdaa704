"""Settings of the contract beyond those that make events and mails: kept, masked, refused."""

from typing import Any

import pytest

from tests.support.rest import Rest, keys_of

VALUES: dict[str, Any] = {
    "logs": {"all": False, "maxLogLines": 500}, "tokenAuditLog": False, "notifyWebSafeHtml": True,
    "notifyAttachments": True, "notifyAttachmentSize": 1024, "notifyCalendarEvents": True, "trackOpens": True,
    "trackClicks": False, "trackSentMessages": True, "locale": "et", "timezone": "Europe/Tallinn", "queueKeep": 5,
    "exportMaxConcurrent": 1, "exportMaxGlobalConcurrent": 2, "exportMaxMessages": 3, "exportMaxSize": 4,
    "outlookExportBatchSize": 20, "scriptEnv": '{"key": 1}', "enableApiProxy": True, "localAddresses": ["192.0.2.1"],
    "proxyEnabled": False, "proxyUrl": "socks5://proxy.example:1080", "smtpServerPort": 2525, "openAiTemperature": 0.5,
    "documentStoreEnabled": False, "gmailExtraScopes": ["a"], "imapIndexer": "full", "smtpStrategy": "default",
}  # fmt: skip


@pytest.fixture
async def settings(rest: Rest) -> Any:
    """The customer; what this file sets is removed afterwards."""
    yield rest
    await rest.ok("POST", "/v1/settings", dict.fromkeys([*VALUES, "smtpServerPassword", "openAiAPIKey", "sentryDsn"]))


def asked(*keys: str) -> str:
    """The path that reads these keys."""
    return "/v1/settings?" + "&".join(f"{key}=true" for key in keys)


async def test_every_key_of_the_contract_is_kept_and_read_back(settings: Rest) -> None:
    """As it was written; null removes it."""
    answer = await settings.ok("POST", "/v1/settings", VALUES)
    assert sorted(answer["updated"]) == sorted(VALUES)
    assert await settings.ok("GET", asked(*VALUES)) == VALUES
    await settings.ok("POST", "/v1/settings", dict.fromkeys(VALUES))
    assert await settings.ok("GET", asked(*VALUES)) == dict.fromkeys(VALUES)


async def test_secrets_of_other_services_are_secrets_here_too(settings: Rest) -> None:
    """Passwords read as true, URLs without their password; written back masked they stay, and storage has none."""
    url = "http://user:pass-word@proxy.example:8080"
    given = {"smtpServerPassword": "smtp-word", "openAiAPIKey": "ai-word", "proxyUrl": url}
    given |= {"sentryDsn": "https://dsn-word@x.example/1"}
    await settings.ok("POST", "/v1/settings", given)
    shown = await settings.ok("GET", asked(*given))
    assert shown == {
        "smtpServerPassword": True, "openAiAPIKey": True, "proxyUrl": "http://user:******@proxy.example:8080",
        "sentryDsn": "https://******@x.example/1",
    }  # fmt: skip
    back = shown | {"smtpServerPassword": "******", "openAiAPIKey": "******"}
    assert sorted((await settings.ok("POST", "/v1/settings", back))["updated"]) == sorted(back)
    assert await settings.ok("GET", asked(*given)) == shown
    at_rest = settings.bytes_at_rest()
    assert not [word for word in (b"pass-word", b"smtp-word", b"ai-word", b"dsn-word") if word in at_rest]
    wrong = {"proxyUrl": "http://user:******@other.example", "httpProxyUrl": "http://u:******@x.example"}
    for key, value in wrong.items():
        assert keys_of(await settings.call("POST", "/v1/settings", {key: value})) == {key}


async def test_wrong_values_are_named_together_and_nothing_is_written(settings: Rest) -> None:
    """All of them in one answer."""
    wrong: dict[str, Any] = {
        "logs": {"all": "x"}, "tokenAuditLog": 7, "notifyAttachmentSize": -1, "locale": "xx", "timezone": "Mars/Moon",
        "outlookExportBatchSize": 21, "scriptEnv": "[1]", "proxyUrl": "user:pass@host", "smtpServerPort": 70000,
        "openAiTemperature": "hot", "localAddresses": [5], "exportMaxSize": 10**30, "gmailRedirectUrl": "x",
    }  # fmt: skip
    answer = await settings.call("POST", "/v1/settings", wrong | {"queueKeep": 1})
    assert keys_of(answer) == set(wrong) - {"logs"} | {"all"}
    for value in ("../../etc/passwd", "Europe", "/etc/localtime", "a\x00b"):
        assert keys_of(await settings.call("POST", "/v1/settings", {"timezone": value})) == {"timezone"}
    assert await settings.ok("GET", asked("queueKeep")) == {"queueKeep": None}


async def test_the_definitions_of_webhook_routes_are_no_setting(settings: Rest) -> None:
    """They lie with the settings and are not to be read or overwritten there."""
    for key in ("webhook routes", "paused webhooks"):
        assert keys_of(await settings.call("POST", "/v1/settings", {key: []})) == {key}
