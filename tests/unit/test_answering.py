"""What an answer takes over, without a mailbox."""

from typing import Any

import pytest

from shared.answering import MOST_REFERENCES, recipients_of, subject_of, threading_of
from shared.quoting import quoted, zone


def who(*addresses: str) -> list[dict[str, Any]]:
    """Recipients as Graph shows them."""
    return [{"emailAddress": {"name": address, "address": address}} for address in addresses]


def listed(found: dict[str, Any]) -> dict[str, list[str]]:
    """The addresses of the lists that have any."""
    return {name: [one["address"] for one in many] for name, many in found.items() if many}


@pytest.mark.parametrize(
    ("action", "subject", "expected"),
    [
        ("reply", "Hello", "Re: Hello"), ("reply", "RE: Hello", "RE: Hello"), ("reply-all", "re:Hello", "re:Hello"),
        ("forward", "Re: Hello", "Fwd: Re: Hello"), ("forward", "FWD: Hello", "FWD: Hello"), ("reply", None, "Re: "),
        ("reply", "Reply", "Re: Reply"),
    ],
)  # fmt: skip
def test_a_subject_gets_its_prefix_once(action: str, subject: str | None, expected: str) -> None:
    """In whatever letters it has it."""
    assert subject_of(action, {"subject": subject}) == expected


ORIGINAL = {
    "from": who("carl@x.example")[0],
    "toRecipients": [*who("me@x.example", "Bob@x.example"), {"emailAddress": {"name": "Group"}}, {}],
    "ccRecipients": who("bob@x.example", "dora@x.example", "CARL@x.example"),
    "bccRecipients": who("hidden@x.example"),
}
MINE = {"to": [{"address": "eve@x.example"}], "bcc": [{"address": "dora@x.example"}, {"address": "me@x.example"}]}


@pytest.mark.parametrize(
    ("action", "given", "expected"),
    [
        ("reply", {}, {"to": ["carl@x.example"]}),
        ("reply", MINE, {"to": ["eve@x.example"], "bcc": ["dora@x.example", "me@x.example"]}),
        ("reply-all", {}, {"to": ["carl@x.example", "Bob@x.example"], "cc": ["dora@x.example"]}),
        ("reply-all", MINE, {"to": ["carl@x.example", "Bob@x.example", "eve@x.example"], "cc": ["dora@x.example"],
                             "bcc": ["me@x.example"]}),
        ("forward", {}, {}), ("forward", MINE, {"to": ["eve@x.example"], "bcc": ["dora@x.example", "me@x.example"]}),
    ],
)  # fmt: skip
def test_each_address_is_answered_once_and_never_the_hidden_ones(
    action: str, given: dict[str, Any], expected: dict[str, list[str]]
) -> None:
    """The mailbox itself only where the caller names it."""
    assert listed(recipients_of(action, ORIGINAL, given, ["ME@x.example"])) == expected


def test_answering_all_of_a_mail_to_oneself_goes_back_there() -> None:
    """There is nobody else."""
    own = {"from": who("me@x.example")[0], "toRecipients": who("me@x.example")}
    assert listed(recipients_of("reply-all", own, {}, ["me@x.example"])) == {"to": ["me@x.example"]}


def test_reply_to_may_hold_several_and_groups_without_an_address() -> None:
    """Entries without an address are dropped; without any the sender is answered."""
    several = ORIGINAL | {"replyTo": [*who("a@x.example", "b@x.example"), {"emailAddress": {"name": "Group"}}]}
    assert listed(recipients_of("reply", several, {}, [])) == {"to": ["a@x.example", "b@x.example"]}
    assert listed(recipients_of("reply", ORIGINAL | {"replyTo": [{}]}, {}, [])) == {"to": ["carl@x.example"]}


def test_a_long_thread_keeps_its_beginning_and_its_end() -> None:
    """So that every reader finds the thread, and headers do not grow for ever."""
    ids = [f"<{number}@x.example>" for number in range(500)]
    headers = [{"name": "References", "value": " ".join(ids)}, {"name": "In-Reply-To", "value": "<499@x.example> (x)"}]
    found = threading_of("reply", {"internetMessageId": "<own@x.example>", "internetMessageHeaders": headers})
    assert len(found["references"]) == MOST_REFERENCES
    assert (found["references"][0], found["references"][-2:]) == (ids[0], [ids[-1], "<own@x.example>"])
    assert found["inReplyTo"] == "<own@x.example>"
    assert threading_of("reply", {}) == {"inReplyTo": "", "references": []}


@pytest.mark.parametrize("locale", ["en", "et", "fr", "de", "pl", "ja", "nl", None, "zz", "pt_BR"])
def test_every_language_names_who_and_when(locale: str | None) -> None:
    """Replies and forwards, in text and HTML, with names as text."""
    original = {
        "from": {"emailAddress": {"name": "A <b>", "address": "a@x.example"}}, "subject": "S & T",
        "receivedDateTime": "2026-12-31T23:30:00Z", "toRecipients": who("t@x.example"),
        "body": {"contentType": "text", "content": "one\n\n<two>"},
    }  # fmt: skip
    for forward in (False, True):
        fields = {"html": "<p>new</p>", "text": "new"}
        found = quoted(fields, original, forward=forward, locale=locale, tz="Europe/Tallinn")
        assert "2027" in found["text"]
        assert "A <b> <a@x.example>" in found["text"]
        assert "A &lt;b&gt; &lt;a@x.example&gt;" in found["html"]
        assert "&lt;two&gt;" in found["html"]
        assert ("> <two>" in found["text"]) is not forward
        assert ("S & T" in found["text"]) is forward


@pytest.mark.parametrize("name", [None, "", "Nowhere", "../x", "Europe", "\0", "x" * 5000])
def test_what_is_no_time_zone_is_none(name: str | None) -> None:
    """Broken names, folders, nothing."""
    assert zone(name) is None
