"""Idempotency-Key: one mail and one answer, over HTTP and across processes, lost answers and deaths (14.10)."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from azure.core.exceptions import ServiceRequestError

from local import services
from shared.errors import ApiError, OutcomeOpen
from shared.outbox_records import VOID
from shared.storage.tables import Table
from tests.support.application import Answer, Application
from tests.support.desk import Desk, Json, soon
from tests.support.tenant import Tenant
from tests.support.workshop import RITA, SUPPORT, Workshop

TO = [{"address": RITA}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(app: Application, tenant: Tenant) -> AsyncIterator[tuple[Desk, str]]:
    """A desk with one mailbox."""
    await tenant.reset()
    desk = Desk(app, tenant)
    yield desk, await desk.own()
    await desk.close()


async def submit(desk: Desk, account: str, key: str, query: str = "", **fields: Any) -> Answer:
    """One submit with a key."""
    body = {"to": TO, "text": "x", **fields}
    return await desk.app.call("POST", f"/v1/account/{account}/submit{query}", body, {"Idempotency-Key": key})


def new_key() -> str:
    """A key that nobody used."""
    return f"order-{secrets.token_hex(6)}"


async def test_a_repeat_waits_for_a_first_call_that_fetches_for_minutes(workshop: Workshop) -> None:
    """Attachments by reference may take longer than a lease: the first call's mail is sent, and both name it."""
    shop, other = workshop, workshop.build()
    account = await shop.application(SUPPORT)

    async def tick(seconds: float) -> None:
        await asyncio.sleep(0.02)

    begun = asyncio.Event()

    async def slowly(account: str, attachments: Any) -> Any:
        begun.set()
        for _ in range(6):
            shop.advance(12)
            await asyncio.sleep(0.3)
        return attachments

    shop.services.idempotency._between = tick
    shop.services.submit._composer._references.resolved = slowly  # type: ignore[method-assign]
    fields = {"to": TO, "text": "first", "attachments": [{"filename": "a.txt", "content": "eA=="}]}
    first = asyncio.create_task(shop.services.submit.accept(account, fields, key="k"))
    await begun.wait()
    second = await other.submit.accept(account, {"to": TO, "text": "second"}, key="k")
    answer = await first
    await other.close()
    assert answer["idempotency"] == {"key": "k", "status": "MISS"}
    assert second["idempotency"] == {"key": "k", "status": "HIT", "payloadMatches": False}
    assert second["queueId"] == answer["queueId"]
    await shop.run_due()
    (mail,) = shop.arrived(RITA, answer["messageId"])
    assert mail["body"]["content"].strip() == "first"


# -- over HTTP -----------------------------------------------------------------------------------------------------


async def test_a_repeat_gets_the_stored_answer_and_sends_nothing(opened: tuple[Desk, str]) -> None:
    """MISS, then HIT with the same ids and times; the recipient has one mail; the entry shows the key."""
    desk, account = opened
    key = new_key()
    first = (await submit(desk, account, key, sendAt=soon(8))).body
    assert first["idempotency"] == {"key": key, "status": "MISS"}
    entry = await desk.ok("GET", f"/v1/outbox/{first['queueId']}")
    assert entry["idempotencyKey"] == key
    second = (await submit(desk, account, f"  {key} ", sendAt=first["sendAt"])).body
    assert {name: second[name] for name in ("response", "messageId", "sendAt", "queueId")} == {
        name: first[name] for name in ("response", "messageId", "sendAt", "queueId")
    }
    assert (second["idempotency"]["key"], second["idempotency"]["status"]) == (key, "HIT")
    await desk.mail(RITA, first["messageId"])
    third = (await submit(desk, account, key)).body
    assert third["queueId"] == first["queueId"]
    assert len(await desk.copies(RITA, first["messageId"], None)) == 1


@pytest.mark.parametrize(
    ("query", "fields", "matches"),
    [("", {}, True), ("", {"subject": "other"}, False), ("?useStructuredFormat=true", {}, False)],
    ids=["same", "fields", "query"],
)
async def test_a_repeat_says_whether_its_payload_was_the_same(
    opened: tuple[Desk, str], query: str, fields: Json, matches: bool
) -> None:
    """The stored answer comes all the same, with `payloadMatches` beside it."""
    desk, account = opened
    key = new_key()
    first = (await submit(desk, account, key, subject="one", html="<p>x</p>")).body
    given = {"html": "<p>x</p>", "subject": "one", **fields}
    again = (await submit(desk, account, key, query, **given)).body
    assert again["queueId"] == first["queueId"]
    assert again["idempotency"] == {"key": key, "status": "HIT", "payloadMatches": matches}


async def test_twenty_requests_at_once_are_one_mail(opened: tuple[Desk, str]) -> None:
    """One MISS, nineteen HIT, one queue id, one mail with the recipient."""
    desk, account = opened
    key, subject = new_key(), secrets.token_hex(8)
    answers = await asyncio.gather(*(submit(desk, account, key, subject=subject) for _ in range(20)))
    assert [one.status for one in answers] == [200] * 20
    assert len({one.body["queueId"] for one in answers}) == 1
    assert sorted(one.body["idempotency"]["status"] for one in answers) == ["HIT"] * 19 + ["MISS"]
    await desk.mail(RITA, answers[0].body["messageId"])
    found = [one for one in await desk.tenant.messages(RITA, None) if one["subject"] == subject]
    assert len(found) == 1


async def test_keys_belong_to_their_account(opened: tuple[Desk, str]) -> None:
    """The same key of two accounts is two mails."""
    desk, account = opened
    other = await desk.delegated(SUPPORT, account)
    key = new_key()
    one, two = (await submit(desk, account, key)).body, (await submit(desk, other, key)).body
    assert one["idempotency"]["status"] == two["idempotency"]["status"] == "MISS"
    assert one["queueId"] != two["queueId"]


@pytest.mark.parametrize("key", ["k", "k" * 1024, "'; drop/\\#? &", "ключ".encode().decode("latin-1"), "%00%20"])
async def test_any_key_up_to_1024_characters_works(opened: tuple[Desk, str], key: str) -> None:
    """Keys are opaque text."""
    desk, account = opened
    first, again = (await submit(desk, account, key)).body, (await submit(desk, account, key)).body
    assert first["idempotency"]["key"] == again["idempotency"]["key"]
    assert first["queueId"] == again["queueId"]


async def test_a_key_that_is_too_long_is_refused_by_name(opened: tuple[Desk, str]) -> None:
    """400 that names the header; nothing is queued."""
    desk, account = opened
    answer = await submit(desk, account, "k" * 1025)
    assert answer.status == 400
    assert answer.body["fields"][0]["key"] == "Idempotency-Key"


async def test_a_blank_key_is_none(opened: tuple[Desk, str]) -> None:
    """The answer has no `idempotency`."""
    desk, account = opened
    answer = await submit(desk, account, "   ")
    assert answer.status == 200
    assert "idempotency" not in answer.body


async def test_a_refused_first_call_frees_the_key(opened: tuple[Desk, str]) -> None:
    """400, and the corrected request with the same key is a first call at once."""
    desk, account = opened
    key = new_key()
    refused = await submit(desk, account, key, headers={"Bcc": "x"})
    assert refused.status == 400
    assert (await submit(desk, account, key)).body["idempotency"]["status"] == "MISS"


async def test_what_is_left_of_the_mailbox_is_in_the_headers(opened: tuple[Desk, str]) -> None:
    """On submit and on the account: limit, remaining and seconds until the next window."""
    desk, account = opened
    for answer in (
        await desk.submit(account, to=TO, text="x"),
        await desk.app.call("GET", f"/v1/account/{account}"),
    ):
        assert answer.headers["RateLimit-Limit"] == "10000"
        assert 0 < int(answer.headers["RateLimit-Remaining"]) <= 10000
        assert 0 < int(answer.headers["RateLimit-Reset"]) <= 600


# -- processes that die, storage that fails ------------------------------------------------------------------------


@pytest.fixture
async def account(workshop: Workshop) -> str:
    """A person's own mailbox."""
    return await workshop.own()


async def accept(shop: Workshop, account: str, key: str = "k", **fields: Any) -> Json:
    """One keyed submit in this process."""
    return await shop.services.submit.accept(account, {"to": TO, "text": "x", **fields}, key=key)


class Died(BaseException):
    """The process is gone."""


def failing(table: Table, name: str, problem: BaseException, *, after: bool = False, times: int = 1) -> None:
    """Makes the next calls of a table's method fail, before or after the work."""
    method, left = getattr(table, name), [times]

    async def once(*given: Any, **named: Any) -> Any:
        if not left[0]:
            return await method(*given, **named)
        left[0] -= 1
        if after:
            await method(*given, **named)
        raise problem

    setattr(table, name, once)


async def arrived(shop: Workshop, *answers: Json) -> int:
    """How many mails of these answers the recipient has in the end."""
    await shop.run_for(700, tick_s=300)
    return sum(len(shop.arrived(RITA, message_id)) for message_id in {one["messageId"] for one in answers})


@pytest.mark.parametrize("after", [False, True], ids=["before the row", "after the row"])
async def test_a_holder_that_dies_is_followed_when_its_lease_has_ended(
    workshop: Workshop, account: str, after: bool
) -> None:
    """The repeat waits, and either finds the mail or accepts it under the same queue id."""
    failing(workshop.services.tables["outbox"], "insert", Died(), after=after)
    with pytest.raises(Died):
        await accept(workshop, account)
    (job,) = [job for _, name, job in workshop.queues.waiting if name == "outbox"]
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)
        workshop.advance(seconds)

    workshop.services.idempotency._pause = pause
    answer = await accept(workshop, account)
    assert answer["queueId"] == job["queueId"]
    assert answer["idempotency"]["status"] == ("HIT" if after else "MISS")
    assert after or 20 < sum(waited) <= 31
    assert await arrived(workshop, answer) == 1


def hold_first_row(workshop: Workshop) -> tuple[asyncio.Event, asyncio.Event]:
    """The next outbox row hangs before it is written: set when it does; to be set to let it go on."""
    table, first, going = workshop.services.tables["outbox"], asyncio.Event(), asyncio.Event()
    insert = table.insert

    async def slowly(row: Any) -> Any:
        if not first.is_set():
            first.set()
            await going.wait()
        return await insert(row)

    table.insert = slowly  # type: ignore[method-assign]
    return first, going


async def test_a_slow_holder_and_the_one_who_took_over_give_one_mail(workshop: Workshop, account: str) -> None:
    """The holder hangs before its row is written, loses its lease, and then writes after all: it answers HIT."""
    first, going = hold_first_row(workshop)
    slow = asyncio.ensure_future(accept(workshop, account, subject="slow"))
    await first.wait()
    workshop.advance(31)
    quick = await accept(workshop, account, subject="quick")
    going.set()
    late = await slow
    assert late["queueId"] == quick["queueId"]
    assert late["messageId"] == quick["messageId"]
    assert (quick["idempotency"]["status"], late["idempotency"]["status"]) == ("MISS", "HIT")
    assert late["idempotency"]["payloadMatches"] is False
    assert await arrived(workshop, quick, late) == 1


async def test_large_bodies_of_a_slow_holder_and_its_follower_are_not_mixed_up(
    workshop: Workshop, account: str
) -> None:
    """Two bodies for one queue id: the mail that is sent is the one whose row won, and neither blob stays."""
    first, going = hold_first_row(workshop)
    slow = asyncio.ensure_future(accept(workshop, account, text="s" * 600_000))
    await first.wait()
    workshop.advance(31)
    quick = await accept(workshop, account, text="q" * 600_000)
    going.set()
    await slow
    await workshop.run_due()
    (mail,) = workshop.arrived(RITA, quick["messageId"])
    assert mail["body"]["content"].strip("q\r\n") == ""
    left = [name async for name in workshop.services.blobs._client.list_blob_names()]
    assert [name for name in left if quick["queueId"] in name] == []


async def test_a_write_that_fails_frees_the_key_and_can_not_come_back(workshop: Workshop, account: str) -> None:
    """Storage refuses the row: the caller hears 503 or the like, the key is free, and the old queue id is closed."""
    failing(workshop.services.tables["outbox"], "insert", ServiceRequestError("lost"))
    with pytest.raises(ServiceRequestError):
        await accept(workshop, account, subject="first")
    (job,) = [job for _, name, job in workshop.queues.waiting if name == "outbox"]
    closed = await workshop.services.outbox.stored(job["queueId"])
    assert closed is not None
    assert closed.columns["state"] == VOID
    answer = await accept(workshop, account, subject="second")
    assert answer["idempotency"]["status"] == "MISS"
    assert answer["queueId"] != job["queueId"]
    assert await arrived(workshop, answer) == 1
    assert await workshop.services.outbox.entry(job["queueId"]) is None


async def test_a_write_that_seemed_to_fail_and_did_not_is_a_success(workshop: Workshop, account: str) -> None:
    """The row is there although its answer was lost: the caller gets the answer, and one mail is sent."""
    failing(workshop.services.tables["outbox"], "insert", ServiceRequestError("lost"), after=True)
    answer = await accept(workshop, account)
    assert answer["idempotency"]["status"] == "MISS"
    assert await arrived(workshop, answer) == 1


async def test_while_storage_can_not_tell_the_key_stays_with_its_queue_id(workshop: Workshop, account: str) -> None:
    """Row and void row both fail: 503, and the next call with the key goes on under the same queue id."""
    failing(workshop.services.tables["outbox"], "insert", ServiceRequestError("lost"), times=2)
    with pytest.raises(OutcomeOpen):
        await accept(workshop, account)
    (job,) = [job for _, name, job in workshop.queues.waiting if name == "outbox"]
    workshop.advance(31)
    answer = await accept(workshop, account)
    assert answer["queueId"] == job["queueId"]
    assert await arrived(workshop, answer) == 1


async def test_a_key_is_kept_for_a_day_and_then_free(workshop: Workshop, account: str) -> None:
    """HIT after 23 hours, also when the mail's record was swept around it; MISS after 25."""
    from shared.jobs import sweep

    first = await accept(workshop, account)
    await workshop.run_due()
    workshop.advance(23 * 3600)
    await sweep(workshop.services)
    assert (await accept(workshop, account))["queueId"] == first["queueId"]
    workshop.advance(2 * 3600)
    second = await accept(workshop, account)
    assert second["idempotency"]["status"] == "MISS"
    assert second["queueId"] != first["queueId"]


async def test_the_sweep_removes_old_keys_only(workshop: Workshop, account: str) -> None:
    """After a day the record is gone."""
    await accept(workshop, account, "old")
    workshop.advance(24 * 3600 - 60)
    await accept(workshop, account, "new")
    workshop.advance(120)
    assert await workshop.services.idempotency.sweep() == 1
    assert len(await workshop.services.tables["idempotency"].partition(account)) == 1


async def test_a_cancelled_mail_does_not_come_back_with_its_key(workshop: Workshop, account: str) -> None:
    """The repeat gets the stored answer; nothing is sent."""
    first = await accept(workshop, account, sendAt=soon(60))
    assert await workshop.services.outbox.cancel(first["queueId"]) is True
    again = await accept(workshop, account, sendAt=soon(60))
    assert (again["queueId"], again["idempotency"]["status"]) == (first["queueId"], "HIT")
    assert await arrived(workshop, first, again) == 0


async def test_the_keys_of_a_deleted_account_mean_nothing_to_its_successor(workshop: Workshop, account: str) -> None:
    """Neither records that were removed nor one written at the last moment answer for the new account."""
    await accept(workshop, account, "k1")
    record = await workshop.record(account)
    await workshop.services.onboarding.delete(account)
    assert await workshop.services.tables["idempotency"].partition(account) == []
    await workshop.services.accounts.insert(record | {"birth": "another"})
    before = await accept(workshop, account, "k2")
    await workshop.services.accounts.change(account, lambda one: one | {"birth": "a third"})
    after = await accept(workshop, account, "k2")
    assert after["idempotency"]["status"] == "MISS"
    assert before["queueId"] != after["queueId"]


async def test_an_unknown_account_leaves_no_record(workshop: Workshop) -> None:
    """404, and nothing was written."""
    with pytest.raises(ApiError) as refused:
        await accept(workshop, "nobody")
    assert refused.value.status == 404
    assert await workshop.services.tables["idempotency"].partition("nobody") == []


async def test_repeats_in_two_processes_at_once_are_one_mail(workshop: Workshop, account: str) -> None:
    """Ten calls in each: one MISS in all."""
    other = workshop.build()
    calls = [
        one.submit.accept(account, {"to": TO, "text": "x"}, key="both")
        for one in (workshop.services, other)
        for _ in range(10)
    ]
    answers = await asyncio.gather(*calls)
    await other.close()
    assert len({one["queueId"] for one in answers}) == 1
    assert [one["idempotency"]["status"] for one in answers].count("MISS") == 1
    assert await arrived(workshop, *answers) == 1


async def test_two_hosts_on_one_storage_accept_a_key_once(
    app: Application, opened: tuple[Desk, str], azurite: services.Azurite, tenant: Tenant, service_logs: Any
) -> None:
    """Ten requests to each of two running apps: one MISS, one mail."""
    desk, account = opened
    settings = services.app_settings(storage=azurite.connection_string, tenant_url=tenant.url)
    key = new_key()
    with services.App(settings=settings, poll_seconds=0.5, logs=service_logs / "second") as host:
        second = Desk(Application(host), tenant)
        calls = [submit(one, account, key) for one in (desk, second) for _ in range(10)]
        answers = await asyncio.gather(*calls)
    assert [one.status for one in answers] == [200] * 20
    assert len({one.body["queueId"] for one in answers}) == 1
    assert [one.body["idempotency"]["status"] for one in answers].count("MISS") == 1
    await desk.mail(RITA, answers[0].body["messageId"])
    assert len(await desk.copies(RITA, answers[0].body["messageId"], None)) == 1
