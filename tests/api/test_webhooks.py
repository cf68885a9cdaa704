"""Delivery of webhooks: headers, signature, targets, retries, refusals."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.support.application import Application
from tests.support.desk import Desk, eventually
from tests.support.post import Post
from tests.support.receiver import Received, Receiver
from tests.support.tenant import Tenant
from tests.support.workshop import Workshop

SECRET = "schlüssel-🔑"
NOW = "2026-01-01T00:00:00.000Z"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cleared(tenant: Tenant) -> None:
    """A tenant without the accounts of other files."""
    await tenant.reset()


@pytest.fixture
async def desk(app: Application, tenant: Tenant, receiver: Receiver, cleared: None) -> AsyncIterator[Desk]:
    """Settings that send everything to this test's receiver."""
    desk = Desk(app, tenant)
    await desk.hear(receiver.url, serviceSecret=SECRET, webhooksCustomHeaders=None)
    yield desk
    await desk.close()
    await desk.settings(webhooksEnabled=False, webhooksCustomHeaders=None, webhooks=None)


@pytest.fixture
async def own() -> AsyncIterator[Receiver]:
    """A second receiver, for an account's own target."""
    listening = await Receiver().start()
    yield listening
    await listening.stop()


async def added(desk: Desk, **fields: Any) -> str:
    """An account without credentials: its accountAdded is the event to deliver."""
    account = f"hook-{len(desk.accounts)}-{id(desk):x}"
    desk.accounts.append(account)
    await desk.ok("POST", "/v1/account", {"account": account, "name": "Grüße 你好 🎉", **fields})
    return account


def of(account: str, event: str = "accountAdded") -> Callable[[Received], bool]:
    """A predicate: this event of this account."""
    return lambda heard: bool(heard.json["account"] == account and heard.json["event"] == event)


async def test_a_webhook_has_the_headers_and_the_envelope_of_the_contract(desk: Desk, receiver: Receiver) -> None:
    """POST of JSON with id, attempt, waiting time, event id and signature."""
    account = await added(desk)
    heard = await receiver.wait_for(of(account))
    assert heard.method == "POST"
    assert heard.headers["Content-Type"] == "application/json"
    assert heard.headers["User-Agent"].startswith("Graphpost/")
    assert heard.headers["X-EE-Wh-Attempts-Made"] == "0"
    assert heard.headers["X-EE-Wh-Queued-Time"].endswith("s")
    assert int(heard.headers["X-EE-Wh-Queued-Time"][:-1]) < 30
    assert len(heard.headers["X-EE-Wh-Event-Id"]) == 36
    assert heard.headers["X-EE-Wh-Id"]
    assert heard.headers["Content-Length"] == str(len(heard.body))
    assert heard.json["data"] == {"account": account}
    assert set(heard.json) == {"serviceUrl", "account", "date", "event", "data"}


async def test_the_signature_is_over_the_very_bytes_of_the_body(desk: Desk, receiver: Receiver) -> None:
    """base64url HMAC-SHA256 without padding, non-ASCII secret and content included."""
    account = f"größe-你好-🎉-{id(desk):x}"
    desk.accounts.append(account)
    await desk.ok("POST", "/v1/account", {"account": account, "name": "x"})
    heard = await receiver.wait_for(of(account))
    assert account.encode() in heard.body
    mac = hmac.new(SECRET.encode(), heard.body, hashlib.sha256).digest()
    assert heard.headers["X-EE-Wh-Signature"] == base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


async def test_an_accounts_own_target_wins_over_the_settings(desk: Desk, receiver: Receiver, own: Receiver) -> None:
    """The event goes to the account's URL alone."""
    account = await added(desk, webhooks=own.url)
    await own.wait_for(of(account))
    other = await added(desk)
    await receiver.wait_for(of(other))
    assert not any(of(account)(one) for one in receiver.requests)


async def test_custom_headers_are_added_and_the_accounts_win(desk: Desk, receiver: Receiver) -> None:
    """Settings first, then the account's; the later of one name counts, whatever its letters."""
    await desk.settings(
        webhooksCustomHeaders=[{"key": "X-Both", "value": "settings"}, {"key": "X-One", "value": "1"}]
    )
    own = [{"key": "x-both", "value": "account"}, {"key": "X-Two", "value": "2"}]
    account = await added(desk, webhooksCustomHeaders=own)
    heard = await receiver.wait_for(of(account))
    assert heard.headers.getall("X-Both") == ["account"]
    assert (heard.headers["X-One"], heard.headers["X-Two"]) == ("1", "2")


async def test_user_info_in_the_url_becomes_basic_authorization(desk: Desk, receiver: Receiver) -> None:
    """Percent-encoded marks and umlauts are decoded; a custom Authorization header wins over it."""
    url = receiver.url.replace("http://", "http://h%C3%BCgo:p%40ss%3Aword@")
    account = await added(desk, webhooks=url)
    heard = await receiver.wait_for(of(account))
    scheme, _, pair = heard.headers["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(pair).decode()) == ("Basic", "hügo:p@ss:word")
    custom = [{"key": "authorization", "value": "Bearer own"}]
    other = await added(desk, webhooks=url, webhooksCustomHeaders=custom)
    heard = await receiver.wait_for(of(other))
    assert heard.headers.getall("Authorization") == ["Bearer own"]


async def test_path_and_query_of_the_target_are_kept(desk: Desk, receiver: Receiver) -> None:
    """The URL is called as it was written."""
    account = await added(desk, webhooks=f"{receiver.url}/a%2Fb?x=1&y=%20z")
    heard = await receiver.wait_for(of(account))
    assert heard.path == "/webhook/a%2Fb?x=1&y=%20z"


@pytest.mark.parametrize(
    "settings",
    [{"webhooksEnabled": False}, {"webhooksEnabled": None}, {"webhookEvents": None}, {"webhookEvents": []},
     {"webhookEvents": ["messageNew"]}, {"webhooks": None}],
)  # fmt: skip
async def test_nothing_is_sent_unless_enabled_wanted_and_addressed(
    desk: Desk, receiver: Receiver, settings: dict[str, Any]
) -> None:
    """The event is counted and not sent, neither now nor after the settings allow it again."""
    await desk.settings(**settings)
    account = await added(desk)

    async def counted() -> bool:
        return bool((await desk.account(account))["counters"]["events"].get("accountAdded"))

    await eventually(counted, "the event is counted")
    await desk.hear(receiver.url)
    other = await added(desk)
    await receiver.wait_for(of(other))
    assert not any(of(account)(one) for one in receiver.requests)


async def test_deleting_an_account_is_told_although_the_account_is_gone(desk: Desk, receiver: Receiver) -> None:
    """accountDeleted goes to the settings' target."""
    account = await added(desk)
    await receiver.wait_for(of(account))
    await desk.ok("DELETE", f"/v1/account/{account}")
    await receiver.wait_for(of(account, "accountDeleted"))


async def test_the_account_counts_its_events(desk: Desk, own: Receiver) -> None:
    """`counters.events` has one entry for each name, counted once whatever the delivery needed."""
    own.answer_next(500)
    account = await added(desk, webhooks=own.url)
    await own.wait_for(lambda one: one.headers["X-EE-Wh-Attempts-Made"] == "1", 20)
    assert (await desk.account(account))["counters"] == {"events": {"accountAdded": 1}}


async def test_a_failed_delivery_is_repeated_with_the_same_event_id(desk: Desk, own: Receiver) -> None:
    """After a 500 the same event comes again, with its attempts counted and the same body."""
    own.answer_next(500)
    await added(desk, webhooks=own.url)
    second = await own.wait_for(lambda one: one.headers["X-EE-Wh-Attempts-Made"] == "1", 20)
    first = own.requests[0]
    assert first.headers["X-EE-Wh-Event-Id"] == second.headers["X-EE-Wh-Event-Id"]
    assert first.headers["X-EE-Wh-Id"] == second.headers["X-EE-Wh-Id"]
    assert first.body == second.body
    assert 3 <= int(second.headers["X-EE-Wh-Queued-Time"][:-1]) <= 10


# -- in process: an hour of retries --------------------------------------------------------------------------------


@pytest.fixture
def post(workshop: Workshop, receiver: Receiver) -> Post:
    """Delivery under a clock of its own."""
    return Post(workshop, receiver)


async def test_ten_attempts_with_doubling_pauses_and_then_no_more(post: Post) -> None:
    """5 s, 10 s, 20 s … give or take a fifth; the event id stays, the attempts count up."""
    post.receiver.answer_next(*[500] * 50)
    await post.emit(post.receiver.url)
    await post.run(20_000)
    heard = post.receiver.requests
    assert [one.headers["X-EE-Wh-Attempts-Made"] for one in heard] == [str(number) for number in range(10)]
    assert len({one.headers["X-EE-Wh-Event-Id"] for one in heard}) == 1
    for number in range(9):
        pause = post.times[number + 1] - post.times[number]
        assert 4 * 2**number - 0.5 <= pause <= 6 * 2**number + 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_final(post: Post, status: int) -> None:
    """The signature was meant for this address: one request, nothing more."""
    post.receiver.answer_next(status)
    await post.emit(post.receiver.url)
    await post.run(20_000)
    assert len(post.receiver.requests) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_is_a_success(post: Post, status: int) -> None:
    """One request."""
    post.receiver.answer_next(status)
    await post.emit(post.receiver.url)
    await post.run(20_000)
    assert len(post.receiver.requests) == 1


async def test_a_receiver_that_is_gone_is_not_asked_again(post: Post) -> None:
    """410 says so itself: one request, and a dead letter that tells."""
    post.receiver.answer_next(410)
    await post.emit(post.receiver.url)
    await post.run(20_000)
    assert len(post.receiver.requests) == 1
    (letter,) = await post.shop.services.undelivered.dead()
    assert letter["error"] == {"status": 410, "reason": "The receiver answered 410: the target is gone for good"}


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_every_other_status_is_tried_again(post: Post, status: int) -> None:
    """A receiver in trouble gets its event later."""
    post.receiver.answer_next(status, status)
    await post.emit(post.receiver.url)
    await post.run(60)
    assert len(post.receiver.requests) == 3


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/metadata", "http://[fe80::1]/x", "http://169.254.1.1:8080/", "http://u:p@169.254.0.9/",
     "http://[::ffff:169.254.169.254]/", "http://2852039166/", "http://0xa9.0xfe.0xa9.0xfe/"],
)  # fmt: skip
async def test_link_local_targets_are_refused_for_good(post: Post, url: str) -> None:
    """Addresses of the platform's metadata services are never called."""
    account = await post.emit(url)
    await post.run(0)
    assert [name for _, name, _ in post.shop.queues.waiting if name == "webhooks"] == []
    (letter,) = await post.shop.services.undelivered.dead(account)
    assert "is a link-local address, which is never called" in letter["error"]["reason"]


async def test_a_target_that_cannot_be_reached_is_tried_again(post: Post) -> None:
    """Nobody listens at first; the event arrives once somebody does."""
    url = post.receiver.url
    await post.receiver.stop()
    await post.emit(url)
    await post.run(0)
    assert "webhooks" in [name for _, name, _ in post.shop.queues.waiting]
    again = await Receiver(port=post.receiver.port).start()
    try:
        post.receiver = again
        await post.run(60)
        assert len(again.requests) == 1
    finally:
        await again.stop()


async def test_filters_count_at_the_time_of_delivery(post: Post) -> None:
    """What nobody wants any more when its turn comes is not sent."""
    await post.emit(post.receiver.url)
    await post.shop.services.service_settings.write({"webhooksEnabled": False})
    await post.run(60)
    assert post.receiver.requests == []


async def test_an_event_queued_three_times_is_delivered_once(post: Post) -> None:
    """Repeats of a notification meet the record of the first, one after the other and all at once."""
    import asyncio

    account = await post.emit(post.receiver.url)
    jobs = [job for _, job in post.shop.queues.take_due()]
    await asyncio.gather(*(post.shop.services.webhooks.deliver(job) for job in jobs * 5))
    for job in jobs * 2:
        await post.shop.services.webhooks.deliver(job)
    await post.run(3600)
    assert len(post.receiver.requests) == 1
    counters = await post.shop.services.tables["counters"].get(account, "events")
    assert counters is not None
    assert counters.value == {"accountAdded": 1}


async def test_a_delivery_whose_worker_died_is_made_by_the_next(post: Post) -> None:
    """The process ends between claim and answer: the message comes back, waits out the claim and is delivered."""
    await post.emit(post.receiver.url)
    (job,) = [job for _, job in post.shop.queues.take_due()]
    webhooks = post.shop.services.webhooks
    send = webhooks._post

    async def die(*_: Any) -> str:
        raise KeyboardInterrupt

    webhooks._post = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        await webhooks.deliver(job)
    webhooks._post = send  # type: ignore[method-assign]
    await webhooks.deliver(job)
    assert post.receiver.requests == []
    await post.run(300)
    assert len(post.receiver.requests) == 1


async def test_a_crash_between_record_and_queue_is_mended_when_the_caller_runs_again(post: Post) -> None:
    """The same happening again queues the recorded event instead of making a second one."""
    await post.emit(post.receiver.url)
    await post.run(0)
    events, put = post.shop.services.events, post.shop.queues.put

    async def die(*_: Any) -> None:
        raise KeyboardInterrupt

    account = f"post-{id(post):x}"
    post.shop.services.queues.put = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        await events.emit(account, "messageNew", {"id": "m"}, happening="new m")
    post.shop.services.queues.put = put  # type: ignore[method-assign]
    assert await events.emit(account, "messageNew", {"id": "m"}, happening="new m") is False
    await post.run(60)
    told = [json.loads(one.body)["event"] for one in post.receiver.requests]
    assert told == ["accountAdded", "messageNew"]
