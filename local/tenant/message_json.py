"""Messages and attachments as JSON (graph.md 3.1, 7.1, 7.2)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from .body_text import converted
from .filter_language import parse_filter, unknown_property, walk
from .ids import change_key
from .messages import DEFAULT_PROPERTIES, Attachment, Message
from .query_options import Expansion, Preferences, not_emulated

MESSAGE_TYPE = "microsoft.graph.message"
ATTACHMENT_TYPE = "microsoft.graph.attachment"
FILE_TYPE = "#microsoft.graph.fileAttachment"
ITEM_TYPE = "#microsoft.graph.itemAttachment"
REFERENCE_TYPE = "#microsoft.graph.referenceAttachment"
# What Mail.ReadBasic does not show: bodies, previews, attachments and extensions.
HIDDEN_FROM_READ_BASIC = frozenset(
    {"body", "bodyPreview", "uniqueBody", "attachments", "singleValueExtendedProperties"}
)
_INTERNET_HEADERS = "String {00020386-0000-0000-C000-000000000046} Name "
_BASE_ATTACHMENT = frozenset({"id", "lastModifiedDateTime", "name", "contentType", "size", "isInline"})
_FILE_ATTACHMENT = _BASE_ATTACHMENT | {"contentId", "contentLocation", "contentBytes"}


@dataclass(slots=True)
class View:
    """How a caller wants to see messages: id kind, body format, properties, expansions."""

    preferences: Preferences = field(default_factory=Preferences)
    select: list[str] | None = None
    expand: list[Expansion] = field(default_factory=list)
    hidden: frozenset[str] = frozenset()

    @property
    def names(self) -> Iterable[str]:
        names = DEFAULT_PROPERTIES if self.select is None else ["id", *self.select]
        return [name for name in names if name not in self.hidden]


def message_id(message: Message, immutable: bool) -> str:
    return message.immutable_id if immutable else message.rest_id


def etag(message: Message) -> str:
    return f'W/"{change_key(message.last_seq)}"'


def message_json(message: Message, view: View) -> dict[str, Any]:
    """The message with the selected (or default) properties; id and etag are always there."""
    shown: dict[str, Any] = {"@odata.etag": etag(message)}
    stored = message.properties
    for name in view.names:
        if name in stored:
            value = stored[name]
            if name == "body":
                value = converted(value, view.preferences.body_type or "html")
            # Drafts may be without from and sender (graph.md 3.1 [P]); the key is left out then.
            if value is not None or name not in ("from", "sender"):
                shown[name] = value
        else:
            _add_computed(shown, name, message, view)
    for expansion in view.expand:
        if expansion.name not in view.hidden:
            _add_expansion(shown, expansion, message)
    return shown


def _add_computed(shown: dict[str, Any], name: str, message: Message, view: View) -> None:
    if name == "id":
        shown["id"] = message_id(message, view.preferences.immutable_ids)
    elif name == "changeKey":
        shown["changeKey"] = change_key(message.last_seq)
    elif name == "parentFolderId":
        shown["parentFolderId"] = message.folder.id
    elif name == "webLink":
        link = "https://outlook.office365.com/owa/?ItemID={}&exvsurl=1&viewmodel=ReadMessageItem"
        shown["webLink"] = link.format(quote(message.rest_id, safe=""))
    elif name == "uniqueBody":
        shown["uniqueBody"] = converted(message.properties["body"], view.preferences.body_type or "html")
    elif name == "internetMessageHeaders" and message.headers and not message.properties["isDraft"]:
        # Absent on drafts and on mail that never passed transport (graph.md 3.1 [D]).
        shown["internetMessageHeaders"] = message.headers


def _add_expansion(shown: dict[str, Any], expansion: Expansion, message: Message) -> None:
    if expansion.name == "attachments":
        select = attachment_select(expansion.options.get("$select"))
        shown["attachments"] = [attachment_json(entry, select) for entry in message.attachments]
    elif expansion.name == "singleValueExtendedProperties":
        kept = _wanted_extended(extended_list(message), expansion.options.get("$filter"))
        if kept:
            shown["singleValueExtendedProperties"] = kept
    elif expansion.name != "multiValueExtendedProperties":
        raise not_emulated(f"$expand={expansion.name}")


def extended_list(message: Message) -> list[dict[str, str]]:
    """The named properties: those that were set, and, as an assumption that no source of ours confirms for Graph, the
    X- headers as properties of the set PS_INTERNET_HEADERS."""
    listed = [{"id": name, "value": value} for name, value in message.extended.items()]
    taken = {entry["id"].casefold() for entry in listed}
    for header in message.headers:
        name = _INTERNET_HEADERS + header["name"]
        if header["name"].lower().startswith("x-") and name.casefold() not in taken:
            taken.add(name.casefold())
            listed.append({"id": name, "value": header["value"]})
    return listed


def _wanted_extended(entries: list[dict[str, str]], text: str | None) -> list[dict[str, str]]:
    if not text:
        return entries
    wanted = parse_filter(text, frozenset({"id", "value"}), "microsoft.graph.singleValueLegacyExtendedProperty")
    return [entry for entry in entries if wanted.matches(lambda path, entry=entry: walk(entry, [path]))]


def read_path(message: Message, path: str, immutable: bool = False) -> Any:
    """The value a $filter or $orderby path means."""
    first, *rest = path.split("/")
    if first == "singleValueExtendedProperties":
        return extended_list(message)
    if first == "internetMessageHeaders":
        return message.headers
    if first == "parentFolderId":
        return message.folder.id
    if first == "id":
        return message_id(message, immutable)
    return walk(message.properties.get(first), rest)


def attachment_select(text: str | None) -> list[str] | None:
    """The selected attachment properties; those of fileAttachment need the type cast (graph.md 7.2 [P])."""
    if not text:
        return None
    chosen = []
    for part in (piece.strip() for piece in text.split(",") if piece.strip()):
        cast = re.fullmatch(r"microsoft\.graph\.fileAttachment/(\w+)", part)
        name, known = (cast[1], _FILE_ATTACHMENT) if cast else (part, _BASE_ATTACHMENT)
        if name not in known:
            raise unknown_property(name, "microsoft.graph.fileAttachment" if cast else ATTACHMENT_TYPE)
        chosen.append(name)
    return chosen


def attachment_json(attachment: Attachment, select: list[str] | None = None) -> dict[str, Any]:
    """The attachment; without $select the content is included (graph.md 7.2 [D])."""
    if attachment.is_item or attachment.link:
        return _without_content(attachment, select)
    shown: dict[str, Any] = {
        "@odata.type": FILE_TYPE,
        "@odata.mediaContentType": attachment.content_type,
        "id": attachment.id,
        "lastModifiedDateTime": attachment.modified,
        "name": attachment.name,
        "contentType": attachment.content_type,
        "size": len(attachment.content),
        "isInline": attachment.is_inline,
    }
    if select is None or "contentId" in select:
        shown["contentId"] = attachment.content_id
    if select is None or "contentLocation" in select:
        shown["contentLocation"] = None
    if select is None or "contentBytes" in select:
        shown["contentBytes"] = base64.b64encode(attachment.content).decode()
    if select is None:
        return shown
    return {key: value for key, value in shown.items() if key.startswith("@") or key == "id" or key in select}


def _without_content(attachment: Attachment, select: list[str] | None) -> dict[str, Any]:
    """An attached message: no content here, it is read with `$value` (graph.md 7.1, 7.2 [D]); no type [P]. Or a link to
    a file elsewhere (7.1 [D])."""
    shown: dict[str, Any] = {
        "@odata.type": REFERENCE_TYPE if attachment.link else ITEM_TYPE,
        "id": attachment.id,
        "lastModifiedDateTime": attachment.modified,
        "name": attachment.name,
        "contentType": None,
        "size": len(attachment.content),
        "isInline": attachment.is_inline,
    }
    return {key: value for key, value in shown.items() if select is None or key in ("@odata.type", "id", *select)}
