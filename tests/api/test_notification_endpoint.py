"""The endpoints that Microsoft Graph posts to: handshake, proof, and no reaction to junk."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.services import key_ring
from shared.notifications import TAG, client_state, receive
from shared.settings import Settings
from tests.support.application import Answer, Application, call
from tests.support.desk import Desk, eventually
from tests.support.receiver import Receiver
from tests.support.tenant import Tenant
from tests.support.workshop import ANN, KEYS

ENDPOINTS = ["/oauth/msg/notification", "/oauth/msg/lifecycle"]
TOKENS = [
    "plain",
    "Validation: Testing client application reachability for subscription Request-Id: 1-2",
    "<script>alert(1)</script>",
    "a+b %2B %25 & = ? #",
    "grüße 你好 🎉",
    "line\nbreak\r\nSet-Cookie: x=1",
    "x" * 3000,
]


async def post(app: Application, path: str, body: Any = b"", *, raw: bool = False) -> Answer:
    """One POST without an access token, as Graph sends it."""
    content = body if raw or isinstance(body, bytes) else json.dumps(body).encode()
    return await call("POST", app.url + path, body=content, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("token", TOKENS, ids=range(len(TOKENS)))
async def test_the_handshake_echoes_the_token_as_plain_text(app: Application, path: str, token: str) -> None:
    """200, text/plain, the decoded token and nothing else, for accounts that do not exist yet as well."""
    answer = await call(
        "POST",
        f"{app.url}{path}?account=not-yet&validationToken={quote(token, safe='')}",
        headers={"Content-Type": "text/plain; charset=utf-8"},
    )
    assert answer.status == 200
    assert answer.headers["Content-Type"].split(";")[0] == "text/plain"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in answer.headers
    assert answer.body == token.encode()


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_other_methods_are_no_handshake(app: Application, path: str, method: str) -> None:
    """Graph posts; anything else is not answered with the token."""
    answer = await call(method, f"{app.url}{path}?validationToken=abc")
    assert 400 <= answer.status < 500
    assert b"abc" not in (answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode())


# -- a real account ------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(app: Application, tenant: Tenant) -> AsyncIterator[Desk]:
    """An account with push."""
    await tenant.reset()
    desk = Desk(app, tenant)
    await desk.own()
    yield desk
    await desk.close()
    await desk.settings(webhooksEnabled=False)


def proof(account: str) -> str:
    """The clientState of an account of this app."""
    settings = Settings.from_env({"KEY_RING": key_ring(), "AzureWebJobsStorage": "UseDevelopmentStorage=true"})
    return client_state(account, settings.key_ring[0][1])


def entry(message_id: str, state: str, change: str = "created", subscription: str = "s") -> dict[str, Any]:
    """One entry as Graph writes it."""
    return {
        "subscriptionId": subscription,
        "clientState": state,
        "changeType": change,
        "resource": f"Users/u/Messages/{message_id}",
        "resourceData": {"@odata.type": "#Microsoft.Graph.Message", "id": message_id},
    }


async def held(opened: Desk) -> str:
    """The id of the account's subscription."""
    (account,) = opened.accounts
    (found,) = [one["id"] for one in await opened.tenant.subscriptions() if account in one["notificationUrl"]]
    return str(found)


async def test_a_thousand_entries_in_one_post_are_accepted_and_each_is_told_once(
    opened: Desk, receiver: Receiver
) -> None:
    """202 at once; the few real mails among them are told once each, though each is named many times."""
    await opened.hear(receiver.url)
    (account,) = opened.accounts
    await opened.tenant.switches(notification_loss=1.0)
    placed = [(await opened.tenant.deliver("carl@customer.example", [ANN], f"Mail {n}"))[0]["id"] for n in range(20)]
    current = await held(opened)
    entries = [entry(placed[number % 20], proof(account), subscription=current) for number in range(1000)]
    answer = await post(opened.app, f"{ENDPOINTS[0]}?account={account}", {"value": entries})
    assert (answer.status, answer.body) == (202, b"")

    def told() -> list[str]:
        heard = [one.json for one in receiver.requests]
        return [one["data"]["id"] for one in heard if one["event"] == "messageNew"]

    async def all_told() -> bool:
        return set(told()) >= set(placed)

    await eventually(all_told, "every mail is told", 40)
    assert sorted(told()) == sorted(placed)
    await opened.tenant.switches(notification_loss=0)


@pytest.mark.parametrize("state", ["", "wrong", None, 5, ["x"], "é", "\ud800", "of another account"])
async def test_a_wrong_proof_is_answered_like_a_right_one_and_leads_to_nothing(
    opened: Desk, receiver: Receiver, state: Any
) -> None:
    """202 and no trace: no Graph call, no event."""
    await opened.hear(receiver.url)
    (account,) = opened.accounts
    current = await held(opened)
    state = proof("another") if state == "of another account" else state
    forged = entry("forged-id", state, subscription=current)
    answer = await post(opened.app, f"{ENDPOINTS[0]}?account={account}", {"value": [forged]})
    assert (answer.status, answer.body) == (202, b"")
    genuine = entry(f"gone{id(receiver)}", proof(account), subscription=current)
    answer = await post(opened.app, f"{ENDPOINTS[0]}?account={account}", {"value": [genuine]})
    assert answer.status == 202
    await receiver.wait_for(lambda one: one.json["event"] == "messageMissing", 20)
    assert await opened.tenant.log(surface="graph", path="forged-id") == []


JUNK: list[bytes] = [
    b"", b"{", b"[]", b"null", b"5", b'"x"', b'{"value": null}', b'{"value": {}}', b'{"value": [1, null, "x", []]}',
    b'{"value": [{}]}', b"\xff\xfe", b"[" * 100_000, b'{"value":' * 10_000, b"0" * 100_000, b"NaN",
    b'{"value": [{"resourceData": null}]}', b"\x00" * 50,
]  # fmt: skip


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("body", JUNK, ids=range(len(JUNK)))
@pytest.mark.parametrize("query", ["", "?account=", "?account=%FF%FE", "?account=a&account=b", "?account=" + "x" * 999])
async def test_junk_is_answered_202_and_nothing_happens(app: Application, path: str, body: bytes, query: str) -> None:
    """Graph must never repeat what can never be read, and an attacker must not see what is wrong."""
    answer = await post(app, path + query, body, raw=True)
    assert answer.status == 202, answer.body


SOME_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["clientState", "changeType", "resourceData", "id", "lifecycleEvent", "subscriptionId"])
        | st.text(max_size=5),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(query=st.text(st.characters(exclude_categories=["Cs"]), max_size=30), value=SOME_JSON, lifecycle=st.booleans())
def test_no_request_makes_the_endpoint_fail(app: Application, query: str, value: Any, lifecycle: bool) -> None:
    """Any JSON, any query: 200 or 202, over HTTP."""
    path = ENDPOINTS[lifecycle] + "?" + quote(query, safe="&=")
    answer = asyncio.run(post(app, path, {"value": [value]}))
    assert answer.status in (200, 202, 400)


KEY = Settings.from_env({"KEY_RING": KEYS, "AzureWebJobsStorage": "UseDevelopmentStorage=true"}).key_ring[0][1]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(value=SOME_JSON, body=st.binary(max_size=200), lifecycle=st.booleans(), account=st.text(max_size=10))
def test_what_is_queued_is_always_proven(value: Any, body: bytes, lifecycle: bool, account: str) -> None:
    """Random content never gets onto the queue; with the proof, only well-formed entries do."""
    for content in (body, json.dumps({"value": [value]}).encode()):
        reply = receive({"account": account}, content, [KEY], lifecycle=lifecycle)
        assert (reply.status, reply.messages) == (202, [])
    proven = dict(value) if isinstance(value, dict) else {}
    proven["clientState"] = client_state(account, KEY)
    reply = receive({"account": account}, json.dumps({"value": [proven]}).encode(), [KEY], lifecycle=lifecycle)
    assert reply.status == 202
    for message in reply.messages:
        assert message.startswith(TAG)
        assert json.loads(message.removeprefix(TAG))["account"] == account
