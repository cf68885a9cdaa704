"""One damaged record of an event: seen by the operator, in nobody's way."""

from datetime import timedelta

import pytest

from shared.jobs import EVENTS_FOR
from shared.storage.keys import digest
from tests.api.test_webhook_health import paused
from tests.support.damage import damage
from tests.support.post import Post
from tests.support.receiver import Receiver
from tests.support.workshop import Workshop

STUCK = timedelta(minutes=20)
DEAD = "/v1/webhooks/dead"


@pytest.fixture
async def post(workshop: Workshop, receiver: Receiver) -> Post:
    """An account whose events go to the test's receiver."""
    post = Post(workshop, receiver)
    await post.open()
    return post


async def break_event(post: Post, about: str, number: int = 0) -> str:
    """Damages the record of one event about a thing; the event's id."""
    table = post.shop.services.tables["events"]
    keys = [key for _, key in await table.keys() if key.startswith(digest(about)[:24])]
    await damage(table, post.account, keys[number])
    return keys[number].rpartition("~")[2]


async def letters(post: Post) -> list[tuple[str, str, str]]:
    """The dead letters as the API lists them: id, account, and why."""
    status, answer = await post.shop.call("GET", DEAD)
    assert status == 200
    return [(one["id"], one["account"], one["error"]["reason"]) for one in answer["events"]]


async def test_a_damaged_event_becomes_a_dead_letter_and_later_ones_go_out(post: Post) -> None:
    """What happened later to the same message does not wait for it; it is listed, and cannot be replayed."""
    await post.tell("new", about="m")
    await post.tell("seen", "messageUpdated", about="m", order=1)
    event = await break_event(post, "m")
    await post.run(120)
    assert post.heard() == ["seen"]
    assert await letters(post) == [(event, post.account, "The stored record of the event is damaged")]
    for method, path in (("GET", f"{DEAD}/{event}"), ("POST", f"{DEAD}/{event}/replay")):
        status, answer = await post.shop.call(method, path)
        assert (status, answer["code"]) == (503, "RecordDamaged")
    assert (await post.shop.call("POST", "/v1/webhooks/replay", {}))[1] == {"replayed": 0, "more": False}
    assert len(await letters(post)) == 1
    await post.shop.services.webhooks.sweep(EVENTS_FOR)
    assert len(await letters(post)) == 1


async def test_a_damaged_event_can_be_dropped_and_is_not_told_again(post: Post) -> None:
    """The bare record stays in its place, so that the same happening is known."""
    await post.tell("new", about="m")
    event = await break_event(post, "m")
    await post.run()
    assert (await post.shop.call("DELETE", f"{DEAD}/{event}"))[1] == {"deleted": True}
    await post.tell("new", about="m")
    await post.run(60)
    assert (post.heard(), await letters(post)) == ([], [])


async def test_telling_a_happening_again_whose_record_is_damaged_does_no_harm(post: Post) -> None:
    """It was recorded: the caller goes on."""
    services = post.shop.services
    await post.tell("new", about="m")
    await break_event(post, "m")
    await post.tell("new", about="m")
    assert await services.events.seen(post.account, "messageNew new", about="m")


async def test_the_hourly_look_passes_a_damaged_event(post: Post) -> None:
    """Two lost messages, one of a damaged record: the other is queued again, and the damaged one listed."""
    for about in ("a", "b", "c"):
        await post.tell(about, about=about)
    event = await break_event(post, "b")
    post.shop.queues.waiting.clear()
    post.shop.advance(1300)
    assert await post.shop.services.webhooks.take_up(STUCK) == 2
    await post.run(60)
    assert (sorted(post.heard()), [one[0] for one in await letters(post)]) == (["a", "c"], [event])


async def test_old_events_are_removed_past_damaged_ones_and_these_with_them(post: Post) -> None:
    """Delivered or dead, sound or not: after a month, for the dead from their death on, nothing is left."""
    for about in ("a", "b", "c"):
        await post.tell(about, about=about)
    await break_event(post, "c")
    await post.run(60)
    await break_event(post, "a")
    post.shop.advance(31 * 86400)
    await post.shop.services.webhooks.sweep(EVENTS_FOR)
    await post.shop.services.webhooks.sweep(EVENTS_FOR)
    table = post.shop.services.tables["events"]
    left = [key for _, key in await table.keys() if key[:24] in {digest(about)[:24] for about in "abc"}]
    assert (left, await letters(post)) == ([], [])


async def test_a_damaged_held_event_holds_up_neither_release_nor_probe(post: Post) -> None:
    """The oldest held one is damaged: the probe takes the next, everything else goes out, and nothing stays held."""
    await paused(post, 3)
    event = await break_event(post, "s")
    await post.run(3 * 3600)
    assert post.heard() == ["held 000", "held 001", "held 002"]
    (shown,) = (await post.shop.call("GET", "/v1/webhooks/endpoints"))[1]["endpoints"]
    assert (shown["state"], shown["held"]) == ("healthy", 0)
    assert [one[0] for one in await letters(post)] == [event]


async def test_an_event_behind_a_damaged_held_one_is_delivered(post: Post) -> None:
    """It would have let the earlier one go first: that one is set aside instead."""
    await paused(post, 1)
    event = await break_event(post, "h")
    services = post.shop.services
    (health,) = await services.endpoints.all()
    await services.endpoints.resume(health.endpoint)
    await post.tell("later", about="h", order=5)
    await post.run(120)
    assert "later" in post.heard()
    assert [one[0] for one in await letters(post)] == [event]


async def test_a_deleted_account_leaves_no_damaged_events(post: Post) -> None:
    """Its deletion ends, and nothing of it is shown."""
    await paused(post, 2)
    await break_event(post, "h", 1)
    await post.shop.services.onboarding.delete(post.account)
    await post.run(60)
    assert [one for one in await letters(post) if one[1] == post.account] == []


# -- the index ---------------------------------------------------------------------------------------------------------


async def test_held_events_without_an_entry_are_found_by_the_hourly_look(post: Post) -> None:
    """The process died between record and entry: an hour later it is held like the others, and released with them."""
    await paused(post, 3)
    index = post.shop.services.tables["undelivered"]
    partition, key = (await index.keys())[1]
    await index.delete(partition, key)
    post.shop.advance(1300)
    await post.shop.services.webhooks.take_up(STUCK)
    assert len(await index.keys()) == 4
    await post.run(2 * 3600)
    assert sorted(post.heard()) == ["held 000", "held 001", "held 002", "held last straw"]


async def test_the_whole_index_may_be_damaged(post: Post) -> None:
    """Entries are made anew from the events: dead letters are listed again, held events go out."""
    post.receiver.answer_next(410)
    await post.tell("dead", about="d")
    await post.run()
    await paused(post, 2)
    services = post.shop.services
    index = services.tables["undelivered"]
    for partition, key in await index.keys():
        await damage(index, partition, key)
    assert await letters(post) == []
    post.shop.advance(1300)
    await services.webhooks.take_up(STUCK)
    await services.webhooks.sweep(EVENTS_FOR)
    assert len(await letters(post)) == 1
    await post.run(2 * 3600)
    assert sorted(post.heard()) == ["held 000", "held 001", "held last straw"]
