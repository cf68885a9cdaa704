"""Folders that come and go, and where a deleted message was."""

from collections import Counter
from typing import Any

import pytest

from tests.support.workshop import ANN, SUPPORT, Workshop

Json = dict[str, Any]


async def folder_events(shop: Workshop, account: str) -> list[tuple[str, str]]:
    """(event, path) in the order in which they happened to each folder."""
    found = await shop.events(account, "mailboxNew", "mailboxDeleted", "mailboxReset")
    return sorted((one["event"], one["path"]) for one in found)


async def polled(shop: Workshop) -> str:
    """A shared mailbox that is polled, looked at once."""
    account = await shop.delegated(SUPPORT, await shop.own())
    await shop.run_for(61)
    return account


async def test_folders_that_come_and_go_are_told_once_with_their_path(workshop: Workshop) -> None:
    """Nothing at the first look; then a nested folder, its rename, its end. Turns without a change tell nothing."""
    account = await polled(workshop)
    assert await folder_events(workshop, account) == []
    box = workshop.mailbox(SUPPORT)
    outer = box.make_folder("A/B", box.root)
    inner = box.make_folder("Kunden", outer)
    await workshop.run_for(400)
    assert await folder_events(workshop, account) == [("mailboxNew", "A%2FB"), ("mailboxNew", "A%2FB/Kunden")]
    (event,) = [one for one in await workshop.events(account, "mailboxNew") if one["path"] == "A%2FB"]
    assert set(event) == {"serviceUrl", "account", "date", "path", "event", "data"}
    assert event["data"] == {"path": "A%2FB", "name": "A/B"}
    box.rename_folder(inner, "Clients")
    await workshop.run_for(400)
    box.remove_folder(inner)
    await workshop.run_for(400)
    assert Counter(await folder_events(workshop, account)) == {
        ("mailboxNew", "A%2FB"): 1, ("mailboxNew", "A%2FB/Kunden"): 1, ("mailboxDeleted", "A%2FB/Kunden"): 1,
        ("mailboxNew", "A%2FB/Clients"): 1, ("mailboxDeleted", "A%2FB/Clients"): 1,
    }  # fmt: skip


async def test_a_folder_that_comes_again_is_told_again(workshop: Workshop) -> None:
    """There and back and there: each change is one of its own."""
    account = await polled(workshop)
    box = workshop.mailbox(SUPPORT)
    folder = box.make_folder("One", box.root)
    for name in ("Two", "One", "Two"):
        await workshop.run_for(400)
        box.rename_folder(folder, name)
    await workshop.run_for(400)
    assert Counter(await folder_events(workshop, account)) == {
        ("mailboxNew", "One"): 2, ("mailboxNew", "Two"): 2, ("mailboxDeleted", "One"): 2, ("mailboxDeleted", "Two"): 1,
    }  # fmt: skip


async def test_a_forgotten_tree_cursor_tells_no_folder_twice(workshop: Workshop) -> None:
    """Graph forgets where the folder delta stood: the tree is read anew, and only what is different is told."""
    account = await polled(workshop)
    box = workshop.mailbox(SUPPORT)
    owner = workshop.world.directory.find(SUPPORT)
    assert owner is not None
    box.make_folder("Before", box.root)
    await workshop.run_for(400)
    workshop.world.mail.delta.expire(owner.id)
    box.make_folder("After", box.root)
    await workshop.run_for(400)
    assert await folder_events(workshop, account) == [("mailboxNew", "After"), ("mailboxNew", "Before")]


async def test_two_workers_and_one_that_dies_tell_a_folder_once(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that notes the change first tells it; when it dies on the way, the next look tells the rest."""
    account = await polled(workshop)
    record = await workshop.record(account)
    reach = await workshop.services.accounts.reading_reach(record)
    box = workshop.mailbox(SUPPORT)
    for name in ("One", "Two"):
        box.make_folder(name, box.root)
    other = workshop.build()
    real, calls = workshop.services.events.emit, 0

    async def die(*args: Any, **options: Any) -> bool:
        nonlocal calls
        calls += 1
        if args[1] == "mailboxNew" and calls > 1:
            raise SystemExit
        return await real(*args, **options)

    monkeypatch.setattr(workshop.services.events, "emit", die)
    with pytest.raises(SystemExit):
        await workshop.services.polling.poll(record, reach)
    monkeypatch.setattr(workshop.services.events, "emit", real)
    assert await folder_events(workshop, account) == [("mailboxNew", "One")]
    known, told = await workshop.services.polling._folders.before(account)
    assert known is not None
    await other.polling.poll(record, reach)
    await workshop.services.polling._folders.tell(account, told, known)  # with what it knew before the other came
    await workshop.services.polling.poll(record, reach)
    assert await folder_events(workshop, account) == [("mailboxNew", "One"), ("mailboxNew", "Two")]
    assert len(await workshop.events(account, "mailboxNew")) == 2
    await other.close()


async def test_a_mailbox_behind_an_account_that_changes_is_looked_at_for_the_first_time(workshop: Workshop) -> None:
    """The folders of another mailbox are no news, and those of the one before are not deleted."""
    account = await polled(workshop)
    box = workshop.mailbox(SUPPORT)
    box.make_folder("Only here", box.root)
    await workshop.run_for(400)
    record = await workshop.record(account)
    assert workshop.services.access.on_other_mailbox is not None
    await workshop.services.access.on_other_mailbox(record)
    await workshop.run_for(400)
    assert await folder_events(workshop, account) == [("mailboxNew", "Only here")]


@pytest.mark.parametrize("way", ["push", "poll"])
async def test_a_deleted_message_is_told_with_the_folder_it_was_in(workshop: Workshop, way: str) -> None:
    """Path and special use of the folder it was last seen in; of one that was never told, `\\All`."""
    holder = await workshop.own()
    account, address = (holder, ANN) if way == "push" else (await workshop.delegated(SUPPORT, holder), SUPPORT)
    await workshop.run_for(61)
    box = workshop.mailbox(address)
    folder = box.make_folder("Filed", box.root)
    first, second = workshop.deliver(address, "In the inbox"), workshop.deliver(address, "Filed", folder=folder.id)
    await workshop.settle()
    await workshop.run_for(400)
    for message in (first, second):
        workshop.remove(address, message)
    await workshop.settle()
    await workshop.run_for(400)
    found = {one["data"]["id"]: one for one in await workshop.events(account, "messageDeleted")}
    assert {name: found[first].get(name) for name in ("path", "specialUse", "data")} == {
        "path": "Inbox", "specialUse": "\\Inbox", "data": {"id": first}
    }  # fmt: skip
    assert (found[second]["path"], "specialUse" in found[second]) == ("Filed", False)
    assert len(found) == 2
