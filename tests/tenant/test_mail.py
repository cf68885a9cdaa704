"""Reading, filing and editing mail over HTTP: addressing, folders, messages, queries, attachments."""

# Fixtures are imported by name and shadowed by the parameters.
# ruff: noqa: F401, F811

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from .mail_fixtures import IMMUTABLE, Office, address, fits_openapi, mail, office, who

NOT_FOUND = (404, "ErrorItemNotFound", "The specified object was not found in the store.")
MALFORMED = (400, "ErrorInvalidIdMalformed", "Id is malformed.")


# -- addressing and rights ---------------------------------------------------------------------------------


async def test_a_mailbox_answers_under_id_upn_and_primary_address(office: Office) -> None:
    ann = await office.user("ann")
    info = office.person("info")
    paths = (f"/users/{info.id}", f"/users/{info.upn}", "/users/info@contoso.example")
    quoted = ("/users('info@contoso.example')", "/users/info%40contoso.example")
    ids = {(await ann.get(f"{path}/mailFolders/inbox"))["id"] for path in (*paths, *quoted)}
    assert len(ids) == 1
    own = {(await ann.get(f"{path}/mailFolders('inbox')"))["id"] for path in ("/me", "/users/ann@contoso.example")}
    assert len(own) == 1
    assert own != ids


async def test_aliases_work_only_by_switch(office: Office) -> None:
    office.person("support").aliases.append("help@contoso.example")
    ann = await office.user("ann")
    answer = await ann.get("/users/help@contoso.example/messages", expect=404)
    assert answer.error == (404, "ErrorInvalidUser", "The requested user 'help@contoso.example' is invalid.")
    office.world.switches.resolve_aliases = True
    await ann.get("/users/help@contoso.example/messages")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ghost", "ErrorInvalidUser"),
        ("team", "ErrorItemNotFound"),
        ("nolicence", "MailboxNotEnabledForRESTAPI"),
        ("onprem", "MailboxNotEnabledForRESTAPI"),
        ("locked", "ErrorItemNotFound"),
        ("bob", "ErrorItemNotFound"),
    ],
)
async def test_mailboxes_out_of_reach_answer_404(office: Office, name: str, code: str) -> None:
    ann = await office.user("ann")
    answer = await ann.get(f"/users/{name}@contoso.example/mailFolders/inbox", expect=404)
    assert answer.error[1] == code


async def test_full_access_opens_another_persons_mailbox(office: Office) -> None:
    office.world.directory.grant("ann@contoso.example", "bob@contoso.example", "full_access")
    office.deliver("bob")
    ann = await office.user("ann")
    assert len((await ann.get("/users/bob@contoso.example/messages"))["value"]) == 1


async def test_checks_come_in_order_token_scope_principal(office: Office) -> None:
    ann = await office.user("ann", "Mail.Read")
    ann.token, token = "x", ann.token
    answer = await ann.get("/users/ghost@contoso.example/messages", expect=401)
    assert answer.error[1] == "InvalidAuthenticationToken"
    ann.token = token
    answer = await ann.get("/users/ghost@contoso.example/messages", expect=403)
    assert answer.error == (403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
    await ann.get("/me/messages")
    await ann.post("/me/messages", mail(), expect=403)
    await (await office.user("ann", "Mail.Read.Shared")).get("/me/messages")


async def test_me_needs_a_user(office: Office) -> None:
    app = await office.app()
    message = "/me request is only valid with delegated authentication flow."
    assert (await app.get("/me/messages", expect=400)).error == (400, "BadRequest", message)
    await app.get("/users/support@contoso.example/messages")


async def test_read_basic_hides_the_body(office: Office) -> None:
    office.deliver("ann")
    ann = await office.user("ann", "Mail.ReadBasic")
    (shown,) = (await ann.get("/me/messages"))["value"]
    assert shown["subject"] == "Hello"
    assert not {"body", "bodyPreview"} & shown.keys()
    await ann.get(f"/me/messages/{shown['id']}/$value", expect=403)


# -- profiles ----------------------------------------------------------------------------------------------


async def test_profiles_show_default_fields_and_selected_ones(
    office: Office, fits_openapi: Callable[[str, Any], None]
) -> None:
    ann = await office.user("ann")
    profile = (await ann.get("/me")).json
    fits_openapi("user", profile)
    assert profile["userPrincipalName"] == "ann@contoso.example"
    assert "proxyAddresses" not in profile
    chosen = (await ann.get("/users/info@contoso.example?$select=id,mail,proxyAddresses")).json
    assert chosen["proxyAddresses"] == ["SMTP:info@contoso.example"]
    answer = await ann.get("/me?$select=nickname", expect=400)
    text = "Could not find a property named 'nickname' on type 'microsoft.graph.user'."
    assert answer.error == (400, "RequestBroker--ParseUri", text)


async def test_users_are_found_by_mail_upn_and_proxy_address(office: Office) -> None:
    office.person("info").aliases.append("hello@contoso.example")
    ann = await office.user("ann")
    for text in (
        "mail eq 'INFO@contoso.example' or userPrincipalName eq 'x'",
        "mail eq 'x' or userPrincipalName eq 'infombx@contoso.onmicrosoft.example'",
        "proxyAddresses/any(p:p eq 'smtp:hello@contoso.example')",
    ):
        found = (await ann.get("/users", params={"$filter": text, "$select": "id"}))["value"]
        assert found == [{"id": office.person("info").id}]


async def test_profiles_need_a_directory_scope(office: Office) -> None:
    ann = await office.user("ann", "User.Read Mail.Read")
    await ann.get("/me")
    denied = (403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
    assert (await ann.get("/users/bob@contoso.example", expect=403)).error == denied
    assert (await ann.get("/users", expect=403)).error == denied
    everyone = await office.user("ann")
    assert (await everyone.get("/users/ghost@contoso.example", expect=404)).error[1] == "Request_ResourceNotFound"


# -- folders -----------------------------------------------------------------------------------------------


async def test_folders_are_localised_and_special_ones_absent(
    office: Office, fits_openapi: Callable[[str, Any], None]
) -> None:
    office.person("ann").preferred_language = "de-DE"
    ann = await office.user("ann")
    page = (await ann.get("/me/mailFolders")).json
    fits_openapi("mailFolderCollectionResponse", page)
    assert "Posteingang" in {folder["displayName"] for folder in page["value"]}
    inbox = (await ann.get("/me/mailFolders/Inbox")).json
    assert inbox["displayName"] == "Posteingang"
    answer = await ann.get("/me/mailFolders/archive", expect=404)
    text = "The specified folder could not be found in the store."
    assert answer.error == (404, "ErrorFolderNotFound", text)
    made = await office.control("/mail/well-known-folder", {"mailbox": "ann@contoso.example", "name": "archive"})
    assert (await ann.get("/me/mailFolders/archive"))["id"] == made["id"]
    assert (await ann.get("/me/mailFolders/nonsense", expect=400)).error == MALFORMED


async def test_folders_are_made_listed_renamed_and_deleted(office: Office) -> None:
    ann = await office.user("ann")
    for number in range(12):
        await ann.post("/me/mailFolders", {"displayName": f"Project {number:02}"})
    first = (await ann.get("/me/mailFolders")).json
    assert len(first["value"]) == 10
    assert first["@odata.nextLink"].startswith(office.url)
    visible = await ann.pages("/me/mailFolders")
    hidden = await ann.pages("/me/mailFolders?includeHiddenFolders=true&$top=5")
    assert (len(visible), len(hidden)) == (18, 19)
    inbox = (await ann.get("/me/mailFolders/inbox"))["id"]
    child = (await ann.post("/me/mailFolders/inbox/childFolders", {"displayName": "Sub"})).json
    assert child["parentFolderId"] == inbox
    assert (await ann.get("/me/mailFolders/inbox"))["childFolderCount"] == 1
    taken = await ann.post("/me/mailFolders/inbox/childFolders", {"displayName": "sub"}, expect=409)
    assert taken.error == (409, "ErrorFolderExists", "A folder with the specified name already exists.")
    assert (await ann.patch(f"/me/mailFolders/{child['id']}", {"displayName": "New"}))["displayName"] == "New"
    await ann.delete(f"/me/mailFolders/{child['id']}")
    assert (await ann.get(f"/me/mailFolders/{child['id']}", expect=404)).error[1] == "ErrorFolderNotFound"
    answer = await ann.get("/me/mailFolders?$select=wellKnownName", expect=400)
    assert answer.error[1] == "RequestBroker--ParseUri"


# -- messages ----------------------------------------------------------------------------------------------


async def test_a_received_message_looks_like_graphs(office: Office, fits_openapi: Callable[[str, Any], None]) -> None:
    office.deliver("ann", text="x" * 300, headers={"X-One": "1"})
    ann = await office.user("ann")
    page = (await ann.get("/me/messages")).json
    fits_openapi("messageCollectionResponse", page)
    (shown,) = page["value"]
    assert len(shown["bodyPreview"]) == 255
    assert shown["body"]["contentType"] == "html"
    assert not {"internetMessageHeaders", "uniqueBody"} & shown.keys()
    assert shown["receivedDateTime"].endswith("Z")
    assert len(shown["receivedDateTime"]) == 20
    one = (await ann.get(f"/me/messages/{shown['id']}?$select=internetMessageHeaders,subject")).json
    fits_openapi("message", one)
    assert {"name": "X-One", "value": "1"} in one["internetMessageHeaders"]
    assert one.keys() == {"@odata.context", "@odata.etag", "id", "subject", "internetMessageHeaders"}


async def test_body_type_and_id_kind_follow_prefer(office: Office) -> None:
    immutable = office.deliver("ann", html="<p>Good<br>day</p>", text=None)
    ann = await office.user("ann")
    prefer = {"Prefer": 'outlook.body-content-type="text", IdType="ImmutableId"'}
    answer = await ann.get("/me/messages", headers=prefer)
    (shown,) = answer["value"]
    assert shown["id"] == immutable
    assert shown["body"] == {"contentType": "text", "content": "Good\r\nday"}
    applied = answer.headers["Preference-Applied"]
    assert 'IdType="ImmutableId"' in applied
    assert 'outlook.body-content-type="text"' in applied


async def test_ordinary_id_changes_on_move_and_immutable_does_not(office: Office) -> None:
    immutable = office.deliver("ann")
    ann = await office.user("ann")
    before = (await ann.get("/me/messages"))["value"][0]["id"]
    moved = await ann.post(f"/me/messages/{before}/move", {"destinationId": "junkemail"})
    assert moved["id"] != before
    assert (await ann.get(f"/me/messages/{before}", expect=404)).error == NOT_FOUND
    again = await ann.get(f"/me/messages/{quote(immutable, safe='')}", headers=IMMUTABLE)
    assert again["id"] == immutable
    assert again["parentFolderId"] == (await ann.get("/me/mailFolders/junkemail"))["id"]
    assert (await ann.get(f"/users/support@contoso.example/messages/{moved['id']}", expect=404)).error == NOT_FOUND
    assert (await ann.get("/me/messages/short", expect=400)).error == MALFORMED


async def test_lists_page_by_opaque_links_on_the_callers_host(office: Office) -> None:
    for number in range(25):
        office.deliver("ann", f"Mail {number}")
    ann = await office.user("ann")
    first = (await ann.get("/me/messages?$select=subject&$count=true")).json
    assert (len(first["value"]), first["@odata.count"]) == (10, 25)
    assert first["@odata.nextLink"].startswith(f"{office.url}/v1.0/me/messages?")
    found = await ann.pages("/me/mailFolders/inbox/messages?$select=subject&$top=7")
    assert [entry["subject"] for entry in found] == [f"Mail {n}" for n in reversed(range(25))]
    other_host = await ann.get("/me/messages", headers={"Host": "graph.local:99"})
    assert other_host["@odata.nextLink"].startswith("http://graph.local:99/")
    assert (await ann.get("/me/messages/$count")).body == b"25"
    await ann.get("/me/messages?$top=1001", expect=400)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("isRead eq false", {"one", "two"}),
        ("isRead eq true", {"three"}),
        ("hasAttachments eq true", {"two"}),
        ("isDraft eq false and isRead eq false", {"one", "two"}),
        ("internetMessageId eq '<o''2@x.example>'", {"two"}),
        ("from/emailAddress/address eq 'ADA@fabrikam.example'", {"one", "two"}),
        ("receivedDateTime ge 2020-01-01T00:00:00Z and isRead eq true", {"three"}),
        ("receivedDateTime lt 2020-01-01T00:00:00Z", set()),
        ("singleValueExtendedProperties/any(ep: ep/id eq 'String 0x1042' and ep/value eq '<q>')", {"three"}),
        ("categories/any(c:c eq 'Red')", {"three"}),
    ],
)
async def test_filters(office: Office, text: str, found: set[str]) -> None:
    file = {"name": "a.txt", "contentType": "text/plain", "contentBytes": "YQ=="}
    office.deliver("ann", "one")
    office.deliver("ann", "two", attachments=[file], message_id="<o'2@x.example>")
    ann = await office.user("ann")
    extended = [{"id": "String 0x1042", "value": "<q>"}]
    await ann.post("/me/messages", mail(subject="three", singleValueExtendedProperties=extended, categories=["Red"]))
    path = "/me/messages"
    listed = (await ann.get(path, params={"$filter": text}))["value"]
    assert {entry["subject"] for entry in listed} == found


async def test_order_must_match_the_filter(office: Office) -> None:
    ann = await office.user("ann")
    good = {
        "$filter": "receivedDateTime ge 2026-01-01T00:00:00Z and isRead eq false",
        "$orderby": "receivedDateTime desc",
    }
    await ann.get("/me/messages", params=good)
    bad = {"$filter": "isRead eq false", "$orderby": "receivedDateTime desc"}
    answer = await ann.get("/me/messages", params=bad, expect=400)
    text = "The restriction or sort order is too complex for this operation."
    assert answer.error == (400, "InefficientFilter", text)
    unknown = await ann.get("/me/messages?$select=subjct", expect=400)
    text = "Could not find a property named 'subjct' on type 'microsoft.graph.message'."
    assert unknown.error == (400, "RequestBroker--ParseUri", text)


async def test_conversations_follow_references_then_reply_subjects(office: Office) -> None:
    office.deliver("ann", "Plan", message_id="<p1@x.example>")
    office.deliver("ann", "Other", headers={"References": "<p1@x.example>"})
    office.deliver("ann", "RE: Plan")
    office.deliver("ann", "Plan B")
    found = {entry["subject"]: entry["conversationId"] for entry in office.stored("ann")}
    assert found["Plan"] == found["Other"] == found["RE: Plan"] != found["Plan B"]


async def test_patch_follows_the_rules_of_drafts_and_received_mail(office: Office) -> None:
    office.deliver("ann")
    ann = await office.user("ann")
    received = (await ann.get("/me/messages"))["value"][0]
    path = f"/me/messages/{received['id']}"
    changed = await ann.patch(path, {"isRead": True, "categories": ["Red"], "flag": {"flagStatus": "flagged"}})
    assert (changed["isRead"], changed["categories"]) == (True, ["Red"])
    assert changed["@odata.etag"] != received["@odata.etag"]
    assert (await ann.get("/me/mailFolders/inbox"))["unreadItemCount"] == 0
    await ann.patch(path, {"subject": "New"}, expect=400)
    assert (await ann.patch(path, {"sbject": "New"}, expect=400)).error[1] == "RequestBodyRead"
    stale = await ann.patch(path, {"isRead": False}, headers={"If-Match": received["@odata.etag"]}, expect=412)
    assert stale.error[1] == "ErrorIrresolvableConflict"
    draft = await ann.post("/me/messages", mail())
    assert (await ann.patch(f"/me/messages/{draft['id']}", {"subject": "New"}))["subject"] == "New"
    assert "from" not in draft.json
    assert draft["isDraft"] is True
    assert draft["internetMessageId"]


async def test_delete_goes_to_deleted_items_and_purge_happens_once(office: Office) -> None:
    immutable = office.deliver("ann")
    ann = await office.user("ann")
    await ann.delete(f"/me/messages/{immutable}")
    deleted = (await ann.get("/me/mailFolders/deleteditems/messages"))["value"]
    assert len(deleted) == 1
    await ann.post(f"/me/messages/{immutable}/permanentDelete", expect=204)
    again = await ann.post(f"/me/messages/{immutable}/permanentDelete", expect=403)
    assert again.error[1] == "ErrorCannotDeleteObject"
    assert (await ann.get(f"/me/messages/{immutable}", expect=404)).error == NOT_FOUND


async def test_mime_comes_back_byte_for_byte_and_json_mail_as_generated_mime(office: Office) -> None:
    raw = b"From: a@x.example\r\nTo: ann@contoso.example\r\nSubject: Raw\r\n\r\nbody \xc3\xa9\r\n"
    office.deliver("ann", raw=raw)
    ann = await office.user("ann")
    (received,) = (await ann.get("/me/messages"))["value"]
    answer = await ann.get(f"/me/messages/{received['id']}/$value")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.body.partition(b"\r\n")[2] == raw
    inline = {
        "@odata.type": "#microsoft.graph.fileAttachment",
        "name": "logo.png",
        "contentType": "image/png",
        "contentBytes": "aGk=",
        "isInline": True,
        "contentId": "logo",
    }
    draft = await ann.post("/me/messages", mail(attachments=[inline, {**inline, "isInline": False}]))
    first = (await ann.get(f"/me/messages/{draft['id']}/$value")).body
    assert first == (await ann.get(f"/me/messages/{draft['id']}/$value")).body
    assert b"Content-ID: <logo>" in first
    assert b"Subject: Order 4711" in first


# -- attachments -------------------------------------------------------------------------------------------


async def test_attachments_are_listed_added_read_and_deleted(
    office: Office, fits_openapi: Callable[[str, Any], None]
) -> None:
    ann = await office.user("ann")
    draft = await ann.post("/me/messages", mail())
    path = f"/me/messages/{draft['id']}/attachments"
    file = {"@odata.type": "#microsoft.graph.fileAttachment", "name": "a.txt", "contentType": "text/plain"}
    content = base64.b64encode(b"hello").decode()
    inline = {**file, "contentBytes": content, "isInline": True, "contentId": "i"}
    await ann.post(path, inline)
    assert (await ann.get(f"/me/messages/{draft['id']}"))["hasAttachments"] is False
    made = (await ann.post(path, {**file, "contentBytes": content})).json
    fits_openapi("fileAttachment", made)
    assert (await ann.get(f"/me/messages/{draft['id']}"))["hasAttachments"] is True
    page = (await ann.get(path)).json
    fits_openapi("attachmentCollectionResponse", page)
    assert [entry["contentBytes"] for entry in page["value"]] == [content, content]
    listed = (await ann.get(f"{path}?$select=id,name,microsoft.graph.fileAttachment/contentId"))["value"]
    assert listed[0]["contentId"] == "i"
    assert "contentBytes" not in listed[0]
    assert (await ann.get(f"{path}?$select=contentId", expect=400)).error[1] == "RequestBroker--ParseUri"
    assert (await ann.get(f"{path}/{made['id']}/$value")).body == b"hello"
    expanded = (await ann.get(f"/me/messages/{draft['id']}?$expand=attachments($select=name)")).json
    assert [entry["name"] for entry in expanded["attachments"]] == ["a.txt", "a.txt"]
    await ann.delete(f"{path}/{made['id']}")
    assert len((await ann.get(path))["value"]) == 1
    without_type = {"name": "a", "contentBytes": content}
    await ann.post(path, without_type, expect=400)


@pytest.mark.parametrize("action", ["reply", "replyAll", "forward", "createReply"])
async def test_missing_operations_say_so(office: Office, action: str) -> None:
    immutable = office.deliver("ann")
    ann = await office.user("ann")
    answer = await ann.post(f"/me/messages/{immutable}/{action}", {}, expect=501)
    assert answer.error[1] == "NotImplemented"


async def test_unknown_paths_and_methods(office: Office) -> None:
    ann = await office.user("ann")
    answer = await ann.get("/me/mesages", expect=400)
    assert answer.error == (400, "BadRequest", "Resource not found for the segment 'mesages'.")
    assert (await ann.call("PUT", "/me/messages")).status == 405


# -- the real client, and size -----------------------------------------------------------------------------


async def test_the_msgraph_sdk_reads_drafts_sends_and_pages(office: Office) -> None:
    from kiota_abstractions.authentication import (
        AccessTokenProvider,
        AllowedHostsValidator,
        BaseBearerTokenAuthenticationProvider,
    )
    from msgraph import GraphRequestAdapter, GraphServiceClient
    from msgraph.generated.models.body_type import BodyType
    from msgraph.generated.models.email_address import EmailAddress
    from msgraph.generated.models.item_body import ItemBody
    from msgraph.generated.models.message import Message
    from msgraph.generated.models.recipient import Recipient
    from msgraph.generated.users.item.send_mail.send_mail_post_request_body import SendMailPostRequestBody

    token = (await office.user("ann")).token

    class Fixed(AccessTokenProvider):
        async def get_authorization_token(self, uri: str, additional_authentication_context: Any = None) -> str:
            return token

        def get_allowed_hosts_validator(self) -> AllowedHostsValidator:
            return AllowedHostsValidator([])

    adapter = GraphRequestAdapter(BaseBearerTokenAuthenticationProvider(Fixed()))
    adapter.base_url = f"{office.url}/v1.0"
    client = GraphServiceClient(request_adapter=adapter)
    support = client.users.by_user_id("support@contoso.example")
    to = [Recipient(email_address=EmailAddress(address="rita@contoso.example"))]
    sender = Recipient(email_address=EmailAddress(address="support@contoso.example"))
    body = ItemBody(content_type=BodyType.Html, content="<p>Hi</p>")
    message = Message(subject="By SDK", body=body, to_recipients=to, from_=sender)
    await support.send_mail.post(SendMailPostRequestBody(message=message, save_to_sent_items=True))
    draft = await support.messages.post(message)
    await support.messages.by_message_id(draft.id).send.post()
    page = await support.mail_folders.by_mail_folder_id("sentitems").messages.get()
    assert [entry.from_.email_address.address for entry in page.value] == ["support@contoso.example"] * 2
    me = await client.me.get()
    assert me.mail == "ann@contoso.example"
    delta = await support.mail_folders.by_mail_folder_id("sentitems").messages.delta.get()
    assert len(delta.value) == 2
    assert delta.odata_delta_link
    assert len(office.stored("rita")) == 2


async def test_ten_times_as_many_messages_list_and_delta_in_as_many_times_the_work(office: Office) -> None:
    """5,000 against 500, in the processor's time: nothing is compared with everything."""
    ann = await office.user("ann")
    where = "receivedDateTime ge 2020-01-01T00:00:00Z and isRead eq false"

    async def work(more: int) -> float:
        for number in range(more):
            office.deliver("ann", f"Mail {number}")
        started = time.process_time()
        await ann.get("/me/messages?$top=50&$select=id,subject")
        await ann.get("/me/messages", params={"$filter": where, "$orderby": "receivedDateTime desc"})
        page = await ann.get(
            "/me/mailFolders/inbox/messages/delta?$select=id", headers={"Prefer": "odata.maxpagesize=50"}
        )
        assert len(page["value"]) == 50
        return time.process_time() - started

    await work(50)  # what is done only once
    few = await work(450)
    assert await work(4500) < 40 * few

