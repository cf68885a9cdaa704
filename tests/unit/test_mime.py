"""The mail that is built from a submit."""

import base64
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import mime

SENDER = {"name": "Support", "address": "support@contoso.example"}
TO = [{"address": "rita@contoso.example"}]
DATE = datetime(2026, 3, 2, 8, 15, tzinfo=UTC)


def built(**fields: Any) -> bytes:
    """The bytes of a mail with these fields."""
    fields = {"from": SENDER, "to": TO, **fields}
    return mime.build(fields, message_id="<a@b.example>", date=DATE, queue_id="q1")


def read(raw: bytes) -> EmailMessage:
    """The mail as a reader sees it."""
    found: Any = message_from_bytes(raw, policy=policy.default)
    return found


def test_the_stamps_of_a_mail_are_those_given() -> None:
    """Message-ID, date and queue id are on it, and line ends are CRLF throughout."""
    raw = built(text="a\nb")
    mail = read(raw)
    assert (mail["Message-ID"], mail[mime.STAMP]) == ("<a@b.example>", "q1")
    assert mail["Date"].datetime == DATE
    assert raw.count(b"\n") == raw.count(b"\r\n")
    assert raw.isascii()


def test_the_same_fields_make_the_same_structure() -> None:
    """text and html: alternatives; a cid: related beside the html; a file: mixed around all."""
    pixel = {"filename": "p.png", "content": "AAAA", "cid": "p"}
    paper = {"filename": "p.pdf", "content": "AAAA"}
    kinds = [part.get_content_type() for part in read(built(text="t", html="h", attachments=[pixel, paper])).walk()]
    assert kinds == [
        "multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png",
        "application/pdf",
    ]  # fmt: skip


def test_an_inline_image_without_html_is_an_ordinary_attachment() -> None:
    """There is nothing it could be shown in."""
    (found,) = read(
        built(text="t", attachments=[{"filename": "p.png", "content": "AAAA", "cid": "p"}])
    ).iter_attachments()
    assert found.get_filename() == "p.png"


LETTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    name=LETTERS,
    text=LETTERS,
    value=LETTERS,
    filename=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40),
)
def test_no_text_in_any_field_makes_a_header_or_breaks_the_mail(
    name: str, text: str, value: str, filename: str
) -> None:
    """Names and contents come back; the set of headers is always the same."""
    content = base64.b64encode(text.encode()).decode()
    raw = built(
        to=[{"name": name, "address": "rita@contoso.example"}],
        text=text.strip(),
        attachments=[{"filename": filename, "content": content}],
        headers={"X-Value": " ".join(value.split()).translate(dict.fromkeys([*range(32), *range(127, 160)]))},
    )
    mail = read(raw)
    assert sorted(mail.keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", mime.STAMP, "X-Value", "MIME-Version", "Content-Type"]
    )
    assert [one.addr_spec for one in mail["To"].addresses] == ["rita@contoso.example"]
    (found,) = mail.iter_attachments()
    assert found.get_payload(decode=True) == text.encode()


@pytest.mark.parametrize("name", ["a\r\nBcc: x@y.example", "a\nb", "a\x00b", "a\u2028b", "a\x85b"])
def test_names_lose_their_line_breaks(name: str) -> None:
    """In MIME and in the structured form."""
    assert "\n" not in mime.one_line(name)
    structured = mime.structured(
        {"from": SENDER, "to": [{"name": name, "address": "a@b.example"}]}, message_id="<a@b>", queue_id="q"
    )
    shown = structured["toRecipients"][0]["emailAddress"]["name"]
    assert shown.isprintable()
    assert b"\r\nBcc" not in built(to=[{"name": name, "address": "a@b.example"}])


@pytest.mark.parametrize(
    ("attachment", "kind", "name"),
    [
        ({"filename": "a.pdf"}, "application/pdf", "a.pdf"),
        ({"contentType": "image/png"}, "image/png", "attachment.png"),
        ({}, "application/octet-stream", "attachment.bin"),
        ({"filename": "a.eml"}, "application/octet-stream", "a.eml"),
        ({"filename": "a.txt", "contentType": "message/rfc822"}, "text/plain", "a.txt"),
        ({"filename": "a", "contentType": "multipart/mixed"}, "application/octet-stream", "a"),
        ({"filename": "a", "contentType": "text/plain\r\nX: y"}, "application/octet-stream", "a"),
        ({"filename": "a", "contentType": "ünicode/x"}, "application/octet-stream", "a"),
    ],
)
def test_type_and_name_of_an_attachment_complete_each_other(attachment: dict[str, str], kind: str, name: str) -> None:
    """What is missing or unusable is made from the other."""
    assert (mime.content_type_of(attachment), mime.filename_of(attachment)) == (kind, name)


def test_international_domains_travel_in_their_ascii_form() -> None:
    """`münchen.example` is `xn--mnchen-3ya.example` on the wire."""
    assert b"a@xn--mnchen-3ya.example" in built(to=[{"address": "a@münchen.example"}])


def test_the_structured_form_has_one_body_and_every_recipient() -> None:
    """HTML wins over text; Bcc stays, Graph hides it."""
    message = mime.structured(
        {"from": SENDER, "to": TO, "bcc": [{"address": "b@c.example"}], "text": "t", "html": "<p>h</p>"},
        message_id="<a@b>",
        queue_id="q1",
    )
    assert message["body"] == {"contentType": "html", "content": "<p>h</p>"}
    assert message["bccRecipients"] == [{"emailAddress": {"name": "b@c.example", "address": "b@c.example"}}]
    assert message["internetMessageHeaders"] == [{"name": mime.STAMP, "value": "q1"}]


INNER = b"From: x@y.example\r\nSubject: Inner\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nFrom here\r\n.\r\n"


def nested(content: bytes, **more: str) -> tuple[EmailMessage, bytes]:
    """The attachment of a mail, and the bytes of the whole mail."""
    given = {"filename": "inner.eml", "content": base64.b64encode(content).decode(), **more}
    raw = built(text="t", html="<p>h</p>", attachments=[given])
    (found,) = read(raw).iter_attachments()
    return found, raw


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (INNER, "7bit"),
        (INNER + "Grüße\r\n".encode(), "8bit"),
        (INNER.rstrip(), "7bit"),
        (b"A: b\r\n\r\n" + INNER, "7bit"),
    ],
)
def test_a_mail_inside_a_mail_is_not_encoded_and_keeps_its_bytes(content: bytes, encoding: str) -> None:
    """message/rfc822, 7bit or 8bit (RFC 2046 5.2.1), every byte in place; what holds it claims no less."""
    found, raw = nested(content)
    assert found.get_content_type() == "message/rfc822"
    assert (found["Content-Transfer-Encoding"], found.get_filename()) == (encoding, "inner.eml")
    assert b"\r\n\r\n" + content + b"\r\n--" in raw
    assert read(raw)["Content-Transfer-Encoding"] == (None if encoding == "7bit" else "8bit")


def test_a_mail_with_bare_line_feeds_gets_the_line_ends_of_mail() -> None:
    """As a file of Unix has them; nothing else changes."""
    _, raw = nested(INNER.replace(b"\r\n", b"\n"))
    assert INNER in raw


@pytest.mark.parametrize(
    "content",
    [b"From: x\n\nmixed\r\nends", b"no header\r\n\r\nx", INNER + b"y" * 999, INNER + b"\0", INNER + b"a\rb", b""],
    ids=range(6),
)
def test_what_may_not_travel_unencoded_is_a_file(content: bytes) -> None:
    """Mixed line ends, long lines, null bytes: an ordinary attachment with exactly these bytes."""
    found, _ = nested(content, contentType="message/rfc822")
    assert found.get_content_type() == "application/octet-stream"
    assert found.get_payload(decode=True) == content


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_of_a_nested_mail_are_lost_or_leak_out(body: bytes, as_mail: bool) -> None:
    """Whatever the content, the recipient has these bytes, and the mail around it is as it was."""
    content = b"Subject: s\r\n\r\n" * as_mail + body
    found, raw = nested(content)
    if found.get_content_type() == "message/rfc822":
        expected = content if b"\r" in content else content.replace(b"\n", b"\r\n")
        assert b"\r\n\r\n" + expected + b"\r\n--" in raw
    else:
        assert found.get_payload(decode=True) == content
    assert read(raw)["Subject"] == ""
