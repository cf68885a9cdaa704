"""Changing and deleting single messages over HTTP, judged by what the tenant's mailboxes hold."""

import json
from collections.abc import AsyncIterator
from urllib.parse import quote

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


# -- flags and labels ------------------------------------------------------------------------------------------


async def test_flags_and_labels_change_and_the_answer_tells_what_is_there_now(office: MailboxDesk) -> None:
    """Added, taken away and set; unknown flags have no effect; one value stands for a list."""
    message = await office.arrived()
    path = f"/message/{message}"
    added = {"flags": {"add": ["\\Seen", "\\Flagged", "\\Answered"]}, "labels": {"add": "Red"}}
    assert await office.done("PUT", path, added) == {
        "flags": {"add": ["\\Seen", "\\Flagged", "\\Answered"], "result": ["\\Seen", "\\Flagged"]},
        "labels": {"add": ["Red"], "result": ["Red"]},
    }
    changed = {"flags": {"delete": ["\\Seen"]}, "labels": {"add": ["Blue", "red"], "delete": ["RED"]}}
    assert (await office.done("PUT", path, changed))["labels"]["result"] == ["Blue"]
    assert await office.done("PUT", path, {"flags": {"set": ["\\Seen"], "add": ["\\Flagged"]}}) == {
        "flags": {"set": ["\\Seen"], "add": ["\\Flagged"], "result": ["\\Seen"]}
    }
    held = await office.held(message)
    assert held is not None
    assert (held["isRead"], held["flag"]["flagStatus"], held["categories"]) == (True, "notFlagged", ["Blue"])
    assert (await office.done("PUT", path, {"labels": {"set": []}}))["labels"] == {"set": [], "result": []}


async def test_a_change_costs_one_call_and_one_more_only_for_labels_to_be_read(office: MailboxDesk) -> None:
    """Setting labels needs no reading; changing nothing reads once."""
    message = await office.arrived()
    for body, calls in (
        ({"flags": {"add": ["\\Seen"]}}, (0, 1)),
        ({"labels": {"set": ["Red"]}}, (0, 1)),
        ({"labels": {"add": ["Blue"]}}, (1, 1)),
        ({"labels": {"add": ["Blue"]}}, (1, 0)),
        ({"flags": {"add": ["\\Answered"]}}, (1, 0)),
    ):
        await office.tenant.clear_log()
        await office.done("PUT", f"/message/{message}", body)
        about = f"/messages/{message}$"
        assert (await office.asked("GET", about), await office.asked("PATCH", about)) == calls


async def test_categories_are_kept_when_their_read_failed(office: MailboxDesk) -> None:
    """A refused read is passed on, and nothing is written over what could not be seen."""
    message = await office.arrived()
    await office.done("PUT", f"/message/{message}", {"labels": {"set": ["Red", "Blue"]}})
    match = {"method": "GET", "path_regex": f"/messages/{message}$"}
    await office.tenant.add_fault({"status": 403}, match=match)
    await office.tenant.clear_log()
    answer = await office.call("PUT", f"/message/{message}", {"labels": {"add": ["Green"]}})
    assert (answer.status, answer.body["code"]) == (403, "AccessDenied")
    assert await office.asked("PATCH") == 0
    held = await office.held(message)
    assert held is not None
    assert held["categories"] == ["Red", "Blue"]


async def test_labels_written_by_somebody_else_meanwhile_are_kept(office: MailboxDesk) -> None:
    """A change that comes between reading and writing is read again: 412, then both labels are there."""
    message = await office.arrived()
    match = {"method": "PATCH", "path_regex": f"/messages/{message}$"}
    await office.tenant.add_fault({"status": 412, "code": "ErrorIrresolvableConflict"}, match=match)
    await office.tenant.clear_log()
    shown = await office.done("PUT", f"/message/{message}", {"labels": {"add": ["Green"]}})
    assert shown["labels"]["result"] == ["Green"]
    written = await office.tenant.log(surface="graph", method="PATCH")
    assert [one["headers"]["If-Match"][:3] for one in written] == ['W/"', 'W/"']
    assert await office.asked("GET", f"/messages/{message}$") == 2


async def test_a_throttled_change_is_tried_again_and_a_long_wait_is_passed_on(office: MailboxDesk) -> None:
    """A second is waited for; two minutes are the caller's."""
    message = await office.arrived()
    match = {"method": "PATCH", "path_regex": message}
    await office.tenant.add_fault({"status": 429, "retry_after": "0.2"}, match=match)
    assert (await office.done("PUT", f"/message/{message}", {"flags": {"add": ["\\Seen"]}}))["flags"]["result"]
    await office.tenant.add_fault({"status": 429, "retry_after": "120"}, match=match)
    answer = await office.call("PUT", f"/message/{message}", {"flags": {"delete": ["\\Seen"]}})
    assert (answer.status, answer.body["code"], answer.headers["Retry-After"]) == (429, "Throttled", "120")


# -- moving ----------------------------------------------------------------------------------------------------


async def test_a_message_moves_and_keeps_its_id(office: MailboxDesk) -> None:
    """By a tag, by a path in pieces, and back to the inbox in any letters."""
    message = await office.arrived()
    assert await office.done("PUT", f"/message/{message}/move", {"path": "\\Junk", "source": "Inbox"}) == {
        "path": "Junk Email", "id": message,
    }  # fmt: skip
    assert await office.held(message, "junkemail")
    made = await office.done("POST", "/mailbox", {"path": ["INBOX", "Cases"]})
    assert (await office.done("PUT", f"/message/{message}/move", {"path": ["Inbox", "Cases"]}))["path"] == "Inbox/Cases"
    assert await office.held(message, made["mailboxId"])
    assert (await office.done("PUT", f"/message/{message}/move", {"path": "INBOX"}))["path"] == "Inbox"
    assert await office.held(message, "inbox")


async def test_moving_what_is_not_there_or_to_where_nothing_is_answers_404(office: MailboxDesk) -> None:
    """In the contract's words, and the message stays."""
    message = await office.arrived()
    for target in (message, UNKNOWN):
        nowhere = await office.call("PUT", f"/message/{target}/move", {"path": "No such folder"})
        assert (nowhere.status, nowhere.body["message"], nowhere.body["code"]) == (404, "Move failed", "NotFound")
        assert nowhere.body["info"]["response"] == "Not able to find target folder"
    unknown = await office.call("PUT", f"/message/{UNKNOWN}/move", {"path": "\\Junk"})
    assert (unknown.status, unknown.body["message"]) == (404, "Move failed")
    assert unknown.body["info"]["response"] == "Not able to find source message"
    assert await office.held(message, "inbox")


# -- deleting --------------------------------------------------------------------------------------------------


async def test_a_deleted_message_goes_to_the_trash_and_from_there_for_good(office: MailboxDesk) -> None:
    """The first call moves it and says where to; the second leaves nothing."""
    message = await office.arrived()
    assert await office.done("DELETE", f"/message/{message}") == {
        "deleted": True, "moved": {"destination": "Deleted Items", "message": message},
    }  # fmt: skip
    assert await office.held(message, "deleteditems")
    assert await office.done("PUT", f"/message/{message}/move", {"path": "\\Trash"}) == {
        "path": "Deleted Items", "id": message,
    }  # fmt: skip
    assert await office.done("DELETE", f"/message/{message}") == {"deleted": True}
    assert await office.held(message) is None
    gone = await office.call("DELETE", f"/message/{message}")
    assert (gone.status, gone.body["code"]) == (404, "MessageNotFound")


@pytest.mark.parametrize("offered", [True, False], ids=["everywhere", "in clouds without permanentDelete"])
async def test_a_forced_delete_leaves_nothing(office: MailboxDesk, offered: bool) -> None:
    """From any folder, and where Graph's plain DELETE only moves the message."""
    message = await office.arrived()
    if not offered:
        match = {"path_regex": "/permanentDelete$"}
        await office.tenant.add_fault({"status": 405, "code": "Request_BadRequest"}, match=match, times=None)
    assert await office.done("DELETE", f"/message/{message}?force=true") == {"deleted": True}
    assert await office.held(message) is None
    if offered:
        again = await office.call("DELETE", f"/message/{message}?force=Y")
        assert (again.status, again.body["code"]) == (404, "MessageNotFound")


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("", {"flags": {"add": [1]}}, "add"),
        ("", {"flags": {"add": ["x" * 129]}}, "add"),
        ("", {"labels": {"add": ["a\x00b"]}}, "add"),
        ("", {"labels": {"add": [""]}}, "add"),
        ("", {"labels": {"set": [f"l{n}" for n in range(300)]}}, "set"),
        ("", {"flags": ["\\Seen"]}, "flags"),
        ("", {"flag": {}}, "flag"),
        ("", {"flags": {"__proto__": []}}, "__proto__"),
        ("/move", {}, "path"),
        ("/move", {"path": ""}, "path"),
        ("/move", {"path": []}, "path"),
        ("/move", {"path": ["Inbox", ["x"]]}, "path"),
        ("/move", {"path": "a\ud800"}, "path"),
    ],
)
async def test_wrong_fields_are_refused_by_name(office: MailboxDesk, path: str, body: Json, key: str) -> None:
    """400, and no call to Graph."""
    await office.tenant.clear_log()
    answer = await office.call("PUT", f"/message/{UNKNOWN}{path}", body)
    assert answer.status == 400, answer.body
    assert key in [one["key"] for one in answer.body["fields"]], answer.body
    assert await office.asked("PUT") == await office.asked("PATCH") == 0


@pytest.mark.parametrize("message", ["..", ".", "a b", "x\x00", "%2e%2e", "a?b", "é", "x" * 257, "../../users"])
async def test_an_id_that_is_none_never_reaches_graph(office: MailboxDesk, message: str) -> None:
    """Else `..` would make a DELETE of a message one of something else."""
    await office.tenant.clear_log()
    for method, body in (("DELETE", None), ("PUT", {"flags": {"add": ["\\Seen"]}})):
        answer = await office.call(method, f"/message/{quote(message, safe='').replace('.', '%2E')}", body)
        assert answer.status in (400, 404), answer.body
        assert json.dumps(answer.body)
    assert await office.asked("DELETE") == await office.asked("PATCH") == 0


async def test_unknown_messages_are_named_so(office: MailboxDesk) -> None:
    """404 for one that is gone, 400 for an id that Graph does not take, for reading and writing alike."""
    for body in ({"flags": {"add": ["\\Seen"]}}, {"labels": {"add": ["x"]}}, {}):
        gone = await office.call("PUT", f"/message/{UNKNOWN}", body)
        assert (gone.status, gone.body["code"]) == (404, "MessageNotFound")
        assert gone.body["message"] == "Requested message was not found"
        wrong = await office.call("PUT", "/message/nonsense", body)
        assert (wrong.status, wrong.body["code"]) == (400, "InvalidMessageId")
