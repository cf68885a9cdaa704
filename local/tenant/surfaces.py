"""Which of the emulated services a URL path belongs to, and which mailbox it is about."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote

Surface = Literal["graph", "upload", "login", "msi", "control"]

_LOGIN = re.compile(r"^/[^/]+/(oauth2|v2\.0|discovery|adminconsent|\.well-known)(/|$)")
# graph.md 2.2 [D]: /users/{id} and, for UPNs that begin with $, /users('...').
_MAILBOX = re.compile(r"^/v1\.0/(?:(?P<me>me)|users/(?P<user>[^/]+)|users\('(?P<quoted>[^']+)'\))(?:/|$)")


def surface_of(path: str) -> Surface:
    """The service a path belongs to; what is neither control, identity nor login counts as Graph."""
    if path.startswith("/_tenant"):
        return "control"
    if path.startswith("/msi/"):
        return "msi"
    if path.startswith("/upload/"):
        return "upload"
    if path.startswith("/v1.0"):
        return "graph"
    return "login" if _LOGIN.match(path) else "graph"


def mailbox_reference(path: str) -> str | None:
    """The mailbox a Graph path names: "me", a reference as written, or None for paths about no mailbox."""
    found = _MAILBOX.match(path)
    if found is None:
        return None
    return "me" if found["me"] else unquote(found["user"] or found["quoted"])
