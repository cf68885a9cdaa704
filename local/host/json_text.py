"""JSON as the host rewrites it: text that looks like JSON is parsed and comes out indented."""

import json
import re
from typing import Any

_DATE_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,7}))?(Z|\+00:00)?")


def looks_like_json(text: str) -> bool:
    """Whether the host would try to parse it: the outermost characters are braces or brackets."""
    bare = text.strip()
    return (bare[:1], bare[-1:]) in (("{", "}"), ("[", "]"))


def host_text(value: Any) -> str:
    """The text the host makes of a parsed JSON value; a string stays what it is."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return str(value) if isinstance(value, bool) else json.dumps(_dates(value), indent=2, ensure_ascii=False)


def _dates(value: Any) -> Any:
    """ISO date-times pass through a date type in the host, so fractions of a second lose their zeros."""
    if isinstance(value, dict):
        return {key: _dates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_dates(item) for item in value]
    found = _DATE_TIME.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return value
    fraction = (found[2] or "").rstrip("0")
    return found[1] + (f".{fraction}" if fraction else "") + (found[3] or "")
