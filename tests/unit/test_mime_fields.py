"""MIME taken apart into the fields of a stored message."""

import base64
import time
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import raw_mail
from shared.errors import InvalidInput
from shared.mime_fields import fields_of, header_block


def read(raw: bytes) -> raw_mail.RawMail:
    return raw_mail.read(base64.b64encode(raw).decode())


def test_texts_people_and_files_are_found() -> None:
    """Encoded names and subjects as people read them; a mail inside the mail is a file."""
    inner = EmailMessage()
    inner["Subject"] = "Inside"
    inner.set_content("inner")
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Cc"] = "Jörg <j@x.example>", "a@x.example, B <b@x.example>", "Group: c@x.example;"
    mail["Subject"], mail["Message-ID"] = "Grüße", "<i@x.example>"
    mail.set_content("plain ä\n", charset="iso-8859-1")
    mail.add_alternative("<p>ä</p>", subtype="html")
    mail.add_attachment(inner)
    fields = fields_of(read(mail.as_bytes()))
    assert fields["from"] == {"name": "Jörg", "address": "j@x.example"}
    assert fields["to"] == [{"name": "", "address": "a@x.example"}, {"name": "B", "address": "b@x.example"}]
    assert [one["address"] for one in fields["cc"]] == ["c@x.example"]
    assert (fields["subject"], fields["messageId"]) == ("Grüße", "<i@x.example>")
    assert (fields["text"].strip(), fields["html"].strip()) == ("plain ä", "<p>ä</p>")
    (attached,) = fields["attachments"]
    assert attached["contentType"] == "message/rfc822"
    assert b"Subject: Inside" in base64.b64decode(attached["content"])


def test_a_second_text_and_a_named_one_are_files() -> None:
    """Only the first plain text is the text of the message."""
    raw = (
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nfirst\r\n--b\r\n\r\nsecond\r\n'
        b'--b\r\nContent-Type: text/html; name="page.html"\r\n\r\n<p>\r\n--b--\r\n'
    )
    fields = fields_of(read(raw))
    assert fields["text"] == "first"
    assert [base64.b64decode(one["content"]) for one in fields["attachments"]] == [b"second", b"<p>"]
    assert "html" not in fields


def test_the_header_is_kept_as_it_came() -> None:
    """Order and folds included."""
    raw = b"Received: from a\r\n by b\r\nX-One: 1\r\nX-One: 2\r\n\r\nbody"
    assert header_block(read(raw)) == "Received: from a\r\n by b\r\nX-One: 1\r\nX-One: 2\r\n"


def test_deep_nesting_is_refused() -> None:
    """What would take long, and what would end the recursion, is refused by its name."""
    for depth in (500, 3000):
        part = b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n"
        deep = b"".join(part % (n, n) for n in range(depth)) + b"\r\n" * 20_000
        with pytest.raises(InvalidInput):
            fields_of(read(deep))


def test_long_headers_take_no_long_time() -> None:
    """Half-open encoded words, brackets and commas up to the size that headers may have. Time of the processor."""
    for unit in (b"=?a?q?", b"(", b"<", b",", b'"', b"a@b <"):
        for size in (50_000, 200_000):
            raw = b"To: " + unit * (size // len(unit)) + b"\r\nSubject: " + b"=?a?b?" * 5000 + b"\r\n\r\nx"
            started = time.process_time()
            fields_of(read(raw))
            assert time.process_time() - started < 20, unit


@settings(max_examples=60, deadline=None)
@given(head=st.text(max_size=80), body=st.binary(max_size=300), kind=st.sampled_from(
    ["multipart/mixed; boundary=b", "message/rfc822", "text/plain; charset=x", "text/html; charset=utf-16", "a", ""]
))  # fmt: skip
def test_whatever_comes_is_fields_or_a_refusal(head: str, body: bytes, kind: str) -> None:
    """And the fields can be written as JSON."""
    import json

    raw = b"X: " + head.encode("utf-8", "replace") + b"\r\nContent-Type: " + kind.encode() + b"\r\n\r\n" + body
    try:
        fields = fields_of(read(raw))
    except InvalidInput:
        return
    assert json.dumps(fields).encode()
