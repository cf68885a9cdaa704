"""Request shapes of webhook routes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from shared.api.fields import Absent, AccountId, Boolean, Header, Input, Name, Single, Text256, Url
from shared.events import EVENT_TYPES

Description = Annotated[Annotated[str, StringConstraints(max_length=1024)] | None, Absent]
FolderPath = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class RouteFilter(Input):
    """Which events a route wants. A field that is left out, or empty, asks for nothing in particular."""

    events: Annotated[list[Text256], Field(max_length=100), Single] = Field(default=[])
    accounts: Annotated[list[AccountId], Field(max_length=1000), Single] = Field(default=[])
    paths: Annotated[list[FolderPath], Field(max_length=100), Single] = Field(default=[])
    specialUses: Annotated[list[Text256], Field(max_length=20), Single] = Field(default=[])

    @field_validator("events")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for event in value:
            if event != "*" and event not in EVENT_TYPES:
                raise ValueError(f'has an unknown event "{event[:100]}". Known: *, {", ".join(EVENT_TYPES)}')
        return value

    @field_validator("specialUses")
    @classmethod
    def _special(cls, value: list[str]) -> list[str]:
        known = ("\\Inbox", "\\Sent", "\\Drafts", "\\Junk", "\\Trash", "\\Archive", "\\All")
        if any(one not in known for one in value):
            raise ValueError(f"must hold only {', '.join(known)}")
        return value


class RouteCreate(Input):
    """POST /v1/webhookRoutes/webhookRoute."""

    name: Annotated[Name, StringConstraints(min_length=1)]
    description: Description = None
    enabled: Boolean = False
    targetUrl: Url
    customHeaders: Annotated[list[Header], Field(max_length=50)] = Field(default=[])
    filter: RouteFilter = Field(default_factory=RouteFilter)


class RouteUpdate(Input):
    """PUT /v1/webhookRoutes/webhookRoute/{webhookRoute}: any of the fields; `customHeaders` and `filter` as a whole."""

    name: Annotated[Name, StringConstraints(min_length=1)] | None = None
    description: Description = None
    enabled: Boolean | None = None
    targetUrl: Url | None = None
    customHeaders: Annotated[list[Header], Field(max_length=50)] | None = None
    filter: RouteFilter | None = None
