"""Bounces, receipts of delivery and complaints, as servers write them."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.mime_source import MOST_PARTS, read
from shared.report_signs import may_be_complaint, may_be_delivery_report, may_hold_events
from shared.reports import Report, complaint_of, reports_of

ORIGINAL = (
    "Message-ID: <order-17@contoso.example>\r\nFrom: Ann <ann@contoso.example>\r\nTo: bob@there.example\r\n"
    "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nDate: Mon, 2 Mar 2026 08:10:59 +0000\r\n"
    "X-Graphpost-Queue-Id: 19cad1e4b2b0123abcd\r\n\r\nbody\r\n"
)


def dsn(status: str, returned: str = ORIGINAL, kind: str = "message/rfc822", told: str = "It failed.") -> bytes:
    """A report after RFC 3464."""
    return (
        "From: postmaster@there.example\r\nTo: ann@contoso.example\r\nSubject: Undelivered Mail\r\n"
        'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="=_b(1)+"\r\n\r\n'
        f"preamble\r\n--=_b(1)+\r\n\r\n{told}\r\n--=_b(1)+\r\nContent-Type: message/delivery-status\r\n\r\n"
        f"{status}\r\n--=_b(1)+\r\nContent-Type: {kind}\r\n\r\n{returned}\r\n--=_b(1)+--\r\n"
    ).encode()


def free(text: str, *headers: str) -> bytes:
    """A report as a server likes it."""
    lines = ["From: Mail Delivery System <mailer-daemon@x.example>", "To: ann@contoso.example", *headers]
    return ("\r\n".join([*lines, "", ""]) + text.replace("\n", "\r\n")).encode()


def only(raw: bytes, text: str = "") -> Report:
    """The one report in a source."""
    (found,) = reports_of(read(raw), text, ["ann@contoso.example"])
    return found


def test_a_standard_report_gives_every_field_of_the_contract() -> None:
    """Recipient, action, reply with its source and status, server, Message-ID and headers of the mail."""
    status = (
        "Reporting-MTA: dns; mail.contoso.example\r\nArrival-Date: Mon, 2 Mar 2026 08:11:00 +0000\r\n\r\n"
        "Original-Recipient: rfc822;sales@there.example\r\nFinal-Recipient: rfc822; <bob@there.example>\r\n"
        "Action: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.there.example\r\n"
        "Diagnostic-Code: smtp; 550 5.1.1\r\n No such user here\r\n"
    )
    shown = only(dsn(status)).view()
    assert shown.pop("messageHeaders")["subject"] == ["Grüße"]
    assert shown == {
        "recipient": "bob@there.example",
        "action": "failed",
        "response": {"source": "smtp", "message": "550 5.1.1 No such user here", "status": "5.1.1"},
        "mta": "mx.there.example",
        "messageId": "<order-17@contoso.example>",
    }


def test_a_report_about_several_recipients_gives_one_entry_for_each() -> None:
    """Also where one is named twice, and with the server of the whole report where none is named."""
    groups = "\r\n\r\n".join(
        f"Final-Recipient: rfc822;{who}\r\nAction: {action}\r\nStatus: {code}"
        for who, action, code in (
            ("a@x.example", "failed", "5.2.2"), ("b@x.example", "Delayed", "4.4.1"), ("A@x.example", "failed", "5.2.2"),
            ("c@x.example", "delivered", "2.0.0"),
        )
    )  # fmt: skip
    found = reports_of(read(dsn(f"Reporting-MTA: dns;mx.x.example\r\n\r\n{groups}\r\n")), "")
    assert [(one.recipient, one.action, one.is_bounce, one.mta) for one in found] == [
        ("a@x.example", "failed", True, "mx.x.example"),
        ("b@x.example", "delayed", True, "mx.x.example"),
        ("c@x.example", "delivered", False, "mx.x.example"),
    ]


@pytest.mark.parametrize("kind", ["message/rfc822", "text/rfc822-headers", "message/rfc822-headers"])
def test_the_returned_mail_is_known_however_it_comes_back(kind: str) -> None:
    """Whole or as headers alone."""
    report = only(dsn("Final-Recipient: rfc822;bob@there.example\r\nStatus: 4.4.7\r\n", kind=kind))
    assert report.message_id == "<order-17@contoso.example>"
    assert report.headers["x-graphpost-queue-id"] == ["19cad1e4b2b0123abcd"]
    assert report.action == "delayed"  # left out, and told by the status


QMAIL = """Hi. This is the qmail-send program at mx.x.example.
I'm afraid I wasn't able to deliver your message to the following addresses.

<bob@there.example>:
203.0.113.5 does not like recipient.
Remote host said: 550 5.1.1 <bob@there.example>: no such user
Giving up on 203.0.113.5.

--- Below this line is a copy of the message.

Return-Path: <ann@contoso.example>
""" + ORIGINAL.replace("\r\n", "\n")
EXIM = """This message was created automatically by mail delivery software.

A message that you sent could not be delivered to one or more of its
recipients. This is a permanent error. The following address(es) failed:

  bob@there.example
    host mx.there.example [203.0.113.5]
    SMTP error from remote mail server after RCPT TO:<bob@there.example>:
    552 5.2.2 mailbox full
"""
POSTFIX = """This is the mail system at host mx.x.example.

I'm sorry to have to inform you that your message could not
be delivered to one or more recipients.

<bob@there.example>: host mx.there.example[203.0.113.5] said: 550 5.7.1 spam
    (in reply to end of DATA command)
"""
EXCHANGE = """Delivery has failed to these recipients or groups:

bob@there.example
The email address you entered couldn't be found.

Remote Server returned '550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found'

Original message headers:

""" + ORIGINAL.replace("\r\n", "\n")
LATER = """Your message to bob@there.example has been delayed and will be retried.
The reply was: 451 4.7.1 Greylisted
You do not need to resend your message.
"""


@pytest.mark.parametrize(
    ("text", "headers", "status", "action"),
    [
        (QMAIL, (), "5.1.1", "failed"), (EXIM, ("X-Failed-Recipients: bob@there.example",), "5.2.2", "failed"),
        (EXIM, (), "5.2.2", "failed"), (POSTFIX, (), "5.7.1", "failed"), (EXCHANGE, (), "5.1.10", "failed"),
        (LATER, (), "4.7.1", "delayed"),
    ],
    ids=["qmail", "exim", "exim without its header", "postfix", "exchange", "delayed"],
)  # fmt: skip
def test_free_forms_are_understood(text: str, headers: tuple[str, ...], status: str, action: str) -> None:
    """Who, what, and the reply, though no part of the mail is meant for machines."""
    report = only(free(text, *headers))
    assert (report.recipient, report.status, report.action) == ("bob@there.example", status, action)
    assert report.message[:1] in "45"
    if "order-17" in text:
        assert report.message_id == "<order-17@contoso.example>"
        assert report.headers["x-graphpost-queue-id"] == ["19cad1e4b2b0123abcd"]


def test_without_a_source_the_body_is_read() -> None:
    """What Graph shows of the message will do."""
    (report,) = reports_of(None, EXCHANGE, ["ann@contoso.example"])
    assert (report.recipient, report.status) == ("bob@there.example", "5.1.10")
    assert report.message_id == "<order-17@contoso.example>"


def test_the_thread_names_the_mail_where_nothing_was_returned() -> None:
    """In-Reply-To of the report is the Message-ID of what it answers."""
    assert only(free(POSTFIX, "In-Reply-To: <order-17@contoso.example>")).message_id == "<order-17@contoso.example>"


@pytest.mark.parametrize(
    "text",
    ["", "Welcome to the team!", "Write to bob@there.example", "Your quota is 450 MB, says ann@contoso.example"],
)
def test_other_mail_of_a_mail_server_is_no_report(text: str) -> None:
    """Nobody failed."""
    assert reports_of(read(free(text)), "", ["ann@contoso.example"]) == []


ARF = (
    "From: <fbl@isp.example>\r\nTo: abuse@contoso.example\r\n"
    'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r\n\r\n'
    "--b\r\nContent-Type: text/plain\r\n\r\nA complaint.\r\n"
    "--b\r\nContent-Type: message/feedback-report\r\n\r\n"
    "Feedback-Type: abuse\r\nUser-Agent: SomeGenerator/1.0\r\nVersion: 1\r\n"
    "Original-Mail-From: <ann@contoso.example>\r\nOriginal-Rcpt-To: <bob@isp.example>\r\n"
    "Arrival-Date: Thu, 8 Mar 2026 14:00:00 -0500\r\nSource-IP: 192.0.2.1\r\n\r\n"
    f"--b\r\nContent-Type: message/rfc822\r\n\r\n{ORIGINAL}\r\n--b--\r\n"
).encode()


def test_a_complaint_gives_every_field_of_the_contract() -> None:
    """What was complained about, by whom, and the headers of the mail."""
    complaint = complaint_of(read(ARF), "fbl@isp.example")
    assert complaint is not None
    assert complaint.arf == {
        "source": "SomeGenerator",
        "feedbackType": "abuse",
        "originalMailFrom": "ann@contoso.example",
        "originalRcptTo": ["bob@isp.example"],
        "sourceIp": "192.0.2.1",
        "arrivalDate": "2026-03-08T19:00:00.000Z",
    }
    assert complaint.headers == {
        "messageId": "<order-17@contoso.example>",
        "from": "ann@contoso.example",
        "to": ["bob@there.example"],
        "subject": "Grüße",
        "date": "2026-03-02T08:10:59.000Z",
    }


def test_complaints_of_outlook_com_are_understood() -> None:
    """They come as a forwarded mail with a header of their own."""
    returned = f"X-HmXmrOriginalRecipient: bob@hotmail.example\r\n{ORIGINAL}"
    complaint = complaint_of(read(dsn("", returned)), "staff@hotmail.com")
    assert complaint is not None
    assert complaint.arf["originalRcptTo"] == ["bob@hotmail.example"]
    assert complaint.message_id == "<order-17@contoso.example>"
    assert complaint_of(read(dsn("", returned)), "carl@customer.example") is None


def graph_message(address: str = "carl@customer.example", name: str = "Carl", **more: Any) -> Any:
    """A message as Graph shows it."""
    return {"from": {"emailAddress": {"name": name, "address": address}}, "subject": "Hello", **more}


@pytest.mark.parametrize(
    ("message", "headers", "listed", "may"),
    [
        (graph_message(), {}, [], False),
        (graph_message(subject="Undeliverable: Hello"), {}, [], False),
        (graph_message(subject="Undeliverable: Hello"), {"auto-submitted": ["auto-replied"]}, [], True),
        (graph_message(name="Microsoft Outlook", subject="Undeliverable: Hello"), {}, [], True),
        (graph_message(name="Microsoft Outlook", subject="Your storage"), {}, [], False),
        (graph_message("MAILER-DAEMON@x.example"), {}, [], True), (graph_message("postmaster@x.example"), {}, [], True),
        (graph_message("MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@contoso.example"), {}, [], True),
        (graph_message(name="Mail Delivery Subsystem"), {}, [], True), (graph_message(name="Andreas"), {}, [], False),
        (graph_message(), {"content-type": ['multipart/report; report-type="delivery-status"']}, [], True),
        (graph_message(), {"x-failed-recipients": ["a@b.example"]}, [], True),
        (graph_message(), {}, [{"contentType": "message/delivery-status"}], True), ({"subject": None}, {}, [], False),
    ],
)  # fmt: skip
def test_only_what_looks_like_a_report_is_read(message: Any, headers: Any, listed: Any, may: bool) -> None:
    """The source of any other mail is not fetched."""
    assert may_be_delivery_report(message, headers, listed) is may


def test_signs_of_complaints_and_of_calendars() -> None:
    """By type, by attachment, by sender."""
    feedback = {"content-type": ["multipart/report; report-type=feedback-report"]}
    assert may_be_complaint(graph_message(), feedback, [])
    assert may_be_complaint(graph_message("staff@hotmail.com"), {}, [])
    assert not may_be_complaint(graph_message(), {}, [])
    assert may_hold_events({"@odata.type": "#microsoft.graph.eventMessageRequest"}, {}, [])
    assert may_hold_events({}, {}, [{"contentType": "application/octet-stream", "filename": "A.ICS"}])
    assert not may_hold_events({"@odata.type": "#microsoft.graph.message"}, {}, [{"contentType": "text/plain"}])


# -- anything ------------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    """Multiparts in multiparts."""
    opening = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))
    return opening + b"\r\ntext"


def test_depth_and_number_of_parts_are_bounded() -> None:
    """A thousand levels, and ten thousand parts, end early and without an error."""
    assert len(list(read(nested(1000)).walk())) <= 10
    wide = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 10_000
    assert len(list(read(wide).walk())) <= MOST_PARTS


@pytest.mark.parametrize(
    "raw",
    [
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b \t \t" * 200_000,
        b"Subject: " + b"=?utf-8?q?" * 150_000 + b"\r\n\r\n", b"X: " + b';a="' * 400_000 + b"\r\n\r\n",
        b"Content-Type: text/plain; " + b';a="' * 400_000, free("<" * 1_000_000), free("550 " * 400_000),
        free("a@" * 700_000), free("\n \t" * 500_000), free("couldn't be delivered " * 70_000),
    ],
    ids=["boundaries", "words", "parameters", "type", "brackets", "replies", "addresses", "blanks", "phrases"],
)  # fmt: skip
def test_hostile_sources_take_no_more_time_than_their_length_is_worth(raw: bytes) -> None:
    """Two megabytes of anything: of a second at the most, where quadratic work would take minutes."""
    started = time.process_time()
    source = read(raw)
    reports_of(source, source.text())
    complaint_of(source)
    assert time.process_time() - started < 20


@given(st.binary(max_size=400), st.text(max_size=200))
def test_nothing_that_comes_makes_an_error(raw: bytes, text: str) -> None:
    """Whatever the bytes, in every place where bytes can stand."""
    for source in (raw, dsn("").replace(b"It failed.", raw), dsn(text), free(text), ARF.replace(b"abuse", raw)):
        read_source = read(source)
        for part in read_source.walk():
            assert isinstance(part.text(), str)
            assert isinstance(part.filename, str)
        reports_of(read_source, text)
        complaint_of(read_source, "staff@hotmail.com")


@pytest.mark.parametrize("charset", ["", "nonsense", "punycode", "utf-7", "zip", "iso-8859-1", "\x00", "x" * 5000])
def test_a_character_set_can_not_break_reading(charset: str) -> None:
    """Unknown ones, and ones that are none, read as UTF-8."""
    raw = f"Content-Type: text/plain; charset={charset}\r\n\r\nhello".encode()
    assert read(raw).text() == "hello"
