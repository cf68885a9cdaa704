"""Deleting accounts: nothing is left, nothing comes back, and every half deletion is finished."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError

from shared.changes import CREATED
from shared.errors import ApiError
from shared.storage.tables import Row
from shared.wiring import Services
from tests.api.test_recovery import tokens_of
from tests.support.desk import DELEGATED
from tests.support.workshop import ANN, RITA, SUPPORT, Workshop

HOOK = {"webhooksEnabled": True, "webhooks": "http://127.0.0.1:9/hook", "webhookEvents": ["*"]}


class Died(BaseException):
    """Stands for a process that ends here."""


async def at_rest(services: Services) -> dict[str, list[str]]:
    """Every record of every table and every blob as text, by table."""
    found: dict[str, list[str]] = {}
    for name, table in services.tables.items():
        rows = [row async for row in table.scan()]
        found[name] = [f"{row.partition} {row.key} {json.dumps([row.value, row.columns])}" for row in rows]
    found["blobs"] = []
    with suppress(ResourceNotFoundError):  # no blob was ever written
        found["blobs"] = [blob.name async for blob in services.blobs._client.list_blobs()]
    return found


def named(stored: dict[str, list[str]], account: str) -> set[str]:
    """The tables that say something of an account."""
    return {name for name, texts in stored.items() if any(account in text for text in texts)}


async def a_full_life(shop: Workshop) -> str:
    """An account with everything an account can have: mail sent and waiting, large bodies, events, tokens, a poll."""
    await shop.services.service_settings.write(HOOK)
    account = await shop.own(webhooks="https://hooks.example/own", webhooksCustomHeaders=[{"key": "X", "value": "y"}])
    await shop.settle()
    shop.deliver(ANN, "Hello")
    await shop.settle()
    mail = {"to": [{"address": RITA}], "text": "x"}
    await shop.services.submit.accept(account, mail)
    later = (shop.clock().replace(year=shop.clock().year + 1)).isoformat()
    await shop.services.submit.accept(account, mail | {"text": "y" * 600_000, "sendAt": later})
    await shop.run_due()
    await shop.services.tokens.mint({"account": account, "scopes": ["api"], "description": "d"})
    record = await shop.record(account)
    await shop.services.polling.poll(record, await shop.services.accounts.reading_reach(record))
    await shop.services.poison.keep("mailboxes", json.dumps({"job": {"account": account, "do": "x"}}), "r", "k")
    return account


async def test_nothing_of_a_deleted_account_is_left_in_storage(workshop: Workshop) -> None:
    """Tables and blobs are searched for its id, at once and after its last event has been dealt with."""
    account = await a_full_life(workshop)
    before = named(await at_rest(workshop.services), account)
    assert before >= {"accounts", "credentials", "tokens", "outbox", "events", "markers", "cursors", "trees", "poison"}
    blobs = len((await at_rest(workshop.services))["blobs"])
    await workshop.services.onboarding.delete(account)
    stored = await at_rest(workshop.services)
    assert len(stored["blobs"]) == blobs - 1
    # accountDeleted itself; a recurring turn, which ends within the hour; a message that failed, until the later look
    assert named(stored, account) <= {"events", "schedule", "poison"}
    told = [row async for row in workshop.services.tables["events"].scan() if row.partition == account]
    assert [row.value["envelope"]["event"] for row in told] == ["accountDeleted"]
    for row in told:
        columns = row.columns | {"state": "delivered"}
        await workshop.services.tables["events"].replace(Row(row.partition, row.key, row.value, row.etag, columns))
    await workshop.run_for(2 * 3600, tick_s=600)
    assert named(await at_rest(workshop.services), account) == set()
    assert list(workshop.world.notifier.alive()) == []


async def test_an_end_that_is_not_told_yet_keeps_what_telling_it_needs(workshop: Workshop) -> None:
    """The later looks leave accountDeleted and its sealed target alone until it is settled."""
    account = await a_full_life(workshop)
    await workshop.services.onboarding.delete(account)
    await workshop.run_for(3 * 3600, tick_s=600)
    (row,) = [row async for row in workshop.services.tables["events"].scan() if row.partition == account]
    assert row.value["target"]


STEPS = range(1, 60)


async def delete_dying_at(shop: Workshop, account: str, step: int) -> bool:
    """A deletion whose process dies before its write number `step`; True when it came to its end before that."""
    services, count = shop.build(), 0
    services.queues.put = shop.queues.put  # type: ignore[method-assign]

    def mortal(method: Any) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                raise Died
            return await method(*args, **options)

        return call

    for table in services.tables.values():
        for name in ("insert", "replace", "put", "delete", "delete_all"):
            setattr(table, name, mortal(getattr(table, name)))
    services.queues.put = mortal(services.queues.put)  # type: ignore[method-assign]
    try:
        await services.onboarding.delete(account)
    except Died:
        return False
    finally:
        await services.close()
    return True


@pytest.mark.parametrize("finished_by", ["repeated call", "job", "sweep"])
async def test_a_deletion_that_dies_anywhere_is_finished(workshop: Workshop, finished_by: str) -> None:
    """At every step: the account is not usable any more or wholly there, and after the next try it is gone."""
    for step in STEPS:
        account = await workshop.own()
        await workshop.services.tokens.mint({"account": account, "scopes": ["api"], "description": "d"})
        ended = await delete_dying_at(workshop, account, step)
        begun = await workshop.services.accounts.find(account) is None
        if ended:
            assert step > 8, "the deletion has fewer steps than this test means to break"
            return
        if not begun:
            await workshop.services.onboarding.delete(account)
            continue
        with pytest.raises(ApiError) as refused:
            await workshop.services.submit.accept(account, {"to": [{"address": RITA}], "text": "x"})
        assert refused.value.status == 404
        if finished_by == "repeated call":
            with suppress(ApiError):  # 404 where only what follows the removal was left to do
                await workshop.services.onboarding.delete(account)
        elif finished_by == "sweep":
            workshop.queues.waiting.clear()
            await workshop.timers()
        await workshop.run_for(120)
        left = named(await at_rest(workshop.services), account)
        assert left <= {"events", "schedule"}, f"dead before write {step}: {left}"
    raise AssertionError("the deletion never came to its end")


async def test_an_account_made_again_after_a_half_deletion_is_a_new_one(workshop: Workshop) -> None:
    """Creating finishes the deletion first; the old token of the API does not open the new account."""
    account = await workshop.own()
    minted = await workshop.services.tokens.mint({"account": account, "scopes": ["api"], "description": "d"})
    assert not await delete_dying_at(workshop, account, 4)
    assert await workshop.services.accounts.find(account) is None
    oauth2 = {"provider": await workshop._app(DELEGATED), "auth": {"user": ANN}, **await tokens_of(workshop, ANN)}
    fields = {"account": account, "name": "n", "email": ANN, "oauth2": oauth2}
    assert (await workshop.services.onboarding.create(fields))["state"] == "new"
    assert await workshop.services.tokens.view(minted["id"]) is None
    await workshop.run_for(2000, tick_s=300)  # the later looks of the old deletion included
    assert (await workshop.record(account))["state"] == "connected"
    assert len(await workshop.events(account, "accountAdded")) >= 1
    accepted = await workshop.services.submit.accept(account, {"to": [{"address": RITA}], "text": "x"})
    await workshop.run_due()
    assert len(workshop.arrived(RITA, accepted["messageId"])) == 1


async def test_a_token_minted_during_a_deletion_does_not_outlive_it(workshop: Workshop) -> None:
    """The account goes between the look at it and the token's record: the caller gets a 404, and no token stays."""
    account = await workshop.own()
    mint = workshop.services.tokens.mint

    async def slow(fields: Any) -> Any:
        await workshop.services.onboarding.delete(account)
        return await mint(fields)

    workshop.services.tokens.mint = slow  # type: ignore[method-assign]
    status, _ = await workshop.call("POST", "/v1/tokens", {"account": account, "description": "d"})
    assert status == 404
    assert await workshop.services.tokens.views(account) == []


async def test_what_work_in_flight_writes_after_the_end_is_removed(workshop: Workshop) -> None:
    """A worker that had read the account before it went leaves markers and events; a later look removes them."""
    account = await workshop.own()
    record = await workshop.record(account)
    reach = await workshop.services.accounts.reach(record)
    message = workshop.deliver(ANN, "in flight")
    worker = workshop.build()
    await worker.access.token_source(reach)(None)
    await workshop.services.onboarding.delete(account)
    await worker.changes.observe(record, reach, message, CREATED)
    assert "markers" in named(await at_rest(workshop.services), account)
    await workshop.run_for(1200, tick_s=300)
    left = named(await at_rest(workshop.services), account)
    assert left <= {"events", "schedule"}
    assert await workshop.events(account, "messageNew") == []
    await worker.close()


async def test_credentials_whose_account_never_came_are_removed(workshop: Workshop) -> None:
    """A process that died between storing tokens and the account leaves them for an hour, not for ever."""
    account = await workshop.own()
    row = await workshop.services.tables["credentials"].get(account, "cache")
    assert row is not None
    await workshop.services.tables["credentials"].put(Row("never-came", "cache", row.value))
    await workshop.timers()
    assert await workshop.services.tables["credentials"].get("never-came", "cache")
    workshop.advance(3700)
    await workshop.timers()
    assert await workshop.services.tables["credentials"].get("never-came", "cache") is None
    assert await workshop.services.tables["credentials"].get(account, "cache")


async def test_another_process_stops_using_a_deleted_account_at_once(workshop: Workshop) -> None:
    """What it remembers of tokens opens nothing: each use begins with the record."""
    account = await workshop.own()
    child = await workshop.delegated(SUPPORT, account)
    worker = workshop.build()
    await worker.access.token_source(await worker.accounts.reach(await worker.accounts.get(account)))(None)
    await workshop.services.onboarding.delete(account)
    with pytest.raises(ApiError):
        await worker.submit.accept(account, {"to": [{"address": RITA}], "text": "x"})
    await workshop.run_due()
    assert (await workshop.record(child))["delegationError"]
    await worker.close()
