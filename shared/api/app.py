"""The API app: routers, and the one place where errors become answers."""

from __future__ import annotations

import json
import logging
from typing import Any

from azure.core.exceptions import AzureError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from shared import __version__
from shared.api import (
    account_routes,
    around_routes,
    authentication_routes,
    blocklist_routes,
    change_routes,
    diagnostics_routes,
    document_routes,
    draft_routes,
    export_routes,
    mailbox_routes,
    oauth2_routes,
    outbox_routes,
    queue_routes,
    reading_routes,
    sealing_routes,
    settings_routes,
    submit_routes,
    template_routes,
    token_routes,
    tracking_routes,
    upkeep_routes,
    upload_routes,
    webhook_routes,
    webhook_routing_routes,
)
from shared.api.route import PAGE_NOT_FOUND
from shared.api.validation import answer_for
from shared.errors import ApiError, CredentialError, GraphFailure, RecordDamaged, RecordTooLarge, StateRefuses
from shared.graph.failures import to_api
from shared.vault import SealBroken
from shared.wiring import Services

log = logging.getLogger("graphpost.api")


def create_app(services: Services) -> FastAPI:
    """The app over these services. It keeps nothing between requests but them."""
    app = FastAPI(
        title="Graphpost",
        version=__version__,
        description="EmailEngine-compatible API for Microsoft 365 mailboxes over Microsoft Graph.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # document_routes gives it, completed
        redirect_slashes=False,
        strict_content_type=False,  # a body without a Content-Type is JSON, too
    )
    app.state.services = services
    for routes in (
        account_routes, authentication_routes, oauth2_routes, outbox_routes, settings_routes, submit_routes,
        token_routes, queue_routes, sealing_routes, webhook_routes, reading_routes, blocklist_routes,
        tracking_routes, around_routes, upkeep_routes, webhook_routing_routes, diagnostics_routes,
        document_routes, change_routes, mailbox_routes, draft_routes, upload_routes, template_routes,
        export_routes,
    ):  # fmt: skip
        app.include_router(routes.router)
    app.add_api_route("/health", health, methods=["GET"])
    _add_errors(app)
    return app


async def health() -> dict[str, bool]:
    """For monitors: the app is up."""
    return {"success": True}


def _add_errors(app: FastAPI) -> None:
    async def refused(_request: Request, error: Any) -> JSONResponse:
        return _answer(error)

    async def invalid(_request: Request, error: Any) -> JSONResponse:
        return _answer(answer_for(error.errors()))

    async def framework(_request: Request, error: Any) -> JSONResponse:
        if error.status_code in (404, 405):
            return _answer(PAGE_NOT_FOUND)
        return _answer(ApiError(error.status_code, "Invalid request payload JSON format"))

    async def graph(_request: Request, error: Any) -> JSONResponse:
        return _answer(to_api(error))

    async def credential(_request: Request, error: Any) -> JSONResponse:
        return _answer(StateRefuses("connectError" if error.transient else "authenticationError"))

    async def too_large(_request: Request, error: Any) -> JSONResponse:
        return _answer(ApiError(413, "The record is too large to be stored", "RecordTooLarge"))

    async def damaged(_request: Request, error: Any) -> JSONResponse:
        log.error("graphpost.api.damaged: %s", error)
        text = f"A stored record is damaged, in the table {error.table}. Delete what it belongs to and make it again"
        return _answer(ApiError(503, text, "RecordDamaged"))

    async def storage(_request: Request, error: Any) -> JSONResponse:
        log.error("storage failed: %s", type(error).__name__)
        return _answer(ApiError(503, "The storage is not available", "StorageUnavailable", {"Retry-After": "5"}))

    async def sealed(_request: Request, error: Any) -> JSONResponse:
        log.error("a stored value can not be opened: %s", error)
        return _answer(ApiError(503, f"A stored value can not be opened: {error}. Check KEY_RING", "SealBroken"))

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(GraphFailure, graph)
    app.add_exception_handler(CredentialError, credential)
    app.add_exception_handler(RecordTooLarge, too_large)
    app.add_exception_handler(RecordDamaged, damaged)
    app.add_exception_handler(AzureError, storage)
    app.add_exception_handler(SealBroken, sealed)


class _Envelope(JSONResponse):
    """JSON that also carries what no UTF-8 can, in escapes: a refusal may name a lone surrogate that was sent."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode("ascii")


def _answer(error: ApiError) -> JSONResponse:
    return _Envelope(error.envelope(), error.status, error.headers)
