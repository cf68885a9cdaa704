"""Replies and forwards: what the recipient gets, and what refers to nothing."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from local.services import Azurite
from tests.support.sending import (
    ANN,
    RITA,
    SUPPORT,
    TO,
    Json,
    Mailroom,
    addresses,
    body_of,
    keys_of,
    open_mailroom,
    parsed,
)

CARL = "carl@customer.example"
PIXEL = base64.b64encode(b"\x89PNG picture").decode()

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(quiet_azurite: Azurite) -> AsyncIterator[Mailroom]:
    """One office for the file."""
    async for room in open_mailroom(quiet_azurite):
        room.services.originals.sleep = room._sleep
        yield room


@pytest_asyncio.fixture(loop_scope="module")
async def room(opened: Mailroom) -> AsyncIterator[Mailroom]:
    """The office, with no faults left behind."""
    yield opened
    opened.world.faults.remove()


def asked(room: Mailroom, subject: str = "Order 17", **more: Any) -> str:
    """A customer's mail to the shared mailbox; its id."""
    fields = {"text": "Where is it?\nRegards", "to": [SUPPORT], **more}
    return room.deliver(SUPPORT, subject, **fields)


def thread_of(mail: Json) -> tuple[str, list[str]]:
    """In-Reply-To and References of the mail that arrived."""
    sent = parsed(mail)
    return str(sent["In-Reply-To"] or "").strip(), str(sent["References"] or "").split()


async def test_a_reply_goes_to_the_sender_under_the_subject_and_in_the_thread(room: Mailroom) -> None:
    """To, subject, In-Reply-To and References come from the original; the answer says which it was."""
    message = asked(room, message_id="<order@customer.example>")
    answer = await room.sent(room.support, reference={"message": message}, text="On its way")
    (mail,) = room.left(CARL, answer["messageId"])
    assert addresses(mail["toRecipients"]) == [CARL]
    assert mail["subject"] == "Re: Order 17"
    assert thread_of(mail) == ("<order@customer.example>", ["<order@customer.example>"])
    thread = room.message(SUPPORT, message).properties["conversationId"]
    assert answer["reference"] == {
        "message": message, "threadId": thread, "documentStore": False, "success": True,
    }  # fmt: skip
    assert len(room.copies(SUPPORT, answer["messageId"])) == 1


async def test_references_hold_the_whole_thread_once_and_the_original_last(room: Mailroom) -> None:
    """What the original referred to, what it answered, and itself."""
    headers = {"In-Reply-To": "<c@x.example>", "References": "<a@x.example> <b@x.example>\r\n <a@x.example>"}
    message = asked(room, headers=headers, message_id="<d@x.example>")
    mail = await room.received(room.support, reference={"message": message}, to=TO, text="x")
    expected = ["<a@x.example>", "<b@x.example>", "<c@x.example>", "<d@x.example>"]
    assert thread_of(mail) == ("<d@x.example>", expected)


async def test_a_reply_goes_where_reply_to_says(room: Mailroom) -> None:
    """Reply-To of the original wins over its From."""
    raw = (
        f"From: {CARL}\r\nTo: {SUPPORT}\r\nReply-To: Rita <{RITA}>\r\nSubject: Elsewhere\r\n"
        "Message-ID: <elsewhere@customer.example>\r\n\r\nx\r\n"
    )
    message = asked(room, raw=raw.encode())
    mail = await room.received(room.support, reference={"message": message}, text="x")
    assert addresses(mail["toRecipients"]) == [RITA]


async def test_a_reply_with_recipients_of_its_own_goes_to_them_alone(room: Mailroom) -> None:
    """The caller's `to` replaces the sender."""
    mail = await room.received(room.support, reference={"message": asked(room)}, to=TO, text="x")
    assert addresses(mail["toRecipients"]) == [RITA]


async def test_a_reply_to_all_leaves_out_the_mailbox_itself_and_never_shows_bcc(room: Mailroom) -> None:
    """Sender, To and Cc once each, in any letters; own address and the original's Bcc are not among them."""
    raw = (
        f"From: Carl <{CARL}>\r\nTo: Support <{SUPPORT.upper()}>, {RITA}, Group: ;\r\n"
        f"Cc: bob@contoso.example, {RITA.title()}\r\nBcc: john@contoso.example\r\nSubject: All\r\n"
        "Message-ID: <all@customer.example>\r\n\r\nx\r\n"
    )
    message = asked(room, raw=raw.encode())
    room.message(SUPPORT, message).properties["bccRecipients"] = [
        {"emailAddress": {"name": "John", "address": "john@contoso.example"}}
    ]
    fields = {"reference": {"message": message, "action": "Reply-All"}, "cc": [{"address": "new@customer.example"}]}
    mail = await room.received(room.support, text="x", **fields)
    assert addresses(mail["toRecipients"]) == [CARL, RITA]
    assert addresses(mail["ccRecipients"]) == ["bob@contoso.example", "new@customer.example"]
    assert b"john@" not in base64.b64decode(mail["_raw"])
    (copy,) = room.copies(SUPPORT, mail["internetMessageId"])
    assert copy["bccRecipients"] == []


async def test_a_forward_takes_the_files_along_and_answers_nobody(room: Mailroom) -> None:
    """`Fwd: `, every attachment byte for byte, References but no In-Reply-To; recipients are the caller's."""
    files = [
        {"name": "größe.pdf", "contentType": "application/pdf", "contentBytes": base64.b64encode(b"%PDF").decode()},
        {"name": "logo.png", "contentType": "image/png", "contentBytes": PIXEL, "isInline": True, "contentId": "logo"},
    ]
    message = asked(room, message_id="<fw@customer.example>", attachments=files)
    reference = {"message": message, "action": "forward", "forwardAttachments": True}
    mail = await room.received(room.support, reference=reference, to=TO, text="See below")
    assert mail["subject"] == "Fwd: Order 17"
    assert thread_of(mail) == ("", ["<fw@customer.example>"])
    found = {part.get_filename(): part.get_payload(decode=True) for part in parsed(mail).iter_attachments()}
    assert found == {"größe.pdf": b"%PDF", "logo.png": b"\x89PNG picture"}
    status, answer = await room.submit(room.support, reference=reference, text="x")
    assert (status, keys_of(answer)) == (400, ["to"])


async def test_a_forwarded_mail_inside_the_original_stays_a_mail(room: Mailroom) -> None:
    """An attached message/rfc822 is attached again as one."""
    inner = b"From: x@y.example\r\nSubject: Inner\r\n\r\nhello\r\n"
    raw = (
        b"From: " + CARL.encode() + b"\r\nTo: " + SUPPORT.encode() + b"\r\nSubject: Nested\r\nMIME-Version: 1.0\r\n"
        b"Message-ID: <nested@customer.example>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n"
        b"--b\r\nContent-Type: message/rfc822\r\n\r\n" + inner + b"\r\n--b--\r\n"
    )
    reference = {"message": asked(room, raw=raw), "action": "forward", "forwardAttachments": True}
    mail = await room.received(room.support, reference=reference, to=TO, text="x")
    (part,) = parsed(mail).iter_attachments()
    assert part.get_content_type() == "message/rfc822"
    assert inner in base64.b64decode(mail["_raw"])


@pytest.mark.parametrize(
    ("locale", "tz", "line"),
    [
        ("en", "Europe/Tallinn", "On Mon, Mar 2, 2026 at 10:15 AM, Carl <carl@customer.example> wrote:"),
        ("de-AT", "Europe/Vienna", "Am Mo., 2. März 2026 um 09:15 Uhr schrieb Carl <carl@customer.example>:"),
        ("ja", "Asia/Tokyo", "2026年3月2日(月) 17:15 Carl <carl@customer.example>:"),
        ("xx", "UTC", "On Mon, Mar 2, 2026 at 8:15 AM, Carl <carl@customer.example> wrote:"),
    ],
)
async def test_the_original_is_quoted_in_html_and_text_under_a_line_in_the_readers_language(
    room: Mailroom, locale: str, tz: str, line: str
) -> None:
    """New words first, then who wrote when, then the original; pictures shown by cid come along."""
    html = '<html><head><title>T</title></head><body><p>Old &amp; <b>new</b></p><img src="cid:logo"></body></html>'
    picture = {"name": "logo.png", "contentType": "image/png", "contentBytes": PIXEL}
    picture |= {"isInline": True, "contentId": "logo"}
    message = asked(room, text=None, html=html, attachments=[picture])
    room.message(SUPPORT, message).properties["sentDateTime"] = "2026-03-02T08:15:00Z"
    room.message(SUPPORT, message).properties["receivedDateTime"] = "2026-03-02T08:15:00Z"
    reference = {"message": message, "inline": True}
    fields = {"html": "<html><body><p>My answer</p></body></html>", "locale": locale, "tz": tz, "reference": reference}
    mail = await room.received(room.support, to=TO, **fields)
    sent = parsed(mail)
    shown, text = body_of(sent, "html"), body_of(sent, "plain")
    written = line.replace("<", "&lt;").replace(">", "&gt;")
    parts = ("<p>My answer</p>", written, "<p>Old &amp; <b>new</b></p>", "</body>")
    places = [shown.find(part) for part in parts]
    assert places == sorted(places)
    assert places[0] >= 0
    assert "<title>" not in shown
    assert text.splitlines()[:4] == ["My answer", "", line, ""]
    assert "> Old & new" in text.splitlines()
    (inline,) = [part for part in sent.walk() if part.get_content_type() == "image/png"]
    assert (inline["Content-ID"], inline.get_payload(decode=True)) == ("<logo>", b"\x89PNG picture")


async def test_locale_and_time_zone_of_the_account_are_the_default(room: Mailroom) -> None:
    """A plain reply to a plain mail: text alone, in the account's language."""
    account = await room.own("bob@contoso.example", locale="et", tz="Europe/Tallinn")
    message = room.deliver("bob@contoso.example", "Tere", text="Kus?")
    room.message("bob@contoso.example", message).properties["receivedDateTime"] = "2026-03-02T08:15:00Z"
    room.message("bob@contoso.example", message).properties["sentDateTime"] = "2026-03-02T08:15:00Z"
    mail = await room.received(account, reference={"message": message, "inline": True}, to=TO, text="Siin")
    assert parsed(mail).get_content_type() == "text/plain"
    lines = body_of(parsed(mail), "plain").splitlines()
    assert lines == ["Siin", "", "E, 2. märts 2026 kell 10:15 kirjutas Carl <carl@customer.example>:", "", "> Kus?"]


async def test_a_quoted_original_can_not_break_out_of_its_place(room: Mailroom) -> None:
    """Scripts go, and what never closes ends where it begins."""
    html = "<body>one<script>steal()</script><p>two</p></body><!-- never closed"
    fields = {"reference": {"message": asked(room, text=None, html=html), "inline": True}, "html": "<p>mine</p>"}
    shown = body_of(parsed(await room.received(room.support, to=TO, **fields)), "html")
    assert "steal" not in shown
    assert shown.endswith("one<p>two</p></blockquote></div>")


@pytest.mark.parametrize("message", ["AAMkAGI1-nothing-here", "x", "a/b", "..", "%00", "#", "A" * 256])
async def test_a_reference_that_leads_nowhere_is_refused_and_nothing_is_queued(room: Mailroom, message: str) -> None:
    """404 ReferenceNotFound."""
    before = (await room.call("GET", "/v1/outbox"))[1]["total"]
    status, answer = await room.submit(room.support, reference={"message": message}, to=TO, text="x")
    assert (status, answer["code"]) == (404, "ReferenceNotFound")
    assert answer["message"] == "Referenced message was not found"
    assert (await room.call("GET", "/v1/outbox"))[1]["total"] == before


async def test_a_missing_original_may_be_ignored(room: Mailroom) -> None:
    """The mail goes out without it, and the answer says so; without recipients there is nothing to send."""
    reference = {"message": "AAMkAGI1-gone", "ignoreMissing": True}
    answer = await room.sent(room.support, reference=reference, to=TO, subject="Alone", text="x")
    assert answer["reference"] == {
        "message": "AAMkAGI1-gone", "documentStore": False, "success": False,
        "error": "Referenced message was not found",
    }  # fmt: skip
    (mail,) = room.arrived(RITA, answer["messageId"])
    assert thread_of(mail) == ("", [])
    status, refused = await room.submit(room.support, reference=reference, text="x")
    assert (status, keys_of(refused)) == (400, ["to"])


async def test_another_message_id_than_expected_is_refused(room: Mailroom) -> None:
    """404 MessageNotFound, with the contract's words; the right one is accepted with or without brackets."""
    message = asked(room, message_id="<right@customer.example>")
    wrong = {"message": message, "messageId": "<wrong@customer.example>", "ignoreMissing": True}
    status, answer = await room.submit(room.support, reference=wrong, to=TO, text="x")
    assert (status, answer["code"]) == (404, "MessageNotFound")
    assert answer["message"].endswith("its Message-ID does not match the expected value")
    right = {"message": message, "messageId": "right@customer.example"}
    assert (await room.submit(room.support, reference=right, to=TO, text="x"))[0] == 200


async def test_a_thread_alone_means_its_newest_mail_that_is_no_draft(room: Mailroom) -> None:
    """`threadId` without `message`."""
    first = asked(room, "Thread", message_id="<t1@customer.example>")
    thread = room.message(SUPPORT, first).properties["conversationId"]
    second = asked(room, "Re: Thread", message_id="<t2@customer.example>")
    draft = asked(room, "Re: Thread", message_id="<t3@customer.example>")
    for number, message in enumerate((first, second, draft)):
        stored = room.message(SUPPORT, message).properties
        stored |= {"conversationId": thread, "receivedDateTime": f"2026-03-0{number + 1}T00:00:00Z"}
    room.message(SUPPORT, draft).properties["isDraft"] = True
    answer = await room.sent(room.support, reference={"threadId": thread}, to=TO, text="x")
    (mail,) = room.arrived(RITA, answer["messageId"])
    assert thread_of(mail)[0] == "<t2@customer.example>"
    assert answer["reference"]["message"] == second
    status, refused = await room.submit(room.support, reference={"threadId": "none"}, to=TO, text="x")
    assert (status, refused["code"]) == (404, "ReferenceNotFound")


async def test_an_outage_while_fetching_is_tried_three_times(room: Mailroom) -> None:
    """Two failures do not matter; three do, unless they are to be ignored."""
    message = asked(room)
    fault: Json = {"match": {"method": "GET", "path_regex": "/messages/"}, "action": {"status": 503}}
    room.world.faults.add(**fault, times=2)
    assert (await room.submit(room.support, reference={"message": message}, to=TO, text="x"))[0] == 200
    room.world.faults.add(**fault, times=3)
    status, answer = await room.submit(room.support, reference={"message": message}, to=TO, text="x")
    assert (status, answer["code"]) == (503, "ConnectionError")
    room.world.faults.add(**fault, times=3)
    ignoring = {"message": message, "ignoreMissing": True}
    status, answer = await room.submit(room.support, reference=ignoring, to=TO, text="x")
    assert (status, answer["reference"]["success"]) == (200, False)


async def test_a_structured_reply_keeps_the_thread(room: Mailroom) -> None:
    """Graph's JSON has no header for it; the properties behind the headers carry it."""
    message = asked(room, message_id="<json@customer.example>")
    mail = await room.received(
        room.support, "?useStructuredFormat=true", reference={"message": message}, to=TO, html="<p>x</p>"
    )
    assert {one["id"]: one["value"] for one in mail["singleValueExtendedProperties"]} == {
        "String 0x1042": "<json@customer.example>", "String 0x1039": "<json@customer.example>",
    }  # fmt: skip


async def test_a_repeat_under_one_key_says_the_same_of_its_reference(room: Mailroom) -> None:
    """The answer of the first call, without a second look at the original."""
    fields = {"reference": {"message": asked(room)}, "to": TO, "text": "x"}
    first = await room.services.submit.accept(room.support, fields, key="reply-1")
    seen = len(room.requests("GET", "/messages/"))
    again = await room.services.submit.accept(room.support, fields, key="reply-1")
    assert again["reference"] == first["reference"]
    assert again["idempotency"]["status"] == "HIT"
    assert len(room.requests("GET", "/messages/")) == seen


@pytest.mark.parametrize(
    ("reference", "key"),
    [
        ({}, "message"), ({"message": ""}, "message"), ({"message": "a b"}, "message"), ({"message": 5}, "message"),
        ({"message": "x", "action": "redirect"}, "action"), ({"message": "x", "inline": "perhaps"}, "inline"),
        ({"message": "x" * 257}, "message"), ({"message": "x", "more": 1}, "more"), ("x", "reference"),
        ({"message": "x", "messageId": "<" + "y" * 996}, "messageId"), ({"threadId": ["x"]}, "threadId"),
    ],
)  # fmt: skip
async def test_a_reference_of_another_shape_is_refused_by_name(room: Mailroom, reference: Any, key: str) -> None:
    """400 that names the field."""
    status, answer = await room.submit(room.support, reference=reference, to=TO, text="x")
    assert status == 400
    assert key in keys_of(answer)


async def test_an_unknown_time_zone_is_refused_by_name(room: Mailroom) -> None:
    """400 that names `tz`, for broken names too."""
    for tz in ("Middle/Earth", "../etc/passwd", "Europe", "\x00"):
        status, answer = await room.submit(room.ann, to=[{"address": ANN}], text="x", tz=tz)
        assert (status, keys_of(answer)) == (400, ["tz"])
