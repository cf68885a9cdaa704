"""JSON from callers → message content, refused as Graph refuses it (graph.md 3.1, 4 notes, 6.4, 7.1)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from .errors import GraphError
from .messages import ALL_PROPERTIES, RECIPIENT_LISTS, Attachment, NewMessage, recipient
from .wire_time import from_wire

MOST_CUSTOM_HEADERS = 5
_FLAG_STATES = ("notFlagged", "complete", "flagged")
_ENUMS = {"importance": ("low", "normal", "high"), "inferenceClassification": ("focused", "other")}
_BOOLEANS = ("isRead", "isDeliveryReceiptRequested", "isReadReceiptRequested")
_TEXTS = ("subject", "internetMessageId")
ALWAYS_UPDATABLE = frozenset(
    [
        "categories",
        "flag",
        "importance",
        "inferenceClassification",
        "isRead",
        "isDeliveryReceiptRequested",
        "isReadReceiptRequested",
        "from",
        "sender",
        "singleValueExtendedProperties",
        "multiValueExtendedProperties",
    ]
)
UPDATABLE_IN_DRAFTS = frozenset(
    ["subject", "body", "toRecipients", "ccRecipients", "bccRecipients", "replyTo", "internetMessageId"]
)
WRITABLE = ALWAYS_UPDATABLE | UPDATABLE_IN_DRAFTS
AT_CREATION = WRITABLE | {"attachments", "internetMessageHeaders"}


def wrong_body(message: str) -> GraphError:
    return GraphError(400, "RequestBodyRead", message)


def check_names(given: dict[str, Any], type_name: str = "microsoft.graph.message") -> None:
    """Raises 400 RequestBodyRead for a property the type does not have (graph.md 4, notes [F])."""
    for name in given:
        if not name.startswith("@") and name not in ALL_PROPERTIES:
            raise unknown_in_body(name, type_name)


def unknown_in_body(name: str, type_name: str) -> GraphError:
    return wrong_body(
        f"The property '{name}' does not exist on type '{type_name}'. Make sure to only use property names "
        "that are defined by the type or mark the type as open type."
    )


def read_message(given: dict[str, Any]) -> NewMessage:
    """The content of a message in a create or sendMail body. Read-only properties are ignored [P]."""
    check_names(given)
    properties = {name: _READERS[name](name, value) for name, value in given.items() if name in _READERS}
    content = NewMessage(properties, extended=read_extended(given.get("singleValueExtendedProperties")))
    content.headers = _custom_headers(given.get("internetMessageHeaders"))
    content.attachments = [read_attachment(entry) for entry in _list("attachments", given.get("attachments"))]
    return content


def read_changes(given: dict[str, Any], is_draft: bool) -> dict[str, Any]:
    """The properties a PATCH sets. Raises 400 for unknown names and for what may not be changed (3.1 [D])."""
    check_names(given)
    changes = {}
    for name, value in given.items():
        if name.startswith("@"):
            continue
        if name not in WRITABLE:
            # The code for read-only properties is assumed [P]: EWS has it for the same situation.
            raise GraphError(400, "ErrorInvalidPropertySet", f"Set action is invalid for property {name}.")
        if name in UPDATABLE_IN_DRAFTS and not is_draft:
            message = "Update operation is invalid for property of a sent message."
            raise GraphError(400, "ErrorInvalidPropertyUpdateSentMessage", message)
        if name in _READERS:
            changes[name] = _READERS[name](name, value)
    return changes


def read_extended(given: Any) -> dict[str, str]:
    """Single-value extended properties by id (graph.md 5.5 [D])."""
    found = {}
    for entry in _list("singleValueExtendedProperties", given):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            raise wrong_body("An extended property needs an id and a value.")
        found[entry["id"]] = str(entry.get("value", ""))
    return found


def read_attachment(given: Any) -> Attachment:
    """A file attachment from JSON; `@odata.type` is required (graph.md 7.1 [D])."""
    kind = given.get("@odata.type") if isinstance(given, dict) else None
    if not isinstance(kind, str):
        raise wrong_body("An attachment needs the property '@odata.type'; microsoft.graph.attachment is abstract.")
    short = kind.lstrip("#").lower()
    if short in ("microsoft.graph.itemattachment", "microsoft.graph.referenceattachment"):
        raise GraphError(501, "NotImplemented", f"The local tenant does not emulate attachments of type {kind}.")
    if short != "microsoft.graph.fileattachment":
        raise wrong_body(f"A type named '{kind}' could not be resolved by the model.")
    return Attachment(
        id="",
        name=_text("name", given.get("name")),
        content_type=given.get("contentType") or "application/octet-stream",
        content=_bytes(given.get("contentBytes")),
        is_inline=bool(given.get("isInline")),
        content_id=given.get("contentId"),
    )


def _bytes(given: Any) -> bytes:
    if not isinstance(given, str):
        raise wrong_body("Cannot convert the value of 'contentBytes' to the expected type 'Edm.Binary'.")
    try:
        return base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise wrong_body("Cannot convert the value of 'contentBytes' to the expected type 'Edm.Binary'.") from None


def _custom_headers(given: Any) -> list[dict[str, str]]:
    """graph.md 6.4: only x- names, at most five."""
    entries = _list("internetMessageHeaders", given)
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise wrong_body("An internet message header needs a name and a value.")
        if not entry["name"].lower().startswith("x-"):
            message = f"The internet message header name '{entry['name']}' should start with 'x-' or 'X-'."
            raise GraphError(400, "InvalidInternetMessageHeader", message)
    if len(entries) > MOST_CUSTOM_HEADERS:
        message = f"Maximum number of headers in one message should be less than or equal to {MOST_CUSTOM_HEADERS}."
        raise GraphError(400, "InvalidInternetMessageHeaderCollection", message)
    return [{"name": entry["name"], "value": str(entry.get("value", ""))} for entry in entries]


def _list(name: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong_body(f"A 'StartArray' node was expected for the property '{name}'.")
    return value


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong_body(f"Cannot convert the value of '{name}' to the expected type 'Edm.String'.")
    return value


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong_body(f"Cannot convert the value of '{name}' to the expected type 'Edm.Boolean'.")
    return value


def _enum(name: str, value: Any) -> str:
    # Graph accepts other casing in requests (graph.md 3.1 [D]).
    for allowed in _ENUMS[name]:
        if isinstance(value, str) and value.lower() == allowed:
            return allowed
    raise wrong_body(f"Cannot convert the literal '{value}' to the expected type 'microsoft.graph.{name}'.")


def _body(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise wrong_body("Cannot convert the value of 'body' to the expected type 'microsoft.graph.itemBody'.")
    for key in value:
        if not key.startswith("@") and key not in ("contentType", "content"):
            raise unknown_in_body(key, "microsoft.graph.itemBody")
    kind = str(value.get("contentType") or "text").lower()
    if kind not in ("text", "html"):
        raise wrong_body(f"Cannot convert the literal '{kind}' to the expected type 'microsoft.graph.bodyType'.")
    return {"contentType": kind, "content": _text("content", value.get("content"))}


def _recipient(name: str, value: Any) -> dict[str, dict[str, str]] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise wrong_body(f"Cannot convert the value of '{name}' to the expected type 'microsoft.graph.recipient'.")
    for key in value:
        if not key.startswith("@") and key != "emailAddress":
            raise unknown_in_body(key, "microsoft.graph.recipient")
    inner = value.get("emailAddress") or {}
    for key in inner:
        if not key.startswith("@") and key not in ("name", "address"):
            raise unknown_in_body(key, "microsoft.graph.emailAddress")
    return recipient(_text("address", inner.get("address")).strip(), _text("name", inner.get("name")))


def _recipients(name: str, value: Any) -> list[dict[str, dict[str, str]]]:
    return [one for one in (_recipient(name, entry) for entry in _list(name, value)) if one is not None]


def _categories(name: str, value: Any) -> list[str]:
    return [_text(name, entry) for entry in _list(name, value)]


def _flag(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_body("Cannot convert the value of 'flag' to the expected type 'microsoft.graph.followupFlag'.")
    if value.get("dueDateTime") and not value.get("startDateTime"):
        # graph.md 3.1 [D] says 400; the code is assumed [P].
        raise GraphError(400, "ErrorPropertyValidationFailure", "A due date needs a start date.")
    state = next((s for s in _FLAG_STATES if s.lower() == str(value.get("flagStatus", "")).lower()), None)
    if state is None:
        raise wrong_body("Cannot convert the literal to the expected type 'microsoft.graph.followupFlagStatus'.")
    kept = {key: value[key] for key in ("completedDateTime", "dueDateTime", "startDateTime") if value.get(key)}
    return {"flagStatus": state, **kept}


_READERS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(_TEXTS, _text),
    **dict.fromkeys(_BOOLEANS, _boolean),
    **dict.fromkeys(_ENUMS, _enum),
    **dict.fromkeys(RECIPIENT_LISTS, _recipients),
    "from": _recipient,
    "sender": _recipient,
    "body": _body,
    "categories": _categories,
    "flag": _flag,
}


def read_time(name: str, value: Any) -> Any:
    """An aware datetime from a body property; 400 when it is none."""
    try:
        return from_wire(value)
    except (TypeError, ValueError):
        raise wrong_body(f"Cannot convert the literal '{value}' to the expected type 'Edm.DateTimeOffset'.") from None
