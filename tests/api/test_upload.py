"""Mails stored in a folder over HTTP, judged by what the tenant's mailbox holds."""

import base64
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any

import pytest
import pytest_asyncio

from tests.support.application import Application
from tests.support.desk import Json, eventually
from tests.support.mailbox_desk import SUPPORT, UNKNOWN, MailboxDesk
from tests.support.tenant import Tenant

RITA, CARL = "rita@contoso.example", "carl@customer.example"
MIB = 1024 * 1024


class Office(MailboxDesk):
    """The shared mailbox, and the mailbox of the person who reaches it."""

    own_account: str

    async def stored(self, **fields: Any) -> tuple[Json, Json]:
        """The answer to an upload, and the message as the tenant has it."""
        body = {"path": "INBOX", "subject": "Stored", "text": "text"} | {k.rstrip("_"): v for k, v in fields.items()}
        answer = await self.done("POST", "/message", {k: v for k, v in body.items() if v is not None})
        held = await self.held(answer["id"])
        assert held is not None
        assert answer["messageId"] == held["internetMessageId"]
        return answer, held

    async def count(self) -> int:
        """How many messages the mailbox holds."""
        return len(await self.tenant.messages(SUPPORT))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(app: Application, tenant: Tenant) -> AsyncIterator[Office]:
    office = Office(app, tenant)
    await office.opened()
    office.own_account = await office.own()
    yield office
    await office.close()
    await tenant.reset()


@pytest_asyncio.fixture
async def office(opened: Office) -> AsyncIterator[Office]:
    """The accounts, and a tenant without faults."""
    yield opened
    await opened.tenant.clear_faults()


def mime(**headers: str) -> EmailMessage:
    """A mail of both texts, a picture in the HTML and an invitation."""
    mail = EmailMessage()
    mail["From"], mail["To"] = '"Carl, of Customer" <carl@customer.example>', f"Support <{SUPPORT}>, {RITA}"
    mail["Subject"], mail["Message-ID"] = "Grüße", "<past@customer.example>"
    for name, value in headers.items():
        mail[name.replace("_", "-")] = value
    mail.set_content("plain\n")
    mail.add_alternative("<p>rich <img src='cid:logo'></p>", subtype="html")
    mail.get_payload()[1].add_related(b"PNG", "image", "png", cid="<logo>", filename="logo.png")
    mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="März.pdf")
    return mail


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


async def test_a_message_of_the_past_is_stored_as_if_it_had_arrived(office: Office) -> None:
    """Not a draft, unread, received then, with its own id, people, headers and files; one call creates it."""
    made = await office.done("POST", "/mailbox", {"path": "Old"})
    await office.tenant.clear_log()
    answer, held = await office.stored(
        path=["Old"], internalDate="2020-02-03T04:05:06.000Z", messageId="old@customer.example", html="<p>Hi</p>",
        from_={"name": "Carl", "address": CARL}, to={"address": SUPPORT}, cc=[{"address": RITA, "name": "Rita"}],
        headers={"X-Case": "17", "In-Reply-To": "<a@b>", "References": "<a@b> <c@d>"},
        attachments=[{"filename": "a.txt", "content": encoded(b"file"), "contentType": "text/plain"}],
    )  # fmt: skip
    assert answer == {"id": held["id"], "path": "Old", "messageId": "<old@customer.example>"}
    assert held["parentFolderId"] == made["mailboxId"]
    assert (held["isDraft"], held["isRead"], held["receivedDateTime"]) == (False, False, "2020-02-03T04:05:06Z")
    assert (held["from"], held["sender"]) == (held["from"], held["from"])
    assert held["from"]["emailAddress"] == {"name": "Carl", "address": CARL}
    assert [one["emailAddress"]["address"] for one in held["toRecipients"] + held["ccRecipients"]] == [SUPPORT, RITA]
    assert held["body"] == {"contentType": "html", "content": "<p>Hi</p>"}
    assert {"name": "X-Case", "value": "17"} in held["internetMessageHeaders"]
    properties = {one["id"]: one["value"] for one in held["singleValueExtendedProperties"]}
    assert (properties["String 0x1042"], properties["String 0x1039"]) == ("<a@b>", "<a@b> <c@d>")
    assert [base64.b64decode(one["contentBytes"]) for one in held["attachments"]] == [b"file"]
    assert await office.asked("POST", "/messages$") == 1


async def test_flags_make_drafts_and_marks(office: Office) -> None:
    """A draft is one with `\\Draft` only; seen and flagged as asked; without a Message-ID there is one all the same."""
    _, plain = await office.stored()
    assert (plain["isDraft"], plain["isRead"], plain["flag"]["flagStatus"]) == (False, False, "notFlagged")
    assert plain["internetMessageId"].endswith("@contoso.example>")
    _, seen = await office.stored(flags=["\\Seen", "\\flagged", "\\Answered"])
    assert (seen["isDraft"], seen["isRead"], seen["flag"]["flagStatus"]) == (False, True, "flagged")
    answer, draft = await office.stored(path="\\Drafts", flags="\\Draft", to=[{"address": RITA}])
    assert (answer["path"], draft["isDraft"], draft["isRead"]) == ("Drafts", True, False)
    assert "from" not in draft
    sent = await office.done("POST", f"/message/{answer['id']}/submit")
    assert sent["messageId"] == answer["messageId"]
    mail = await office.mail(RITA, sent["messageId"], timeout_s=120)
    assert mail["from"]["emailAddress"]["address"] == SUPPORT

    async def filed() -> bool:
        copy = await office.held(answer["id"], "sentitems")
        return bool(copy and not copy["isDraft"])

    await eventually(filed, "the sent copy", 120)


async def test_raw_mime_becomes_a_message_with_what_it_says(office: Office) -> None:
    """Texts, inline picture, files with odd names, people with commas in their names, and the header it came with."""
    raw = mime(Received="from a by b; Mon, 1 Jan 2024 00:00:00 +0000", List_Id="<x.example>").as_bytes()
    answer, held = await office.stored(raw=encoded(raw), subject=None, text=None, flags=["\\Seen"])
    assert answer["messageId"] == "<past@customer.example>"
    assert (held["isDraft"], held["isRead"], held["subject"]) == (False, True, "Grüße")
    assert held["from"]["emailAddress"] == {"name": "Carl, of Customer", "address": CARL}
    assert [one["emailAddress"]["name"] for one in held["toRecipients"]] == ["Support", RITA]
    assert held["body"]["contentType"] == "html"
    shown = {one["name"]: one for one in held["attachments"]}
    assert (shown["logo.png"]["isInline"], shown["logo.png"]["contentId"]) == (True, "logo")
    assert base64.b64decode(shown["März.pdf"]["contentBytes"]) == b"%PDF"
    assert {"name": "List-Id", "value": "<x.example>"} in held["internetMessageHeaders"]


async def test_a_raw_draft_stays_byte_for_byte(office: Office) -> None:
    """Both texts and every header survive; flags come after; a subject beside it replaces its own."""
    raw = mime(List_Unsubscribe="<https://x.example>").as_bytes().replace(b"\n", b"\r\n")
    _, held = await office.stored(path="\\Drafts", raw=encoded(raw), subject=None, text=None, flags=["\\Draft"])
    assert base64.b64decode(held["_raw"]) == raw
    assert (held["isDraft"], held["isRead"]) == (True, False)
    _, marked = await office.stored(raw=encoded(raw), subject=None, text=None, flags=["\\Draft", "\\Seen", "\\Flagged"])
    assert (marked["isRead"], marked["flag"]["flagStatus"]) == (True, "flagged")
    _, other = await office.stored(raw=encoded(raw), subject="Mine", text=None, flags=["\\Draft"])
    assert (other["subject"], "_raw" in other) == ("Mine", False)


async def test_an_answer_is_prepared_as_a_draft(office: Office) -> None:
    """Recipients, subject and threading come from the message it refers to; a missing one is a 404, or is told."""
    original = await office.arrived("Question")
    reference = {"message": original, "action": "reply", "inline": True}
    answer, held = await office.stored(path="\\Drafts", flags=["\\Draft"], subject=None, html="<p>Yes</p>",
                                       text=None, reference=reference)  # fmt: skip
    assert answer["reference"]["success"] is True
    assert held["subject"] == "Re: Question"
    assert [one["emailAddress"]["address"] for one in held["toRecipients"]] == [CARL]
    asked = await office.held(original)
    assert asked is not None
    properties = {one["id"]: one["value"] for one in held["singleValueExtendedProperties"]}
    assert properties["String 0x1042"] == asked["internetMessageId"]
    missing = {"path": "Inbox", "text": "x", "reference": {"message": UNKNOWN}}
    refused = await office.call("POST", "/message", missing)
    assert (refused.status, refused.body["code"]) == (404, "MessageNotFound")
    assert refused.body["message"] == "Referenced message was not found"
    missing["reference"]["ignoreMissing"] = True  # type: ignore[index]
    told = await office.done("POST", "/message", missing)
    assert told["reference"]["success"] is False


async def test_files_above_three_megabytes_go_into_drafts(office: Office) -> None:
    """By upload session in one's own mailbox; beside it a small one, byte for byte."""
    files = {"big.bin": bytes(range(256)) * (14 * MIB // 1024), "small.bin": b"x" * 1000}
    given = [{"filename": name, "content": encoded(content)} for name, content in files.items()]
    body = {"path": "\\Drafts", "flags": ["\\Draft", "\\Seen"], "text": "x", "attachments": given}
    answer = await office.ok("POST", f"/v1/account/{office.own_account}/message", body)
    found = [one for one in await office.tenant.messages("ann@contoso.example") if one["id"] == answer["id"]]
    assert {one["name"]: base64.b64decode(one["contentBytes"]) for one in found[0]["attachments"]} == files
    assert found[0]["isDraft"] is True


async def test_what_can_not_be_stored_whole_is_not_stored(office: Office) -> None:
    """Too large for a message that is no draft, or for another person's mailbox; or Graph fails on the way."""
    before = await office.count()
    two = [{"filename": f"{n}.bin", "content": encoded(b"x" * (2 * MIB))} for n in range(2)]
    past = await office.call("POST", "/message", {"path": "Inbox", "text": "x", "attachments": two})
    assert (past.status, past.body["code"]) == (413, "MessageTooLarge")
    assert "\\Draft" in past.body["message"]
    one = [{"filename": "big.bin", "content": encoded(b"x" * (7 * MIB // 2))}]
    draft: Json = {"path": "\\Drafts", "flags": ["\\Draft"], "text": "x"}
    foreign = await office.call("POST", "/message", draft | {"attachments": one})
    assert (foreign.status, foreign.body["code"]) == (413, "MessageTooLarge")
    assert "application access" in foreign.body["message"]
    await office.tenant.add_fault({"status": 500}, match={"method": "POST", "path_regex": "/attachments$"})
    broken = await office.call("POST", "/message", draft | {"attachments": two})
    assert (broken.status, broken.body["code"]) == (503, "ConnectionError")
    raw = {"path": "\\Drafts", "flags": ["\\Draft"], "raw": encoded(mime().as_bytes())}
    await office.tenant.add_fault({"status": 403}, match={"method": "PATCH"})
    assert (await office.call("POST", "/message", raw)).status == 403
    assert await office.count() == before


async def test_an_unclear_answer_stores_once(office: Office) -> None:
    """The connection breaks after the work: the message is found by the id it was given here."""
    before = await office.count()
    match = {"method": "POST", "path_regex": "/messages$"}
    await office.tenant.add_fault({"after": {"drop": True}}, match=match)
    answer, _ = await office.stored(subject="Unclear")
    assert await office.count() == before + 1
    assert answer["id"]
    await office.tenant.add_fault({"drop": True}, match=match)
    refused = await office.call("POST", "/message", {"path": "Inbox", "text": "x"})
    assert (refused.status, refused.body["code"]) == (503, "ConnectionError")
    assert await office.count() == before + 1


async def test_an_unknown_folder_and_a_refusal_are_told_in_the_contracts_words(office: Office) -> None:
    """404 `Upload failed`, 400 `Invalid message format` with Graph's code."""
    nowhere = await office.call("POST", "/message", {"path": "Nowhere", "text": "x"})
    assert (nowhere.status, nowhere.body["message"], nowhere.body["code"]) == (404, "Upload failed", "NotFound")
    await office.tenant.add_fault({"status": 400, "code": "ErrorInvalid"}, match={"path_regex": "/messages$"})
    wrong = await office.call("POST", "/message", {"path": "Inbox", "text": "x"})
    assert (wrong.status, wrong.body["message"], wrong.body["code"]) == (400, "Invalid message format", "ErrorInvalid")


DEEP = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(3000))


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"headers": {f"X-{n}": "v" for n in range(6)}}, "headers"),
        ({"headers": {"List-Unsubscribe": "<x>"}}, "headers"),
        ({"headers": {"X-A": "a\r\nb"}}, "headers"),
        ({"headers": {"Subject": "x"}}, "headers"),
        ({"headers": {"__proto__": "x"}}, "headers"),
        ({"raw": "!!"}, "raw"),
        ({"raw": encoded(b"no mail")}, "raw"),
        ({"raw": encoded(DEEP)}, "raw"),
        ({"raw": encoded(b"A: b\n\nx"), "text": "x"}, "text"),
        ({"path": None}, "path"),
        ({"internalDate": "yesterday"}, "internalDate"),
        ({"internalDate": 10**30}, "internalDate"),
        ({"flags": [None]}, "flags"),
        ({"from": {"address": "nobody"}}, "address"),
        ({"messageId": "<a b>"}, "messageId"),
        ({"attachments": [{"filename": "x"}]}, "content"),
        ({"text": 5}, "text"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
async def test_wrong_fields_are_refused_by_name(office: Office, fields: Json, key: str) -> None:
    """400, the sixth header by its own name, and nothing is stored."""
    before = await office.count()
    body = {"path": "Inbox"} | fields
    answer = await office.call("POST", "/message", body)
    assert answer.status == 400, answer.body
    assert key in [one["key"] for one in answer.body["fields"]], answer.body
    assert len(fields.get("headers", ())) < 6 or '"X-5"' in answer.body["fields"][0]["message"]
    assert await office.count() == before
