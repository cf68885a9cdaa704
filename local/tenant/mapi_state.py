"""What MAPI properties given at creation make of a stored message (emailengine.md 13; graph.md 5.5 [P])."""

from __future__ import annotations

from email import message_from_string
from email.policy import compat32
from typing import Any

from .message_input import read_time, wrong_body
from .messages import NewMessage
from .wire_time import to_wire

FLAGS, DELIVERED, TRANSPORT_HEADERS = "integer 0x0e07", "systemtime 0x0e06", "string 0x007d"
READ, UNSENT = 1, 8


def stored_state(content: NewMessage) -> dict[str, Any]:
    """The properties that follow from message flags and delivery time; transport headers become the headers shown."""
    given = {name.casefold(): value for name, value in content.extended.items()}
    state: dict[str, Any] = {}
    if FLAGS in given:
        try:
            flags = int(given[FLAGS])
        except ValueError:
            raise wrong_body("Cannot convert the value of an extended property to 'Integer'.") from None
        state = {"isRead": bool(flags & READ), "isDraft": bool(flags & UNSENT)}
    if DELIVERED in given:
        at = to_wire(read_time(DELIVERED, given[DELIVERED]))
        state |= {"receivedDateTime": at, "sentDateTime": at}
    if TRANSPORT_HEADERS in given:
        block = message_from_string(given[TRANSPORT_HEADERS], policy=compat32)
        content.headers = [{"name": name, "value": " ".join(str(value).split())} for name, value in block.items()]
    return state
