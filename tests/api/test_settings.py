"""The service's settings over the API."""

import base64
import hashlib
import hmac
from typing import Any

import pytest

from tests.support.rest import SETTING_KEYS, Hooks, Rest, keys_of, unique, until

VALUES: dict[str, Any] = {
    "serviceUrl": "https://mail.contoso.example", "notificationBaseUrl": "https://push.contoso.example",
    "webhooksEnabled": True, "webhooks": "https://hooks.example/in?x=1", "webhookEvents": ["messageNew", "*"],
    "notifyHeaders": ["List-ID", "*"], "notifyText": True, "notifyTextSize": 65536, "inboxNewOnly": False,
    "deliveryAttempts": 3, "templateHeader": "<h1>Ünï</h1>", "templateHtmlHead": "<style></style>",
    "pageBrandName": "Contoso Mail",
}  # fmt: skip


def asked(*keys: str) -> str:
    """The path that reads these keys."""
    return "/v1/settings?" + "&".join(f"{key}=true" for key in keys)


async def test_every_setting_reads_back_as_it_was_written(rest: Rest) -> None:
    """The answer of a write names the keys; a read gives just the keys asked for."""
    answer = await rest.ok("POST", "/v1/settings", VALUES)
    assert list(answer) == ["updated"]
    assert sorted(answer["updated"]) == sorted(VALUES)
    assert await rest.ok("GET", asked(*VALUES)) == VALUES
    assert await rest.ok("GET", asked("pageBrandName")) == {"pageBrandName": "Contoso Mail"}
    assert await rest.ok("GET", "/v1/settings?notifyText=true&webhooks=false") == {"notifyText": True}


async def test_settings_that_nobody_set_are_null(rest: Rest) -> None:
    """Unset keys read as null, secrets as false, the URL as configured; without keys there is an empty object."""
    assert await rest.ok("GET", "/v1/settings") == {}
    secrets = {"serviceSecret": False, "serviceSecretOld": False, "openAiAPIKey": False}
    expected = dict.fromkeys(SETTING_KEYS) | secrets | {"serviceUrl": rest.app.url}
    assert await rest.ok("GET", asked(*SETTING_KEYS)) == expected


async def test_null_and_empty_texts_remove_a_setting(rest: Rest) -> None:
    """What was removed is as if it had never been set; keys not named stay."""
    await rest.ok("POST", "/v1/settings", VALUES)
    await rest.ok("POST", "/v1/settings", {"webhooks": "", "pageBrandName": None, "webhookEvents": None})
    shown = await rest.ok("GET", asked("webhooks", "pageBrandName", "webhookEvents", "notifyText"))
    assert shown == {"webhooks": None, "pageBrandName": None, "webhookEvents": None, "notifyText": True}


async def test_event_types_are_listed(rest: Rest) -> None:
    """`eventTypes=true` names every event a client may subscribe to."""
    shown = await rest.ok("GET", asked("eventTypes"))
    assert {"messageNew", "messageSent", "accountAdded", "authenticationError"} <= set(shown["eventTypes"])
    await rest.ok("POST", "/v1/settings", {"webhookEvents": shown["eventTypes"]})
    assert (await rest.ok("GET", asked("webhookEvents")))["webhookEvents"] == shown["eventTypes"]


async def test_secrets_read_as_true_or_as_a_mask(rest: Rest) -> None:
    """The service secret is a boolean, header values and the password of a URL are stars, and storage has none."""
    written = {
        "serviceSecret": "signing-word", "webhooks": "https://user:pass-word@hooks.example/in",
        "webhooksCustomHeaders": [{"key": "X-Api-Key", "value": "header-word"}, {"key": "X-Empty"}],
    }  # fmt: skip
    await rest.ok("POST", "/v1/settings", written)
    shown = await rest.ok("GET", asked(*written))
    assert shown == {
        "serviceSecret": True, "webhooks": "https://user:******@hooks.example/in",
        "webhooksCustomHeaders": [{"key": "X-Api-Key", "value": "******"}, {"key": "X-Empty", "value": "******"}],
    }  # fmt: skip
    at_rest = rest.bytes_at_rest()
    assert not [word for word in (b"signing-word", b"pass-word", b"header-word") if word in at_rest]


async def test_masks_written_back_keep_the_secrets(rest: Rest, hooks: Hooks) -> None:
    """After reading and writing back whole, webhooks are signed and authorised as before."""
    url = hooks.receiver.url.replace("http://", "http://user:pass-word@")
    headers = [{"key": "X-Api-Key", "value": "header-word"}]
    secret = {"serviceSecret": "signing-word", "webhooks": url, "webhooksCustomHeaders": headers}
    await rest.ok("POST", "/v1/settings", secret)
    shown = await rest.ok("GET", asked("webhooks", "webhooksCustomHeaders"))
    back = shown | {"serviceSecret": "******"}
    assert set((await rest.ok("POST", "/v1/settings", back))["updated"]) == set(back)
    account = unique("mask")
    await rest.create(account)
    heard = await hooks.receiver.wait_for(lambda one: one.json["account"] == account)
    assert heard.headers["Authorization"] == "Basic dXNlcjpwYXNzLXdvcmQ="
    assert heard.headers["X-Api-Key"] == "header-word"
    mac = hmac.new(b"signing-word", heard.body, hashlib.sha256).digest()
    assert heard.headers["X-EE-Wh-Signature"] == base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


async def test_a_mask_that_stands_for_nothing_is_refused(rest: Rest) -> None:
    """A masked URL of another host, or a masked header nobody stored, would become a password of six stars."""
    await rest.ok("POST", "/v1/settings", {"webhooks": "https://user:one@a.example/"})
    for wrong in (
        {"webhooks": "https://user:******@b.example/"}, {"webhooks": "https://******@a.example/"},
        {"webhooksCustomHeaders": [{"key": "X", "value": "******"}]},
    ):  # fmt: skip
        assert keys_of(await rest.call("POST", "/v1/settings", wrong)) <= {"webhooks", "value"}
    assert (await rest.ok("GET", asked("webhooks")))["webhooks"] == "https://user:******@a.example/"


@pytest.mark.parametrize("key", ["nonsense", "Webhooks", "webhooks ", "constructor", "eventTypes", ""])
async def test_unknown_keys_are_refused(rest: Rest, key: str) -> None:
    """Reading or writing a key that does not exist is a 400 that names it, and nothing else is written."""
    assert keys_of(await rest.call("POST", "/v1/settings", {key: "x", "notifyText": True})) == {key}
    if key != "eventTypes":
        query = key.replace(" ", "%20")
        assert keys_of(await rest.call("GET", f"/v1/settings?{query}=true&notifyText=true")) == {key}
    assert await rest.ok("GET", asked("notifyText")) == {"notifyText": None}


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("serviceUrl", "mail.example", None), ("serviceUrl", "ftp://x.example", None), ("serviceUrl", 5, None),
        ("webhooks", "file:///etc/passwd", None), ("webhooks", "https://", None), ("webhooks", "http://x y/", None),
        ("webhooks", "http://x.example/\r\nX: y", None), ("webhooksEnabled", "perhaps", None),
        ("webhookEvents", ["messageNew", "messageOld"], None), ("webhookEvents", [5], None),
        ("webhookEvents", {"a": 1}, None), ("webhooksCustomHeaders", "x", None),
        ("webhooksCustomHeaders", [{"value": "x"}], "key"), ("webhooksCustomHeaders", [{"key": "a b"}], "key"),
        ("webhooksCustomHeaders", [{"key": "a", "value": "x\r\ny"}], "value"),
        ("webhooksCustomHeaders", [{"key": "a", "value": "ü"}], "value"), ("notifyTextSize", -1, None),
        ("notifyTextSize", "many", None), ("deliveryAttempts", -1, None), ("deliveryAttempts", True, None),
        ("deliveryAttempts", 1.5, None), ("pageBrandName", "x" * 257, None), ("templateHeader", [], None),
    ],
)  # fmt: skip
async def test_wrong_values_are_named_and_nothing_is_written(
    rest: Rest, key: str, value: Any, named: str | None
) -> None:
    """A wrong value refuses the whole write."""
    answer = await rest.call("POST", "/v1/settings", {key: value, "notifyHeaders": ["a"]})
    assert keys_of(answer) == {named or key}
    assert await rest.ok("GET", asked("notifyHeaders")) == {"notifyHeaders": None}


async def test_a_setting_is_in_force_with_the_next_call(rest: Rest, hooks: Hooks) -> None:
    """Links follow serviceUrl at once, and turning webhooks off is turning them off."""
    await rest.ok("POST", "/v1/settings", {"serviceUrl": "https://mail.contoso.example/"})
    link = await rest.ok("POST", "/v1/authentication/form", {"redirectUrl": "https://x.example/"})
    assert link["url"].startswith("https://mail.contoso.example/accounts/new?data=")
    await rest.ok("POST", "/v1/settings", {"webhooksEnabled": False})
    silent, told = unique("silent"), unique("told")
    await rest.create(silent)

    async def counted() -> bool:
        return (await rest.get(silent))["counters"]["events"] == {"accountAdded": 1}

    await until("the event of the silent account to be settled", counted)
    await rest.ok("POST", "/v1/settings", {"webhooksEnabled": True})
    await rest.create(told)
    await hooks.wait(told, "accountAdded")
    assert hooks.of(silent) == []
