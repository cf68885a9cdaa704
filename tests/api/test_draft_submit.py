"""Drafts of the mailbox sent through the outbox: once, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from local.tenant.messages import NewMessage
from local.tenant.routes_messages import as_content
from shared import draft_mail
from shared.clock import iso
from shared.errors import ApiError
from tests.support.fate import Died
from tests.support.workshop import ANN, RITA, Workshop

Json = dict[str, Any]
SEND = {"method": "POST", "path_regex": "/messages/[^/]+/send$"}
AFTER = {"after": {"drop": True}}


class Draft:
    """One draft in Ann's mailbox, and what became of it."""

    def __init__(self, shop: Workshop) -> None:
        self.shop, self.account, self.id, self.message_id, self.answer = shop, "", "", "", {}

    async def written(self, to: str = RITA) -> Draft:
        """Somebody writes a draft."""
        self.account = await self.shop.own()
        await self.shop.settle()
        mailbox = self.shop.mailbox(ANN)
        recipients = [{"emailAddress": {"name": to, "address": to}}] if to else []
        content = NewMessage({"subject": "A draft", "toRecipients": recipients, "internetMessageId": "<d@contoso>"})
        made = mailbox.add(content, mailbox.folder("drafts"), isDraft=True)
        self.id, self.message_id = made.immutable_id, "<d@contoso>"
        self.shop.world.log.entries.clear()
        return self

    async def submit(self, key: str = "", **fields: Any) -> Json:
        """Accepts the draft for sending."""
        self.answer = await self.shop.services.draft_submit.accept(self.account, self.id, fields, key)
        return self.answer

    async def finish(self) -> None:
        """Runs what the outbox has to do, each message at its time, until nothing is left of it."""
        queues = self.shop.queues
        while due := [when for when, name, _ in queues.waiting if name == "outbox"]:
            self.shop.advance(max(0.0, (min(due) - self.shop.clock()).total_seconds()) + 0.001)
            for name, job in queues.take_due():
                if name == "outbox":
                    await self.shop.run(name, job)

    async def told(self) -> list[str]:
        """How it ended, as events."""
        return [one["event"] for one in await self.shop.events(self.account, "messageSent", "messageFailed")]

    def copies(self, folder: str | None = None) -> list[Json]:
        """The mails of this Message-ID in the sender's mailbox."""
        found = self.shop.world.mail.dump(ANN, folder)
        return [one for one in found if one["internetMessageId"] == self.message_id]

    async def is_sent_once(self) -> None:
        """One mail arrived, one copy, no draft, one event."""
        assert len(self.shop.arrived(RITA, self.message_id)) == 1
        assert [one["isDraft"] for one in self.copies()] == [False]
        assert await self.told() == ["messageSent"]


@pytest.fixture
async def draft(workshop: Workshop) -> Draft:
    """A draft with a recipient."""
    return await Draft(workshop).written()


async def test_a_draft_turns_into_the_sent_copy(draft: Draft) -> None:
    """Two Graph calls; the answer and the queue entry are those of a submit; the id finds the copy."""
    answer = await draft.submit(envelope={"from": "x@contoso.example", "to": []})
    assert answer["response"] == "Queued for delivery"
    assert answer["messageId"] == draft.message_id
    status, entry = await draft.shop.call("GET", f"/v1/outbox/{answer['queueId']}")
    assert status == 200
    assert (entry["subject"], entry["envelope"]) == ("A draft", {"from": "x@contoso.example", "to": [RITA]})
    await draft.finish()
    await draft.is_sent_once()
    assert [one.method for one in draft.shop.world.log.select("graph", path="/messages/")] == ["GET", "POST"]
    (copy,) = draft.copies("sentitems")
    assert copy["id"] == draft.id
    (sent,) = await draft.shop.events(draft.account, "messageSent")
    assert sent["data"]["queueId"] == answer["queueId"]


async def test_a_draft_waits_for_its_time_and_can_be_taken_back(draft: Draft) -> None:
    """Nothing leaves before `sendAt`; a cancelled one stays a draft."""
    answer = await draft.submit(sendAt=iso(draft.shop.clock() + timedelta(days=300)))
    await draft.shop.run_due()
    assert [one["isDraft"] for one in draft.copies()] == [True]
    status, body = await draft.shop.call("DELETE", f"/v1/outbox/{answer['queueId']}")
    assert (status, body) == (200, {"deleted": True})
    assert [one["isDraft"] for one in draft.copies()] == [True]
    assert await draft.told() == []


async def test_one_key_sends_once_however_often_it_is_used(draft: Draft) -> None:
    """At the same moment, and after the draft has gone; another payload is pointed out."""
    first, second = await asyncio.gather(draft.submit("k"), draft.submit("k"))
    assert first["queueId"] == second["queueId"]
    assert {one["idempotency"]["status"] for one in (first, second)} == {"MISS", "HIT"}
    await draft.finish()
    third = await draft.submit("k", deliveryAttempts=3)
    assert third["idempotency"] == {"key": "k", "status": "HIT", "payloadMatches": False}
    await draft.finish()
    await draft.is_sent_once()


async def test_what_can_not_be_sent_is_refused_at_once(draft: Draft) -> None:
    """No such message, no draft, nobody to send to; and the key of a refused call is free."""
    arrived = draft.shop.deliver(ANN)
    empty = await Draft(draft.shop).written(to="")
    unknown = "AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0AAAAAAAA"
    for message, status, code in (
        (unknown, 404, "MessageNotFound"),
        ("nonsense", 400, "InvalidMessageId"),
        (arrived, 400, "MessageNotDraft"),
        (empty.id, 400, "DraftHasNoRecipients"),
    ):
        with pytest.raises(ApiError) as refused:
            await draft.shop.services.draft_submit.accept(draft.account, message, {}, "key")
        assert (refused.value.status, refused.value.code) == (status, code)
    assert (await draft.submit("key"))["idempotency"]["status"] == "MISS"


@pytest.mark.parametrize(
    "action",
    [AFTER, {"after": {"status": 504}}, {"drop": True}, {"status": 500}, {"status": 429, "retry_after": "3"}],
    ids=["no answer after the work", "504 after the work", "no answer", "500", "throttled"],
)
async def test_an_unclear_answer_neither_loses_nor_repeats(draft: Draft, action: Json) -> None:
    """Whether the work was done or not, one mail leaves."""
    draft.shop.world.faults.add(SEND, action)
    await draft.submit()
    await draft.finish()
    await draft.is_sent_once()


@pytest.mark.parametrize("done", [True, False], ids=["after /send", "before /send"])
async def test_a_process_that_dies_is_followed_by_one_that_finds_out(
    draft: Draft, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just before and just after Graph was called; its queue message comes again."""
    send = draft_mail.send

    async def fatal(*given: Any) -> None:
        monkeypatch.setattr(draft_mail, "send", send)
        if done:
            await send(*given)
        raise Died

    monkeypatch.setattr(draft_mail, "send", fatal)
    await draft.submit()
    ((name, job),) = [one for one in draft.shop.queues.take_due() if one[0] == "outbox"]
    with pytest.raises(Died):
        await draft.shop.run(name, job)
    await draft.shop.queues.put(name, job)
    await draft.finish()
    await draft.is_sent_once()


async def test_a_queue_message_that_comes_twice_sends_once(draft: Draft) -> None:
    """Also when the second comes after the first is done."""
    await draft.submit()
    ((name, job),) = [one for one in draft.shop.queues.take_due() if one[0] == "outbox"]
    await asyncio.gather(draft.shop.run(name, job), draft.shop.run(name, job))
    await draft.shop.run(name, job)
    await draft.finish()
    await draft.is_sent_once()


async def test_a_draft_that_a_person_sent_meanwhile_counts_as_sent(draft: Draft) -> None:
    """The copy in Sent Items is the witness."""
    await draft.submit()
    box = draft.shop.mailbox(ANN)
    message = box.find(draft.id)
    rita = draft.shop.mailbox(RITA)
    draft.shop.world.mail.place(as_content(message), rita, rita.folder("inbox"), RITA)
    message.properties["isDraft"] = False
    box.move(message, box.folder("sentitems"))
    await draft.finish()
    await draft.is_sent_once()


async def test_a_deleted_draft_fails_and_says_so(draft: Draft) -> None:
    """At once, without another try."""
    await draft.submit()
    draft.shop.remove(ANN, draft.id)
    await draft.finish()
    assert await draft.told() == ["messageFailed"]
    (failed,) = await draft.shop.events(draft.account, "messageFailed")
    assert failed["data"]["errorCode"] == "MessageNotFound"
    assert "draft is gone" in failed["data"]["error"]


async def test_a_refused_draft_stays_a_draft(draft: Draft) -> None:
    """Graph's refusal ends it at once, and the draft is the caller's still."""
    draft.shop.world.faults.add(SEND, {"status": 403, "code": "ErrorSendAsDenied", "message": "No."})
    await draft.submit()
    await draft.finish()
    assert await draft.told() == ["messageFailed"]
    assert [one["isDraft"] for one in draft.copies("drafts")] == [True]


async def test_a_draft_of_which_nothing_is_left_after_an_unclear_answer_ends_as_unknown(draft: Draft) -> None:
    """Neither claimed as sent nor sent again."""
    draft.shop.world.faults.add(SEND, {"drop": True})
    await draft.submit()
    await draft.shop.run_due()
    draft.shop.remove(ANN, draft.id)
    await draft.finish()
    (failed,) = await draft.shop.events(draft.account, "messageFailed")
    assert failed["data"]["errorCode"] == "SendOutcomeUnknown"
    assert draft.shop.arrived(RITA, draft.message_id) == []


async def test_the_route_takes_no_body_and_refuses_unknown_fields(draft: Draft) -> None:
    """`POST …/submit` without anything is enough."""
    path = f"/v1/account/{draft.account}/message/{draft.id}/submit"
    status, refused = await draft.shop.call("POST", path, {"to": [], "deliveryAttempts": 0, "sendAt": "soon"})
    assert status == 400
    assert {one["key"] for one in refused["fields"]} == {"to", "deliveryAttempts", "sendAt"}
    status, answer = await draft.shop.call("POST", path)
    assert status == 200, answer
    await draft.finish()
    await draft.is_sent_once()
