"""Submitting mail (emailengine.md 14)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from shared.api.route import AccountPath, GuardedRoute, Provided, operation
from shared.api.schemas import SubmitMessage, SubmitQuery
from shared.errors import InvalidInput

router = APIRouter(route_class=GuardedRoute, tags=["Submit"])


@router.post("/v1/account/{account}/submit", openapi_extra=operation("submit", "send"))
async def submit(
    account: AccountPath,
    query: Annotated[SubmitQuery, Query()],
    body: SubmitMessage,
    services: Provided,
    request: Request,
) -> dict[str, Any]:
    """Accepts a mail durably; it is sent by the outbox. The result arrives as messageSent or messageFailed."""
    if request.headers.get("idempotency-key", "").strip():
        raise InvalidInput.field(
            "Idempotency-Key", "Idempotency-Key is not available on this service yet. Leave it out"
        )
    fields = {name: value for name, value in body.given().items() if value is not None}
    return await services.submit.accept(account, fields, structured=query.useStructuredFormat)
