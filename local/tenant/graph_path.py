"""Graph URL paths taken apart: `users('x')/mailFolders('inbox')/messages/delta()` and its slash form.

OData keys may stand in brackets or as segments, functions with or without `()` and namespace (graph.md 2.2,
5.3, 10.1 [D]).
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_KEYED = re.compile(r"([A-Za-z]+)\('(.*)'\)", re.DOTALL)


def split_path(raw_path: str) -> list[str]:
    """The segments of a path, decoded after splitting, keys in brackets as segments of their own."""
    segments: list[str] = []
    for raw in raw_path.strip("/").split("/"):
        text = unquote(raw)
        keyed = _KEYED.fullmatch(text)
        if keyed:
            segments += [keyed[1], keyed[2].replace("''", "'")]
        else:
            segments.append(text.removesuffix("()").removeprefix("microsoft.graph."))
    return segments


def fit(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    """The keys when the segments fit the pattern (`{name}` takes any segment), else None.

    Literal segments compare without case, as Graph does [P].
    """
    if len(pattern) != len(segments):
        return None
    keys = {}
    for wanted, given in zip(pattern, segments, strict=True):
        if wanted.startswith("{"):
            keys[wanted[1:-1]] = given
        elif wanted.lower() != given.lower():
            return None
    return keys
