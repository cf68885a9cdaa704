"""Upload sessions for large attachments: what was begun, what has arrived, and when it is forgotten (graph.md 7.3)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from .errors import GraphError
from .messages import Attachment

if TYPE_CHECKING:
    from .mailbox import Mailbox
    from .messages import Message
    from .world import World

PREFIX = "/upload/"
LARGEST_ATTACHMENT = 150 * 1024 * 1024  # graph.md 7.3 [D]
LARGEST_RANGE = 4 * 1024 * 1024  # one PUT carries less than that (7.3 [D])
WINDOW_S = 300  # graph.md 11 [D]: upload per app and mailbox


@dataclass
class UploadSession:
    """One attachment on its way. `expires` moves on with every range [P]."""

    token: str
    app_id: str
    mailbox: Mailbox
    message: Message
    attachment: Attachment
    size: int
    expires: datetime
    received: bytearray = field(default_factory=bytearray)

    @property
    def next_start(self) -> int:
        return len(self.received)


class Uploads:
    """The open sessions, by the token in their URL, and what was uploaded in the last minutes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._open: dict[str, UploadSession] = {}
        self._volume: dict[tuple[str, str], deque[tuple[datetime, int]]] = {}

    def begin(
        self, app_id: str, mailbox: Mailbox, message: Message, attachment: Attachment, size: int
    ) -> UploadSession:
        """A new session for an attachment of a draft."""
        token = f"{self._world.random.getrandbits(256):064x}"
        session = UploadSession(token, app_id, mailbox, message, attachment, size, self._following())
        self._open[token] = session
        return session

    def _following(self) -> datetime:
        return self._world.clock.now() + timedelta(minutes=self._world.switches.upload_session_minutes)

    def find(self, token: str) -> UploadSession:
        """The open session. Raises 404 when it is unknown, expired, or its draft is gone; the code is assumed [P]."""
        session = self._open.get(token)
        if session is not None and (session.expires <= self._world.clock.now() or session.message.removed):
            del self._open[token]
            session = None
        if session is None:
            raise GraphError(404, "ErrorItemNotFound", "The upload session was not found.")
        return session

    def add(self, session: UploadSession, content: bytes) -> None:
        session.received += content
        session.expires = self._following()

    def end(self, session: UploadSession) -> None:
        """Completed or cancelled: its URL leads nowhere any more."""
        self._open.pop(session.token, None)

    @property
    def open_count(self) -> int:
        return len(self._open)

    def owner(self, token: str | None) -> tuple[str | None, str | None]:
        """(application id, mailbox id) a request on an upload URL counts for."""
        session = self._open.get(token or "")
        return (session.app_id, session.mailbox.principal.id) if session else (None, None)

    def count(self, app_id: str | None, mailbox_id: str | None, size_bytes: int) -> None:
        """Raises 429 when the application uploads more to this mailbox than the switch allows in five minutes."""
        limit = self._world.switches.upload_limit_mb * 1024 * 1024
        if not limit or app_id is None or mailbox_id is None:
            return
        now = self._world.clock.now()
        seen = self._volume.setdefault((app_id, mailbox_id), deque())
        while seen and seen[0][0] <= now - timedelta(seconds=WINDOW_S):
            seen.popleft()
        if sum(size for _, size in seen) + size_bytes > limit:
            wait_s = (seen[0][0] - now).total_seconds() + WINDOW_S if seen else WINDOW_S
            message = "Application is over its IncomingBytes limit."
            raise GraphError(429, "ApplicationThrottled", message, {"Retry-After": f"{max(1.0, wait_s):.0f}"})
        seen.append((now, size_bytes))
