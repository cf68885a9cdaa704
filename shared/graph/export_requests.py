"""The Graph requests of exports: messages of a time, oldest first, with what is attached to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.graph.paths import MailboxPath
from shared.graph.requests import ATTACHMENT_FIELDS, MESSAGE_FIELDS, _configured

if TYPE_CHECKING:
    from kiota_abstractions.request_information import RequestInformation
    from msgraph.graph_service_client import GraphServiceClient

PAGE = 20


def received_between(
    client: GraphServiceClient, mailbox: MailboxPath, folder_id: str, since: str, until: str
) -> RequestInformation:
    """The messages of a folder, or with "" of the whole mailbox, received in that time."""
    options = {
        "select": MESSAGE_FIELDS,
        "filter": f"receivedDateTime ge {since} and receivedDateTime le {until}",
        "orderby": ["receivedDateTime"],
        "expand": [f"attachments($select={','.join(ATTACHMENT_FIELDS)})"],
        "top": PAGE,
    }
    if folder_id:
        from msgraph.generated.users.item.mail_folders.item.messages.messages_request_builder import (
            MessagesRequestBuilder as InFolder,
        )

        in_folder = InFolder.MessagesRequestBuilderGetQueryParameters(**options)  # type: ignore[arg-type]
        messages = mailbox.builder(client).mail_folders.by_mail_folder_id(folder_id).messages
        return messages.to_get_request_information(_configured(in_folder))
    from msgraph.generated.users.item.messages.messages_request_builder import MessagesRequestBuilder as Everywhere

    everywhere = Everywhere.MessagesRequestBuilderGetQueryParameters(**options)  # type: ignore[arg-type]
    return mailbox.builder(client).messages.to_get_request_information(_configured(everywhere))
