"""Large mails and attachments by reference, from the request to the recipient's mailbox."""

import base64
import hashlib
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from typing import Any

import pytest
import pytest_asyncio

from shared.attachments import attachment_id
from tests.support.application import Application
from tests.support.desk import Desk, Json, eventually
from tests.support.tenant import Tenant
from tests.support.workshop import ANN, RITA, SUPPORT, Workshop

TO = [{"address": RITA}]
LARGEST = 3_932_160  # bytes whose base64 is as long as the contract allows for one content
PATIENCE_S = 120


def content(name: str, size: int) -> bytes:
    """Bytes that belong to this name alone."""
    block = hashlib.sha512(name.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def files(count: int, size: int) -> dict[str, bytes]:
    """So many files by name."""
    return {name: content(name, size) for name in (f"file-{number}.bin" for number in range(count))}


def given(contents: dict[str, bytes]) -> list[Json]:
    """The files as `attachments`."""
    return [{"filename": name, "content": base64.b64encode(raw).decode()} for name, raw in contents.items()]


def contents_of(mail: Json) -> dict[str, bytes]:
    """The files of a mail as the tenant holds it."""
    return {one["name"]: base64.b64decode(one["contentBytes"]) for one in mail["attachments"]}


class Office(Desk):
    """The accounts of this file, made once."""

    ann: str
    support: str
    app_support: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(app: Application, tenant: Tenant) -> AsyncIterator[Office]:
    """A person's mailbox, and a shared one reached with a person's and with an application's rights."""
    await tenant.reset()
    await tenant.switches(capture_bodies=False)
    office = Office(app, tenant)
    await office.settings(webhooksEnabled=False)
    office.ann = await office.own()
    office.support = await office.delegated(SUPPORT, office.ann)
    office.app_support = await office.application(SUPPORT)
    yield office
    await office.close()
    await tenant.reset()


@pytest.fixture
def office(opened: Office) -> Office:
    """The accounts."""
    return opened


async def sent_whole(office: Office, mailbox: str, answer: Json, wanted: dict[str, bytes]) -> Json:
    """The recipient has every file, the sender one copy and no draft."""
    mail = await office.mail(RITA, answer["messageId"], timeout_s=PATIENCE_S)
    assert contents_of(mail) == wanted
    assert len(await office.copies(RITA, answer["messageId"])) == 1
    copies = await office.copies(mailbox, answer["messageId"], None)
    assert [one["isDraft"] for one in copies] == [False]

    async def gone() -> bool:
        return (await office.app.call("GET", f"/v1/outbox/{answer['queueId']}")).status == 404

    await eventually(gone, "the entry vanishes", PATIENCE_S)
    return mail


@pytest.mark.parametrize("query", ["", "?useStructuredFormat=true"])
async def test_the_largest_single_content_is_sent(office: Office, query: str) -> None:
    """5,242,880 characters of base64, MIME or structured: by upload session."""
    wanted = files(1, LARGEST)
    answer = await office.accepted(office.ann, query, to=TO, html="<p>x</p>", attachments=given(wanted))
    await sent_whole(office, ANN, answer, wanted)


async def test_forty_megabytes_in_one_request_are_sent(office: Office) -> None:
    """Eight of the largest contents together."""
    wanted = files(8, LARGEST)
    answer = await office.accepted(office.app_support, to=TO, subject="Forty", text="x", attachments=given(wanted))
    await sent_whole(office, SUPPORT, answer, wanted)


async def test_thirty_files_of_a_megabyte_go_from_a_shared_mailbox_with_a_persons_token(office: Office) -> None:
    """Without an upload session, from the shared mailbox and into its Sent Items."""
    wanted = files(30, 1_000_000)
    answer = await office.accepted(office.support, to=TO, text="x", attachments=given(wanted))
    mail = await sent_whole(office, SUPPORT, answer, wanted)
    assert mail["from"]["emailAddress"]["address"] == SUPPORT
    assert await office.copies(ANN, answer["messageId"], None) == []


async def test_what_a_person_may_not_upload_to_a_shared_mailbox_an_application_may(office: Office) -> None:
    """413 with the way out for the one account, and the same mail sent for the other."""
    wanted = files(1, 3_300_000)
    mail = {"to": TO, "text": "x", "attachments": given(wanted)}
    refused = await office.submit(office.support, **mail)
    assert (refused.status, refused.body["code"]) == (413, "MessageTooLarge")
    assert "application access" in refused.body["message"]
    assert refused.body["fields"][0]["key"] == "attachments"
    assert "file-0.bin" in refused.body["fields"][0]["message"]
    answer = await office.accepted(office.app_support, **mail)
    await sent_whole(office, SUPPORT, answer, wanted)


async def test_a_reference_sends_the_stored_attachment_again(office: Office) -> None:
    """Bytes, name and type of the stored one; what stands beside the reference wins."""
    raw = content("stored", 50_000)
    given_file = {"name": "größe.pdf", "content_type": "application/pdf"}
    stored = given_file | {"content_base64": base64.b64encode(raw).decode()}
    message = await deliver(office, SUPPORT, attachments=[stored])
    reference = attachment_id(message["id"], message["attachments"][0]["id"])
    both = [{"reference": reference}, {"reference": reference, "filename": "b.bin", "contentType": "x/y"}]
    answer = await office.accepted(office.support, to=TO, text="x", attachments=both)
    mail = await sent_whole(office, SUPPORT, answer, {"größe.pdf": raw, "b.bin": raw})
    assert [one["contentType"] for one in mail["attachments"]] == ["application/pdf", "x/y"]


async def test_a_mail_attached_to_a_stored_mail_is_attached_again_byte_for_byte(office: Office) -> None:
    """An item attachment travels as message/rfc822, unencoded."""
    inner = b"From: x@y.example\r\nSubject: Inner\r\n\r\nFrom here\r\n.\r\n"
    outer = (
        b"From: a@b.example\r\nTo: support@contoso.example\r\nSubject: Outer\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="XX"\r\n\r\n--XX\r\nContent-Type: text/plain\r\n\r\nhi\r\n'
        b"--XX\r\nContent-Type: message/rfc822\r\n\r\n" + inner + b"\r\n--XX--\r\n"
    )
    message = await deliver(office, SUPPORT, raw_base64=base64.b64encode(outer).decode())
    reference = attachment_id(message["id"], message["attachments"][0]["id"])
    answer = await office.accepted(office.support, to=TO, text="x", attachments=[{"reference": reference}])
    mail = await office.mail(RITA, answer["messageId"])
    raw = base64.b64decode(mail["_raw"])
    assert b"\r\n\r\n" + inner + b"\r\n--" in raw
    (found,) = message_from_bytes(raw, policy=policy.default).iter_attachments()  # type: ignore[attr-defined]
    assert (found.get_content_type(), found.get_filename()) == ("message/rfc822", "Inner.eml")


async def deliver(office: Office, mailbox: str, **fields: Any) -> Json:
    """A mail arrives; the mail as the tenant holds it."""
    mail = {"from": {"address": "carl@customer.example"}, "to": [mailbox], "subject": "Stored", **fields}
    placed = await office.tenant.control("POST", "/deliver", mail)
    found = await office.tenant.messages(mailbox, "inbox")
    return next(one for one in found if one["id"] == placed["delivered"][0]["id"])


@pytest.mark.parametrize(
    ("attachment", "key"),
    [
        ({}, "content"),
        ({"filename": "a"}, "content"),
        ({"content": None}, "content"),
        ({"content": "YQ==", "reference": "abc"}, "reference"),
        ({"reference": ""}, "content"),
        ({"reference": "x" * 2049}, "reference"),
        ({"reference": 7}, "reference"),
        ({"reference": ["a"]}, "reference"),
    ],
    ids=range(8),
)
async def test_an_attachment_has_exactly_one_source(office: Office, attachment: Json, key: str) -> None:
    """400 that names the field."""
    answer = await office.submit(office.support, to=TO, text="x", attachments=[attachment])
    assert answer.status == 400, answer.body
    assert [one["key"] for one in answer.body["fields"]] == [key]


@pytest.mark.parametrize("kind", ["malformed", "half", "unknown message", "unknown attachment", "another mailbox"])
async def test_a_reference_that_leads_nowhere_is_a_404_and_nothing_is_queued(office: Office, kind: str) -> None:
    """The contract's answer, whatever is wrong with the id."""
    stored = {"name": "a.txt", "content_base64": "YQ=="}
    theirs = await deliver(office, RITA, attachments=[stored])
    ours = await deliver(office, SUPPORT, attachments=[stored])
    gone = ours["id"][:-4] + "AAAA"
    reference = {
        "malformed": "ktlS",
        "half": attachment_id("abc", "def"),
        "unknown message": attachment_id(gone, ours["attachments"][0]["id"]),
        "unknown attachment": attachment_id(ours["id"], theirs["attachments"][0]["id"]),
        "another mailbox": attachment_id(theirs["id"], theirs["attachments"][0]["id"]),
    }[kind]
    before = (await office.ok("GET", "/v1/outbox"))["total"]
    answer = await office.submit(office.support, to=TO, text="x", attachments=[{"reference": reference}])
    assert (answer.status, answer.body["code"]) == (404, "ReferenceNotFound")
    assert answer.body["message"] == "Referenced attachment was not found"
    assert (await office.ok("GET", "/v1/outbox"))["total"] == before


@pytest.mark.parametrize(
    ("action", "status", "code"),
    [
        ({"status": 503}, 503, "ConnectionError"),
        ({"drop": True}, 503, "ConnectionError"),
        ({"status": 429, "retry_after": "7"}, 429, "Throttled"),
        ({"status": 404}, 404, "ReferenceNotFound"),
    ],
)
async def test_trouble_while_a_reference_is_fetched_is_told_to_the_caller(
    office: Office, action: Json, status: int, code: str
) -> None:
    """Nothing is queued, and the caller knows whether trying again helps."""
    message = await deliver(office, SUPPORT, attachments=[{"name": "a.txt", "content_base64": "YQ=="}])
    reference = attachment_id(message["id"], message["attachments"][0]["id"])
    before = (await office.ok("GET", "/v1/outbox"))["total"]
    await office.tenant.add_fault(action, match={"path_regex": "/attachments/[^/]+$"})
    answer = await office.submit(office.support, to=TO, text="x", attachments=[{"reference": reference}])
    await office.tenant.clear_faults()
    assert (answer.status, answer.body["code"]) == (status, code)
    assert (await office.ok("GET", "/v1/outbox"))["total"] == before


async def test_a_large_reference_is_sent_after_its_message_is_deleted(workshop: Workshop) -> None:
    """Fetched at submit: 9 MB in three ranges, though the stored message is gone when the mail is sent."""
    account = await workshop.own()
    raw = content("huge", 9_000_000)
    stored = {"name": "huge.bin", "contentBytes": base64.b64encode(raw).decode()}
    message = workshop.deliver(ANN, attachments=[stored])
    reference = attachment_id(message, workshop.message(ANN, message).attachments[0].id)
    fields = {"to": TO, "text": "x", "attachments": [{"reference": reference}]}
    answer = await workshop.services.submit.accept(account, fields)
    workshop.remove(ANN, message)
    await workshop.run_due()
    (mail,) = workshop.arrived(RITA, answer["messageId"])
    assert contents_of(mail) == {"huge.bin": raw}


async def test_an_account_that_is_out_of_order_cannot_refer_to_its_mail(workshop: Workshop) -> None:
    """503 with the account's state; without references the same account accepts mail."""
    account = await workshop.own()
    await workshop.services.accounts.change(account, lambda record: record | {"state": "authenticationError"})
    fields = {"to": TO, "text": "x", "attachments": [{"reference": attachment_id("a", "b")}]}
    from shared.errors import StateRefuses

    with pytest.raises(StateRefuses):
        await workshop.services.submit.accept(account, fields)
    await workshop.services.submit.accept(account, fields | {"attachments": []})


async def test_an_inline_picture_by_reference_stays_inline(workshop: Workshop) -> None:
    """The stored cid serves the new HTML; a cid given beside the reference replaces it."""
    account = await workshop.own()
    stored = {"name": "logo.png", "contentType": "image/png", "contentBytes": "YQ==", "isInline": True,
              "contentId": "old"}  # fmt: skip
    message = workshop.deliver(ANN, attachments=[stored], html="<img src='cid:old'>")
    reference = attachment_id(message, workshop.message(ANN, message).attachments[0].id)
    both = [{"reference": reference}, {"reference": reference, "cid": "new"}]
    answer = await workshop.services.submit.accept(account, {"to": TO, "html": "<p>x</p>", "attachments": both})
    await workshop.run_due()
    (mail,) = workshop.arrived(RITA, answer["messageId"])
    assert [(one["contentId"], one["isInline"]) for one in mail["attachments"]] == [("old", True), ("new", True)]
