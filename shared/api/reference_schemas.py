"""The message that a new one refers to, and how its quotation is written (emailengine.md 14.4)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, StringConstraints, model_validator

from shared.api.fields import Absent, Boolean, Input
from shared.quoting import zone


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _zone(value: str) -> str:
    # Without a time zone database there is nothing to check against, and UTC is what is shown.
    if zone(value) is None and zone("UTC") is not None:
        raise ValueError("must be the name of a time zone, for instance Europe/Tallinn")
    return value


TimeZone = Annotated[str, StringConstraints(max_length=100, strip_whitespace=True), AfterValidator(_zone)]
_Id = Annotated[str, StringConstraints(max_length=256, strip_whitespace=True, pattern=r"^[\x21-\x7e]*$")]


class Reference(Input):
    """`reference` of a submit or an upload."""

    message: Annotated[_Id | None, Absent] = None
    action: Annotated[Literal["reply", "reply-all", "forward"], BeforeValidator(_lower)] = "reply"
    inline: Boolean = False
    forwardAttachments: Boolean = False
    ignoreMissing: Boolean = False
    messageId: Annotated[Annotated[str, StringConstraints(max_length=996)] | None, Absent] = None
    threadId: Annotated[_Id | None, Absent] = None
    documentStore: Boolean = False  # there is none here

    @model_validator(mode="after")
    def _names_one(self) -> Reference:
        if not self.message and not self.threadId:
            raise ValueError('"message" is required, or "threadId"')
        return self
