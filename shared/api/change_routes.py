"""Changing messages: flags, labels, folder, deleting; one message or many (emailengine.md 12)."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from shared.api.change_schemas import (
    BulkDelete,
    BulkDeleteQuery,
    BulkMove,
    BulkQuery,
    BulkUpdate,
    MessageDelete,
    MessageMove,
    MessageUpdate,
)
from shared.api.route import AccountPath, GuardedRoute, Provided, operation, segment
from shared.graph.edits import MESSAGE_ID
from shared.message_changes import malformed_id

router = APIRouter(route_class=GuardedRoute, tags=["Message"])


def message_id(message: Annotated[str, segment("message")]) -> str:
    """The message of the path. What is no id of Graph's never gets there: it could lead to something else."""
    if not re.fullmatch(MESSAGE_ID, message):
        raise malformed_id()
    return message


MessagePath = Annotated[str, Depends(message_id)]


@router.put("/v1/account/{account}/message/{message}", openapi_extra=operation("message", "write"))
async def update_message(
    account: AccountPath, message: MessagePath, body: MessageUpdate, services: Provided
) -> dict[str, Any]:
    """Changes flags and labels. `\\Seen` and `\\Flagged` can change on Microsoft 365; labels are its categories."""
    return await services.message_changes.update(account, message, body.marks())


@router.put("/v1/account/{account}/message/{message}/move", openapi_extra=operation("message", "write"))
async def move_message(
    account: AccountPath, message: MessagePath, body: MessageMove, services: Provided
) -> dict[str, Any]:
    """Moves a message to another folder. Its id stays."""
    return await services.message_changes.move(account, message, body.path)


@router.delete("/v1/account/{account}/message/{message}", openapi_extra=operation("message", "destructive"))
async def delete_message(
    account: AccountPath, message: MessagePath, query: Annotated[MessageDelete, Query()], services: Provided
) -> dict[str, Any]:
    """Moves a message to Deleted Items; deletes it for good when forced or when it lies there already."""
    return await services.message_changes.delete(account, message, force=query.force)


@router.put("/v1/account/{account}/messages", openapi_extra=operation("message", "write"))
async def update_messages(
    account: AccountPath, query: Annotated[BulkQuery, Query()], body: BulkUpdate, services: Provided
) -> dict[str, Any]:
    """Changes flags and labels of up to 1,000 messages of a folder, the newest that the search finds."""
    return await services.bulk.update(account, query.path, body.search.terms(), body.update.marks())


@router.put("/v1/account/{account}/messages/move", openapi_extra=operation("message", "write"))
async def move_messages(
    account: AccountPath, query: Annotated[BulkQuery, Query()], body: BulkMove, services: Provided
) -> dict[str, Any]:
    """Moves up to 1,000 messages of a folder, the newest that the search finds."""
    return await services.bulk.move(account, query.path, body.search.terms(), body.path)


@router.put("/v1/account/{account}/messages/delete", openapi_extra=operation("message", "destructive"))
async def delete_messages(
    account: AccountPath, query: Annotated[BulkDeleteQuery, Query()], body: BulkDelete, services: Provided
) -> dict[str, Any]:
    """Moves up to 1,000 messages of a folder to Deleted Items; those that lie there, or all when forced, for good."""
    return await services.bulk.delete(account, query.path, body.search.terms(), force=query.force)
