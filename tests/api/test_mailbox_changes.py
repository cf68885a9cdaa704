"""Making, renaming, moving and deleting folders over HTTP, judged by what the tenant's mailbox shows."""

from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
import pytest_asyncio

from tests.support.application import Application, call
from tests.support.desk import Json
from tests.support.mailbox_desk import MailboxDesk
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


async def made(office: MailboxDesk, path: str | list[str]) -> str:
    """The id of a new folder."""
    return str((await office.done("POST", "/mailbox", {"path": path}))["mailboxId"])


async def test_a_folder_is_made_once_and_seen_by_the_next_call(office: MailboxDesk) -> None:
    """At the top and below the inbox, by text and by pieces; the second time it is there already."""
    top = await office.done("POST", "/mailbox", {"path": "Cases"})
    assert (top["path"], top["created"]) == ("Cases", True)
    assert (await office.done("POST", "/mailbox", {"path": ["Cases"]}))["created"] is False
    inner = await office.done("POST", "/mailbox", {"path": ["inbox", "Invoices"]})
    assert (inner["path"], inner["created"]) == ("Inbox/Invoices", True)
    deeper = await office.done("POST", "/mailbox", {"path": "Inbox/Invoices/2026"})
    folders = await office.folders()
    assert folders[top["mailboxId"]] == "Cases"
    assert folders[inner["mailboxId"]] == "Inbox > Invoices"
    assert folders[deeper["mailboxId"]] == "Inbox > Invoices > 2026"


async def test_a_folder_named_with_a_slash_is_made_renamed_moved_and_deleted(office: MailboxDesk) -> None:
    """`A/B` is one folder and its path `A%2FB`; `100%` is `100%25`."""
    await made(office, "Target")
    folder_id = await made(office, "A%2FB")
    assert (await office.folders())[folder_id] == "A/B"
    moved = {"path": "A%2FB", "newPath": ["Target", "100%25 of C%2fD"]}
    assert await office.done("PUT", "/mailbox", moved) == {
        "path": "A%2FB", "newPath": "Target/100%25 of C%2FD", "mailboxId": folder_id, "renamed": True,
    }  # fmt: skip
    assert (await office.folders())[folder_id] == "Target > 100% of C/D"
    child = await made(office, "Target/100%25 of C%2FD/Inner")
    back = {"path": "Target/100%25 of C%2FD", "newPath": "A%2FB"}
    assert (await office.done("PUT", "/mailbox", back))["newPath"] == "A%2FB"
    assert (await office.folders())[child] == "A/B > Inner"
    gone = await office.done("DELETE", f"/mailbox?path={quote('A%2FB', safe='')}")
    assert gone == {"path": "A%2FB", "mailboxId": folder_id, "deleted": True}
    assert {folder_id, child} & (await office.folders()).keys() == set()


async def test_a_folder_moves_to_the_top_and_below_another(office: MailboxDesk) -> None:
    """With one call where the name stays, and the mails in it keep their ids."""
    await made(office, "From")
    folder_id = await made(office, "From/Moving")
    message = await office.arrived("moves along")
    await office.done("PUT", f"/message/{message}/move", {"path": "From/Moving"})
    await office.tenant.clear_log()
    assert (await office.done("PUT", "/mailbox", {"path": "From/Moving", "newPath": "Moving"}))["newPath"] == "Moving"
    assert await office.asked("PATCH") == 0
    assert (await office.folders())[folder_id] == "Moving"
    assert await office.held(message, folder_id)
    await office.done("PUT", "/mailbox", {"path": "Moving", "newPath": "Inbox/Moving"})
    assert (await office.folders())[folder_id] == "Inbox > Moving"


async def test_a_rename_goes_round_names_that_are_taken_on_the_way(office: MailboxDesk) -> None:
    """The new name stands beside the folder already; it is free where the folder goes."""
    await made(office, "Way")
    await made(office, "Way/Taken")
    folder_id = await made(office, "Way/Free")
    await office.done("PUT", "/mailbox", {"path": "Way/Free", "newPath": "Taken"})
    assert (await office.folders())[folder_id] == "Taken"


async def test_a_half_done_rename_is_taken_back(office: MailboxDesk) -> None:
    """The second step is refused: the folder is what it was."""
    await made(office, "Half")
    folder_id = await made(office, "Half/Old")
    await office.tenant.add_fault({"status": 403}, match={"method": "POST", "path_regex": "/move$"})
    answer = await office.call("PUT", "/mailbox", {"path": "Half/Old", "newPath": "New"})
    assert (answer.status, answer.body["message"], answer.body["code"]) == (400, "Rename failed", "ErrorAccessDenied")
    assert (await office.folders())[folder_id] == "Half > Old"


async def test_what_is_not_there_answers_404_in_the_contracts_words(office: MailboxDesk) -> None:
    """A missing parent when creating and when moving, a missing folder when renaming and deleting."""
    here = await made(office, "Here")
    parent, folder = "Not able to find parent folder", "Not able to find mailbox folder"
    for method, path, body, message, response in (
        ("POST", "/mailbox", {"path": "Nowhere/New"}, "Create failed", parent),
        ("PUT", "/mailbox", {"path": "Here", "newPath": "Nowhere/New"}, "Rename failed", parent),
        ("PUT", "/mailbox", {"path": "Nowhere", "newPath": "New"}, "Rename failed", folder),
        ("PUT", "/mailbox", {"path": "Nowhere", "subscribed": True}, "Rename failed", folder),
        ("DELETE", "/mailbox?path=Nowhere", None, "Delete failed", folder),
    ):
        answer = await office.call(method, path, body)
        assert (answer.status, answer.body["message"], answer.body["code"]) == (404, message, "NotFound")
        assert answer.body["details"] == {"response": response}
    assert (await office.folders())[here] == "Here"
    assert await office.done("PUT", "/mailbox", {"path": "Here", "subscribed": False}) == {
        "path": "Here", "renamed": False,
    }  # fmt: skip


async def test_refusals_of_graph_are_passed_on(office: MailboxDesk) -> None:
    """A name taken but for its letters, a folder below itself, a folder of Exchange's own."""
    taken = await made(office, "Taken already")
    await made(office, "Outer")
    await made(office, "Outer/Inner")
    for method, path, body, message, code in (
        ("POST", "/mailbox", {"path": "TAKEN already"}, "Create failed", "ErrorFolderExists"),
        ("PUT", "/mailbox", {"path": "Outer", "newPath": "Taken already"}, "Rename failed", "ErrorFolderExists"),
        ("PUT", "/mailbox", {"path": "Outer", "newPath": "Outer/Inner/Outer"}, "Rename failed", "ErrorMoveCopyFailed"),
        ("PUT", "/mailbox", {"path": "\\Junk", "newPath": "Outer/Junk Email"}, "Rename failed", None),
        ("DELETE", "/mailbox?path=INBOX", None, "Delete failed", None),
    ):
        answer = await office.call(method, path, body)
        assert (answer.status, answer.body["message"]) == (400, message), answer.body
        assert code is None or answer.body["code"] == code
        assert answer.body["details"]["response"]
    assert "Taken already" in (await office.folders())[taken]
    assert "Outer > Inner" in (await office.folders()).values()


async def test_a_folder_made_in_outlook_meanwhile_is_found(office: MailboxDesk) -> None:
    """The stored tree does not know it: it is read anew, and the folder is not made twice."""
    tokens = await office.tenant.token(user="ann@contoso.example")
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    url = f"{office.tenant.url}/v1.0/users/support@contoso.example/mailFolders"
    elsewhere = await call("POST", url, json={"displayName": "Elsewhere"}, headers=headers)
    assert elsewhere.status == 201
    answer = await office.done("POST", "/mailbox", {"path": "Elsewhere"})
    assert (answer["created"], answer["mailboxId"]) == (False, elsewhere.body["id"])


async def test_a_change_shows_although_graph_can_not_tell_of_it_yet(office: MailboxDesk) -> None:
    """The folder delta is out of order: making, renaming and deleting are seen by the next call all the same."""
    await made(office, "Before")
    await office.tenant.add_fault({"status": 503}, match={"path_regex": "/mailFolders/delta"}, times=None)
    folder_id = await made(office, "Before/Late")
    await office.done("PUT", "/mailbox", {"path": "Before/Late", "newPath": "Before/Later"})
    message = await office.arrived("late")
    await office.done("PUT", f"/message/{message}/move", {"path": "Before/Later"})
    assert await office.held(message, folder_id)
    await office.done("DELETE", "/mailbox?path=Before%2FLater")
    assert (await office.done("POST", "/mailbox", {"path": "Before/Later"}))["created"] is True


@pytest.mark.parametrize(
    ("method", "path", "body", "key"),
    [
        ("POST", "", {}, "path"),
        ("POST", "", {"path": ""}, "path"),
        ("POST", "", {"path": "a//b"}, "path"),
        ("POST", "", {"path": "/a"}, "path"),
        ("POST", "", {"path": "x" * 257}, "path"),
        ("POST", "", {"path": "a\x00"}, "path"),
        ("POST", "", {"path": "\\All"}, "path"),
        ("POST", "", {"path": {"a": 1}}, "path"),
        ("POST", "", {"path": "a", "extra": 1}, "extra"),
        ("PUT", "", {"path": "Inbox"}, "value"),
        ("PUT", "", {"path": "Inbox", "newPath": ["a", ""]}, "newPath"),
        ("PUT", "", {"path": "Inbox", "newPath": "\\Trash"}, "newPath"),
        ("DELETE", "", None, "path"),
        ("DELETE", "?path=", None, "path"),
        ("DELETE", "?path=%5CAll", None, "path"),
    ],
)
async def test_wrong_paths_are_refused_by_name(
    office: MailboxDesk, method: str, path: str, body: Json | None, key: str
) -> None:
    """400, and no folder is touched."""
    before = await office.folders()
    answer = await office.call(method, f"/mailbox{path}", body)
    assert answer.status == 400, answer.body
    assert key in [one["key"] for one in answer.body["fields"]], answer.body
    assert await office.folders() == before
