"""Subscriptions: the record, the checks at creation and renewal, which changes concern one (graph.md 10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from .errors import GraphError
from .filter_language import Filter, parse_filter
from .graph_path import fit, split_path
from .mailbox import Change
from .message_input import read_time, unknown_in_body, wrong_body
from .message_json import MESSAGE_TYPE, read_path
from .messages import ALL_PROPERTIES, Message
from .query_options import not_emulated

if TYPE_CHECKING:
    from .mailbox import Mailbox

CHANGE_TYPES = ("created", "updated", "deleted")
SHORTEST_LIFE = timedelta(minutes=45)  # graph.md 10.1 [F]: raised to this
LONGEST_CLIENT_STATE = 128
MOST_PER_MAILBOX = 1000
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_KNOWN = frozenset(
    [
        "id",
        "applicationId",
        "changeType",
        "clientState",
        "creatorId",
        "encryptionCertificate",
        "encryptionCertificateId",
        "expirationDateTime",
        "includeResourceData",
        "latestSupportedTlsVersion",
        "lifecycleNotificationUrl",
        "notificationQueryOptions",
        "notificationUrl",
        "notificationUrlAppId",
        "resource",
    ]
)
_PATTERNS = (
    ("me", "messages"),
    ("users", "{user}", "messages"),
    ("me", "mailFolders", "{folder}", "messages"),
    ("users", "{user}", "mailFolders", "{folder}", "messages"),
)


@dataclass(slots=True, eq=False)
class Subscription:
    """An accepted one. `silent` never notifies (graph.md 10.2); `paused` waits for reauthorization."""

    id: str
    application_id: str
    creator_id: str
    mailbox: Mailbox
    folder_id: str | None
    resource: str
    change_types: frozenset[str]
    notification_url: str
    lifecycle_url: str | None
    client_state: str | None
    expires_at: datetime
    immutable_ids: bool
    silent: bool
    tls_version: str = "v1_2"
    filter: Filter | None = None
    matching: set[str] = field(default_factory=set)
    paused: bool = False

    def as_json(self, with_client_state: bool = True) -> dict[str, Any]:
        """The subscription on the wire; list answers go without clientState (graph.md 10.1 [D])."""
        return {
            "id": self.id,
            "resource": self.resource,
            "applicationId": self.application_id,
            "changeType": ",".join(kind for kind in CHANGE_TYPES if kind in self.change_types),
            "clientState": self.client_state if with_client_state else None,
            "notificationUrl": self.notification_url,
            "notificationQueryOptions": None,
            "lifecycleNotificationUrl": self.lifecycle_url,
            "expirationDateTime": long_time(self.expires_at) + "Z",
            "creatorId": self.creator_id,
            "includeResourceData": None,
            "latestSupportedTlsVersion": self.tls_version,
            "encryptionCertificate": None,
            "encryptionCertificateId": None,
            "notificationUrlAppId": None,
        }

    def concerns(self, change: Change) -> list[tuple[str, str]]:
        """(changeType, message id) of the notifications this change causes, in order."""
        if change.mailbox is not self.mailbox:
            return []
        found = self._kinds(change, *self._presence(change))
        return [(kind, item_id) for kind, item_id in found if kind in self.change_types]

    def _presence(self, change: Change) -> tuple[bool, bool]:
        """Whether the item was and is inside what is watched; `$filter` counts too (graph.md 10.1 [D])."""
        dumpster = change.mailbox.well_known["recoverableitemsdeletions"]
        was, now = change.old_folder, change.message.folder
        if self.folder_id is None:
            before, after = was is not dumpster, now is not dumpster
        else:
            before, after = was.id == self.folder_id, now.id == self.folder_id
        before, after = before and change.kind != "created", after and change.kind != "deleted"
        if self.filter is None:
            return before, after
        key = change.message.immutable_id
        before, after = key in self.matching, after and self.fits(change.message)
        (self.matching.add if after else self.matching.discard)(key)
        return before, after

    def fits(self, message: Message) -> bool:
        return self.filter is None or self.filter.matches(lambda path: read_path(message, path))

    def _kinds(self, change: Change, before: bool, after: bool) -> list[tuple[str, str]]:
        message = change.message
        new_id = message.immutable_id if self.immutable_ids else message.rest_id
        old_id = message.immutable_id if self.immutable_ids else change.old_rest_id
        if before and after:
            # graph.md 10.5: a move is `updated` with immutable ids, else `deleted` + `created`.
            if change.kind == "moved" and not self.immutable_ids:
                return [("deleted", old_id), ("created", new_id)]
            return [("updated", new_id)]
        if after:
            return [("created", new_id)]
        return [("deleted", old_id)] if before else []


@dataclass(frozen=True, slots=True)
class Watched:
    """What a `resource` names: a mailbox by reference (None for me), a folder, a filter."""

    reference: str | None
    folder: str | None
    filter: Filter | None


def long_time(moment: datetime) -> str:
    """Seven fraction digits without zone, as in graph.md 10.5."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "0"


def validation_error(message: str) -> GraphError:
    return GraphError(400, "ValidationError", message)


def read_resource(text: str) -> Watched:
    """The parts of a resource (graph.md 10.1 [D]); 400 for what this tenant cannot watch."""
    path, _, query = text.strip().lstrip("/").partition("?")
    segments = split_path(path)
    if segments and segments[0].lower() in ("v1.0", "beta"):
        segments = segments[1:]
    options = {key.lower(): value for key, value in parse_qsl(query.replace("+", "%2B"))}
    written = options.get("$filter")
    for pattern in _PATTERNS:
        keys = fit(pattern, segments)
        if keys is not None:
            parsed = parse_filter(written, ALL_PROPERTIES, MESSAGE_TYPE) if written else None
            return Watched(keys.get("user"), keys.get("folder"), parsed)
    # The real code for unsupported resources is not known [P].
    raise GraphError(400, "ExtensionError", f"The local tenant cannot watch the resource '{text}'.")


def check_creation(given: Mapping[str, Any]) -> None:
    """Raises the 400s of graph.md 10.1 for a body of POST /subscriptions."""
    for name in given:
        if not name.startswith("@") and name not in _KNOWN:
            raise unknown_in_body(name, "microsoft.graph.subscription")
    for name in ("changeType", "notificationUrl", "resource", "expirationDateTime"):
        if not isinstance(given.get(name), str) or not given[name]:
            raise validation_error(f"The property '{name}' is required.")
    read_change_types(given["changeType"])
    state = given.get("clientState")
    if state is not None and (not isinstance(state, str) or len(state) > LONGEST_CLIENT_STATE):
        raise validation_error(f"The property 'clientState' may have at most {LONGEST_CLIENT_STATE} characters.")
    if given.get("includeResourceData"):
        message = "The local tenant does not emulate notifications with resource data (includeResourceData)."
        raise GraphError(400, "ExtensionError", message)
    check_url("notificationUrl", given["notificationUrl"])
    if given.get("lifecycleNotificationUrl") is not None:
        check_url("lifecycleNotificationUrl", given["lifecycleNotificationUrl"])


def read_change_types(text: str) -> frozenset[str]:
    kinds = [part.strip().lower() for part in text.split(",")]
    if not kinds or any(kind not in CHANGE_TYPES for kind in kinds):
        raise validation_error(f"The changeType '{text}' is not valid for messages.")
    return frozenset(kinds)


def check_url(name: str, url: Any) -> None:
    """https is required (graph.md 10.1 [D]).

    Plain http is accepted on loopback hosts only: the application under development is served that way.
    """
    if not isinstance(url, str):
        raise wrong_body(f"Cannot convert the value of '{name}' to the expected type 'Edm.String'.")
    if url.startswith(("EventHub:", "EventGrid:")):
        raise not_emulated("delivery to Event Hubs or Event Grid")
    parts = urlsplit(url)
    if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url))):
        return
    raise validation_error(f"The property '{name}' must be an https URL.")


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK


def expiration(text: Any, now: datetime, ceiling_minutes: int) -> datetime:
    """The end of life to store (graph.md 10.1, 10.3 [F]): at least 45 minutes ahead, at most the ceiling."""
    wanted: datetime = read_time("expirationDateTime", text)
    if wanted <= now:
        raise validation_error("Subscription expiration must be in the future.")  # wording assumed [P]
    if wanted > now + timedelta(minutes=ceiling_minutes):
        message = f"Subscription expiration can only be {ceiling_minutes} minutes in the future."
        raise GraphError(400, "ExtensionError", message)
    return max(wanted, now + SHORTEST_LIFE)
