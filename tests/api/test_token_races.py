"""Many processes renew one holder's token at once, and somebody signs in while they do."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from local.tenant.login import Injected
from shared.accounts import Reach
from shared.errors import CredentialError, StorageConflict
from shared.wiring import Services
from tests.api.test_recovery import tokens_of
from tests.support.desk import DELEGATED
from tests.support.workshop import ANN, Workshop

BOB = "bob@contoso.example"
WORKERS, ROUNDS = 8, 6
TOKEN_PATH = "/oauth2/v2.0/token"


def asked(shop: Workshop) -> int:
    """How many tokens the login service was asked for."""
    return len([one for one in shop.world.log.select("login", None, "POST", None) if one.path.endswith(TOKEN_PATH)])


async def reach_of(services: Services, account: str) -> Reach:
    return await services.accounts.reach(await services.accounts.get(account))


async def tokens_for(workers: list[Services], account: str, rejected: str | None = None) -> list[Any]:
    """What each worker gets, all at once: a token or the failure."""

    async def one(services: Services) -> str:
        reach = await reach_of(services, account)
        return await services.access.token_source(reach)(rejected)

    return await asyncio.gather(*(one(services) for services in workers), return_exceptions=True)


@pytest.mark.parametrize("failing", [0.0, 0.6], ids=["slow", "slow-and-failing"])
async def test_eight_workers_renew_once_a_round(workshop: Workshop, failing: float) -> None:
    """In every round all get the same new token of one request, however slowly the login service answers; each of
    its failures costs at most one request more, and no account its state."""
    account = await workshop.own()
    workers = [workshop.build() for _ in range(WORKERS)]
    workshop.world.random.seed(7)
    slow = {"delay_s": 0.15}
    if failing:
        workshop.world.faults.add({"path_regex": TOKEN_PATH}, {"status": 503}, None, failing)
    workshop.world.faults.add({"path_regex": TOKEN_PATH}, slow, None)
    before, failures = asked(workshop), 0
    for _ in range(ROUNDS):
        workshop.advance(2 * 3600)
        found = await tokens_for(workers, account)
        while refused := [one for one in found if isinstance(one, BaseException)]:
            assert all(isinstance(one, CredentialError) and one.transient for one in refused)
            failures += len(refused)
            found = await tokens_for(workers, account)
        assert len(set(found)) == 1
    workshop.world.faults.remove()
    assert bool(failures) == bool(failing)
    assert ROUNDS <= asked(workshop) - before <= ROUNDS + failures
    await workshop.run_for(1200)
    assert (await workshop.record(account))["state"] == "connected"
    fresh = workshop.build()
    workshop.advance(2 * 3600)
    assert await fresh.access.token_source(await reach_of(fresh, account))(None)
    for services in [*workers, fresh]:
        await services.close()


async def test_a_token_that_still_works_is_used_while_another_process_renews_it(workshop: Workshop) -> None:
    """Nobody waits for the login service in the last minutes of a token, nor fails by its outage."""
    account = await workshop.own()
    workers = [workshop.build() for _ in range(WORKERS)]
    (stored,) = set(await tokens_for(workers[:1], account))
    ends = (await workers[0].credentials._records.load(account)).current()
    assert ends is not None
    workshop.advance((ends.ends - workshop.clock()).total_seconds() - 120)
    workshop.world.faults.add({"path_regex": TOKEN_PATH}, {"status": 503}, None)
    assert set(await tokens_for(workers, account)) == {stored}
    workshop.world.faults.remove()
    workshop.world.faults.add({"path_regex": TOKEN_PATH}, {"delay_s": 0.3}, None)
    found = Counter(await tokens_for(workers, account))
    assert found[stored] == WORKERS - 1
    for services in workers:
        await services.close()


@pytest.mark.parametrize("refused", [False, True], ids=["renewed", "refused"])
async def test_a_sign_in_wins_over_a_renewal_begun_before_it(workshop: Workshop, refused: bool) -> None:
    """Bob signs in while workers ask for Ann's token: whatever the login service says of Ann, Bob's token is
    stored, and no failure of Ann's is noted."""
    account = await workshop.own(ANN)
    workers = [workshop.build() for _ in range(3)]
    workshop.advance(2 * 3600)
    if refused:
        workshop.world.login.token_errors.append(Injected(error="invalid_grant", aadsts=50173))
    asked_ann, signed_in = asyncio.Event(), asyncio.Event()

    def held(real: Any) -> Any:
        async def ends(*given: Any) -> Any:
            asked_ann.set()
            await signed_in.wait()
            return await real(*given)

        return ends

    for services in workers:
        records = services.credentials._records
        records.settle, records.release = held(records.settle), held(records.release)  # type: ignore[method-assign]
    renewing = asyncio.create_task(tokens_for(workers, account))
    await asked_ann.wait()
    bob = await tokens_of(workshop, BOB)
    oauth2 = {"provider": await workshop._app(DELEGATED), "auth": {"user": BOB}, **bob}
    await workshop.services.onboarding.update(account, {"oauth2": oauth2, "email": BOB})
    signed_in.set()
    found = await renewing
    assert set(found) == {bob["accessToken"]}
    await workshop.run_due()
    record = await workshop.record(account)
    assert (record["state"], record["lastError"]) == ("connected", None)
    assert await workshop.events(account, "authenticationError") == []
    stored = (await workers[0].credentials._records.load(account)).current()
    assert stored is not None
    assert stored.value == bob["accessToken"]
    for services in workers:
        await services.close()


async def test_a_failure_of_an_earlier_sign_in_is_not_noted(workshop: Workshop) -> None:
    """A process that still holds the reach of the old sign-in finds it refused: the new one is not blamed."""
    account = await workshop.own()
    stale = await reach_of(workshop.services, account)
    provider = await workshop._app(DELEGATED)
    oauth2 = {"provider": provider, "auth": {"user": ANN}, **await tokens_of(workshop, ANN)}
    await workshop.services.onboarding.update(account, {"oauth2": oauth2})
    await workshop.run_due()
    failure = CredentialError(
        "refused", transient=False, last_error={"response": "refused", "serverResponseCode": "OauthRenewError"}
    )
    assert not await workshop.services.access.note_failure(account, failure, stale.version)
    assert (await workshop.record(account))["state"] == "connected"
    current = await reach_of(workshop.services, account)
    assert await workshop.services.access.note_failure(account, failure, current.version)
    assert (await workshop.record(account))["state"] == "authenticationError"


async def test_a_secret_set_anew_is_used_by_a_process_that_remembers_the_old_one(workshop: Workshop) -> None:
    """The login service refuses the remembered secret; the stored one is looked at before anybody is blamed."""
    account = await workshop.own()
    provider = (await workshop.record(account))["oauth2"]["provider"]
    await workshop.services.apps.update(provider, {"clientSecret": "wrong"})
    worker = workshop.build()
    assert await worker.apps.find(provider)  # remembers the wrong one for thirty seconds
    await workshop.services.apps.update(provider, {"clientSecret": DELEGATED["clientSecret"]})
    stored = await worker.credentials._records.load(account)
    stored.token, stored.ends = "", ""
    await worker.credentials._records.put(account, stored)
    assert await worker.access.token_source(await reach_of(worker, account))(None)
    assert (await workshop.record(account))["state"] == "connected"
    await worker.close()


async def test_a_renewal_whose_process_died_is_taken_over(workshop: Workshop) -> None:
    """A claim nobody ends runs out; the others wait for that, and ask once."""
    account = await workshop.own()
    workshop.advance(2 * 3600)
    records = workshop.services.credentials._records
    assert await records.claim(account, await records.load(account))
    paused = 0

    async def pause(seconds: float) -> None:
        nonlocal paused
        paused += 1
        workshop.advance(seconds)
        await asyncio.sleep(0)

    records._pause = pause
    before = asked(workshop)
    assert (await tokens_for([workshop.services], account))[0]
    assert paused > 0
    assert asked(workshop) - before == 1


async def test_a_repeated_write_of_a_claim_is_known_as_our_own(workshop: Workshop) -> None:
    """The storage client repeats a write whose answer was lost, and meets itself: nobody waits for nobody."""
    account = await workshop.own()
    workshop.advance(2 * 3600)
    records = workshop.services.credentials._records
    real, calls = records._table.replace, []

    async def repeated(row: Any) -> Any:
        calls.append(row)
        stored = await real(row)
        if len(calls) in (1, 2):
            raise StorageConflict("applied, and answered 412 to the repetition")
        return stored

    records._table.replace = repeated  # type: ignore[method-assign]
    before = asked(workshop)
    found = await tokens_for([workshop.services], account)
    assert isinstance(found[0], str)
    assert asked(workshop) - before == 1


async def test_deleting_during_a_renewal_does_not_bring_the_credentials_back(workshop: Workshop) -> None:
    """The renewal's write finds no record to write over, and makes none."""
    account = await workshop.own()
    worker = workshop.build()
    workshop.advance(2 * 3600)
    await workshop.services.accounts.change(  # without one the deletion need not wait for a token to end it with
        account, lambda record: {name: value for name, value in record.items() if name != "subscription"}
    )
    records = worker.credentials._records
    settle, renewed = records.settle, []

    async def settles_late(key: str, claimed: Any, fresh: Any) -> bool:
        await workshop.services.onboarding.delete(account)
        await workshop.run_due()
        renewed.append(fresh)
        return await settle(key, claimed, fresh)

    records.settle = settles_late  # type: ignore[method-assign]
    (found,) = await tokens_for([worker], account)
    assert renewed
    assert isinstance(found, CredentialError)
    assert await workshop.services.tables["credentials"].get(account, "cache") is None
    await worker.close()
