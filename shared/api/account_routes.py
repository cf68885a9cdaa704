"""Accounts: create, read, list, change, reconnect, delete (emailengine.md 6)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from shared.accounts import Record
from shared.api.account_view import account_view, listed_view
from shared.api.route import AccountPath, Granted, GuardedRoute, Provided, operation
from shared.api.schemas import AccountCreate, AccountDelete, AccountList, AccountQuery, AccountUpdate, Reconnect
from shared.errors import ApiError
from shared.storage.keys import storable
from shared.wiring import Services

router = APIRouter(route_class=GuardedRoute, tags=["Account"])
REACHING = ("oauth2", "email", "expectedEmail")  # with application access the address alone names the mailbox


@router.post("/v1/account", openapi_extra=operation("admin", "write"))
async def create_account(body: AccountCreate, services: Provided) -> dict[str, Any]:
    """Registers a mailbox, or updates the account that has this id."""
    fields = body.given()
    await services.addresses.check("webhooks", body.webhooks)
    if body.oauth2 and body.oauth2.authorize:
        return {"redirect": await services.consent.begin_api(fields)}
    return dict(await services.onboarding.create(fields))


@router.get("/v1/account/{account}", openapi_extra=operation("account", "read"))
async def get_account(
    account: AccountPath, query: Annotated[AccountQuery, Query()], services: Provided
) -> dict[str, Any]:
    """The account with its state, its way to the mailbox and its last error."""
    record = await services.accounts.get(account)
    counters = await services.tables["counters"].get(storable(account), "events")
    holder = await _holder(record, services)
    counts = counters.value if counters else {}
    view = await account_view(record, holder, services.accounts, services.apps, counts)
    return view | ({"quota": False} if query.quota else {})


@router.put("/v1/account/{account}", openapi_extra=operation("admin", "write"))
async def update_account(
    account: AccountPath, body: AccountUpdate, services: Provided, grant: Granted
) -> dict[str, Any]:
    """Changes the given fields only."""
    fields = body.given()
    if grant.account is not None:
        refuse_other_mailbox(await services.accounts.get(account), fields)
    await services.addresses.check("webhooks", body.webhooks)
    await services.onboarding.update(account, fields)
    return {"account": account}


@router.delete("/v1/account/{account}", openapi_extra=operation("account", "destructive"))
async def delete_account(
    account: AccountPath, query: Annotated[AccountDelete, Query()], services: Provided
) -> dict[str, Any]:
    """Removes the account with its subscription, tokens and queued mail."""
    await services.onboarding.delete(account)
    return {"account": account, "deleted": True}


@router.put("/v1/account/{account}/reconnect", openapi_extra=operation("account", "write"))
async def reconnect_account(account: AccountPath, services: Provided, body: Reconnect | None = None) -> dict[str, Any]:
    """Connects the account anew."""
    wanted = bool(body and body.reconnect)
    await services.accounts.get(account)
    if wanted:
        await services.onboarding.reconnect(account)
    return {"reconnect": wanted}


@router.get("/v1/accounts", openapi_extra=operation("account", "read"))
async def list_accounts(query: Annotated[AccountList, Query()], services: Provided) -> dict[str, Any]:
    """Accounts by id, filtered by state and by a part of id, name or address."""
    records = {record["account"]: record async for record in services.accounts.all()}
    needle = (query.query or "").lower()
    views = []
    for account in sorted(records):
        record = records[account]
        texts = (account, record.get("name") or "", record.get("email") or "")
        if needle and not any(needle in text.lower() for text in texts):
            continue
        holder = records.get((record.get("reach") or {}).get("holder") or "")
        view = await listed_view(record, holder, services.accounts, services.apps)
        if query.state in (None, view["state"]):
            views.append(view)
    paging, shown = query.of(views)
    return paging | {"query": query.query or False, "state": query.state or "*", "accounts": shown}


def refuse_other_mailbox(record: Record, fields: dict[str, Any]) -> None:
    """403 when a token bound to this account would lead it to another mailbox, or to other credentials: it would then
    reach what it is bound away from."""
    changed = [name for name in REACHING if name in fields and fields[name] != record.get(name)]
    if changed:
        text = "A token bound to an account can not change how its mailbox is reached"
        wrong = [{"message": f'"{name}" is not allowed with this token', "key": name} for name in changed]
        raise ApiError(403, text, "BoundToken", fields=wrong)


async def _holder(record: Record, services: Services) -> Record | None:
    holder = (record.get("reach") or {}).get("holder")
    return await services.accounts.find(holder) if holder and holder != record["account"] else None
