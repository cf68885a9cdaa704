"""Access tokens over the API."""

import hashlib
import re
from typing import Any

import pytest

from local.services import BOOTSTRAP_TOKEN
from tests.support.rest import NO_ACCOUNT, Rest, keys_of, segment, unique

NO_TOKEN = {"statusCode": 404, "error": "Not Found", "message": "Requested access token was not found"}


async def test_a_token_is_64_hex_digits_and_its_id_is_their_hash(rest: Rest) -> None:
    """The id is the SHA-256 of the token's 32 bytes."""
    made = await rest.ok("POST", "/v1/tokens", {"description": "x"})
    assert set(made) == {"token", "id"}
    assert re.fullmatch("[0-9a-f]{64}", made["token"])
    assert made["id"] == hashlib.sha256(bytes.fromhex(made["token"])).hexdigest()
    assert (await rest.call("GET", "/v1/accounts", token=made["token"])).status == 200
    assert (await rest.call("GET", "/v1/accounts", token=made["id"])).status == 401


async def test_a_tokens_value_is_never_shown_again_nor_stored(rest: Rest) -> None:
    """Lists and single entries hold everything but the value, and storage holds only its hash."""
    account = unique("bound")
    await rest.create(account)
    fields: dict[str, Any] = {
        "account": account, "description": "For the web shop", "scopes": ["api", "smtp"],
        "metadata": '{"owner": "shop"}', "ip": "203.0.113.9", "expires": "2999-01-01T00:00:00.000Z",
        "restrictions": {"referrers": ["shop.example/*"], "addresses": ["203.0.113.0/24", "::1"]},
        "permissions": {"actions": ["read", "send"], "groups": ["account", "submit"]},
    }  # fmt: skip
    made = await rest.ok("POST", "/v1/tokens", fields)
    by_value = await rest.ok("GET", f"/v1/tokens/{made['token']}")
    by_id = await rest.ok("GET", f"/v1/tokens/{made['id']}")
    listed = await rest.ok("GET", "/v1/tokens")
    assert by_value == by_id == listed["tokens"][0]
    assert {name: by_id[name] for name in fields if name != "restrictions"} == {
        name: value for name, value in fields.items() if name != "restrictions"
    }
    assert fields["restrictions"].items() <= by_id["restrictions"].items()
    assert (by_id["id"], by_id["access"]) == (made["id"], {"time": None, "ip": None})
    assert made["token"] not in str(by_value) + str(listed)
    stored = rest.rows("tokens")
    assert [row["PartitionKey"] for _, row in stored] == [made["id"]]
    at_rest = rest.bytes_at_rest().lower()
    assert made["id"].encode() in at_rest
    assert made["token"].encode() not in at_rest
    assert bytes.fromhex(made["token"]) not in rest.bytes_at_rest()
    assert BOOTSTRAP_TOKEN.encode() not in at_rest


async def test_a_token_without_anything_special_shows_nulls(rest: Rest) -> None:
    """The contract's defaults: scope api, no account, no restrictions, no permissions, no end."""
    made = await rest.ok("POST", "/v1/tokens", {"description": "  plain "})
    shown = await rest.ok("GET", f"/v1/tokens/{made['id']}")
    assert shown["created"].endswith("Z")
    assert {name: value for name, value in shown.items() if name not in ("created", "id")} == {
        "account": None, "description": "plain", "metadata": None, "ip": None, "remoteAddress": None, "scopes": ["api"],
        "restrictions": None, "permissions": None, "expires": None, "access": {"time": None, "ip": None},
    }  # fmt: skip


async def test_deleting_ends_a_token_by_value_or_by_id_once(rest: Rest) -> None:
    """The second delete says that there was nothing to delete, and nothing else is deleted."""
    kept = await rest.ok("POST", "/v1/tokens", {"description": "kept"})
    for name in ("token", "id"):
        made = await rest.ok("POST", "/v1/tokens", {"description": "x"})
        assert await rest.ok("DELETE", f"/v1/tokens/{made[name]}") == {"deleted": True}
        assert await rest.ok("DELETE", f"/v1/tokens/{made[name]}") == {"deleted": False}
        assert (await rest.call("GET", f"/v1/tokens/{made['id']}")).body == NO_TOKEN
    assert [entry["id"] for entry in (await rest.ok("GET", "/v1/tokens"))["tokens"]] == [kept["id"]]


@pytest.mark.parametrize("token", ["x", "0" * 64, "a%2Fb", "%F0%9F%98%80", "x" * 256])
async def test_an_unknown_token_is_not_found(rest: Rest, token: str) -> None:
    """A read is a 404; a delete says that nothing was deleted."""
    answer = await rest.call("GET", f"/v1/tokens/{token}")
    assert (answer.status, answer.body) == (404, NO_TOKEN)
    assert await rest.ok("DELETE", f"/v1/tokens/{token}") == {"deleted": False}


async def test_the_bootstrap_token_cannot_be_deleted(rest: Rest) -> None:
    """It belongs to the service's configuration; the refusal says where to change it, and it goes on working."""
    identity = hashlib.sha256(bytes.fromhex(BOOTSTRAP_TOKEN)).hexdigest()
    for name in (BOOTSTRAP_TOKEN, identity):
        answer = await rest.call("DELETE", f"/v1/tokens/{name}")
        assert answer.status == 403
        assert "BOOTSTRAP_TOKEN" in answer.body["message"]
    assert (await rest.call("GET", "/v1/accounts")).status == 200


async def test_the_list_is_filtered_and_paged(rest: Rest) -> None:
    """By account and by a part of the description, newest first."""
    first, second = unique("first"), unique("second / 2")
    for account in (first, second):
        await rest.create(account)
        for number in range(3):
            await rest.ok("POST", "/v1/tokens", {"account": account, "description": f"Number {number}"})
    whole = await rest.ok("GET", "/v1/tokens")
    assert (whole["account"], whole["total"], whole["page"], whole["pages"]) == (None, 6, 0, 1)
    created = [entry["created"] for entry in whole["tokens"]]
    assert created == sorted(created, reverse=True)
    mine = await rest.ok("GET", f"/v1/tokens?account={segment(second)}&pageSize=2&page=1")
    assert (mine["account"], mine["total"], mine["pages"], len(mine["tokens"])) == (second, 3, 2, 1)
    found = await rest.ok("GET", f"/v1/tokens?account={first}&query=nUMBER%201")
    assert [(entry["account"], entry["description"]) for entry in found["tokens"]] == [(first, "Number 1")]
    assert (await rest.ok("GET", "/v1/tokens?account=nobody"))["tokens"] == []


async def test_the_old_names_still_work(rest: Rest) -> None:
    """POST /v1/token, GET /v1/tokens/account/{account} and DELETE /v1/token/{token} are what older clients call."""
    account = unique("old / name")
    await rest.create(account)
    made = await rest.ok("POST", "/v1/token", {"account": account, "description": "old", "scopes": "api"})
    listed = await rest.ok("GET", f"/v1/tokens/account/{segment(account)}")
    assert set(listed) == {"tokens"}
    assert [entry["description"] for entry in listed["tokens"]] == ["old"]
    assert (await rest.call("GET", f"/v1/account/{segment(account)}", token=made["token"])).status == 200
    assert await rest.ok("DELETE", f"/v1/token/{made['token']}") == {"deleted": True}
    assert (await rest.call("GET", f"/v1/account/{segment(account)}", token=made["token"])).status == 401
    assert keys_of(await rest.call("POST", "/v1/token", {"description": "no account"})) == {"account"}


async def test_a_token_for_an_unknown_account_is_refused(rest: Rest) -> None:
    """No token may wait for an account that somebody else creates later."""
    for path in ("/v1/tokens", "/v1/token"):
        answer = await rest.call("POST", path, {"account": unique("none"), "description": "x"})
        assert (answer.status, answer.body) == (404, NO_ACCOUNT)
    assert rest.rows("tokens") == []


async def test_a_restricted_caller_cannot_make_an_unrestricted_token(rest: Rest) -> None:
    """A token tied to addresses mints only tokens that are themselves confined."""
    account = unique("confined")
    await rest.create(account)
    tied = await rest.ok("POST", "/v1/tokens", {"description": "t", "restrictions": {"addresses": ["203.0.113.1"]}})
    headers = {"X-Forwarded-For": "203.0.113.1"}
    more: dict[str, Any] = {"token": tied["token"], "headers": headers}
    assert (await rest.call("POST", "/v1/tokens", {"description": "free"}, **more)).status == 403
    assert (await rest.call("POST", "/v1/tokens", {"description": "a", "account": account}, **more)).status == 200
    permissions = {"actions": ["read"], "groups": ["account"]}
    assert (
        await rest.call("POST", "/v1/tokens", {"description": "p", "permissions": permissions}, **more)
    ).status == 200


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("description", None, None), ("description", "x" * 1025, None), ("description", 5, None),
        ("scopes", ["*"], None), ("scopes", ["admin"], None), ("metadata", "{", None), ("metadata", {"a": 1}, None),
        ("expires", "soon", None), ("account", "x" * 257, None), ("unknown", 1, None),
        ("restrictions", {"addresses": ["300.1.1.1"]}, "addresses"), ("restrictions", {"other": 1}, "other"),
        ("permissions", {"actions": [], "groups": ["account"]}, "actions"),
        ("permissions", {"actions": ["read"]}, "groups"),
        ("permissions", {"actions": ["read"], "groups": ["admin"]}, "groups"),
        ("permissions", {"actions": ["fly"], "groups": ["account"]}, "actions"),
    ],
)  # fmt: skip
async def test_wrong_fields_are_named_and_no_token_is_made(
    rest: Rest, field: str, value: Any, named: str | None
) -> None:
    """Nobody can mint the scope `*` or the group `admin` over the API."""
    answer = await rest.call("POST", "/v1/tokens", {"description": "d", field: value})
    assert keys_of(answer) == {named or field}
    assert rest.rows("tokens") == []
