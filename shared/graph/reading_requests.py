"""The requests that read mail: pages of messages, a body, raw bytes. Like `requests`, one function each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.graph.client import IMMUTABLE
from shared.graph.paths import MailboxPath
from shared.graph.requests import ATTACHMENT_FIELDS, MESSAGE_FIELDS, _configured, _with_json

if TYPE_CHECKING:
    from kiota_abstractions.request_information import RequestInformation
    from msgraph.graph_service_client import GraphServiceClient

LISTED_FIELDS = (
    "id,conversationId,receivedDateTime,isRead,isDraft,flag,body,subject,from,replyTo,toRecipients,ccRecipients,"
    "internetMessageId,bodyPreview,categories,hasAttachments,parentFolderId"
).split(",")
ATTACHED = f"attachments($select={','.join(ATTACHMENT_FIELDS)})"


def messages_page(
    client: GraphServiceClient,
    mailbox: MailboxPath,
    folder_id: str,
    *,
    top: int,
    skip: int = 0,
    filter: str = "",
    search: str = "",
    orderby: str = "",
    eventual: bool = False,
) -> RequestInformation:
    """A page of the messages of a folder, or with "" of the whole mailbox, with what is attached to each. It is
    counted unless it is searched for, which Graph does not count (graph.md 5.2)."""
    from msgraph.generated.users.item.messages.messages_request_builder import MessagesRequestBuilder as Builder

    query = Builder.MessagesRequestBuilderGetQueryParameters(
        select=LISTED_FIELDS, expand=[ATTACHED], top=top, skip=skip or None, filter=filter or None,
        search=search or None, orderby=[orderby] if orderby else None, count=None if search else True,
    )  # fmt: skip
    root = mailbox.builder(client)
    messages = root.mail_folders.by_mail_folder_id(folder_id).messages if folder_id else root.messages
    more = {"ConsistencyLevel": "eventual"} if eventual else {}
    return messages.to_get_request_information(_configured(query, **more))


def message_as(client: GraphServiceClient, mailbox: MailboxPath, message_id: str, body: str = "") -> RequestInformation:
    """One message with headers, without attachments; its body as `text` or `html`, if one of them is asked for
    (graph.md 2.4)."""
    return _one(client, mailbox, message_id, MESSAGE_FIELDS, body)


def body_as(client: GraphServiceClient, mailbox: MailboxPath, message_id: str, body: str = "") -> RequestInformation:
    """The body of a message alone."""
    return _one(client, mailbox, message_id, ["id", "body"], body)


def _one(
    client: GraphServiceClient, mailbox: MailboxPath, message_id: str, fields: list[str], body: str
) -> RequestInformation:
    from msgraph.generated.users.item.messages.item.message_item_request_builder import (
        MessageItemRequestBuilder as Builder,
    )

    query = Builder.MessageItemRequestBuilderGetQueryParameters(select=fields)
    more = {"Prefer": f'{IMMUTABLE}, outlook.body-content-type="{body}"'} if body else {}
    builder = mailbox.builder(client).messages.by_message_id(message_id)
    return builder.to_get_request_information(_configured(query, **more))


def mark_seen(client: GraphServiceClient, mailbox: MailboxPath, message_id: str) -> RequestInformation:
    """Sets a message to read."""
    return _with_json(mailbox.builder(client).messages.by_message_id(message_id), "PATCH", {"isRead": True})


def source(client: GraphServiceClient, mailbox: MailboxPath, message_id: str) -> RequestInformation:
    """A message as it came, RFC 822 (graph.md 4)."""
    return mailbox.builder(client).messages.by_message_id(message_id).content.to_get_request_information(_configured())


def attachment_facts(
    client: GraphServiceClient, mailbox: MailboxPath, message_id: str, attachment_id: str
) -> RequestInformation:
    """What an attachment is, without its content."""
    from msgraph.generated.users.item.messages.item.attachments.item.attachment_item_request_builder import (
        AttachmentItemRequestBuilder as Builder,
    )

    query = Builder.AttachmentItemRequestBuilderGetQueryParameters(select=ATTACHMENT_FIELDS)
    attachments = mailbox.builder(client).messages.by_message_id(message_id).attachments
    return attachments.by_attachment_id(attachment_id).to_get_request_information(_configured(query))
