"""The app under the worker that Microsoft ships for Python 3.13, played through the whole story."""

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import function_app
from local.demo import play
from local.services import BOOTSTRAP_TOKEN, LOCAL, LOOPBACK, ROOT, Azurite, Tenant, app_settings, free_port

TOOLS = ROOT.parent / "shared" / "tools"
ENVIRONMENT = LOCAL / "microsoft-runtime"


def python_313() -> str | None:
    """A Python 3.13 that really runs, if this machine has one."""
    versions = Path.home() / ".pyenv" / "versions"
    candidates = [sys.executable, shutil.which("python3.13"), *map(str, versions.glob("3.13*/bin/python3.13"))]
    for candidate in filter(None, candidates):
        check = "import sys; sys.exit(sys.version_info[:2] != (3, 13))"
        if subprocess.run([candidate, "-c", check], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


needs_runtime = pytest.mark.skipif(not TOOLS.exists(), reason="the runtime host is not beside the project")
needs_python = pytest.mark.skipif(python_313() is None, reason="there is no Python 3.13 on this machine")


@pytest.fixture(scope="module")
def runtime_python() -> str:
    """An environment of Python 3.13 with the app's packages and the worker, made once."""
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / ".installed"
    wanted = (ROOT / "requirements.txt").read_text() + (TOOLS / "runtime_host" / "requirements.txt").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([python_313() or "", "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
        lists = ["-r", str(ROOT / "requirements.txt"), "-r", str(TOOLS / "runtime_host" / "requirements.txt")]
        subprocess.run(
            [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *lists], check=True
        )
        stamp.write_text(wanted)
    return str(python)


@pytest.fixture(scope="module")
def runtime(runtime_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The app's and the tenant's address, the app run by Microsoft's worker."""
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    log = tmp_path_factory.mktemp("runtime") / "host.log"
    with Azurite() as storage, Tenant(service_url=url) as tenant, log.open("wb") as output:
        settings = app_settings(storage=storage.connection_string, tenant_url=tenant.url)
        command = [runtime_python, "-m", "runtime_host", "--app", str(ROOT), "--port", str(port)]
        process = subprocess.Popen(
            [*command, "--azurite-connection", storage.connection_string, "--poll-seconds", "0.2"],
            env={**os.environ, **settings, "SERVICE_URL": url, "PYTHONPATH": str(TOOLS)},
            stdout=output,
            stderr=output,
        )
        try:
            wait_until_up(url, process, log)
            yield url, tenant.url
        finally:
            process.terminate()
            process.wait(20)


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import time

    for _ in range(300):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(f"{url}/health", timeout=10)
        except OSError:
            time.sleep(0.1)
            continue
        return
    raise AssertionError(log.read_text()[-3000:])


@needs_runtime
@needs_python
def test_every_function_is_indexed_without_a_warning(runtime_python: str) -> None:
    """Microsoft's worker loads every function, and no route hides another."""
    settings = app_settings(storage="UseDevelopmentStorage=true", tenant_url="http://127.0.0.1:1")
    listed = subprocess.run(
        [runtime_python, "-m", "runtime_host", "--app", str(ROOT), "--list"],
        env={**os.environ, **settings, "PYTHONPATH": str(TOOLS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert listed.returncode == 0, listed.stderr
    assert "WARNING" not in listed.stderr
    assert "INDEXING ERROR" not in listed.stderr
    declared = {one._function.get_function_name() for one in function_app.app._function_builders}
    assert {line.split()[0] for line in listed.stdout.splitlines()} == declared


@needs_runtime
@needs_python
async def test_the_story_ends_well_under_microsofts_worker(runtime: tuple[str, str]) -> None:
    """Sign-in, shared mailboxes, sending and signed webhooks work where the app will really run."""
    app_url, tenant_url = runtime
    assert await play(app_url, tenant_url, free_port(), BOOTSTRAP_TOKEN)
