"""Graph's message in the contract's form."""

import time
from typing import Any

import pytest

from shared.messages import (
    address_of,
    addresses_of,
    attachment_view,
    cut,
    flags_of,
    headers_of,
    is_auto_reply,
    message_view,
    text_part,
)

WHO = {"emailAddress": {"name": "Ann", "address": "ann@contoso.example"}}


def message(**more: Any) -> dict[str, Any]:
    """A message as Graph gives it."""
    return {
        "id": "AAk=",
        "conversationId": "AAQ=",
        "receivedDateTime": "2026-03-02T08:10:59Z",
        "isRead": False,
        "isDraft": False,
        "flag": {"flagStatus": "notFlagged"},
        "body": {"contentType": "html", "content": "<p>ä</p>"},
        "from": WHO,
        "toRecipients": [WHO],
        **more,
    }


@pytest.mark.parametrize(
    ("properties", "flags"),
    [
        ({}, []),
        ({"isRead": True}, ["\\Seen"]),
        ({"isDraft": True}, ["\\Draft"]),
        ({"flag": {"flagStatus": "flagged"}}, ["\\Flagged"]),
        ({"flag": {"flagStatus": "complete"}}, []),
        ({"flag": None}, []),
        ({"isRead": True, "isDraft": True, "flag": {"flagStatus": "flagged"}}, ["\\Seen", "\\Draft", "\\Flagged"]),
    ],
)
def test_flags_follow_the_properties(properties: dict[str, Any], flags: list[str]) -> None:
    """Always a list, in one order."""
    assert flags_of(message(**properties)) == flags


def test_empty_values_are_left_out() -> None:
    """A bare message shows its ids, date, flags and text only, and `unseen` because it is true."""
    view = message_view(message(**{"from": None, "toRecipients": [], "subject": ""}), [])
    assert set(view) == {"id", "emailId", "threadId", "date", "flags", "text", "unseen"}
    assert view["date"] == "2026-03-02T08:10:59.000Z"
    assert view["text"] == {"id": "AAk=", "encodedSize": {"html": 9}}


def test_a_whole_message_shows_everything_under_the_contracts_names() -> None:
    """Addresses, ids, headers, categories, state."""
    view = message_view(
        message(
            subject="S", sender=WHO, replyTo=[WHO], ccRecipients=[WHO], bccRecipients=[WHO], categories=["Red"],
            internetMessageId="<m@x>", bodyPreview="P", isRead=True, isDraft=True, flag={"flagStatus": "flagged"},
            internetMessageHeaders=[{"name": "In-Reply-To", "value": "<o@x>"}, {"name": "X-A", "value": "1"},
                                    {"name": "x-a", "value": "2"}],
        ),
        [{"id": "a"}],
    )  # fmt: skip
    ann = {"name": "Ann", "address": "ann@contoso.example"}
    assert (view["from"], view["sender"], view["replyTo"], view["cc"], view["bcc"]) == (ann, ann, [ann], [ann], [ann])
    assert (view["labels"], view["draft"], view["flagged"], view["inReplyTo"]) == (["Red"], True, True, "<o@x>")
    assert view["headers"] == {"in-reply-to": ["<o@x>"], "x-a": ["1", "2"]}
    assert "unseen" not in view


@pytest.mark.parametrize("who", [None, {}, {"emailAddress": None}, {"emailAddress": {"name": "Group"}}])
def test_an_entry_without_an_address_is_dropped(who: Any) -> None:
    """Groups and empty entries are no recipients."""
    assert address_of(who) is None
    assert addresses_of([who, WHO]) == [{"name": "Ann", "address": "ann@contoso.example"}]


@pytest.mark.parametrize(
    ("subject", "headers", "automatic"),
    [
        ("Automatic reply: Order", {}, True),
        ("AUTO REPLY: x", {}, True),
        ("Auto response", {}, True),
        ("Out of the Office", {}, True),
        ("out of office: x", {}, True),
        ("OOF: x", {}, True),
        ("ooo: x", {}, True),
        ("auto: x", {"in-reply-to": ["<a>"]}, True),
        ("auto: x", {}, False),
        ("Re: out of office", {}, False),
        ("Order", {"precedence": ["auto_reply"]}, True),
        ("Order", {"precedence": ["bulk"]}, False),
        ("Order", {"auto-submitted": ["Auto-Replied"]}, True),
        ("Order", {"auto-submitted": ["no"]}, False),
        ("Order", {"x-autoreply": ["yes"]}, True),
        ("Order", {"x-auto-response-suppress": ["All"]}, True),
    ],
)
def test_automatic_answers_are_recognised(subject: str, headers: dict[str, list[str]], automatic: bool) -> None:
    """By the contract's rules and no others."""
    assert is_auto_reply(subject, headers) is automatic


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [("abc", None, ("abc", False)), ("abc", 3, ("abc", False)), ("abc", 2, ("ab", True)), ("äb", 1, ("", True)),
     ("äb", 2, ("ä", True)), ("👍👍", 7, ("👍", True)), ("abc", 0, ("", True)), ("", 0, ("", False))],
)  # fmt: skip
def test_text_is_cut_between_characters(text: str, limit: int | None, shown: tuple[str, bool]) -> None:
    """At most so many bytes, and it says whether something is missing."""
    assert cut(text, limit) == shown


def test_attachments_have_brackets_around_their_content_id() -> None:
    """Whether Graph gave them or not."""
    for given in ("logo", "<logo>"):
        assert attachment_view("i", {"contentId": given, "isInline": True})["contentId"] == "<logo>"
    assert attachment_view("i", {}) == {
        "id": "i", "contentType": "application/octet-stream", "encodedSize": 0, "inline": False,
    }  # fmt: skip


@pytest.mark.parametrize("body", [None, {}, {"contentType": None, "content": None}, {"contentType": "text"}])
def test_a_message_without_a_body_has_empty_text(body: Any) -> None:
    """Never an error."""
    assert text_part({"body": body})[1] == ""
    assert headers_of({"internetMessageHeaders": None}) == {}


def test_a_hundred_messages_take_less_than_ten_milliseconds() -> None:
    """A page of the list is converted within its budget of CPU."""
    page = [message(subject=f"S{n}", bodyPreview="x" * 255, categories=["a"]) for n in range(100)]
    best = min(_timed(page) for _ in range(5))
    assert best < 0.010


def _timed(page: list[dict[str, Any]]) -> float:
    started = time.process_time()
    for one in page:
        message_view(one, [])
    return time.process_time() - started
