"""How a mail is divided."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import mail_parts
from shared.attachments import attachment_id, parse_attachment_id
from shared.errors import ApiError
from shared.submit import in_base64


def attachment(number: int, size: int) -> dict[str, Any]:
    """One entry of `attachments`."""
    return {"filename": f"{number}.bin", "content": base64.b64encode(bytes([number % 256]) * size).decode()}


def render(fields: Any) -> bytes:
    """A body that holds everything."""
    return json.dumps(dict(fields)).encode()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 6000), max_size=40), st.booleans())
def test_every_attachment_is_either_in_the_rest_or_a_part_and_the_rest_fits(sizes: list[int], mime: bool) -> None:
    """Nothing is lost, nothing is there twice, and the largest ones are those taken out."""
    limit, mail_parts.REQUEST_LIMIT = mail_parts.REQUEST_LIMIT, 10_000
    try:
        files = [attachment(number, size) for number, size in enumerate(sizes)]
        body, parts = mail_parts.divided({"text": "x", "attachments": files}, render, in_base64 if mime else int)
    finally:
        mail_parts.REQUEST_LIMIT = limit
    assert (in_base64(len(body)) if mime else len(body)) <= 10_000
    kept = [(one["filename"], base64.b64decode(one["content"])) for one in json.loads(body)["attachments"]]
    apart = [(part.name, part.content) for part in parts]
    assert sorted(kept + apart) == sorted((one["filename"], base64.b64decode(one["content"])) for one in files)
    if kept and apart:
        assert max(len(content) for _, content in kept) <= min(len(content) for _, content in apart)


def test_a_mail_that_fits_is_left_whole() -> None:
    """Nothing travels by itself that need not."""
    _, parts = mail_parts.divided({"attachments": [attachment(1, 2_000_000)]}, render, in_base64)
    assert parts == []


def test_too_many_parts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a call; Exchange takes 250 attachments."""
    monkeypatch.setattr(mail_parts, "REQUEST_LIMIT", 1000)
    files = [attachment(number, 900) for number in range(252)]
    with pytest.raises(ApiError) as refused:
        mail_parts.divided({"attachments": files}, render, int)
    assert refused.value.fields["fields"][0]["key"] == "attachments"


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000, 1001])
def test_the_size_of_content_is_told_without_decoding_it(size: int) -> None:
    """Padding is counted out."""
    assert mail_parts.content_size(attachment(1, size)) == size


def test_the_largest_posted_attachment_fits_into_one_request() -> None:
    """Base64 of it, with long names around, stays below 4 MB."""
    longest = {"name": "\U0001f389" * 256, "contentType": "x" * 256, "contentId": "c" * 256, "isInline": True}
    content = base64.b64encode(bytes(mail_parts.SIMPLE_BYTES)).decode()
    body = json.dumps({"@odata.type": "#microsoft.graph.fileAttachment", **longest, "contentBytes": content})
    assert len(body) <= 4 * 1024 * 1024
    assert mail_parts.SIMPLE_BYTES > 3_000_000


def test_ids_of_attachments_lead_back_to_both_parts() -> None:
    """Made and read by one module."""
    assert parse_attachment_id(attachment_id("AAk-message_=", "AAM-attachment=")) == (
        "AAk-message_=",
        "AAM-attachment=",
    )


@pytest.mark.parametrize("text", ["", "x", "ktlS", "é", "A" * 3000, "YQ", "YQo", "CmE", "/etc/passwd", "YQpiCmM"])
def test_what_is_not_an_id_of_an_attachment_is_told_apart(text: str) -> None:
    """Broken, half or foreign text is no id, and no exception."""
    assert parse_attachment_id(text) is None
