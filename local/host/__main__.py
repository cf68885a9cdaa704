"""Command line of the local host: list an app's functions, or serve them until SIGTERM or Ctrl-C."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from local.host.front import Front
from local.host.functions import Function, load
from local.host.invocation import Invoker
from local.host.outputs import Queues, queue_name
from local.host.queue_triggers import QueueTriggers
from local.host.settings import (
    HostSettings,
    StartRefused,
    add_local_settings,
    connection_string,
    is_disabled,
    read_host_json,
)
from local.host.timers import Timers, schedule

LAST_MOMENTS_S = 5.0  # how long running functions may go on after SIGTERM


@dataclass
class Options:
    """What the command line asked for."""

    app: Path
    port: int
    host: str
    poll_seconds: float
    hidden_seconds: int
    list: bool
    quiet: bool


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The command line, with its defaults."""
    parser = argparse.ArgumentParser(prog="python -m local.host", description=__doc__)
    parser.add_argument("--app", type=Path, default=Path(), help="directory of function_app.py and host.json")
    parser.add_argument("--port", type=int, default=7071)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--poll-seconds", type=float, default=1.0, help="longest pause between polls of a queue"
    )
    parser.add_argument(
        "--hidden-seconds",
        type=int,
        default=600,
        help="how long a taken message stays hidden unless renewed (Azure: 600; less for crash tests)",
    )
    parser.add_argument("--list", action="store_true", help="print the functions and leave")
    parser.add_argument("--quiet", action="store_true", help="log only invocations that failed")
    return Options(**vars(parser.parse_args(arguments)))


class Host:
    """An app with its listeners."""

    def __init__(self, options: Options, settings: HostSettings, functions: Sequence[Function]) -> None:
        self._options = options
        self.functions = functions
        self._queues = Queues(settings)
        invoker = Invoker(settings.function_timeout_s, options.quiet)
        self._queue_triggers = QueueTriggers(
            invoker, self._queues, settings, options.poll_seconds, options.hidden_seconds
        )
        self._timers = Timers(invoker, self._queues)
        self.front = Front(settings, functions, invoker, self._queues, self._queue_triggers, self._timers)
        for function in functions:
            self._check(function)

    def _check(self, function: Function) -> None:
        """What can only be known from the settings: schedules, queue names, connections."""
        if function.kind == "timertrigger":
            schedule(function)
        triggers = [function.trigger] if function.kind == "queuetrigger" else []
        for binding in [*triggers, *function.queue_outputs()]:
            queue_name(binding)
            connection_string(binding.get("connection"), os.environ)

    async def serve(self) -> int:
        """Listen until told to stop; 1 if a listener broke."""
        stop = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        runner = web.AppRunner(self.front.application(), shutdown_timeout=LAST_MOMENTS_S)
        await runner.setup()
        await web.TCPSite(runner, self._options.host, self._options.port).start()
        listeners = self._listeners()
        print(f"app listening on http://{self._options.host}:{self._options.port}", flush=True)
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, *listeners], return_when=asyncio.FIRST_COMPLETED)
        broken = [task for task in listeners if task.done()]
        for task in broken:
            print(f"listener of {task.get_name()} broke: {task.exception()!r}", file=sys.stderr)
        await self._stop(runner, listeners)
        return 1 if broken else 0

    def _listeners(self) -> list[asyncio.Task[None]]:
        by_kind = {"queuetrigger": self._queue_triggers.listen, "timertrigger": self._timers.listen}
        return [
            asyncio.create_task(by_kind[function.kind](function), name=function.name)
            for function in self.functions
            if function.kind in by_kind
        ]

    async def _stop(self, runner: web.AppRunner, listeners: Sequence["asyncio.Task[None]"]) -> None:
        """Take nothing new, and let what runs come to its end for a moment."""
        for task in listeners:
            task.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
        if self._queue_triggers.running:
            await asyncio.wait(self._queue_triggers.running, timeout=LAST_MOMENTS_S)
        await runner.cleanup()
        await self._queues.close()


def describe(function: Function, front: Front) -> str:
    """One line for `--list`: name, trigger, and what it listens to."""
    if function.kind == "timertrigger":
        detail = schedule(function)
    elif function.kind == "queuetrigger":
        detail = queue_name(function.trigger)
    else:
        route = next(route for other, route in front.routes if other is function)
        detail = f"{','.join(sorted(route.methods)) or 'ANY'} /{route.template.lstrip('/')}"
    return f"{function.name:<28} {function.trigger['type']:<13} {detail}"


def prepare(options: Options) -> Host:
    """The app, loaded and checked but not yet listening; StartRefused if it cannot be run."""
    app_dir = options.app.resolve()
    os.environ.setdefault("FUNCTIONS_WORKER_RUNTIME", "python")
    os.environ.setdefault("AZURE_FUNCTIONS_ENVIRONMENT", "Development")
    add_local_settings(app_dir, os.environ)
    os.environ.setdefault("AzureWebJobsStorage", "UseDevelopmentStorage=true")
    settings = read_host_json(app_dir, os.environ)
    functions = [item for item in load(app_dir, settings) if not is_disabled(item.name, os.environ)]
    return Host(options, settings, functions)


def main() -> int:
    """Run the command line; the exit status."""
    options = parse()
    logging.basicConfig(level=logging.WARNING if options.quiet else logging.INFO, stream=sys.stderr)
    for noisy in ("azure", "httpx", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        host = prepare(options)
    except StartRefused as refusal:
        print(f"cannot start: {refusal}", file=sys.stderr)
        return 1
    if options.list:
        print("\n".join(describe(function, host.front) for function in host.functions))
        return 0
    return asyncio.run(host.serve())


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a thread of the app that never ends must not keep the port's owner alive
