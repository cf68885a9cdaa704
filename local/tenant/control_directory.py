"""Control over the directory: principals, applications, rights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from cryptography import x509

from .control_input import ControlError, apply_changes, json_object, known_principal, moment, required
from .directory import RIGHTS, Application, ManagedIdentity, Principal, Right

if TYPE_CHECKING:
    from .world import World


def application_json(application: Application) -> dict[str, Any]:
    """The registration as JSON; sets as sorted lists, secrets as objects."""
    body = asdict(application)
    body["secrets"] = [
        {"value": value, "expires_at": expires.isoformat() if expires else None}
        for value, expires in application.secrets
    ]
    for name in ("delegated_scopes", "application_roles", "mailbox_allow_list"):
        body[name] = None if body[name] is None else sorted(body[name])
    return body


def _secret(value: object) -> tuple[str, Any]:
    if isinstance(value, str):
        return value, None
    if isinstance(value, dict) and isinstance(value.get("value"), str):
        return value["value"], moment(value["expires_at"]) if value.get("expires_at") else None
    raise ControlError(400, f"Not a secret: {value!r}. Give a text or {{value, expires_at}}.")


def change_application(application: Application, body: dict[str, Any]) -> None:
    """Apply JSON to a registration. Raises ControlError 400."""
    changes = dict(body)
    if "secrets" in changes:
        changes["secrets"] = [_secret(one) for one in changes["secrets"]]
    for pem in changes.get("certificates") or []:
        try:
            x509.load_pem_x509_certificate(str(pem).encode())
        except ValueError as error:
            raise ControlError(400, f"Not a certificate in PEM: {error}") from error
    for name in ("delegated_scopes", "application_roles", "mailbox_allow_list"):
        if isinstance(changes.get(name), list):
            changes[name] = set(changes[name])
    apply_changes(application, changes)


def _user_mailbox_right(world: World, body: dict[str, Any]) -> tuple[Principal, Principal, Right]:
    user, mailbox, right = required(body, "user", "mailbox", "right")
    if right not in RIGHTS:
        raise ControlError(400, f"right must be one of {', '.join(RIGHTS)}.")
    find = world.directory.find
    return known_principal(find(user), user), known_principal(find(mailbox), mailbox), cast(Right, right)


def add_directory_control(app: web.Application, world: World, prefix: str) -> None:
    """Mount /principals, /applications, /rights and /identities under the prefix."""
    _add_principals(app, world, prefix)
    _add_applications(app, world, prefix)
    _add_rights(app, world, prefix)


def _add_principals(app: web.Application, world: World, prefix: str) -> None:
    def named(request: web.Request) -> Principal:
        return known_principal(world.directory.find(request.match_info["ref"]), request.match_info["ref"])

    async def index(_: web.Request) -> web.Response:
        return web.json_response({"value": [asdict(p) for p in world.directory.principals.values()]})

    async def create(request: web.Request) -> web.Response:
        body = await json_object(request)
        (upn,) = required(body, "upn")
        principal = Principal(world.new_guid(), str(upn), str(upn), str(upn).partition("@")[0])
        apply_changes(principal, body)
        try:
            world.directory.add(principal)
        except ValueError as error:
            raise ControlError(400, str(error)) from error
        return web.json_response(asdict(principal), status=201)

    async def change(request: web.Request) -> web.Response:
        principal, body = named(request), await json_object(request)
        if body.get("id", principal.id) != principal.id:
            raise ControlError(400, "The id of a principal cannot change.")
        apply_changes(principal, body)
        if not principal.enabled:
            # Disabling ends the refresh tokens (graph.md 12.6 [D]); access tokens live on until they expire.
            world.login.revoke(principal)
        return web.json_response(asdict(principal))

    async def remove(request: web.Request) -> web.Response:
        principal = named(request)
        world.login.revoke(principal)
        world.directory.remove(principal)
        return web.json_response({"removed": principal.id})

    app.router.add_get(f"{prefix}/principals", index)
    app.router.add_post(f"{prefix}/principals", create)
    app.router.add_patch(f"{prefix}/principals/{{ref}}", change)
    app.router.add_delete(f"{prefix}/principals/{{ref}}", remove)


def _add_applications(app: web.Application, world: World, prefix: str) -> None:
    async def index(_: web.Request) -> web.Response:
        return web.json_response(
            {"value": [application_json(a) for a in world.directory.applications.values()]}
        )

    async def create(request: web.Request) -> web.Response:
        body = await json_object(request)
        client_id = str(body.get("client_id") or world.new_guid())
        application = Application(client_id, str(body.get("display_name") or client_id))
        change_application(application, {**body, "client_id": client_id})
        return web.json_response(application_json(world.directory.register(application)), status=201)

    async def change(request: web.Request) -> web.Response:
        application = world.directory.application(request.match_info["client_id"])
        if application is None:
            raise ControlError(404, f"No application {request.match_info['client_id']!r}.")
        body = await json_object(request)
        if body.get("client_id", application.client_id) != application.client_id:
            raise ControlError(400, "The client_id of an application cannot change.")
        change_application(application, body)
        return web.json_response(application_json(application))

    async def identity(request: web.Request) -> web.Response:
        client_id, principal_id = required(await json_object(request), "client_id", "principal_id")
        world.directory.identities.append(ManagedIdentity(str(client_id).lower(), str(principal_id)))
        return web.json_response({"client_id": client_id, "principal_id": principal_id}, status=201)

    app.router.add_get(f"{prefix}/applications", index)
    app.router.add_post(f"{prefix}/applications", create)
    app.router.add_patch(f"{prefix}/applications/{{client_id}}", change)
    app.router.add_post(f"{prefix}/identities", identity)


def _add_rights(app: web.Application, world: World, prefix: str) -> None:
    async def index(_: web.Request) -> web.Response:
        names = {principal.id: principal.upn for principal in world.directory.principals.values()}
        held = [
            {"user": names[user], "mailbox": names[mailbox], "right": right}
            for (user, mailbox), rights in world.directory.rights.items()
            for right in sorted(rights)
        ]
        return web.json_response({"value": held})

    def changing(change: Callable[[Principal, Principal, Right], None]) -> Any:
        async def apply(request: web.Request) -> web.Response:
            user, mailbox, right = _user_mailbox_right(world, await json_object(request))
            change(user, mailbox, right)
            held = [r for r in RIGHTS if world.directory.has_right(user, mailbox, r)]
            return web.json_response({"user": user.upn, "mailbox": mailbox.upn, "rights": held})

        return apply

    app.router.add_get(f"{prefix}/rights", index)
    app.router.add_post(f"{prefix}/rights", changing(lambda u, m, r: world.directory.grant(u, m, r)))
    app.router.add_delete(f"{prefix}/rights", changing(lambda u, m, r: world.directory.revoke(u, m, r)))
