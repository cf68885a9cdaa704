"""Making, changing and deleting folders (emailengine.md 9.3 to 9.5)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from shared.api.change_schemas import MailboxChange, MailboxCreate, MailboxDelete
from shared.api.route import AccountPath, GuardedRoute, Provided, operation

router = APIRouter(route_class=GuardedRoute, tags=["Mailbox"])


@router.post("/v1/account/{account}/mailbox", openapi_extra=operation("mailbox", "write"))
async def create_mailbox(account: AccountPath, body: MailboxCreate, services: Provided) -> dict[str, Any]:
    """Creates a folder; its parent must exist. A folder that is there already is left as it is."""
    return await services.folder_changes.create(account, body.path)


@router.put("/v1/account/{account}/mailbox", openapi_extra=operation("mailbox", "write"))
async def change_mailbox(account: AccountPath, body: MailboxChange, services: Provided) -> dict[str, Any]:
    """Renames a folder, moves it, or both. `subscribed` has no effect on Microsoft 365."""
    return await services.folder_changes.rename(account, body.path, body.newPath)


@router.delete("/v1/account/{account}/mailbox", openapi_extra=operation("mailbox", "destructive"))
async def delete_mailbox(
    account: AccountPath, query: Annotated[MailboxDelete, Query()], services: Provided
) -> dict[str, Any]:
    """Deletes a folder with everything in it."""
    return await services.folder_changes.delete(account, query.path)
