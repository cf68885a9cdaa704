"""What an export is asked for with (emailengine.md 19.9)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from shared.api.fields import Boolean, Input, Moment, Number, Single

FolderName = Annotated[str, StringConstraints(max_length=1024, min_length=1)]


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class ExportCreate(Input):
    """POST /v1/account/{account}/export. Without folders the whole mailbox; `maxBytes` 0 does not cut."""

    folders: Annotated[Annotated[list[FolderName], Field(max_length=100)] | None, Single] = None
    startDate: Moment
    endDate: Moment
    textType: Annotated[Literal["plain", "html", "*"], BeforeValidator(_lower)] = "*"
    maxBytes: Annotated[Number, Field(ge=0, le=1_073_741_824)] = 5_242_880
    includeAttachments: Boolean = False
