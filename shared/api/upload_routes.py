"""Storing a mail in a folder (emailengine.md 13)."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from shared.api.change_schemas import FolderPath, MarkList
from shared.api.fields import Absent, Address, Boolean, Input, Moment
from shared.api.reference_schemas import Reference, TimeZone
from shared.api.route import AccountPath, GuardedRoute, Provided, operation
from shared.api.schemas import Attachment, LongText, Recipients

router = APIRouter(route_class=GuardedRoute, tags=["Message"])


def _base64(value: str) -> str:
    text = "".join(value.split())
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be a valid base64 string") from None
    return text


Raw = Annotated[str, StringConstraints(max_length=5_242_880), AfterValidator(_base64)]


class Upload(Input):
    """POST …/message (13)."""

    path: FolderPath
    flags: MarkList = None
    internalDate: Moment | None = None
    reference: Reference | None = None
    raw: Annotated[Raw | None, Absent] = None
    from_: Annotated[Address | None, Field(alias="from")] = None
    to: Recipients = None
    cc: Recipients = None
    bcc: Recipients = None
    subject: Annotated[Annotated[str, StringConstraints(max_length=10240, strip_whitespace=True)] | None, Absent] = None
    text: LongText = None
    html: LongText = None
    attachments: list[Attachment] | None = None
    messageId: Annotated[Annotated[str, StringConstraints(max_length=996)] | None, Absent] = None
    headers: dict[str, Annotated[str, StringConstraints(max_length=100_000)]] | None = None
    # They shape the line above a quotation; without a reference they have no effect.
    locale: Annotated[Annotated[str, StringConstraints(max_length=100)] | None, Absent] = None
    tz: Annotated[TimeZone | None, Absent] = None
    documentStore: Boolean = False  # there is none here

    @field_validator("subject")
    @classmethod
    def _one_line(cls, value: str | None) -> str | None:
        return " ".join(value.splitlines()) if value else value

    @model_validator(mode="after")
    def _raw_alone(self) -> Upload:
        if self.raw:
            for name in ("text", "html", "attachments"):
                if getattr(self, name):
                    raise ValueError(f'"{name}" can not be given together with "raw"')
            if self.reference:
                raise ValueError('"reference" can not be given together with "raw"')
        return self


@router.post("/v1/account/{account}/message", openapi_extra=operation("message", "write"))
async def upload_message(account: AccountPath, body: Upload, services: Provided) -> dict[str, Any]:
    """Stores a mail in a folder without sending it: a draft with the flag `\\Draft`, else a message as if it had
    arrived. Microsoft 365 keeps one body, HTML where both are given, and at most five X- headers."""
    fields = {name: value for name, value in body.given().items() if value is not None}
    return await services.uploaded_mail.store(account, fields)
