"""Answers that are not made of fields: large JSON, and files with their names (RFC 6266, RFC 5987)."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

from fastapi import Response

LONGEST_NAME = 200
_SIMPLE = re.compile(r"[A-Za-z0-9 !#$&'()+,.;=@\[\]^_`{}~-]*")
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(?:; ?[A-Za-z0-9!#$&^_.+-]+=[ -~]*)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def json_answer(body: Any) -> Response:
    """The body as JSON, without the walk through every value that a framework takes. Halves of characters, which mail
    programs and Graph's previews leave behind, become the replacement character."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raw = _mended(text).encode()
    return Response(raw, media_type="application/json")


def _mended(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def download(content: bytes, content_type: str, disposition: str) -> Response:
    """Bytes as they are, never shown as a page."""
    kind = content_type if _TYPE.fullmatch(content_type) else "application/octet-stream"
    headers = {"Content-Type": kind, "Content-Disposition": disposition, "X-Content-Type-Options": "nosniff"}
    return Response(content, headers=headers)


def attachment_named(name: str) -> str:
    """A Content-Disposition for a file of this name, whatever it holds."""
    name = _mended(_CONTROL.sub("", name)).strip()[-LONGEST_NAME:]
    if not name:
        return "attachment"
    if _SIMPLE.fullmatch(name):
        return f'attachment; filename="{name}"'
    plain = "".join(one if _SIMPLE.fullmatch(one) else "_" for one in name)
    return f"attachment; filename=\"{plain}\"; filename*=utf-8''{quote(name, safe='')}"
