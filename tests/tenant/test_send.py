"""Sending: who appears, where the copy goes, what is refused (graph.md 6 and 8.3)."""

# Fixtures are imported by name and shadowed by the parameters.
# ruff: noqa: F401, F811

from __future__ import annotations

import asyncio
import base64
from email import message_from_bytes, policy
from typing import Any

import pytest

from .mail_fixtures import IMMUTABLE, Office, address, mail, office, who

SUPPORT = "support@contoso.example"
BEHALF = "behalf@contoso.example"
DENIED = (
    403,
    "ErrorSendAsDenied",
    "The user account which was used to submit this request does not have the right to send mail on behalf of the "
    "specified sending account., Cannot submit message.",
)

# caller, mailbox in the URL, from in the body → From, Sender, owner of the Sent Items copy
TABLE_8_3 = [
    ("ann", "me", None, "ann", "ann", "ann"),
    ("ann", "me", "support", "support", "support", "ann"),
    ("ann", "me", "behalf", "behalf", "ann", "ann"),
    ("ann", "support", "support", "support", "support", "support"),
    ("ann", "behalf", "behalf", "behalf", "ann", "behalf"),
    ("ann", "support", None, "support", "support", "support"),
    ("app", "support", None, "support", "support", "support"),
    ("app", "support", "support", "support", "support", "support"),
    ("app", "ann", "support", "support", "support", "ann"),
]


def _path(mailbox: str) -> str:
    return "/me" if mailbox == "me" else f"/users/{mailbox}@contoso.example"


def _message(sender: str | None) -> dict[str, Any]:
    return mail(**({"from": who(f"{sender}@contoso.example")} if sender else {}))


def _sent(office: Office) -> dict[str, int]:
    names = ("ann", "support", "behalf", "nosend", "john")
    return {name: len(found) for name in names if (found := office.stored(name, "sentitems"))}


@pytest.mark.parametrize("how", ["sendMail", "draft"])
@pytest.mark.parametrize(("caller", "mailbox", "sender", "shown", "submitted_by", "copy_of"), TABLE_8_3)
async def test_who_appears_and_where_the_copy_goes(
    office: Office,
    how: str,
    caller: str,
    mailbox: str,
    sender: str | None,
    shown: str,
    submitted_by: str,
    copy_of: str,
) -> None:
    client = await (office.app() if caller == "app" else office.user(caller))
    if how == "sendMail":
        await client.post(f"{_path(mailbox)}/sendMail", {"message": _message(sender)}, expect=202)
    else:
        draft = await client.post(f"{_path(mailbox)}/messages", _message(sender))
        await client.post(f"{_path(mailbox)}/messages/{draft['id']}/send", expect=202)
    (received,) = office.stored("rita", "inbox")
    assert address(received, "from") == f"{shown}@contoso.example"
    assert address(received, "sender") == f"{submitted_by}@contoso.example"
    assert _sent(office) == {copy_of: 1}
    (copy,) = office.stored(copy_of, "sentitems")
    assert (copy["isRead"], copy["isDraft"]) == (True, False)
    assert address(copy, "from") == f"{shown}@contoso.example"
    assert copy["internetMessageId"] == received["internetMessageId"]


@pytest.mark.parametrize(
    ("caller", "mailbox", "sender"),
    [("ann", "me", "nosend"), ("ann", "nosend", "nosend"), ("ann", "nosend", None), ("app", "ann", "sales2")],
)
async def test_without_send_right_nothing_leaves(office: Office, caller: str, mailbox: str, sender: str | None) -> None:
    client = await (office.app() if caller == "app" else office.user(caller))
    answer = await client.post(f"{_path(mailbox)}/sendMail", {"message": _message(sender)}, expect=403)
    assert answer.error == DENIED
    assert office.stored("rita") == []
    assert _sent(office) == {}


async def test_without_full_access_the_mailbox_is_not_found(office: Office) -> None:
    ann = await office.user("ann")
    answer = await ann.post(f"{_path('locked')}/sendMail", {"message": _message("locked")}, expect=404)
    assert answer.error[1:] == ("ErrorItemNotFound", "The specified object was not found in the store.")
    office.world.switches.missing_full_access = "403"
    answer = await ann.post(f"{_path('locked')}/sendMail", {"message": _message("locked")}, expect=403)
    assert answer.error[1] == "ErrorAccessDenied"


async def test_sending_in_a_shared_mailbox_needs_the_shared_scope(office: Office) -> None:
    ann = await office.user("ann", "Mail.Send Mail.ReadWrite")
    answer = await ann.post(f"{_path('support')}/sendMail", {"message": _message("support")}, expect=403)
    message = "Access is denied. Check credentials and try again."
    assert answer.error == (403, "ErrorAccessDenied", message)
    await ann.post("/me/sendMail", {"message": _message(None)}, expect=202)


async def test_without_from_the_switch_can_choose_the_user(office: Office) -> None:
    office.world.switches.default_from = "user"
    ann = await office.user("ann")
    await ann.post(f"{_path('support')}/sendMail", {"message": mail()}, expect=202)
    assert address(office.stored("rita")[0], "from") == "ann@contoso.example"
    assert _sent(office) == {"support": 1}


@pytest.mark.parametrize("shared", ["support", "behalf"])
@pytest.mark.parametrize("url", ["me", "shared"])
@pytest.mark.parametrize("keep", [True, False])
async def test_message_copy_switch_adds_a_copy_where_it_was_sent_from(
    office: Office, shared: str, url: str, keep: bool
) -> None:
    principal = office.person(shared)
    principal.save_copy_send_as = principal.save_copy_on_behalf = True
    ann = await office.user("ann")
    path = _path("me" if url == "me" else shared)
    body = {"message": _message(shared), "saveToSentItems": keep}
    await ann.post(f"{path}/sendMail", body, expect=202)
    assert _sent(office) == {shared: 1, **({"ann": 1} if keep and url == "me" else {})}


async def test_save_to_sent_items_false_leaves_no_copy(office: Office) -> None:
    ann = await office.user("ann")
    await ann.post("/me/sendMail", {"Message": mail(), "SaveToSentItems": False}, expect=202)
    assert _sent(office) == {}
    assert len(office.stored("rita")) == 1


async def test_foreign_sender_without_send_as_is_refused(office: Office) -> None:
    ann = await office.user("ann")
    body = {"message": mail(**{"from": who(BEHALF), "sender": who(BEHALF)})}
    assert (await ann.post("/me/sendMail", body, expect=403)).error == DENIED


async def test_sent_copy_appears_after_the_delay_under_the_immutable_id(office: Office) -> None:
    office.world.switches.sent_items_delay_s = 0.1
    ann = await office.user("ann")
    draft = await ann.post("/me/messages", mail(), headers=IMMUTABLE)
    await ann.post(f"/me/messages/{draft['id']}/send", expect=202)
    await ann.get(f"/me/messages/{draft['id']}", expect=404, headers=IMMUTABLE)
    assert len(office.stored("rita")) == 1
    await asyncio.sleep(0.2)
    sent = await ann.get(f"/me/messages/{draft['id']}", headers=IMMUTABLE)
    assert sent["isDraft"] is False
    await ann.post(f"/me/messages/{draft['id']}/send", expect=404)


async def test_bcc_is_seen_only_in_the_sent_copy(office: Office) -> None:
    ann = await office.user("ann")
    body = {"message": mail(bccRecipients=[who("bob@contoso.example")])}
    await ann.post("/me/sendMail", body, expect=202)
    for name in ("rita", "bob"):
        (received,) = office.stored(name, "inbox")
        assert received["bccRecipients"] == []
        assert "bcc" not in {h["name"].lower() for h in received["internetMessageHeaders"]}
    assert office.stored("ann", "sentitems")[0]["bccRecipients"] != []


async def test_received_copy_has_transport_headers_and_custom_ones(office: Office) -> None:
    ann = await office.user("ann")
    headers = [{"name": "x-queue", "value": "42"}]
    extended = [{"id": "String 0x1042", "value": "<first@x.example>"}]
    message = mail(internetMessageHeaders=headers, singleValueExtendedProperties=extended)
    await ann.post("/me/sendMail", {"message": message}, expect=202)
    (received,) = office.stored("rita")
    listed = {h["name"].lower(): h["value"] for h in received["internetMessageHeaders"]}
    assert listed["x-queue"] == "42"
    assert listed["in-reply-to"] == "<first@x.example>"
    assert listed["message-id"] == received["internetMessageId"]
    assert received["internetMessageHeaders"][0]["name"] == "Received"
    assert received["isRead"] is False
    assert headers[0] in office.stored("ann", "sentitems")[0]["internetMessageHeaders"]


@pytest.mark.parametrize(
    ("change", "status", "code", "message"),
    [
        (
            {"toRecipients": []},
            400,
            "ErrorInvalidRecipients",
            "At least one recipient isn't valid., A message can't be sent until it contains at least one recipient.",
        ),
        (
            {"toRecipients": [who("nobody")]},
            400,
            "ErrorInvalidRecipients",
            "At least one recipient isn't valid.",
        ),
        (
            {"internetMessageHeaders": [{"name": "List-Unsubscribe", "value": "x"}]},
            400,
            "InvalidInternetMessageHeader",
            "The internet message header name 'List-Unsubscribe' should start with 'x-' or 'X-'.",
        ),
        (
            {"internetMessageHeaders": [{"name": f"x-{n}", "value": "x"} for n in range(6)]},
            400,
            "InvalidInternetMessageHeaderCollection",
            "Maximum number of headers in one message should be less than or equal to 5.",
        ),
    ],
)
async def test_wrong_messages_are_refused_with_the_exact_text(
    office: Office, change: dict[str, Any], status: int, code: str, message: str
) -> None:
    ann = await office.user("ann")
    answer = await ann.post("/me/sendMail", {"message": mail(**change)}, expect=status)
    assert answer.error == (status, code, message)


async def test_unknown_property_names_the_property(office: Office) -> None:
    ann = await office.user("ann")
    answer = await ann.post("/me/sendMail", {"message": mail(subjct="x")}, expect=400)
    assert answer.error[1] == "RequestBodyRead"
    assert answer.error[2].startswith("The property 'subjct' does not exist on type 'microsoft.graph.message'. ")


async def test_just_under_four_megabytes_passes_and_more_is_413(office: Office) -> None:
    ann = await office.user("ann")
    attachment = {"@odata.type": "#microsoft.graph.fileAttachment", "name": "big.bin"}
    small = {**attachment, "contentBytes": base64.b64encode(bytes(2_900_000)).decode()}
    await ann.post("/me/sendMail", {"message": mail(attachments=[small])}, expect=202)
    large = {**attachment, "contentBytes": base64.b64encode(bytes(3_300_000)).decode()}
    answer = await ann.post("/me/sendMail", {"message": mail(attachments=[large])}, expect=413)
    assert answer.error[1] == "RequestEntityTooLarge"


async def test_unknown_local_recipient_bounces_and_external_mail_is_recorded(office: Office) -> None:
    ann = await office.user("ann")
    people = [who("ghost@contoso.example"), who("Ada@fabrikam.example"), who("rita@contoso.example")]
    await ann.post("/me/sendMail", {"message": mail(toRecipients=people)}, expect=202)
    (report,) = office.stored("ann", "inbox")
    assert report["subject"] == "Undeliverable: Order 4711"
    assert "ghost@contoso.example" in report["body"]["content"]
    parsed = message_from_bytes(base64.b64decode(report["_raw"]), policy=policy.default)
    assert parsed.get_content_type() == "multipart/report"
    kinds = [part.get_content_type() for part in parsed.iter_parts()]  # type: ignore[attr-defined]
    assert kinds == ["multipart/alternative", "message/delivery-status", "message/rfc822"]
    assert parsed["Auto-Submitted"] == "auto-replied"
    (returned,) = [one for one in report["attachments"] if one.get("contentType") in (None, "message/rfc822")]
    assert returned["name"] == "Order 4711"
    (outgoing,) = office.world.mail.dump("external:ada@fabrikam.example", None)
    assert outgoing["subject"] == "Order 4711"
    assert len(office.stored("rita")) == 1


MIME = (
    b"From: Ann <ann@contoso.example>\r\nTo: rita@contoso.example\r\nBcc: bob@contoso.example\r\n"
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <own-1@contoso.example>\r\nX-Queue: 7\r\n"
    b"References: <a@x.example>\r\n <b@x.example>\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/alternative; boundary="b1"\r\n\r\n'
    b"--b1\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nplain\r\n"
    b"--b1\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>html</p>\r\n--b1--\r\n"
)


async def test_mime_is_kept_byte_for_byte_and_bcc_is_stripped_on_delivery(office: Office) -> None:
    ann = await office.user("ann")
    await ann.send_mime("/me/sendMail", MIME)
    (copy,) = office.stored("ann", "sentitems")
    assert base64.b64decode(copy["_raw"]) == MIME
    assert copy["subject"] == "Grüße"
    assert copy["internetMessageId"] == "<own-1@contoso.example>"
    (received,) = office.stored("rita")
    raw = base64.b64decode(received["_raw"])
    assert raw.startswith(b"Received: ")
    assert raw.partition(b"\r\n")[2] == MIME.replace(b"Bcc: bob@contoso.example\r\n", b"")
    assert len(office.stored("bob")) == 1
    assert {"name": "X-Queue", "value": "7"} in received["internetMessageHeaders"]


async def test_mime_from_obeys_the_switch(office: Office) -> None:
    ann = await office.user("ann")
    raw = MIME.replace(b"From: Ann <ann@", b"From: Support <support@")
    await ann.send_mime(f"{_path('support')}/sendMail", raw)
    office.world.switches.mime_from = "authenticated_user"
    await ann.send_mime(f"{_path('support')}/sendMail", raw)
    newest, first = office.stored("rita")
    assert address(first, "from") == SUPPORT
    assert address(newest, "from") == "ann@contoso.example"
    assert b'From: "Ann Smith" <ann@contoso.example>' in base64.b64decode(newest["_raw"])
    assert _sent(office) == {"support": 2}


async def test_mime_with_foreign_from_is_denied(office: Office) -> None:
    ann = await office.user("ann")
    raw = MIME.replace(b"From: Ann <ann@", b"From: Support <nosend@")
    assert (await ann.send_mime("/me/sendMail", raw, expect=403)).error == DENIED


async def test_mime_draft_with_patched_from_keeps_the_body(office: Office) -> None:
    office.world.switches.mime_from = "authenticated_user"
    ann = await office.user("ann")
    draft = await ann.send_mime(f"{_path('support')}/messages", MIME, expect=201)
    path = f"{_path('support')}/messages/{draft['id']}"
    await ann.patch(path, {"from": who(SUPPORT)})
    await ann.post(f"{path}/send", expect=202)
    (received,) = office.stored("rita")
    assert address(received, "from") == SUPPORT
    assert base64.b64decode(received["_raw"]).endswith(MIME.partition(b"\r\n\r\n")[2])
    assert _sent(office) == {"support": 1}


async def test_mime_that_is_not_base64_is_refused(office: Office) -> None:
    ann = await office.user("ann")
    answer = await ann.call("POST", "/me/sendMail", data=b"From: x", headers={"Content-Type": "text/plain"})
    expected = (400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.")
    assert answer.error == expected


async def test_send_without_content_length_is_411(office: Office) -> None:
    ann = await office.user("ann")
    draft = await ann.post("/me/messages", mail())
    url = office.url.removeprefix("http://")
    reader, writer = await asyncio.open_connection(*url.split(":"))
    head = f"POST /v1.0/me/messages/{draft['id']}/send HTTP/1.1\r\nHost: {url}\r\nConnection: close\r\n"
    writer.write(f"{head}Authorization: Bearer {ann.token}\r\n\r\n".encode())
    assert (await reader.readline()).split()[1] == b"411"
    writer.close()


async def test_application_allow_list_blocks_other_mailboxes(office: Office) -> None:
    app = await office.app()
    for application in office.world.directory.applications.values():
        application.mailbox_allow_list = {office.person("sales").id}
    answer = await app.post(f"{_path('support')}/sendMail", {"message": mail()}, expect=403)
    text = "Access to OData is disabled: [RAOP] : Blocked by tenant configured AppOnly AccessPolicy settings."
    assert answer.error == (403, "ErrorAccessDenied", text)
    await app.post(f"{_path('sales')}/sendMail", {"message": mail()}, expect=202)
