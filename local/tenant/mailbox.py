"""One mailbox: its folders, its messages, and the sequence numbers that delta and etags are made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from .errors import GraphError
from .folders import INITIAL_FOLDERS, WELL_KNOWN_NAMES, Folder, display_name, folder_json, starts_hidden
from .ids import IdSource, looks_like_id
from .messages import Message, NewMessage, blank_properties, refresh_derived
from .wire_time import to_wire

if TYPE_CHECKING:
    from .directory import Principal

ChangeKind = Literal["created", "updated", "moved", "deleted"]
_REPLY_PREFIX = re.compile(r"^\s*((re|fw|fwd|aw|wg|antw|tr|sv)\s*:\s*)+", re.IGNORECASE)


@dataclass(slots=True)
class Change:
    """Something that happened to an item; the notifier turns it into notifications."""

    kind: ChangeKind
    mailbox: Mailbox
    message: Message
    old_rest_id: str
    old_folder: Folder


def item_not_found() -> GraphError:
    """graph.md 9.1 [F]: the item is gone, or belongs to another mailbox."""
    return GraphError(404, "ErrorItemNotFound", "The specified object was not found in the store.")


def folder_not_found() -> GraphError:
    """graph.md 9.1 [F]: the folder is gone, or a special folder was never made."""
    return GraphError(404, "ErrorFolderNotFound", "The specified folder could not be found in the store.")


def malformed_id() -> GraphError:
    return GraphError(400, "ErrorInvalidIdMalformed", "Id is malformed.")


class Mailbox:
    """Folders and items of one principal. Every change goes through here and is reported to `on_change`."""

    def __init__(
        self,
        principal: Principal,
        ids: IdSource,
        now: Callable[[], datetime],
        on_change: Callable[[Change], None],
    ) -> None:
        self.principal = principal
        self.ids = ids
        self.sequence = 0
        self.folders: dict[str, Folder] = {}
        self.well_known: dict[str, Folder] = {}
        self.removed_folders: list[tuple[int, int, str]] = []
        self.messages: dict[str, Message] = {}
        self._by_rest_id: dict[str, Message] = {}
        self._purged: set[str] = set()
        self._conversations: dict[str, str] = {}
        self._topics: dict[str, str] = {}
        self._now = now
        self._on_change = on_change
        self._newest_first: list[Message] | None = None
        # The folders below each one, and the shape of the tree they were collected from: 5,000 folders stay cheap.
        self._shape = 0
        self._children: tuple[int, dict[str, list[Folder]]] | None = None
        self._make_initial_folders()

    # -- folders ------------------------------------------------------------------------------------------

    def _make_initial_folders(self) -> None:
        self.root = self.make_folder("msgfolderroot", None, "msgfolderroot")
        # The dumpster lies beside the visible tree (graph.md 3.2: a well-known name, never listed).
        self.make_folder("recoverableitemsdeletions", None, "recoverableitemsdeletions")
        for name in INITIAL_FOLDERS:
            self.ensure_well_known(name)

    def ensure_well_known(self, name: str) -> Folder:
        """The folder of that role, made now if this mailbox never had one."""
        return self.well_known.get(name) or self.make_folder(name, self.root, name)

    def make_folder(
        self, name: str, parent: Folder | None, well_known: str | None = None, hidden: bool = False
    ) -> Folder:
        """A new folder; a well-known one gets the name of the mailbox's language (graph.md 3.2 [D])."""
        shown = display_name(well_known, self.principal.preferred_language) if well_known else name
        folder = Folder(self.ids.folder(), shown, parent, well_known)
        folder.is_hidden = hidden or (well_known is not None and starts_hidden(well_known))
        folder.created_at_seq = self._touch_folder(folder)
        self.folders[folder.id] = folder
        self._shape += 1
        if well_known:
            self.well_known[well_known] = folder
        if parent is not None:
            self._touch_folder(parent)
        return folder

    def folder(self, reference: str) -> Folder:
        """The folder with that id or well-known name. Raises the 404s and 400 of graph.md 9.1."""
        found = self.folders.get(reference) or self.well_known.get(reference.lower())
        if found is not None:
            return found
        if reference.lower() in WELL_KNOWN_NAMES:
            raise folder_not_found()
        if not looks_like_id(reference):
            raise malformed_id()
        raise item_not_found() if reference.startswith("AAk") else folder_not_found()

    def children(self, parent: Folder) -> list[Folder]:
        if self._children is None or self._children[0] != self._shape:
            below: dict[str, list[Folder]] = {}
            for folder in self.folders.values():
                if folder.parent is not None:
                    below.setdefault(folder.parent.id, []).append(folder)
            self._children = (self._shape, below)
        return list(self._children[1].get(parent.id, ()))

    def visible_folders(self) -> list[Folder]:
        """Every folder below the root, flat (graph.md 5.3: folder delta returns all levels)."""
        return [folder for folder in self.folders.values() if folder.parent is not None]

    def rename_folder(self, folder: Folder, name: str) -> None:
        folder.name = name
        self._touch_folder(folder)

    def move_folder(self, folder: Folder, parent: Folder) -> None:
        old = folder.parent
        folder.parent = parent
        self._shape += 1
        for touched in (folder, parent, old):
            if touched is not None:
                self._touch_folder(touched)

    def remove_folder(self, folder: Folder) -> None:
        """Removes the folder with everything in it."""
        for child in self.children(folder):
            self.remove_folder(child)
        for message in list(folder.items.values()):
            self.remove(message)
        del self.folders[folder.id]
        self._shape += 1
        self.removed_folders.append((self._next(), folder.created_at_seq, folder.id))
        if folder.parent is not None:
            self._touch_folder(folder.parent)

    def folder_json(self, folder: Folder) -> dict[str, Any]:
        return folder_json(folder, sum(1 for child in self.children(folder) if not child.is_hidden))

    # -- items --------------------------------------------------------------------------------------------

    def add(self, content: NewMessage, folder: Folder, **overrides: Any) -> Message:
        """A new item made of `content`; `overrides` replace properties (isRead, from, ...)."""
        now = to_wire(self._now())
        message = Message(
            immutable_id=self.ids.immutable(),
            rest_id=self.ids.ordinary(),
            folder=folder,
            properties={**blank_properties(now), **content.properties, **overrides},
            attachments=[replace(a, id=self.ids.attachment(), modified=now) for a in content.attachments],
            extended=dict(content.extended),
            headers=list(content.headers),
            raw=content.raw,
            alternative_text=content.alternative_text,
            passed_transport=content.passed_transport,
        )
        refresh_derived(message)
        self._join_conversation(message)
        self._insert(message, folder)
        self._report("created", message, message.rest_id, folder)
        return message

    def find(self, reference: str) -> Message:
        """The item with that id of either kind. Raises 400 for a broken id, 404 for an unknown one."""
        message = self.messages.get(reference) or self._by_rest_id.get(reference)
        if message is not None:
            return message
        if not looks_like_id(reference):
            raise malformed_id()
        raise item_not_found()

    def was_purged(self, reference: str) -> bool:
        return reference in self._purged

    def all_newest_first(self) -> list[Message]:
        """Every item outside the dumpster, newest first (graph.md 3.1: Deleted Items are included)."""
        if self._newest_first is None:
            hidden = self.well_known["recoverableitemsdeletions"]
            shown = (m for m in self.messages.values() if m.folder is not hidden)
            key = lambda m: (m.properties["receivedDateTime"], m.entered_seq)  # noqa: E731
            self._newest_first = sorted(shown, key=key, reverse=True)
        return self._newest_first

    def changed(self, message: Message, only_read_state: bool = False) -> None:
        """Records an edit: new changeKey, delta entry, `updated` notification."""
        sequence = self._next()
        if only_read_state:
            message.read_seq = sequence
        else:
            message.content_seq = sequence
            refresh_derived(message)
        message.properties["lastModifiedDateTime"] = to_wire(self._now())
        self._touch_folder(message.folder)
        self._report("updated", message, message.rest_id, message.folder)

    def set_read(self, message: Message, is_read: bool) -> bool:
        """Sets isRead with the folder's count; True when it was different."""
        if message.properties["isRead"] == is_read:
            return False
        message.properties["isRead"] = is_read
        message.folder.unread += -1 if is_read else 1
        return True

    def move(self, message: Message, target: Folder) -> Message:
        """Puts the item into another folder; the ordinary id changes, the immutable one stays (2.4 [D])."""
        old_folder, old_rest_id = message.folder, message.rest_id
        self._take_out(message)
        message.rest_id = self.ids.ordinary()
        message.properties["lastModifiedDateTime"] = to_wire(self._now())
        self._insert(message, target)
        self._report("moved", message, old_rest_id, old_folder)
        return message

    def remove(self, message: Message, purge: bool = False) -> None:
        """Takes the item out for good; a purged one is remembered (graph.md 4: the second purge is 403)."""
        folder, rest_id = message.folder, message.rest_id
        self._take_out(message)
        if purge:
            self._purged.update((message.immutable_id, rest_id))
        self._report("deleted", message, rest_id, folder)

    def put_back(self, message: Message, folder: Folder) -> None:
        """Returns a removed item under its immutable id: the sent form of a draft (graph.md 2.4 [D])."""
        message.rest_id = self.ids.ordinary()
        self._insert(message, folder)
        self._report("created", message, message.rest_id, folder)

    # -- inside -------------------------------------------------------------------------------------------

    def _insert(self, message: Message, folder: Folder) -> None:
        message.folder, message.removed = folder, False
        message.entered_seq = message.content_seq = self._next()
        self.messages[message.immutable_id] = message
        self._by_rest_id[message.rest_id] = message
        folder.items[message.immutable_id] = message
        folder.unread += 0 if message.properties["isRead"] else 1
        folder.size_bytes += message.size_bytes()
        self._reordered(folder)

    def _take_out(self, message: Message) -> None:
        folder = message.folder
        message.removed = True
        del self.messages[message.immutable_id], self._by_rest_id[message.rest_id]
        del folder.items[message.immutable_id]
        folder.unread -= 0 if message.properties["isRead"] else 1
        folder.size_bytes = max(0, folder.size_bytes - message.size_bytes())
        gone = (self._next(), message.entered_seq, message.immutable_id, message.rest_id)
        folder.departures.append(gone)
        self._reordered(folder)

    def _reordered(self, folder: Folder) -> None:
        folder.forget_order()
        self._newest_first = None
        self._touch_folder(folder)

    def _touch_folder(self, folder: Folder) -> int:
        folder.changed_at_seq = self._next()
        return folder.changed_at_seq

    def _next(self) -> int:
        self.sequence += 1
        return self.sequence

    def _report(self, kind: ChangeKind, message: Message, old_rest_id: str, old_folder: Folder) -> None:
        self._on_change(Change(kind, self, message, old_rest_id, old_folder))

    def _join_conversation(self, message: Message) -> None:
        """Threads by References and In-Reply-To, then by the subject of a reply (graph.md 15 item 4)."""
        properties = message.properties
        subject = properties["subject"] or ""
        topic = _REPLY_PREFIX.sub("", subject).strip().casefold()
        known = [self._conversations[ref] for ref in _references(message) if ref in self._conversations]
        own = self._conversations.get(properties["internetMessageId"])
        if not known and own is None and topic and topic != subject.strip().casefold():
            known = [self._topics[topic]] if topic in self._topics else []
        conversation = own or (known[-1] if known else self.ids.conversation())
        properties["conversationId"] = conversation
        properties["conversationIndex"] = self.ids.conversation_index()
        self._topics[topic] = conversation
        if properties["internetMessageId"]:
            self._conversations[properties["internetMessageId"]] = conversation


def _references(message: Message) -> list[str]:
    """The message ids this one refers to, nearest last: headers, or the MAPI tags of graph.md 5.5 [P]."""
    found = {h["name"].lower(): h["value"] for h in message.headers}
    tags = {key.casefold(): value for key, value in message.extended.items()}
    texts = [found.get("references") or tags.get("string 0x1039") or ""]
    texts.append(found.get("in-reply-to") or tags.get("string 0x1042") or "")
    return re.findall(r"<[^<>\s]+>", " ".join(texts))
