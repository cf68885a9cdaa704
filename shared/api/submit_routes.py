"""Submitting mail (emailengine.md 14)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from shared.api.route import AccountPath, GuardedRoute, Provided, operation
from shared.api.schemas import SubmitMessage, SubmitQuery

router = APIRouter(route_class=GuardedRoute, tags=["Submit"])


@router.post("/v1/account/{account}/submit", openapi_extra=operation("submit", "send"))
async def submit(
    account: AccountPath, query: Annotated[SubmitQuery, Query()], body: SubmitMessage, services: Provided
) -> dict[str, Any]:
    """Accepts a mail durably; it is sent by the outbox. The result arrives as messageSent or messageFailed."""
    fields = {name: value for name, value in body.given().items() if value is not None}
    return await services.submit.accept(account, fields, structured=query.useStructuredFormat)
