"""Endpoints that fail: dead letters and replay, pause, probe and resume, and no harm to the others."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from shared.jobs import EVENTS_FOR
from shared.storage.tables import Row
from tests.support.desk import eventually
from tests.support.post import Died, Post, dying
from tests.support.receiver import Receiver
from tests.support.workshop import Workshop

DAY_S = 86_400


@pytest.fixture
async def post(workshop: Workshop, receiver: Receiver) -> Post:
    """An account whose events go to the test's receiver."""
    post = Post(workshop, receiver)
    await post.open()
    return post


@pytest.fixture
async def other() -> AsyncIterator[Receiver]:
    """A second receiver."""
    listening = await Receiver().start()
    yield listening
    await listening.stop()


async def letters(post: Post) -> list[dict[str, Any]]:
    """The dead letters, as the API lists them."""
    return await post.shop.services.undelivered.dead()


async def endpoint(post: Post) -> dict[str, Any]:
    """The one endpoint, as the API shows it."""
    (health,) = await post.shop.services.endpoints.all()
    held = await post.shop.services.undelivered.held()
    return post.shop.services.endpoints.view(health, held.get(health.endpoint, 0))


# -- dead letters ----------------------------------------------------------------------------------------------------


async def test_an_event_that_never_arrives_becomes_a_dead_letter(post: Post) -> None:
    """After ten attempts it is listed with its last error and, by itself, with what would have been sent."""
    post.receiver.answer_next(*[500] * 10)
    await post.tell("lost", about="m")
    await post.run(20_000)
    assert len(post.receiver.requests) == 10
    (letter,) = await letters(post)
    assert letter["id"] == post.receiver.requests[0].headers["webhook-id"]
    assert (letter["account"], letter["event"], letter["attemptsMade"]) == (post.account, "messageNew", 10)
    assert letter["error"] == {"status": 500, "reason": "The receiver answered 500"}
    assert letter["endpoint"] == (await endpoint(post))["id"]
    whole = await post.shop.services.undelivered.find(letter["id"])
    assert whole == letter | {"payload": post.receiver.requests[0].json}


async def test_a_replay_has_the_same_id_and_is_not_counted_twice(post: Post) -> None:
    """The receiver may tell that it had it; attempts begin anew; the account's counters stay."""
    post.receiver.answer_next(*[500] * 10)
    await post.tell("lost", about="m")
    await post.run(20_000)
    (letter,) = await letters(post)
    post.receiver.answer_next(500)
    assert await post.shop.services.undelivered.replay_one(letter["id"])
    assert not await post.shop.services.undelivered.replay_one(letter["id"])
    await post.run(60)
    again = post.receiver.requests[10:]
    assert [one.headers["X-EE-Wh-Attempts-Made"] for one in again] == ["0", "1"]
    assert {one.headers["webhook-id"] for one in again} == {letter["id"]}
    assert {one.headers["X-EE-Wh-Event-Id"] for one in again} == {letter["id"]}
    assert await letters(post) == []
    counters = await post.shop.services.tables["counters"].get(post.account, "events")
    assert counters is not None
    assert counters.value["messageNew"] == 1


async def test_many_are_replayed_in_order_by_one_call_and_the_job_it_starts(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call replays a bounded number; the job goes on, also when it comes twice."""
    monkeypatch.setattr("shared.undelivered.BATCH", 10)
    for number in range(23):
        post.receiver.answer_next(410)
        await post.tell(f"{number:03d}", "messageUpdated", about="m", order=number + 1)
        await post.run()
        post.shop.advance(1)
    post.receiver.requests.clear()
    assert await post.shop.services.undelivered.replay() == (10, True)
    (job,) = [one for one in post.shop.queues.waiting if one[2].get("do") == "replay"]
    post.shop.queues.waiting.append(job)
    await post.run(600)
    assert post.heard() == [f"{number:03d}" for number in range(23)]
    assert await letters(post) == []


async def test_a_replay_takes_what_was_asked_for(post: Post, other: Receiver) -> None:
    """By account, by endpoint, by time."""
    post.receiver.answer_next(410, 410)
    other.answer_next(410)
    await post.tell("early", about="a")
    await post.run()
    post.shop.advance(100)
    since = post.shop.clock().isoformat()
    await post.tell("late", about="b")
    await post.run()
    await post.hear(other.url)
    await post.tell("elsewhere", about="c")
    await post.run()
    found = {(await post.shop.services.undelivered.find(one["id"]) or {})["payload"]["data"]["id"]: one
             for one in await letters(post)}  # fmt: skip
    assert list(found) == ["early", "late", "elsewhere"]
    undelivered = post.shop.services.undelivered
    assert await undelivered.replay(account="nobody") == (0, False)
    assert await undelivered.replay(endpoint=found["elsewhere"]["endpoint"]) == (1, False)
    assert await undelivered.replay(account=post.account, since=since) == (1, False)
    assert [one["id"] for one in await letters(post)] == [found["early"]["id"]]


async def test_a_dropped_letter_is_gone_and_is_not_told_again(post: Post) -> None:
    """Its payload is removed from storage; the same happening seen later is no news."""
    post.receiver.answer_next(410)
    await post.tell("dropped", about="m")
    await post.run()
    (letter,) = await letters(post)
    assert await post.shop.services.undelivered.discard(letter["id"])
    assert not await post.shop.services.undelivered.discard(letter["id"])
    assert await letters(post) == []
    assert await post.shop.services.undelivered.find(letter["id"]) is None
    await post.tell("dropped", about="m")
    await post.run(60)
    assert post.heard() == ["dropped"]
    (row,) = await post.rows()
    assert "data" not in row.value["envelope"]


@pytest.mark.parametrize("deed", ["replay", "discard"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_process_that_dies_while_replaying_or_dropping_is_made_up_for(
    post: Post, deed: str, after: bool
) -> None:
    """Asked again, or by the hourly look: replayed letters arrive, dropped ones stay away, the list is true."""
    for at in range(1, 20):
        post.receiver.answer_next(410)
        what = f"letter {at}"
        await post.tell(what, about=what)
        await post.run()
        (letter,) = await letters(post)
        undelivered = post.shop.services.undelivered
        died = False
        with dying(post.shop.services, at, after=after):
            try:
                await (undelivered.replay_one if deed == "replay" else undelivered.discard)(letter["id"])
            except Died:
                died = True
        if died:
            await (undelivered.replay_one if deed == "replay" else undelivered.discard)(letter["id"])
        await post.run(60)
        post.shop.advance(1300)
        await post.shop.services.webhooks.take_up(timedelta(minutes=20))
        await post.run(60)
        assert (await post.states_of(what)) == ("delivered" if deed == "replay" else "discarded")
        assert await letters(post) == []
        if not died:
            return
    raise AssertionError("it never came to its end")


async def test_dead_letters_are_kept_for_thirty_days_from_their_death(post: Post) -> None:
    """Events that arrived go thirty days after they happened; a letter stays thirty days after it died."""
    await post.tell("arrived", about="a")
    await post.run()
    await post.tell("lost", about="b")
    post.shop.advance(20 * DAY_S)
    post.receiver.answer_next(410)
    await post.run()
    post.shop.advance(11 * DAY_S)
    await post.shop.services.webhooks.sweep(EVENTS_FOR)
    assert await post.states() == {"lost": "dead"}
    assert len(await letters(post)) == 1
    post.shop.advance(20 * DAY_S)
    await post.shop.services.webhooks.sweep(EVENTS_FOR)
    assert await post.rows() == []
    assert await letters(post) == []


async def test_the_list_of_dead_letters_mends_itself(post: Post) -> None:
    """An entry that is missing comes back with the hourly sweep; one without a dead event goes."""
    post.receiver.answer_next(410)
    await post.tell("lost", about="m")
    await post.run()
    (entry,) = await post.shop.services.tables["undelivered"].partition("dead")
    await post.shop.services.tables["undelivered"].delete(entry.partition, entry.key)
    await post.shop.services.webhooks.sweep(EVENTS_FOR)
    (letter,) = await letters(post)
    await post.shop.services.undelivered.replay_one(letter["id"])
    await post.run()
    await post.shop.services.tables["undelivered"].put(entry)
    post.shop.advance(4000)
    await post.shop.services.webhooks.sweep(EVENTS_FOR)
    assert await letters(post) == []


async def test_a_deleted_account_leaves_no_dead_letters(post: Post) -> None:
    """Nothing of it can be looked at or replayed any more."""
    post.receiver.answer_next(410)
    await post.tell("lost", about="m")
    await post.run()
    assert len(await letters(post)) == 1
    await post.shop.services.onboarding.delete(post.account)
    await post.run(60)
    await post.shop.services.webhooks.sweep(EVENTS_FOR)
    assert await letters(post) == []
    assert b"lost" not in repr([row.value for row in await post.rows()]).encode()
    assert post.receiver.requests[-1].json["event"] == "accountDeleted"


async def test_a_target_that_cannot_be_opened_is_a_dead_letter_and_goes_nowhere_else(
    post: Post, other: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged sealed target is not taken for none: the settings' target hears nothing of that account. Set anew,
    the letter can be replayed."""
    await post.shop.services.onboarding.update(post.account, {"webhooks": other.url})
    await post.shop.services.accounts.change(
        post.account, lambda record: record | {"webhooksSealed": record["webhooksSealed"][:-8] + "AAAAAAAA"}
    )
    await post.tell("secret", about="m")
    await post.run(20_000)
    assert post.receiver.requests == other.requests == []
    (letter,) = await letters(post)
    assert "sealed webhook target can not be opened" in letter["error"]["reason"]
    assert letter["endpoint"] is None
    assert letter["id"] in caplog.text
    assert post.account not in caplog.text
    await post.shop.services.onboarding.update(post.account, {"webhooks": other.url})
    assert await post.shop.services.undelivered.replay_one(letter["id"])
    await post.run(60)
    assert len(other.requests) == 1


# -- waiting as told -------------------------------------------------------------------------------------------------


def attempted(post: Post) -> list[int]:
    """When each attempt was made, by the app's own clock."""
    return [int(one.headers["webhook-timestamp"]) for one in post.receiver.requests]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_receiver_that_says_when_is_asked_then(post: Post, status: int) -> None:
    """Retry-After counts when it is longer than the schedule's pause, and is bounded by an hour."""
    post.receiver.answer_with(status, Retry_After="120")
    post.receiver.answer_with(status, Retry_After="86400")
    post.receiver.answer_with(status, Retry_After="1")
    await post.tell("patient", about="m")
    await post.run(20_000)
    first, second, third, fourth = attempted(post)
    assert 119 <= second - first < 1200  # whole seconds of the app's clock; the schedule alone waits 5
    assert 3599 <= third - second < 7200
    assert fourth - third >= 15  # the schedule's third pause


async def test_a_500_with_retry_after_keeps_the_schedule(post: Post) -> None:
    """Only 429 and 503 are about when."""
    post.receiver.answer_with(500, Retry_After="1200")
    await post.tell("x", about="m")
    await post.run(20_000)
    first, second = attempted(post)
    assert second - first < 600


# -- health ----------------------------------------------------------------------------------------------------------


async def fail_for(post: Post, days: float, *, every_s: int = 12 * 3600) -> None:
    """The receiver answers 500 to everything for that long; an event comes every few hours."""
    post.receiver.answer_next(*[500] * 100_000)
    for _ in range(int(days * DAY_S / every_s) + 1):
        what = f"failed at {post.shop.clock()}"
        await post.tell(what, about=what)
        await post.run(every_s)


async def test_failures_in_a_row_are_shown_and_end_with_a_success(post: Post) -> None:
    """Since when, how many, and the last error, until something arrives."""
    post.receiver.answer_next(500, 404)
    await post.tell("x", about="m")
    await post.run(8)
    shown = await endpoint(post)
    assert (shown["state"], shown["failures"], shown["lastError"]["status"]) == ("failing", 2, 404)
    assert shown["lastError"]["event"] == "messageNew"
    assert shown["failingSince"] < shown["lastError"]["date"]
    assert shown["url"] == post.receiver.url
    await post.run(60)
    shown = await endpoint(post)
    assert (shown["state"], shown["failures"], shown["lastError"]) == ("healthy", 0, None)
    assert shown["lastSuccess"]


async def test_an_endpoint_that_fails_for_three_days_is_paused(post: Post) -> None:
    """Not before; then its events are held without a request, except one each hour."""
    await fail_for(post, 2)
    assert (await endpoint(post))["state"] == "failing"
    await fail_for(post, 0.5)
    assert (await endpoint(post))["state"] == "paused"
    await post.run(7200)
    asked = len(post.receiver.requests)
    for number in range(5):
        await post.tell(f"held {number}", about="h", order=number)
    await post.run(60)
    assert not [one for one in post.heard() if one.startswith("held")]
    states = await post.states()
    assert {states[f"held {number}"] for number in range(5)} == {"held"}
    assert (await endpoint(post))["held"] >= 5
    await post.run(5 * 3600)
    assert len(post.receiver.requests) - asked in (5, 6)


async def paused(post: Post, held: int = 4) -> None:
    """A paused endpoint for which that many events are held, and the one whose failure was the last straw."""
    post.receiver.answer_next(*[500] * 50)
    await post.tell("held last straw", about="s")
    await post.run()
    table = post.shop.services.tables["endpoints"]
    (row,) = await table.partition("endpoint")
    since = (post.shop.clock() - timedelta(days=3)).isoformat()
    await table.put(Row(row.partition, row.key, row.value | {"failingSince": since, "failures": 20}))
    await post.run(30)
    assert (await endpoint(post))["state"] == "paused"
    for number in range(held):
        await post.tell(f"held {number:03d}", about="h", order=number)
        post.shop.advance(0.01)
    await post.run(30)
    post.receiver._answers.clear()
    post.receiver.requests.clear()


async def test_a_probe_that_arrives_resumes_the_endpoint(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the hour everything held goes out, in order, and the endpoint is well."""
    monkeypatch.setattr("shared.undelivered.BATCH", 5)
    await paused(post, 13)
    await post.run(3700)
    assert post.heard() == ["held last straw", *(f"held {number:03d}" for number in range(13))]
    shown = await endpoint(post)
    assert (shown["state"], shown["held"], shown["lastError"]) == ("healthy", 0, None)
    assert "held" not in (await post.states()).values()


async def test_an_endpoint_is_resumed_by_hand(post: Post) -> None:
    """At once, without a probe; asked twice it does nothing; nobody else is resumed."""
    await paused(post)
    shown = await endpoint(post)
    services = post.shop.services
    assert await services.endpoints.resume("0" * 24) is None
    assert await services.endpoints.resume(shown["id"]) is True
    await services.undelivered.start_release(shown["id"])
    assert await services.endpoints.resume(shown["id"]) is False
    await post.run(120)
    assert post.heard() == ["held last straw", *(f"held {number:03d}" for number in range(4))]


async def test_a_probe_does_not_use_up_the_attempts_of_its_event(post: Post) -> None:
    """However long the pause, the event is held with the attempts it had."""
    await paused(post)
    before = {row.key: row.columns["attempts"] for row in await post.rows() if row.columns["state"] == "held"}
    post.receiver.answer_next(*[500] * 1000)
    await post.run(12 * 3600)
    assert len(post.receiver.requests) in (11, 12)
    after = {row.key: row.columns["attempts"] for row in await post.rows() if row.columns["state"] == "held"}
    assert after == before


async def test_a_pause_whose_messages_were_lost_goes_on_with_the_hourly_look(post: Post) -> None:
    """Lost probes begin again; a resume that died before it released anything is finished."""
    await paused(post)
    post.shop.queues.waiting.clear()
    await post.run(3 * 3600)
    assert post.receiver.requests == []
    post.receiver.answer_next(500)
    await post.shop.services.webhooks.take_up(timedelta(minutes=20))
    await post.run(60)
    assert len(post.receiver.requests) == 1
    await post.shop.services.endpoints.resume((await endpoint(post))["id"])
    post.shop.queues.waiting.clear()
    await post.shop.services.webhooks.take_up(timedelta(minutes=20))
    await post.run(120)
    assert "held" not in (await post.states()).values()


async def test_another_process_that_thinks_it_paused_strands_nothing(post: Post) -> None:
    """Resumed here, an instance that has not heard of it holds one more event: it is let go at once."""
    await paused(post)
    other = post.shop.build()
    try:
        shown = await endpoint(post)
        await other.endpoints.health(shown["id"])
        await post.shop.services.endpoints.resume(shown["id"])
        await post.shop.services.undelivered.start_release(shown["id"])
        await post.run(5)
        await post.tell("late", about="late")
        ((_, job),) = [one for one in post.shop.queues.take_due() if one[1].get("event")]
        await other.webhooks.deliver(job)
        assert (await post.states())["late"] == "held"
        await post.run(60)
        assert "late" in post.heard()
    finally:
        await other.close()


async def test_events_held_for_a_target_nobody_names_any_more_go_to_the_new_one(post: Post, other: Receiver) -> None:
    """The setting points elsewhere: what was held goes there with the next probe, and so does what comes after it."""
    await paused(post)
    await post.hear(other.url)
    await post.tell("held and after", about="h", order=99)
    await post.run(3800)
    assert post.receiver.requests == []
    heard = [one.json["data"]["id"] for one in other.requests]
    assert "held last straw" in heard
    heard.remove("held last straw")
    assert heard == [*(f"held {number:03d}" for number in range(4)), "held and after"]


async def test_events_held_for_a_month_become_dead_letters(post: Post) -> None:
    """They are not forgotten without a word."""
    await paused(post)
    post.receiver.answer_next(*[500] * 1000)
    post.shop.queues.waiting.clear()
    post.shop.advance(31 * DAY_S)
    await post.shop.services.webhooks.sweep(EVENTS_FOR)
    reasons = [one["error"]["reason"] for one in await letters(post)]
    assert reasons.count("The endpoint was paused for a month") >= 4
    assert (await endpoint(post))["held"] == 0


async def test_the_url_of_an_endpoint_is_sealed_at_rest_and_shown_without_credentials(post: Post) -> None:
    """Paths and queries of webhooks are secrets themselves."""
    await post.hear(post.receiver.url.replace("http://", "http://user:pass-word@") + "/T0-secret-path?key=secret-query")
    await post.tell("x", about="m")
    await post.run()
    (row,) = await post.shop.services.tables["endpoints"].partition("endpoint")
    assert row.value["origin"] == f"http://127.0.0.1:{post.receiver.port}"
    assert "secret" not in str(row)
    shown = await endpoint(post)
    assert shown["url"] == f"{post.receiver.url}/T0-secret-path?key=secret-query"
    damaged = row.value | {"url": row.value["url"][:-4] + "AAAA"}
    await post.shop.services.tables["endpoints"].put(Row(row.partition, row.key, damaged))
    assert (await endpoint(post))["url"] == f"http://127.0.0.1:{post.receiver.port}/******"


async def test_a_slow_endpoint_leaves_room_for_the_others(post: Post, other: Receiver) -> None:
    """A receiver that does not answer holds four attempts of this process; the next ones are put back, and another
    receiver is served meanwhile. All arrive in the end."""
    post.receiver.answer_next(500)
    await post.tell("first", about="first")
    await post.run()
    post.receiver.gate = asyncio.Event()
    for number in range(12):
        await post.tell(f"slow {number}", about=f"s{number}")
    jobs = [job for _, job in post.shop.queues.take_due()]
    flying = [asyncio.create_task(post.shop.services.webhooks.deliver(job)) for job in jobs]

    async def put_back() -> bool:
        return sum(task.done() for task in flying) == 8

    await eventually(put_back, "eight of twelve put back", 60)
    await post.hear(other.url)
    await post.tell("quick", about="quick")
    for _, job in post.shop.queues.take_due():
        await post.shop.services.webhooks.deliver(job)
    assert [one.json["data"]["id"] for one in other.requests] == ["quick"]
    await post.hear()
    post.receiver.gate.set()
    await asyncio.gather(*flying)
    await post.run(600)
    assert set(post.heard()) == {"first", *(f"slow {number}" for number in range(12))}
    assert len(post.heard()) == 14
