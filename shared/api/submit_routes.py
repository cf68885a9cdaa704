"""Submitting mail (emailengine.md 14)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from shared.api.route import AccountPath, GuardedRoute, Provided, operation
from shared.api.schemas import SubmitMessage, SubmitQuery
from shared.errors import InvalidInput

LONGEST_KEY = 1024
router = APIRouter(route_class=GuardedRoute, tags=["Submit"])


@router.post("/v1/account/{account}/submit", openapi_extra=operation("submit", "send"))
async def submit(
    account: AccountPath,
    query: Annotated[SubmitQuery, Query()],
    body: SubmitMessage,
    services: Provided,
    request: Request,
) -> dict[str, Any]:
    """Accepts a mail durably; it is sent by the outbox. The result arrives as messageSent or messageFailed. With an
    Idempotency-Key the mail is accepted once, however often the request is repeated. With `dryRun` the answer shows
    the mail, and nothing is sent."""
    fields = {name: value for name, value in body.given().items() if value is not None}
    if fields.pop("dryRun", False):
        if "mailMerge" in fields:
            raise InvalidInput.field("dryRun", '"dryRun" shows one mail: give one entry as "to" and "render" instead')
        return await services.submit.preview(account, fields)
    accepts = services.mail_merge.accept if "mailMerge" in fields else services.submit.accept
    return await accepts(account, fields, structured=query.useStructuredFormat, key=_key(request))


def _key(request: Request) -> str:
    """The idempotency key of the request; "" for none (14.1)."""
    key = request.headers.get("idempotency-key", "").strip()
    if len(key) > LONGEST_KEY:
        raise InvalidInput.field("Idempotency-Key", f'"Idempotency-Key" must be at most {LONGEST_KEY} characters long')
    return key
