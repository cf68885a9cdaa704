"""What a search becomes at Graph, term by term (emailengine.md 11.2)."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ApiError, InvalidInput
from shared.search import EVERYTHING, NEWEST_FIRST, SearchQuery, search_query

NOON = "2026-11-20T12:00:00.000Z"


@pytest.mark.parametrize(
    ("terms", "clause"),
    [
        ({"unseen": True}, "isRead eq false"),
        ({"unseen": False}, "isRead eq true"),
        ({"seen": True}, "isRead eq true"),
        ({"seen": False}, "isRead eq false"),
        ({"draft": True}, "isDraft eq true"),
        ({"flagged": True}, "flag/flagStatus eq 'flagged'"),
        ({"flagged": False}, "flag/flagStatus eq 'notFlagged'"),
        (
            {"from": "O'Neill"},
            "(from/emailAddress/address eq 'O''Neill' or contains(from/emailAddress/name,'O''Neill'))",
        ),
        ({"subject": ' a  "b"\n c '}, "contains(subject,'a b c')"),
        ({"body": "x"}, "contains(body/content,'x')"),
        ({"emailId": "AAk1"}, "id eq 'AAk1'"),
        ({"threadId": "AAQ1"}, "conversationId eq 'AAQ1'"),
        ({"header": {"Message-Id": "a@b"}}, "internetMessageId eq '<a@b>'"),
        ({"header": {"message-ID": " <a@b> "}}, "internetMessageId eq '<a@b>'"),
        (
            {"labels": {"has": ["Red"], "not": ["Bl'ue"]}},
            "categories/any(c:c eq 'Red') and not categories/any(c:c eq 'Bl''ue')",
        ),
    ],
)
def test_a_term_becomes_a_filter_after_the_property_that_orders(terms: dict[str, Any], clause: str) -> None:
    """Graph wants what it sorts by first in the filter."""
    query = search_query(terms)
    assert query.filter == f"{EVERYTHING} and {clause}"
    assert (query.orderby, query.search, query.keeps) == (NEWEST_FIRST, "", None)
    assert query.eventual == ("labels" in terms)
    assert query.unordered() == SearchQuery(clause, eventual=query.eventual)


def test_times_come_first_whatever_the_order_of_the_terms() -> None:
    """And need no other beginning."""
    query = search_query({"unseen": True, "before": NOON, "sentSince": NOON})
    assert query.filter == f"receivedDateTime gt {NOON} and receivedDateTime lt {NOON} and isRead eq false"


def test_no_terms_find_everything() -> None:
    """Empty texts count as not given, in either mode."""
    for outlook in (False, True):
        assert search_query({"from": "", "unseen": None}, outlook=outlook) == SearchQuery(orderby=NEWEST_FIRST)


@pytest.mark.parametrize(
    ("terms", "search"),
    [
        ({"to": "ann@contoso.example"}, '"to:ann@contoso.example"'),
        ({"cc": "Ann Lee"}, '"cc:\\"Ann Lee\\""'),
        ({"bcc": 'x OR from:"y'}, '"bcc:\\"x OR from:y\\""'),
        ({"to": "a\\b"}, '"to:\\"a\\\\b\\""'),
        ({"larger": 1000, "smaller": 5000}, '"size>1000 AND size<5000"'),
        ({"to": "a", "subject": "b", "from": "c", "body": "d"}, '"body:d AND from:c AND subject:b AND to:a"'),
        ({"to": "a", "since": NOON, "before": NOON}, '"received<=11/20/2026 AND sent>=11/20/2026 AND to:a"'),
    ],
)
def test_recipients_and_sizes_are_searched_for(terms: dict[str, Any], search: str) -> None:
    """By themselves, and as phrases: a text never becomes part of the search language."""
    query = search_query(terms)
    assert (query.search, query.filter, query.orderby) == (search, "", "")


def test_in_outlook_search_texts_and_sizes_are_keywords() -> None:
    """Also those that a filter could do."""
    assert search_query({"from": "ann", "subject": "x"}, outlook=True).search == '"from:ann AND subject:x"'


@pytest.mark.parametrize(
    ("terms", "fits", "misses"),
    [
        ({"unseen": True}, {"isRead": False}, {"isRead": True}),
        ({"seen": True}, {"isRead": True}, {"isRead": False}),
        ({"draft": False}, {"isDraft": False}, {"isDraft": True}),
        ({"flagged": True}, {"flag": {"flagStatus": "flagged"}}, {"flag": {"flagStatus": "complete"}}),
        ({"emailId": "a"}, {"id": "a"}, {"id": "b"}),
        ({"threadId": "a"}, {"conversationId": "a"}, {}),
        ({"labels": {"has": ["A"], "not": ["B"]}}, {"categories": ["A", "C"]}, {"categories": ["A", "B"]}),
        ({"header": {"message-id": "a@b"}}, {"internetMessageId": "<a@b>"}, {"internetMessageId": "<c@d>"}),
        ({"since": NOON}, {"receivedDateTime": "2026-11-20T12:00:01Z"}, {"receivedDateTime": "2026-11-20T11:59:59Z"}),
        ({"before": NOON}, {"receivedDateTime": "2026-11-20T11:59:59Z"}, {"receivedDateTime": "2026-11-20T12:00:01Z"}),
    ],
)
def test_beside_a_recipient_other_terms_are_checked_on_what_is_found(
    terms: dict[str, Any], fits: dict[str, Any], misses: dict[str, Any]
) -> None:
    """A search by recipient and state means both."""
    keeps = search_query({"to": "ann", **terms}).keeps
    assert keeps is not None
    assert keeps(fits)
    assert not keeps(misses)


@pytest.mark.parametrize("name", ["seq", "uid", "modseq", "answered", "deleted", "gmailRaw", "emailIds"])
def test_what_graph_can_not_search_for_is_refused_by_name(name: str) -> None:
    """With the contract's text, alone and beside others."""
    for terms in ({name: "1"}, {name: "1", "to": "x"}, {"unseen": True, name: "1"}):
        with pytest.raises(ApiError, match=f'^Unsupported search term "{name}"$') as caught:
            search_query(terms)
        assert (caught.value.status, caught.value.code) == (400, "UnsupportedSearchTerm")


@pytest.mark.parametrize("name", ["unseen", "seen", "draft", "flagged", "emailId", "threadId", "labels", "header"])
def test_what_outlook_search_does_not_know_is_refused_where_it_is_demanded(name: str) -> None:
    """Rather than checked quietly on a part of the hits."""
    with pytest.raises(ApiError, match=f'^Unsupported search term "{name}" for Outlook Search$'):
        search_query({name: True}, outlook=True)


def test_other_headers_than_message_id_are_refused() -> None:
    """Naming the header, in both modes."""
    for more in ({}, {"to": "x"}):
        with pytest.raises(ApiError, match=r'^Unsupported search header "X-Foo"$'):
            search_query({"header": {"X-Foo": "1"}, **more})


@pytest.mark.parametrize("text", ['"', "  ", "\n", "\x00"])
def test_a_text_of_nothing_is_refused_instead_of_finding_everything(text: str) -> None:
    """A bulk operation would take the whole folder."""
    for name in ("from", "to", "subject"):
        with pytest.raises(InvalidInput):
            search_query({name: text})


@given(st.text(min_size=1).filter(lambda text: re.sub(r'[\s\x00-\x1f\x7f"]', "", text)))
def test_no_text_escapes_from_its_quotes(text: str) -> None:
    """Neither from a filter's literal nor from a search's phrase."""
    literal = search_query({"subject": text}).filter.removeprefix(f"{EVERYTHING} and contains(subject,")
    assert re.fullmatch(r"'(?:[^']|'')*'\)", literal)
    phrase = search_query({"to": text}).search
    assert re.fullmatch(r'"to:(?:[\w.@+-]+|\\"(?:[^"\\]|\\\\)*\\")"', phrase)
