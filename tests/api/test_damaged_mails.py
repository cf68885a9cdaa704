"""One damaged record of a mail or an account: it is in nobody's way, and can be got rid of."""

from datetime import timedelta
from typing import Any

import pytest

from shared.storage.tables import Row
from tests.support.damage import damage
from tests.support.post import Died
from tests.support.workshop import RITA, SUPPORT, Workshop

MAIL = {"to": [{"address": RITA}], "subject": "s", "text": "x"}


class Office:
    """Two mailboxes with mails for next year."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.later = shop.clock().replace(year=shop.clock().year + 1).isoformat()

    async def submit(self, account: str, key: str = "", **fields: Any) -> str:
        """Accepts a mail; its queue id."""
        answer = await self.shop.services.submit.accept(account, MAIL | {"sendAt": self.later} | fields, key=key)
        return str(answer["queueId"])

    async def left(self, table: str) -> set[str]:
        """The row keys of a table, damaged ones included."""
        return {key for _, key in await self.shop.services.tables[table].keys()}

    async def break_mail(self, queue_id: str) -> None:
        """Damages the record of a mail."""
        await damage(self.shop.services.tables["outbox"], queue_id[-2:], queue_id)


@pytest.fixture
async def office(workshop: Workshop) -> Office:
    """Nothing in it yet."""
    return Office(workshop)


async def test_the_sweep_of_drafts_and_contents_passes_a_damaged_mail(office: Office) -> None:
    """Contents that belong to no mail go; those of the damaged one stay, since nobody knows."""
    shop = office.shop
    account = await shop.application(SUPPORT)
    queue_id = await office.submit(account, text="word " * 150_000)
    await office.break_mail(queue_id)
    drafts = shop.services.tables["drafts"]
    for owner in (queue_id, "0" * 19):
        value = {"account": account, "messageId": "<m@x>", "stage": "building", "begun": shop.clock().isoformat(),
                 "id": "", "attached": 0, "upload": "", "late": False, "gone": 0}  # fmt: skip
        await drafts.insert(Row(owner[-2:], owner, value))
    await shop.services.blobs.put("outbox/" + "f" * 19, b"x")
    await shop.services.outbox.sweep_large(timedelta(0))
    assert await office.left("drafts") == {queue_id}
    kept = [name async for name in shop.services.blobs.old("outbox/", shop.clock() + timedelta(hours=1))]
    assert [name for name in kept if queue_id in name or "f" * 19 in name] == [
        name for name in kept if queue_id in name
    ] != []
    for name in kept:
        await shop.services.blobs.delete(name)


async def test_a_damaged_mail_can_be_taken_back(office: Office) -> None:
    """It can never be sent; taking it back removes it."""
    queue_id = await office.submit(await office.shop.application(SUPPORT))
    await office.break_mail(queue_id)
    assert await office.shop.call("DELETE", f"/v1/outbox/{queue_id}") == (200, {"deleted": True})
    assert queue_id not in await office.left("outbox")


async def test_deleting_an_account_takes_its_damaged_mails_along(office: Office) -> None:
    """And the sound ones, and nobody else's."""
    shop = office.shop
    account, other = await shop.application(SUPPORT), await shop.application("sales@contoso.example")
    mails = [await office.submit(account) for _ in range(3)]
    kept = await office.submit(other)
    await office.break_mail(mails[1])
    await shop.services.onboarding.delete(account)
    assert await office.left("outbox") == {kept}


async def test_deleting_a_damaged_account_ends_its_mails_and_keys(office: Office) -> None:
    """Which account of the id they belong to is not known, and all of them end; a new one starts from nothing."""
    shop = office.shop
    account, other = await shop.application(SUPPORT), await shop.application("sales@contoso.example")
    await office.submit(account, key="order-1")
    kept = await office.submit(other, key="order-1")
    await damage(shop.services.tables["accounts"], account, "account")
    assert (await shop.call("DELETE", f"/v1/account/{account}"))[0] == 200
    assert await office.left("outbox") == {kept}
    assert {partition for partition, _ in await shop.services.tables["idempotency"].keys()} == {other}


async def test_a_deletion_of_a_damaged_account_that_died_is_finished_by_its_job(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ended after the first step: a minute later nothing is left all the same."""
    shop = office.shop
    account = await shop.application(SUPPORT)
    await office.submit(account)
    await damage(shop.services.tables["accounts"], account, "account")

    async def die(*given: Any) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(shop.services.outbox, "drop_account", die)
        with pytest.raises(Died):
            await shop.services.onboarding.delete(account)
    assert account in {partition for partition, _ in await shop.services.tables["accounts"].keys()}
    await shop.run_for(120)
    assert await office.left("outbox") == set()
    assert account not in {partition for partition, _ in await shop.services.tables["accounts"].keys()}


async def test_a_late_deletion_of_a_damaged_account_leaves_its_successor_alone(office: Office) -> None:
    """Deleted and made again meanwhile: the mails of the new account stay."""
    shop = office.shop
    account = await shop.application(SUPPORT)
    kept = await office.submit(account, key="order-1")
    await shop.services.deletion._finish({"account": account, "created": "", "deleting": True})
    assert await office.left("outbox") == {kept}
    assert (await shop.record(account))["state"] == "connected"
