"""Folders, lists and single messages over the API, from what a mailbox of the tenant really holds."""

import base64
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.application import Application
from tests.support.library import LISA, SENDER, Library, ids
from tests.support.tenant import Tenant


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(app: Application, tenant: Tenant) -> AsyncIterator[Library]:
    """A mailbox whose folders have German names."""
    await tenant.reset()
    await tenant.add_principal(LISA, preferred_language="de-DE")
    library = Library(app, tenant)
    await library.settings(webhooksEnabled=False)
    library.lisa = await library.own(LISA)
    yield library
    await library.close()
    await tenant.reset()


@pytest.fixture
def library(opened: Library) -> Library:
    """The mailbox."""
    return opened


# -- folders -------------------------------------------------------------------------------------------------------


async def test_folders_come_with_localised_names_and_special_uses_first(library: Library) -> None:
    """In the contract's order; the virtual folder of all mail among them; hidden folders are not shown."""
    await library.folder("Zubehör")
    projects = await library.folder("Äpfel")
    await library.folder("Birnen", projects)
    shown = (await library.read("mailboxes"))["mailboxes"]
    by_path = {one["path"]: one for one in shown}
    special = [(one["path"], one["specialUse"]) for one in shown if "specialUse" in one]
    assert [one["path"] for one in shown][: len(special)] == [path for path, _ in special]
    assert special == [
        ("Posteingang", "\\Inbox"), ("Gesendete Elemente", "\\Sent"), ("Entwürfe", "\\Drafts"), ("\\All", "\\All"),
        ("Junk-E-Mail", "\\Junk"), ("Gelöschte Elemente", "\\Trash"),
    ]  # fmt: skip
    assert "Aufgezeichnete Unterhaltungen" not in by_path
    assert by_path["Posteingang"] == {
        "id": by_path["Posteingang"]["id"], "path": "Posteingang", "delimiter": "/", "name": "Posteingang",
        "listed": True, "subscribed": True, "specialUse": "\\Inbox", "specialUseSource": "extension",
    }  # fmt: skip
    assert by_path["\\All"] == {
        "id": "virtual_all", "path": "\\All", "delimiter": "/", "parentPath": "", "name": "All Mail", "listed": True,
        "subscribed": False, "noSelect": True, "specialUse": "\\All", "specialUseSource": "extension",
    }  # fmt: skip
    assert (by_path["Äpfel/Birnen"]["parentPath"], by_path["Äpfel/Birnen"]["name"]) == ("Äpfel", "Birnen")
    assert "parentPath" not in by_path["Äpfel"]
    assert by_path["Äpfel"]["id"] == projects


async def test_counters_are_what_the_mailbox_holds_now(library: Library) -> None:
    """Messages and unread ones, also right after a mail came and one was read."""
    folder = await library.folder("Gezählt")
    placed = [await library.arrive(folder="Gezählt") for _ in range(3)]
    await library.graph("PATCH", f"/messages/{placed[0]['id']}", {"isRead": True})
    shown = (await library.read("mailboxes", counters="true"))["mailboxes"]
    (counted,) = [one for one in shown if one["id"] == folder]
    assert counted["status"] == {"messages": 3, "unseen": 2}
    assert all("status" in one for one in shown if one["id"] != "virtual_all")
    await library.graph("DELETE", f"/messages/{placed[1]['id']}")
    shown = (await library.read("mailboxes", counters="1"))["mailboxes"]
    assert [one["status"] for one in shown if one["id"] == folder] == [{"messages": 2, "unseen": 1}]
    assert all("status" not in one for one in (await library.read("mailboxes", counters="0"))["mailboxes"])


async def test_a_folder_renamed_or_deleted_in_outlook_is_so_in_the_next_list(library: Library) -> None:
    """The list asks for changes every time."""
    folder = await library.folder("Erst so")
    await library.read("mailboxes")
    await library.graph("PATCH", f"/mailFolders/{folder}", {"displayName": "Dann so"})
    assert "Dann so" in [one["path"] for one in (await library.read("mailboxes"))["mailboxes"]]
    await library.graph("DELETE", f"/mailFolders/{folder}")
    assert folder not in [one["id"] for one in (await library.read("mailboxes"))["mailboxes"]]


async def test_slashes_and_percents_in_names_are_escaped_and_found_again(library: Library) -> None:
    """A folder named A/B is not a folder B in A, and both can be listed."""
    slash = await library.folder("A/B")
    plain = await library.folder("A")
    below = await library.folder("B", plain)
    percent = await library.folder("50%2F", slash)
    in_slash = await library.arrive(folder=slash)
    in_below = await library.arrive(folder=below)
    in_percent = await library.arrive(folder=percent)
    shown = {one["id"]: one for one in (await library.read("mailboxes"))["mailboxes"]}
    assert [shown[one]["path"] for one in (slash, below, percent)] == ["A%2FB", "A/B", "A%2FB/50%252F"]
    assert (shown[slash]["name"], shown[percent]["name"]) == ("A/B", "50%2F")
    for folder, mail in ((slash, in_slash), (below, in_below), (percent, in_percent)):
        assert ids(await library.read("messages", path=shown[folder]["path"])) == [mail["id"]]
        assert (await library.read(f"message/{mail['id']}"))["path"] == shown[folder]["path"]


# -- lists ---------------------------------------------------------------------------------------------------------


async def test_a_localised_inbox_is_found_by_every_name_of_it(library: Library) -> None:
    """`INBOX` in any case, the tag, the German name, and below it in segments."""
    mail = await library.arrive()
    for name in ("INBOX", "inbox", "Inbox", "\\Inbox", "Posteingang"):
        assert ids(await library.read("messages", path=name))[0] == mail["id"], name
    inbox = next(one for one in (await library.read("mailboxes"))["mailboxes"] if one.get("specialUse") == "\\Inbox")
    below = await library.arrive(folder=await library.folder("Rechnungen", inbox["id"]))
    for path in ("Inbox/Rechnungen", "inbox/Rechnungen", "Posteingang/Rechnungen"):
        assert ids(await library.read("messages", path=path)) == [below["id"]]
    assert ids(await library.ok("GET", library.at("messages") + "?path=INBOX&path=Rechnungen")) == [below["id"]]


async def test_a_message_in_a_list_has_the_contracts_fields(library: Library) -> None:
    """All that the list form names, and nothing that is empty."""
    folder = await library.folder("Form")
    content = base64.b64encode(b"x" * 99).decode()
    files = [
        {"name": "order.pdf", "content_type": "application/pdf", "content_base64": content},
        {"name": "p.png", "content_type": "image/png", "content_base64": "eA==", "is_inline": True, "content_id": "p1"},
    ]
    mail = await library.arrive(
        folder=folder, subject="Order 17", to=[{"name": "Lisa", "address": LISA}], cc=["bob@contoso.example"],
        html="<p>Grüße</p>", attachments=files, message_id="<order-17@customer.example>",
    )  # fmt: skip
    await library.graph(
        "PATCH", f"/messages/{mail['id']}", {"categories": ["Red"], "flag": {"flagStatus": "flagged"}}
    )
    (shown,) = (await library.read("messages", path="Form"))["messages"]
    held = await library.graph("GET", f"/messages/{mail['id']}")
    first, second = shown.pop("attachments")
    assert shown == {
        "id": mail["id"],
        "emailId": mail["id"],
        "threadId": held["conversationId"],
        "date": held["receivedDateTime"].replace("Z", ".000Z"),
        "flags": ["\\Flagged"],
        "labels": ["Red"],
        "unseen": True,
        "flagged": True,
        "subject": "Order 17",
        "from": SENDER,
        "to": [{"name": "Lisa", "address": LISA}],
        "cc": [{"name": "bob@contoso.example", "address": "bob@contoso.example"}],
        "messageId": "<order-17@customer.example>",
        "text": {"id": mail["id"], "encodedSize": {"html": len("<p>Grüße</p>".encode())}},
        "preview": "Grüße",
    }
    assert {name: first[name] for name in first if name != "id"} == {
        "contentType": "application/pdf", "encodedSize": 99, "inline": False, "filename": "order.pdf",
    }  # fmt: skip
    assert (second["inline"], second["contentId"], "embedded" in second) == (True, "<p1>", False)


async def test_pages_by_number_and_by_cursor_cover_a_folder_once(library: Library) -> None:
    """Newest first, with totals; cursors end where the list ends; a page beyond is empty."""
    folder = await library.folder("Stapel")
    for _ in range(7):
        await library.arrive(folder=folder)
    held = [one["id"] for one in (await library.graph("GET", f"/mailFolders/{folder}/messages?$top=50"))["value"]]
    by_number = [await library.read("messages", path="Stapel", pageSize=3, page=number) for number in range(4)]
    assert [one for page in by_number for one in ids(page)] == held
    assert [(one["total"], one["page"], one["pages"]) for one in by_number] == [(7, n, 3) for n in range(4)]
    seen, page = [], by_number[0]
    assert page["prevPageCursor"] is None
    while True:
        seen += ids(page)
        if page["nextPageCursor"] is None:
            break
        assert page["nextPageCursor"].startswith("ms_")
        page = await library.read("messages", path="Stapel", pageSize=3, page=2, cursor=page["nextPageCursor"])
    assert seen == held
    back = await library.read("messages", path="Stapel", pageSize=3, cursor=page["prevPageCursor"])
    assert (back["page"], ids(back)) == (1, held[3:6])
    await library.folder("Leer")
    empty = await library.read("messages", path="Leer")
    assert (empty["total"], empty["pages"], empty["nextPageCursor"], empty["messages"]) == (0, 1, None, [])


async def test_the_whole_mailbox_is_listed_with_the_path_of_each_message(library: Library) -> None:
    """Also of one in a folder that was made after the tree was last read."""
    await library.read("mailboxes")
    first = await library.arrive()
    second = await library.arrive(folder=await library.folder("Eben gemacht"))
    listed = await library.read("messages", path="\\All", pageSize=100)
    paths = {one["id"]: one["path"] for one in listed["messages"]}
    assert (paths[first["id"]], paths[second["id"]]) == ("Posteingang", "Eben gemacht")
    assert listed["total"] == len(listed["messages"])
    assert "path" not in (await library.read("messages", path="INBOX", pageSize=1))["messages"][0]


async def test_a_folder_made_seconds_ago_is_listed_and_a_deleted_one_is_not(library: Library) -> None:
    """Without waiting for any round; the same name made anew is the new folder."""
    folder = await library.folder("Kurz da")
    mail = await library.arrive(folder=folder)
    assert ids(await library.read("messages", path="Kurz da")) == [mail["id"]]
    await library.graph("DELETE", f"/mailFolders/{folder}")
    gone = await library.get("messages", path="Kurz da")
    assert (gone.status, gone.body["message"], gone.body["code"]) == (404, "Listing failed", "NotFound")
    assert gone.body["info"] == {"response": "Not able to find mailbox folder"}
    await library.folder("Kurz da")
    assert (await library.read("messages", path="Kurz da"))["total"] == 0


async def test_an_archive_that_appears_later_is_found_by_its_tag(library: Library) -> None:
    """Exchange makes it with its first use; until then there is none."""
    missing = await library.get("messages", path="\\Archive")
    assert (missing.status, missing.body["message"]) == (404, "Listing failed")
    mail = await library.arrive(folder="archive")
    assert ids(await library.read("messages", path="\\Archive")) == [mail["id"]]
    assert ids(await library.read("messages", path="Archiv")) == [mail["id"]]


@pytest.mark.parametrize(
    ("cursor", "code"),
    [
        ("garbage", "InvalidCursorValue"),
        ("ms_", "InvalidCursorValue"),
        ("ms_@@@", "InvalidCursorValue"),
        ("ms_" + base64.urlsafe_b64encode(b'{"page":-1}').decode(), "InvalidCursorValue"),
        ("ms_" + base64.urlsafe_b64encode(b'{"page":true}').decode(), "InvalidCursorValue"),
        ("ms_" + base64.urlsafe_b64encode(b'{"page":1,"skipToken":"a#b"}').decode(), "InvalidCursorValue"),
        ("ms_" + base64.urlsafe_b64encode(b"[" * 3000).decode(), "InvalidCursorValue"),
        ("imap_abc", "InvalidCursorType"),
    ],
)
async def test_a_cursor_that_is_none_is_refused(library: Library, cursor: str, code: str) -> None:
    """400 with the contract's code."""
    answer = await library.get("messages", path="INBOX", cursor=cursor)
    assert (answer.status, answer.body["code"]) == (400, code)
