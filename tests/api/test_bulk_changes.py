"""Changing many messages in one request: what was asked of Graph, and what the mailbox holds afterwards."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.application import Application
from tests.support.desk import Json
from tests.support.mailbox_desk import UNKNOWN, MailboxDesk
from tests.support.tenant import Tenant


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(app: Application, tenant: Tenant) -> AsyncIterator[MailboxDesk]:
    desk = await MailboxDesk(app, tenant).opened()
    yield desk
    await desk.close()
    await tenant.reset()


@pytest_asyncio.fixture
async def office(opened: MailboxDesk) -> AsyncIterator[MailboxDesk]:
    """The account, and a tenant without faults."""
    yield opened
    await opened.tenant.clear_faults()


async def folder(office: MailboxDesk, name: str, mails: int) -> list[str]:
    """A new folder with so many mails, whose ids it gives, newest first."""
    made = await office.done("POST", "/mailbox", {"path": name})
    ids = [await office.arrived(f"{name} {number}") for number in range(mails)]
    moved = await office.done("PUT", "/messages/move", {"search": {"emailIds": ids}, "path": name})
    assert moved == {"path": name, "emailIds": ids}
    held = await office.tenant.messages("support@contoso.example", made["mailboxId"])
    return [one["id"] for one in held]


async def batches(office: MailboxDesk) -> list[list[Json]]:
    """The parts of every batch since the log was cleared."""
    sent = await office.tenant.log(surface="graph", method="POST", path=r"/\$batch$")
    return [json.loads(base64.b64decode(one["body_base64"]))["requests"] for one in sent]


async def test_what_a_search_finds_is_changed_twenty_in_a_call(office: MailboxDesk) -> None:
    """One search and two batches for 25 messages; every part asks for immutable ids."""
    ids = await folder(office, "Many", 25)
    await office.tenant.clear_log()
    body = {"search": {"unseen": True}, "update": {"flags": {"add": ["\\Seen"]}, "labels": {"set": "Red"}}}
    shown = await office.done("PUT", "/messages?path=Many", body)
    assert shown["flags"] == {"add": ["\\Seen"]}
    assert shown["labels"] == {"set": ["Red"]}
    assert sorted(shown["emailIds"]) == sorted(ids)
    sent = await batches(office)
    assert [len(parts) for parts in sent] == [20, 5]
    assert {part["headers"]["Prefer"] for parts in sent for part in parts} == {'IdType="ImmutableId"'}
    assert await office.asked("GET", "/messages$") == 1
    for message in ids:
        held = await office.held(message)
        assert held is not None
        assert (held["isRead"], held["categories"]) == (True, ["Red"])
    assert await office.done("PUT", "/messages?path=Many", body) == {"flags": shown["flags"], "labels": shown["labels"]}


async def test_throttled_parts_of_a_batch_are_retried(office: MailboxDesk) -> None:
    """Only those, after the time each part was told; with it too long they are left out of the answer."""
    ids = await folder(office, "Throttled", 3)
    one, two = {"path_regex": ids[0]}, {"path_regex": ids[1]}
    await office.tenant.add_fault({"status": 429, "retry_after": "0.2"}, match=one, times=2)
    await office.tenant.add_fault({"status": 503}, match=two)
    await office.tenant.clear_log()
    body: Json = {"search": {"emailIds": ids}, "update": {"flags": {"set": ["\\Flagged"]}}}
    shown = await office.done("PUT", "/messages", body)
    assert shown["emailIds"] == ids
    assert [len(parts) for parts in await batches(office)] == [3, 2, 1]
    for message in ids:
        held = await office.held(message)
        assert held is not None
        assert held["flag"]["flagStatus"] == "flagged"
    await office.tenant.add_fault({"status": 429, "retry_after": "300"}, match=one, times=None)
    shown = await office.done("PUT", "/messages", body | {"update": {"flags": {"set": []}}})
    assert shown == {"flags": {"set": []}, "emailIds": ids[1:]}
    await office.tenant.clear_faults()
    await office.tenant.add_fault({"status": 429, "retry_after": "300"}, match={"path_regex": r"/messages/"})
    alone = {"search": {"emailIds": ids[:1]}, "update": {"flags": {"set": []}}}
    answer = await office.call("PUT", "/messages", alone)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "300")


async def test_labels_are_kept_where_they_could_not_be_read(office: MailboxDesk) -> None:
    """One read is refused: that message keeps its categories and is not listed; the others get the label."""
    ids = await folder(office, "Labels", 3)
    await office.done("PUT", "/messages", {"search": {"emailIds": ids}, "update": {"labels": {"set": ["Old"]}}})
    await office.tenant.add_fault({"status": 500}, match={"method": "GET", "path_regex": ids[1]}, times=None)
    body = {"search": {"emailIds": ids}, "update": {"labels": {"add": ["New"]}}}
    shown = await office.done("PUT", "/messages?path=Labels", body)
    assert shown == {"labels": {"add": ["New"]}, "emailIds": [ids[0], ids[2]]}
    held = {one: (await office.held(one) or {})["categories"] for one in ids}
    assert held == {ids[0]: ["Old", "New"], ids[1]: ["Old"], ids[2]: ["Old", "New"]}


async def test_labels_changed_meanwhile_are_read_again(office: MailboxDesk) -> None:
    """412 for one part: it is read and written once more."""
    ids = await folder(office, "Race", 2)
    fault: Json = {"status": 412, "code": "ErrorIrresolvableConflict"}
    await office.tenant.add_fault(fault, match={"method": "PATCH", "path_regex": ids[0]})
    await office.tenant.clear_log()
    body = {"search": {"emailIds": ids}, "update": {"labels": {"add": ["New"]}}}
    assert (await office.done("PUT", "/messages", body))["emailIds"] == ids
    assert [[part["method"] for part in parts] for parts in await batches(office)] == [
        ["GET", "GET"], ["PATCH", "PATCH"], ["GET"], ["PATCH"],
    ]  # fmt: skip


async def test_only_what_succeeded_is_listed(office: MailboxDesk) -> None:
    """A message that is gone does not hold up the others."""
    ids = await folder(office, "Partly", 2)
    moved = await office.done("PUT", "/messages/move", {"search": {"emailIds": [UNKNOWN, *ids]}, "path": "\\Junk"})
    assert moved == {"path": "Junk Email", "emailIds": ids}
    for message in ids:
        assert await office.held(message, "junkemail")
    nothing = await office.done("PUT", "/messages/move?path=Partly", {"search": {}, "path": "INBOX"})
    assert nothing == {"path": "Inbox"}


async def test_deleting_many_goes_by_where_each_message_lies(office: MailboxDesk) -> None:
    """To Deleted Items, and for good what lies there already, whatever folder the request names."""
    ids = await folder(office, "Gone", 4)
    first = await office.done("PUT", "/messages/delete?path=Gone", {"search": {"subject": "Gone 1"}})
    trashed = first["moved"]["emailIds"]
    assert (first["deleted"], first["moved"]["destination"], len(trashed)) == (True, "Deleted Items", 1)
    rest = [one for one in ids if one not in trashed]
    mixed = await office.done("PUT", "/messages/delete?path=%5CTrash", {"search": {"emailIds": [*trashed, rest[0]]}})
    assert mixed == {
        "deleted": True,
        "moved": {"destination": "Deleted Items", "emailIds": [rest[0]]},
        "deletedMessages": {"emailIds": trashed},
    }
    assert await office.held(trashed[0]) is None
    assert await office.held(rest[0], "deleteditems")
    forced = await office.done("PUT", "/messages/delete?path=Gone&force=1", {"search": {}})
    assert sorted(forced["deletedMessages"]["emailIds"]) == sorted(rest[1:])
    assert "moved" not in forced
    assert [await office.held(one) for one in rest[1:]] == [None, None]
    assert await office.done("PUT", "/messages/delete?path=Gone", {"search": {}}) == {"deleted": False}


async def test_a_forced_delete_of_many_works_without_permanent_delete(office: MailboxDesk) -> None:
    """Where the cloud does not offer it, plain deletes leave nothing either."""
    ids = await folder(office, "Plain", 2)
    match = {"path_regex": "/permanentDelete$"}
    await office.tenant.add_fault({"status": 404, "code": "ResourceNotFound"}, match=match, times=None)
    body = {"search": {"emailIds": ids}}
    assert (await office.done("PUT", "/messages/delete?force=true", body))["deletedMessages"]["emailIds"] == ids
    assert [await office.held(one) for one in ids] == [None, None]


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/messages", {"search": {}, "update": {}}, "path"),
        ("/messages?path=Inbox", {"update": {}}, "search"),
        ("/messages?path=Inbox", {"search": {}}, "update"),
        ("/messages?path=Inbox&page=1", {"search": {}, "update": {}}, "page"),
        ("/messages/move?path=Inbox", {"search": {}}, "path"),
        ("/messages", {"search": {"emailIds": [".."]}, "update": {}}, "emailIds"),
        ("/messages", {"search": {"emailIds": ["a"] * 1001}, "update": {}}, "emailIds"),
        ("/messages/delete?path=Inbox&force=perhaps", {"search": {}}, "force"),
        ("/messages/delete?path=Inbox", {"search": {"nonsense": 1}}, "nonsense"),
    ],
)
async def test_wrong_requests_are_refused_by_name(office: MailboxDesk, path: str, body: Any, key: str) -> None:
    """400, and nothing is changed."""
    await office.tenant.clear_log()
    answer = await office.call("PUT", path, body)
    assert answer.status == 400, answer.body
    assert key in [one["key"] for one in answer.body["fields"]], answer.body
    assert await batches(office) == []


async def test_folders_and_terms_that_can_not_be_searched_are_named(office: MailboxDesk) -> None:
    """404 for an unknown folder, to search in or to move to; 400 for a term that Graph does not know."""
    for method, body in (("", {"update": {}}), ("/move", {"path": "Inbox"}), ("/delete", {})):
        answer = await office.call("PUT", f"/messages{method}?path=Nowhere", {"search": {}, **body})
        assert (answer.status, answer.body["code"]) == (404, "NotFound"), answer.body
    answer = await office.call("PUT", "/messages/move?path=Inbox", {"search": {}, "path": "Nowhere"})
    assert (answer.status, answer.body["message"]) == (404, "Move failed")
    answer = await office.call("PUT", "/messages/delete?path=Inbox", {"search": {"uid": "1:5"}})
    assert (answer.status, answer.body["code"]) == (400, "UnsupportedSearchTerm")
