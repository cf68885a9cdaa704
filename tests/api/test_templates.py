"""Stored templates, and mails that are filled from them or from their own fields."""

import base64
import secrets
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from typing import Any

import pytest
import pytest_asyncio

from tests.support.application import Application
from tests.support.desk import Desk, Json
from tests.support.rest import NO_ACCOUNT, keys_of, segment
from tests.support.tenant import Tenant
from tests.support.workshop import RITA

TO = [{"name": "Rita", "address": RITA}]
UNKNOWN = {"statusCode": 404, "error": "Not Found", "message": "Document was not found", "code": "NotFound"}
CONTENT = {
    "subject": "Order {{params.number}} for {{{params.name}}}",
    "text": "Dear {{params.name}},\n{{#each params.items}}\n- {{this}}\n{{/each}}\nYours, {{account.name}}",
    "html": "<p>Dear {{params.name}}, see {{service.url}}</p>",
    "previewText": "For {{params.name}}",
}

SLOW = "{{#each params.x}}{{#each ../params.x}}{{#each ../../params.x}}{{/each}}{{/each}}{{/each}}"
BORROWED = {"auth": {"delegatedUser": "x@contoso.example", "delegatedAccount": "none"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(app: Application, tenant: Tenant) -> AsyncIterator[tuple[Desk, str]]:
    """A desk with one mailbox."""
    await tenant.reset()
    desk = Desk(app, tenant)
    await desk.settings(webhooksEnabled=False, serviceUrl=None)
    yield desk, await desk.own(label="Ann's Shop")
    await desk.close()


async def made(desk: Desk, account: str | None, **fields: Any) -> str:
    """The id of a new template."""
    body = {"account": account, "name": "A name", "content": CONTENT, **fields}
    answer = await desk.ok("POST", "/v1/templates/template", body)
    assert answer == {"created": True, "account": account, "id": answer["id"]}
    return str(answer["id"])


async def bound_token(desk: Desk, account: str) -> str:
    """A token that is bound to an account."""
    return str((await desk.ok("POST", "/v1/tokens", {"account": account, "description": "x"}))["token"])


def parsed(mail: Json) -> Any:
    """The MIME that really arrived."""
    return message_from_bytes(base64.b64decode(mail["_raw"]), policy=policy.default)


def body_of(mail: Json, kind: str) -> str:
    """The text or html of a mail, with the line ends of Python."""
    return str(parsed(mail).get_body((kind,)).get_content()).replace("\r\n", "\n").rstrip("\n")


async def test_a_template_is_made_shown_changed_and_removed(opened: tuple[Desk, str]) -> None:
    """What is not given stays, content is replaced as a whole, and afterwards it is unknown."""
    desk, account = opened
    identity = await made(desk, account, description="about", format="markdown")
    path = f"/v1/templates/template/{identity}"
    shown = await desk.ok("GET", path)
    assert shown.pop("created") == shown.pop("updated")
    assert shown == {
        "account": account, "id": identity, "name": "A name", "description": "about", "format": "markdown",
        "content": CONTENT,
    }  # fmt: skip
    assert await desk.ok("PUT", path, {"name": "Other"}) == {"updated": True, "account": account, "id": identity}
    assert await desk.ok("PUT", path, {"content": {"text": "only"}, "description": ""})
    shown = await desk.ok("GET", path)
    assert (shown["name"], shown["description"], shown["format"]) == ("Other", None, "markdown")
    assert shown["content"] == {"text": "only"}
    assert shown["updated"] > shown["created"]
    assert await desk.ok("DELETE", path) == {"deleted": True, "account": account, "id": identity}
    assert await desk.ok("DELETE", path) == {"deleted": False, "account": None, "id": identity}
    assert (await desk.app.call("GET", path)).body == UNKNOWN
    assert (await desk.app.call("PUT", path, {"name": "x"})).body == UNKNOWN


async def test_large_content_is_kept_and_replaced_whole(opened: tuple[Desk, str]) -> None:
    """Megabytes that no table entity holds come back as they were, also after a change to something small and back."""
    desk, account = opened
    large = {"html": "<p>" + secrets.token_hex(700_000) + "ä</p>", "text": "x"}
    identity = await made(desk, account, content=large)
    path = f"/v1/templates/template/{identity}"
    assert (await desk.ok("GET", path))["content"] == large
    await desk.ok("PUT", path, {"content": {"text": "small"}})
    assert (await desk.ok("GET", path))["content"] == {"text": "small"}
    await desk.ok("PUT", path, {"content": large})
    assert (await desk.ok("GET", path))["content"] == large
    assert (await desk.ok("DELETE", path))["deleted"] is True


async def test_lists_hold_an_accounts_or_the_shared_templates_newest_first(opened: tuple[Desk, str]) -> None:
    """Pages without content; an unknown account is 404; flushing asks for force and takes only the account's."""
    desk, account = opened
    await desk.ok("DELETE", f"/v1/templates/account/{account}?force=true")
    common = await made(desk, None, name="Common")
    ids = [await made(desk, account, name=f"number {n}") for n in range(3)]
    first = await desk.ok("GET", f"/v1/templates?account={account}&pageSize=2")
    assert (first["account"], first["total"], first["page"], first["pages"]) == (account, 3, 0, 2)
    assert [one["id"] for one in first["templates"]] == [ids[2], ids[1]]
    assert set(first["templates"][0]) == {"id", "name", "description", "format", "created", "updated"}
    shared = await desk.ok("GET", "/v1/templates?pageSize=1000")
    assert shared["account"] is None
    assert common in [one["id"] for one in shared["templates"]]
    assert not set(ids) & {one["id"] for one in shared["templates"]}
    assert (await desk.app.call("GET", "/v1/templates?account=nobody")).body == NO_ACCOUNT
    refused = await desk.app.call("DELETE", f"/v1/templates/account/{account}")
    assert (refused.status, refused.body["code"]) == (400, "ForceRequired")
    flushed = await desk.ok("DELETE", f"/v1/templates/account/{account}?force=true")
    assert flushed == {"flushed": True, "account": account}
    assert (await desk.ok("GET", f"/v1/templates?account={account}"))["total"] == 0
    assert (await desk.ok("GET", f"/v1/templates/template/{common}"))["name"] == "Common"
    assert (await desk.app.call("DELETE", "/v1/templates/account/nobody?force=true")).status == 404
    await desk.ok("DELETE", f"/v1/templates/{common}")


async def test_the_short_paths_do_the_same(opened: tuple[Desk, str]) -> None:
    """GET, PUT, POST and DELETE /v1/templates/{id}."""
    desk, account = opened
    identity = await made(desk, account)
    await desk.ok("PUT", f"/v1/templates/{identity}", {"name": "put"})
    assert (await desk.ok("GET", f"/v1/templates/{identity}"))["name"] == "put"
    await desk.ok("POST", f"/v1/templates/{identity}", {"name": "posted"})
    assert (await desk.ok("GET", f"/v1/templates/{identity}"))["name"] == "posted"
    assert (await desk.ok("DELETE", f"/v1/templates/{identity}"))["deleted"] is True


async def test_a_bound_token_reaches_the_templates_of_its_account_alone(opened: tuple[Desk, str]) -> None:
    """Making one needs no account; others', shared and unknown ones are refused; the list wants the account named."""
    desk, account = opened
    other = await desk.add("other", BORROWED, wait=False)
    strange, common = await made(desk, other), await made(desk, None)
    token = await bound_token(desk, account)

    async def call(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = await desk.app.call(method, path, body, token=token)
        return answer.status, answer.body

    status, answer = await call("POST", "/v1/templates/template", {"name": "mine", "content": CONTENT})
    assert (status, answer["account"]) == (200, account)
    own = answer["id"]
    status, answer = await call("POST", "/v1/templates/template", {"account": other, "name": "n", "content": {}})
    assert (status, answer["account"]) == (200, account)
    assert (await call("GET", f"/v1/templates/template/{own}"))[0] == 200
    assert (await call("PUT", f"/v1/templates/{own}", {"name": "n"}))[0] == 200
    assert (await call("GET", f"/v1/templates?account={account}"))[0] == 200
    for path in (
        "/v1/templates", f"/v1/templates?account={other}", f"/v1/templates/template/{strange}", "/v1/templates/x",
        f"/v1/templates/template/{common}", f"/v1/templates/{own}x",
    ):  # fmt: skip
        assert await call("GET", path) == (
            403, {"statusCode": 403, "error": "Forbidden", "message": "Unauthorized account"}
        ), path  # fmt: skip
    assert (await call("DELETE", f"/v1/templates/account/{other}?force=true"))[0] == 403
    assert (await call("DELETE", f"/v1/templates/template/{own}"))[1]["deleted"] is True
    await desk.ok("DELETE", f"/v1/templates/template/{common}")


async def test_templates_end_with_their_account(opened: tuple[Desk, str]) -> None:
    """Also one with an id too long for its templates' ids; an account made again under the id has none."""
    desk, _ = opened
    for account in (f"brief-{secrets.token_hex(4)}", f"{'ä/' * 110}{secrets.token_hex(4)}"):
        body = {"account": account, "name": "x"}
        await desk.ok("POST", "/v1/account", body)
        identity = await made(desk, account)
        assert len(identity) <= 256
        assert (await desk.ok("GET", f"/v1/templates/template/{identity}"))["account"] == account
        await desk.ok("DELETE", f"/v1/account/{segment(account)}")
        await desk.ok("POST", "/v1/account", body)
        assert (await desk.app.call("GET", f"/v1/templates/template/{identity}")).status == 404
        assert (await desk.ok("GET", f"/v1/templates?account={segment(account)}"))["total"] == 0
        await desk.ok("DELETE", f"/v1/account/{segment(account)}")


async def test_bad_input_names_its_field(opened: tuple[Desk, str]) -> None:
    """Every field's limits, on templates and on what fills them."""
    desk, account = opened
    good = {"account": account, "name": "n", "content": {}}
    deep: Any = []
    for _ in range(60):
        deep = [deep]
    for wrong, key in [
        ({"name": "x" * 257}, "name"), ({"name": ""}, "name"), ({"format": "mjml"}, "format"),
        ({"content": "x"}, "content"),
        ({"content": {"subject": "x" * 10241}}, "subject"), ({"content": {"body": "x"}}, "body"), ({"more": 1}, "more"),
        ({"description": "x" * 1025}, "description"), ({"content": {"html": "\ud800"}}, "html"),
        ({"account": 7}, "account"),
    ]:  # fmt: skip
        assert keys_of(await desk.app.call("POST", "/v1/templates/template", good | wrong)) == {key}, wrong
    assert keys_of(await desk.app.call("POST", "/v1/templates/template", {"name": "n", "content": {}})) == {"account"}
    for wrong, key in [
        ({"render": {"params": {"a": "\ud800"}}}, "a"), ({"render": {"params": {"a": deep}}}, "params"),
        ({"render": {"params": "x"}}, "params"), ({"render": {"format": "x"}}, "format"), ({"render": 7}, "render"),
        ({"template": 7}, "template"), ({"listId": "news.example"}, "listId"), ({"render": {"x": 1}}, "x"),
    ]:  # fmt: skip
        assert keys_of(await desk.submit(account, to=TO, text="x", **wrong)) == {key}, wrong
    for path in ("x", "%00", "AAAA", "..%2F..", "%F0%9F%92%A9", "AAAAAAAAAAAAAAAA_____w"):
        assert (await desk.app.call("GET", f"/v1/templates/template/{path}")).status == 404, path


# -- mails ---------------------------------------------------------------------------------------------------------


async def test_a_template_fills_every_part_of_a_mail(opened: tuple[Desk, str]) -> None:
    """Its content counts more than the request's; HTML is escaped, subject and text are not."""
    desk, account = opened
    identity = await made(desk, account)
    params = {"number": 17, "name": "Ann & <Bob>", "items": ["tea", "<salt>"]}
    answer = await desk.accepted(
        account, to=TO, subject="not this", template=identity, render={"params": params, "format": "markdown"}
    )
    mail = await desk.mail(RITA, answer["messageId"])
    assert mail["subject"] == "Order 17 for Ann & <Bob>"
    assert body_of(mail, "plain") == "Dear Ann & <Bob>,\n- tea\n- <salt>\nYours, Ann's Shop"
    html = body_of(mail, "html")
    assert f"<p>Dear Ann &amp; &lt;Bob&gt;, see {desk.app.url}</p>" in html
    assert ">For Ann &amp; &lt;Bob&gt;</div>" in html
    await desk.ok("DELETE", f"/v1/templates/{identity}")


async def test_the_requests_own_fields_are_filled_only_when_asked(opened: tuple[Desk, str]) -> None:
    """With `render`, not without it or with false; markdown becomes HTML with values escaped; a subject is one line."""
    desk, account = opened
    params = {"x": "<b>*y*</b>", "lines": "\r\nBcc: e@contoso.example\r\n", "bad": "javascript:x"}
    plain = await desk.accepted(account, to=TO, subject="{{x}}", text="{{params.x}}")
    off = await desk.accepted(account, to=TO, subject="{{x", text="{{params.x}}", render=False)
    on = await desk.accepted(
        account, to=TO, subject="A{{params.lines}}B", html="# Hi *{{params.x}}*\n\n[link]({{params.bad}})",
        render={"format": "markdown", "params": params},
    )  # fmt: skip
    for answer in (plain, off):
        assert body_of(await desk.mail(RITA, answer["messageId"]), "plain") == "{{params.x}}"
    mail = await desk.mail(RITA, on["messageId"])
    assert mail["subject"] == "A Bcc: e@contoso.example B"
    html = body_of(mail, "html")
    assert "<h1>Hi <em>&lt;b&gt;" in html
    assert "<b>" not in html
    assert "href" not in html


async def test_a_shared_template_serves_every_account_and_anothers_none(opened: tuple[Desk, str]) -> None:
    """A template of another account is as unknown as one that was never made; `render: false` takes it as it is."""
    desk, account = opened
    other = await desk.add("owner", BORROWED, wait=False)
    common, strange = await made(desk, None, content={"text": "{{params.a}}!"}), await made(desk, other)
    filled = await desk.accepted(account, to=TO, template=common, render={"params": {"a": "yes"}})
    raw = await desk.accepted(account, to=TO, template=common, render=False)
    assert body_of(await desk.mail(RITA, filled["messageId"]), "plain") == "yes!"
    assert body_of(await desk.mail(RITA, raw["messageId"]), "plain") == "{{params.a}}!"
    for wrong in (strange, "AAABlKx3tQAAAAAH", "%s\u0000/.."):
        answer = await desk.submit(account, to=TO, template=wrong)
        assert (answer.status, answer.body["code"]) == (404, "TemplateNotFound")
        assert answer.body["message"] == f"Requested template was not found [{wrong}]"
    await desk.ok("DELETE", f"/v1/templates/{common}")


@pytest.mark.parametrize("part", ["subject", "text", "html", "previewText"])
async def test_a_template_that_can_not_be_filled_is_named(opened: tuple[Desk, str], part: str) -> None:
    """422 with the part's name and the reason; nothing is queued."""
    desk, account = opened
    for wrong in ("{{#if}}", "{{> partial}}", "{{unknown params}}", SLOW):
        fields = {"html": "x", part: wrong, "render": {"params": {"x": [0] * 2000}}}
        answer = await desk.submit(account, to=TO, **fields)
        assert (answer.status, answer.body["message"]) == (422, f"Failed rendering {part} template")
        assert answer.body["info"]["response"]
