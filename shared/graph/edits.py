"""Requests that change what is in a mailbox: messages, folders, and several of them in one batch (graph.md 4, 5.4)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from shared.graph.client import IMMUTABLE
from shared.graph.paths import MailboxPath

if TYPE_CHECKING:
    from kiota_abstractions.request_information import RequestInformation
    from msgraph.graph_service_client import GraphServiceClient

    from shared.search import SearchQuery

ROOT = "msgfolderroot"
MOST_PARTS = 20  # of one batch (graph.md 5.4)
PAGE = 250
MESSAGE_ID = r"[A-Za-z0-9_=+/-]{1,256}"  # Graph's alphabet; anything else could lead elsewhere in a path
LISTED_FIELDS = (
    "id,parentFolderId,receivedDateTime,isRead,isDraft,flag,categories,internetMessageId,conversationId".split(",")
)
STATE_FIELDS = ["id", "isRead", "isDraft", "flag", "categories", "parentFolderId"]


def _json(builder: Any, method: str, body: Mapping[str, Any], **headers: str) -> RequestInformation:
    return _raw(builder, method, json.dumps(body).encode(), "application/json", **headers)


def _raw(builder: Any, method: str, content: bytes, content_type: str, **headers: str) -> RequestInformation:
    from kiota_abstractions.method import Method
    from kiota_abstractions.request_information import RequestInformation

    request = RequestInformation(Method(method), builder.url_template, dict(builder.path_parameters))
    for name, value in {"Accept": "application/json", "Prefer": IMMUTABLE, **headers}.items():
        request.headers.try_add(name, value)
    request.set_stream_content(content, content_type)
    return request


# -- messages --------------------------------------------------------------------------------------------------


def state(
    client: GraphServiceClient, mailbox: MailboxPath, message_id: str, fields: Sequence[str] = STATE_FIELDS
) -> RequestInformation:
    """What can be changed about a message, and where it lies; or other fields of it."""
    from kiota_abstractions.base_request_configuration import RequestConfiguration
    from msgraph.generated.users.item.messages.item.message_item_request_builder import (
        MessageItemRequestBuilder as Builder,
    )

    query = Builder.MessageItemRequestBuilderGetQueryParameters(select=list(fields))
    configuration: Any = RequestConfiguration(query_parameters=query)
    configuration.headers.add("Prefer", IMMUTABLE)
    return mailbox.builder(client).messages.by_message_id(message_id).to_get_request_information(configuration)


def change(
    client: GraphServiceClient, mailbox: MailboxPath, message_id: str, changes: Mapping[str, Any], etag: str = ""
) -> RequestInformation:
    """Changes properties of a message; with `etag` only while nobody else has (412 otherwise, graph.md 2.3)."""
    builder = mailbox.builder(client).messages.by_message_id(message_id)
    return _json(builder, "PATCH", changes, **({"If-Match": etag} if etag else {}))


def move(client: GraphServiceClient, mailbox: MailboxPath, message_id: str, folder_id: str) -> RequestInformation:
    """Moves a message to a folder, by id or well-known name."""
    builder = mailbox.builder(client).messages.by_message_id(message_id).move
    return _json(builder, "POST", {"destinationId": folder_id})


def create(client: GraphServiceClient, mailbox: MailboxPath, folder_id: str, message: bytes) -> RequestInformation:
    """A message in a folder, from its JSON; a draft unless its MAPI flags say otherwise (emailengine.md 13)."""
    builder = mailbox.builder(client).mail_folders.by_mail_folder_id(folder_id).messages
    return _raw(builder, "POST", message, "application/json")


def create_mime(client: GraphServiceClient, mailbox: MailboxPath, folder_id: str, mime: bytes) -> RequestInformation:
    """A draft in a folder from a whole MIME message (graph.md 4)."""
    builder = mailbox.builder(client).mail_folders.by_mail_folder_id(folder_id).messages
    return _raw(builder, "POST", base64.b64encode(mime), "text/plain")


def listing(client: GraphServiceClient, mailbox: MailboxPath, folder_id: str, query: SearchQuery) -> RequestInformation:
    """What a search finds in a folder, or with "" in the whole mailbox, 250 a page: ids, folders, and what the search
    checks itself."""
    from kiota_abstractions.base_request_configuration import RequestConfiguration
    from msgraph.generated.users.item.messages.messages_request_builder import (
        MessagesRequestBuilder as Builder,
    )

    parameters = Builder.MessagesRequestBuilderGetQueryParameters(
        select=LISTED_FIELDS if query.keeps else ["id", "parentFolderId", "receivedDateTime"],
        filter=query.filter or None,
        search=query.search or None,
        orderby=[query.orderby] if query.orderby else None,
        top=PAGE,
    )
    configuration: Any = RequestConfiguration(query_parameters=parameters)
    configuration.headers.add("Prefer", IMMUTABLE)
    if query.eventual:
        configuration.headers.add("ConsistencyLevel", "eventual")
    user = mailbox.builder(client)
    messages = user.mail_folders.by_mail_folder_id(folder_id).messages if folder_id else user.messages
    return messages.to_get_request_information(configuration)


# -- folders ---------------------------------------------------------------------------------------------------


def create_folder(client: GraphServiceClient, mailbox: MailboxPath, parent_id: str, name: str) -> RequestInformation:
    """A folder below another one, or below `ROOT`."""
    folders = mailbox.builder(client).mail_folders
    builder = folders if parent_id == ROOT else folders.by_mail_folder_id(parent_id).child_folders
    return _json(builder, "POST", {"displayName": name})


def rename_folder(client: GraphServiceClient, mailbox: MailboxPath, folder_id: str, name: str) -> RequestInformation:
    """Another name for a folder."""
    return _json(mailbox.builder(client).mail_folders.by_mail_folder_id(folder_id), "PATCH", {"displayName": name})


def move_folder(client: GraphServiceClient, mailbox: MailboxPath, folder_id: str, parent_id: str) -> RequestInformation:
    """Moves a folder below another one, or below `ROOT`."""
    builder = mailbox.builder(client).mail_folders.by_mail_folder_id(folder_id).move
    return _json(builder, "POST", {"destinationId": parent_id})


def delete_folder(client: GraphServiceClient, mailbox: MailboxPath, folder_id: str) -> RequestInformation:
    """Deletes a folder with what is in it."""
    return mailbox.builder(client).mail_folders.by_mail_folder_id(folder_id).to_delete_request_information()


# -- several at once -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One request of a batch about one message; `rest` follows the message's id in the path."""

    message_id: str
    method: str
    rest: str = ""
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def batch(client: GraphServiceClient, mailbox: MailboxPath, parts: Sequence[Part]) -> RequestInformation:
    """Up to 20 parts in one request; their ids are their places. The wish for immutable ids goes into each part
    (graph.md 5.4)."""
    from kiota_abstractions.method import Method
    from kiota_abstractions.request_information import RequestInformation

    request = RequestInformation(Method.POST, "{+baseurl}/$batch", {})
    request.headers.try_add("Accept", "application/json")
    listed = [_listed(str(place), mailbox, part) for place, part in enumerate(parts)]
    request.set_stream_content(json.dumps({"requests": listed}).encode(), "application/json")
    return request


def _listed(identity: str, mailbox: MailboxPath, part: Part) -> dict[str, Any]:
    url = f"/{mailbox.resource('messages/' + quote(part.message_id, safe=''))}{part.rest}"
    headers = {"Prefer": IMMUTABLE, **part.headers}
    listed: dict[str, Any] = {"id": identity, "method": part.method, "url": url, "headers": headers}
    if part.body is not None:
        headers["Content-Type"] = "application/json"
        listed["body"] = part.body
    return listed
