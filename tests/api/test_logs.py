"""Log lines of single accounts."""

import json

from shared.jobs import sweep
from tests.support.desk import eventually
from tests.support.rest import Rest, segment, unique
from tests.support.workshop import Workshop


async def lines(rest: Rest, account: str) -> str:
    """The account's log as text."""
    answer = await rest.app.call("GET", f"/v1/logs/{segment(account)}")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    return bytes(answer.body).decode()


async def test_an_account_that_asks_for_it_has_log_lines(rest: Rest) -> None:
    """What was called and what came of it; no token, no address, no query; gone with the account."""
    account, silent = unique("logged / ü"), unique("silent")
    await rest.own(account, logs=True)
    await rest.create(silent)

    async def written() -> str:
        text = await lines(rest, account)
        return text if '"graph call"' in text and '"connected"' in text else ""

    text = await eventually(written, "log lines")
    found = [json.loads(line) for line in text.splitlines()]
    assert [one["time"] for one in found] == sorted(one["time"] for one in found)
    assert {"event", "state", "graph call"} <= {one["msg"] for one in found}
    calls = [one for one in found if one["msg"] == "graph call"]
    assert {one["status"] for one in calls} >= {200}
    assert any(one["path"].startswith("/mailFolders") for one in calls)
    assert "?" not in "".join(one["path"] for one in calls)
    assert "ann@contoso.example" not in text
    assert "eyJ" not in text
    assert await lines(rest, silent) == f"No logs found for {silent}"
    assert await lines(rest, "nobody") == "No logs found for nobody"
    bound = await rest.ok("POST", "/v1/tokens", {"account": silent, "description": "b"})
    refused = await rest.call("GET", f"/v1/logs/{segment(account)}", token=bound["token"])
    assert (refused.status, refused.body["message"]) == (403, "Unauthorized account")
    await rest.ok("DELETE", f"/v1/account/{segment(account)}")
    assert await lines(rest, account) == f"No logs found for {account}"


async def test_only_the_newest_lines_are_kept(workshop: Workshop) -> None:
    """As many as the setting says, for a month, and none of an account that is gone."""
    services = workshop.services
    account = await workshop.own(logs=True)
    for number in range(30):
        services.account_logs.add(account, f"number {number}", body="x" * 5000)
        await services.account_logs.save()
    assert all(len(line) <= 700 for line in await services.account_logs.lines(account))
    await services.service_settings.write({"logs": {"all": False, "maxLogLines": 10}})
    newest = await services.account_logs.lines(account)
    assert [json.loads(line)["msg"] for line in newest] == [f"number {number}" for number in range(20, 30)]
    await sweep(services)
    assert len(await services.tables["accountlogs"].keys()) == 10
    await services.accounts.remove(await services.accounts.begin_deletion(account))
    assert await services.account_logs.sweep(services.accounts.known) == 10


async def test_an_account_without_logs_costs_nothing(workshop: Workshop) -> None:
    """Not even memory, until it asks or the setting asks for all."""
    account = await workshop.own()
    workshop.services.account_logs.add(account, "unwanted")
    before = workshop.services.storage.transactions
    await workshop.services.account_logs.save()
    assert workshop.services.storage.transactions == before
    await workshop.services.service_settings.write({"logs": {"all": True, "maxLogLines": 100}})
    await workshop.services.accounts.find(account)
    workshop.services.account_logs.add(account, "wanted")
    await workshop.services.account_logs.save()
    assert "wanted" in (await workshop.services.account_logs.lines(account))[-1]
