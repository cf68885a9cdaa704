"""The three programs of a local run as objects: Azurite, the Microsoft 365 tenant and the app.

`local/up.py` and the test fixtures start the same classes, so what `make run` shows is what tests test.
Each is a context manager, takes its ports (0: a free one) and writes one log. A program that is started
here ends with the process that started it, even after kill -9 (see `local/leash.py`).
"""

import atexit
import base64
import contextlib
import http.client
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Self

from local import azurite as installation

ROOT = installation.ROOT
LOCAL = installation.LOCAL
LOGS = LOCAL / "logs"
LOOPBACK = "127.0.0.1"
BOOTSTRAP_TOKEN = "0123456789abcdef" * 4  # development only: the same on every machine
STORAGE_ACCOUNT = "devstoreaccount1"
# The key every Azurite has; documented by Microsoft, not a secret.
STORAGE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0


class ServiceFailed(Exception):
    """A program did not start or died; the text ends with the tail of its log."""


def is_free(port: int) -> bool:
    """Whether nothing listens on the loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A free port below those the system hands to outgoing connections, which could take it meanwhile."""
    draw = random.SystemRandom()
    for _ in range(1000):
        port = draw.randrange(20000, 32000)
        if is_free(port):
            return port
    raise ServiceFailed("there is no free port between 20000 and 32000")


class _Leash:
    """The one `local.leash` process of this process, started with the first program."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def tell(self, line: str) -> None:
        """List (`+PID`) or unlist (`-PID`) a process group."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "local.leash"], cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True
            )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()


_leash = _Leash()


class Service:
    """One program: start, stop, kill, and what it wrote."""

    name = "service"
    ready_path = "/"

    def __init__(self, port: int, logs: Path = LOGS) -> None:
        self._wanted_port = port
        self.port = port or free_port()
        self.log_path = logs / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        return f"http://{LOOPBACK}:{self.port}"

    def command(self) -> list[str]:
        """The program and its arguments."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """The environment it runs in."""
        return {**os.environ, "PYTHONUNBUFFERED": "1"}

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process and self.running else None

    def start(self) -> Self:
        """Start it and wait until it answers. ServiceFailed, with the log's tail, if it does not."""
        for attempt in range(3):
            self._spawn()
            try:
                self._wait_until_ready()
                return self
            except BaseException as failure:
                self.kill()
                lost_port = isinstance(failure, ServiceFailed) and _port_was_taken(self.log_tail())
                if self._wanted_port or self._starts > attempt + 1 or not lost_port:
                    raise  # only a port nobody has heard of yet can be swapped for another
            self._new_ports()
        raise ServiceFailed(f"{self.name} found no free port in three attempts")

    def _spawn(self) -> None:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._open_log() as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C must reach this process only, which then ends the others
            )
        self._starts += 1
        _leash.tell(f"+{self._process.pid}")
        atexit.register(self.kill)

    def _open_log(self) -> BinaryIO:
        """Empty at the first start, continued at a restart, so that a crash can be read afterwards."""
        return self.log_path.open("ab" if self._starts else "wb")

    def _new_ports(self) -> None:
        self.port = free_port()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.is_ready():
            if not self.running:
                status = self._process.returncode if self._process else None
                raise ServiceFailed(self._report(f"ended with status {status} while starting"))
            if time.monotonic() > deadline:
                raise ServiceFailed(self._report(f"did not answer within {START_TIMEOUT_S:.0f} s"))
            time.sleep(0.05)

    def is_ready(self) -> bool:
        """Whether it answers a request."""
        return answers(self.port, self.ready_path)

    def check(self) -> None:
        """ServiceFailed if it is no longer running."""
        if not self.running:
            raise ServiceFailed(self._report("has ended"))

    def log_tail(self, lines: int = 25) -> str:
        """The last lines it wrote."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _report(self, what: str) -> str:
        return f"{self.name} {what}; the end of {self.log_path}:\n{self.log_tail()}"

    def stop(self) -> None:
        """End it politely; kill it if it does not go."""
        if self._process and self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """End it and whatever it started at once, as a power cut would."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _leash.tell(f"-{process.pid}")
        atexit.unregister(self.kill)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def answers(port: int, path: str) -> bool:
    """Whether an HTTP request gets an answer below 500."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _port_was_taken(log: str) -> bool:
    return "EADDRINUSE" in log or "address already in use" in log.lower()


class Azurite(Service):
    """The storage emulator; in memory, or keeping its files in a folder that survives a restart."""

    name = "azurite"

    def __init__(
        self,
        blob_port: int = 0,
        queue_port: int = 0,
        table_port: int = 0,
        *,
        location: Path | None = None,
        logs: Path = LOGS,
    ) -> None:
        super().__init__(blob_port, logs)
        self.queue_port = queue_port or free_port()
        self.table_port = table_port or free_port()
        self.location = location

    @property
    def connection_string(self) -> str:
        """What `AzureWebJobsStorage` has to be."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={STORAGE_ACCOUNT};AccountKey={STORAGE_KEY};"
            f"BlobEndpoint=http://{LOOPBACK}:{self.port}/{STORAGE_ACCOUNT};"
            f"QueueEndpoint=http://{LOOPBACK}:{self.queue_port}/{STORAGE_ACCOUNT};"
            f"TableEndpoint=http://{LOOPBACK}:{self.table_port}/{STORAGE_ACCOUNT};"
        )

    def command(self) -> list[str]:
        """Azurite through the Node.js that was found; installs it if it is missing."""
        node = installation.install()
        ports = {"blob": self.port, "queue": self.queue_port, "table": self.table_port}
        command = [node.program, str(installation.PROGRAM), "--silent", "--skipApiVersionCheck"]
        command.append("--disableTelemetry")
        for kind, port in ports.items():
            command += [f"--{kind}Port", str(port), f"--{kind}Host", LOOPBACK]
            # Longer than clients keep a connection, as in Azure: a request never meets one that is being closed.
            command += [f"--{kind}KeepAliveTimeout", "600"]
        kept = ["--location", str(self.location)] if self.location else ["--inMemoryPersistence"]
        return command + kept

    def _new_ports(self) -> None:
        self.port, self.queue_port, self.table_port = free_port(), free_port(), free_port()

    def is_ready(self) -> bool:
        """Whether all three services answer."""
        return all(answers(port, "/") for port in (self.port, self.queue_port, self.table_port))


class Tenant(Service):
    """The local Microsoft 365 tenant."""

    name = "tenant"
    ready_path = "/_tenant/switches"

    def __init__(
        self, port: int = 0, *, service_url: str = "", journal: Path | None = None, logs: Path = LOGS
    ) -> None:
        super().__init__(port, logs)
        self.service_url, self.journal = service_url, journal

    def command(self) -> list[str]:
        """`python -m local.tenant`, told where the app will be and where to keep its journal."""
        command = [sys.executable, "-m", "local.tenant", "--port", str(self.port)]
        command += ["--journal", str(self.journal)] if self.journal else []
        return [*command, "--service-url", self.service_url] if self.service_url else command


class App(Service):
    """The function app, under `local.host` or, if asked and present, under Azure Functions Core Tools."""

    name = "app"
    ready_path = "/admin/host/status"

    def __init__(
        self,
        port: int = 0,
        *,
        settings: Mapping[str, str] | None = None,
        folder: Path = ROOT,
        core_tools: bool = False,
        poll_seconds: float = 1.0,
        hidden_seconds: int = 600,
        logs: Path = LOGS,
    ) -> None:
        super().__init__(port, logs)
        self.settings = dict(settings or {})
        self.folder = folder
        self._func = shutil.which("func") if core_tools else None
        self._polling = ["--poll-seconds", str(poll_seconds), "--hidden-seconds", str(hidden_seconds)]

    @property
    def hosted_by(self) -> str:
        """The name of the program that runs the functions."""
        return "func" if self._func else "local.host"

    def command(self) -> list[str]:
        """`func start`, or `python -m local.host`."""
        if self._func:
            return [self._func, "start", "--python", "--port", str(self.port)]
        command = [sys.executable, "-m", "local.host", "--app", str(self.folder), "--port", str(self.port)]
        return command + self._polling

    def environment(self) -> dict[str, str]:
        """This process's environment under the app's settings; Core Tools finds this Python first."""
        path = str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", "")
        return {**super().environment(), "PATH": path, **self.settings, "SERVICE_URL": self.url}


def app_settings(
    *, storage: str, tenant_url: str, token: str = BOOTSTRAP_TOKEN, poll_interval_s: float = 5
) -> dict[str, str]:
    """The settings of the app on this machine, except `SERVICE_URL`, which `App` knows itself."""
    return {
        "FUNCTIONS_WORKER_RUNTIME": "python",
        "AzureWebJobsStorage": storage,
        "BOOTSTRAP_TOKEN": token,
        "KEY_RING": key_ring(),
        "LOGIN_ENDPOINT": tenant_url,
        "GRAPH_ENDPOINT": tenant_url,
        "POLL_INTERVAL_SECONDS": f"{poll_interval_s:g}",
        "POLL_LONGEST_SECONDS": f"{poll_interval_s:g}",
        "IDENTITY_ENDPOINT": f"{tenant_url}/msi/token",
        "IDENTITY_HEADER": "local",
    }


def key_ring() -> str:
    """This machine's key ring, made once: a second start must be able to read what the first one sealed."""
    path = LOCAL / "key_ring"
    with installation.one_at_a_time():
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text("k1:" + base64.b64encode(secrets.token_bytes(32)).decode())
        return path.read_text().strip()


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit("usage: python -m local.services install")
    sys.exit(installation.main())
