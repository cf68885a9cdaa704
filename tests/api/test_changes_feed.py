"""GET /v1/changes: what is new about accounts, in a form that ends."""

import asyncio
import json
from typing import Any

import pytest

from shared.change_feed import ChangeFeed
from tests.support.rest import Rest, keys_of, unique
from tests.support.workshop import Workshop


def parsed(text: str) -> tuple[list[dict[str, Any]], str]:
    """The events of a text of `text/event-stream`, and the last id."""
    fields = [line.partition(": ")[::2] for line in text.splitlines() if line and not line.startswith(":")]
    ids = [value for name, value in fields if name == "id"]
    return [json.loads(value) for name, value in fields if name == "data"], ids[-1]


async def test_changes_of_state_are_told_from_one_answer_to_the_next(rest: Rest) -> None:
    """Each answer ends and names where to go on, so that nothing is missed and nothing comes twice."""
    answer = await rest.app.call("GET", "/v1/changes")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    text = bytes(answer.body).decode()
    assert text.startswith(":")
    _, place = parsed(text)
    await rest.own(account := unique("fed"))
    states: list[str] = []
    for _ in range(100):
        answer = await rest.app.call("GET", "/v1/changes", headers={"Last-Event-ID": place})
        events, place = parsed(bytes(answer.body).decode())
        mine = [one for one in events if one["account"] == account]
        assert all(set(one) == {"account", "type", "key", "payload", "stateLabel"} for one in mine)
        states += [one["key"] for one in mine if one["type"] == "state"]
        if "connected" in states:
            break
    assert states == ["connecting", "connected"]


@pytest.mark.parametrize("wrong", ["x", "0" * 400, "9" * 15 + "~", "' or 1 eq 1"])
async def test_an_id_of_another_kind_begins_now(workshop: Workshop, wrong: str) -> None:
    """No error and no old news."""
    feed = ChangeFeed(workshop.services.tables["changefeed"], workshop.clock, 0)
    await feed.note({"account": "a", "state": "connected"})
    workshop.advance(60)
    events, place = parsed(await feed.wait(wrong))
    assert (events, len(place)) == ([], 15)


async def test_waiting_asks_storage_seldom_and_ends_with_the_first_news(workshop: Workshop) -> None:
    """A query every two seconds; errors are told with their cause, and old news is removed."""
    slept: list[float] = []
    table = workshop.services.tables["changefeed"]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        workshop.advance(seconds)
        if len(slept) == 3:
            await feed.note({"account": "a", "state": "connectError", "lastError": {"response": "r"}})
            workshop.advance(5)
        await asyncio.sleep(0)

    feed = ChangeFeed(table, workshop.clock, 3600, sleep)
    await table.keys()
    before = workshop.services.storage.transactions
    events, place = parsed(await feed.wait(None))
    assert slept == [2.0, 2.0, 2.0]
    assert workshop.services.storage.transactions - before <= 4 + 3
    (told,) = events
    assert (told["key"], told["payload"]) == ("connectError", {"error": {"response": "r"}})
    assert told["stateLabel"] == {"type": "danger", "name": "connectError"}
    assert parsed(await ChangeFeed(table, workshop.clock, 0).wait(place)) == ([], place)
    workshop.advance(86_500)
    assert await feed.sweep() == 1


async def test_the_feed_takes_no_fields(rest: Rest) -> None:
    """And is of the group events."""
    assert keys_of(await rest.call("GET", "/v1/changes?account=a")) == {"account"}
    permissions = {"actions": ["read"], "groups": ["account"]}
    token = (await rest.ok("POST", "/v1/tokens", {"description": "t", "permissions": permissions}))["token"]
    answer = await rest.call("GET", "/v1/changes", token=token)
    assert (answer.status, answer.body["requiredPermission"]) == (403, "events:read")
