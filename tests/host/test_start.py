"""What the host refuses at its start, how it lists an app, and how it stops."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.host.__main__ import parse, prepare
from local.host.settings import StartRefused
from local.services import ROOT, App, Azurite
from tests.host.conftest import SAMPLE
from tests.support.application import Application
from tests.support.queues import StorageQueue


@pytest.fixture
def _own_interpreter_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Loading an app changes the folder, the import path and the modules; undo all three."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("AzureWebJobsC", raising=False)
    before = sys.modules.pop("function_app", None)
    yield
    sys.modules.pop("function_app", None)
    if before:
        sys.modules["function_app"] = before


BUNDLE = {"id": "Microsoft.Azure.Functions.ExtensionBundle", "version": "[4.0.0, 5.0.0)"}
NEVER = "0 0 0 1 1 *"
HTTP = "def {0}(req: func.HttpRequest) -> func.HttpResponse: ..."


def listing(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """`python -m local.host --list`."""
    command = [sys.executable, "-m", "local.host", "--app", str(folder), "--list"]
    environment = {**os.environ, **settings}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


async def taken(queue: StorageQueue) -> None:
    """Returns when nothing on the queue waits to be taken."""
    while queue.has_visible():  # noqa: ASYNC110 - the queue is another program's
        await asyncio.sleep(0.05)


def app_folder(folder: Path, code: str, **host_json: object) -> Path:
    """A one-function app."""
    (folder / "host.json").write_text(json.dumps({"version": "2.0", **host_json}))
    (folder / "function_app.py").write_text(
        f"import azure.functions as func\napp = func.FunctionApp()\n{code}\n"
    )
    return folder


def test_list_shows_every_function_in_the_order_they_are_tried(sample_settings: dict[str, str]) -> None:
    """By name, ignoring case; disabled ones are not there."""
    shown = listing(SAMPLE, **sample_settings)
    names = [line.split()[0] for line in shown.stdout.splitlines()]
    assert shown.returncode == 0
    assert names == sorted(names, key=str.upper)
    assert "a_pet" in names
    assert "switched_off" not in names
    assert "GET /api/items/{id:int}" in shown.stdout


@pytest.mark.parametrize(
    ("code", "host_json", "reason"),
    [
        ("@app.route(route='administrators')\n" + HTTP.format("a"), {}, "reserved"),
        ("@app.route(route='Runtime/x')\n" + HTTP.format("a"), {}, "reserved"),
        (
            "@app.route(route='x')\n" + HTTP.format("a") + "\n@app.route(route='X')\n" + HTTP.format("b"),
            {},
            "that of 'a'",
        ),
        ("app = func.AsgiFunctionApp(app=None)", {}, "two '/' in a row"),
        ("@app.route(route='x/{id:nothing}')\n" + HTTP.format("a"), {}, "not a parameter"),
        ("@app.route(route='x/{id')\n" + HTTP.format("a"), {}, "unbalanced"),
        ("@app.route(route='x')\ndef a(request: func.HttpRequest): ...", {}, "do not match"),
        ("@app.function_name('host')\n@app.route(route='x')\n" + HTTP.format("a"), {}, "valid function name"),
        ("@app.timer_trigger(arg_name='t', schedule='0 99 * * * *')\ndef a(t): ...", {}, "not valid"),
        ("@app.timer_trigger(arg_name='t', schedule='%NO_SUCH%')\ndef a(t): ...", {}, "does not resolve"),
        ("@app.queue_trigger('m', 'inbox', 'C')\ndef a(m): ...", {}, "extensionBundle"),
        ("@app.queue_trigger('m', '%NO%', 'C')\ndef a(m): ...", {"extensionBundle": BUNDLE}, "not resolve"),
        ("@app.queue_trigger('m', 'inbox', 'C')\ndef a(m): ...", {"extensionBundle": BUNDLE}, "not set"),
        ("other = func.FunctionApp()", {}, "one FunctionApp"),
        ("", {"extensions": {"queues": {"batchSize": 33}}}, "batchSize"),
        ("", {"version": "1.0"}, "version"),
    ],
)
@pytest.mark.usefixtures("_own_interpreter_state")
def test_start_is_refused(tmp_path: Path, code: str, host_json: dict[str, object], reason: str) -> None:
    """Everything the real host or worker would refuse, with the reason."""
    folder = app_folder(tmp_path, code, **host_json)
    with pytest.raises(StartRefused, match=re.escape(reason)):
        prepare(parse(["--app", str(folder)]))


def test_a_refusal_ends_with_status_1_and_one_line(tmp_path: Path) -> None:
    """Instead of a traceback."""
    refused = listing(tmp_path)
    assert refused.returncode == 1
    assert refused.stderr == f"cannot start: there is no host.json in {tmp_path}\n"


def test_local_settings_fill_in_what_the_environment_lacks(tmp_path: Path) -> None:
    """`Values` of local.settings.json; the environment wins."""
    app_folder(tmp_path, "@app.timer_trigger(arg_name='t', schedule='%WHEN% %THEN%')\ndef a(t): ...")
    values = {"WHEN": "1 2 3", "THEN": "4 5 6"}
    (tmp_path / "local.settings.json").write_text(json.dumps({"Values": values}))
    assert "1 2 3 7 7 *" in listing(tmp_path, THEN="7 7 *").stdout


async def test_sigterm_ends_it_cleanly_and_it_starts_again_on_its_port(
    sample_settings: dict[str, str], service_logs: Path
) -> None:
    """Status 0, and nothing keeps the port."""
    settings = {**sample_settings, "SAMPLE_SCHEDULE": NEVER}
    host = App(settings=settings, folder=SAMPLE, logs=service_logs / "stopping")
    with host:
        url, process = host.url, host._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        host.start()
        assert host.url == url
        assert (await Application(host).call("GET", "/")).status == 200


async def test_a_message_in_work_at_a_crash_comes_back(
    azurite: Azurite, sample_settings: dict[str, str], service_logs: Path
) -> None:
    """When its hiding time is over, here two seconds, with one attempt more on its count."""
    settings = {**sample_settings, "SAMPLE_INBOX": "sample-crash", "SAMPLE_SCHEDULE": NEVER}
    host = App(settings=settings, folder=SAMPLE, hidden_seconds=2, logs=service_logs / "crashing")
    inbox = StorageQueue(azurite.connection_string, "sample-crash")
    inbox.put('{"sleep": 1.5, "crash": true}')
    with host:
        async with asyncio.timeout(10):
            await taken(inbox)
        host.kill()
        host.start()
        (text,) = await StorageQueue(azurite.connection_string, "sample-done").take()
    run = json.loads(text)
    assert (run["body"]["crash"], run["dequeue_count"]) == (True, 2)
