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
