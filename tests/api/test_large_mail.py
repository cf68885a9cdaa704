"""Mails that no single request of Graph carries: built as drafts, attachment by attachment, through every trouble."""

import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from local.tenant.routes_messages import as_content
from shared import large_mail, mail_parts
from shared.errors import ApiError
from shared.graph import uploads
from tests.support.workshop import ANN, RITA, SUPPORT, Workshop

Json = dict[str, Any]
TO = [{"address": RITA}]
RANGE = 1000


def content(name: str, size: int) -> bytes:
    """Bytes that belong to this name alone."""
    block = hashlib.sha256(name.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def attachment(name: str, size: int, **more: Any) -> Json:
    """One entry of `attachments`."""
    return {"filename": name, "content": base64.b64encode(content(name, size)).decode(), **more}


class Small:
    """The sizes of one test, a thousandth of the real ones, so that a hundred runs take seconds."""

    SIMPLE, UPLOADED, INLINE = "simple.bin", "uploaded.bin", "logo.png"

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sizes = {self.SIMPLE: 1500, self.UPLOADED: 2 * RANGE + 500, self.INLINE: 200}
        patch.setattr(mail_parts, "REQUEST_LIMIT", 3000)
        patch.setattr(mail_parts, "SIMPLE_BYTES", 2000)
        patch.setattr(large_mail, "SIMPLE_BYTES", 2000)
        patch.setattr(uploads, "RANGE_BYTES", RANGE)

    def fields(self, **more: Any) -> Json:
        """A mail with an inline picture that stays in the rest, a file to be posted and one to be uploaded."""
        files = [attachment(name, size) for name, size in self.sizes.items()]
        files[2]["cid"] = "logo"
        html = "<p>rich <img src='cid:logo'></p>"
        return {"to": TO, "subject": "Large", "text": "plain", "html": html, "attachments": files, **more}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Small:
    """Small sizes for this test."""
    return Small(monkeypatch)


class Big:
    """One large mail of a mailbox, and what became of it."""

    def __init__(self, shop: Workshop, small: Small) -> None:
        self.shop, self.small = shop, small
        self.account, self.mailbox, self.answer = "", ANN, {}

    async def submit(self, **more: Any) -> None:
        """Accepts the mail; nothing is sent yet."""
        self.answer = await self.shop.services.submit.accept(self.account, self.small.fields(**more))

    async def finish(self) -> None:
        """Runs what the outbox has to do, each message at its time, until nothing is left of it."""
        queues = self.shop.queues
        while due := [when for when, name, _ in queues.waiting if name == "outbox"]:
            self.shop.advance(max(0.0, (min(due) - self.shop.clock()).total_seconds()) + 0.001)
            for name, job in queues.take_due():
                if name == "outbox":
                    await self.shop.run(name, job)

    @property
    def queue_id(self) -> str:
        return str(self.answer["queueId"])

    @property
    def drafts(self) -> list[Json]:
        """Every draft in the sender's mailbox, deleted ones included."""
        return [one for one in self.shop.world.mail.dump(self.mailbox) if one["isDraft"]]

    def arrived(self) -> list[dict[str, bytes]]:
        """The mails at the recipient: names and bytes of their attachments."""
        found = self.shop.arrived(RITA, self.answer["messageId"])
        return [{one["name"]: base64.b64decode(one["contentBytes"]) for one in mail["attachments"]} for mail in found]

    @property
    def whole(self) -> dict[str, bytes]:
        """What the recipient is to have."""
        return {name: content(name, size) for name, size in self.small.sizes.items()}

    async def told(self) -> list[str]:
        """How the mail ended, as events."""
        return [one["event"] for one in await self.shop.events(self.account, "messageSent", "messageFailed")]

    async def stored(self) -> tuple[list[str], list[str]]:
        """The blobs and the records of drafts that are kept."""
        services, far = self.shop.services, self.shop.clock().replace(year=2100)
        blobs = [name async for name in services.blobs.old(f"outbox/{self.queue_id}", far)]
        return blobs, [row.key async for row in services.tables["drafts"].scan()]

    async def is_sent_once_and_nothing_is_left(self) -> None:
        """One whole mail, one copy, one event; no draft, no session, no blob, no record."""
        assert self.arrived() == [self.whole]
        sent = [one for one in self.shop.world.mail.dump(self.mailbox, "sentitems")
                if one["internetMessageId"] == self.answer["messageId"]]  # fmt: skip
        assert len(sent) == 1
        assert await self.told() == ["messageSent"]
        assert self.drafts == []
        assert await self.stored() == ([], [])


@pytest.fixture
async def big(workshop: Workshop, small: Small) -> Big:
    """A large mail of Ann's own mailbox, whose subscription is proven, and the draft that proved it gone."""
    made = Big(workshop, small)
    made.account = await workshop.own()
    await workshop.settle()
    workshop.world.log.entries.clear()
    return made


# -- the plain way -------------------------------------------------------------------------------------------------


async def test_a_large_mail_arrives_whole_and_is_told_once(big: Big) -> None:
    """Inline picture, posted file and uploaded file, byte for byte, under one Message-ID."""
    await big.submit(headers={"List-Unsubscribe": "<https://x.example>"}, bcc=[{"address": "bob@contoso.example"}])
    await big.shop.run_due()
    await big.is_sent_once_and_nothing_is_left()
    (mail,) = big.shop.arrived(RITA, big.answer["messageId"])
    shown = {one["name"]: one for one in mail["attachments"]}
    assert (shown["logo.png"]["isInline"], shown["logo.png"]["contentId"]) == (True, "logo")
    assert mail["body"]["content"].strip() == "<p>rich <img src='cid:logo'></p>"
    assert {"name": "List-Unsubscribe", "value": "<https://x.example>"} in mail["internetMessageHeaders"]
    assert not any("bob@contoso.example" in one["value"] for one in mail["internetMessageHeaders"])
    assert len(big.shop.arrived("bob@contoso.example", big.answer["messageId"])) == 1


async def test_an_inline_picture_that_travels_by_itself_keeps_its_place(big: Big) -> None:
    """Its cid and that it is inline go with it."""
    picture = attachment("wide.png", 2500, cid="<wide>", contentType="image/png")
    await big.submit(attachments=[picture], html="<img src='cid:wide'>")
    await big.shop.run_due()
    (mail,) = big.shop.arrived(RITA, big.answer["messageId"])
    (shown,) = mail["attachments"]
    assert (shown["contentId"], shown["isInline"], shown["contentType"]) == ("wide", True, "image/png")
    assert base64.b64decode(shown["contentBytes"]) == content("wide.png", 2500)


async def test_a_structured_large_mail_of_another_sender_keeps_from_and_copy(big: Big) -> None:
    """From is the other mailbox, the copy lies in the mailbox of the path."""
    await big.submit(**{"from": {"address": "sales@contoso.example"}})
    await big.shop.run_due()
    await big.is_sent_once_and_nothing_is_left()
    (mail,) = big.shop.arrived(RITA, big.answer["messageId"])
    assert mail["from"]["emailAddress"]["address"] == "sales@contoso.example"


async def test_uploads_carry_no_token_and_ranges_stay_below_four_megabytes(big: Big) -> None:
    """Every PUT is in order, and the service behind the upload URL never sees Graph's token."""
    await big.submit()
    await big.shop.run_due()
    puts = big.shop.world.log.select("upload", None, "PUT")
    assert [one.headers["Content-Range"] for one in puts] == [
        "bytes 0-999/2500", "bytes 1000-1999/2500", "bytes 2000-2499/2500"
    ]  # fmt: skip
    assert not any(one.authorized for one in puts)
    assert large_mail.RUN_FOR.total_seconds() > uploads.PATIENCE_S


async def test_the_upload_address_is_in_no_log_and_no_record(big: Big, caplog: pytest.LogCaptureFixture) -> None:
    """It is a credential: trouble in the middle leaves it sealed in storage and out of the log."""
    caplog.set_level("WARNING")
    big.shop.world.faults.add({"method": "PUT", "path_regex": "^/upload/"}, {"status": 503}, 100)
    await big.submit()
    await big.shop.run_due()
    record = await big.shop.services.tables["drafts"].get(big.queue_id[-2:], big.queue_id)
    assert record is not None
    assert record.value["upload"]
    assert "authtoken" not in str(record.value)
    assert "authtoken" not in caplog.text
    assert ANN not in caplog.text


# -- other people's mailboxes --------------------------------------------------------------------------------------


async def test_a_file_that_needs_an_upload_session_is_refused_for_a_shared_mailbox(big: Big) -> None:
    """413 that names the file and the way out; with application access the same mail is accepted and sent."""
    account = await big.shop.delegated(SUPPORT, await big.shop.own())
    with pytest.raises(ApiError) as refused:
        await big.shop.services.submit.accept(account, big.small.fields())
    assert (refused.value.status, refused.value.code) == (413, "MessageTooLarge")
    (field,) = refused.value.fields["fields"]
    assert field["key"] == "attachments"
    assert "uploaded.bin" in field["message"]
    assert "application access" in refused.value.message
    assert big.shop.queues.take_due() == []
    big.account, big.mailbox = await big.shop.application(SUPPORT), SUPPORT
    await big.submit()
    await big.shop.run_due()
    await big.is_sent_once_and_nothing_is_left()


async def test_several_small_files_go_from_a_shared_mailbox_with_a_persons_token(big: Big) -> None:
    """Together over one request, each below the limit: posted to a draft in the shared mailbox."""
    big.small.sizes = {f"{number}.bin": 1500 for number in range(8)}
    big.account, big.mailbox = await big.shop.delegated(SUPPORT, await big.shop.own()), SUPPORT
    files = [attachment(name, size) for name, size in big.small.sizes.items()]
    await big.submit(attachments=files)
    await big.shop.run_due()
    await big.is_sent_once_and_nothing_is_left()
    assert big.shop.world.log.select("upload") == []


async def test_an_account_that_became_foreign_before_the_upload_fails_with_the_reason(
    big: Big, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What submit could not see: Graph's 403 ends the mail at once, the draft goes, the event says what to do."""
    monkeypatch.setattr("shared.submit.check_foreign", lambda *_: None)
    big.account, big.mailbox = await big.shop.delegated(SUPPORT, await big.shop.own()), SUPPORT
    await big.submit()
    await big.shop.run_due()
    assert await big.told() == ["messageFailed"]
    (failed,) = await big.shop.events(big.account, "messageFailed")
    assert "application access" in failed["data"]["error"]
    assert (big.drafts, big.arrived()) == ([], [])
    assert await big.stored() == ([], [])


# -- what does not fit ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["text", "html"])
async def test_a_text_too_large_for_one_request_is_refused_by_its_name(big: Big, field: str) -> None:
    """Attachments can be taken out of a mail, its text cannot."""
    with pytest.raises(ApiError) as refused:
        await big.submit(**{"text": "x", "html": "x", field: "word " * 2000})
    assert refused.value.status == 413
    assert refused.value.fields["fields"][0]["key"] == field


async def test_more_than_any_mail_holds_is_refused(big: Big, monkeypatch: pytest.MonkeyPatch) -> None:
    """413 that names `attachments`."""
    monkeypatch.setattr(mail_parts, "LARGEST_MAIL", 4000)
    with pytest.raises(ApiError) as refused:
        await big.submit()
    assert (refused.value.status, refused.value.fields["fields"][0]["key"]) == (413, "attachments")


# -- dying ---------------------------------------------------------------------------------------------------------


class Died(BaseException):
    """The process is gone."""


class Doom:
    """Ends the process before or after its n-th step: a call to Graph, a range, or a write of a record."""

    def __init__(self, shop: Workshop, at: int, after: bool) -> None:
        self.at, self.after, self.steps, self.done = at, after, 0, False
        services = shop.services
        graph = next(iter(services.graphs.values()))
        places: list[tuple[Any, str]] = [(graph, "_send"), (graph, "upload")]
        places += [(services.tables[name], method) for name in ("drafts", "outbox", "events")
                   for method in ("replace", "insert", "merge", "delete")]  # fmt: skip
        places += [(services.blobs, "delete")]
        for owner, name in places:
            setattr(owner, name, self._doomed(getattr(owner, name)))

    def _doomed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        async def step(*args: Any, **options: Any) -> Any:
            self.steps += 1
            mine = self.steps == self.at
            if self.done or (mine and not self.after):
                self.done = True
                raise Died
            result = await work(*args, **options)
            if mine:
                self.done = True
                raise Died
            return result

        return step


STEPS = 19  # of the mail of this file; the next test sees to it that none is left out


async def send_and_die(big: Big, at: int, after: bool) -> Doom:
    """Sends the mail with a process that dies, then with another one that goes on from its queue message."""
    await big.submit()
    doom = Doom(big.shop, at, after)
    try:
        await big.finish()
    except Died:
        await big.shop.services.close()
        big.shop.services = big.shop.build()
        await big.shop.queues.put("outbox", {"queueId": big.queue_id})
        await big.finish()
    return doom


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, STEPS + 1))
async def test_a_process_that_dies_at_any_step_sends_one_whole_mail(big: Big, at: int, after: bool) -> None:
    """Before or after any call or write: exactly one mail with every attachment, and nothing left behind."""
    await send_and_die(big, at, after)
    big.shop.advance(3600)
    await big.shop.services.outbox.sweep_large(older_than=large_mail.RUN_FOR * 0)
    await big.is_sent_once_and_nothing_is_left()


async def test_every_step_of_a_large_mail_is_among_those_tried(big: Big) -> None:
    """Undisturbed, the mail takes exactly the steps that the test above dies at."""
    doom = await send_and_die(big, 10_000, after=False)
    assert doom.steps == STEPS


# -- trouble at Graph ----------------------------------------------------------------------------------------------

STEP = {
    "create": {"method": "POST", "path_regex": "/messages$"},
    "attach": {"method": "POST", "path_regex": "/attachments$"},
    "session": {"method": "POST", "path_regex": "/createUploadSession$"},
    "range": {"method": "PUT", "path_regex": "^/upload/"},
    "send": {"method": "POST", "path_regex": "/send$"},
}
TROUBLE: dict[str, Json] = {
    "429": {"status": 429, "retry_after": "2.5"},
    "429 without a time": {"status": 429},
    "429 for an hour": {"status": 429, "retry_after": "3600"},
    "503": {"status": 503, "retry_after": "1"},
    "500": {"status": 500},
    "504": {"status": 504},
    "drop": {"drop": True},
    "504 after": {"after": {"status": 504}},
    "503 after": {"after": {"status": 503}},
    "drop after": {"after": {"drop": True}},
}


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("step", STEP)
async def test_trouble_at_any_step_ends_in_one_whole_mail(big: Big, step: str, trouble: str) -> None:
    """Throttled, failed, dropped, or done and yet failed, twice: one mail with every attachment, and no draft left."""
    big.shop.world.faults.add(STEP[step], TROUBLE[trouble], 2)
    await big.submit()
    await big.finish()
    big.shop.advance(3600)
    await big.shop.services.outbox.sweep_large(older_than=large_mail.RUN_FOR * 0)
    await big.is_sent_once_and_nothing_is_left()
    assert len(big.shop.requests("POST", "/sendMail$")) == 0


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("trouble", TROUBLE)
async def test_trouble_at_any_range_is_overcome(big: Big, number: int, trouble: str) -> None:
    """First, middle and last range: what arrived is not sent again, what did not is."""
    first_bytes = (number - 1) * RANGE
    world = big.shop.world
    fit = world.faults._fits
    world.faults._fits = (  # type: ignore[method-assign]
        lambda match, method, path, box, query: (
            fit(match, method, path, box, query)
            and any(one.next_start == first_bytes for one in world.mail.uploads._open.values())
        )
    )
    world.faults.add(STEP["range"], TROUBLE[trouble], 1)
    await big.submit()
    await big.finish()
    await big.is_sent_once_and_nothing_is_left()


async def test_an_upload_session_that_expires_is_followed_by_another(big: Big) -> None:
    """Throttled for two hours in the middle, the session is gone: a new one carries the file."""
    big.shop.world.faults.add(STEP["range"], {"status": 429, "retry_after": "7200"}, 1)
    await big.submit()
    await big.shop.run_due()
    await big.shop.run_for(3 * 3600, tick_s=900)
    await big.is_sent_once_and_nothing_is_left()
    assert len(big.shop.requests("POST", "/createUploadSession$")) == 2
    assert len(big.shop.requests("POST", "/messages$")) == 1


async def test_a_throttled_range_is_waited_for_within_the_run(big: Big) -> None:
    """Seconds of throttling do not end the run: one draft, one session, one attempt."""
    big.shop.world.faults.add(STEP["range"], {"status": 429, "retry_after": "3"}, 5)
    await big.submit()
    await big.shop.run_due()
    await big.is_sent_once_and_nothing_is_left()
    assert len(big.shop.requests("POST", "/createUploadSession$")) == 1


async def test_a_run_that_takes_too_long_goes_on_in_the_next_one(big: Big) -> None:
    """A slow service: the run ends in time, and the next one goes on with the same draft and session."""
    slow = big.shop.services.graphs
    await big.submit()
    await big.shop.record(big.account)
    graph = next(iter(slow.values()))
    upload = graph.upload

    async def slowly(mailbox: Any, app: Any, method: str, *args: Any, **options: Any) -> Any:
        if method == "PUT":
            big.shop.advance(200)
        return await upload(mailbox, app, method, *args, **options)

    graph.upload = slowly  # type: ignore[method-assign]
    for name, job in big.shop.queues.take_due():  # this run alone: the next one is due at once where time flies
        await big.shop.run(name, job)
    assert big.arrived() == []
    entry = await big.shop.services.outbox.entry(big.queue_id)
    assert entry is not None
    assert (entry["progress"]["status"], entry["attemptsMade"]) == ("queued", 0)
    await big.shop.run_for(900)
    await big.is_sent_once_and_nothing_is_left()
    assert len(big.shop.requests("POST", "/messages$")) == 1
    assert len(big.shop.requests("POST", "/createUploadSession$")) == 1
    assert len(big.shop.world.log.select("upload", None, "PUT")) == 3


async def test_a_send_that_was_never_carried_out_is_repeated_on_the_same_draft(big: Big) -> None:
    """The draft lies there unsent in several looks: it is sent, not built again."""
    big.shop.world.faults.add(STEP["send"], {"drop": True}, 1)
    await big.submit()
    await big.shop.run_due()
    assert len(big.drafts) == 1
    await big.shop.run_for(900)
    await big.is_sent_once_and_nothing_is_left()
    assert len(big.shop.requests("POST", "/messages$")) == 1


async def test_a_sent_draft_whose_copy_never_appears_counts_as_sent(big: Big) -> None:
    """The draft is gone after an unclear /send and stays gone: it is not sent again (graph.md 6.5)."""
    big.shop.world.switches.sent_items_delay_s = 60
    big.shop.world.mail.later = lambda *_: None  # type: ignore[method-assign]
    big.shop.world.faults.add(STEP["send"], {"after": {"status": 504}}, 1)
    await big.submit()
    await big.shop.run_due()
    await big.shop.run_for(3600, tick_s=600)
    assert big.arrived() == [big.whole]
    assert await big.told() == ["messageSent"]
    assert len(big.shop.requests("POST", "/send$")) == 1


async def test_a_draft_that_somebody_deletes_is_built_again(big: Big) -> None:
    """Throttled before /send, and a person tidies up meanwhile: the mail is sent all the same, once."""
    big.shop.world.faults.add(STEP["send"], {"status": 429, "retry_after": "60"}, 1)
    await big.submit()
    await big.shop.run_due()
    (draft,) = big.drafts
    big.shop.remove(ANN, draft["id"])
    await big.shop.run_for(900)
    await big.is_sent_once_and_nothing_is_left()


async def test_a_draft_that_somebody_sends_by_hand_is_not_sent_again(big: Big) -> None:
    """The draft has become a sent mail while we waited: that is the one mail."""
    big.shop.world.faults.add(STEP["send"], {"status": 429, "retry_after": "60"}, 1)
    await big.submit()
    await big.shop.run_due()
    (draft,) = big.drafts
    send_by_hand(big, draft["id"])()
    await big.shop.run_for(900)
    await big.is_sent_once_and_nothing_is_left()


@pytest.mark.parametrize("cloud", ["global", "without permanentDelete"])
async def test_a_mail_that_is_refused_leaves_no_draft(big: Big, cloud: str) -> None:
    """No Send As for the sender: messageFailed, and the draft is deleted, for good where the cloud can."""
    if cloud != "global":
        big.shop.world.faults.add({"path_regex": "/permanentDelete$"}, {"status": 404}, None)
    await big.submit(**{"from": {"address": "bob@contoso.example"}})
    await big.shop.run_due()
    assert await big.told() == ["messageFailed"]
    assert [one for one in big.shop.world.mail.dump(ANN, "drafts") if one["isDraft"]] == []
    assert await big.stored() == ([], [])
    assert big.arrived() == []
    assert bool(big.drafts) == (cloud != "global")  # soft deletion leaves it in Deleted Items


async def test_a_mail_taken_back_between_two_runs_leaves_no_draft(big: Big) -> None:
    """Cancelled while the half-built draft waits: record, contents and draft go."""
    big.shop.world.faults.add(STEP["attach"], {"status": 429, "retry_after": "600"}, 1)
    await big.submit()
    await big.shop.run_due()
    assert len(big.drafts) == 1
    assert await big.shop.services.outbox.cancel(big.queue_id) is True
    await big.shop.run_for(900)
    assert (big.drafts, big.arrived()) == ([], [])
    assert await big.stored() == ([], [])


async def test_deleting_the_account_takes_the_draft_along(big: Big) -> None:
    """The half-built draft of a deleted account does not stay in the mailbox."""
    big.shop.world.faults.add(STEP["attach"], {"status": 429, "retry_after": "600"}, 1)
    await big.submit()
    await big.shop.run_due()
    assert len(big.drafts) == 1
    await big.shop.services.onboarding.delete(big.account)
    assert big.drafts == []
    assert await big.stored() == ([], [])


async def test_a_draft_that_cannot_be_deleted_now_is_deleted_by_the_sweep(big: Big) -> None:
    """Graph is out when the mail ends: the record of the draft stays until the draft is gone."""
    big.shop.world.faults.add({"path_regex": "/permanentDelete$"}, {"status": 503}, 1)
    await big.submit(**{"from": {"address": "bob@contoso.example"}})
    await big.shop.run_due()
    assert len(big.drafts) == 1
    await big.shop.services.outbox.sweep_large(older_than=large_mail.RUN_FOR)
    assert big.drafts == []
    assert await big.stored() == ([], [])


async def test_a_draft_that_appears_after_a_lost_answer_is_deleted_in_the_end(big: Big) -> None:
    """The first create fails, works on, and its draft comes up when the mail is long sent."""
    world = big.shop.world
    world.faults.add(STEP["create"], {"status": 504}, 1)
    await big.submit()
    await big.shop.run_due()
    await big.shop.run_for(120)
    assert big.arrived() == [big.whole]
    box = big.shop.mailbox(ANN)
    from local.tenant.messages import NewMessage

    late = NewMessage({"internetMessageId": big.answer["messageId"], "subject": "Large"})
    box.add(late, box.well_known["drafts"], isDraft=True)
    big.shop.advance(1200)
    await big.shop.services.outbox.sweep_large(older_than=large_mail.RUN_FOR)
    assert big.drafts == []
    await big.is_sent_once_and_nothing_is_left()


async def test_drafts_of_other_mails_with_the_same_message_id_are_left_alone(big: Big) -> None:
    """A person's older draft that carries the Message-ID given by the caller is not ours to delete."""
    box = big.shop.mailbox(ANN)
    from local.tenant.messages import NewMessage

    own = box.add(NewMessage({"internetMessageId": "<mine@x.example>"}), box.well_known["drafts"], isDraft=True)
    big.shop.advance(3600)
    big.shop.world.faults.add(STEP["create"], {"after": {"status": 504}}, 1)
    await big.submit(messageId="<mine@x.example>")
    await big.shop.run_due()
    await big.shop.run_for(900)
    assert [one["id"] for one in big.drafts] == [own.immutable_id]
    assert big.arrived() == [big.whole]


async def test_contents_of_a_submit_that_never_got_its_record_are_swept_after_a_day(big: Big) -> None:
    """Dying between contents and record leaves blobs: kept for a day, then removed; those of waiting mails stay."""
    services = big.shop.services
    await big.submit(sendAt=(big.shop.clock().replace(year=2099)).isoformat())
    await services.blobs.put("outbox/0000000000000000abc", b"x")
    await services.blobs.put("outbox/0000000000000000abc/0", b"x")
    before = len((await big.stored())[0])
    await services.outbox.sweep_large(older_than=large_mail.RUN_FOR)
    assert await services.blobs.get("outbox/0000000000000000abc") == b"x"
    big.shop.advance(86400)
    await services.outbox.sweep_large(older_than=large_mail.RUN_FOR)
    assert await services.blobs.get("outbox/0000000000000000abc") is None
    assert await services.blobs.get("outbox/0000000000000000abc/0") is None
    assert len((await big.stored())[0]) == before == 3
    await services.outbox.cancel(big.queue_id)
    assert (await big.stored())[0] == []


# -- a person at the draft -----------------------------------------------------------------------------------------


def send_by_hand(big: Big, draft: str) -> Callable[[], object]:
    """Ann sends the draft in her own mail program. Its copy is filed when the result is called."""
    from local.tenant.login import Caller
    from local.tenant.sending import submit

    world, box = big.shop.world, big.shop.mailbox(ANN)
    held: list[Callable[[], object]] = []
    world.switches.sent_items_delay_s = 60
    world.mail.later = lambda delay_s, act: held.append(act)  # type: ignore[method-assign]
    message = box.find(draft)
    caller = Caller("user", box.principal, "outlook", frozenset(), frozenset(), "t")
    submit(world, caller, box, as_content(message), draft=message)
    return lambda: held.pop()()


async def is_left_to_the_person(big: Big, file_copy: Callable[[], object]) -> None:
    """The next run finds no draft; minutes later the copy is there, and nothing was built beside it."""
    built = len(big.shop.requests("POST", "/messages$"))
    await big.shop.run_for(70)
    file_copy()
    await big.finish()
    await big.is_sent_once_and_nothing_is_left()
    assert len(big.shop.requests("POST", "/messages$")) == built


async def draft_before_send(big: Big) -> dict[str, Any]:
    """The whole draft of a mail that is throttled at its /send."""
    big.shop.world.faults.add(STEP["send"], {"status": 429, "retry_after": "5"}, 1)
    await big.submit()
    await big.shop.run_due()
    (draft,) = big.drafts
    return draft


async def test_a_draft_that_somebody_sends_is_not_built_again_before_its_copy_is_filed(big: Big) -> None:
    """Throttled before /send, and a person sends the draft: told as sent once its copy appears."""
    draft = await draft_before_send(big)
    await is_left_to_the_person(big, send_by_hand(big, draft["id"]))


async def test_an_interrupted_draft_that_somebody_sends_is_not_built_again(big: Big) -> None:
    """The draft was complete, but the process did not say so: the next one finds it gone and looks for its copy."""
    draft = await draft_before_send(big)
    table = big.shop.services.tables["drafts"]
    row = await table.get(big.queue_id[-2:], big.queue_id)
    assert row is not None
    await table.replace(replace(row, value=row.value | {"stage": large_mail.BUILDING}))
    await is_left_to_the_person(big, send_by_hand(big, draft["id"]))


async def test_a_copy_under_another_id_is_known_as_the_mail_that_somebody_sent(big: Big) -> None:
    """A mail program that files a copy of its own instead of the draft: its stamp tells, and nothing is built."""
    draft = await draft_before_send(big)
    box, message = big.shop.mailbox(ANN), big.shop.message(ANN, draft["id"])
    send_by_hand(big, draft["id"])()
    box.remove(message, purge=True)
    box.add(as_content(message), box.well_known["sentitems"], isDraft=False)
    await big.finish()
    await big.is_sent_once_and_nothing_is_left()


@pytest.fixture(autouse=True)
async def tidy(workshop: Workshop) -> AsyncIterator[None]:
    """Tests of this file share the container of blobs; each leaves it as it found it."""
    yield
    far = workshop.clock().replace(year=2100)
    async for name in workshop.services.blobs.old("outbox/", far):
        await workshop.services.blobs.delete(name)
