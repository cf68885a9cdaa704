"""The queues over the API: pausing them, and messages that failed five times (emailengine.md 19.6)."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from local.services import Azurite
from tests.support.queues import StorageQueue
from tests.support.rest import Hooks, Rest, keys_of, unique, until
from tests.support.workshop import RITA, Workshop

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "reseal.py"
ANN = "ann@contoso.example"
Json = dict[str, Any]


def mail(subject: str) -> Json:
    return {"to": {"address": RITA}, "subject": subject, "text": "x"}


async def arrived(rest: Rest, message_id: str) -> bool:
    held = await rest.tenant.messages(RITA, "inbox")
    return any(one["internetMessageId"] == message_id for one in held)


# -- over HTTP -------------------------------------------------------------------------------------------------


async def test_each_queue_shows_the_contracts_fields(rest: Rest) -> None:
    """The contract's three names and our two; others are a validation error."""
    for queue in ("notify", "submit", "documents", "notifications", "mailboxes"):
        shown = await rest.ok("GET", f"/v1/settings/queue/{queue}")
        assert set(shown) == {"queue", "jobs", "paused", "poison"}
        assert set(shown["jobs"]) == {"active", "delayed", "paused", "waiting"}
        assert (shown["queue"], shown["paused"]) == (queue, False)
    assert keys_of(await rest.call("GET", "/v1/settings/queue/nonsense")) == {"queue"}
    assert keys_of(await rest.call("PUT", "/v1/settings/queue/nonsense", {"paused": True})) == {"queue"}
    assert keys_of(await rest.call("PUT", "/v1/settings/queue/submit", {})) == {"paused"}
    assert keys_of(await rest.call("PUT", "/v1/settings/queue/submit", {"paused": True, "x": 1})) == {"x"}
    assert keys_of(await rest.call("PUT", "/v1/settings/queue/documents", {"paused": True})) == {"paused"}
    answer = await rest.ok("PUT", "/v1/settings/queue/documents", {"paused": False})
    assert answer == {"queue": "documents", "paused": False}


async def test_only_administrators_reach_the_queues(rest: Rest) -> None:
    """A token with permissions, however many, is refused."""
    permissions = {"actions": ["read", "write", "destructive"], "groups": ["account", "webhook", "outbox"]}
    minted = await rest.ok("POST", "/v1/tokens", {"description": "d", "permissions": permissions})
    for method, path in (
        ("GET", "/v1/settings/queue/submit"), ("PUT", "/v1/settings/queue/submit"),
        ("GET", "/v1/settings/queue/submit/poison"), ("POST", "/v1/settings/queue/submit/poison/replay"),
        ("DELETE", "/v1/settings/queue/submit/poison/x"), ("GET", "/v1/settings/reseal"),
        ("POST", "/v1/settings/reseal"), ("POST", "/v1/settings/recover"),
    ):  # fmt: skip
        assert (await rest.call(method, path, token=minted["token"])).status == 403


async def test_a_mail_accepted_while_sending_is_paused_goes_out_afterwards(rest: Rest, hooks: Hooks) -> None:
    """Nothing is sent during the pause, nothing is lost by it; one mail, one messageSent."""
    account = unique("paused")
    await rest.own(account)
    paused = await rest.ok("PUT", "/v1/settings/queue/submit", {"paused": True})
    assert paused == {"queue": "submit", "paused": True}
    accepted = await rest.ok("POST", f"/v1/account/{account}/submit", mail("paused"))
    shown = await until("the mail waits", lambda: waiting(rest, "submit"))
    assert (shown["paused"], shown["jobs"]["waiting"]) == (True, 0)
    assert not await arrived(rest, accepted["messageId"])
    assert (await rest.ok("GET", f"/v1/outbox/{accepted['queueId']}"))["progress"]["status"] == "queued"
    await rest.ok("PUT", "/v1/settings/queue/submit", {"paused": False})
    await until("the mail arrived", lambda: arrived(rest, accepted["messageId"]), timeout_s=150)
    assert (await hooks.wait(account, "messageSent"))["data"]["queueId"] == accepted["queueId"]


async def waiting(rest: Rest, queue: str) -> Json | None:
    shown: Json = await rest.ok("GET", f"/v1/settings/queue/{queue}")
    return shown if shown["jobs"]["paused"] else None


async def test_a_poison_message_is_seen_and_replayed(rest: Rest, azurite: Azurite) -> None:
    """What the host put aside is moved by the timer, shown with its text, put back once, and its work is done."""
    account = unique("poison")
    await rest.own(account)
    accepted = await rest.ok("POST", f"/v1/account/{account}/submit", mail("poison"))
    await until("sent", lambda: arrived(rest, accepted["messageId"]))
    text = json.dumps({"job": {"queueId": accepted["queueId"]}})
    aside = StorageQueue(azurite.connection_string, "outbox-poison")
    aside.drain()
    aside.put(text)
    aside.put("not base64 at all!", raw=True)
    await rest.app.call("POST", "/admin/functions/watch_queues", body=b"{}")

    async def two() -> Json | None:
        shown: Json = await rest.ok("GET", "/v1/settings/queue/submit/poison")
        return shown if shown["total"] == 2 else None

    shown = await until("both are kept", two)
    assert aside.drain(raw=True) == []
    assert (await rest.ok("GET", "/v1/settings/queue/submit"))["poison"] == 2
    assert (shown["page"], shown["pages"], shown["queue"]) == (0, 1, "submit")
    kept = {one["message"]: one for one in shown["messages"]}
    assert set(kept) == {text, "not base64 at all!"}
    assert kept["not base64 at all!"]["encoding"] == "none"
    page = await rest.ok("GET", "/v1/settings/queue/submit/poison?page=1&pageSize=1")
    assert len(page["messages"]) == 1
    path = "/v1/settings/queue/submit/poison"
    assert (await rest.call("POST", f"{path}/replay", {"id": "unknown"})).status == 404
    replayed = await rest.ok("POST", f"{path}/replay", {"id": kept[text]["id"]})
    assert replayed == {"queue": "submit", "replayed": 1, "left": 1}
    other = kept["not base64 at all!"]["id"]
    assert await rest.ok("DELETE", f"{path}/{other}") == {"deleted": True}
    assert await rest.ok("DELETE", f"{path}/{other}") == {"deleted": False}
    assert (await rest.ok("POST", f"{path}/replay"))["replayed"] == 0
    await asyncio.sleep(1)
    held = await rest.tenant.messages(RITA, "inbox")
    assert len([one for one in held if one["internetMessageId"] == accepted["messageId"]]) == 1


async def test_everything_is_sealed_anew_on_demand(rest: Rest) -> None:
    """The run goes over the queue of the running app, ends, and the script shows it and is content."""
    await rest.own(unique("sealed"))
    begun = await rest.ok("POST", "/v1/settings/reseal")
    assert set(begun) == {"state", "started", "finished", "seen", "resealed", "damaged", "damagedTotal", "keys"}

    async def finished() -> Json | None:
        shown: Json = await rest.ok("GET", "/v1/settings/reseal")
        return shown if shown["state"] == "finished" else None

    shown = await until("the run ended", finished, timeout_s=60)
    assert (shown["damaged"], list(shown["keys"])) == ([], ["k1"])
    assert shown["seen"] >= 2
    status, output = await script(rest)
    assert status == 0, output
    assert "everything is under the newest key" in output


async def test_the_script_fails_on_what_is_damaged(rest: Rest) -> None:
    """It names the record and ends with an error."""
    account = unique("broken")
    await rest.own(account)
    table = rest.tables.get_table_client("credentials")
    entity = dict(table.get_entity(account, "cache"))
    table.upsert_entity(entity | {"v00": entity["v00"][:-9] + b"X" * 9})
    status, output = await script(rest)
    assert status == 1
    assert f"damaged: credentials {account}/cache" in output


async def script(rest: Rest) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), rest.app.url, rest.app.token,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return process.returncode, output.decode()


# -- with a moved clock ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", ["outbox", "mailboxes", "notifications"])
async def test_a_long_pause_multiplies_nothing(workshop: Workshop, queue: str) -> None:
    """After an hour and its sweep each waiting message is there once, recurring jobs included; then all goes on."""
    holder = await workshop.own()
    account = await workshop.delegated("support@contoso.example", holder)
    await workshop.settle()
    await workshop.services.service_settings.write({f"paused {queue}": True})
    accepted = await workshop.services.submit.accept(account, mail("x") | {"to": [{"address": RITA}]})
    message = workshop.deliver("support@contoso.example", "while paused")
    own = workshop.deliver(ANN, "while paused")
    await workshop.settle()
    for _ in range(2):
        await workshop.run_for(1800, tick_s=300)
        await workshop.timers()
    held = [job for _, name, job in workshop.queues.waiting if name == queue]
    assert len(held) <= 6
    assert (len(workshop.arrived(RITA, accepted["messageId"])) == 0) == (queue == "outbox")
    await workshop.services.service_settings.write({f"paused {queue}": None})
    await workshop.run_for(1500, tick_s=300)
    assert len(workshop.arrived(RITA, accepted["messageId"])) == 1
    assert [one["data"]["id"] for one in await workshop.events(account, "messageNew")].count(message) == 1
    assert [one["data"]["id"] for one in await workshop.events(holder, "messageNew")].count(own) == 1


async def test_moving_poison_survives_death_at_either_side_of_the_record(workshop: Workshop) -> None:
    """The message comes back and makes the same record; nothing is lost and nothing is there twice."""
    poison, queues = workshop.services.poison, workshop.services.queues
    aside = StorageQueue(workshop._storage, "mailboxes-poison")
    aside.drain(raw=True)
    aside.put(json.dumps({"job": {"account": "a", "do": "catch_up"}}))
    (message,) = await queues.take("mailboxes-poison", 10, 1)
    await poison._move("mailboxes", message)
    await poison._move("mailboxes", message)  # dead before the message was removed: it is seen again
    await poison.watch()
    assert await poison.count("mailboxes") == 1
    assert await queues.length("mailboxes-poison") == 0


async def test_two_who_replay_at_once_put_each_message_back_once(workshop: Workshop) -> None:
    """The record is claimed before its message is put back; a claim whose process died runs out."""
    poison = workshop.services.poison
    for number in range(5):
        await poison.keep("mailboxes", json.dumps({"job": {"account": str(number), "do": "none"}}), "r", str(number))
    counts = await asyncio.gather(*(poison.replay("mailboxes") for _ in range(4)))
    assert sum(counts) == 5
    assert len([one for one in workshop.queues.waiting if one[1] == "mailboxes"]) == 5
    assert await poison.count("mailboxes") == 0


async def test_poison_is_counted_in_the_log(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    """One line for each queue with the count, and nothing of what the messages say."""
    await workshop.services.poison.keep("outbox", json.dumps({"job": {"queueId": "secret-id"}}), "r", "k")
    with caplog.at_level("INFO", "graphpost.poison"):
        await workshop.services.poison.watch()
    lines = [record.getMessage() for record in caplog.records]
    assert sorted(line.split("queue=")[1] for line in lines) == [
        "mailboxes count=0", "notifications count=0", "outbox count=1", "webhooks count=0",
    ]  # fmt: skip
    assert all(line.startswith("graphpost.poison.messages ") for line in lines)
    assert "secret-id" not in caplog.text
