"""What confines access tokens: rate limits, addresses, referrers, accounts, ends; and what is kept of their use."""

import asyncio
import hashlib
from typing import Any

import pytest

from shared.tokens import Caller, Grant, Operation
from tests.support.rest import Rest, keys_of, unique, until

HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


async def minted(rest: Rest, **fields: Any) -> str:
    """The value of a new token."""
    made = await rest.ok("POST", "/v1/tokens", {"description": "t", **fields})
    return str(made["token"])


async def test_a_limited_token_is_let_through_as_often_as_its_limit_says(rest: Rest) -> None:
    """Calls at once count one by one; the answers tell what is left, and the refusal when to come again."""
    token = await minted(rest, restrictions={"rateLimit": {"maxRequests": 5, "timeWindow": 3600}})
    answers = await asyncio.gather(*(rest.call("GET", "/v1/accounts", token=token) for _ in range(9)))
    passed = [one for one in answers if one.status == 200]
    refused = [one for one in answers if one.status == 429]
    assert (len(passed), len(refused)) == (5, 4)
    assert {one.headers["X-RateLimit-Limit"] for one in answers} == {"5"}
    assert sorted(one.headers["X-RateLimit-Remaining"] for one in passed) == ["0", "1", "2", "3", "4"]
    for one in refused:
        assert (one.body["message"], one.body["error"]) == ("Rate limit exceeded", "Too Many Requests")
        assert 0 < one.body["ttl"] <= 3600
        assert one.headers["Retry-After"] == one.headers["X-RateLimit-Reset"] == str(one.body["ttl"])
    unlimited = await rest.call("GET", "/v1/accounts")
    assert not [name for name in HEADERS if name in unlimited.headers]


async def test_tokens_made_with_a_limited_one_use_up_its_limit(rest: Rest) -> None:
    """Minting is no way around a limit, an end or an address."""
    rule = {"maxRequests": 3, "timeWindow": 3600}
    parent = await minted(rest, restrictions={"rateLimit": rule}, expires="2999-01-01T00:00:00.000Z")
    body = {"description": "c", "permissions": {"actions": ["read"], "groups": ["account"]}}
    made = await rest.ok("POST", "/v1/tokens", body | {"restrictions": None}, token=parent)
    shown = await rest.ok("GET", f"/v1/tokens/{made['id']}")
    assert (shown["restrictions"]["rateLimit"], shown["expires"]) == (rule, "2999-01-01T00:00:00.000Z")
    statuses = [(await rest.call("GET", "/v1/accounts", token=made["token"])).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert (await rest.call("GET", "/v1/accounts", token=parent)).status == 429


@pytest.mark.parametrize(
    "rule",
    [
        {"maxRequests": 0, "timeWindow": 1}, {"maxRequests": 1, "timeWindow": 0}, {}, 5, [],
        {"maxRequests": 1, "timeWindow": 10**12}, {"maxRequests": 1.5, "timeWindow": 1},
    ],
)  # fmt: skip
async def test_a_limit_that_is_none_is_refused(rest: Rest, rule: Any) -> None:
    """Every number of it is needed and bounded."""
    body = {"description": "t", "restrictions": {"rateLimit": rule}}
    answer = await rest.call("POST", "/v1/tokens", body)
    assert keys_of(answer) <= {"rateLimit", "maxRequests", "timeWindow"}


async def test_a_bound_token_cannot_lead_its_account_to_another_mailbox(rest: Rest) -> None:
    """It may rename the account, not borrow credentials; the record stays as it was."""
    await rest.own(mine := unique("mine"))
    await rest.own(other := unique("other"), "bob@contoso.example")
    token = await minted(rest, account=mine)
    path = f"/v1/account/{mine}"
    assert await rest.ok("PUT", path, {"name": "Renamed"}, token=token) == {"account": mine}
    stolen = {"auth": {"delegatedAccount": other, "delegatedUser": "bob@contoso.example"}}
    for wrong in ({"oauth2": stolen}, {"oauth2": {**stolen, "partial": True}}, {"email": "bob@contoso.example"}):
        answer = await rest.call("PUT", path, wrong, token=token)
        assert (answer.status, answer.body["code"]) == (403, "BoundToken")
        assert [one["key"] for one in answer.body["fields"]] == list(wrong)
    shown = await rest.get(mine)
    assert (shown["name"], shown["email"], shown["type"]) == ("Renamed", "ann@contoso.example", "outlook")
    assert await rest.ok("PUT", path, {"email": "ann@contoso.example"}, token=token) == {"account": mine}
    for method, path in (
        ("POST", "/v1/account"), ("PUT", f"/v1/account/{other}"), ("GET", "/v1/stats"), ("GET", "/v1/changes"),
        ("POST", f"/v1/tokens?account={mine}"), ("GET", "/v1/webhookRoutes"),
    ):  # fmt: skip
        body = None if method == "GET" else {"account": mine, "name": "x", "description": "x"}
        assert (await rest.call(method, path, body, token=token)).status == 403, path
    listed = await rest.ok("GET", f"/v1/tokens?account={mine}", token=token)
    assert listed["total"] == 1


async def test_the_last_use_of_a_token_is_shown(rest: Rest) -> None:
    """When, and from where."""
    token = await minted(rest)
    await rest.ok("GET", "/v1/accounts", token=token, headers={"X-Forwarded-For": "198.51.100.7, 203.0.113.9:4711"})
    shown = await rest.ok("GET", f"/v1/tokens/{token}")
    assert shown["access"]["ip"] == "203.0.113.9"
    assert shown["access"]["time"] >= shown["created"]


async def test_the_audit_log_tells_what_a_token_was_used_for(rest: Rest) -> None:
    """While the setting is on, newest first, refusals with their reason, and no token value among it."""
    account = unique("audited")
    await rest.create(account)
    permissions = {"actions": ["read"], "groups": ["account"]}
    token = await minted(rest, account=account, permissions=permissions)
    path = f"/v1/tokens/{token}/log"
    await rest.ok("GET", f"/v1/account/{account}", token=token)
    assert (await rest.ok("GET", path))["entries"] == []
    await rest.ok("POST", "/v1/settings", {"tokenAuditLog": True})
    caller = {"X-Forwarded-For": "203.0.113.9"}
    await rest.ok("GET", f"/v1/account/{account}?access_token={token}", headers=caller, token=None)
    assert (await rest.call("DELETE", f"/v1/token/{token}", token=token)).status == 403
    log = await rest.ok("GET", path)
    identity = hashlib.sha256(bytes.fromhex(token)).hexdigest()
    assert (log["token"], log["total"], log["page"], log["pages"]) == (identity, 2, 0, 1)
    denied, allowed = log["entries"]
    assert denied.pop("time") >= allowed.pop("time")
    assert allowed == {
        "ip": "203.0.113.9", "method": "GET", "path": f"/v1/account/{account}", "action": "read", "group": "account",
        "account": account, "status": "allowed", "reason": None,
    }  # fmt: skip
    assert denied == {
        "ip": None, "method": "DELETE", "path": "/v1/token/******", "action": "destructive", "group": "admin",
        "account": None, "status": "denied", "reason": "Unauthorized permission",
    }  # fmt: skip
    assert len((await rest.ok("GET", f"{path}?pageSize=1&page=1"))["entries"]) == 1
    assert keys_of(await rest.call("GET", f"{path}?pageSize=201")) == {"pageSize"}
    assert (await rest.call("GET", f"/v1/tokens/{'0' * 64}/log")).status == 404
    assert token.encode() not in rest.bytes_at_rest()
    await rest.ok("DELETE", f"/v1/tokens/{token}")
    assert identity not in {row["PartitionKey"] for _, row in rest.rows("tokenuse")}


@pytest.mark.parametrize(
    ("pattern", "referrer", "fits"),
    [
        ("*.shop.example/*", "https://www.shop.example/a?b", True),
        ("*.shop.example/*", "https://shop.example/", False),
        ("https://shop.example/*", "https://shop.example/x", True),
        ("https://shop.example/*", "https://shop.example.evil.example/x", False),
        ("https://shop.example/*", "http://shop.example/x", False), ("*", "", True), ("", "", True),
        ("SHOP.example/a*b*c", "https://shop.EXAMPLE/a1b2c", True),
        ("shop.example/a*a", "https://shop.example/a", False),
        ("shop.example*", "https://[bad", False), ("*" * 128 + "x", "https://" + "a" * 20_000, False),
    ],
)  # fmt: skip
def test_a_referrer_fits_a_pattern_with_stars(pattern: str, referrer: str, fits: bool) -> None:
    """Each star stands for anything, however many there are."""
    grant = Grant("id", restrictions={"referrers": [pattern]})
    try:
        grant.check(Operation("account", "read"), Caller("", referrer))
    except Exception:
        assert not fits
    else:
        assert fits


@pytest.mark.parametrize(
    ("network", "address", "inside"),
    [
        ("203.0.113.0/24", "203.0.113.9", True), ("203.0.113.0/24", "::ffff:203.0.113.9", True),
        ("203.0.113.7", "203.0.113.9", False), ("2001:db8::/32", "2001:db8::1", True), ("::/0", "203.0.113.9", False),
        ("0.0.0.0/0", "", False), ("10.0.0.0/8", "not an address", False),
    ],
)  # fmt: skip
def test_an_address_lies_in_a_network(network: str, address: str, inside: bool) -> None:
    """Also one that comes in the clothes of IPv6; an unknown one lies nowhere."""
    grant = Grant("id", restrictions={"addresses": [network]})
    try:
        grant.check(Operation("account", "read"), Caller(address))
    except Exception:
        assert not inside
    else:
        assert inside


async def test_the_wait_of_a_caller_has_a_limit_that_breaks_off_nothing(rest: Rest) -> None:
    """`x-ee-timeout` ends the waiting; what was begun goes on."""
    account = unique("slow")
    answer = await rest.app.call("POST", "/v1/account", {"account": account, "name": "x"}, {"x-ee-timeout": "1"})
    assert answer.status == 504
    assert (answer.body["code"], answer.body["message"]) == ("Timeout", "Timeout waiting for command response")

    async def made() -> bool:
        return (await rest.call("GET", f"/v1/account/{account}")).status == 200

    await until("the account to be made all the same", made)
    for value in ("7200000", "0", " 30000 "):
        assert (await rest.call("GET", "/v1/accounts", headers={"x-ee-timeout": value})).status == 200
    for value in ("7200001", "-1", "1.5", "soon", "9" * 5000):
        assert keys_of(await rest.call("GET", "/v1/accounts", headers={"x-ee-timeout": value})) == {"x-ee-timeout"}
