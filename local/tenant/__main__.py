"""`python -m local.tenant`: the stand-in tenant on a port, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from pathlib import Path

from aiohttp import web

from .app import build_app
from .journal import to_file
from .world import World


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.tenant", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7080, help="0 takes a free port")
    parser.add_argument("--empty", action="store_true", help="start without the demonstration tenant")
    parser.add_argument(
        "--service-url",
        action="append",
        default=[],
        help="a service to sign in to; its /oauth is a redirect URI of the seeded app (may repeat)",
    )
    parser.add_argument("--journal", type=Path, help="a file that gets a line of JSON for every exchange at Graph")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    world = World()
    world.service_urls = list(arguments.service_url)
    if arguments.journal:
        world.journal = to_file(arguments.journal)
    if not arguments.empty:
        world.seed()
    runner = web.AppRunner(build_app(world), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, arguments.host, arguments.port, shutdown_timeout=1)
    await site.start()
    port = runner.addresses[0][1]
    world.base_url = f"http://{arguments.host}:{port}"
    print(f"tenant listening on {world.base_url}", flush=True)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        # Windows event loops know no signal callbacks; there Ctrl+C ends the program by itself.
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    """Serve until told to stop."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(_arguments()))


if __name__ == "__main__":
    main()
