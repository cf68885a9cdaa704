"""Rate limits and logs of tokens over several processes, under a clock that the test moves."""

from typing import Any

import pytest

from shared.errors import ApiError
from shared.token_use import RateLimit, TokenUse
from tests.support.workshop import Workshop

ENTRY: dict[str, Any] = {"ip": None, "method": "GET", "path": "/v1/accounts", "status": "allowed", "reason": None}


def process(shop: Workshop) -> TokenUse:
    """One of several processes."""
    return TokenUse(shop.services.tables["tokenuse"], shop.clock)


async def passed(use: TokenUse, limit: RateLimit, calls: int) -> int:
    """How many of so many calls one process lets through."""
    found = 0
    for _ in range(calls):
        try:
            await use.spend(limit)
            found += 1
        except ApiError:
            continue
    return found


@pytest.mark.parametrize("most", [1, 7, 100])
async def test_a_limit_holds_over_all_processes_and_begins_anew(workshop: Workshop, most: int) -> None:
    """Never more than it says; of a large one little is left unused; the next window is a whole one."""
    one, two, limit = process(workshop), process(workshop), RateLimit("t", most, 60)
    for _ in range(3):
        total = 0
        for _ in range(most):
            total += await passed(one, limit, 1) + await passed(two, limit, 1)
        total += await passed(process(workshop), limit, 3)
        assert most - most // 20 <= total <= most
        workshop.advance(61)


async def test_a_large_limit_costs_little_and_a_refusal_nothing(workshop: Workshop) -> None:
    """Two transactions for a twentieth of it."""
    use, limit = process(workshop), RateLimit("t", 200, 60)
    await passed(use, limit, 1)
    before = workshop.services.storage.transactions
    assert await passed(use, limit, 199) == 199
    assert workshop.services.storage.transactions - before == 19 * 2
    before = workshop.services.storage.transactions
    assert await passed(use, limit, 50) == 0
    assert workshop.services.storage.transactions == before


async def test_a_window_of_a_wrong_clock_ends(workshop: Workshop) -> None:
    """One that seems to begin in the far future does not lock the token out."""
    workshop.clock.skew_s = 7200
    assert await passed(process(workshop), RateLimit("t", 1, 60), 2) == 1
    workshop.clock.skew_s = 0
    assert await passed(process(workshop), RateLimit("t", 1, 60), 2) == 1


async def test_the_log_of_a_token_is_cut_and_ends_with_it(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number, by age, and when its token is gone; the limit of a gone token lasts while others count on it."""
    monkeypatch.setattr("shared.token_use.SHOWN", 5)
    tokens, use = workshop.services.tokens, workshop.services.tokens.use
    made = (await tokens.mint({"description": "d", "scopes": ["api"]}))["id"]
    child = (await tokens.mint({"description": "c", "scopes": ["api"], "countsFor": "gone"}))["id"]
    for number in range(8):
        workshop.advance(1)
        await use.note(made, ENTRY | {"reason": str(number)})
    await use.note("stranger", ENTRY)
    await use.spend(RateLimit("gone", 5, 3600))
    assert [one["reason"] for one in await use.entries(made)] == ["7", "6", "5", "4", "3"]
    assert await tokens.sweep() == 4
    left = {partition for partition, _ in await workshop.services.tables["tokenuse"].keys()}
    assert left == {made, "gone"}
    workshop.advance(31 * 86_400)
    await use.note(made, ENTRY)
    assert await tokens.sweep() == 5
    assert len(await use.entries(made)) == 1
    await tokens.delete(child)
    await tokens.delete(made)
    await tokens.sweep()
    assert await workshop.services.tables["tokenuse"].keys() == []
