"""Sending a draft of the mailbox (emailengine.md 14.9)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field, StringConstraints

from shared.api.change_routes import MessagePath
from shared.api.fields import Absent, Boolean, Input, Moment, Number, Text256
from shared.api.route import AccountPath, GuardedRoute, Provided, operation
from shared.api.schemas import Envelope
from shared.errors import InvalidInput

LONGEST_KEY = 1024
Text1024 = Annotated[str, StringConstraints(max_length=1024)]
router = APIRouter(route_class=GuardedRoute, tags=["Submit"])


class DraftSending(Input):
    """POST …/message/{message}/submit (14.9)."""

    sendAt: Moment | None = None
    deliveryAttempts: Annotated[Number, Field(ge=1, le=100)] | None = None
    envelope: Envelope | None = None
    # Without effect on Graph, as the contract says.
    copy_: Annotated[Boolean | None, Field(alias="copy")] = None
    sentMailPath: Annotated[Text1024 | None, Absent] = None
    gateway: Annotated[Text256 | None, Absent] = None
    dsn: dict[str, Any] | None = None
    proxy: Annotated[Text1024 | None, Absent] = None
    localAddress: Annotated[Text256 | None, Absent] = None


@router.post("/v1/account/{account}/message/{message}/submit", openapi_extra=operation("submit", "send"))
async def submit_draft(
    account: AccountPath, message: MessagePath, body: DraftSending, services: Provided, request: Request
) -> dict[str, Any]:
    """Accepts a draft for sending, now or at `sendAt`. It turns into the sent copy. The result arrives as
    messageSent or messageFailed; with an Idempotency-Key the draft is accepted once, however often the request is
    repeated."""
    key = request.headers.get("idempotency-key", "").strip()
    if len(key) > LONGEST_KEY:
        raise InvalidInput.field("Idempotency-Key", f'"Idempotency-Key" must be at most {LONGEST_KEY} characters long')
    fields = {name: value for name, value in body.given().items() if value is not None}
    return await services.draft_submit.accept(account, message, fields, key)
