"""A mail as the message resource that is stored for an upload (emailengine.md 13). Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from shared import mime
from shared.composing import check_headers
from shared.errors import InvalidInput

SEEN, DRAFT, FLAGGED = "\\seen", "\\draft", "\\flagged"
MOST_HEADERS = 5  # graph.md 6.4
FLAGS, DELIVERED, TRANSPORT_HEADERS = "Integer 0x0E07", "SystemTime 0x0E06", "String 0x007D"
READ, UNSENT = 1, 8  # bits of FLAGS
# Headers that travel as MAPI properties (graph.md 5.5).
_AS_PROPERTIES = {"in-reply-to": "inReplyTo", "references": "references"}

Fields = Mapping[str, Any]


def lowered(flags: Sequence[str]) -> frozenset[str]:
    return frozenset(one.strip().lower() for one in flags)


def checked(fields: Fields, *, given: Mapping[str, str]) -> dict[str, Any]:
    """The fields with the headers that were `given` where they can travel. InvalidInput names one that can not."""
    threading = dict(fields.get("threading") or {})
    for name, value in given.items():
        own = _AS_PROPERTIES.get(name.lower())
        if own:
            threading.setdefault(own, value.split() if own == "references" else value.strip())
    headers = {name: value for name, value in given.items() if name.lower() not in _AS_PROPERTIES}
    check_headers(dict(given))
    wrong = next((name for name in headers if not name.lower().startswith("x-")), None)
    if wrong is not None:
        text = f'Microsoft Graph can not store the header "{wrong}": only X- headers, In-Reply-To and References'
        raise InvalidInput.field("headers", text)
    if len(headers) > MOST_HEADERS:
        over = list(headers)[MOST_HEADERS]
        text = f'Microsoft Graph stores at most {MOST_HEADERS} custom headers: "{over}" is one too many'
        raise InvalidInput.field("headers", text)
    return {**fields, "headers": headers, "threading": threading}


def rendered(fields: Fields, message_id: str, flags: frozenset[str], delivered: str | None) -> bytes:
    """The JSON of the message: a draft only with that flag, read and flagged as the flags say, received then."""
    nobody = {"address": "nobody@localhost"}
    message = mime.structured({**fields, "from": fields.get("from") or nobody}, message_id=message_id, queue_id="")
    properties = [one for one in message["singleValueExtendedProperties"] if one["id"] != mime.STAMP_PROPERTY]
    bits = (READ if SEEN in flags else 0) | (UNSENT if DRAFT in flags else 0)
    properties.append({"id": FLAGS, "value": str(bits)})
    if delivered:
        properties.append({"id": DELIVERED, "value": delivered})
    if fields.get("transport") and DRAFT not in flags:
        properties.append({"id": TRANSPORT_HEADERS, "value": fields["transport"]})
    message["singleValueExtendedProperties"] = properties
    message["internetMessageHeaders"] = [one for one in message["internetMessageHeaders"] if one["name"] != mime.STAMP]
    if FLAGGED in flags:
        message["flag"] = {"flagStatus": "flagged"}
    if not fields.get("from"):
        del message["from"]
    elif DRAFT not in flags:
        message["sender"] = message["from"]
    return json.dumps({name: value for name, value in message.items() if value not in ([], None)}).encode()
