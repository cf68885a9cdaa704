"""Stored templates (emailengine.md 16), and the short paths that some clients call."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from shared.api.route import AccountPath, Granted, GuardedRoute, Provided, operation, segment
from shared.api.template_schemas import Flush, TemplateCreate, TemplateList, TemplateUpdate
from shared.errors import ApiError, InvalidInput

router = APIRouter(route_class=GuardedRoute, tags=["Templates"])
TemplatePath = Annotated[str, segment("template")]


@router.get("/v1/templates", openapi_extra=operation("template", "read"))
async def list_templates(query: Annotated[TemplateList, Query()], services: Provided) -> dict[str, Any]:
    """The templates of an account, without one the shared templates; newest first, without their content."""
    paging, shown = query.of(await services.templates.listed(query.account))
    return {"account": query.account} | paging | {"templates": shown}


@router.post("/v1/templates/template", openapi_extra=operation("template", "write"))
async def create_template(body: TemplateCreate, services: Provided, grant: Granted) -> dict[str, Any]:
    """A new template of an account, or with `account` null of all. A token bound to an account makes its own."""
    if grant.account is None and "account" not in body.model_fields_set:
        raise InvalidInput.field("account", '"account" is required')
    fields = body.model_dump() | {"format": body.format or "html"}
    fields["content"] = {name: text for name, text in fields["content"].items() if text is not None}
    if grant.account is not None:
        fields["account"] = grant.account
    return await services.templates.create(fields)


@router.get("/v1/templates/template/{template}", openapi_extra=operation("template", "read"))
@router.get("/v1/templates/{template}", openapi_extra=operation("template", "read"), include_in_schema=False)
async def get_template(template: TemplatePath, services: Provided) -> dict[str, Any]:
    """One template with its content."""
    return await services.templates.view(template)


@router.put("/v1/templates/template/{template}", openapi_extra=operation("template", "write"))
@router.put("/v1/templates/{template}", openapi_extra=operation("template", "write"), include_in_schema=False)
@router.post("/v1/templates/{template}", openapi_extra=operation("template", "write"), include_in_schema=False)
async def update_template(template: TemplatePath, body: TemplateUpdate, services: Provided) -> dict[str, Any]:
    """Changes what is given; `content` is replaced as a whole."""
    changes = body.changes()
    if "content" in changes:
        changes["content"] = {name: text for name, text in changes["content"].items() if text is not None}
    return await services.templates.update(template, changes)


@router.delete("/v1/templates/template/{template}", openapi_extra=operation("template", "destructive"))
@router.delete("/v1/templates/{template}", openapi_extra=operation("template", "destructive"), include_in_schema=False)
async def delete_template(template: TemplatePath, services: Provided) -> dict[str, Any]:
    """Removes a template; `deleted` is false when there was none."""
    return await services.templates.delete(template)


@router.delete("/v1/templates/account/{account}", openapi_extra=operation("template", "destructive"))
async def flush_templates(account: AccountPath, query: Annotated[Flush, Query()], services: Provided) -> dict[str, Any]:
    """Removes every template of an account. Only with `force=true`, so that nobody does it by mistake."""
    if not query.force:
        text = "All templates of the account would be deleted. Say so with force=true"
        raise ApiError(400, text, "ForceRequired")
    await services.templates.flush(account)
    return {"flushed": True, "account": account}
