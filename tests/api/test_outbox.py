"""The outbox under races, deaths and repeats: what is waiting is sent once or not at all, and shown as it is."""

import asyncio
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from shared import traces
from shared.clock import iso
from shared.outbox_records import CANCELLED, QUEUE
from tests.support.desk import Json
from tests.support.workshop import RITA, SUPPORT, Workshop

TO = [{"address": RITA}]
SEND = {"path_regex": "/sendMail$"}
LOOKS = {"method": "GET", "path_regex": "/messages$"}


@pytest.fixture
async def account(workshop: Workshop) -> str:
    """A shared mailbox on a person's rights."""
    return await workshop.delegated(SUPPORT, await workshop.own())


async def accept(shop: Workshop, account: str, **fields: Any) -> Json:
    """One mail."""
    return await shop.services.submit.accept(account, {"to": TO, "text": "x", **fields})


def later(shop: Workshop, seconds: float) -> str:
    """A time on the workshop's clock."""
    return iso(datetime.fromtimestamp(shop.clock().timestamp() + seconds, tz=shop.clock().tzinfo))


# -- races -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay_ms", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_of_a_cancel_and_a_send_at_the_same_moment_exactly_one_wins(
    workshop: Workshop, account: str, delay_ms: int
) -> None:
    """Cancelled means never sent; not cancelled means sent."""
    answer = await accept(workshop, account)
    (job,) = [job for name, job in workshop.queues.take_due() if name == QUEUE]

    async def cancel() -> bool:
        await asyncio.sleep(delay_ms / 1000)
        return await workshop.services.outbox.cancel(answer["queueId"])

    cancelled, _ = await asyncio.gather(cancel(), workshop.services.outbox.send(job))
    await workshop.run_for(700, tick_s=300)
    assert len(workshop.arrived(RITA, answer["messageId"])) == (0 if cancelled else 1)


async def test_of_many_cancels_at_once_one_says_deleted(workshop: Workshop, account: str) -> None:
    """`deleted: true` is said once."""
    answer = await accept(workshop, account, sendAt=later(workshop, 60))
    said = await asyncio.gather(*(workshop.services.outbox.cancel(answer["queueId"]) for _ in range(6)))
    assert sorted(said) == [False] * 5 + [True]


async def test_a_cancel_whose_answer_was_lost_is_still_a_cancel(workshop: Workshop, account: str) -> None:
    """The storage client repeats the write and meets its own: `deleted: true` all the same."""
    answer = await accept(workshop, account, sendAt=later(workshop, 60))
    table = workshop.services.tables["outbox"]
    replace = table.replace

    async def twice(row: Any) -> Any:
        await replace(row)
        return await replace(row)

    table.replace = twice  # type: ignore[method-assign]
    assert await workshop.services.outbox.cancel(answer["queueId"]) is True


async def test_a_cancelled_mail_leaves_a_record_without_its_body_until_it_is_swept(
    workshop: Workshop, account: str
) -> None:
    """Neither shown nor sent by a late message, and gone after two days."""
    answer = await accept(workshop, account, sendAt=later(workshop, 60))
    assert await workshop.services.outbox.cancel(answer["queueId"]) is True
    table, key = workshop.services.tables["outbox"], answer["queueId"]
    row = await table.get(key[-2:], key)
    assert row is not None
    assert (row.columns["state"], row.body) == (CANCELLED, b"")
    assert await workshop.services.outbox.entry(key) is None
    assert key not in [one["queueId"] for one in await workshop.services.outbox.entries()]
    workshop.advance(61)
    await workshop.services.outbox.send({"queueId": key})
    assert workshop.arrived(RITA, answer["messageId"]) == []
    from shared.jobs import ENDED_MAILS_FOR

    assert await workshop.services.outbox.sweep(ENDED_MAILS_FOR) == 0
    workshop.advance(2 * 86400 + 60)
    assert await workshop.services.outbox.sweep(ENDED_MAILS_FOR) == 1
    assert await table.get(key[-2:], key) is None


# -- accounts that go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made_again", [False, True])
async def test_a_mail_accepted_while_its_account_was_being_deleted_is_never_sent(
    workshop: Workshop, account: str, made_again: bool
) -> None:
    """Its row appears after the outbox was emptied; also an account made again under the id does not send it."""
    table, entered, going = workshop.services.tables["outbox"], asyncio.Event(), asyncio.Event()
    insert = table.insert

    async def slowly(row: Any) -> Any:
        entered.set()
        await going.wait()
        return await insert(row)

    table.insert = slowly  # type: ignore[method-assign]
    accepting = asyncio.ensure_future(accept(workshop, account, sendAt=later(workshop, 30)))
    await entered.wait()
    record = await workshop.record(account)
    await workshop.services.onboarding.delete(account)
    if made_again:
        await workshop.services.accounts.insert(record | {"birth": "another"})
    going.set()
    answer = await accepting
    await workshop.run_for(900, tick_s=300)
    assert workshop.arrived(RITA, answer["messageId"]) == []
    assert await workshop.services.outbox.stored(answer["queueId"]) is None


async def test_a_late_deletion_does_not_take_the_mail_of_the_account_made_again(
    workshop: Workshop, account: str
) -> None:
    """Emptying the outbox of the old account leaves what the new one has accepted."""
    old = await workshop.record(account)
    await workshop.services.accounts.change(account, lambda record: record | {"birth": "another"})
    answer = await accept(workshop, account)
    await workshop.services.outbox.drop_account(account, old["birth"])
    await workshop.run_due()
    assert len(workshop.arrived(RITA, answer["messageId"])) == 1


async def test_an_unclear_mail_of_an_account_that_is_gone_is_not_sent_by_its_successor(
    workshop: Workshop, account: str
) -> None:
    """It is dropped when it is looked at, instead of being missed in the other mailbox and tried again."""
    workshop.world.faults.add(SEND, {"status": 504})
    answer = await accept(workshop, account)
    await workshop.run_due()
    await workshop.services.accounts.change(account, lambda record: record | {"birth": "another"})
    await workshop.run_for(1200, tick_s=300)
    assert workshop.arrived(RITA, answer["messageId"]) == []
    assert len(workshop.requests("POST", "sendMail$")) == 1
    assert await workshop.services.outbox.stored(answer["queueId"]) is None


# -- looking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structured", [False, True])
async def test_an_older_mail_with_the_same_message_id_is_not_taken_for_this_one(
    workshop: Workshop, account: str, structured: bool
) -> None:
    """The caller uses a Message-ID twice, and the second send fails unclearly: it is sent after all."""
    given = {"messageId": "<twice@contoso.example>"}
    services = workshop.services
    for subject in ("first", "second"):
        if subject == "second":
            workshop.world.faults.add(SEND, {"status": 504})
        fields = {"to": TO, "text": "x", "subject": subject, **given}
        await services.submit.accept(account, fields, structured=structured)
        await workshop.run_due()
    await workshop.run_for(1200, tick_s=300)
    subjects = [one["subject"] for one in workshop.arrived(RITA, "<twice@contoso.example>")]
    assert sorted(subjects) == ["first", "second"]


@pytest.mark.parametrize("structured", [False, True])
async def test_a_mail_whose_message_id_was_replaced_is_found_by_its_stamp(
    workshop: Workshop, account: str, structured: bool
) -> None:
    """Sent under another Message-ID before the answer was lost: found, and not sent again."""
    workshop.world.faults.add(SEND, {"after": {"status": 504}})
    fields = {"to": TO, "text": "x", "subject": "renamed"}
    answer = await workshop.services.submit.accept(account, fields, structured=structured)
    await workshop.run_due()
    for box in (SUPPORT, RITA):
        for copy in workshop.mailbox(box).all_newest_first():
            if copy.properties["internetMessageId"] == answer["messageId"]:
                copy.properties["internetMessageId"] = "<other@contoso.example>"
    await workshop.run_for(1200, tick_s=300)
    assert len(workshop.requests("POST", "sendMail$")) == 1
    assert len(await workshop.events(account, "messageSent")) == 1


@pytest.mark.parametrize("status", [400, 501])
async def test_a_server_that_does_not_know_the_stamp_query_only_loses_that_way_of_looking(
    workshop: Workshop, account: str, status: int
) -> None:
    """The Message-ID decides alone: absent is absent, and the mail is tried again."""
    workshop.world.faults.add(SEND, {"status": 504})
    refused = workshop.world.faults.add(LOOKS | {"query_regex": "ep/value eq"}, {"status": status}, None)
    answer = await accept(workshop, account)
    await workshop.run_for(1200, tick_s=300)
    assert refused.applied >= 3
    assert len(workshop.arrived(RITA, answer["messageId"])) == 1


async def test_a_mail_that_stays_in_drafts_is_unknown_and_both_facts_are_told(workshop: Workshop, account: str) -> None:
    """Neither sent nor absent: not tried again, and the event and the entry say the same two things."""
    workshop.world.faults.add(SEND, {"drop": True})
    answer = await accept(workshop, account)
    await workshop.run_due()
    box = workshop.mailbox(SUPPORT)
    from local.tenant.messages import NewMessage

    draft = NewMessage({"internetMessageId": answer["messageId"], "subject": "x"})
    box.add(draft, box.well_known["drafts"])
    await workshop.run_for(4000, tick_s=600)
    (event,) = await workshop.events(account, "messageFailed")
    entry = await workshop.services.outbox.entry(answer["queueId"])
    assert entry is not None
    assert event["data"]["errorCode"] == entry["progress"]["error"]["code"] == "SendOutcomeUnknown"
    for text in (event["data"]["error"], entry["progress"]["error"]["message"]):
        assert "NoAnswer" in text
        assert "Drafts" in text
    assert len(workshop.requests("POST", "sendMail$")) == 1


async def test_looking_asks_once_when_the_message_id_is_found(workshop: Workshop, account: str) -> None:
    """The second way is for what the first does not find."""
    workshop.world.faults.add(SEND, {"after": {"status": 504}})
    answer = await accept(workshop, account)
    await workshop.run_due()
    record = await workshop.record(account)
    reach = await workshop.services.accounts.reach(record)
    asked = len(workshop.requests("GET", "/messages$"))
    found = await traces.look(workshop.services.access, reach, answer["messageId"], answer["queueId"])
    assert found == traces.FOUND
    assert len(workshop.requests("GET", "/messages$")) == asked + 1


# -- throttling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("retry_after", ["7", "7.25"])
async def test_throttling_waits_as_told_uses_no_attempt_and_survives_the_process(
    workshop: Workshop, account: str, status: int, retry_after: str
) -> None:
    """The pause is in storage: another process keeps it, and the only attempt is still there after three."""
    workshop.world.faults.add(SEND, {"status": status, "retry_after": retry_after}, 3)
    answer = await accept(workshop, account, deliveryAttempts=1)
    await workshop.run_due()
    entry = await workshop.services.outbox.entry(answer["queueId"])
    assert entry is not None
    progress = "queued" if status == 429 else "processing"  # a busy server may have done the work, so it is looked for
    assert (entry["attemptsMade"], entry["progress"]) == (0, {"status": progress})
    other = workshop.build()
    await other.outbox.send({"queueId": answer["queueId"]})
    await other.close()
    assert len(workshop.requests("POST", "sendMail$")) == 1
    await workshop.run_for(120)
    times = [one.time for one in workshop.requests("POST", "sendMail$")]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    assert len(gaps) == 3
    assert min(gaps) >= float(retry_after) - 2
    assert len(workshop.arrived(RITA, answer["messageId"])) == 1
    assert await workshop.events(account, "messageDeliveryError", "messageFailed") == []


async def test_throttling_without_a_time_waits_longer_each_time(workshop: Workshop, account: str) -> None:
    """2 s doubling up to a minute, give or take a fifth."""
    workshop.world.faults.add(SEND, {"status": 429}, 8)
    answer = await accept(workshop, account)
    await workshop.run_for(900)
    assert len(workshop.arrived(RITA, answer["messageId"])) == 1
    times = [one.time for one in workshop.requests("POST", "sendMail$")]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    for number, gap in enumerate(gaps):
        wanted = min(2 * 2**number, 60)
        assert wanted * 0.8 - 2.1 <= gap <= wanted * 1.2 + 3


# -- listing ---------------------------------------------------------------------------------------------------------


async def test_the_outbox_lists_delayed_then_waiting_then_active_then_failed_each_oldest_first(
    workshop: Workshop, account: str
) -> None:
    """The contract's order (15), and bodies stay where they are."""
    made: dict[str, str] = {}

    async def one(name: str, **fields: Any) -> None:
        made[(await accept(workshop, account, text="x" * 300_000, **fields))["queueId"]] = name

    workshop.world.faults.add(SEND, {"status": 403}, 2)
    await one("failed 1")
    await workshop.run_due()
    workshop.advance(1)
    await one("failed 2")
    await workshop.run_due()
    workshop.world.faults.add(SEND, {"status": 504}, 1)
    await one("active")
    await workshop.run_due()
    await one("waiting 1")
    workshop.advance(1)
    await one("waiting 2")
    await one("delayed 2", sendAt=later(workshop, 500))
    await one("delayed 1", sendAt=later(workshop, 400))
    listed = [made[entry["queueId"]] for entry in await workshop.services.outbox.entries()]
    wanted = ["delayed 1", "delayed 2", "waiting 1", "waiting 2", "active", "failed 1", "failed 2"]
    assert listed == wanted
    rows = [row async for row in workshop.services.tables["outbox"].scan(columns=("state",))]
    assert {len(row.body) for row in rows} == {0}


async def test_a_record_whose_document_shrinks_reads_as_it_was_written(workshop: Workshop) -> None:
    """A change in place ends the longer document before it, and leaves the body."""
    import os

    from shared.storage.tables import Row

    table, body = workshop.services.tables["outbox"], os.urandom(200_000)
    long = {"text": os.urandom(120_000).hex()}
    row = await table.insert(Row("p", "k", long, columns={"state": "a"}, body=body))
    for value in ({"text": "short"}, long, {"text": "again"}):
        row = await table.merge(Row("p", "k", value, row.etag, {"state": "b"}))
        read = await table.get("p", "k")
        assert read is not None
        assert (read.value, read.body, read.columns) == (value, body, {"state": "b"})
