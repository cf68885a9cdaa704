"""Events about one thing arrive in order, whatever fails on the way, and processes that die lose none."""

import asyncio
import random
from typing import Any

import pytest

from shared.events import event_id
from shared.storage.tables import Row
from tests.support.post import Died, Post, dying
from tests.support.receiver import Receiver
from tests.support.workshop import Workshop


@pytest.fixture
async def post(workshop: Workshop, receiver: Receiver) -> Post:
    """An account whose events go to the test's receiver."""
    post = Post(workshop, receiver)
    await post.open()
    return post


async def test_a_change_waits_until_what_came_before_was_delivered(post: Post) -> None:
    """The first event fails twice; the others come after it, in the order in which they happened."""
    post.receiver.answer_next(500, 500)
    await post.tell("new", about="m")
    await post.tell("seen", "messageUpdated", about="m", order=1)
    await post.tell("flagged", "messageUpdated", about="m", order=2)
    await post.tell("gone", "messageDeleted", about="m", order=10**9)
    await post.run(600)
    assert post.heard() == ["new", "new", "new", "seen", "flagged", "gone"]


async def test_order_holds_whatever_way_the_queue_hands_out_messages(post: Post) -> None:
    """Five messages' events, doubled and shuffled, over a receiver that fails often; each message in its order."""
    draw = random.Random(7)
    post.receiver.answer_next(*(draw.choice((200, 500, 503)) for _ in range(40)))
    for number in range(6):
        for message in range(5):
            kind = "messageUpdated" if number else "messageNew"
            await post.tell(f"{message}-{number}", kind, about=f"m{message}", order=number)
    post.shop.queues.waiting = post.shop.queues.waiting * 2
    draw.shuffle(post.shop.queues.waiting)
    await post.run(20_000)
    arrived = list(dict.fromkeys(what for what in post.heard()))
    for message in range(5):
        assert [one for one in arrived if one.startswith(f"{message}-")] == [f"{message}-{n}" for n in range(6)]
    assert set((await post.states()).values()) == {"delivered"}


async def test_other_things_are_not_held_up(post: Post) -> None:
    """While one message's event waits for its retry, another message's events go out."""
    post.receiver.answer_next(500)
    await post.tell("stuck", about="m")
    await post.run()
    await post.tell("other", about="n")
    await post.tell("other seen", "messageUpdated", about="n", order=1)
    await post.tell("stuck seen", "messageUpdated", about="m", order=1)
    await post.run(3)
    assert post.heard() == ["stuck", "other", "other seen"]
    await post.run(60)
    assert post.heard()[3:] == ["stuck", "stuck seen"]


async def test_a_dead_letter_holds_nothing_up(post: Post) -> None:
    """What will never arrive is not waited for."""
    post.receiver.answer_next(410)
    await post.tell("refused", about="m")
    await post.tell("seen", "messageUpdated", about="m", order=1)
    await post.run(60)
    assert post.heard() == ["refused", "seen"]
    assert await post.states() == {"refused": "dead", "seen": "delivered"}


async def test_an_event_recorded_before_events_had_an_order_is_delivered(post: Post) -> None:
    """Its record is keyed by the event id alone, and so is its message; telling it again changes nothing."""
    event = event_id(post.account, "sent q")
    envelope = {
        "serviceUrl": "", "account": post.account, "date": "2026-01-01T00:00:00.000Z", "event": "messageSent",
        "data": {"id": "old"},
    }  # fmt: skip
    row = Row(post.account, event, {"envelope": envelope, "target": None}, columns={"state": "queued", "attempts": 0})
    await post.shop.services.tables["events"].insert(row)
    await post.shop.queues.put("webhooks", {"account": post.account, "event": event, "queued": envelope["date"]})
    await post.run()
    (heard,) = post.receiver.requests
    assert heard.json == envelope
    assert heard.headers["X-EE-Wh-Event-Id"] == heard.headers["webhook-id"] == event
    assert await post.shop.services.events.seen(post.account, "sent q", about="q", order=10**6)
    assert not await post.shop.services.events.seen(post.account, "sent other", about="q", order=10**6)


async def test_a_lost_message_is_made_up_for_by_the_hourly_look(post: Post) -> None:
    """The record is there, its message is not: the sweep queues it again, and again only after a while."""
    from datetime import timedelta

    await post.tell("lost", about="m")
    post.shop.queues.waiting.clear()
    assert await post.shop.services.webhooks.take_up(timedelta(minutes=20)) == 0
    post.shop.advance(1300)
    assert await post.shop.services.webhooks.take_up(timedelta(minutes=20)) == 1
    await post.run(60)
    assert post.heard() == ["lost"]


async def crash(post: Post, job: Any, at: int, *, after: bool) -> tuple[bool, list[str]]:
    """Runs one message in a process that dies at that step; the message comes back ten minutes later, as the host's
    does. Whether it died, and its steps."""
    died = False
    with dying(post.shop.services, at, after=after) as steps:
        try:
            await post.shop.services.webhooks.deliver(job)
        except Died:
            died = True
    if died:
        post.shop.services.service_settings._kept = None
        post.shop.services.endpoints._kept.clear()
        await post.shop.queues.put("webhooks", job, 600)
    return died, steps


SCENES: dict[str, tuple[tuple[int, ...], dict[str, Any], str]] = {
    "delivered at once": ((), {}, "delivered"),
    "after an earlier event": ((), {"order": 5}, "delivered"),
    "failed once": ((500,), {}, "delivered"),
    "told to wait": ((503, 500), {}, "delivered"),
    "gone": ((410, 410), {}, "dead"),
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("scene", SCENES)
async def test_a_process_that_dies_at_any_step_loses_no_event(post: Post, scene: str, after: bool) -> None:
    """At every step of a delivery, before and after it: the event arrives in the end, under one id, repeated at most
    once; or it is a dead letter that the API lists."""
    answers, where, state = SCENES[scene]
    for at in range(1, 60):
        post.receiver.requests.clear()
        post.receiver._answers.clear()
        post.receiver.answer_next(*answers)
        what = f"{scene} {at}"
        await post.tell(what, about=what, **where)
        ((_, job),) = post.shop.queues.take_due()
        died, steps = await crash(post, job, at, after=after)
        await post.run(4000)
        assert (await post.states())[what] == state, steps
        heard = [one for one in post.receiver.requests if one.json["data"]["id"] == what]
        assert len({one.headers["webhook-id"] for one in heard}) == 1, steps
        assert len(heard) <= len(answers) + 1 + died, steps
        listed = [letter["id"] for letter in await post.shop.services.undelivered.dead()]
        assert (heard[0].headers["webhook-id"] in listed) is (state == "dead"), steps
        if not died:
            break
    assert not died
    assert at > 5  # there were steps to die at


async def test_an_event_queued_many_times_at_once_is_delivered_once(post: Post) -> None:
    """Several instances at the same moment: one claims it."""
    await post.tell("once", "messageUpdated", about="m", order=3)
    jobs = [job for _, job in post.shop.queues.take_due()]
    await asyncio.gather(*(post.shop.services.webhooks.deliver(job) for job in jobs * 8))
    await post.run(3600)
    assert post.heard() == ["once"]
