"""Exports of an account's messages (emailengine.md 19.9)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from shared.api.export_schemas import ExportCreate
from shared.api.fields import Page
from shared.api.route import AccountPath, GuardedRoute, Provided, operation, segment

router = APIRouter(route_class=GuardedRoute, tags=["Export"])
ExportPath = Annotated[str, segment("exportId")]


@router.post("/v1/account/{account}/export", openapi_extra=operation("export", "write"))
async def create_export(account: AccountPath, body: ExportCreate, services: Provided) -> dict[str, Any]:
    """Starts an export. Its end is told by exportCompleted or exportFailed."""
    return await services.exports.start(account, body.model_dump() | {"folders": body.folders or []})


@router.get("/v1/account/{account}/exports", openapi_extra=operation("export", "read"))
async def list_exports(account: AccountPath, query: Annotated[Page, Query()], services: Provided) -> dict[str, Any]:
    """The exports of an account, newest first."""
    paging, shown = query.of(await services.exports.listed(account))
    return paging | {"exports": shown}


@router.get("/v1/account/{account}/export/{exportId}", openapi_extra=operation("export", "read"))
async def get_export(account: AccountPath, export_id: ExportPath, services: Provided) -> dict[str, Any]:
    """One export, and how far it is."""
    return await services.exports.view(account, export_id)


@router.get("/v1/account/{account}/export/{exportId}/download", openapi_extra=operation("export", "read"))
async def download_export(account: AccountPath, export_id: ExportPath, services: Provided) -> Response:
    """The file of a completed export: gzip over one message as JSON in each line."""
    content = await services.exports.file(account, export_id)
    headers = {"Content-Disposition": f'attachment; filename="{export_id}.ndjson.gz"'}
    return Response(content, media_type="application/gzip", headers=headers)


@router.delete("/v1/account/{account}/export/{exportId}", openapi_extra=operation("export", "destructive"))
async def delete_export(account: AccountPath, export_id: ExportPath, services: Provided) -> dict[str, Any]:
    """Cancels an export that is under way; removes one that has ended."""
    return await services.exports.delete(account, export_id)
