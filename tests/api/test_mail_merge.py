"""Mail merge: one mail for each entry, each accepted by itself, none of them twice."""

import secrets
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest_asyncio
from azure.core.exceptions import ServiceRequestError

from tests.api.test_templates import SLOW, body_of, parsed
from tests.support.application import Answer, Application
from tests.support.desk import Desk, Json
from tests.support.rest import keys_of
from tests.support.tenant import Tenant
from tests.support.workshop import RITA, SUPPORT, Workshop

SALES = "sales@contoso.example"


def entry(address: str, **more: Any) -> Json:
    """One recipient."""
    return {"to": {"name": "Somebody", "address": address}, **more}


def new_key() -> str:
    """A key that nobody used."""
    return f"merge-{secrets.token_hex(6)}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(app: Application, tenant: Tenant) -> AsyncIterator[tuple[Desk, str]]:
    """A desk with one mailbox."""
    await tenant.reset()
    desk = Desk(app, tenant)
    await desk.settings(webhooksEnabled=False)
    yield desk, await desk.own()
    await desk.close()


async def merge(desk: Desk, account: str, key: str, entries: list[Json], **fields: Any) -> Answer:
    """One merge with a key."""
    body = {"text": "Hi {{params.n}}", "mailMerge": entries, **fields}
    return await desk.app.call("POST", f"/v1/account/{account}/submit", body, {"Idempotency-Key": key} if key else {})


async def test_each_recipient_gets_his_own_mail(opened: tuple[Desk, str]) -> None:
    """Filled from his values, addressed to him alone, with the message id and the time of his entry."""
    desk, account = opened
    named = f"<{secrets.token_hex(8)}@contoso.example>"
    later = "2099-01-01T00:00:00.000Z"
    entries = [
        entry(RITA, params={"n": "Rita & Co"}, messageId=named),
        entry(SUPPORT, params={"n": "Support"}),
        entry(SALES, sendAt=later),
    ]
    answer = await merge(desk, account, "", entries, subject="For {{params.n}}", html="<i>{{params.n}}</i>")
    assert set(answer.body) == {"mailMerge"}
    first, second, third = answer.body["mailMerge"]
    for one, given in zip(answer.body["mailMerge"], entries, strict=True):
        assert set(one) == {"success", "to", "messageId", "queueId", "sendAt"}
        assert (one["success"], one["to"]) == (True, given["to"])
    assert (first["messageId"], third["sendAt"]) == (named, later)
    rita, support = await desk.mail(RITA, named), await desk.mail(SUPPORT, second["messageId"])
    assert (rita["subject"], body_of(rita, "html")) == ("For Rita & Co", "<i>Rita &amp; Co</i>")
    assert (support["subject"], body_of(support, "plain")) == ("For Support", "Hi Support")
    assert [one["emailAddress"]["address"] for one in rita["toRecipients"]] == [RITA]
    assert (await desk.ok("DELETE", f"/v1/outbox/{third['queueId']}"))["deleted"] is True


async def test_an_entry_that_fails_keeps_no_other_from_going(opened: tuple[Desk, str]) -> None:
    """The whole call is 200; the entry says what was wrong, and a repeat with the same key answers the same."""
    desk, account = opened
    text = f"{{{{lookup params.list 0}}}}{SLOW}"
    template = {"account": account, "name": "n", "content": {"text": text}}
    identity = (await desk.ok("POST", "/v1/templates/template", template))["id"]
    entries = [
        entry(RITA, params={"list": ["ok"]}), entry(RITA, params={"x": [0] * 2000}), entry(RITA, messageId="not one"),
    ]  # fmt: skip
    key = new_key()
    answer = await merge(desk, account, key, entries, template=identity, text=None)
    good, slow, wrong = answer.body["mailMerge"]
    assert (answer.status, answer.body["idempotency"]) == (200, {"key": key, "status": "MISS"})
    assert slow == {
        "success": False, "to": entries[1]["to"], "error": "Failed rendering text template", "code": "SubmitFail",
        "statusCode": 422,
    }  # fmt: skip
    assert (wrong["success"], wrong["statusCode"], wrong["code"]) == (False, 400, "SubmitFail")
    assert "messageId" in wrong["error"]
    assert body_of(await desk.mail(RITA, good["messageId"]), "plain") == "ok"
    await desk.ok("DELETE", f"/v1/templates/{identity}")
    again = await merge(desk, account, key, entries, template=identity, text=None)
    assert again.body["mailMerge"] == answer.body["mailMerge"]
    assert again.body["idempotency"] == {"key": key, "status": "HIT", "payloadMatches": True}
    other = await merge(desk, account, key, entries[:1])
    assert other.body["mailMerge"] == answer.body["mailMerge"]
    assert other.body["idempotency"]["payloadMatches"] is False
    assert len(await desk.copies(RITA, good["messageId"], None)) == 1


async def test_what_a_merge_can_not_have_is_refused_by_name(opened: tuple[Desk, str]) -> None:
    """Recipients, MIME and rendering belong into the entries; the number of these is limited."""
    desk, account = opened
    for wrong, key in [
        ({"to": [entry(RITA)["to"]]}, "to"), ({"cc": [entry(RITA)["to"]]}, "cc"), ({"bcc": [entry(RITA)["to"]]}, "bcc"),
        ({"envelope": {"to": [RITA]}}, "envelope"), ({"render": {"params": {}}}, "render"),
        ({"messageId": "<a@b>"}, "messageId"),
        ({"mailMerge": []}, "mailMerge"), ({"mailMerge": [entry(RITA)] * 1001}, "mailMerge"),
        ({"mailMerge": [{"params": {}}]}, "to"), ({"mailMerge": [entry("nobody")]}, "address"),
        ({"mailMerge": [entry(RITA, params=7)]}, "params"), ({"mailMerge": [entry(RITA, cc=[])]}, "cc"),
        ({"listId": "not a host!"}, "listId"),
    ]:  # fmt: skip
        answer = await merge(desk, account, "", [entry(RITA)], **wrong)
        assert keys_of(answer) == {key}, wrong
    unknown = await merge(desk, account, "", [entry(RITA)], template="AAABlKx3tQAAAAAH")
    assert (unknown.status, unknown.body["code"]) == (404, "TemplateNotFound")


async def test_a_repeat_of_a_call_that_died_half_way_sends_only_what_is_missing(workshop: Workshop) -> None:
    """The storage is gone for one entry: the answer says so, and the repeat, in another process, accepts it alone."""
    shop = workshop
    account = await shop.application(SUPPORT)
    fields = {"text": "Hi {{params.n}}", "mailMerge": [entry(RITA, params={"n": str(n)}) for n in range(6)]}
    outbox = shop.services.outbox
    insert, calls = outbox.add, 0

    async def failing(*given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ServiceRequestError("gone")
        return await insert(*given, **more)

    outbox.add = failing  # type: ignore[method-assign]
    first = await shop.services.mail_merge.accept(account, fields, key="k")
    outbox.add = insert  # type: ignore[method-assign]
    failed = [one for one in first["mailMerge"] if not one["success"]]
    assert [(one["code"], one["statusCode"]) for one in failed] == [("StorageUnavailable", 503)]
    other = shop.build()
    second = await other.mail_merge.accept(account, fields, key="k")
    third = await other.mail_merge.accept(account, fields, key="k")
    await other.close()
    assert all(one["success"] for one in second["mailMerge"])
    assert third["mailMerge"] == second["mailMerge"]
    assert third["idempotency"]["status"] == "HIT"
    for before, after in zip(first["mailMerge"], second["mailMerge"], strict=True):
        assert not before["success"] or before == after
    await shop.run_due()
    for number, one in enumerate(second["mailMerge"]):
        (mail,) = shop.arrived(RITA, one["messageId"])
        assert mail["body"]["content"].strip() == f"Hi {number}"


async def test_who_left_a_list_gets_no_mail_of_it_and_the_others_a_way_off(workshop: Workshop) -> None:
    """The entry says it was skipped; the other mail has the headers and the link that its template asks for."""
    shop = workshop
    account = await shop.application(SUPPORT)
    fields = {
        "listId": "news", "text": "Off: {{{rcpt.unsubscribeUrl}}} {{rcpt.address}}",
        "mailMerge": [entry(SALES), entry(RITA)], "baseUrl": "https://mail.contoso.example",
    }  # fmt: skip
    assert await shop.services.blocklists.add("news", SALES, account=account)
    _, answer = await shop.call("POST", f"/v1/account/{account}/submit", fields)
    skipped, sent = answer["mailMerge"]
    assert (skipped["success"], skipped["to"]) == (True, entry(SALES)["to"])
    assert skipped["skipped"] == {"reason": "unsubscribe", "listId": "news"}
    await shop.run_due()
    (mail,) = shop.arrived(RITA, sent["messageId"])
    _, link, address = body_of(mail, "plain").split(" ")
    assert link.startswith("https://mail.contoso.example/unsubscribe?data=")
    assert address == RITA
    asked = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
    about = await shop.services.unsubscribing.asked(asked["data"], asked["sig"])
    assert (about["list"], about["rcpt"], about["msg"]) == ("news", RITA, sent["messageId"])
    headers = parsed(mail)
    assert headers["List-ID"] == "<news.mail.contoso.example>"
    assert "".join(headers["List-Unsubscribe"].split()) == f"<{link}>"
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert not shop.world.mail.dump(SALES, "inbox")
