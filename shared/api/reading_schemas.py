"""Requests of the operations that read mail (emailengine.md 9.2, 11)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from shared.api.fields import Absent, Boolean, Input, Number, Page, Single
from shared.api.search_schemas import SearchTerms

_Segment = Annotated[str, StringConstraints(max_length=2560)]
Cursor = Annotated[Annotated[str, StringConstraints(max_length=16384)] | None, Absent]


def _lower(value: Any) -> Any:
    return (value.strip().lower() or None) if isinstance(value, str) else value


TextType = Annotated[Literal["html", "plain", "*"] | None, BeforeValidator(_lower)]
MaxBytes = Annotated[Annotated[Number, Field(ge=0, le=1073741824)] | None, Absent]


class MailboxListing(Input):
    """Query of a list of folders."""

    counters: Boolean = False


class MessageListing(Page):
    """Query of a list of messages. `path` may be repeated: its values are joined with `/`."""

    path: Annotated[list[_Segment], Single, Field(min_length=1, max_length=300)]
    cursor: Cursor = None
    documentStore: Boolean = False


class SearchListing(Page):
    """Query of a search. Without `path` the whole mailbox is searched."""

    path: Annotated[Annotated[list[_Segment], Field(max_length=300)] | None, Single] = None
    cursor: Cursor = None
    useOutlookSearch: Boolean = False
    documentStore: Boolean = False


class Search(Input):
    """Body of a search. An empty object finds everything."""

    search: SearchTerms


class MessageQuery(Input):
    """Query of a single message."""

    textType: TextType = None
    maxBytes: MaxBytes = None
    webSafeHtml: Boolean = False
    embedAttachedImages: Boolean = False
    preProcessHtml: Boolean = False
    markAsSeen: Boolean = False
    documentStore: Boolean = False


class TextQuery(Input):
    """Query of a message's text."""

    textType: TextType = None
    maxBytes: MaxBytes = None
    webSafeHtml: Boolean = False
    documentStore: Boolean = False
