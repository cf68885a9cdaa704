"""The service at a glance."""

import re

from shared.service_counters import ServiceCounters
from tests.support.desk import eventually
from tests.support.rest import Hooks, Rest, keys_of, unique
from tests.support.workshop import Workshop


async def test_stats_tell_accounts_events_calls_and_queues(rest: Rest, hooks: Hooks) -> None:
    """In the contract's shape; what happened since the last look has been counted."""
    before = await rest.ok("GET", "/v1/stats")
    assert re.fullmatch(r"\d+\.\d+\.\d+", before["version"])
    assert before["accounts"] == 0
    assert set(before["connections"]) == {
        "init", "connected", "connecting", "syncing", "authenticationError", "connectError", "unset", "disconnected",
        "paused", "unassigned",
    }  # fmt: skip
    assert {"notify", "submit", "documents"} <= set(before["queues"])
    assert all(isinstance(before[name], str) for name in ("node", "redis", "arch", "build", "license"))
    await rest.own(account := unique("counted"))
    await hooks.wait(account, "accountInitialized")
    await rest.create(unique("unset"))
    assert (await rest.call("GET", "/v1/account/nobody")).status == 404

    async def grown() -> bool:
        now = await rest.ok("GET", "/v1/stats?seconds=604800")
        gained = {name: count - before["counters"].get(name, 0) for name, count in now["counters"].items()}
        return (
            (now["accounts"], now["connections"]["connected"], now["connections"]["unset"]) == (2, 1, 1)
            and gained["events:accountAdded"] >= 2
            and gained["events:accountInitialized"] >= 1
            and gained["webhooks:success"] >= 2
            and gained["apiCall:success"] >= 2
            and gained["apiCall:fail"] >= 1
        )

    await eventually(grown, "the counters to grow")
    assert (await rest.ok("GET", "/v1/stats?seconds=0"))["counters"] == {}
    for wrong in ("-1", "604801", "x"):
        assert keys_of(await rest.call("GET", f"/v1/stats?seconds={wrong}")) == {"seconds"}


async def test_counters_of_all_processes_are_added_up_and_end_with_their_time(workshop: Workshop) -> None:
    """Each writes its own at most once a minute, and loses nothing when the hour changes."""
    table, spent = workshop.services.tables["stats"], workshop.services.storage
    one, two = ServiceCounters(table, workshop.clock), ServiceCounters(table, workshop.clock)
    for _ in range(3):
        one.count("a")
        two.count("a")
    before = spent.transactions
    await one.save()
    assert spent.transactions == before
    workshop.advance(61)
    await one.save()
    await two.save()
    assert await ServiceCounters(table, workshop.clock).totals(3600) == {"a": 6}
    workshop.advance(7200)
    one.count("b")
    assert await one.totals(3600) == {"b": 1}
    assert await two.totals(86_400) == {"a": 6, "b": 1}
    workshop.advance(8 * 86_400)
    assert await one.totals(604_800) == {}
    assert await one.sweep() == 3
    assert await table.keys() == []
