"""Which mailbox a Graph call goes to. Every call takes a MailboxPath; `/me` is never baked in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from shared.storage.keys import digest

if TYPE_CHECKING:
    from msgraph.generated.users.item.user_item_request_builder import UserItemRequestBuilder
    from msgraph.graph_service_client import GraphServiceClient


@dataclass(frozen=True)
class MailboxPath:
    """`me` for the token's own mailbox, else `users/{user}`: an object id, principal name or address.

    `whose` tells one `me` from another, for limits that Graph keeps per mailbox; it is no part of the path.
    """

    user: str | None = None
    whose: str = field(default="", compare=False)

    def __str__(self) -> str:
        return "me" if self.user is None else f"users/{self.user}"

    @property
    def key(self) -> str:
        """The mailbox itself, however the path spells it."""
        return (self.user or self.whose).casefold()

    def builder(self, client: GraphServiceClient) -> UserItemRequestBuilder:
        """The SDK's request builder of this mailbox. It percent-encodes the user."""
        # The SDK builds /me as a user of this name and replaces it on the way out (graph.md 14.3).
        return client.users.by_user_id(self.user or "me-token-to-replace")

    def resource(self, rest: str) -> str:
        """The resource of a subscription (graph.md 10.1)."""
        return f"{'me' if self.user is None else 'users/' + quote(self.user, safe='@')}/{rest}"


def lane(app_id: str, mailbox: MailboxPath) -> str:
    """Names an app and a mailbox, for the limits that Graph keeps for the two (graph.md 11). Opaque: it may stand in
    queue messages."""
    return digest(app_id, mailbox.key)[:16]
