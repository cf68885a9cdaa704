"""Resolving paths against a mailbox that changes, in this process."""

from tests.support.workshop import ANN, Workshop


async def test_a_folder_made_after_the_tree_was_read_is_resolved(workshop: Workshop) -> None:
    """By path with one call more, and a well-known one also by its tag, with its special use from then on."""
    account = await workshop.own()
    mailboxes = workshop.services.mailboxes
    _, reach = await workshop.services.accounts.usable(account)
    assert await mailboxes.resolve(account, reach, "\\Archive") is None
    box = workshop.mailbox(ANN)
    made = box.make_folder("A/B", box.root)
    calls = workshop.world.log.counts["graph"]
    place = await mailboxes.resolve(account, reach, ["A%2FB"])
    assert place is not None
    assert (place.id, place.path, place.special_use) == (made.id, "A%2FB", None)
    assert workshop.world.log.counts["graph"] - calls == 1
    archive = box.ensure_well_known("archive")
    place = await mailboxes.resolve(account, reach, "\\Archive")
    assert place is not None
    assert (place.id, place.path, place.special_use) == (archive.id, "Archive", "\\Archive")
    shown = await workshop.services.mailbox_list.of(account)
    assert [one["path"] for one in shown if one.get("specialUse") == "\\Archive"] == ["Archive"]
    for path in ("\\All", "", "no such folder", "A/B"):
        assert await mailboxes.resolve(account, reach, path) is None
    box.rename_folder(made, "C")
    assert (await mailboxes.resolve(account, reach, "C")) is not None
