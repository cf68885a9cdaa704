"""Delta of messages and folders (graph.md 5.3)."""

# Fixtures are imported by name and shadowed by the parameters.
# ruff: noqa: F401, F811

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .mail_fixtures import IMMUTABLE, GraphClient, Office, fits_openapi, mail, office

INBOX = "/me/mailFolders/inbox/messages/delta"


async def walk(client: GraphClient, link: str, **options: Any) -> tuple[list[dict[str, Any]], str]:
    """(entries, deltaLink) of a whole round."""
    entries: list[dict[str, Any]] = []
    while True:
        page = (await client.get(link, **options)).json
        assert ("@odata.nextLink" in page) != ("@odata.deltaLink" in page)
        entries += page["value"]
        if "@odata.deltaLink" in page:
            return entries, page["@odata.deltaLink"]
        link = page["@odata.nextLink"]


@pytest.mark.parametrize("spelling", ["delta", "delta()", "microsoft.graph.delta()"])
async def test_a_round_gives_everything_once(
    office: Office, spelling: str, fits_openapi: Callable[[str, Any], None]
) -> None:
    ids = {office.deliver("ann", f"Mail {n}") for n in range(25)}
    ann = await office.user("ann")
    page = (await ann.get(f"/me/mailFolders/inbox/messages/{spelling}")).json
    fits_openapi("messageDeltaCollectionResponse", page)
    assert len(page["value"]) == 10
    assert page["@odata.nextLink"].startswith(office.url)
    entries, link = await walk(ann, f"/me/mailFolders('inbox')/messages/{spelling}?$select=subject", headers=IMMUTABLE)
    assert {entry["id"] for entry in entries} == ids
    assert len(entries) == 25
    assert "body" not in entries[0]
    assert "@odata.etag" in entries[0]
    assert await walk(ann, link, headers=IMMUTABLE) != (entries, link)
    assert (await walk(ann, link, headers=IMMUTABLE))[0] == []


async def test_page_size_is_a_wish_of_at_most_fifty(office: Office) -> None:
    for number in range(120):
        office.deliver("ann", f"Mail {number}")
    ann = await office.user("ann")
    page = await ann.get(INBOX, headers={"Prefer": "odata.maxpagesize=200"})
    assert len(page["value"]) == 50
    assert page.headers["Preference-Applied"] == "odata.maxpagesize=200"
    assert len((await ann.get(f"{INBOX}?$top=7"))["value"]) == 7
    entries, _ = await walk(ann, INBOX, headers={"Prefer": "odata.maxpagesize=40"})
    assert len(entries) == 120


async def test_changes_after_a_round_are_reported(office: Office) -> None:
    kept, read, edited, gone = (office.deliver("ann", f"Mail {n}") for n in range(4))
    ann = await office.user("ann")
    _, link = await walk(ann, INBOX, headers=IMMUTABLE)
    await ann.patch(f"/me/messages/{read}", {"isRead": True})
    await ann.patch(f"/me/messages/{edited}", {"isRead": True, "categories": ["Red"]})
    await ann.delete(f"/me/messages/{gone}")
    new = office.deliver("ann", "New")
    entries, link = await walk(ann, link, headers=IMMUTABLE)
    found = {entry["id"]: entry for entry in entries}
    assert found.keys() == {read, edited, gone, new}
    assert kept not in found
    assert found[read] == {"@odata.type": "#microsoft.graph.message", "id": read, "isRead": True}
    assert found[edited]["categories"] == ["Red"]
    assert "@odata.etag" in found[edited]
    assert found[gone]["@removed"] == {"reason": "deleted"}
    assert found[new]["subject"] == "New"


async def test_a_move_is_removed_here_and_created_there(office: Office) -> None:
    moved = office.deliver("ann")
    ann = await office.user("ann")
    entries, inbox = await walk(ann, INBOX)
    _, junk = await walk(ann, "/me/mailFolders/junkemail/messages/delta")
    await ann.post(f"/me/messages/{moved}/move", {"destinationId": "junkemail"})
    left, _ = await walk(ann, inbox)
    came, _ = await walk(ann, junk)
    assert left == [
        {"@odata.type": "#microsoft.graph.message", "id": entries[0]["id"], "@removed": {"reason": "deleted"}}
    ]
    assert [entry["subject"] for entry in came] == ["Hello"]


async def test_leaving_and_coming_back_takes_back_only_the_ordinary_id(office: Office) -> None:
    item = office.deliver("ann")
    ann = await office.user("ann")
    entries, link = await walk(ann, INBOX)
    for folder in ("junkemail", "inbox"):
        await ann.post(f"/me/messages/{item}/move", {"destinationId": folder})
    ordinary, _ = await walk(ann, link)
    assert [("@removed" in entry, entry["id"] == entries[0]["id"]) for entry in ordinary] == [
        (False, False),
        (True, True),
    ]
    (immutable,), _ = await walk(ann, link, headers=IMMUTABLE)
    assert (immutable["id"], "@removed" in immutable) == (item, False)


async def test_came_and_went_between_rounds_is_not_reported(office: Office) -> None:
    ann = await office.user("ann")
    _, link = await walk(ann, INBOX)
    await ann.delete(f"/me/messages/{office.deliver('ann')}")
    assert (await walk(ann, link))[0] == []


async def test_the_received_filter_stays_in_the_chain(office: Office) -> None:
    office.world.clock.offset_s = -3600
    old = office.deliver("ann", "Old", folder="junkemail")
    office.deliver("ann", "Old too")
    office.world.clock.offset_s = 0
    office.deliver("ann", "New")
    ann = await office.user("ann")
    since = office.world.clock.now().strftime("%Y-%m-%dT%H:00:00Z")
    from datetime import timedelta

    since = (office.world.clock.now() - timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    entries, link = await walk(ann, f"{INBOX}?$filter=receivedDateTime ge {since}")
    assert [entry["subject"] for entry in entries] == ["New"]
    await ann.post(f"/me/messages/{old}/move", {"destinationId": "inbox"})
    assert (await walk(ann, link))[0] == []
    assert (await ann.get(f"{INBOX}?$filter=isRead eq false", expect=400)).error[1] == "BadRequest"


async def test_garbage_is_400_and_a_forgotten_token_410(office: Office) -> None:
    ann = await office.user("ann")
    answer = await ann.get(f"{INBOX}?$deltatoken=nonsense", expect=400)
    assert answer.error == (400, "BadRequest", "Badly formed token.")
    _, link = await walk(ann, INBOX)
    _, _junk = await walk(ann, "/me/mailFolders/junkemail/messages/delta")
    await office.control("/delta/expire", {"mailbox": "bob@contoso.example"})
    await walk(ann, link)
    expired = await office.control("/delta/expire", {"mailbox": "ann@contoso.example"})
    assert expired["expired"] >= 2
    answer = await ann.get(link, expect=410)
    assert answer.error[1] == "SyncStateNotFound"
    assert answer.error[2].startswith("The sync state generation is not found; generation=")


async def test_change_type_limits_what_is_reported(office: Office) -> None:
    first = office.deliver("ann")
    ann = await office.user("ann")
    _, link = await walk(ann, f"{INBOX}?changeType=created")
    await ann.patch(f"/me/messages/{first}", {"isRead": True})
    office.deliver("ann", "New")
    assert [entry["subject"] for entry in (await walk(ann, link))[0]] == ["New"]


async def test_folder_delta_is_flat_and_shows_counts(office: Office, fits_openapi: Callable[[str, Any], None]) -> None:
    ann = await office.user("ann")
    child = (await ann.post("/me/mailFolders/inbox/childFolders", {"displayName": "Sub"}))["id"]
    page = (await ann.get("/me/mailFolders/delta")).json
    fits_openapi("mailFolderDeltaCollectionResponse", page)
    entries, link = await walk(ann, "/me/mailFolders/delta()")
    assert child in {entry["id"] for entry in entries}
    assert (await walk(ann, link))[0] == []
    office.deliver("ann")
    (inbox,), link = await walk(ann, link)
    assert (inbox["displayName"], inbox["unreadItemCount"]) == ("Inbox", 1)
    await ann.delete(f"/me/mailFolders/{child}")
    entries, _ = await walk(ann, link)
    assert {
        "@odata.type": "#microsoft.graph.mailFolder",
        "id": child,
        "@removed": {"reason": "deleted"},
    } in entries
