"""The whole state of the stand-in tenant in one object, and the switches that change how it behaves."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from .directory import Directory
from .faults import Faults
from .login import Login
from .request_log import RequestLog
from .seed import seed_directory

if TYPE_CHECKING:
    from .mail import MailStore
    from .notify import Notifier


@dataclass
class Switches:
    """Behaviours on which reports disagree or which a test wants to choose; all settable over control.

    The notes name the section of graph.md that leaves the choice open.
    """

    resolve_aliases: bool = False  # 8.2 [F]
    missing_full_access: Literal["404", "403"] = "404"  # 9.1 [F]
    shared_subscription_mode: Literal["silent", "forbidden"] = "silent"  # 10.2 [F]
    subscription_ceiling_minutes: int = 10070  # 10.3
    # What sendMail with MIME uses as From: the header of the message, or always the token's user (8.3, 16).
    mime_from: Literal["header", "authenticated_user"] = "header"
    # The sender of POST /users/{shared}/sendMail without `from` (8.3 [F], reports disagree).
    default_from: Literal["mailbox", "user"] = "mailbox"
    sent_items_delay_s: float = 0  # 6.1 [D]: the copy appears seconds later
    notification_delay_s: float = 0.05
    notification_repeat: int = 1  # each notification is sent this many times
    notification_loss: float = 0  # probability that one is not sent
    notification_shuffle: bool = False
    access_token_lifetime_s: int = 4500  # 12.4 [D]: between 60 and 90 minutes
    concurrency_limit: int = 4  # 11 [D]; 0 = no limit
    upload_limit_mb: int = 0  # 11 [D]: 150 per app and mailbox in five minutes; 0 = no limit
    upload_session_minutes: int = 60  # 7.3 [D] names an end, not how far off it is
    auto_sign_in: str | None = None  # UPN that approves every authorize request at once
    identity_header: str = "local"  # value expected in X-IDENTITY-HEADER (13.2)
    capture_bodies: bool = True  # whether the request log keeps request bodies


class Clock:
    """The tenant's time: real UTC time plus an offset that control can move."""

    def __init__(self) -> None:
        self.offset_s: float = 0.0

    def now(self) -> datetime:
        """The current time in the tenant, aware UTC."""
        return datetime.now(UTC) + timedelta(seconds=self.offset_s)


class World:
    """A tenant with everything in it. `reset()` empties it, `seed()` fills in the demonstration tenant."""

    directory: Directory
    switches: Switches
    faults: Faults
    log: RequestLog
    clock: Clock
    random: random.Random
    login: Login
    mail: MailStore
    notifier: Notifier
    journal: Callable[[dict[str, Any]], None] | None = None  # see journal.py; a reset leaves it

    def __init__(self, base_url: str = "") -> None:
        self.base_url = base_url
        # Services started beside the tenant; their /oauth is a redirect URI of the seeded application.
        self.service_urls: list[str] = []
        self.reset()

    def reset(self, random_seed: int | None = None) -> None:
        """Back to an empty tenant; with a seed, ids and chances repeat from run to run."""
        self.switches = Switches()
        self.clock = Clock()
        self.random = random.Random(random_seed)
        self.directory = Directory(self.switches)
        self.faults = Faults(self)
        self.log = RequestLog()
        self.login = Login(self)
        self._open_mail()

    def _open_mail(self) -> None:
        # Imported late: mail and notifications are written against World and import this module.
        from .mail import MailStore
        from .notify import Notifier

        self.mail = MailStore(self)
        self.notifier = Notifier(self)

    def seed(self, random_seed: int | None = None) -> None:
        """The demonstration tenant on an emptied world (see seed.py)."""
        self.reset(random_seed)
        seed_directory(self.directory, [url.rstrip("/") + "/oauth" for url in self.service_urls])

    def new_guid(self) -> str:
        """A fresh GUID from the seedable source."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))
