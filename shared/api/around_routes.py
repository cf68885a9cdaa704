"""What clients ask around the mail: licence, autoconfiguration, and parts of the contract that do not exist here
(emailengine.md 2, 19.5, 19.8)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from shared.api.around_schemas import AutoconfigQuery, Verification
from shared.api.fields import Page
from shared.api.route import GuardedRoute, operation
from shared.errors import NotFound

router = APIRouter(route_class=GuardedRoute, tags=["Around"])
NO_SERVER = {
    "success": False,
    "error": "This service speaks Microsoft Graph only and makes no IMAP or SMTP connections",
    "code": "NotSupported",
}


@router.get("/v1/license", openapi_extra=operation("admin", "read"))
async def read_license() -> dict[str, Any]:
    """There are no licence keys."""
    return {"active": False, "details": False, "type": "Graphpost"}


@router.get("/v1/autoconfig", openapi_extra=operation("diagnostics", "read"))
async def find_servers(query: Annotated[AutoconfigQuery, Query()]) -> dict[str, Any]:
    """No IMAP or SMTP server is suggested: mailboxes are reached over Graph, with a sign-in."""
    return {"imap": False, "smtp": False, "_source": "unknown"}


@router.post("/v1/verifyAccount", openapi_extra=operation("admin", "read"))
async def verify_servers(body: Verification) -> dict[str, Any]:
    """IMAP and SMTP settings never work here. `PUT …/reconnect` and the account's `lastError` tell of a mailbox."""
    return {"imap": NO_SERVER, "smtp": NO_SERVER}


@router.get("/v1/gateways", openapi_extra=operation("gateway", "read"))
async def list_gateways(query: Annotated[Page, Query()]) -> dict[str, Any]:
    """There are no SMTP gateways."""
    paging, _ = query.of([])
    return paging | {"gateways": []}


@router.get("/v1/pubsub/status", openapi_extra=operation("diagnostics", "read"))
async def list_pubsub(query: Annotated[Page, Query()]) -> dict[str, Any]:
    """There are no Gmail applications."""
    paging, _ = query.of([])
    return paging | {"apps": []}


ABSENT = (
    ("POST", "/v1/gateway", "gateway", "write", "SMTP gateways"),
    ("GET", "/v1/gateway/{gateway}", "gateway", "read", "SMTP gateways"),
    ("DELETE", "/v1/gateway/{gateway}", "gateway", "destructive", "SMTP gateways"),
    ("PUT", "/v1/gateway/edit/{gateway}", "gateway", "write", "SMTP gateways"),
    ("POST", "/v1/unified/search", "admin", "read", "A search over all accounts"),
    ("POST", "/v1/chat/{account}", "admin", "read", "A chat about mail"),
    ("POST", "/v1/delivery-test/account/{account}", "submit", "send", "Delivery tests"),
    ("GET", "/v1/delivery-test/check/{deliveryTest}", "diagnostics", "read", "Delivery tests"),
    ("POST", "/v1/license", "admin", "write", "Licence keys"),
    ("DELETE", "/v1/license", "admin", "destructive", "Licence keys"),
)


def _absent(what: str) -> Any:
    async def refuse() -> None:
        raise NotFound(f"{what} do not exist on this service" if what.endswith("s") else f"{what} does not exist here")

    refuse.__doc__ = f"{what}: not on this service."
    return refuse


for _method, _path, _group, _action, _what in ABSENT:
    router.add_api_route(
        _path,
        _absent(_what),
        methods=[_method],
        name=f"{_method} {_path}",
        include_in_schema=False,
        openapi_extra={**operation(_group, _action, names_in_query=True)},
    )
