"""The HTTP application: login, identity endpoint, Graph and control on one port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from .control import add_control_routes
from .errors import graph_answers
from .faults import apply_faults
from .journal import keep_journal
from .login_authorize import add_authorize_routes
from .login_discovery import add_discovery_routes
from .login_token import add_token_route
from .managed_identity import add_managed_identity_route
from .request_log import log_requests
from .surfaces import surface_of

if TYPE_CHECKING:
    from .world import World

# Well above every Graph limit, so that the routes can answer 413 themselves (graph.md 2.2: 4 MB).
LARGEST_REQUEST_BYTES = 64 * 1024 * 1024


def build_app(world: World, *, graph: bool = True) -> web.Application:
    """The tenant as aiohttp application; with `graph=False` only login, identity endpoint and control."""
    app = web.Application(
        client_max_size=LARGEST_REQUEST_BYTES,
        middlewares=[
            log_requests(world),
            graph_answers(lambda request: surface_of(request.path) in ("graph", "upload"), lambda: world.clock.now()),
            apply_faults(world),
            *([keep_journal(world)] if graph else []),
        ],
    )
    add_control_routes(app, world)
    add_managed_identity_route(app, world)
    if graph:
        _add_graph(app, world)
    add_discovery_routes(app, world)
    add_authorize_routes(app, world)
    add_token_route(app, world)
    return app


def _add_graph(app: web.Application, world: World) -> None:
    # Imported here so that the login half runs and is tested without the mail half.
    from .control_people import add_people_control
    from .graph_routes import add_graph_routes
    from .notify_control import add_notify_control
    from .routes_uploads import add_upload_routes

    add_graph_routes(app, world)
    add_upload_routes(app, world)
    add_notify_control(app, world)
    add_people_control(app, world)

    async def stop_notifying(_: web.Application) -> None:
        await world.notifier.close()

    app.on_cleanup.append(stop_notifying)
