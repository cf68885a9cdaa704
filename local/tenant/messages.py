"""The message and attachment records, and the property tables of the message type (graph.md 3.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .body_text import preview

if TYPE_CHECKING:
    from .folders import Folder

# The order of graph.md 3.1: what comes without $select.
DEFAULT_PROPERTIES = (
    "id",
    "createdDateTime",
    "lastModifiedDateTime",
    "changeKey",
    "categories",
    "receivedDateTime",
    "sentDateTime",
    "hasAttachments",
    "internetMessageId",
    "subject",
    "bodyPreview",
    "importance",
    "parentFolderId",
    "conversationId",
    "conversationIndex",
    "isDeliveryReceiptRequested",
    "isReadReceiptRequested",
    "isRead",
    "isDraft",
    "webLink",
    "inferenceClassification",
    "body",
    "sender",
    "from",
    "toRecipients",
    "ccRecipients",
    "bccRecipients",
    "replyTo",
    "flag",
)
ONLY_WITH_SELECT = frozenset({"internetMessageHeaders", "uniqueBody"})
NAVIGATION = frozenset({"attachments", "extensions", "singleValueExtendedProperties", "multiValueExtendedProperties"})
ALL_PROPERTIES = frozenset(DEFAULT_PROPERTIES) | ONLY_WITH_SELECT | NAVIGATION
RECIPIENT_LISTS = ("toRecipients", "ccRecipients", "bccRecipients", "replyTo")

Recipient = dict[str, dict[str, str]]


@dataclass(slots=True)
class Attachment:
    """A file, with `is_item` a message whose MIME is the content, or with `link` a reference to a file elsewhere. The
    bytes are shared between the copies of a sent message, the id is not."""

    id: str
    name: str
    content_type: str
    content: bytes
    is_inline: bool = False
    content_id: str | None = None
    modified: str = ""
    is_item: bool = False
    link: str = ""


@dataclass(slots=True)
class NewMessage:
    """Content that is not yet in a mailbox, from JSON, from MIME or from the control side.

    `properties` are in wire form. `headers` are the internet headers in order (for JSON: the custom x- ones).
    """

    properties: dict[str, Any]
    attachments: list[Attachment] = field(default_factory=list)
    extended: dict[str, str] = field(default_factory=dict)
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: bytes | None = None
    alternative_text: str | None = None
    passed_transport: bool = False


@dataclass(slots=True, eq=False)
class Message:
    """An item in a mailbox. The `_seq` fields are the mailbox sequence numbers that delta compares with."""

    immutable_id: str
    rest_id: str
    folder: Folder
    properties: dict[str, Any]
    attachments: list[Attachment]
    extended: dict[str, str]
    headers: list[dict[str, str]]
    raw: bytes | None = None
    alternative_text: str | None = None
    passed_transport: bool = False
    entered_seq: int = 0
    content_seq: int = 0
    read_seq: int = 0
    removed: bool = False

    @property
    def last_seq(self) -> int:
        return max(self.entered_seq, self.content_seq, self.read_seq)

    def size_bytes(self) -> int:
        if self.raw is not None:
            return len(self.raw)
        return len(self.properties["body"]["content"]) + sum(len(a.content) for a in self.attachments) + 2048


def recipient(address: str, name: str | None = None) -> Recipient:
    """A recipient in wire form; without a name the address is shown as the name, as Exchange does [P]."""
    return {"emailAddress": {"name": name or address, "address": address}}


def address_of(who: Recipient | None) -> str | None:
    """The address in a recipient, or None when there is none."""
    if not who:
        return None
    return (who.get("emailAddress") or {}).get("address") or None


def blank_properties(now: str) -> dict[str, Any]:
    """Every stored property with the value a fresh draft has (graph.md 3.1)."""
    return {
        "createdDateTime": now,
        "lastModifiedDateTime": now,
        "receivedDateTime": now,
        "sentDateTime": now,
        "categories": [],
        "hasAttachments": False,
        "internetMessageId": "",
        "subject": "",
        "bodyPreview": "",
        "importance": "normal",
        "conversationId": "",
        "conversationIndex": "",
        "isDeliveryReceiptRequested": False,
        "isReadReceiptRequested": False,
        "isRead": True,
        "isDraft": True,
        "inferenceClassification": "focused",
        "body": {"contentType": "text", "content": ""},
        "sender": None,
        "from": None,
        "toRecipients": [],
        "ccRecipients": [],
        "bccRecipients": [],
        "replyTo": [],
        "flag": {"flagStatus": "notFlagged"},
    }


def refresh_derived(message: Message) -> None:
    """Recomputes bodyPreview and hasAttachments (inline-only does not count, graph.md 3.1 [D])."""
    message.properties["bodyPreview"] = preview(message.properties["body"])
    message.properties["hasAttachments"] = any(not a.is_inline for a in message.attachments)
