"""The Graph requests this service makes, one function each, built by msgraph-sdk's request builders.

Every message call asks for immutable ids (graph.md 2.4). Bodies are our own JSON with the documented names.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shared.graph.client import IMMUTABLE
from shared.graph.paths import MailboxPath

if TYPE_CHECKING:
    from kiota_abstractions.request_information import RequestInformation
    from msgraph.graph_service_client import GraphServiceClient

MESSAGE_FIELDS = (
    "id,conversationId,receivedDateTime,lastModifiedDateTime,isRead,isDraft,flag,body,subject,from,replyTo,sender,"
    "toRecipients,ccRecipients,bccRecipients,internetMessageId,bodyPreview,categories,internetMessageHeaders,"
    "parentFolderId,hasAttachments"
).split(",")
DELTA_FIELDS = ["id", "conversationId", "receivedDateTime", "isRead", "isDraft", "flag", "parentFolderId"]
# contentId belongs to the derived type and is selected with a cast (graph.md 7.2).
ATTACHMENT_FIELDS = ["id", "name", "contentType", "size", "isInline", "microsoft.graph.fileAttachment/contentId"]


def _configured(query: Any = None, **headers: str) -> Any:
    from kiota_abstractions.base_request_configuration import RequestConfiguration

    configuration: Any = RequestConfiguration(query_parameters=query)
    for name, value in {"Prefer": IMMUTABLE, **headers}.items():
        configuration.headers.add(name, value)
    return configuration


def _with_body(builder: Any, method: str, body: bytes, content_type: str) -> RequestInformation:
    from kiota_abstractions.method import Method
    from kiota_abstractions.request_information import RequestInformation

    request = RequestInformation(Method(method), builder.url_template, dict(builder.path_parameters))
    request.headers.try_add("Accept", "application/json")
    request.headers.try_add("Prefer", IMMUTABLE)
    if body or content_type:
        request.set_stream_content(body, content_type)
    return request


def _with_json(builder: Any, method: str, body: Mapping[str, Any]) -> RequestInformation:
    return _with_body(builder, method, json.dumps(body).encode(), "application/json")


def profile(client: GraphServiceClient, mailbox: MailboxPath) -> RequestInformation:
    """The user behind the mailbox."""
    from msgraph.generated.users.item.user_item_request_builder import UserItemRequestBuilder as Builder

    fields = ["id", "displayName", "mail", "userPrincipalName", "preferredLanguage"]
    query = Builder.UserItemRequestBuilderGetQueryParameters(select=fields)
    return mailbox.builder(client).to_get_request_information(_configured(query))


def folder(client: GraphServiceClient, mailbox: MailboxPath, folder_id: str) -> RequestInformation:
    """The id of one folder, by id or well-known name. On the inbox: the cheapest access probe (graph.md 8.2)."""
    from msgraph.generated.users.item.mail_folders.item.mail_folder_item_request_builder import (
        MailFolderItemRequestBuilder as Builder,
    )

    fields = ["id", "displayName", "totalItemCount", "unreadItemCount"]
    query = Builder.MailFolderItemRequestBuilderGetQueryParameters(select=fields)
    builder = mailbox.builder(client).mail_folders.by_mail_folder_id(folder_id)
    return builder.to_get_request_information(_configured(query))


def folders_delta(client: GraphServiceClient, mailbox: MailboxPath) -> RequestInformation:
    """The first round of the folder tree, all levels flat (graph.md 5.3)."""
    configuration = _configured()
    configuration.headers.add("Prefer", "odata.maxpagesize=250")
    return mailbox.builder(client).mail_folders.delta.to_get_request_information(configuration)


def messages_delta(client: GraphServiceClient, mailbox: MailboxPath, folder_id: str) -> RequestInformation:
    """The first round of one folder's messages. Later rounds follow the links, which carry the selection on."""
    from msgraph.generated.users.item.mail_folders.item.messages.delta.delta_request_builder import (
        DeltaRequestBuilder as Builder,
    )

    query = Builder.DeltaRequestBuilderGetQueryParameters(select=DELTA_FIELDS)
    builder = mailbox.builder(client).mail_folders.by_mail_folder_id(folder_id).messages.delta
    configuration = _configured(query)
    configuration.headers.add("Prefer", "odata.maxpagesize=200")
    return builder.to_get_request_information(configuration)


def message(client: GraphServiceClient, mailbox: MailboxPath, message_id: str) -> RequestInformation:
    """One message with body and headers, without attachments."""
    from msgraph.generated.users.item.messages.item.message_item_request_builder import (
        MessageItemRequestBuilder as Builder,
    )

    query = Builder.MessageItemRequestBuilderGetQueryParameters(select=MESSAGE_FIELDS)
    builder = mailbox.builder(client).messages.by_message_id(message_id)
    return builder.to_get_request_information(_configured(query))


def attachments(client: GraphServiceClient, mailbox: MailboxPath, message_id: str) -> RequestInformation:
    """What is attached to a message, without the contents."""
    from msgraph.generated.users.item.messages.item.attachments.attachments_request_builder import (
        AttachmentsRequestBuilder as Builder,
    )

    query = Builder.AttachmentsRequestBuilderGetQueryParameters(select=ATTACHMENT_FIELDS)
    builder = mailbox.builder(client).messages.by_message_id(message_id).attachments
    return builder.to_get_request_information(_configured(query))


def copies(
    client: GraphServiceClient, mailbox: MailboxPath, message_id_header: str, property_id: str = ""
) -> RequestInformation:
    """Messages of the mailbox with this Message-ID, in whatever folder, with one named property (graph.md 5.5): after
    an unclear send they tell whether it took place."""
    quoted = message_id_header.replace("'", "''")
    return _traces(client, mailbox, f"internetMessageId eq '{quoted}'", property_id)


def stamped_copies(
    client: GraphServiceClient, mailbox: MailboxPath, property_id: str, value: str
) -> RequestInformation:
    """Messages of the mailbox whose named property has this value, whatever their Message-ID (graph.md 5.5)."""
    stamp = f"ep/id eq '{property_id}' and ep/value eq '{value}'"
    return _traces(client, mailbox, f"singleValueExtendedProperties/any(ep: {stamp})", property_id)


def _traces(client: GraphServiceClient, mailbox: MailboxPath, criterion: str, property_id: str) -> RequestInformation:
    from msgraph.generated.users.item.messages.messages_request_builder import (
        MessagesRequestBuilder as Builder,
    )

    query = Builder.MessagesRequestBuilderGetQueryParameters(
        select=["id", "isDraft", "createdDateTime", "internetMessageId", "internetMessageHeaders"],
        expand=[f"singleValueExtendedProperties($filter=id eq '{property_id}')"] if property_id else None,
        filter=criterion,
        top=50,
    )
    return mailbox.builder(client).messages.to_get_request_information(_configured(query))


def send_mime(client: GraphServiceClient, mailbox: MailboxPath, mime: bytes) -> RequestInformation:
    """Sends a whole MIME message in one call (graph.md 6.3)."""
    return _with_body(mailbox.builder(client).send_mail, "POST", base64.b64encode(mime), "text/plain")


def send_structured(client: GraphServiceClient, mailbox: MailboxPath, message: dict[str, Any]) -> RequestInformation:
    """Sends a message resource in one call (graph.md 6.2)."""
    body = {"message": message, "saveToSentItems": True}
    return _with_json(mailbox.builder(client).send_mail, "POST", body)


def subscribe(client: GraphServiceClient, subscription: dict[str, Any]) -> RequestInformation:
    """Creates a change subscription (graph.md 10.1)."""
    return _with_json(client.subscriptions, "POST", subscription)


def renew(client: GraphServiceClient, subscription_id: str, expires: str) -> RequestInformation:
    """Moves a subscription's end."""
    builder = client.subscriptions.by_subscription_id(subscription_id)
    return _with_json(builder, "PATCH", {"expirationDateTime": expires})


def unsubscribe(client: GraphServiceClient, subscription_id: str) -> RequestInformation:
    """Ends a subscription."""
    return client.subscriptions.by_subscription_id(subscription_id).to_delete_request_information()


def subscriptions(client: GraphServiceClient) -> RequestInformation:
    """The subscriptions of the token's app, and user if it is a person's (graph.md 10.3)."""
    return client.subscriptions.to_get_request_information()


def with_subject(client: GraphServiceClient, mailbox: MailboxPath, subject: str) -> RequestInformation:
    """Messages of exactly this subject."""
    from msgraph.generated.users.item.messages.messages_request_builder import (
        MessagesRequestBuilder as Builder,
    )

    quoted = subject.replace("'", "''")
    query = Builder.MessagesRequestBuilderGetQueryParameters(
        select=["id", "subject", "isDraft"], filter=f"subject eq '{quoted}'", top=25
    )
    return mailbox.builder(client).messages.to_get_request_information(_configured(query))


def in_thread(client: GraphServiceClient, mailbox: MailboxPath, thread: str) -> RequestInformation:
    """The messages of one conversation, 100 a page, in no promised order."""
    from msgraph.generated.users.item.messages.messages_request_builder import (
        MessagesRequestBuilder as Builder,
    )

    quoted = thread.replace("'", "''")
    query = Builder.MessagesRequestBuilderGetQueryParameters(
        select=["id", "receivedDateTime", "isDraft"], filter=f"conversationId eq '{quoted}'", top=100
    )
    return mailbox.builder(client).messages.to_get_request_information(_configured(query))


def received_since(client: GraphServiceClient, mailbox: MailboxPath, since: datetime) -> RequestInformation:
    """Ids of the messages received since then, newest first, 100 a page."""
    from msgraph.generated.users.item.messages.messages_request_builder import (
        MessagesRequestBuilder as Builder,
    )

    query = Builder.MessagesRequestBuilderGetQueryParameters(
        select=["id", "receivedDateTime"],
        filter=f"receivedDateTime ge {since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        orderby=["receivedDateTime desc"],
        top=100,
    )
    return mailbox.builder(client).messages.to_get_request_information(_configured(query))


# -- attachments and drafts ------------------------------------------------------------------------------------


def attachment(
    client: GraphServiceClient, mailbox: MailboxPath, message_id: str, attachment_id: str
) -> RequestInformation:
    """One attachment with its content, unless it is an item (graph.md 7.2)."""
    builder = mailbox.builder(client).messages.by_message_id(message_id).attachments
    return builder.by_attachment_id(attachment_id).to_get_request_information(_configured())


def attachment_value(
    client: GraphServiceClient, mailbox: MailboxPath, message_id: str, attachment_id: str
) -> RequestInformation:
    """An attached item as MIME, iCalendar or vCard (graph.md 7.2). The SDK has no builder for it."""
    request = attachment(client, mailbox, message_id, attachment_id)
    request.url_template = f"{(request.url_template or '').partition('{?')[0]}/$value"
    return request


def create_draft(
    client: GraphServiceClient, mailbox: MailboxPath, body: bytes, *, structured: bool
) -> RequestInformation:
    """A draft from MIME or from the JSON of a message resource (graph.md 4)."""
    builder = mailbox.builder(client).messages
    if structured:
        return _with_body(builder, "POST", body, "application/json")
    return _with_body(builder, "POST", base64.b64encode(body), "text/plain")


def attach(
    client: GraphServiceClient, mailbox: MailboxPath, draft_id: str, attached: Mapping[str, Any]
) -> RequestInformation:
    """Adds a file under 3 MB to a draft (graph.md 7.3)."""
    builder = mailbox.builder(client).messages.by_message_id(draft_id).attachments
    return _with_json(builder, "POST", {"@odata.type": "#microsoft.graph.fileAttachment", **attached})


def upload_session(
    client: GraphServiceClient, mailbox: MailboxPath, draft_id: str, item: Mapping[str, Any]
) -> RequestInformation:
    """Begins the upload of a file of 3 MB to 150 MB to a draft (graph.md 7.3)."""
    builder = mailbox.builder(client).messages.by_message_id(draft_id).attachments.create_upload_session
    return _with_json(builder, "POST", {"AttachmentItem": {"attachmentType": "file", **item}})


def send_draft(client: GraphServiceClient, mailbox: MailboxPath, draft_id: str) -> RequestInformation:
    """Sends a draft (graph.md 4)."""
    return _with_body(mailbox.builder(client).messages.by_message_id(draft_id).send, "POST", b"", "")


def draft_state(client: GraphServiceClient, mailbox: MailboxPath, message_id: str) -> RequestInformation:
    """Whether a message is a draft still."""
    from msgraph.generated.users.item.messages.item.message_item_request_builder import (
        MessageItemRequestBuilder as Builder,
    )

    query = Builder.MessageItemRequestBuilderGetQueryParameters(select=["id", "isDraft"])
    builder = mailbox.builder(client).messages.by_message_id(message_id)
    return builder.to_get_request_information(_configured(query))


def purge(client: GraphServiceClient, mailbox: MailboxPath, message_id: str) -> RequestInformation:
    """Deletes a message for good; the global cloud only (graph.md 4)."""
    return _with_body(mailbox.builder(client).messages.by_message_id(message_id).permanent_delete, "POST", b"", "")


def delete(client: GraphServiceClient, mailbox: MailboxPath, message_id: str) -> RequestInformation:
    """Moves a message to Deleted Items (graph.md 4)."""
    builder = mailbox.builder(client).messages.by_message_id(message_id)
    return builder.to_delete_request_information(_configured())
