"""Upkeep of one account, and what it is reached with (emailengine.md 6.7 to 6.10, 8)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response

from shared.accounts import Record
from shared.api.around_schemas import AppVerification, FlushRequest, SyncRequest
from shared.api.route import AccountPath, Granted, GuardedRoute, Provided, operation, segment
from shared.clock import iso
from shared.errors import ApiError, CredentialError, Forbidden, StateRefuses
from shared.oauth_apps import app_not_found
from shared.tokens import Grant
from shared.wiring import Services

router = APIRouter(route_class=GuardedRoute, tags=["Account"])
AppId = Annotated[str, segment("app")]


@router.put("/v1/account/{account}/sync", openapi_extra=operation("account", "write"))
async def sync_account(account: AccountPath, services: Provided, body: SyncRequest | None = None) -> dict[str, Any]:
    """Asks every folder of the mailbox for what is new, soon after this answer."""
    wanted = bool(body and body.sync)
    await services.accounts.get(account)
    if wanted:
        await services.accounts.queue_job(account, "catch_up")
    return {"sync": wanted}


@router.put("/v1/account/{account}/flush", openapi_extra=operation("account", "destructive"))
async def flush_account(account: AccountPath, services: Provided, body: FlushRequest | None = None) -> dict[str, Any]:
    """Forgets what is known of the account's folders and messages and starts over; `accountInitialized` is sent
    again."""
    wanted = bool(body and body.flush)
    await services.accounts.get(account)
    if body and wanted:
        given = body.given()
        del given["flush"]
        await services.flushing.begin(account, given)
    return {"flush": wanted}


@router.get("/v1/account/{account}/oauth-token", openapi_extra=operation("admin", "read"))
async def get_oauth_token(
    account: AccountPath, services: Provided, grant: Granted, response: Response
) -> dict[str, Any]:
    """The access token that the mailbox is reached with. Only where the setting OAUTH_TOKENS_API allows it."""
    if not services.settings.oauth_tokens_api:
        raise ApiError(403, "Disabled API endpoint", "ApiEndpointDisabled")
    record = await services.accounts.get(account)
    if not record.get("oauth2"):
        raise ApiError(403, "Not an OAuth2 account", "AccountNotOAuth2")
    response.headers["Cache-Control"] = "no-store"
    return await _token_view(record, services, grant)


async def _token_view(record: Record, services: Services, grant: Grant) -> dict[str, Any]:
    try:
        reach = await services.accounts.reach(record)
        _refuse_wider(grant, record, reach.holder, reach.is_application)
        token, cached = await services.credentials.current(reach.holder, reach.app, reach.version)
    except CredentialError as failure:
        if failure.transient:
            raise StateRefuses("connectError") from None
        await services.access.note_failure(record["account"], failure)
        more = {"tokenRequest": failure.last_error["tokenRequest"]} if "tokenRequest" in failure.last_error else {}
        raise ApiError(403, str(failure), "OauthRenewError", None, authenticationFailed=True, **more) from None
    holder = record if reach.holder == record["account"] else await services.accounts.find(reach.holder) or record
    return {
        "account": record["account"],
        "user": ((holder.get("oauth2") or {}).get("auth") or {}).get("user") or holder.get("email"),
        "accessToken": token.value,
        "provider": reach.app.provider,
        "app": reach.app.id,
        "registeredScopes": [f"{reach.app.hosts.graph}/.default"] if reach.is_application else reach.app.scopes(),
        "expires": iso(token.ends),
        "cached": cached,
    }


def _refuse_wider(grant: Grant, record: Record, holder: str, is_application: bool) -> None:
    """A token bound to an account does not get one that opens other mailboxes, too."""
    if grant.account is not None and (is_application or holder != record["account"]):
        raise Forbidden("Unauthorized account")


@router.get("/v1/account/{account}/server-signatures", openapi_extra=operation("account", "read"))
async def get_signatures(account: AccountPath, services: Provided) -> dict[str, Any]:
    """Microsoft Graph has no signatures."""
    await services.accounts.get(account)
    return {"signatures": [], "signaturesSupported": False}


@router.post("/v1/oauth2/{app}/verify", openapi_extra=operation("admin", "read"))
async def verify_app(app: AppId, services: Provided, body: AppVerification | None = None) -> dict[str, Any]:
    """Checks an OAuth2 application: its record, a token, and with `testConnection` the mailbox of an account."""
    wanted = body or AppVerification()
    found = await services.apps.find(app)
    if found is None:
        raise app_not_found()
    return await services.verification.verify(found, wanted.account, wanted.testConnection)
