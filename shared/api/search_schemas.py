"""The search terms of the contract (emailengine.md 11.2): every one is read; what Graph can not do is refused later."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from shared.api.fields import Absent, Boolean, Input, Moment, Number, Single, Text256

_Text = Annotated[str, StringConstraints(max_length=2560)]
_Size = Annotated[Number, Field(ge=0, le=1 << 40)]
EmailId = Annotated[str, StringConstraints(max_length=256, min_length=1)]
Label = Annotated[str, StringConstraints(max_length=128, min_length=1)]


def _few(values: list[str] | None) -> list[str] | None:
    if values is not None and len(values) > 100:
        raise ValueError("must contain at most 100 items")
    return values


Labels = Annotated[list[Label] | None, Single, AfterValidator(_few)]


class LabelTerms(Input):
    """Labels that a message has, and those it has not."""

    has: Labels = None
    not_: Annotated[Labels, Field(alias="not")] = None


class SearchTerms(Input):
    """The object `search`."""

    seq: Annotated[Text256 | None, Absent] = None
    answered: Boolean | None = None
    deleted: Boolean | None = None
    draft: Boolean | None = None
    unseen: Boolean | None = None
    flagged: Boolean | None = None
    seen: Boolean | None = None
    from_: Annotated[Text256 | None, Field(alias="from")] = None
    to: Text256 | None = None
    cc: Text256 | None = None
    bcc: Text256 | None = None
    body: Text256 | None = None
    subject: _Text | None = None
    larger: _Size | None = None
    smaller: _Size | None = None
    uid: Annotated[Text256 | int | None, Absent] = None
    modseq: Annotated[Text256 | int | None, Absent] = None
    before: Annotated[Moment | None, Absent] = None
    since: Annotated[Moment | None, Absent] = None
    sentBefore: Annotated[Moment | None, Absent] = None
    sentSince: Annotated[Moment | None, Absent] = None
    emailId: Text256 | None = None
    threadId: Text256 | None = None
    header: Annotated[dict[Text256, _Text] | None, Field(max_length=20)] = None
    gmailRaw: Text256 | None = None
    labels: LabelTerms | None = None
    emailIds: Annotated[list[EmailId] | None, Single, Field(max_length=1000)] = None

    def terms(self) -> dict[str, Any]:
        """The terms that were given, by their wire names."""
        return {name: value for name, value in self.given().items() if value is not None}
