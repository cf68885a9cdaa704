"""Searches over the API, judged by what the mailbox of the tenant holds."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote_plus

import pytest
import pytest_asyncio

from tests.support.application import Application
from tests.support.desk import Json
from tests.support.library import LISA, Library, ids
from tests.support.tenant import Tenant

ANN = {"name": "Ann O'Neill", "address": "ann@contoso.example"}
BOB = {"name": "Bob", "address": "bob@contoso.example"}


class Shelf(Library):
    """A mailbox with a known handful of mails, by name."""

    mails: dict[str, str]
    threads: dict[str, str]

    def names(self, listing: Json) -> list[str]:
        """The mails of an answer."""
        known = {one: name for name, one in self.mails.items()}
        return sorted(known.get(one, one) for one in ids(listing))


async def fill(shelf: Shelf) -> None:
    """Four mails in a folder, one elsewhere."""
    folder = await shelf.folder("Shelf")
    given: dict[str, dict[str, Any]] = {
        "invoice": {"subject": "Invoice 'March'", "text": "please pay", "message_id": "<invoice@a.example>"},
        "plan": {"subject": "Plan", "text": "the secret plan", "cc": [BOB]},
        "reply": {"subject": "RE: Plan", "text": "agreed", "to": [ANN]},
        "large": {"subject": "Large", "text": "x" * 60_000, "to": [BOB]},
    }
    shelf.mails = {name: (await shelf.arrive(folder=folder, **mail))["id"] for name, mail in given.items()}
    shelf.mails["elsewhere"] = (await shelf.arrive(subject="Plan elsewhere", text="the secret plan"))["id"]
    await shelf.graph("PATCH", f"/messages/{shelf.mails['invoice']}", {"isRead": True, "categories": ["Red", "Blue"]})
    await shelf.graph(
        "PATCH", f"/messages/{shelf.mails['plan']}", {"flag": {"flagStatus": "flagged"}, "categories": ["Red"]}
    )
    shelf.threads = {}
    for name, one in shelf.mails.items():
        shelf.threads[name] = (await shelf.graph("GET", f"/messages/{one}"))["conversationId"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(app: Application, tenant: Tenant) -> AsyncIterator[Shelf]:
    """The mailbox of this file."""
    await tenant.reset()
    await tenant.add_principal(LISA)
    shelf = Shelf(app, tenant)
    await shelf.settings(webhooksEnabled=False)
    shelf.lisa = await shelf.own(LISA)
    await fill(shelf)
    yield shelf
    await shelf.close()
    await tenant.reset()


@pytest.fixture
def shelf(opened: Shelf) -> Shelf:
    """The mailbox."""
    return opened


async def test_each_term_finds_what_it_says(shelf: Shelf) -> None:
    """By filter where that can do it, by search where not, and both mean the same."""
    all_four = ["invoice", "large", "plan", "reply"]
    for search, wanted in (
        ({}, all_four),
        ({"unseen": True}, ["large", "plan", "reply"]),
        ({"seen": "1"}, ["invoice"]),
        ({"flagged": True}, ["plan"]),
        ({"flagged": False, "seen": False}, ["large", "reply"]),
        ({"draft": True}, []),
        ({"from": "carl@customer.example"}, all_four),
        ({"from": "Carl"}, all_four),
        ({"from": "Nobody"}, []),
        ({"subject": "plan"}, ["plan", "reply"]),
        ({"subject": "'March'"}, ["invoice"]),
        ({"body": "secret"}, ["plan"]),
        ({"emailId": shelf.mails["plan"]}, ["plan"]),
        ({"threadId": shelf.threads["plan"]}, ["plan", "reply"]),
        ({"labels": {"has": "Red"}}, ["invoice", "plan"]),
        ({"labels": {"has": ["Red"], "not": ["Blue"]}}, ["plan"]),
        ({"labels": {"not": ["Red"]}}, ["large", "reply"]),
        ({"header": {"Message-ID": "<invoice@a.example>"}}, ["invoice"]),
        ({"since": "2020-01-01"}, all_four),
        ({"before": "2020-01-01T00:00:00Z"}, []),
        ({"to": "ann@contoso.example"}, ["reply"]),
        ({"to": "Ann O'Neill"}, ["reply"]),
        ({"cc": "bob"}, ["plan"]),
        ({"bcc": "bob"}, []),
        ({"larger": 50_000}, ["large"]),
        ({"smaller": 50_000}, ["invoice", "plan", "reply"]),
        ({"to": BOB["address"], "unseen": True}, ["large"]),
        ({"to": BOB["address"], "seen": True}, []),
        ({"smaller": 50_000, "labels": {"has": ["Red"]}, "flagged": True}, ["plan"]),
        ({"smaller": 50_000, "threadId": shelf.threads["plan"]}, ["plan", "reply"]),
    ):
        found = await shelf.search(search, path="Shelf")
        assert shelf.names(found) == wanted, search


async def test_outlook_search_knows_texts_recipients_sizes_and_days(shelf: Shelf) -> None:
    """What EmailEngine refuses of these works too."""
    for search, wanted in (
        ({"from": "carl", "subject": "plan"}, ["plan", "reply"]),
        ({"body": "secret plan"}, ["plan"]),
        ({"to": "bob", "larger": 10}, ["large"]),
        ({"since": "2020-01-01", "subject": "invoice"}, ["invoice"]),
        ({"before": "2020-01-01", "subject": "invoice"}, []),
    ):
        found = await shelf.search(search, path="Shelf", useOutlookSearch="true")
        assert shelf.names(found) == wanted, search
        assert "total" not in found


async def test_a_search_without_path_is_of_the_whole_mailbox(shelf: Shelf) -> None:
    """With the path of each message; `\\All` says the same."""
    for query in ({}, {"path": "\\All"}, {"path": ""}):
        found = await shelf.search({"body": "secret"}, **query)
        assert {one["path"] for one in found["messages"]} == {"Shelf", "Inbox"}
        assert shelf.names(found) == ["elsewhere", "plan"]
        assert (found["total"], found["pages"]) == (2, 1)


async def test_pages_of_either_kind_of_search_cover_the_hits_once(shelf: Shelf) -> None:
    """By cursor; and by number, which Graph's search can not do by itself."""
    for search in ({"from": "carl"}, {"from": "carl", "smaller": 1_000_000}):
        seen: list[str] = []
        page = await shelf.search(search, path="Shelf", pageSize=3)
        while True:
            seen += ids(page)
            if page["nextPageCursor"] is None:
                break
            page = await shelf.search(search, path="Shelf", pageSize=3, cursor=page["nextPageCursor"])
        assert len(seen) == 4
        assert len(set(seen)) == 4
        by_number = [ids(await shelf.search(search, path="Shelf", pageSize=3, page=number)) for number in range(3)]
        assert by_number == [seen[:3], seen[3:], []]


async def test_what_can_not_be_searched_for_is_refused_by_name(shelf: Shelf) -> None:
    """400 with the contract's texts."""
    for search, query, text in (
        ({"uid": "1:*"}, {}, 'Unsupported search term "uid"'),
        ({"answered": True}, {}, 'Unsupported search term "answered"'),
        ({"emailIds": ["a"]}, {}, 'Unsupported search term "emailIds"'),
        ({"gmailRaw": "x"}, {}, 'Unsupported search term "gmailRaw"'),
        ({"header": {"X-Foo": "1"}}, {}, 'Unsupported search header "X-Foo"'),
        ({"seen": True}, {"useOutlookSearch": "true"}, 'Unsupported search term "seen" for Outlook Search'),
        ({"labels": {"has": ["a"]}}, {"useOutlookSearch": "1"}, 'Unsupported search term "labels" for Outlook Search'),
    ):
        answer = await shelf.app.call("POST", shelf.at("search", path="INBOX", **query), {"search": search})
        assert (answer.status, answer.body["message"]) == (400, text)
        assert answer.body["code"] == "UnsupportedSearchTerm"


@pytest.mark.parametrize(
    "body",
    [
        {}, {"search": None, "x": 1}, {"search": []  , "more": 1}, {"search": {"foo": 1}}, {"search": {"to": 7}},
        {"search": {"from": "x" * 257}}, {"search": {"since": "yesterday"}}, {"search": {"larger": -1}},
        {"search": {"larger": 1e30}}, {"search": {"unseen": "maybe"}}, {"search": {"labels": {"has": [""]}}},
        {"search": {"labels": ["Red"]}}, {"search": {"header": ["x"]}}, {"search": {"subject": '"'}},
        {"search": {"header": {"Message-ID": 7}}}, {"search": {"emailIds": [{}]}}, {"search": {"__proto__": 1}},
    ],
)  # fmt: skip
async def test_malformed_searches_are_refused(shelf: Shelf, body: Any) -> None:
    """400 naming the field."""
    answer = await shelf.app.call("POST", shelf.at("search", path="INBOX"), body)
    assert (answer.status, answer.body["message"]) == (400, "Invalid input")
    assert answer.body["fields"]


async def test_half_a_character_in_a_search_is_refused(shelf: Shelf) -> None:
    """As JSON may hold it."""
    answer = await shelf.app.call("POST", shelf.at("search"), body=b'{"search":{"subject":"\\ud800"}}')
    assert answer.status == 400


async def test_a_filter_that_graph_calls_too_complex_is_asked_without_order(shelf: Shelf) -> None:
    """Once more, and the page is sorted here."""
    refusal = {"status": 400, "code": "InefficientFilter"}
    await shelf.tenant.add_fault(refusal, match={"path_regex": "/messages$", "query_regex": "isRead eq false"})
    found = await shelf.search({"unseen": True}, path="Shelf")
    assert shelf.names(found) == ["large", "plan", "reply"]
    assert [one["date"] for one in found["messages"]] == sorted(
        (one["date"] for one in found["messages"]), reverse=True
    )
    asked = [unquote_plus(one["query"]) for one in await shelf.tenant.log(surface="graph", path="/messages$")]
    asked = [one for one in asked if "isRead eq false" in one]
    assert "orderby" in asked[-2]
    assert "orderby" not in asked[-1]
    await shelf.tenant.clear_faults()


async def test_an_expired_search_cursor_says_so(shelf: Shelf) -> None:
    """400: the search has to begin again."""
    first = await shelf.search({"to": "contoso.example"}, pageSize=1)
    assert first["nextPageCursor"]
    stale = {"status": 400, "code": "ErrorExecuteSearchStaleData"}
    await shelf.tenant.add_fault(stale, match={"path_regex": "/messages$", "query_regex": "skiptoken"})
    path = shelf.at("search", pageSize=1, cursor=first["nextPageCursor"])
    answer = await shelf.app.call("POST", path, {"search": {"to": "contoso.example"}})
    assert (answer.status, answer.body["code"]) == (400, "SearchCursorExpired")
    await shelf.tenant.clear_faults()
