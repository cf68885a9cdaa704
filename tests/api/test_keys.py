"""Rotation of the key ring while the service runs, and values that no key opens."""

from __future__ import annotations

import base64
from collections import Counter
from typing import Any

import pytest

from shared.jobs import mailbox_job
from shared.sealed import CREDENTIALS, EVERYWHERE
from shared.storage.tables import Row
from shared.vault import key_of
from shared.webhook_target import target_of
from shared.wiring import Services
from tests.api.test_recovery import tokens_of
from tests.support.desk import DELEGATED
from tests.support.workshop import ANN, KEYS, RITA, Workshop

NEW = "k2:" + base64.b64encode(b"n" * 32).decode()
BOTH, BOTH_OLD_FIRST = f"{NEW},{KEYS}", f"{KEYS},{NEW}"
HEADER = {"key": "X-Own", "value": "own-word"}
Json = dict[str, Any]


async def keys_at_rest(services: Services) -> Counter[tuple[str, str]]:
    """How many values of which table are under which key."""
    found: Counter[tuple[str, str]] = Counter()
    for kind in EVERYWHERE:
        async for row in services.tables[kind.table].scan(kind.query):
            if sealed := row.value.get(kind.field):
                found[kind.table, key_of(sealed)] += 1
    return found


async def furnished(shop: Workshop) -> str:
    """Something sealed in every place: settings, an app, credentials, a webhook target, a pending sign-in, an end."""
    await shop.services.service_settings.write({"serviceSecret": "s", "pageBrandName": "Contoso"})
    account = await shop.own(webhooks="https://hooks.example/a", webhooksCustomHeaders=[HEADER])
    ended = await shop.own(webhooks="https://hooks.example/b")
    await shop.services.onboarding.delete(ended)
    await shop.services.consent.begin_api({"name": "n", "oauth2": {"provider": await shop._app(DELEGATED)}})
    await shop.services.endpoints.failed(target_of("https://hooks.example/c", []), {"reason": "No answer"})
    return account


async def change_ring(shop: Workshop, ring: str) -> None:
    """Every instance is started anew with another ring."""
    await shop.services.close()
    shop._settings["KEY_RING"] = ring
    shop.services = shop.build()


async def finish_run(shop: Workshop) -> Json:
    """Starts sealing everything anew and lets it run to its end."""
    await shop.services.resealing.start()
    for _ in range(100):
        await shop.run_due()
        if (shown := await shop.services.resealing.progress())["state"] == "finished":
            return shown
    raise AssertionError(shown)


async def send(shop: Workshop, account: str) -> bool:
    """Whether a mail of the account reaches Rita."""
    accepted = await shop.services.submit.accept(account, {"to": [{"address": RITA}], "text": "x"})
    await shop.run_due()
    return len(shop.arrived(RITA, accepted["messageId"])) == 1


async def damage(services: Services, table: str, field: str) -> None:
    """One bit of every sealed value of a field is another, in records that are whole otherwise."""
    async for row in services.tables[table].scan("RowKey ne 'reseal'"):
        if sealed := row.value.get(field):
            middle = len(sealed) // 2
            changed = sealed[:middle] + ("A" if sealed[middle] != "A" else "B") + sealed[middle + 1 :]
            await services.tables[table].replace(Row(row.partition, row.key, row.value | {field: changed}, row.etag))


async def test_a_run_seals_everything_under_the_new_key_and_the_old_one_may_go(workshop: Workshop) -> None:
    """Afterwards nothing is under the old key, the report says so, and all works with the new key alone."""
    account = await furnished(workshop)
    before = await keys_at_rest(workshop.services)
    assert {table for table, _ in before} == {kind.table for kind in EVERYWHERE}
    await change_ring(workshop, BOTH)
    shown = await finish_run(workshop)
    after = await keys_at_rest(workshop.services)
    assert {key for _, key in after} == {"k2"}
    assert sum(after.values()) == sum(before.values())
    assert shown["damaged"] == []
    assert shown["seen"] == sum(before.values())
    assert 0 < shown["resealed"] <= shown["seen"]  # reads were faster with some
    again = await finish_run(workshop)
    assert (again["keys"], again["resealed"]) == ({"k2": shown["seen"]}, 0)
    await change_ring(workshop, NEW)
    workshop.advance(2 * 3600)  # so that the token must be renewed with what is stored
    assert await send(workshop, account)
    assert (await workshop.services.service_settings.all())["pageBrandName"] == "Contoso"
    assert workshop.services.accounts.webhook_of(await workshop.record(account))[1] == [HEADER]


async def test_subscriptions_follow_the_new_key(workshop: Workshop) -> None:
    """Notifications are proven with a key of the ring too, so that dropping the old key must not deafen an account."""
    account = await workshop.own()
    await workshop.settle()
    first = (await workshop.record(account))["subscription"]["id"]
    await change_ring(workshop, BOTH)
    assert (await finish_run(workshop))["keys"]["k1"] == 1
    await workshop.settle()
    record = await workshop.record(account)
    assert record["subscribed"]["key"] == "k2"
    assert record["subscription"]["id"] != first
    assert [one.id for one in workshop.world.notifier.alive()] == [record["subscription"]["id"]]
    await change_ring(workshop, NEW)
    message = workshop.deliver(ANN, "after the change")
    await workshop.settle()
    assert [one["data"]["id"] for one in await workshop.events(account, "messageNew")] == [message]


async def test_what_is_read_moves_to_the_new_key_once_for_each_record(workshop: Workshop) -> None:
    """Settings, app and credentials are sealed anew by their first read; a second read writes nothing."""
    account = await furnished(workshop)
    await change_ring(workshop, BOTH)
    assert await send(workshop, account)
    assert await workshop.services.apps.find((await workshop.record(account))["oauth2"]["provider"])
    found = await keys_at_rest(workshop.services)
    assert key_of((await workshop.record(account))["webhooksSealed"]) == "k1"
    await workshop.services.accounts.note_contact(account, workshop.clock())
    assert key_of((await workshop.record(account))["webhooksSealed"]) == "k2"  # along with any change
    assert found["settings", "k2"] == found["credentials", "k2"] == found["oauth2apps", "k2"] == 1
    other = workshop.build(KEY_RING=BOTH)
    row = await workshop.services.tables["credentials"].get(account, "cache")
    assert row is not None
    await other.credentials._records.load(account)
    again = await workshop.services.tables["credentials"].get(account, "cache")
    assert again is not None
    assert again.etag == row.etag
    await other.close()


async def test_instances_with_the_older_and_the_newer_order_do_not_write_against_each_other(
    workshop: Workshop,
) -> None:
    """While the order is being changed, each process writes a record at most once."""
    account = await workshop.own()
    old, new = workshop.build(KEY_RING=BOTH_OLD_FIRST), workshop.build(KEY_RING=BOTH)
    etags = set()
    for _ in range(6):
        for services in (new, old):
            await services.credentials._records.load(account)
            row = await services.tables["credentials"].get(account, "cache")
            assert row is not None
            etags.add(row.etag)
    assert len(etags) <= 3
    await old.close()
    await new.close()


async def test_a_doubled_step_and_a_lost_one_neither_double_nor_stop_a_run(workshop: Workshop) -> None:
    """Every step is given twice, and the message of one is lost: the run ends, and counts each value once."""
    await furnished(workshop)
    seen = sum((await keys_at_rest(workshop.services)).values())
    await change_ring(workshop, BOTH)
    await workshop.services.resealing.start()
    for turn in range(40):
        jobs = [job for name, job in workshop.queues.take_due() if name == "mailboxes" and job["do"] == "reseal"]
        for job in jobs if turn != 2 else []:
            await mailbox_job(workshop.services, job)
            await mailbox_job(workshop.services, job)
        if turn > 2 and not jobs:
            workshop.advance(1300)
            await workshop.timers()
        if (shown := await workshop.services.resealing.progress())["state"] == "finished":
            break
    assert shown["state"] == "finished"
    assert (shown["seen"], shown["resealed"]) == (seen, seen)


async def test_a_step_that_dies_between_its_record_and_its_message_is_followed_by_the_next(
    workshop: Workshop,
) -> None:
    """The host gives the message again; the run goes on where it stands."""
    await furnished(workshop)
    await change_ring(workshop, BOTH)
    await workshop.services.resealing.start()
    (job,) = [one for name, one in workshop.queues.take_due() if name == "mailboxes" and one["do"] == "reseal"]
    queue = workshop.services.resealing._queue

    async def dies(_state: Json) -> None:
        raise RuntimeError("died")

    workshop.services.resealing._queue = dies  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        await mailbox_job(workshop.services, job)
    workshop.services.resealing._queue = queue  # type: ignore[method-assign]
    workshop.advance(600)
    await mailbox_job(workshop.services, job)
    for _ in range(20):
        await workshop.run_due()
    assert (await workshop.services.resealing.progress())["state"] == "finished"


async def test_damaged_values_are_named_and_the_rest_is_sealed(workshop: Workshop) -> None:
    """A value that does not open stops nothing and stays counted under the key that it names."""
    account = await furnished(workshop)
    await damage(workshop.services, "credentials", "sealed")
    await change_ring(workshop, BOTH)
    shown = await finish_run(workshop)
    assert shown["damaged"] == [{"table": "credentials", "record": f"{account}/cache"}]
    assert shown["keys"]["k1"] == 1 + 1  # the damaged value, and the subscription that is being made anew


async def test_credentials_that_do_not_open_are_told_and_a_sign_in_repairs_them(workshop: Workshop) -> None:
    """The account says what is wrong and what to do; another account goes on; new tokens heal it."""
    account, other = await workshop.own(), await workshop.application("sales@contoso.example")
    row = await workshop.services.tables["credentials"].get(account, "cache")
    assert row is not None
    foreign = row.value | {"sealed": workshop.services.credentials._records._vault.seal(b"{}", "another place")}
    await workshop.services.tables["credentials"].replace(Row(row.partition, row.key, foreign, row.etag))
    await change_ring(workshop, KEYS)
    await workshop.services.onboarding.reconnect(account)
    await workshop.run_due()
    status, shown = await workshop.call("GET", f"/v1/account/{account}")
    assert (status, shown["state"]) == (200, "authenticationError")
    assert "can not be opened" in shown["lastError"]["response"]
    assert "sign in again" in shown["lastError"]["description"]
    assert (await workshop.record(other))["state"] == "connected"
    assert await send(workshop, other)
    oauth2 = (await workshop.record(account))["oauth2"]
    await workshop.services.onboarding.update(account, {"oauth2": oauth2 | await tokens_of(workshop, ANN)})
    await workshop.run_due()
    assert (await workshop.record(account))["state"] == "connected"
    assert await send(workshop, account)


async def test_a_key_that_is_missing_is_named_and_heals_by_itself_when_it_is_back(workshop: Workshop) -> None:
    """An instance without the key shows which; with it the account is connected without a sign-in."""
    account = await workshop.own()
    await workshop.services.service_settings.write({"pageBrandName": None})
    row = await workshop.services.tables["settings"].get("settings", "service")
    if row is not None:
        await workshop.services.tables["settings"].delete("settings", "service")
    await change_ring(workshop, NEW)
    await workshop.services.onboarding.reconnect(account)
    await workshop.run_due()
    error = (await workshop.record(account))["lastError"]
    assert "no key named 'k1'" in error["response"]
    assert "KEY_RING" in error["description"]
    await change_ring(workshop, BOTH)
    await workshop.run_for(3700, tick_s=600)
    await workshop.timers()
    await workshop.run_due()
    assert (await workshop.record(account))["state"] == "connected"


async def test_an_apps_secret_that_does_not_open_is_told_and_set_anew(workshop: Workshop) -> None:
    """The app can be read and changed, its accounts show the cause, and a new secret brings them back."""
    account = await workshop.own()
    provider = (await workshop.record(account))["oauth2"]["provider"]
    await damage(workshop.services, "oauth2apps", "clientSecret")
    await change_ring(workshop, KEYS)
    workshop.advance(2 * 3600)
    await workshop.services.onboarding.reconnect(account)
    await workshop.run_due()
    status, shown = await workshop.call("GET", f"/v1/account/{account}")
    assert (status, shown["state"]) == (200, "authenticationError")
    assert f"PUT /v1/oauth2/{provider}" in shown["lastError"]["description"]
    status, app = await workshop.call("GET", f"/v1/oauth2/{provider}")
    assert (status, app["clientSecret"]) == (200, "******")
    assert "can not be opened" in app["lastError"]["response"]
    status, _ = await workshop.call("PUT", f"/v1/oauth2/{provider}", {"clientSecret": DELEGATED["clientSecret"]})
    assert status == 200
    await workshop.run_due()
    assert (await workshop.record(account))["state"] == "connected"
    assert (await workshop.call("GET", f"/v1/oauth2/{provider}"))[1]["lastError"] is None


async def test_unreadable_settings_answer_503_hold_work_up_and_can_be_started_anew(workshop: Workshop) -> None:
    """No mail is lost meanwhile, nothing crashes, an explicit recovery repairs it, and the old record is kept."""
    account = await workshop.own()
    await workshop.services.service_settings.write({"serviceSecret": "s", "pageBrandName": "Contoso"})
    accepted = await workshop.services.submit.accept(account, {"to": [{"address": RITA}], "text": "x"})
    await damage(workshop.services, "settings", "sealed")
    await change_ring(workshop, KEYS)
    await workshop.run_due()  # put back, not failed: a failure would raise here
    assert workshop.arrived(RITA, accepted["messageId"]) == []
    status, answer = await workshop.call("GET", "/v1/settings?pageBrandName=true")
    assert (status, answer["code"]) == (503, "SealBroken")
    assert "KEY_RING" in answer["message"]
    assert (await workshop.call("POST", "/v1/settings", {"pageBrandName": "x"}))[0] == 503
    status, answer = await workshop.call("POST", "/v1/settings/recover", {"pageBrandName": "New"})
    assert (status, answer["fields"][0]["key"]) == (400, "serviceSecret")
    masked = {"serviceSecret": "s", "webhooksCustomHeaders": [{"key": "X", "value": "******"}]}
    assert (await workshop.call("POST", "/v1/settings/recover", masked))[0] == 400
    fresh = {"serviceSecret": "s2", "pageBrandName": "New"}
    assert (await workshop.call("POST", "/v1/settings/recover", fresh))[0] == 200
    assert (await workshop.call("POST", "/v1/settings/recover", fresh))[0] == 409
    assert await workshop.services.service_settings.all() == fresh
    kept = [key for _, key in await workshop.services.tables["settings"].keys() if key.startswith("unreadable~")]
    assert len(kept) == 1
    await workshop.run_for(120)
    assert len(workshop.arrived(RITA, accepted["messageId"])) == 1


async def test_the_claim_of_a_renewal_survives_a_read_under_an_older_key(workshop: Workshop) -> None:
    """A read does not move a record to the new key while somebody renews it: his write would be lost."""
    account = await workshop.own()
    records = workshop.services.credentials._records
    claimed = await records.claim(account, await records.load(account))
    assert claimed is not None
    other = workshop.build(KEY_RING=BOTH)
    await other.credentials._records.load(account)
    await other.close()
    assert await records.settle(account, claimed, claimed)
    row = await workshop.services.tables[CREDENTIALS.table].get(account, "cache")
    assert row is not None
    assert "renewing" not in row.value
