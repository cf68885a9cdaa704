"""Blocklists: who does not want a list's mail (emailengine.md 19.7)."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from shared.api.blocklist_schemas import BlocklistEntry, BlocklistPage, BlocklistRemoval
from shared.api.route import GuardedRoute, Provided, caller_address, operation, segment
from shared.errors import InvalidInput, NotFound

router = APIRouter(route_class=GuardedRoute, tags=["Blocklists"])
LIST_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,62})(\.[a-z0-9]([a-z0-9-]{0,62}))*")
LONGEST_AGENT = 1024


def _list_id(given: Annotated[str, segment("listId")]) -> str:
    """The list's id, which has the form of a host name (14.1)."""
    if not LIST_ID.fullmatch(given.lower()):
        raise InvalidInput.field("listId", '"listId" must be a valid hostname')
    return given.lower()


ListId = Annotated[str, Depends(_list_id)]


@router.get("/v1/blocklists", openapi_extra=operation("blocklist", "read"))
async def lists(query: Annotated[BlocklistPage, Query()], services: Provided) -> dict[str, Any]:
    """Every list that holds an address."""
    counts, shown = query.of(await services.blocklists.lists())
    return counts | {"blocklists": shown}


@router.get("/v1/blocklist/{listId}", openapi_extra=operation("blocklist", "read"))
async def addresses(list_id: ListId, query: Annotated[BlocklistPage, Query()], services: Provided) -> dict[str, Any]:
    """The addresses of one list."""
    total = await services.blocklists.size(list_id)
    if not total:
        raise NotFound("Requested blocklist was not found")
    found = await services.blocklists.addresses(list_id, query.page, query.pageSize)
    counts = {"total": total, "page": query.page, "pages": -(-total // query.pageSize)}
    return {"listId": list_id} | counts | {"addresses": found}


@router.post("/v1/blocklist/{listId}", openapi_extra=operation("blocklist", "write"))
async def add(list_id: ListId, body: BlocklistEntry, services: Provided, request: Request) -> dict[str, Any]:
    """Puts an address on a list."""
    await services.accounts.get(body.account)
    about = {"account": body.account, "source": "api", "reason": body.reason or "block"}
    added = await services.blocklists.add(list_id, body.recipient, **about, **caller_of(request))
    return {"success": True, "added": added}


@router.delete("/v1/blocklist/{listId}", openapi_extra=operation("blocklist", "destructive"))
async def remove(list_id: ListId, query: Annotated[BlocklistRemoval, Query()], services: Provided) -> dict[str, bool]:
    """Takes an address off a list."""
    return {"deleted": await services.blocklists.remove(list_id, query.recipient)}


def caller_of(request: Request) -> dict[str, str]:
    """Who asks, as events and entries show it."""
    agent = request.headers.get("user-agent", "")[:LONGEST_AGENT]
    return {"remoteAddress": caller_address(request), "userAgent": agent}
