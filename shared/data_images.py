"""Pictures written into HTML as `data:` addresses become inline attachments, since mail readers do not show the former.
Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Any
from urllib.parse import unquote_to_bytes

from shared.html_tags import attributes, tags

_DATA = re.compile(r"data:(image/[a-z0-9.+-]{1,100})((?:;[a-z0-9.=_-]*+)*+),", re.IGNORECASE)


def with_attached_images(fields: dict[str, Any], domain: str) -> dict[str, Any]:
    """The fields with each picture attached once and shown by a cid of its own; what is no picture stays."""
    html = fields.get("html") or ""
    if "data:image/" not in html.lower():
        return fields
    pieces: list[str] = []
    found: dict[str, dict[str, Any]] = {}
    at = 0
    for tag in tags(html):
        for one in attributes(html, tag) if tag.name and not tag.closes else ():
            picture = _picture(one.value, domain) if one.name == "src" else None
            if picture is None:
                continue
            found.setdefault(picture["cid"], picture)
            pieces += [html[at : one.start], f'"cid:{picture["cid"]}"']
            at = one.end
    if not found:
        return fields
    attachments = [*(fields.get("attachments") or ()), *found.values()]
    return fields | {"html": "".join([*pieces, html[at:]]), "attachments": attachments}


def _picture(address: str, domain: str) -> dict[str, Any] | None:
    """The attachment behind a `data:` address; None when it is not one of a picture."""
    match = _DATA.match(address)
    if match is None:
        return None
    kind, encoded = match[1].lower(), unquote_to_bytes(address[match.end() :])
    content = _decoded(encoded) if match[2].lower().endswith(";base64") else encoded
    if not content:
        return None
    mark = hashlib.sha256(kind.encode() + b"\n" + content).hexdigest()[:24]
    return {
        "filename": f"image-{mark[:8]}{_ENDINGS.get(kind, '.' + kind.partition('/')[2].partition('+')[0])}",
        "contentType": kind,
        "contentDisposition": "inline",
        "cid": f"{mark}@{domain}",
        "content": base64.b64encode(content).decode(),
    }


def _decoded(encoded: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        return b""


_ENDINGS = {"image/jpeg": ".jpg", "image/x-icon": ".ico", "image/vnd.microsoft.icon": ".ico"}
