"""Mail folders: the well-known ones with their localised names, and the folder record (graph.md 3.2 [D])."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .messages import Message

WELL_KNOWN_NAMES = frozenset(
    [
        "archive",
        "clutter",
        "conflicts",
        "conversationhistory",
        "deleteditems",
        "drafts",
        "inbox",
        "junkemail",
        "localfailures",
        "msgfolderroot",
        "outbox",
        "recoverableitemsdeletions",
        "scheduled",
        "searchfolders",
        "sentitems",
        "serverfailures",
        "syncissues",
    ]
)

# What a new mailbox has. Archive, clutter and others are absent until somebody makes them (graph.md 3.2 [D]).
INITIAL_FOLDERS = (
    "inbox",
    "drafts",
    "sentitems",
    "deleteditems",
    "junkemail",
    "outbox",
    "conversationhistory",
)
_HIDDEN = frozenset({"conversationhistory"})

_ENGLISH = {
    "msgfolderroot": "Top of Information Store",
    "inbox": "Inbox",
    "drafts": "Drafts",
    "sentitems": "Sent Items",
    "deleteditems": "Deleted Items",
    "junkemail": "Junk Email",
    "outbox": "Outbox",
    "conversationhistory": "Conversation History",
    "archive": "Archive",
    "clutter": "Clutter",
    "recoverableitemsdeletions": "Deletions",
}
_LOCALISED = {
    "de": {
        "msgfolderroot": "Oberste Ebene des Informationsspeichers",
        "inbox": "Posteingang",
        "drafts": "Entwürfe",
        "sentitems": "Gesendete Elemente",
        "deleteditems": "Gelöschte Elemente",
        "junkemail": "Junk-E-Mail",
        "outbox": "Postausgang",
        "conversationhistory": "Aufgezeichnete Unterhaltungen",
        "archive": "Archiv",
    },
    "nl": {
        "msgfolderroot": "Bovenste map van gegevensarchief",
        "inbox": "Postvak IN",
        "drafts": "Concepten",
        "sentitems": "Verzonden items",
        "deleteditems": "Verwijderde items",
        "junkemail": "Ongewenste e-mail",
        "outbox": "Postvak UIT",
        "conversationhistory": "Gespreksgeschiedenis",
        "archive": "Archief",
    },
}


def display_name(well_known: str, language: str | None) -> str:
    """The name a mailbox of that language shows for a well-known folder; English when we know no other."""
    names = _LOCALISED.get((language or "en")[:2].lower(), {})
    return names.get(well_known) or _ENGLISH.get(well_known) or well_known.capitalize()


def starts_hidden(well_known: str) -> bool:
    return well_known in _HIDDEN


@dataclass(slots=True, eq=False)
class Folder:
    """One folder with its items. `changed_at_seq` moves with every count or name change, for folder delta."""

    id: str
    name: str
    parent: Folder | None
    well_known: str | None = None
    is_hidden: bool = False
    created_at_seq: int = 0
    changed_at_seq: int = 0
    unread: int = 0
    size_bytes: int = 0
    items: dict[str, Message] = field(default_factory=dict)
    # (sequence, entered at sequence, immutable id, ordinary id) of items that left, oldest first
    departures: list[tuple[int, int, str, str]] = field(default_factory=list)
    _newest_first: list[Message] | None = None

    def newest_first(self) -> list[Message]:
        """The items by receivedDateTime, newest first; sorted once per change, so 5,000 items stay cheap."""
        if self._newest_first is None:
            self._newest_first = sorted(self.items.values(), key=_received_order, reverse=True)
        return self._newest_first

    def forget_order(self) -> None:
        self._newest_first = None


def _received_order(message: Message) -> tuple[str, int]:
    return message.properties["receivedDateTime"], message.entered_seq


def folder_json(folder: Folder, child_count: int) -> dict[str, Any]:
    """The folder on the wire (graph.md 3.2). `sizeInBytes` is shown though v1.0 metadata does not list it."""
    return {
        "id": folder.id,
        "displayName": folder.name,
        "parentFolderId": folder.parent.id if folder.parent else folder.id,
        "childFolderCount": child_count,
        "unreadItemCount": folder.unread,
        "totalItemCount": len(folder.items),
        "sizeInBytes": folder.size_bytes,
        "isHidden": folder.is_hidden,
    }
