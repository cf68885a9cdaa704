"""A process may die anywhere while it reads a report, keeps large contents or tells of folders; each is told once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from local import services
from shared.storage.keys import digest
from tests.properties.test_crashes import every_point, no_failures, without_turns
from tests.support.mortal import Json, Mortal
from tests.support.workshop import ANN, SUPPORT
from tests.unit.test_reports import dsn

TWO_FAILED = "\r\n".join(f"Final-Recipient: rfc822;{n}@x.example\r\nAction: failed\r\nStatus: 5.1.1\r\n" for n in "ab")
LARGE = 320_000  # characters of two bytes: more than a record keeps


@pytest.fixture
async def shop(quiet_azurite: services.Azurite) -> AsyncIterator[Mortal]:
    """A workshop of this one test whose processes can die, with an hour between two turns."""
    made = await Mortal(quiet_azurite.connection_string).start()
    made.world.switches.notification_delay_s = 0.001
    yield made
    made.fate.disarm()
    await made.stop()


def about(shop: Mortal, account: str, message_id: str) -> list[Json]:
    """What the receiver was told of a message and of what it reports, in the order of first arrival."""
    return [one for one in shop.heard(account).values() if message_id in json.dumps(one["data"])]


async def test_a_report_whose_reader_dies_anywhere_is_told_once_and_in_order(shop: Mortal) -> None:
    """Two recipients in a report of many hundred kilobytes: one messageNew with all of it, then two messageBounce."""
    account = await shop.own()
    await shop.run_for(60)
    await shop.services.service_settings.write({"notifyText": True})
    text = "It failed. " + "ä" * LARGE

    async def story() -> str:
        mail = shop.deliver(ANN, raw=dsn(f"Reporting-MTA: dns;x.example\r\n\r\n{TWO_FAILED}", told=text))
        await shop.settle()
        await shop.run_for(5)
        return mail

    lives = await every_point(shop, story, "notifications", calm_s=700)
    await shop.hours(2)
    for where, mail in lives:
        found = about(shop, account, mail)
        told = [(one["event"], one["data"].get("recipient")) for one in found]
        assert told[0] == ("messageNew", None), where
        assert Counter(told[1:]) == {("messageBounce", f"{n}@x.example"): 1 for n in "ab"}, where
        assert len(found[0]["data"]["text"]["html"]) >= LARGE, where
    assert len(lives) > 8
    no_failures(shop)
    left = [name async for name in shop.services.blobs.old(f"events/{digest(account)}/", shop.clock())]
    assert left == []


async def test_folders_whose_turn_dies_anywhere_are_told_once(shop: Mortal) -> None:
    """Two come, one of them gets another name: five events for each life, none of them twice."""
    account = await shop.delegated(SUPPORT, await shop.own())
    await shop.run_for(60)
    await without_turns(shop)
    await shop.services.sync.catch_up(account)
    box, number = shop.mailbox(SUPPORT), 0

    async def story() -> int:
        nonlocal number
        number += 1
        made = [box.make_folder(f"{name} {number}", box.root) for name in ("One", "Two")]
        await shop.services.accounts.queue_job(account, "catch_up")
        await shop.run_for(1)
        box.rename_folder(made[0], f"Three {number}")
        await shop.services.accounts.queue_job(account, "catch_up")
        await shop.run_for(1)
        return number

    lives = await every_point(shop, story, "mailboxes", calm_s=700)
    await shop.run_for(700)
    await shop.services.sync.catch_up(account)
    await shop.run_for(60)
    told = Counter((one["event"], one["path"]) for one in shop.heard(account, "mailboxNew", "mailboxDeleted").values())
    assert max(told.values()) == 1
    for where, life in lives:
        # One that came and was renamed between two looks was only ever seen under its last name.
        assert told["mailboxNew", f"Two {life}"] == told["mailboxNew", f"Three {life}"] == 1, where
        assert told["mailboxNew", f"One {life}"] == told["mailboxDeleted", f"One {life}"], where
    assert len(lives) > 8
    no_failures(shop)
