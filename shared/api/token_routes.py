"""Access tokens, and the old aliases that clients still call (emailengine.md 3)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from shared.api.route import AccountPath, CallerAddress, Granted, GuardedRoute, Provided, operation, segment
from shared.api.schemas import TokenCreate, TokenList
from shared.api.token_schemas import TokenLogPage
from shared.errors import Forbidden, InvalidInput, NotFound, account_not_found
from shared.tokens import Grant
from shared.wiring import Services

router = APIRouter(route_class=GuardedRoute, tags=["Access Tokens"])
TokenPath = Annotated[str, segment("token")]


async def _mint(body: TokenCreate, services: Services, grant: Grant, address: str) -> dict[str, str]:
    if body.account is not None:
        await services.accounts.get(body.account)
    elif not body.permissions and not grant.is_unrestricted:
        raise Forbidden("Only a token without restrictions can make one without restrictions")
    fields = {name: value for name, value in body.model_dump().items() if value is not None}
    fields |= {"remoteAddress": address} if address else {}
    minted = await services.tokens.mint(grant.confine(fields))
    if body.account is not None and await services.accounts.find(body.account) is None:
        # Deleted in between, perhaps after its tokens were: this one must not open a later account of that id.
        await services.tokens.delete(minted["id"])
        raise account_not_found()
    return minted


@router.post("/v1/tokens", openapi_extra=operation("admin", "write"))
async def create_token(body: TokenCreate, services: Provided, grant: Granted, address: CallerAddress) -> dict[str, Any]:
    """A new token. Its value is shown this once."""
    return dict(await _mint(body, services, grant, address))


@router.post("/v1/token", openapi_extra=operation("admin", "write"), deprecated=True)
async def create_token_alias(
    body: TokenCreate, services: Provided, grant: Granted, address: CallerAddress
) -> dict[str, Any]:
    """Old name of POST /v1/tokens, for one account."""
    if body.account is None:
        raise InvalidInput.field("account", '"account" is required')
    return dict(await _mint(body, services, grant, address))


@router.get("/v1/tokens", openapi_extra=operation("admin", "read"))
async def list_tokens(query: Annotated[TokenList, Query()], services: Provided) -> dict[str, Any]:
    """Tokens, newest first; without their values."""
    paging, shown = query.of(await services.tokens.views(query.account, query.query))
    return {"account": query.account} | paging | {"tokens": shown}


@router.get("/v1/tokens/account/{account}", openapi_extra=operation("admin", "read"), deprecated=True)
async def list_tokens_alias(account: AccountPath, services: Provided) -> dict[str, Any]:
    """Old name of GET /v1/tokens?account=."""
    return {"tokens": await services.tokens.views(account)}


@router.get("/v1/tokens/{token}", openapi_extra=operation("admin", "read"))
async def get_token(token: TokenPath, services: Provided) -> dict[str, Any]:
    """One token by its value or id."""
    view = await services.tokens.view(token)
    if view is None:
        raise NotFound("Requested access token was not found")
    return view


@router.get("/v1/tokens/{token}/log", openapi_extra=operation("admin", "read"))
async def read_token_log(
    token: TokenPath, query: Annotated[TokenLogPage, Query()], services: Provided
) -> dict[str, Any]:
    """What a token was used for, newest first; filled while the setting `tokenAuditLog` is true."""
    view = await services.tokens.view(token)
    if view is None:
        raise NotFound("Requested access token was not found")
    paging, shown = query.of(await services.tokens.use.entries(view["id"]))
    return {"token": view["id"]} | paging | {"entries": shown}


@router.delete("/v1/tokens/{token}", openapi_extra=operation("admin", "destructive"))
async def delete_token(token: TokenPath, services: Provided) -> dict[str, Any]:
    """Ends a token at once."""
    return {"deleted": await services.tokens.delete(token)}


@router.delete("/v1/token/{token}", openapi_extra=operation("admin", "destructive"), deprecated=True)
async def delete_token_alias(token: TokenPath, services: Provided) -> dict[str, Any]:
    """Old name of DELETE /v1/tokens/{token}."""
    return {"deleted": await services.tokens.delete(token)}
