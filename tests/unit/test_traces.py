"""Which messages of a mailbox are the mail that is looked for."""

from typing import Any

import pytest

from shared.mime import STAMP, STAMP_PROPERTY
from shared.traces import ABSENT, DRAFT, FOUND, verdict_of

OURS, OTHER = "195569f1c3a0b4d8e21", "195569f1c3a0b4d8e22"
ID = "<a@contoso.example>"


def message(**more: Any) -> dict[str, Any]:
    """A sent message with our Message-ID."""
    return {"internetMessageId": ID, "isDraft": False, **more}


def header(queue_id: str, name: str = STAMP) -> dict[str, Any]:
    """The stamp as a header."""
    return {"internetMessageHeaders": [{"name": "Subject", "value": "x"}, {"name": name, "value": queue_id}]}


def named(queue_id: str, name: str = STAMP_PROPERTY) -> dict[str, Any]:
    """The stamp as a property."""
    return {"singleValueExtendedProperties": [{"id": name, "value": queue_id}]}


@pytest.mark.parametrize(
    ("candidates", "by_message_id", "by_stamp"),
    [
        ([], ABSENT, ABSENT),
        ([message()], FOUND, ABSENT),
        ([message(**header(OURS))], FOUND, FOUND),
        ([message(**header(OURS, STAMP.lower()))], FOUND, FOUND),
        ([message(**named(OURS))], FOUND, FOUND),
        ([message(**named(OURS, STAMP_PROPERTY.lower()))], FOUND, FOUND),
        ([message(**header(OTHER))], ABSENT, ABSENT),
        ([message(**named(OTHER))], ABSENT, ABSENT),
        ([message(isDraft=True)], DRAFT, ABSENT),
        ([message(isDraft=True, **header(OURS))], DRAFT, DRAFT),
        ([message(isDraft=True), message()], FOUND, ABSENT),
        ([message(**header(OTHER)), message(**header(OURS))], FOUND, FOUND),
        ([message(**header(OTHER)), message(isDraft=True, **header(OURS))], DRAFT, DRAFT),
        ([message(internetMessageId="<b@contoso.example>")], ABSENT, ABSENT),
        ([message(internetMessageId=None)], ABSENT, ABSENT),
        ([message(internetMessageId="<b@contoso.example>", **header(OURS))], ABSENT, FOUND),
        ([message(internetMessageId=ID.upper())], FOUND, ABSENT),
        ([message(internetMessageHeaders=None, singleValueExtendedProperties=None)], FOUND, ABSENT),
    ],
    ids=range(18),
)
def test_a_stamp_decides_and_the_servers_filter_is_not_trusted(
    candidates: list[dict[str, Any]], by_message_id: str, by_stamp: str
) -> None:
    """Another mail's stamp, or another Message-ID, is another mail."""
    assert verdict_of(candidates, ID, OURS) == by_message_id
    assert verdict_of(candidates, None, OURS) == by_stamp
