"""Names of files in headers, and JSON of whatever mail holds."""

import json
import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.api.downloads import attachment_named, download, json_answer


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("order 17.pdf", 'attachment; filename="order 17.pdf"'),
        ("", "attachment"),
        ("\r\n", "attachment"),
        ("ä.pdf", "attachment; filename=\"_.pdf\"; filename*=utf-8''%C3%A4.pdf"),
        ('a"b.txt', "attachment; filename=\"a_b.txt\"; filename*=utf-8''a%22b.txt"),
        ("../a", "attachment; filename=\".._a\"; filename*=utf-8''..%2Fa"),
    ],
)
def test_a_file_name_in_a_header(name: str, header: str) -> None:
    """Simple ones as they are; others twice, encoded beside a plain stand-in."""
    assert attachment_named(name) == header


@given(st.text())
def test_no_name_breaks_out_of_its_header(name: str) -> None:
    """And every printable one is told whole, up to its last 200 characters."""
    header = attachment_named(name)
    assert re.fullmatch(r"attachment(; filename=\"[^\"\\\r\n]*\"(; filename\*=utf-8''[A-Za-z0-9%_.~-]*)?)?", header)
    if "filename*" in header:
        assert unquote(header.partition("utf-8''")[2]) == re.sub(
            "[\x00-\x1f\x7f-\x9f\u2028\u2029]+", "", name
        ).strip()[-200:]


def test_half_characters_do_not_break_an_answer() -> None:
    """Previews are cut in the middle of what takes two places."""
    assert json.loads(json_answer({"preview": "a\ud83d", "ä": "\U0001f600"}).body) == {
        "preview": "a\ufffd", "ä": "\U0001f600",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["text/html\r\nX: y", "no type", "", "a/b/c", "text/ü"])
def test_a_type_that_is_none_is_bytes(kind: str) -> None:
    """No header is made of it."""
    assert download(b"", kind, "attachment").headers["content-type"] == "application/octet-stream"
