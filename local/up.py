"""`make run`: the whole project on this machine, first its story, then a prompt of your own.

Starts Azurite, the Microsoft 365 tenant and the app, plays `local/demo.py`, and stays until Ctrl-C.
With `--once` it leaves after the demo, with the demo's status. Nothing it started outlives it.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import NoReturn, TypeVar

from local import azurite as installation
from local.services import (
    BOOTSTRAP_TOKEN,
    LOCAL,
    LOGS,
    ROOT,
    App,
    Azurite,
    Service,
    ServiceFailed,
    Tenant,
    app_settings,
    free_port,
    is_free,
)

DEFAULT_PORTS = {"blob": 10000, "queue": 10001, "table": 10002, "tenant": 7080, "app": 7071, "receiver": 7090}
T = TypeVar("T")


@dataclass(frozen=True)
class Urls:
    """Where the parts of a local run are."""

    app: str
    tenant: str
    receiver_port: int
    token: str = BOOTSTRAP_TOKEN


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; a port that was not given is None."""
    parser = argparse.ArgumentParser(prog="python -m local.up", description=__doc__)
    parser.add_argument("--once", action="store_true", help="leave after the demo, with its status")
    parser.add_argument("--in-memory", action="store_true", help="storage that forgets everything at the end")
    parser.add_argument("--no-demo", action="store_true", help="only start, play nothing")
    parser.add_argument("--without-app", action="store_true", help="start all but the app, for a debugger")
    for name, port in DEFAULT_PORTS.items():
        parser.add_argument(f"--{name}-port", type=int, help=f"default {port}, or a free one if taken")
    return parser.parse_args(arguments)


def choose_ports(options: argparse.Namespace) -> dict[str, int]:
    """The ports asked for, else the usual ones, else free ones. ServiceFailed if one asked for is taken."""
    ports = {}
    for name, default in DEFAULT_PORTS.items():
        wanted: int | None = getattr(options, f"{name}_port")
        if wanted and not is_free(wanted):
            raise ServiceFailed(f"port {wanted} (--{name}-port) is taken by another program")
        ports[name] = wanted or (default if is_free(default) else free_port())
        if not wanted and ports[name] != default:
            say(f"port {default} is taken, {name} uses {ports[name]}")
    return ports


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(text, flush=True)


def timed(what: str, action: Callable[[], T]) -> T:
    """What the action returns, with a line that says how long it took."""
    print(f"  {what:<34} ", end="", flush=True)
    started = time.monotonic()
    try:
        outcome = action()
    except BaseException:
        say("failed")
        raise
    say(f"{time.monotonic() - started:5.1f} s")
    return outcome


def start(options: argparse.Namespace, stack: ExitStack) -> tuple[Urls, list[Service]]:
    """Everything up and answering; the stack stops it."""
    if not installation.is_installed():
        installation.install()
    ports = choose_ports(options)
    storage = Azurite(
        ports["blob"],
        ports["queue"],
        ports["table"],
        location=None if options.in_memory else LOCAL / "azurite-storage",
    )
    tenant = Tenant(ports["tenant"], service_url=f"http://127.0.0.1:{ports['app']}")
    settings = app_settings(storage=storage.connection_string, tenant_url=tenant.url)
    app = App(ports["app"], settings=settings, core_tools=True)
    labels: dict[Service, str] = {
        storage: f"storage (Azurite) :{storage.port}",
        tenant: f"Microsoft 365 tenant :{tenant.port}",
        app: f"Graphpost ({app.hosted_by}) :{app.port}",
    }
    if options.without_app:
        del labels[app]
    for service, label in labels.items():
        timed(label, partial(stack.enter_context, service))
    return Urls(app.url, tenant.url, ports["receiver"]), list(labels)


def play_demo(urls: Urls) -> int:
    """The demo's exit status; it writes to this terminal."""
    command = [sys.executable, "-m", "local.demo", "--app-url", urls.app, "--tenant-url", urls.tenant]
    command += ["--receiver-port", str(urls.receiver_port), "--token", urls.token]
    with subprocess.Popen(command, cwd=ROOT) as demo:
        try:
            return demo.wait()
        except BaseException:
            demo.kill()
            raise


def stay(urls: Urls, services: Sequence[Service]) -> NoReturn:
    """Show what there is to try, and wait. ServiceFailed if one of the programs dies."""
    say(
        f"\nGraphpost            {urls.app}\n"
        f"Microsoft 365 tenant {urls.tenant}\n"
        f"logs                 {LOGS}\n"
        "\nSend something from the shared mailbox:\n\n"
        f"  curl -X POST {urls.app}/v1/account/shared-support/submit \\\n"
        f"    -H 'Authorization: Bearer {urls.token}' \\\n"
        "    -H 'Content-Type: application/json' \\\n"
        '    -d \'{"to": [{"address": "rita@contoso.example"}], "subject": "Hello", "text": "It works."}\'\n'
        "\nCtrl-C stops everything."
    )
    while True:
        time.sleep(0.5)
        for service in services:
            service.check()


def run(options: argparse.Namespace) -> int:
    """Start, play, stay; the exit status."""
    with ExitStack() as stack:
        urls, services = start(options, stack)
        if options.without_app:
            say("ready for the app")
        status = 0 if options.no_demo or options.without_app else play_demo(urls)
        for service in services:
            service.check()
        if options.once:
            return status
        if status:
            say(f"\nthe demo failed (status {status}); everything stays up for a look, logs in {LOGS}")
        stay(urls, services)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def main() -> int:
    """Run the command line; the exit status."""
    options = parse()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)  # leave through every `with`, so that nothing stays behind
    try:
        return run(options)
    except KeyboardInterrupt:
        say("\nstopped")
        return 130 if options.once else 0
    except (ServiceFailed, installation.InstallFailed) as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
