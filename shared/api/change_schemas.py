"""Request shapes of what changes messages and folders (emailengine.md 9.3 to 9.5, 12)."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, StringConstraints, model_validator

from shared.api.fields import Absent, Boolean, Input, Single, Text256
from shared.api.search_schemas import SearchTerms
from shared.marks import Marks

MOST_MARKS = 256
_PRINTED = r"^[^\x00-\x1f\x7f]*$"


def _few(value: list[str] | None) -> list[str] | None:
    if value is not None and len(value) > MOST_MARKS:
        raise ValueError(f"must contain less than or equal to {MOST_MARKS} items")
    return value


def _none_empty(value: list[str]) -> list[str]:
    if not value or not all(one.strip() for one in value):
        raise ValueError("is not allowed to be empty")
    return value


Mark = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=_PRINTED)]
MarkList = Annotated[list[Mark] | None, Single, AfterValidator(_few)]
Segment = Annotated[str, StringConstraints(max_length=256, pattern=_PRINTED)]
FolderPath = Annotated[list[Segment], Single, AfterValidator(_none_empty)]
QueryPath = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=_PRINTED)]


class Operations(Input):
    """What to add, take away or set."""

    add: MarkList = None
    delete: MarkList = None
    set: MarkList = None

    def asked(self) -> dict[str, list[str]]:
        """The operations that were given."""
        return {name: value for name, value in self.given().items() if value is not None}


class MessageUpdate(Input):
    """PUT …/message/{message}, and `update` of the bulk form (12.1)."""

    flags: Operations | None = None
    labels: Operations | None = None

    def marks(self) -> Marks:
        return Marks(self.flags.asked() if self.flags else {}, self.labels.asked() if self.labels else {})


class MessageMove(Input):
    """PUT …/message/{message}/move (12.2). `source` has no effect: Graph knows where a message lies."""

    path: FolderPath
    source: Annotated[list[Text256] | None, Single] = None


class MessageDelete(Input):
    force: Boolean = False


class MailboxCreate(Input):
    """POST …/mailbox (9.3)."""

    path: FolderPath


class MailboxChange(Input):
    """PUT …/mailbox (9.4)."""

    path: FolderPath
    newPath: FolderPath | None = None
    subscribed: Boolean | None = None

    @model_validator(mode="after")
    def _something(self) -> MailboxChange:
        if self.newPath is None and self.subscribed is None:
            raise ValueError('"value" must contain at least one of [newPath, subscribed]')
        return self


class MailboxDelete(Input):
    path: QueryPath


class BulkQuery(Input):
    """Which folder; all of the mailbox when the messages are named (12.4)."""

    path: Annotated[QueryPath | None, Absent] = None


class BulkDeleteQuery(BulkQuery):
    force: Boolean = False


class BulkUpdate(Input):
    """PUT …/messages (12.4)."""

    search: SearchTerms
    update: MessageUpdate


class BulkMove(Input):
    """PUT …/messages/move (12.4)."""

    search: SearchTerms
    path: FolderPath


class BulkDelete(Input):
    """PUT …/messages/delete (12.4)."""

    search: SearchTerms
