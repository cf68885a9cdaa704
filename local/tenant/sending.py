"""What happens to a sent message: rights, From and Sender, copies, delivery, bounces (graph.md 6.1, 8.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from .bounces import undeliverable
from .errors import GraphError
from .mailbox import Mailbox
from .messages import Message, NewMessage, address_of, recipient
from .mime_reading import header_list, read_mime, with_headers
from .wire_time import to_wire

if TYPE_CHECKING:
    from .directory import Principal
    from .login import Caller
    from .world import World

_ADDRESS = re.compile(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+")
_RECIPIENTS = ("toRecipients", "ccRecipients", "bccRecipients")


@dataclass(frozen=True, slots=True)
class Senders:
    """Who the recipient sees, and by which right. `right` is None when nobody else's name is used."""

    shown: Principal
    submitted_by: Principal
    right: Literal["send_as", "send_on_behalf"] | None = None


def send_as_denied() -> GraphError:
    """graph.md 9.1 [F], exact text."""
    message = (
        "The user account which was used to submit this request does not have the right to send mail on "
        "behalf of the specified sending account., Cannot submit message."
    )
    return GraphError(403, "ErrorSendAsDenied", message)


def check_recipients(content: NewMessage) -> None:
    """Raises 400 ErrorInvalidRecipients for none at all or a broken address (graph.md 6.1 [D])."""
    addresses = recipient_addresses(content)
    if not addresses:
        none = "A message can't be sent until it contains at least one recipient."
        message = f"At least one recipient isn't valid., {none}"
        raise GraphError(400, "ErrorInvalidRecipients", message)
    if not all(_ADDRESS.fullmatch(address) for address in addresses):
        raise GraphError(400, "ErrorInvalidRecipients", "At least one recipient isn't valid.")


def recipient_addresses(content: NewMessage) -> list[str]:
    """To, Cc and Bcc addresses in order; a recipient without an address counts as an empty one."""
    return [address_of(who) or "" for name in _RECIPIENTS for who in content.properties.get(name) or []]


def choose_senders(
    world: World, caller: Caller, mailbox: Principal, content: NewMessage, mime_at_once: bool
) -> Senders:
    """The rows of the table in graph.md 8.3. Raises 403 ErrorSendAsDenied without the right.

    `mime_at_once` is sendMail with MIME, the one form whose From header may not count (switch `mime_from`).
    """
    # An application acts as the mailbox in the URL; a person acts as himself.
    actor = caller.principal or mailbox
    wanted = _wanted_from(world, caller, content, mime_at_once)
    if wanted is None:
        senders = _rights_for(world, actor, mailbox)
        if world.switches.default_from == "user":
            senders = Senders(actor, actor)
    else:
        shown = world.directory.mailbox_for_address(wanted)
        if shown is None:
            raise send_as_denied()
        senders = _rights_for(world, actor, shown)
    _check_given_sender(world, actor, content)
    return senders


def _wanted_from(world: World, caller: Caller, content: NewMessage, mime_at_once: bool) -> str | None:
    """The From address asked for; for MIME the switch `mime_from` decides whether it counts (6.3 [F])."""
    if mime_at_once and world.switches.mime_from == "authenticated_user":
        person = caller.principal if caller.kind == "user" else None
        return (person.mail or person.upn) if person is not None else None
    return address_of(content.properties.get("from"))


def _rights_for(world: World, actor: Principal, shown: Principal) -> Senders:
    """Send As wins over Send on Behalf when a user holds both (graph.md 8.1 [F])."""
    if shown.id == actor.id:
        return Senders(actor, actor)
    if world.directory.has_right(actor, shown, "send_as"):
        return Senders(shown, shown, "send_as")
    if world.directory.has_right(actor, shown, "send_on_behalf"):
        return Senders(shown, actor, "send_on_behalf")
    raise send_as_denied()


def _check_given_sender(world: World, actor: Principal, content: NewMessage) -> None:
    """A `sender` other than the person himself needs Send As (graph.md 8.3: ErrorSendAsDenied)."""
    given = address_of(content.properties.get("sender"))
    if given is None or content.raw is not None:
        return
    sender = world.directory.mailbox_for_address(given)
    if sender is None or not world.directory.has_right(actor, sender, "send_as"):
        raise send_as_denied()


def submit(
    world: World,
    caller: Caller,
    mailbox: Mailbox,
    content: NewMessage,
    save_copy: bool = True,
    draft: Message | None = None,
) -> None:
    """Sends `content` from the mailbox in the URL: delivers it and files the copies."""
    check_recipients(content)
    mime_at_once = content.raw is not None and draft is None
    senders = choose_senders(world, caller, mailbox.principal, content, mime_at_once)
    stamped = _stamped(world, content, senders)
    if draft is not None:
        _file_draft(world, mailbox, draft, stamped)
    for place in _copy_mailboxes(world, mailbox, senders, save_copy, draft):
        _file_copy(world, place, stamped)
    for address in dict.fromkeys(address.lower() for address in recipient_addresses(stamped)):
        _deliver(world, stamped, address, senders)


def _stamped(world: World, content: NewMessage, senders: Senders) -> NewMessage:
    """The content as it leaves: From, Sender, Date and Message-ID set."""
    shown, submitted_by = _as_recipient(senders.shown), _as_recipient(senders.submitted_by)
    given_id = content.properties.get("internetMessageId")
    changes = {
        "from": shown,
        "sender": submitted_by,
        "internetMessageId": given_id or world.mail.new_message_id(senders.shown.mail or senders.shown.upn),
        "isDraft": False,
    }
    if content.raw is None:
        changes["sentDateTime"] = to_wire(world.clock.now())
        return replace(content, properties={**content.properties, **changes})
    raw = _stamped_raw(content, senders, str(changes["internetMessageId"]))
    sent = {"sentDateTime": to_wire(world.clock.now()), **read_mime(raw).properties}
    kept = {**content.properties, "sentDateTime": sent["sentDateTime"], **changes}
    return replace(content, properties=kept, raw=raw, headers=header_list(raw))


def _stamped_raw(content: NewMessage, senders: Senders, mime_id: str) -> bytes:
    """The MIME with the true From and Sender; untouched when they are right already."""
    raw = content.raw or b""
    shown, submitted_by = _address(senders.shown), _address(senders.submitted_by)
    drop: set[str] = set()
    added: list[tuple[str, str]] = []
    if (address_of(read_mime(raw).properties.get("from")) or "").lower() != shown.lower():
        drop.add("from")
        added.append(("From", _mailbox_text(senders.shown)))
    if shown != submitted_by or address_of(content.properties.get("sender")):
        drop.add("sender")
        added += [("Sender", _mailbox_text(senders.submitted_by))] if shown != submitted_by else []
    if not content.properties.get("internetMessageId"):
        added.append(("Message-ID", mime_id))
    return with_headers(raw, drop, [], added) if drop or added else raw


def _mailbox_text(principal: Principal) -> str:
    name = principal.display_name.encode("ascii", "replace").decode().replace('"', "'")
    return f'"{name}" <{_address(principal)}>'


def _address(principal: Principal) -> str:
    return principal.mail or principal.upn


def _as_recipient(principal: Principal) -> dict[str, dict[str, str]]:
    return recipient(_address(principal), principal.display_name)


def _copy_mailboxes(
    world: World, mailbox: Mailbox, senders: Senders, save_copy: bool, draft: Message | None
) -> list[Mailbox]:
    """Sent Items follow the URL; MessageCopyFor* adds the mailbox sent from (graph.md 1.2, 8.3 [D])."""
    places = [mailbox] if save_copy and draft is None else []
    by_switch = {
        "send_as": senders.shown.save_copy_send_as,
        "send_on_behalf": senders.shown.save_copy_on_behalf,
    }
    if senders.right is not None and by_switch[senders.right]:
        extra = world.mail.mailbox(senders.shown)
        if extra not in places and not (draft is not None and extra is mailbox):
            places.append(extra)
    return places


def _file_copy(world: World, mailbox: Mailbox, content: NewMessage) -> None:
    """A read copy in Sent Items, after the delay of the switch (graph.md 6.1 [D])."""
    sent_items = mailbox.well_known["sentitems"]
    when = content.properties["sentDateTime"] if content.raw is None else to_wire(world.clock.now())
    copy = replace(content, properties={**content.properties, "createdDateTime": when, "lastModifiedDateTime": when})
    file = lambda: mailbox.add(copy, sent_items, isRead=True, isDraft=False, receivedDateTime=when)  # noqa: E731
    world.mail.later(world.switches.sent_items_delay_s, file)


def _file_draft(world: World, mailbox: Mailbox, draft: Message, content: NewMessage) -> None:
    """The draft becomes the sent copy under its immutable id, after a short delay (graph.md 2.4, 8.3 [F])."""
    sent_items = mailbox.well_known["sentitems"]
    draft.raw, draft.headers = content.raw, content.headers
    now = to_wire(world.clock.now())
    changes = {**content.properties, "receivedDateTime": now, "lastModifiedDateTime": now, "isDraft": False}
    delay_s = world.switches.sent_items_delay_s
    if delay_s <= 0:
        draft.properties.update(changes)
        mailbox.set_read(draft, True)
        mailbox.move(draft, sent_items)
    else:
        mailbox.remove(draft)
        draft.properties.update(changes, isRead=True)
        world.mail.later(delay_s, lambda: mailbox.put_back(draft, sent_items))


def _deliver(world: World, content: NewMessage, address: str, senders: Senders) -> None:
    """To a local mailbox, to the outside, or back to the sender as a bounce (graph.md 6.1 [D])."""
    owner = world.directory.mailbox_for_address(address)
    if owner is not None:
        mailbox = world.mail.mailbox(owner)
        world.mail.place(content, mailbox, mailbox.well_known["inbox"], address)
    elif world.mail.is_local_domain(address) and world.directory.find(address) is None:
        bounced_to = world.mail.mailbox(senders.shown)
        report = undeliverable(world, content, address, _address(senders.shown))
        world.mail.place(report, bounced_to, bounced_to.well_known["inbox"], address)
    else:
        world.mail.record_outgoing(content, address)
