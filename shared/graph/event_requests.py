"""Graph requests that only events need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.graph.paths import MailboxPath
from shared.graph.requests import message

if TYPE_CHECKING:
    from kiota_abstractions.request_information import RequestInformation
    from msgraph.graph_service_client import GraphServiceClient


def source(client: GraphServiceClient, mailbox: MailboxPath, message_id: str) -> RequestInformation:
    """A message as MIME (graph.md 4)."""
    request = message(client, mailbox, message_id)
    request.url_template = f"{(request.url_template or '').partition('{?')[0]}/$value"
    request.headers.remove("Accept")
    request.headers.add("Accept", "text/plain, */*")
    return request
