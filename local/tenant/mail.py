"""All mailboxes of the tenant, delivery into them, and what control sees of them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from .delta import DeltaRounds
from .folders import WELL_KNOWN_NAMES, Folder
from .ids import IdSource
from .mailbox import Change, Mailbox
from .message_json import View, attachment_json, message_json
from .messages import ALL_PROPERTIES, NAVIGATION, Attachment, Message, NewMessage, recipient
from .mime_reading import header_list, read_mime, with_headers
from .mime_writing import listed_headers
from .query_options import Preferences
from .uploads import Uploads
from .wire_time import to_wire

if TYPE_CHECKING:
    from .directory import Principal
    from .world import World

_EXTERNAL = "external:"
# What belongs to the sender's item and not to the message in transport [P].
_STAYS_BEHIND = ("createdDateTime", "lastModifiedDateTime", "categories", "flag", "inferenceClassification")
# Extended properties that become headers (In-Reply-To, References; graph.md 5.5 [P]); others stay behind [P].
_TRAVELS = ("string 0x1042", "string 0x1039")


class MailStore:
    """The mailboxes, made when first touched, and a record of mail that left the tenant."""

    def __init__(self, world: World) -> None:
        self.delta = DeltaRounds(world.random)
        self.uploads = Uploads(world)
        self._world = world
        self._mailboxes: dict[str, Mailbox] = {}
        self._outgoing: dict[str, list[dict[str, Any]]] = {}
        # Called with every change; the notifier registers here.
        self.listeners: list[Callable[[Change], None]] = []

    def mailbox(self, principal: Principal) -> Mailbox:
        """The mailbox of a principal that has one."""
        found = self._mailboxes.get(principal.id)
        if found is None:
            ids = IdSource(self._world.random)
            found = Mailbox(principal, ids, self._world.clock.now, self._tell_listeners)
            self._mailboxes[principal.id] = found
        found.principal = principal
        return found

    def _tell_listeners(self, change: Change) -> None:
        for listener in self.listeners:
            listener(change)

    # -- for control --------------------------------------------------------------------------------------

    def deliver(
        self,
        sender: dict[str, str],
        recipients: list[str],
        *,
        to: list[Any] | None = None,
        cc: list[Any] | None = None,
        subject: str = "",
        text: str | None = None,
        html: str | None = None,
        headers: dict[str, str] | None = None,
        folder: str | None = None,
        attachments: list[dict[str, Any]] | None = None,
        message_id: str | None = None,
        raw: bytes | None = None,
    ) -> list[dict[str, Any]]:
        """Puts mail from outside into the mailboxes named by `recipients`; says where it lies.

        Raises KeyError for an address without a mailbox, before anything is delivered.
        """
        owners = [(address, self._owner(address)) for address in recipients]
        if raw is not None:
            content = read_mime(raw)
        else:
            content = self._composed(sender, to if to is not None else recipients, cc or [], subject, text, html)
            content.attachments = [_given_attachment(entry) for entry in attachments or []]
            content.headers = [{"name": name, "value": value} for name, value in (headers or {}).items()]
            content.properties["internetMessageId"] = message_id or self.new_message_id(sender["address"])
        placed = []
        for address, owner in owners:
            mailbox = self.mailbox(owner)
            target = _folder_named(mailbox, folder) if folder else mailbox.well_known["inbox"]
            message = self.place(content, mailbox, target, address)
            mime_id = message.properties["internetMessageId"]
            placed.append({"mailbox": owner.upn, "id": message.immutable_id, "internetMessageId": mime_id})
        return placed

    def dump(self, reference: str, folder: str | None = None) -> list[dict[str, Any]]:
        """Every message of a mailbox (or of one folder) with all properties, newest first.

        `external:<address>` gives the mail that left the tenant for that address. KeyError for no mailbox.
        """
        if reference.startswith(_EXTERNAL):
            return list(self._outgoing.get(reference[len(_EXTERNAL) :].lower(), []))
        mailbox = self.mailbox(self._owner(reference))
        if folder is None:
            return [full_json(message) for message in mailbox.all_newest_first()]
        return [full_json(message) for message in _folder_named(mailbox, folder).newest_first()]

    def folders(self, reference: str) -> list[dict[str, Any]]:
        """Every folder of a mailbox, flat, with its well-known name. KeyError for no mailbox."""
        mailbox = self.mailbox(self._owner(reference))
        known = mailbox.visible_folders()
        return [{**mailbox.folder_json(folder), "wellKnownName": folder.well_known} for folder in known]

    def _owner(self, reference: str) -> Principal:
        directory = self._world.directory
        owner = directory.mailbox_for_address(reference) or directory.find(reference)
        if owner is None or owner.kind not in ("user", "shared"):
            raise KeyError(reference)
        return owner

    # -- for sending --------------------------------------------------------------------------------------

    def place(self, content: NewMessage, mailbox: Mailbox, folder: Folder, address: str) -> Message:
        """Delivers one copy: unread, without Bcc, with the headers transport leaves behind (graph.md 8.3)."""
        now = self._world.clock.now()
        host = f"{mailbox.principal.id[:8]}.mail.local"
        trace = f"from mail.local by {host} for <{address}>; {format_datetime(now)}"
        if content.raw is not None:
            delivered = with_headers(content.raw, {"bcc"}, [("Received", trace)], [])
            headers = header_list(delivered)
        else:
            delivered = None
            headers = [{"name": "Received", "value": trace}, *_transport_headers(content)]
        kept = {name: value for name, value in content.properties.items() if name not in _STAYS_BEHIND}
        copy = NewMessage(
            {**kept, "bccRecipients": []},
            content.attachments,
            {tag: value for tag, value in content.extended.items() if tag.casefold() in _TRAVELS},
            headers,
            delivered,
            content.alternative_text,
            passed_transport=True,
        )
        return mailbox.add(copy, folder, isRead=False, isDraft=False, receivedDateTime=to_wire(now))

    def record_outgoing(self, content: NewMessage, address: str) -> None:
        """Remembers mail to an address outside the tenant; readable with dump("external:<address>")."""
        listed = {**content.properties, "bccRecipients": [], "recipient": address}
        listed["internetMessageHeaders"] = _transport_headers(content)
        listed["attachments"] = [attachment_json(entry) for entry in content.attachments]
        listed["hasAttachments"] = any(not entry.is_inline for entry in content.attachments)
        if content.raw is not None:
            stripped = with_headers(content.raw, {"bcc"}, [], [])
            listed["_raw"] = base64.b64encode(stripped).decode()
        self._outgoing.setdefault(address.lower(), []).append(listed)

    def is_local_domain(self, address: str) -> bool:
        """Whether mail to that domain stays in the tenant, so that an unknown name bounces."""
        domain = address.rpartition("@")[2].lower()
        directory = self._world.directory
        return any(
            domain == own.rpartition("@")[2].lower()
            for principal in directory.principals.values()
            for own in (principal.upn, principal.mail or "", *principal.aliases)
        )

    def later(self, delay_s: float, act: Callable[[], object]) -> None:
        """Runs `act` after the delay; at once without a delay."""
        if delay_s <= 0:
            act()
        else:
            asyncio.get_running_loop().call_later(delay_s, act)

    def new_message_id(self, address: str) -> str:
        """A Message-ID in the domain of `address`."""
        return f"<{self._world.random.getrandbits(128):032x}@{address.rpartition('@')[2] or 'mail.local'}>"

    def _composed(
        self,
        sender: dict[str, str],
        to: list[Any],
        cc: list[Any],
        subject: str,
        text: str | None,
        html: str | None,
    ) -> NewMessage:
        who = recipient(sender["address"], sender.get("name"))
        kind, content = ("html", html) if html is not None else ("text", text or "")
        composed = NewMessage(
            {
                "from": who,
                "sender": who,
                "toRecipients": [_given_recipient(entry) for entry in to],
                "ccRecipients": [_given_recipient(entry) for entry in cc],
                "subject": subject,
                "body": {"contentType": kind, "content": content},
                "sentDateTime": to_wire(self._world.clock.now()),
            }
        )
        composed.alternative_text = text if html is not None else None
        return composed


def _folder_named(mailbox: Mailbox, name: str) -> Folder:
    """By well-known name (made when absent), id or shown name. KeyError when there is none."""
    if name.lower() in WELL_KNOWN_NAMES:
        return mailbox.ensure_well_known(name.lower())
    for folder in mailbox.folders.values():
        if name in (folder.id, folder.name):
            return folder
    raise KeyError(name)


def _given_recipient(entry: Any) -> dict[str, dict[str, str]]:
    """Control may write an address, a {name, address}, or the Graph form."""
    if isinstance(entry, str):
        return recipient(entry)
    inner = entry.get("emailAddress", entry)
    return recipient(inner["address"], inner.get("name"))


def _given_attachment(entry: dict[str, Any]) -> Attachment:
    return Attachment(
        id="",
        name=entry.get("name", "attachment"),
        content_type=entry.get("contentType", "application/octet-stream"),
        content=base64.b64decode(entry.get("contentBytes", "")),
        is_inline=bool(entry.get("isInline")),
        content_id=entry.get("contentId"),
        link=entry.get("link") or "",
    )


def _transport_headers(content: NewMessage) -> list[dict[str, str]]:
    """The header block the message travels with, without Bcc."""
    listed = header_list(content.raw) if content.raw is not None else listed_headers(content)
    return [header for header in listed if header["name"].lower() != "bcc"]


def full_json(message: Message) -> dict[str, Any]:
    """The message with every property, attachments and, when it came as MIME, `_raw`."""
    view = View(Preferences(immutable_ids=True), sorted(ALL_PROPERTIES - NAVIGATION - {"uniqueBody"}))
    view.preferences.body_type = message.properties["body"]["contentType"]
    shown = message_json(message, view)
    shown["attachments"] = [attachment_json(entry) for entry in message.attachments]
    shown["singleValueExtendedProperties"] = [{"id": k, "value": v} for k, v in message.extended.items()]
    shown.setdefault("internetMessageHeaders", message.headers)
    if message.raw is not None:
        shown["_raw"] = base64.b64encode(message.raw).decode()
    return shown
