"""Delegation over arbitrary graphs of accounts, against a walker that is too simple to be wrong."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.delegation import resolve
from shared.errors import DelegationError

NAMES = [f"acc{number}" for number in range(30)]
ids = st.sampled_from(NAMES)
# The parent of each account that exists, and whether it has credentials. Long chains are made on purpose below.
graphs = st.dictionaries(ids, st.tuples(st.one_of(st.none(), ids), st.booleans()), min_size=1)


def record(parent: str | None, holds: bool) -> dict[str, Any]:
    auth = {"delegatedUser": "box", "delegatedAccount": parent} if parent else {"user": "u"}
    return {"oauth2": {"auth": auth}, "credentials": "sign-in" if holds else None}


def reference(start: str, graph: dict[str, tuple[str | None, bool]]) -> str:
    """The holder's id or the text of the refusal, by the words of the contract."""
    path = [start]
    while graph[path[-1]][0]:
        following = graph[path[-1]][0]
        assert following
        if following in path:
            return "Delegation looping detected"
        if len(path) == 21:
            return "Too many delegation hops"
        if following not in graph:
            return f'Missing account data for delegated account "{following}"'
        path.append(following)
    if len(path) > 1 and not graph[path[-1]][1]:
        return f'Invalid account data for delegated account "{path[-1]}"'
    return path[-1]


def walked(start: str, graph: dict[str, tuple[str | None, bool]]) -> tuple[str, int]:
    """What the real walker says, and how many look-ups it took."""
    looked_up = []

    async def find(account: str) -> dict[str, Any] | None:
        looked_up.append(account)
        return record(*graph[account]) if account in graph else None

    try:
        chain = asyncio.run(resolve(start, record(*graph[start]), find))
    except DelegationError as refused:
        return str(refused), len(looked_up)
    return chain.holder, len(looked_up)


@given(graphs, st.data())
def test_every_graph_is_resolved_as_the_contract_says(
    graph: dict[str, tuple[str | None, bool]], data: st.DataObject
) -> None:
    """Holder or text agree with the reference for any start in any graph, within twenty look-ups."""
    start = data.draw(st.sampled_from(sorted(graph)))
    said, looks = walked(start, graph)
    assert said == reference(start, graph)
    assert looks <= 20


@given(st.integers(1, 29), st.integers(0, 30), st.booleans())
def test_long_chains_and_long_loops(length: int, back_to: int, holds: bool) -> None:
    """Chains of up to 29 hops, ending at a holder or turning back anywhere, agree with the reference too."""
    graph: dict[str, tuple[str | None, bool]] = {
        NAMES[number]: (NAMES[number + 1], False) for number in range(length)
    }
    graph[NAMES[length]] = (NAMES[back_to], holds) if back_to <= length else (None, holds)
    said, looks = walked(NAMES[0], graph)
    assert said == reference(NAMES[0], graph)
    assert looks <= 20
