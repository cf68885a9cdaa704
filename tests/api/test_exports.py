"""Exports: a file with every message of a time, once, whatever happens on the way."""

import base64
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from tests.support.application import Application
from tests.support.desk import Desk, Json, eventually
from tests.support.rest import NO_ACCOUNT, keys_of
from tests.support.tenant import Tenant
from tests.support.workshop import SUPPORT, Workshop

ALWAYS = {"startDate": "2000-01-01T00:00:00Z", "endDate": "2100-01-01T00:00:00Z"}
NOT_FOUND = {"statusCode": 404, "error": "Not Found", "message": "Export not found", "code": "ExportNotFound"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(app: Application, tenant: Tenant) -> AsyncIterator[tuple[Desk, str]]:
    """A desk with one mailbox."""
    await tenant.reset()
    desk = Desk(app, tenant)
    await desk.settings(webhooksEnabled=False)
    yield desk, await desk.own()
    await desk.close()


def lines_of(content: bytes) -> list[Json]:
    """The messages in a file."""
    return [json.loads(line) for line in gzip.decompress(content).decode().splitlines()]


async def started(shop: Workshop, account: str, **asked: Any) -> str:
    """The id of a new export; the work is not done yet."""
    status, body = await shop.call("POST", f"/v1/account/{account}/export", ALWAYS | asked)
    assert (status, body["status"]) == (200, "queued"), body
    return str(body["exportId"])


async def exported(shop: Workshop, account: str, identity: str) -> list[Json]:
    """The messages of an export that has completed."""
    return lines_of(await shop.services.exports.file(account, identity))


async def test_an_export_holds_what_the_mailbox_holds(opened: tuple[Desk, str]) -> None:
    """Over HTTP: queued, completed, fetched, removed; fields, text and attachment contents are those of the mailbox."""
    desk, account = opened
    content = base64.b64encode(b"\x00the file").decode()
    await desk.tenant.deliver(
        "carl@customer.example", ["ann@contoso.example"], "With a file", html="<p>Hi <b>Ann</b></p>",
        attachments=[{"name": "a.bin", "content_type": "application/x-a", "content_base64": content}],
    )  # fmt: skip
    path = f"/v1/account/{account}/export"
    made = await desk.ok("POST", path, ALWAYS | {"folders": "INBOX", "includeAttachments": True})
    assert set(made) == {"exportId", "status", "created"}
    one = f"{path}/{made['exportId']}"

    async def ended() -> Json | None:
        shown: Json = await desk.ok("GET", one)
        return shown if shown["status"] not in ("queued", "processing") else None

    shown = await eventually(ended, "the export")
    assert (shown["status"], shown["phase"]) == ("completed", "complete")
    assert (shown["error"], shown["truncated"]) == (None, False)
    answer = await desk.app.call("GET", f"{one}/download")
    assert answer.headers["Content-Type"] == "application/gzip"
    assert f'filename="{made["exportId"]}.ndjson.gz"' in answer.headers["Content-Disposition"]
    lines = lines_of(answer.body)
    stored = await desk.tenant.messages("ann@contoso.example", "inbox")
    assert sorted(line["messageId"] for line in lines) == sorted(mail["internetMessageId"] for mail in stored)
    assert shown["progress"]["messagesExported"] == len(lines)
    (mail,) = (line for line in lines if line["subject"] == "With a file")
    assert (mail["path"], mail["messageSpecialUse"]) == ("Inbox", "\\Inbox")
    assert "<b>Ann</b>" in mail["text"]["html"]
    assert mail["text"]["plain"] == "Hi Ann"
    assert [(file["filename"], file["content"]) for file in mail["attachments"]] == [("a.bin", content)]
    listed = await desk.ok("GET", f"/v1/account/{account}/exports")
    assert listed == {"total": 1, "page": 0, "pages": 1, "exports": [shown]}
    assert await desk.ok("DELETE", one) == {"deleted": True}
    for method, where in (("GET", one), ("GET", f"{one}/download"), ("DELETE", one)):
        assert (await desk.app.call(method, where)).body == NOT_FOUND


async def test_what_an_export_can_not_be_asked_for(opened: tuple[Desk, str]) -> None:
    """Wrong fields are named; unknown accounts and ids are 404."""
    desk, account = opened
    path = f"/v1/account/{account}/export"
    for wrong, key in [
        ({"startDate": None}, "startDate"), ({"endDate": "never"}, "endDate"), ({"endDate": "1999-01-01"}, "endDate"),
        ({"textType": "rtf"}, "textType"), ({"maxBytes": -1}, "maxBytes"),
        ({"includeAttachments": "maybe"}, "includeAttachments"),
        ({"folders": [7]}, "folders"), ({"more": 1}, "more"),
    ]:  # fmt: skip
        assert keys_of(await desk.app.call("POST", path, ALWAYS | wrong)) == {key}, wrong
    assert (await desk.app.call("POST", "/v1/account/nobody/export", ALWAYS)).body == NO_ACCOUNT
    assert (await desk.app.call("GET", "/v1/account/nobody/exports")).body == NO_ACCOUNT
    for identity in ("x", "exp_" + "0" * 24, "exp_..%2F..", "%00"):
        assert (await desk.app.call("GET", f"{path}/{identity}")).status == 404, identity


async def test_every_message_is_in_the_file_once_though_each_job_comes_twice(workshop: Workshop) -> None:
    """Several pages and two folders; every job is done twice, at once and again later; the end is told once."""
    shop = workshop
    account = await shop.application(SUPPORT)
    for number in range(45):
        shop.deliver(SUPPORT, f"mail {number}", text="x")
    filed = shop.deliver(SUPPORT, "filed", text="x")
    shop.move(SUPPORT, filed, "deleteditems")
    await shop.settle()
    put = shop.queues.put

    async def twice(name: str, job: Any, delay_s: float = 0) -> None:
        await put(name, job, delay_s)
        if job.get("do") == "export":
            await put(name, job, delay_s)
            await put(name, job, delay_s + 90)

    shop.queues.put = twice  # type: ignore[method-assign]
    identity = await started(shop, account, folders=["\\Inbox", "\\Trash", "Inbox"], textType="plain")
    await shop.run_for(300)
    shop.queues.put = put  # type: ignore[method-assign]
    subjects = [line["subject"] for line in await exported(shop, account, identity)]
    stored = [one["subject"] for name in ("inbox", "deleteditems") for one in shop.world.mail.dump(SUPPORT, name)]
    assert sorted(subjects) == sorted(stored)
    assert len(subjects) >= 46
    (event,) = await shop.events(account, "exportCompleted", "exportFailed")
    assert event["event"] == "exportCompleted"
    assert (event["data"]["exportId"], event["data"]["messagesExported"]) == (identity, len(subjects))


async def test_an_outage_and_a_death_delay_an_export_and_a_refusal_ends_it(workshop: Workshop) -> None:
    """After a failed call and a lost job the export goes on; a folder that is not there fails it, and is told."""
    shop = workshop
    account = await shop.application(SUPPORT)
    for number in range(25):
        shop.deliver(SUPPORT, f"mail {number}", text="x" * 100)
    await shop.settle()
    identity = await started(shop, account, maxBytes=10)
    shop.queues.take_due()  # the process dies with the job
    shop.advance(3600)
    await shop.timers()
    await shop.run_for(60)
    lines = await exported(shop, account, identity)
    assert len(lines) == len(shop.world.mail.dump(SUPPORT, None))
    assert all(len(line["text"].get("plain", "")) <= 10 for line in lines)
    assert any(line["text"]["hasMore"] for line in lines)
    missing = await started(shop, account, folders=["No such folder"])
    await shop.run_for(60)
    status, shown = await shop.call("GET", f"/v1/account/{account}/export/{missing}")
    assert (status, shown["status"]) == (200, "failed")
    assert "No such folder" in shown["error"]
    status, refused = await shop.call("GET", f"/v1/account/{account}/export/{missing}/download")
    assert (status, refused["code"]) == (400, "ExportNotReady")
    assert [one["event"] for one in await shop.events(account, "exportCompleted", "exportFailed")] == [
        "exportCompleted", "exportFailed",
    ]  # fmt: skip


async def test_exports_are_limited_cancelled_and_expire_and_end_with_their_account(workshop: Workshop) -> None:
    """Too many at once are 429; a cancelled one does no more work; files and records do not stay."""
    shop = workshop
    account = await shop.application(SUPPORT)
    shop.deliver(SUPPORT, "one", text="x")
    await shop.settle()
    ids = [await started(shop, account) for _ in range(3)]
    status, refused = await shop.call("POST", f"/v1/account/{account}/export", ALWAYS)
    assert (status, refused["code"]) == (429, "TooManyExports")
    assert (await shop.call("DELETE", f"/v1/account/{account}/export/{ids[0]}"))[1] == {"deleted": True}
    await shop.run_for(60)
    shown = [(await shop.call("GET", f"/v1/account/{account}/export/{one}"))[1]["status"] for one in ids]
    assert shown == ["cancelled", "completed", "completed"]
    shop.advance(25 * 3600)
    await shop.timers()
    assert (await shop.call("GET", f"/v1/account/{account}/exports"))[1]["total"] == 0
    assert not await shop.services.tables["exports"].partition(account)
    last = await started(shop, account)
    await shop.run_for(60)
    assert await exported(shop, account, last)
    await shop.services.deletion.delete(account)
    assert not await shop.services.tables["exports"].partition(account)
    assert await shop.services.blobs.get(f"exports/{last}.ndjson.gz") is None
