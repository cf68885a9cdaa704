"""A storage account is lost, and what was saved of it goes on in another: scripts/backup.py on two Azurites."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from local.services import ROOT, Azurite
from shared.jobs import sweep
from tests.support.workshop import RITA, SUPPORT, Workshop

SCRIPT = ROOT / "scripts" / "backup.py"
TO = [{"address": RITA}]


@pytest.fixture
async def shop(quiet_azurite: Azurite) -> AsyncIterator[Workshop]:
    """Services whose tables bear their real names, which the script looks for."""
    made = Workshop(quiet_azurite.connection_string)
    made._suffix = ""
    yield await made.start()
    await made.stop()


@pytest.fixture
def other(service_logs: Path) -> Iterator[Azurite]:
    """An empty account in another place."""
    with Azurite(logs=service_logs / "other") as storage:
        yield storage


def backup(storage: Azurite, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The script, as an operator runs it."""
    environment = os.environ | {"AzureWebJobsStorage": storage.connection_string}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


async def move(shop: Workshop, to: Azurite) -> None:
    """The app starts over another account; what was on the old one's queues is gone."""
    old, shop.queues.waiting = shop.services, []
    shop.services = shop.build(AzureWebJobsStorage=to.connection_string)
    await old.close()


async def test_accounts_and_sign_ins_go_on_in_another_account(
    shop: Workshop, quiet_azurite: Azurite, other: Azurite, tmp_path: Path
) -> None:
    """Nobody signs in again; what was waiting is not sent on a guess, a new mail is; a full account is left alone."""
    holder = await shop.own()
    support = await shop.delegated(SUPPORT, holder)
    for account in (holder, support):
        await shop.services.access.initialise(account)
    sent = await shop.services.submit.accept(support, {"to": TO, "text": "before"})
    await shop.services.outbox.send({"queueId": sent["queueId"]})
    waiting = await shop.services.submit.accept(support, {"to": TO, "text": "x" * 400_000})

    copy = str(tmp_path / "copy")
    done = backup(quiet_azurite, "save", copy)
    assert done.returncode == 0, done.stderr
    refused = backup(quiet_azurite, "restore", copy)
    assert refused.returncode == 1
    assert "restore into an empty one" in refused.stderr
    done = backup(other, "restore", copy)
    assert done.returncode == 0, done.stderr

    await move(shop, other)
    record = await shop.record(support)
    assert (record["state"], record["account"]) == ("connected", support)
    await sweep(shop.services)
    shop.advance(3700)
    await sweep(shop.services)
    await shop.services.schedule.tick(shop.clock())
    await shop.run_due()
    assert (await shop.record(support))["state"] == "connected"
    after = await shop.services.submit.accept(support, {"to": TO, "text": "after"})
    await shop.services.outbox.send({"queueId": after["queueId"]})
    counts = [len(shop.arrived(RITA, one["messageId"])) for one in (sent, waiting, after)]
    assert counts == [1, 0, 1]

    # Asked for, it comes back whole, and is sent once.
    done = backup(other, "restore", copy, "--with-waiting-mail", "--into-used")
    assert done.returncode == 0, done.stderr
    await shop.services.outbox.send({"queueId": waiting["queueId"]})
    (arrived,) = shop.arrived(RITA, waiting["messageId"])
    assert arrived
    assert len(shop.arrived(RITA, sent["messageId"])) == 1


def test_every_table_is_either_saved_or_known_to_be_made_anew() -> None:
    """A new table of the code has to be put on one side or the other."""
    from shared.wiring import TABLES

    spec = importlib.util.spec_from_file_location("backup", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    # Made anew, or of a moment that is over: half-built drafts, sign-ins under way, places in use, counts and logs.
    left = {"counters", "trees", "pending", "nonces", "endpoints", "lanes", "drafts"}
    left |= {"tokenuse", "stats", "accountlogs", "exports"}
    saved = {*script.KEPT, *script.WAITING, *script.OPTIONAL}
    assert not saved & left
    missing = set(TABLES) - saved - left
    assert not missing, f"add to KEPT in scripts/backup.py, or to `left` here: {sorted(missing)}"


def test_values_of_every_kind_survive_the_copy() -> None:
    """Bytes, times, 64-bit numbers and plain values come back as they were."""
    from datetime import UTC, datetime

    from azure.data.tables import EdmType, EntityProperty

    spec = importlib.util.spec_from_file_location("backup", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for value in (b"\x00\xff", datetime(2026, 11, 20, tzinfo=UTC), "text", 7, True, 1.5):
        assert script.decode(script.encode(value)) == value
    big = script.decode(script.encode(EntityProperty(2**40, EdmType.INT64)))
    assert (big.value, big.edm_type) == (2**40, EdmType.INT64)
