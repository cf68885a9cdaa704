"""The rules every operation shares: tokens, the error envelope, and what happens to input that makes no sense."""

import asyncio
import io
import json
import secrets
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.services import BOOTSTRAP_TOKEN, Azurite
from tests.support.application import Application
from tests.support.rest import (
    NO_ACCOUNT,
    NOT_FOUND,
    SETTING_KEYS,
    Rest,
    is_envelope,
    keys_of,
    segment,
    unique,
)
from tests.support.tenant import Tenant

BAD_TOKEN = {"statusCode": 401, "error": "Unauthorized", "message": "Bad token"}
MISSING = {"statusCode": 401, "error": "Unauthorized", "message": "Missing authentication"}
BROKEN = {"statusCode": 400, "error": "Bad Request", "message": "Invalid request payload JSON format"}
JSON = {"Content-Type": "application/json"}


def forbidden(message: str, **more: Any) -> dict[str, Any]:
    """The body of a 403."""
    return {"statusCode": 403, "error": "Forbidden", "message": message} | more


async def minted(rest: Rest, **fields: Any) -> str:
    """The value of a new token."""
    return (await rest.ok("POST", "/v1/tokens", {"description": "test"} | fields))["token"]


# -- authentication -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz"])
async def test_a_call_without_a_token_is_refused_as_missing_authentication(rest: Rest, header: str | None) -> None:
    """Nothing presented is a 401 with exactly three fields and a plain challenge."""
    headers = {} if header is None else {"Authorization": header}
    answer = await rest.call("GET", "/v1/accounts", headers=headers, token=None)
    assert (answer.status, answer.body) == (401, MISSING)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("token", ["x", "f" * 64, "F" * 64, "é" * 64, BOOTSTRAP_TOKEN.upper(), BOOTSTRAP_TOKEN + "0"])
async def test_an_unknown_token_is_a_bad_token(rest: Rest, token: str) -> None:
    """Anything that is not a token of this service is a 401 that says so."""
    answer = await rest.call("GET", f"/v1/accounts?access_token={segment(token)}", token=None)
    assert (answer.status, answer.body) == (401, BAD_TOKEN)
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="Bad token"'


async def test_an_expired_token_is_a_bad_token(rest: Rest) -> None:
    """A token works up to its end and not after it."""
    ended = await minted(rest, expires="2020-01-01T00:00:00.000Z")
    alive = await minted(rest, expires="2999-01-01T00:00:00.000Z")
    answer = await rest.call("GET", "/v1/accounts", token=ended)
    assert (answer.status, answer.body) == (401, BAD_TOKEN)
    assert (await rest.call("GET", "/v1/accounts", token=alive)).status == 200


async def test_a_deleted_token_is_a_bad_token_at_once(rest: Rest) -> None:
    """Deleting a token ends it with the next call."""
    token = await minted(rest)
    assert (await rest.call("GET", "/v1/accounts", token=token)).status == 200
    assert await rest.ok("DELETE", f"/v1/tokens/{token}") == {"deleted": True}
    answer = await rest.call("GET", "/v1/accounts", token=token)
    assert (answer.status, answer.body) == (401, BAD_TOKEN)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR"])
async def test_the_scheme_name_is_read_in_any_case(rest: Rest, scheme: str) -> None:
    """`Authorization: bearer …` is as good as `Bearer …`."""
    await rest.ok("GET", "/v1/accounts", headers={"Authorization": f"{scheme} {BOOTSTRAP_TOKEN}"})


async def test_the_token_may_come_in_the_query_of_any_operation(rest: Rest) -> None:
    """`access_token` is taken out of the query before anything else reads it."""
    query = f"access_token={BOOTSTRAP_TOKEN}"
    listed = await rest.ok("GET", f"/v1/accounts?page=3&{query}", token=None)
    assert listed["page"] == 3
    assert await rest.ok("GET", f"/v1/settings?{query}", token=None) == {}
    answer = await rest.call("GET", f"/v1/account/{unique('none')}?{query}", token=None)
    assert (answer.status, answer.body) == (404, NO_ACCOUNT)
    stored = await rest.ok("POST", f"/v1/settings?{query}", {"notifyText": True}, token=None)
    assert stored == {"updated": ["notifyText"]}


async def test_a_token_without_the_api_scope_opens_nothing(rest: Rest) -> None:
    """Scopes other than `api` are for other protocols."""
    token = await minted(rest, scopes=["smtp", "imap-proxy"])
    answer = await rest.call("GET", "/v1/accounts", token=token)
    assert (answer.status, answer.body) == (403, forbidden("Unauthorized scope", requestedScope="api"))


async def test_permissions_only_subtract_and_never_reach_admin_operations(rest: Rest) -> None:
    """A token with permissions does what group and action allow, and no admin operation."""
    token = await minted(rest, permissions={"actions": ["read", "write"], "groups": ["account"]})
    account = unique("perm")
    await rest.create(account)
    assert (await rest.call("GET", "/v1/accounts", token=token)).status == 200
    refused = await rest.call("DELETE", f"/v1/account/{account}", token=token)
    assert (refused.status, refused.body) == (
        403, forbidden("Unauthorized permission", requiredPermission="account:destructive"),
    )  # fmt: skip
    for method, path in (
        ("GET", "/v1/settings"),
        ("GET", "/v1/tokens"),
        ("POST", "/v1/account"),
        ("GET", "/v1/oauth2"),
    ):
        answer = await rest.call(method, path, token=token)
        assert (answer.status, answer.body["message"]) == (403, "Unauthorized permission"), path
    mail = await rest.call("POST", f"/v1/account/{account}/submit", {"to": {"address": "a@b.example"}}, token=token)
    assert mail.body == forbidden("Unauthorized permission", requiredPermission="submit:send")
    assert (await rest.get(account))["account"] == account


async def test_a_token_bound_to_an_account_opens_that_account_alone(rest: Rest) -> None:
    """Another account, and every operation that names none, is refused."""
    mine, other = unique("mine / 1"), unique("other")
    await rest.create(mine)
    await rest.create(other)
    token = await minted(rest, account=mine)
    assert (await rest.call("GET", f"/v1/account/{segment(mine)}", token=token)).body["account"] == mine
    listed = await rest.call("GET", f"/v1/tokens?account={segment(mine)}", token=token)
    assert [entry["account"] for entry in listed.body["tokens"]] == [mine]
    refused = [
        ("GET", f"/v1/account/{other}", None), ("DELETE", f"/v1/account/{other}", None), ("GET", "/v1/accounts", None),
        ("GET", "/v1/tokens", None), ("GET", f"/v1/tokens?account={other}", None), ("GET", "/v1/settings", None),
        ("GET", f"/v1/tokens?account={segment(mine)}&account={other}", None),
        ("POST", "/v1/account", {"account": mine, "name": "x"}), ("GET", "/v1/outbox", None),
        ("POST", "/v1/tokens", {"account": mine, "description": "x"}),
    ]  # fmt: skip
    for method, path, body in refused:
        answer = await rest.call(method, path, body, token=token)
        assert (answer.status, answer.body) == (403, forbidden("Unauthorized account")), path


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        ("203.0.113.7", 200),
        ("198.51.100.1, 203.0.113.7", 200),
        ("203.0.113.7:51234", 200),
        ("2001:db8::5", 200),
        ("[2001:db8::5]:443", 200),
        ("203.0.113.7, 198.51.100.1", 403),
        ("2001:db9::5", 403),
        ("nonsense", 403),
    ],
)
async def test_a_token_restricted_to_addresses_works_from_those_alone(rest: Rest, forwarded: str, status: int) -> None:
    """The address is the one the front end saw: the last hop, not one a caller made up."""
    token = await minted(rest, restrictions={"addresses": ["203.0.113.0/24", "2001:db8::/32"]})
    answer = await rest.call("GET", "/v1/accounts", token=token, headers={"X-Forwarded-For": forwarded})
    assert answer.status == status
    if status == 403:
        assert answer.body == forbidden("Unauthorized address", remoteAddress=forwarded.split(", ")[-1])


@pytest.mark.parametrize(
    ("referrer", "status"),
    [
        ("https://app.example/mail/1", 200),
        ("https://APP.example/mail/1", 200),
        ("https://app.example.evil.example/mail/1", 403),
        ("https://evil.example/?https://app.example/mail/1", 403),
        (None, 403),
    ],
)
async def test_a_token_restricted_to_referrers_works_from_those_alone(
    rest: Rest, referrer: str | None, status: int
) -> None:
    """A pattern covers its own host only."""
    token = await minted(rest, restrictions={"referrers": ["app.example/mail/*"]})
    answer = await rest.call("GET", "/v1/accounts", token=token, headers={"Referer": referrer} if referrer else {})
    assert answer.status == status
    assert status == 200 or answer.body == forbidden("Unauthorized referrer")


async def test_a_bad_token_is_told_before_a_bad_body(rest: Rest) -> None:
    """The order of the checks: token, then scope, permission, account, address, and only then the input."""
    for body in (b"{", b"[]", b'{"nonsense": 1}', b"\xff"):
        answer = await rest.call("POST", "/v1/account?junk=1", body=body, headers=JSON, token="0" * 64)
        assert (answer.status, answer.body) == (401, BAD_TOKEN)
    bound = await minted(
        rest, account=None, scopes=["smtp"], restrictions={"addresses": ["203.0.113.1"]},
        permissions={"actions": ["read"], "groups": ["account"]},
    )  # fmt: skip
    answer = await rest.call("POST", "/v1/account", body=b"{", headers=JSON, token=bound)
    assert answer.body["message"] == "Unauthorized scope"
    restricted = await minted(rest, restrictions={"addresses": ["203.0.113.1"]})
    answer = await rest.call("POST", "/v1/account", body=b"{", headers=JSON, token=restricted)
    assert answer.body["message"] == "Unauthorized address"


# -- paths ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1"), ("GET", "/v1/"), ("GET", "/v1/nothing"), ("POST", "/v1/nothing/at/all"), ("GET", "/nothing"),
        ("GET", "/v1/account"), ("GET", "/v1/account/"), ("POST", "/v1/accounts"), ("DELETE", "/v1/settings"),
        ("PATCH", "/v1/settings"), ("PUT", "/v1/oauth2"), ("POST", "/v1/account/x/reconnect"),
        ("OPTIONS", "/v1/tokens"),
        ("GET", "/v1/account/x/submit"), ("GET", "/v1/account/a/b"), ("GET", "/V1/accounts"), ("GET", "/v1//accounts"),
        ("GET", "/v1/accounts/"), ("GET", "/docs/"), ("GET", "/openapi"), ("DELETE", "/health"),
        ("GET", "/v1/%FF"), ("GET", "/%00"), ("GET", "/v1/..%2F..%2Fetc%2Fpasswd"),
        ("POST", "/v1/settings/%F0%9F%98%80"),
    ],
)  # fmt: skip
async def test_unknown_paths_and_wrong_methods_are_a_json_404(rest: Rest, method: str, path: str) -> None:
    """Clients parse every answer as JSON, so a path that is not there is told in JSON, too."""
    answer = await rest.call(method, path)
    assert (answer.status, answer.body) == (404, NOT_FOUND)


@pytest.mark.parametrize("path", ["/v1/account/%FF", "/v1/account/%C3%28", "/v1/account/a%ED%A0%80b", "/v1/tokens/%80"])
async def test_a_path_segment_that_is_not_utf8_is_named(rest: Rest, path: str) -> None:
    """A segment that no id can have been encoded to is a 400, not a lookup of something else."""
    assert keys_of(await rest.call("GET", path)) == {"account" if "account" in path else "token"}


async def test_an_encoded_slash_stays_inside_its_segment(rest: Rest) -> None:
    """`a%2Fb` is the account `a/b`, decoded exactly once; `a%252Fb` is the account `a%2Fb`."""
    name = unique("slash")
    await rest.create(f"{name}/b")
    assert (await rest.ok("GET", f"/v1/account/{name}%2Fb"))["account"] == f"{name}/b"
    assert (await rest.ok("GET", f"/v1/account/{name}%2fb"))["account"] == f"{name}/b"
    assert (await rest.call("GET", f"/v1/account/{name}%252Fb")).body == NO_ACCOUNT
    assert (await rest.call("GET", f"/v1/account/{name}/b")).body == NOT_FOUND
    await rest.create(f"{name}%2Fb")
    assert (await rest.ok("GET", f"/v1/account/{name}%252Fb"))["account"] == f"{name}%2Fb"


async def test_ids_up_to_256_characters_are_looked_up_and_longer_ones_refused(rest: Rest) -> None:
    """The limit counts characters, not bytes, and holds in paths as in bodies."""
    assert (await rest.call("GET", f"/v1/account/{'x' * 256}")).body == NO_ACCOUNT
    assert keys_of(await rest.call("GET", f"/v1/account/{'x' * 257}")) == {"account"}
    assert keys_of(await rest.call("GET", f"/v1/account/{'x' * 6000}")) == {"account"}
    assert keys_of(await rest.call("POST", "/v1/account", {"account": "x" * 257, "name": "n"})) == {"account"}
    assert keys_of(await rest.call("GET", "/v1/account/%20%20")) == {"account"}


# -- bodies ---------------------------------------------------------------------------------------------------

BODY_OPERATIONS = (
    ("POST", "/v1/account"), ("PUT", "/v1/account/{account}"), ("POST", "/v1/account/{account}/submit"),
    ("PUT", "/v1/account/{account}/reconnect"), ("POST", "/v1/authentication/form"), ("POST", "/v1/oauth2"),
    ("POST", "/v1/settings"), ("POST", "/v1/tokens"), ("POST", "/v1/token"),
)  # fmt: skip

BROKEN_BODIES = {
    "cut off": b"{",
    "trailing comma": b'{"name": "x",}',
    "single quotes": b"{'name': 'x'}",
    "a byte that is not UTF-8": b'{"name": "\xff"}',
    "nothing but bytes": b"\x00\x01\xfe",
    "nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "objects nested 20,000 deep": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "a number of 5,000 digits": b'{"name": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("kind", BROKEN_BODIES)
async def test_a_body_that_is_not_json_is_refused_by_every_operation(rest: Rest, kind: str) -> None:
    """Whatever cannot be read as JSON gets the contract's one sentence."""
    account = unique("body")
    await rest.create(account)
    for method, path in BODY_OPERATIONS:
        path = path.format(account=account)
        answer = await rest.call(method, path, body=BROKEN_BODIES[kind], headers=JSON)
        assert (answer.status, answer.body) == (400, BROKEN), path


@pytest.mark.parametrize(
    "body", [b"[1]", b'[{"name": "x"}]', b'"text"', b"5", b"true", b"1e999", b"NaN", b"false", b'""']
)
async def test_a_body_that_is_json_but_no_object_is_refused_by_every_operation(rest: Rest, body: bytes) -> None:
    """Arrays with content and bare values are invalid input."""
    account = unique("body")
    await rest.create(account)
    for method, path in BODY_OPERATIONS:
        answer = await rest.call(method, path.format(account=account), body=body, headers=JSON)
        assert keys_of(answer), path


@pytest.mark.parametrize("body", [None, b"", b"null", b"[]", b"{}", b" null\n"])
async def test_no_body_null_and_an_empty_array_stand_for_an_empty_object(rest: Rest, body: bytes | None) -> None:
    """PHP clients send these; operations that need nothing accept them, others name what is missing."""
    account = unique("empty")
    await rest.create(account)
    before = await rest.get(account) | {"counters": None}
    more: dict[str, Any] = {"body": body, "headers": JSON}
    assert await rest.ok("PUT", f"/v1/account/{account}", **more) == {"account": account}
    assert await rest.ok("PUT", f"/v1/account/{account}/reconnect", **more) == {"reconnect": False}
    assert await rest.ok("POST", "/v1/settings", **more) == {"updated": []}
    assert keys_of(await rest.call("POST", "/v1/account", **more)) == {"account", "name"}
    assert keys_of(await rest.call("POST", "/v1/oauth2", **more)) == {"name", "provider"}
    assert keys_of(await rest.call("POST", "/v1/tokens", **more)) == {"description"}
    assert keys_of(await rest.call("POST", "/v1/authentication/form", **more)) == {"redirectUrl"}
    assert await rest.get(account) | {"counters": None} == before


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", None), (b"", "application/x-www-form-urlencoded"), (b"", "text/plain"), (b"[]", None),
        (b'{"reconnect": false}', None), (b'{"reconnect": false}', "application/json; charset=utf-8"),
    ],
)  # fmt: skip
async def test_a_content_type_is_not_needed(rest: Rest, body: bytes, content_type: str | None) -> None:
    """A body without a Content-Type is JSON, and an empty one may claim to be anything."""
    account = unique("type")
    await rest.create(account)
    headers = {"Authorization": f"Bearer {BOOTSTRAP_TOKEN}"} | ({"Content-Type": content_type} if content_type else {})
    url = f"{rest.app.url}/v1/account/{account}/reconnect"
    answer = await asyncio.to_thread(requests.put, url, data=body, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"reconnect": False})


async def test_every_problem_of_a_body_is_named_at_once(rest: Rest) -> None:
    """Unknown fields, wrong types and missing fields come in one answer, each under its last path element."""
    body = {
        "account": 5, "email": "nobody", "logs": "perhaps", "unknownOne": 1, "notifyFrom": "yesterday", "path": [5],
        "webhooks": "ftp://x.example", "oauth2": {"auth": {"user": 7, "strange": 1}, "expires": [], "odd": None},
    }  # fmt: skip
    assert keys_of(await rest.call("POST", "/v1/account", body)) >= {
        "account", "name", "email", "logs", "unknownOne", "notifyFrom", "path", "webhooks", "user", "strange",
        "expires", "odd",
    }  # fmt: skip
    answer = await rest.call("POST", "/v1/tokens", {"unknown": 1})
    assert {"message": '"unknown" is not allowed', "key": "unknown"} in answer.body["fields"]
    assert {"message": '"description" is required', "key": "description"} in answer.body["fields"]


async def test_unknown_fields_of_every_operation_are_named(rest: Rest) -> None:
    """A misspelt field is never ignored."""
    account = unique("unknown")
    await rest.create(account)
    for method, path in BODY_OPERATIONS:
        junk = {"foo": 1, "bär": None, "a b": {}, "__proto__": [], "": 1, "x" * 500: 3}
        answer = await rest.call(method, path.format(account=account), junk)
        assert keys_of(answer) >= set(junk), path
        assert keys_of(await rest.call(method, path.format(account=account), {"\ud800": 1})), path


async def test_unknown_query_parameters_of_every_operation_are_named(rest: Rest) -> None:
    """A misspelt query parameter is never ignored, whatever the operation."""
    account = unique("query")
    await rest.create(account)
    operations = [
        *BODY_OPERATIONS, ("GET", "/v1/account/{account}"), ("DELETE", "/v1/account/{account}"),
        ("GET", "/v1/accounts"),
        ("GET", "/v1/oauth2"), ("GET", "/v1/oauth2/x"), ("GET", "/v1/settings"), ("GET", "/v1/tokens"),
        ("GET", "/v1/tokens/x"), ("DELETE", "/v1/tokens/x"), ("GET", "/v1/outbox"), ("GET", "/v1/outbox/x"),
        ("GET", "/v1/tokens/account/{account}"),
    ]  # fmt: skip
    for method, path in operations:
        url = f"{path.format(account=account)}?foo=1&b%C3%A4r=&%FF=2"
        answer = await rest.call(method, url, {} if method in ("POST", "PUT") else None)
        assert keys_of(answer) >= {"foo", "bär", "\ufffd"}, path
    assert (await rest.get(account))["account"] == account


@pytest.mark.parametrize("query", ["page=-1", "page=1048577", "pageSize=0", "pageSize=1001", "page=x", "pageSize=1.5"])
async def test_paging_outside_its_limits_is_refused(rest: Rest, query: str) -> None:
    """page is 0 to 1048576, pageSize 1 to 1000, in every list."""
    for path in ("/v1/accounts", "/v1/oauth2", "/v1/tokens", "/v1/outbox"):
        assert keys_of(await rest.call("GET", f"{path}?{query}")) == {query.partition("=")[0]}


@pytest.mark.parametrize(
    ("given_value", "meant"),
    [(True, True), (False, False), ("true", True), ("Y", True), ("1", True), (1, True), ("yes", True), ("on", True),
     ("false", False), ("N", False), (0, False), ("0", False), ("no", False), ("off", False)],
)  # fmt: skip
async def test_booleans_are_read_leniently(rest: Rest, given_value: Any, meant: bool) -> None:
    """Every spelling that clients use for true and false is accepted, in bodies and in queries."""
    await rest.ok("POST", "/v1/settings", {"notifyText": given_value})
    assert await rest.ok("GET", "/v1/settings?notifyText=true") == {"notifyText": meant}
    if isinstance(given_value, str | int):
        asked = await rest.ok("GET", f"/v1/settings?notifyText={str(given_value).lower()}")
        assert ("notifyText" in asked) is meant


async def test_a_body_over_fifty_megabytes_is_a_413(rest: Rest) -> None:
    """The limit is told in the envelope, and nothing is stored; a body at the limit is read."""
    limit = 50 * 1024 * 1024
    over = await rest.call("POST", "/v1/settings", body=io.BytesIO(b" " * (limit + 1)), headers=JSON)
    assert (over.status, over.body["error"]) == (413, "Request Entity Too Large")
    at_limit = io.BytesIO(b'{"notifyText": true}'.ljust(limit))
    assert (await rest.call("POST", "/v1/settings", body=at_limit, headers=JSON)).body == {"updated": ["notifyText"]}


async def test_an_account_too_large_to_store_is_a_413(rest: Rest) -> None:
    """A record over what storage holds is refused, not broken off half-way."""
    account = unique("large")
    folders = [secrets.token_hex(512) for _ in range(2500)]  # does not compress
    answer = await rest.call("POST", "/v1/account", {"account": account, "name": "n", "path": folders})
    assert (answer.status, answer.body["code"]) == (413, "RecordTooLarge")
    assert (await rest.call("GET", f"/v1/account/{account}")).body == NO_ACCOUNT


async def test_the_health_check_answers_anybody(rest: Rest) -> None:
    """Monitors have no token."""
    assert (await rest.call("GET", "/health", token=None)).body == {"success": True}


async def test_an_unexpected_failure_is_told_in_the_envelope(rest: Rest, azurite: Azurite) -> None:
    """A failure nobody foresaw is a 500 in the envelope without its cause; here a record that lacks its fields."""
    table = rest.tables.create_table_if_not_exists("oauth2apps")
    table.upsert_entity({"PartitionKey": "app", "RowKey": "AAAAAAAAAAAAAAAA", "v00": b"{}"})
    try:
        answer = await rest.app.call("GET", "/v1/oauth2/AAAAAAAAAAAAAAAA")
    finally:
        table.delete_entity("app", "AAAAAAAAAAAAAAAA")
    assert answer.status == 500
    assert answer.body == {
        "statusCode": 500, "error": "Internal Server Error", "message": "An internal server error occurred",
    }  # fmt: skip


# -- junk -----------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        *SETTING_KEYS, "account", "name", "email", "oauth2", "auth", "user", "delegatedUser", "delegatedAccount",
        "provider", "accessToken", "refreshToken", "expires", "authorize", "redirectUrl", "type", "delegated", "path",
        "to", "cc", "from", "address", "subject", "text", "html", "attachments", "content", "headers", "sendAt",
        "messageId", "dsn", "envelope", "description", "scopes", "metadata", "restrictions", "addresses", "permissions",
        "actions", "groups", "enabled", "clientId", "clientSecret", "authority", "cloud", "tenant", "extraScopes",
        "webhooks", "key", "value", "imap", "smtp", "logs", "notifyFrom", "partial",
    ]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(st.characters(), max_size=30),
    st.text(st.characters(categories=["Cs", "Cc", "Lo"]), max_size=5),
    st.sampled_from(
        ["outlook", "outlookService", "a@b.example", "https://x.example/", "now", "2026-01-01", "api", "*"]
    ),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(NAMES, NAMES, TEXTS), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.one_of(NAMES, NAMES, NAMES, TEXTS), VALUES, max_size=8)
BODIES = st.one_of(OBJECTS.map(json.dumps), OBJECTS.map(json.dumps), VALUES.map(json.dumps), st.binary(max_size=60))
STORING = ("accounts", "oauth2apps", "tokens", "settings", "outbox", "pending", "credentials")
SENSIBLE = {
    "/v1/account": {"account": None, "name": "n"},
    "/v1/oauth2": {"name": "n", "provider": "outlook"},
    "/v1/tokens": {"description": "d"},
    "/v1/settings": {},
    "/v1/authentication/form": {"redirectUrl": "https://x.example/"},
    "/submit": {"to": {"address": "rita@contoso.example"}, "subject": "s", "text": "t"},
}


class Junk:
    """Sends a body and looks whether a refusal left anything behind."""

    def __init__(self, customer: Rest, path: str) -> None:
        self.customer, self.url = customer, customer.app.url + path
        self.session = requests.Session()
        self.session.headers.update({"Authorization": f"Bearer {BOOTSTRAP_TOKEN}", **JSON})
        self.before = self.stored()

    def stored(self) -> set[tuple[str, str, str, str]]:
        """Which records there are, and of those that only requests change, what is in them."""
        settled = ("oauth2apps", "tokens", "settings")
        return {
            (table, row["PartitionKey"], row["RowKey"], str(row.get("v00")) if table in settled else "")
            for table, row in self.customer.rows(*STORING)
        }

    def send(self, body: str | bytes) -> None:
        """One request; AssertionError unless it is accepted, or refused in the envelope and without a trace."""
        raw = body if isinstance(body, bytes) else body.encode()
        answer = self.session.post(self.url, data=raw, timeout=30)
        after = self.stored()
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, (answer.status_code, answer.text, raw)
        if answer.status_code != 200:
            assert is_envelope(answer.json(), answer.status_code), (answer.text, raw)
            assert after == self.before, raw
        self.before = after


@pytest.mark.parametrize("path", SENSIBLE)
async def test_junk_is_refused_in_the_envelope_and_leaves_nothing(rest: Rest, path: str) -> None:
    """Generated bodies never break an operation, and a refused one stores nothing."""
    account = unique("junk")
    await rest.own(account)
    junk = Junk(rest, f"/v1/account/{account}/submit" if path == "/submit" else path)

    @settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(BODIES)
    def whole(body: str | bytes) -> None:
        junk.send(body)

    @settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.dictionaries(NAMES, VALUES, max_size=2))
    def sensible_but_for_a_field(fields: dict[str, Any]) -> None:
        junk.send(json.dumps(SENSIBLE[path] | fields))

    whole()
    sensible_but_for_a_field()


def test_the_junk_test_would_notice_a_record(app: Application, tenant: Tenant, azurite: Azurite) -> None:
    """What the test above compares does change when a call stores something."""
    junk = Junk(Rest(app, tenant, azurite.connection_string), "/v1/tokens")
    before = junk.before
    junk.send(json.dumps(SENSIBLE["/v1/tokens"]))
    assert junk.before != before
