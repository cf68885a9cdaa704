"""Mail given as MIME: what arrives is what was given, completed and no more. And what a dry run shows."""

import base64
import json
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from email import message_from_bytes, policy
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
INVITATION = b"BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nUID:1\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
WITH_CALENDAR = (
    b'Content-Type: multipart/alternative; boundary="b"\r\n\r\npreamble\r\n'
    b"--b\r\nContent-Type: text/plain\r\n\r\nCome\r\n"
    b"--b\r\nContent-Type: text/calendar; method=REQUEST; charset=utf-8\r\n\r\n" + INVITATION + b"--b--\r\nepilogue\r\n"
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def room(quiet_azurite: Azurite) -> AsyncIterator[Mailroom]:
    """One office for the file."""
    async for opened in open_mailroom(quiet_azurite):
        yield opened


def raw(head: str, body: bytes = b"\r\nhello\r\n") -> str:
    """`raw` of a submit."""
    return base64.b64encode(head.replace("\n", "\r\n").encode() + body).decode()


def whole(subject: str = "Raw", more: str = "") -> str:
    """A header to Rita, without Message-ID, Date and MIME-Version."""
    return f"From: Support Desk <{SUPPORT}>\nTo: Rita <{RITA}>\nSubject: {subject}\n{more}"


def mime_of(mail: Json) -> bytes:
    """The bytes that arrived, without what transport wrote above them."""
    return base64.b64decode(mail["_raw"])


async def test_a_whole_mail_arrives_as_it_was_given(room: Mailroom) -> None:
    """Message-ID, Date and MIME-Version are added, and our stamp; the rest is the caller's, the body to the byte."""
    answer = await room.sent(room.support, raw=raw(whole(more="X-Own:  two  spaces\n"), WITH_CALENDAR))
    (mail,) = room.arrived(RITA, answer["messageId"])
    sent = parsed(mail)
    assert mime_of(mail).endswith(WITH_CALENDAR.partition(b"\r\n\r\n")[2])
    assert b"X-Own:  two  spaces\r\n" in mime_of(mail)
    assert sent["MIME-Version"] == "1.0"
    assert sent["Date"].datetime is not None
    assert sent["Message-ID"].strip() == answer["messageId"]
    assert sent["X-Graphpost-Queue-Id"] == answer["queueId"]
    (invitation,) = [part for part in sent.walk() if part.get_content_type() == "text/calendar"]
    assert dict(invitation["Content-Type"].params) == {"method": "REQUEST", "charset": "utf-8"}
    (copy,) = room.copies(SUPPORT, answer["messageId"])
    assert copy["subject"] == "Raw"
    (event,) = [e for e in await room.events(room.support, "messageSent") if e["data"]["queueId"] == answer["queueId"]]
    assert event["data"]["envelope"] == {"from": SUPPORT, "to": [RITA]}


async def test_what_the_mail_has_already_stays(room: Mailroom) -> None:
    """Its own Message-ID, Date and MIME-Version are kept as they were written."""
    own = "Message-ID: <own-1@shop.example>\nDate: Mon, 02 Mar 2026 10:15:00 +0200\nMIME-Version: 1.0 (x)\n"
    answer = await room.sent(room.support, raw=raw(whole(more=own)))
    assert answer["messageId"] == "<own-1@shop.example>"
    (mail,) = room.arrived(RITA, "<own-1@shop.example>")
    for line in own.splitlines():
        assert mime_of(mail).count(line.encode()) == 1


async def test_eight_bit_bodies_and_headers_are_unharmed_and_line_ends_become_crlf(room: Mailroom) -> None:
    """Bytes of whatever character set come through; bare line feeds get the line ends of mail."""
    body = b"Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n"
    body += b"\nGr\xfc\xdfe \xff\x80\n.\nend\n"
    given = base64.b64encode(whole("Gr\u00fc\u00dfe").encode() + body).decode()
    answer = await room.sent(room.support, raw=given)
    (mail,) = room.arrived(RITA, answer["messageId"])
    assert mime_of(mail).endswith(b"\r\n\r\nGr\xfc\xdfe \xff\x80\r\n.\r\nend\r\n")
    assert b"\n" not in mime_of(mail).replace(b"\r\n", b"")
    (request,) = room.requests("POST", "sendMail$")[-1:]
    assert request.headers["Content-Type"].startswith("text/plain")
    assert re.fullmatch(rb"[A-Za-z0-9+/=]+", request.body)


async def test_bcc_reaches_its_recipient_and_nobody_sees_it(room: Mailroom) -> None:
    """It stays in what Graph gets, which takes it off."""
    answer = await room.sent(room.support, raw=raw(whole(more="Bcc: john@contoso.example\n")))
    (mail,) = room.arrived("john@contoso.example", answer["messageId"])
    assert b"john@" not in mime_of(mail).replace(b"for <john@contoso.example>", b"")
    assert len(room.arrived(RITA, answer["messageId"])) == 1


async def test_fields_beside_the_mail_override_its_header(room: Mailroom) -> None:
    """Recipients, From, Reply-To, Message-ID and headers, each once in what arrives."""
    head = whole(more="Cc: bob@contoso.example\nReply-To: old@x.example\nX-Mark: old\nMessage-ID: <old@x.example>\n")
    answer = await room.sent(
        room.support, raw=raw(head), from_={"name": "Other", "address": SUPPORT}, to=[{"address": CARL}, *TO],
        replyTo={"address": "new@x.example"}, messageId="<new-1@x.example>", headers={"x-mark": "new", "X-More": "1"},
    )  # fmt: skip
    (mail,) = room.arrived(RITA, "<new-1@x.example>")
    sent = parsed(mail)
    assert answer["messageId"] == "<new-1@x.example>"
    assert sent["From"].addresses[0].display_name == "Other"
    assert addresses(mail["toRecipients"]) == [CARL, RITA]
    assert addresses(mail["ccRecipients"]) == ["bob@contoso.example"]
    assert sent.get_all("Reply-To") == ["new@x.example"]
    assert (sent.get_all("X-Mark"), sent["X-More"]) == (["new"], "1")
    assert len(room.left(CARL, "<new-1@x.example>")) == 1


async def test_control_headers_are_obeyed_and_do_not_travel(room: Mailroom) -> None:
    """X-EE-Send-At delays, with that Date; attempts show in the outbox; none of them arrives."""
    at = (room.clock() + timedelta(hours=2)).replace(microsecond=0)
    control = f"X-EE-Send-At: {at.isoformat()}\nX-EE-Delivery-Attempts: 3\nX-EE-Gateway: g\nX-EE-Tracking-Enabled: no\n"
    old = "Date: Mon, 02 Mar 2026 10:15:00 +0200\n"
    answer = await room.sent(room.support, raw=raw(whole(more=control + old)))
    assert datetime.fromisoformat(answer["sendAt"]) == at
    entry = (await room.call("GET", f"/v1/outbox/{answer['queueId']}"))[1]
    assert entry["attempts"] == 3
    assert room.arrived(RITA, answer["messageId"]) == []
    await room.run_for(2 * 3600 + 60, tick_s=600)
    (mail,) = room.arrived(RITA, answer["messageId"])
    assert b"x-ee-" not in mime_of(mail).lower()
    assert parsed(mail)["Date"].datetime == at
    assert len(parsed(mail).get_all("Date") or ()) == 1


async def test_a_mail_without_sender_or_recipients_takes_those_of_the_account_and_the_request(room: Mailroom) -> None:
    """From is the account's; without any recipient it is refused."""
    given = raw("Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n")
    mail = await room.received(room.support, raw=given, to=TO)
    assert parsed(mail)["From"].addresses[0].addr_spec == SUPPORT
    assert mail["subject"] == "Grüße"
    status, answer = await room.submit(room.support, raw=given)
    assert (status, keys_of(answer)) == (400, ["to"])


async def test_a_given_mail_can_be_a_reply(room: Mailroom) -> None:
    """Recipient, subject and threading come from the original where the mail has none."""
    message = room.deliver(SUPPORT, "Question", text="?", message_id="<q@customer.example>")
    answer = await room.sent(room.support, raw=raw("X-A: b\n"), reference={"message": message})
    (mail,) = room.left(CARL, answer["messageId"])
    head = message_from_bytes(base64.b64decode(mail["_raw"]), policy=policy.default)
    assert (head["In-Reply-To"], head["References"]) == ("<q@customer.example>", "<q@customer.example>")
    assert mail["subject"] == "Re: Question"


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"raw": "not base64!"}, "raw"), ({"raw": base64.b64encode(b"no header\r\n\r\nx").decode()}, "raw"),
        ({"raw": base64.b64encode(b"\x00\xff" * 50).decode()}, "raw"), ({"raw": 5}, "raw"),
        ({"raw": raw("X: " + "y" * 300_000 + "\n")}, "raw"), ({"text": "x"}, "text"), ({"html": "x"}, "html"),
        ({"subject": "x"}, "subject"), ({"attachments": [{"content": "YQ=="}]}, "attachments"),
        ({"raw": raw("X-EE-Send-At: whenever\n")}, "raw"), ({"raw": raw("X-EE-Send-At: 9999999999999999\n")}, "raw"),
        ({"raw": raw("X-EE-Delivery-Attempts: -1\n")}, "raw"), ({"headers": {"To": "x@y.example"}}, "headers"),
        ({"reference": {"message": "x", "inline": True}}, "inline"), ({"messageId": "a b"}, "messageId"),
    ],
)  # fmt: skip
async def test_what_can_not_be_sent_is_refused_by_name(room: Mailroom, fields: Json, key: str) -> None:
    """400 that names the field, and nothing is queued."""
    before = (await room.call("GET", "/v1/outbox"))[1]["total"]
    status, answer = await room.submit(room.support, **{"raw": raw(whole()), "to": TO} | fields)
    assert status == 400
    assert key in keys_of(answer)
    assert (await room.call("GET", "/v1/outbox"))[1]["total"] == before


async def test_tracking_changes_the_html_of_a_given_mail_and_nothing_else(room: Mailroom) -> None:
    """Asked for in the mail itself; text, attachments and signed mails keep every byte."""
    html = "Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    html += '<p>Gr=FC=DFe <a href=3D"https://shop.example/">x</a></p>\r\n'
    file = "Content-Type: text/html; name=a.html\r\nContent-Disposition: attachment\r\n\r\n"
    file += "<a href='http://a.example'>\r\n"
    plain = "Content-Type: text/plain\r\n\r\nhttps://shop.example/\r\n"
    body = "".join(f"--bb\r\n{part}" for part in (plain, html, file)) + "--bb--\r\n"
    for kind in ("mixed", "signed"):
        more = f"X-EE-Tracking-Enabled: true\nMIME-Version: 1.0\nContent-Type: multipart/{kind}; boundary=bb\n"
        head = whole(more=more)
        mail = await room.received(room.support, raw=raw(head, b"\r\n" + body.encode()), baseUrl="https://m.example")
        if kind == "signed":
            assert mime_of(mail).endswith(body.encode())
            continue
        assert plain.encode() in mime_of(mail)
        assert file.encode() in mime_of(mail)
        shown = next(part for part in parsed(mail).walk() if part.get_content_type() == "text/html").get_content()
        assert "Grüße" in shown
        assert "https://m.example/redirect?" in shown
        assert "https://m.example/open.gif?" in shown


async def test_a_given_mail_too_large_for_one_request_arrives_with_all_its_files(room: Mailroom) -> None:
    """The largest travel by themselves; a signed mail can not be taken apart, and is refused by name."""
    big, small = bytes(range(256)) * 9_000, b"small"

    def part(kind: str, name: str, content: bytes) -> bytes:
        head = f'Content-Type: {kind}\r\nContent-Disposition: attachment; filename="{name}"\r\n'
        return f"--bb\r\n{head}Content-Transfer-Encoding: base64\r\n\r\n".encode() + base64.encodebytes(content)

    files = part("application/x-big", "big.bin", big) + b"\r\n" + part("text/csv", "small.csv", small)
    body = b"\r\n--bb\r\nContent-Type: text/plain\r\n\r\nhello\r\n" + files + b"\r\n--bb--\r\n"
    head = whole(more="MIME-Version: 1.0\nContent-Type: multipart/{}; boundary=bb\n")
    mail = await room.received(room.support, raw=raw(head.format("mixed"), body))
    contents = {one["name"]: base64.b64decode(one["contentBytes"]) for one in mail["attachments"]}
    assert contents == {"big.bin": big, "small.csv": small}
    assert mail["body"]["content"].strip() == "hello"
    status, answer = await room.submit(room.support, raw=raw(head.format("signed"), body))
    assert (status, answer["code"], answer["fields"][0]["key"]) == (413, "MessageTooLarge", "raw")


async def test_a_given_mail_does_not_travel_structured(room: Mailroom) -> None:
    """JSON could not carry it as it is: 400 that names `raw`."""
    status, answer = await room.submit(room.support, "?useStructuredFormat=true", raw=raw(whole()))
    assert (status, keys_of(answer)) == (400, ["raw"])


async def test_an_invitation_is_one_of_the_forms_of_the_text(room: Mailroom) -> None:
    """text/calendar with a method stands beside text and HTML, with its parameters; without one it is a file."""
    files = [
        {"filename": "invite.ics", "contentType": "Text/Calendar; method=REQUEST; charset=utf-8",
         "content": base64.b64encode(INVITATION).decode()},
        {"filename": "plain.ics", "contentType": "text/calendar", "content": base64.b64encode(INVITATION).decode()},
    ]  # fmt: skip
    sent = parsed(await room.received(room.support, to=TO, text="t", html="<p>h</p>", attachments=files))
    (alternative,) = [part for part in sent.walk() if part.get_content_type() == "multipart/alternative"]
    kinds = [part.get_content_type() for part in alternative.iter_parts()]  # type: ignore[attr-defined]
    assert kinds == ["text/plain", "text/html", "text/calendar"]
    invitation = list(alternative.iter_parts())[2]  # type: ignore[attr-defined]
    assert invitation["Content-Type"].params["method"] == "REQUEST"
    assert invitation.get_payload(decode=True) == INVITATION
    (found,) = sent.iter_attachments()
    assert found.get_filename() == "plain.ics"


async def test_pictures_written_into_the_html_become_inline_attachments(room: Mailroom) -> None:
    """Each once, shown by a cid; what is no picture stays."""
    picture = b"\x89PNG" + bytes(range(256))
    address = "data:image/png;base64," + base64.b64encode(picture).decode()
    html = f'<p><img alt="a" src="{address}"><img src=\'{address}\'><img src="data:text/html,x"></p>'
    sent = parsed(await room.received(room.support, to=TO, html=html))
    (inline,) = [part for part in sent.walk() if part.get_content_type() == "image/png"]
    assert inline.get_payload(decode=True) == picture
    cid = inline["Content-ID"].strip("<>")
    shown = body_of(sent, "html")
    assert shown.count(f'"cid:{cid}"') == 2
    assert 'src="data:text/html,x"' in shown


async def test_a_dry_run_shows_the_mail_and_nothing_happens(room: Mailroom) -> None:
    """The whole MIME, threading included; no entry, no event, nothing at Graph but the look at the original."""
    message = room.deliver(SUPPORT, "Question", text="?", message_id="<dry@customer.example>")
    before = (await room.call("GET", "/v1/outbox"))[1]["total"]
    fields: Any = {"reference": {"message": message}, "html": "<p>x</p>", "messageId": "<dry-1@x.example>"}
    answer = await room.sent(room.support, dryRun=True, **fields)
    assert set(answer) == {"response", "messageId", "preview", "reference"}
    assert (answer["response"], answer["messageId"]) == ("Dry run", "<dry-1@x.example>")
    shown: Any = message_from_bytes(base64.b64decode(answer["preview"]), policy=policy.default)
    assert shown["In-Reply-To"] == "<dry@customer.example>"
    assert body_of(shown, "html") == "<p>x</p>"
    assert shown["To"].addresses[0].addr_spec == CARL
    assert (await room.call("GET", "/v1/outbox"))[1]["total"] == before
    assert room.copies(SUPPORT, "<dry-1@x.example>") == []
    given = await room.sent(room.ann, dryRun=True, raw=raw(whole()))
    assert f"To: Rita <{RITA}>".encode() in base64.b64decode(given["preview"])
    status, refused = await room.submit(room.ann, dryRun=True, text="x")
    assert (status, keys_of(refused)) == (400, ["to"])


@pytest.mark.parametrize("place", ["subject", "text", "name", "header", "key"])
async def test_half_a_surrogate_pair_is_refused_wherever_it_stands(room: Mailroom, place: str) -> None:
    """It is no character: 400, not a failure later on."""
    fields: Json = {"to": [{"address": ANN}], "subject": "s", "text": "t"}
    if place == "name":
        fields["to"] = [{"address": ANN, "name": "x\ud800"}]
    elif place == "header":
        fields["headers"] = {"X-A": "\udfff"}
    else:
        fields["\udc00" if place == "key" else place] = "\ud83d"
    status, body = await room.post_bytes(f"/v1/account/{room.support}/submit", json.dumps(fields).encode())
    assert status == 400, body
    assert body["statusCode"] == 400


@pytest.mark.parametrize("depth", [200, 100_000])
async def test_json_nested_without_end_is_refused(room: Mailroom, depth: int) -> None:
    """400 in the contract's words."""
    body = b'{"dsn":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    status, answer = await room.post_bytes(f"/v1/account/{room.support}/submit", body)
    assert (status, answer["message"]) == (400, "Invalid request payload JSON format")
