"""The control plane under `/_tenant`, apart from everything that is emulated: reset, seed, switches, clock,
faults, log, counts; the rest is in control_directory, control_login and control_mail."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .control_directory import add_directory_control
from .control_input import ControlError, apply_changes, json_object, moment, required
from .control_login import add_login_control
from .control_mail import add_mail_control
from .errors import Respond
from .surfaces import surface_of

if TYPE_CHECKING:
    from .world import World

PREFIX = "/_tenant"


def add_control_routes(app: web.Application, world: World) -> None:
    """Mount the control plane; its errors are `{"error": "..."}` with 400 or 404."""
    app.middlewares.insert(0, _control_errors)
    _add_world(app, world)
    _add_faults(app, world)
    _add_log(app, world)
    add_directory_control(app, world, PREFIX)
    add_login_control(app, world, PREFIX)
    add_mail_control(app, world, PREFIX)


@web.middleware
async def _control_errors(request: web.Request, handler: Respond) -> web.StreamResponse:
    try:
        return await handler(request)
    except ControlError as error:
        return web.json_response({"error": error.message}, status=error.status)
    except web.HTTPException as error:
        if surface_of(request.path) != "control":
            raise
        return web.json_response({"error": error.text or error.reason}, status=error.status)


def _summary(world: World) -> dict[str, Any]:
    directory = world.directory
    return {
        "tenant_id": directory.tenant_id,
        "domain": directory.domain,
        "base_url": world.base_url,
        "now": world.clock.now().isoformat(),
        "principals": len(directory.principals),
        "applications": [a.client_id for a in directory.applications.values()],
    }


def _add_world(app: web.Application, world: World) -> None:
    async def summary(_: web.Request) -> web.Response:
        return web.json_response(_summary(world))

    async def reset(request: web.Request) -> web.Response:
        world.reset((await json_object(request)).get("random_seed"))
        return web.json_response(_summary(world))

    async def seed(request: web.Request) -> web.Response:
        world.seed((await json_object(request)).get("random_seed"))
        return web.json_response(_summary(world))

    async def switches(request: web.Request) -> web.Response:
        if request.method == "PATCH":
            apply_changes(world.switches, await json_object(request))
        return web.json_response(asdict(world.switches))

    async def clock(request: web.Request) -> web.Response:
        if request.method == "POST":
            (offset,) = required(await json_object(request), "offset_s")
            if isinstance(offset, bool) or not isinstance(offset, int | float):
                raise ControlError(400, "offset_s is a number of seconds.")
            world.clock.offset_s = float(offset)
        return web.json_response({"offset_s": world.clock.offset_s, "now": world.clock.now().isoformat()})

    app.router.add_get(PREFIX, summary)
    app.router.add_post(f"{PREFIX}/reset", reset)
    app.router.add_post(f"{PREFIX}/seed", seed)
    for method in ("GET", "PATCH"):
        app.router.add_route(method, f"{PREFIX}/switches", switches)
    for method in ("GET", "POST"):
        app.router.add_route(method, f"{PREFIX}/clock", clock)


def _add_faults(app: web.Application, world: World) -> None:
    async def index(_: web.Request) -> web.Response:
        return web.json_response({"value": world.faults.dump()})

    async def create(request: web.Request) -> web.Response:
        body = await json_object(request)
        (action,) = required(body, "action")
        unknown = set(body) - {"match", "times", "action", "probability"}
        if unknown:
            raise ControlError(400, f"Unknown: {', '.join(sorted(unknown))}.")
        try:
            probability = float(body.get("probability", 1.0))
            rule = world.faults.add(body.get("match") or {}, action, body.get("times", 1), probability)
        except (ValueError, TypeError, AttributeError, re.error) as error:
            raise ControlError(400, str(error)) from error
        return web.json_response(asdict(rule), status=201)

    async def remove(request: web.Request) -> web.Response:
        rule_id = request.match_info.get("rule_id")
        removed = world.faults.remove(rule_id)
        if rule_id and not removed:
            raise ControlError(404, f"No fault {rule_id!r}.")
        return web.json_response({"removed": removed})

    app.router.add_get(f"{PREFIX}/faults", index)
    app.router.add_post(f"{PREFIX}/faults", create)
    app.router.add_delete(f"{PREFIX}/faults", remove)
    app.router.add_delete(f"{PREFIX}/faults/{{rule_id}}", remove)


def _add_log(app: web.Application, world: World) -> None:
    async def index(request: web.Request) -> web.Response:
        query = request.query
        since = query.get("since")
        try:
            chosen = world.log.select(
                query.get("surface"),
                None if not since else int(since) if since.isdigit() else moment(since),
                query.get("method"),
                query.get("path"),
            )
        except re.error as error:
            raise ControlError(400, f"path is not a regular expression: {error}") from error
        last = world.log.entries[-1].number if world.log.entries else 0
        return web.json_response(
            {"requests": [entry.as_json() for entry in chosen], "counts": world.log.counts, "last": last}
        )

    async def clear(_: web.Request) -> web.Response:
        world.log.clear()
        return web.json_response(world.log.counts)

    async def counts(_: web.Request) -> web.Response:
        return web.json_response(world.log.counts)

    app.router.add_get(f"{PREFIX}/log", index)
    app.router.add_delete(f"{PREFIX}/log", clear)
    app.router.add_get(f"{PREFIX}/counts", counts)
