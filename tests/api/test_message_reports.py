"""What new messages tell of earlier ones, and what comes with them: bounces, complaints, attachments, meetings."""

import base64
import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from shared.event_contents import INLINE_BYTES
from shared.events import before, delivery_job
from tests.support.application import Application
from tests.support.desk import Desk
from tests.support.receiver import Receiver
from tests.support.tenant import Tenant
from tests.support.workshop import ANN, RITA, SUPPORT, Workshop
from tests.unit.test_calendar_events import INVITE
from tests.unit.test_reports import ARF, POSTFIX, dsn, free

Json = dict[str, Any]
GHOST = "ghost@contoso.example"


async def settings(shop: Workshop, **values: Any) -> None:
    """Changes service settings."""
    status, body = await shop.call("POST", "/v1/settings", values)
    assert status == 200, body


async def told(shop: Workshop, account: str, message_id: str) -> list[str]:
    """The names of the events about a message, in the order in which they are delivered."""
    rows = await shop.services.tables["events"].partition(account)
    about = [row for row in rows if message_id in json.dumps(row.value["envelope"]["data"])]
    return [row.value["envelope"]["event"] for row in about]


async def new_event(shop: Workshop, account: str, message_id: str) -> Json:
    """The messageNew of a message."""
    (found,) = [one for one in await shop.events(account, "messageNew") if one["data"]["id"] == message_id]
    return found


def sources(shop: Workshop, message_id: str) -> int:
    """How often the source of a message was fetched."""
    return len(shop.requests("GET", f"{message_id}/\\$value$"))


async def submitted(shop: Workshop, account: str, **fields: Any) -> Json:
    """A mail to somebody who does not exist, sent, and its report heard of."""
    given = {"to": [{"address": GHOST}], "subject": "To nobody", "text": "x", **fields}
    accepted = await shop.services.submit.accept(account, given)
    await shop.settle()
    await shop.run_for(61)
    return accepted


# -- bounces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["push", "poll"])
async def test_a_mail_to_nobody_bounces_with_its_queue_id_after_its_message_new(workshop: Workshop, way: str) -> None:
    """Sent by us, refused by Exchange: one messageBounce with every field, ordered behind the report's messageNew."""
    holder = await workshop.own()
    account = holder if way == "push" else await workshop.delegated(SUPPORT, holder)
    address = ANN if way == "push" else SUPPORT
    await workshop.run_for(61)
    accepted = await submitted(workshop, account)
    (report,) = workshop.world.mail.dump(address, "inbox")
    new = await new_event(workshop, account, report["id"])
    assert new["data"]["isBounce"] is True
    assert new["data"]["relatedMessageId"] == accepted["messageId"]
    assert new["data"]["isAutoReply"] is True
    (bounce,) = await workshop.events(account, "messageBounce")
    assert set(bounce) == {"serviceUrl", "account", "date", "event", "data"}
    headers = bounce["data"].pop("messageHeaders")
    assert headers["subject"] == ["To nobody"]
    assert headers["message-id"] == [accepted["messageId"]]
    assert bounce["data"] == {
        "bounceMessage": report["id"],
        "recipient": GHOST,
        "action": "failed",
        "response": {
            "source": "smtp",
            "message": f"550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient {GHOST} not found by SMTP address lookup",
            "status": "5.1.10",
        },
        "mta": "mail.contoso.example",
        "queueId": accepted["queueId"],
        "messageId": accepted["messageId"],
    }
    assert await told(workshop, account, report["id"]) == ["messageNew", "messageBounce"]
    rows = await workshop.services.tables["events"].partition(account)
    first, second = [row.key for row in rows if report["id"] in json.dumps(row.value["envelope"]["data"])]
    span = before(second)
    assert span is not None
    assert span[0] <= first < span[1]  # delivery waits for what lies in this span


async def test_a_bounce_long_after_its_mail_still_has_the_queue_id(workshop: Workshop) -> None:
    """The outbox forgets a sent mail after two days; its event remembers. Without returned headers the mailbox's own
    copy of the mail names it."""
    account = await workshop.own()
    mail = {"to": [{"address": RITA}], "subject": "Late", "text": "x"}
    accepted = await workshop.services.submit.accept(account, mail)
    await workshop.settle()
    workshop.advance(3 * 24 * 3600)
    await workshop.timers()
    assert await workshop.services.outbox.stored(accepted["queueId"]) is None
    source = free(POSTFIX, f"In-Reply-To: {accepted['messageId']}", "Message-ID: <late@x.example>")
    report = workshop.deliver(ANN, raw=source)
    await workshop.settle()
    (bounce,) = await workshop.events(account, "messageBounce")
    assert bounce["data"]["bounceMessage"] == report
    assert (bounce["data"]["queueId"], bounce["data"]["messageId"]) == (accepted["queueId"], accepted["messageId"])
    assert bounce["data"]["recipient"] == "bob@there.example"


async def test_a_forged_stamp_names_no_mail_of_ours(workshop: Workshop) -> None:
    """A bounce whose returned headers carry a queue id nobody knows is told without one."""
    account = await workshop.own()
    workshop.deliver(ANN, raw=dsn("Final-Recipient: rfc822;bob@there.example\r\nAction: failed\r\nStatus: 5.1.1\r\n"))
    await workshop.settle()
    (bounce,) = await workshop.events(account, "messageBounce")
    assert bounce["data"]["messageId"] == "<order-17@contoso.example>"
    assert "queueId" not in bounce["data"]


async def test_every_refused_recipient_is_told_once_though_everything_comes_thrice(workshop: Workshop) -> None:
    """Two recipients, notifications repeated, and delta besides: two messageBounce."""
    workshop.world.switches.notification_repeat = 3
    account = await workshop.own()
    groups = "\r\n".join(f"Final-Recipient: rfc822;{n}@x.example\r\nAction: failed\r\nStatus: 5.1.1\r\n" for n in "ab")
    workshop.deliver(ANN, raw=dsn(f"Reporting-MTA: dns;x.example\r\n\r\n{groups}"))
    await workshop.settle()
    await workshop.services.sync.catch_up(account)
    bounces = await workshop.events(account, "messageBounce")
    assert Counter(one["data"]["recipient"] for one in bounces) == {"a@x.example": 1, "b@x.example": 1}
    assert len(await workshop.events(account, "messageNew")) == 1


async def test_bounces_count_in_inbox_and_junk_and_receipts_and_complaints_in_the_inbox(workshop: Workshop) -> None:
    """Elsewhere they are mail like any other, and their source is not fetched."""
    account = await workshop.own()
    failed = dsn("Final-Recipient: rfc822;bob@there.example\r\nAction: failed\r\nStatus: 5.1.1\r\n")
    delivered = dsn("Final-Recipient: rfc822;bob@there.example\r\nAction: delivered\r\nStatus: 2.0.0\r\n")
    placed = {
        (name, folder): workshop.deliver(ANN, raw=raw, folder=folder)
        for name, raw in (("failed", failed), ("delivered", delivered), ("complaint", ARF))
        for folder in ("inbox", "junkemail", "archive")
    }
    await workshop.settle()
    shown = {where: (await new_event(workshop, account, one))["data"] for where, one in placed.items()}
    assert [where for where, data in shown.items() if "isBounce" in data] == [
        ("failed", "inbox"), ("failed", "junkemail")
    ]  # fmt: skip
    assert [where for where, data in shown.items() if "isComplaint" in data] == [("complaint", "inbox")]
    assert [where for where, data in shown.items() if "deliveryReport" in data] == [("delivered", "inbox")]
    assert shown["delivered", "inbox"]["deliveryReport"] == {
        "recipient": "bob@there.example", "action": "delivered", "response": {"status": "2.0.0"},
        "messageId": "<order-17@contoso.example>",
    }  # fmt: skip
    assert {one["data"]["bounceMessage"] for one in await workshop.events(account, "messageBounce")} == {
        placed["failed", "inbox"], placed["failed", "junkemail"]
    }  # fmt: skip
    assert [sources(workshop, placed[name, "archive"]) for name in ("failed", "delivered", "complaint")] == [0, 0, 0]


async def test_a_complaint_is_told_after_its_message_new(workshop: Workshop) -> None:
    """With the report and the headers of the mail it is about."""
    account = await workshop.own()
    report = workshop.deliver(ANN, raw=ARF)
    await workshop.settle()
    assert await told(workshop, account, report) == ["messageNew", "messageComplaint"]
    (complaint,) = await workshop.events(account, "messageComplaint")
    assert set(complaint) == {"serviceUrl", "account", "date", "event", "data"}
    assert complaint["data"]["complaintMessage"] == report
    assert complaint["data"]["arf"]["originalRcptTo"] == ["bob@isp.example"]
    assert complaint["data"]["headers"]["messageId"] == "<order-17@contoso.example>"
    assert (await new_event(workshop, account, report))["data"]["relatedMessageId"] == "<order-17@contoso.example>"


@pytest.mark.parametrize(
    "raw",
    [
        b"From: mailer-daemon@x.example\r\nContent-Type: multipart/report; boundary=\"\xff\xfe\r\n\r\n--\xff",
        b"From: postmaster@x.example\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n" + b"--a\r\n" * 3000,
        b"From: postmaster@x.example\r\nContent-Type: message/delivery-status\r\n\r\n\x00\xff\xfe",
    ],
    ids=["no boundary", "thousands of parts", "bytes"],
)  # fmt: skip
async def test_a_report_nobody_understands_holds_up_nothing(workshop: Workshop, raw: bytes) -> None:
    """It is told as new, and so is the mail behind it."""
    account = await workshop.own()
    broken = workshop.deliver(ANN, raw=raw)
    after = workshop.deliver(ANN, "After it")
    await workshop.settle()
    assert {one["data"]["id"] for one in await workshop.events(account, "messageNew")} == {broken, after}
    assert await workshop.events(account, "messageBounce") == []


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_a_source_that_graph_does_not_give_is_done_without(workshop: Workshop, status: int) -> None:
    """The report is told as new, and what its body says as the bounce."""
    account = await workshop.own()
    workshop.world.faults.add({"path_regex": "/\\$value$"}, {"status": status}, None)
    report = workshop.deliver(ANN, raw=free(POSTFIX))
    await workshop.settle()
    assert await told(workshop, account, report) == ["messageNew", "messageBounce"]
    (bounce,) = await workshop.events(account, "messageBounce")
    assert (bounce["data"]["recipient"], bounce["data"]["response"]["status"]) == ("bob@there.example", "5.7.1")


async def test_an_outage_while_a_report_is_read_delays_it_and_loses_nothing(workshop: Workshop) -> None:
    """Graph is busy when the source is asked for: a minute later everything is told, once."""
    account = await workshop.own()
    workshop.world.faults.add({"path_regex": "/\\$value$"}, {"status": 503}, 2)
    report = workshop.deliver(ANN, raw=free(POSTFIX))
    await workshop.settle()
    assert await told(workshop, account, report) == []
    await workshop.run_for(600)
    assert await told(workshop, account, report) == ["messageNew", "messageBounce"]


async def test_an_ordinary_mail_costs_no_call_for_its_source(workshop: Workshop) -> None:
    """One GET of the message, and one for its attachments where it has some."""
    account = await workshop.own()
    mail = workshop.deliver(ANN, "Undeliverable promises", headers={"X-Any": "1"})
    await workshop.settle()
    assert (await new_event(workshop, account, mail))["path"] == "Inbox"
    assert sources(workshop, mail) == 0
    assert len(workshop.requests("GET", mail)) == 1


async def test_automatic_answers_are_marked(workshop: Workshop) -> None:
    """An out-of-office answer is new mail with `isAutoReply`; an ordinary answer has no such field."""
    account = await workshop.own()
    away = workshop.deliver(ANN, "Automatic reply: Order 17")
    header = workshop.deliver(ANN, "Re: Order 17", headers={"Auto-Submitted": "auto-replied"})
    answer = workshop.deliver(ANN, "Re: Order 17")
    await workshop.settle()
    marked = {one["data"]["id"]: one["data"].get("isAutoReply") for one in await workshop.events(account, "messageNew")}
    assert marked == {away: True, header: True, answer: None}


# -- attachments and meetings ----------------------------------------------------------------------------------------


def attached(name: str, content: bytes, kind: str = "application/octet-stream") -> Json:
    """An attachment of a delivered mail."""
    return {"name": name, "contentType": kind, "contentBytes": base64.b64encode(content).decode()}


async def test_attachments_come_with_their_content_up_to_the_limit(workshop: Workshop) -> None:
    """base64 of each that is small enough; the others are listed without, and all without when it is not asked for."""
    account = await workshop.own()
    files = [attached("small.txt", b"hello"), attached("large.bin", bytes(20_000))]
    plain = workshop.deliver(ANN, "Plain", attachments=files)
    await workshop.settle()
    await settings(workshop, notifyAttachments=True, notifyAttachmentSize=5)
    limited = workshop.deliver(ANN, "Limited", attachments=files)
    await workshop.settle()
    await settings(workshop, notifyAttachmentSize=None)
    whole = workshop.deliver(ANN, "Whole", attachments=files)
    await workshop.settle()

    async def contents(message_id: str) -> list[bytes | None]:
        listed = (await new_event(workshop, account, message_id))["data"]["attachments"]
        return [base64.b64decode(one["content"]) if "content" in one else None for one in listed]

    assert await contents(plain) == [None, None]
    assert await contents(limited) == [b"hello", None]
    assert await contents(whole) == [b"hello", bytes(20_000)]
    assert len(workshop.requests("GET", f"{limited}/attachments/")) == 1  # the large one is not even fetched


async def deliver_all(shop: Workshop, account: str) -> None:
    """Makes every delivery that is due."""
    for row in await shop.services.tables["events"].partition(account):
        if row.columns["state"] == "queued":
            await shop.services.webhooks.deliver(delivery_job(account, row.key, shop.clock()))


async def blobs_of(shop: Workshop) -> list[str]:
    """The names of the contents kept for events."""
    far = shop.clock() + timedelta(days=365)
    return [name async for name in shop.services.blobs.old("events/", far)]


async def test_an_event_over_what_a_record_holds_arrives_whole_and_leaves_nothing(
    workshop: Workshop, receiver: Receiver
) -> None:
    """Megabytes of attachments and of text: delivered with every byte, shown whole while dead, gone after it."""
    hooks = {"webhooksEnabled": True, "webhooks": receiver.url, "webhookEvents": ["*"], "inboxNewOnly": True}
    await workshop.services.service_settings.write(hooks)
    account = await workshop.own()
    await settings(workshop, notifyAttachments=True, notifyText=True)
    content, text = bytes(range(256)) * 8_000, "<p>" + "ä" * INLINE_BYTES + "</p>"
    mail = workshop.deliver(ANN, "Large", html=text, attachments=[attached("large.bin", content)])
    await workshop.settle()
    earlier = await blobs_of(workshop)
    assert earlier
    (row,) = [one for one in await workshop.services.tables["events"].partition(account) if "contents" in one.value]
    assert len(json.dumps(row.value)) < 10_000
    receiver.answer_next(*[410] * 10)
    await deliver_all(workshop, account)
    dead = await workshop.services.undelivered.find(row.key.rpartition("~")[2])
    assert dead is not None
    assert dead["payload"]["data"]["text"]["html"] == text
    receiver._answers.clear()
    receiver.requests.clear()
    assert await workshop.services.undelivered.replay_one(row.key.rpartition("~")[2])
    await deliver_all(workshop, account)
    (heard,) = [one.json for one in receiver.requests if one.json["event"] == "messageNew"]
    assert heard["data"]["id"] == mail
    assert base64.b64decode(heard["data"]["attachments"][0]["content"]) == content
    assert heard["data"]["text"]["html"] == text
    assert row.value["contents"] not in await blobs_of(workshop)
    # Told again by a worker that lagged behind: nothing is left of it either.
    await workshop.services.events.emit(account, "messageNew", heard["data"], happening=f"new {mail}", about=mail)
    assert row.value["contents"] not in await blobs_of(workshop)


async def test_contents_end_with_their_account_or_when_nobody_could_want_them(workshop: Workshop) -> None:
    """A deleted account leaves none; of others, those of two months ago go."""
    await settings(workshop, notifyText=True)
    kept, deleted = await workshop.own(), await workshop.delegated(SUPPORT, await workshop.own())
    for account, number in ((kept, 1), (deleted, 2), (deleted, 3)):
        data = {"id": f"m{number}", "text": {"plain": "x" * (INLINE_BYTES + 1)}}
        await workshop.services.events.emit(account, "messageNew", data, happening=f"new m{number}", about=f"m{number}")
    events = workshop.services.tables["events"]
    (left,), gone = [
        {row.value["contents"] for row in await events.partition(one) if "contents" in row.value}
        for one in (kept, deleted)
    ]
    assert len(gone) == 2
    await workshop.services.onboarding.delete(deleted)
    assert not gone & set(await blobs_of(workshop))
    assert left in await blobs_of(workshop)
    assert await workshop.services.events.contents.sweep(workshop.clock()) == 0
    workshop.advance(66 * 24 * 3600)
    assert await workshop.services.events.contents.sweep(workshop.clock()) >= 1
    assert left not in await blobs_of(workshop)


async def test_meetings_are_told_when_asked_for(workshop: Workshop) -> None:
    """From an attached calendar, with its attachment id; nothing without the setting, nothing for other mail."""
    account = await workshop.own()
    files = [attached("meeting.ics", INVITE.encode(), "text/calendar")]
    quiet = workshop.deliver(ANN, "Quiet", attachments=files)
    await workshop.settle()
    await settings(workshop, notifyCalendarEvents=True)
    invited = workshop.deliver(ANN, "Invited", attachments=files)
    other = workshop.deliver(ANN, "Other", attachments=[attached("a.txt", b"a")])
    await workshop.settle()
    assert "calendarEvents" not in (await new_event(workshop, account, quiet))["data"]
    assert "calendarEvents" not in (await new_event(workshop, account, other))["data"]
    data = (await new_event(workshop, account, invited))["data"]
    (event,) = data["calendarEvents"]
    assert (event["eventId"], event["method"], event["filename"]) == ("abc-1@contoso.example", "REQUEST", "meeting.ics")
    assert event["attachment"] == data["attachments"][0]["id"]
    assert base64.b64decode(event["content"]) == INVITE.encode()


async def test_a_meeting_is_found_in_the_source_where_exchange_lists_no_attachment(workshop: Workshop) -> None:
    """As with invitations, whose calendar part is a property of the message there."""
    account = await workshop.own()
    await settings(workshop, notifyCalendarEvents=True)
    head = "From: ann@x.example\r\nSubject: Meeting\r\nContent-Type: text/calendar; method=REQUEST\r\n\r\n"
    invited = workshop.deliver(ANN, raw=(head + INVITE).encode())
    held = workshop.message(ANN, invited)
    held.attachments.clear()
    held.properties["hasAttachments"] = False
    await workshop.settle()
    data = (await new_event(workshop, account, invited))["data"]
    (event,) = data["calendarEvents"]
    assert (event["eventId"], event["summary"]) == ("abc-1@contoso.example", "Planung, zweiter Teil")
    assert "attachment" not in event
    assert sources(workshop, invited) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("notifyAttachments", "perhaps"), ("notifyAttachmentSize", -1), ("notifyAttachmentSize", "many"),
     ("notifyCalendarEvents", []), ("notifyAttachmentSize", 10**30)],
)  # fmt: skip
async def test_wrong_values_of_these_settings_are_refused_by_name(workshop: Workshop, key: str, value: Any) -> None:
    """Nothing is written."""
    status, body = await workshop.call("POST", "/v1/settings", {key: value})
    assert (status, [one["key"] for one in body["fields"]]) == (400, [key])
    assert (await workshop.call("GET", f"/v1/settings?{key}=true"))[1] == {key: None}


# -- over HTTP -------------------------------------------------------------------------------------------------------


async def test_a_bounce_reaches_the_receiver_behind_its_message_new(
    app: Application, tenant: Tenant, receiver: Receiver
) -> None:
    """The whole way through the running app: submit, refusal, report, two webhooks in order."""
    await tenant.reset()
    desk = Desk(app, tenant)
    await desk.hear(receiver.url, notifyAttachments=True, notifyText=None, notifyHeaders=None, inboxNewOnly=None)
    try:
        account = await desk.own()
        accepted = await desk.accepted(account, to=[{"address": GHOST}], subject="To nobody", text="x")
        bounce = await receiver.wait_for(lambda one: one.json["event"] == "messageBounce", 120)
        assert bounce.json["account"] == account
        assert bounce.json["data"]["queueId"] == accepted["queueId"]
        assert (bounce.json["data"]["recipient"], bounce.json["data"]["action"]) == (GHOST, "failed")
        report = bounce.json["data"]["bounceMessage"]
        events = [one.json["event"] for one in receiver.requests if report in one.body.decode()]
        assert events == ["messageNew", "messageBounce"]
        (new,) = [one.json["data"] for one in receiver.requests if one.json["data"].get("id") == report]
        (returned,) = [one for one in new["attachments"] if one["contentType"] == "message/rfc822"]
        assert accepted["messageId"].encode() in base64.b64decode(returned["content"])
    finally:
        await desk.settings(webhooksEnabled=False, notifyAttachments=None)
        await desk.close()
