"""The deployment hooks, run as azd runs them: with a stand-in for azd, and one for Azure Resource Manager."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from shared.settings import Settings
from tests.support.bicep import ROOT

GROUP = "/subscriptions/sub/resourceGroups/rg-demo/"
AZD = """#!{python}
import json, os, sys
if sys.argv[1:3] == ["auth", "token"]:
    assert "--scope" in sys.argv
    print(json.dumps({{"token": "of-azd", "expiresOn": "later"}}))
elif sys.argv[1:3] == ["env", "set"]:
    path = os.environ["AZD_VALUES"]
    values = json.load(open(path))
    values[sys.argv[3]] = sys.argv[4]
    json.dump(values, open(path, "w"))
else:
    sys.exit("azd: not expected: " + repr(sys.argv))
"""


class Arm(ThreadingHTTPServer):
    """A resource group: which vaults have a key ring, and the settings of sites. `refuses`: everything is a 403."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.vaults: dict[str, bool] = {}
        self.sites: dict[str, dict[str, str]] = {}
        self.refuses = False
        self.seen: list[str] = []


class Requests(BaseHTTPRequestHandler):
    """Answers them."""

    server: Arm

    def _answer(self, status: int, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _handle(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(unquote(self.path))
        path = parts.path.removeprefix(GROUP)
        self.server.seen.append(f"{self.command} {path}")
        assert self.headers["Authorization"] == "Bearer of-azd"
        assert "api-version=" in parts.query
        if self.server.refuses:
            return self._answer(403, {"error": {"code": "AuthorizationFailed"}})
        if path == "resources":
            names = self.server.vaults if "KeyVault" in parts.query else self.server.sites
            return self._answer(200, {"value": [{"name": name} for name in names]})
        if found := re.fullmatch(r"providers/Microsoft.KeyVault/vaults/([^/]+)/secrets/key-ring", path):
            there = self.server.vaults.get(found[1], False)
            return self._answer(200 if there else 404, {"id": "secret"} if there else {})
        if found := re.fullmatch(r"providers/Microsoft.Web/sites/([^/]+)/config/appsettings(/list)?", path):
            if found[1] not in self.server.sites:
                return self._answer(404, {})
            if self.command == "PUT":
                self.server.sites[found[1]] = json.loads(sent)["properties"]
            return self._answer(200, {"properties": self.server.sites[found[1]]})
        return self._answer(400, {"error": "not expected"})

    do_GET = do_POST = do_PUT = _handle

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def arm() -> Iterator[Arm]:
    """Resource Manager of this test."""
    server = Arm()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


class Deployment:
    """An azd environment, and its hooks."""

    def __init__(self, folder: Path, arm: Arm) -> None:
        program = folder / "azd"
        program.write_text(AZD.format(python=sys.executable))
        program.chmod(0o755)
        self._values = folder / "values.json"
        self._values.write_text("{}")
        self._base = {
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "AZD_VALUES": str(self._values),
            "AZURE_MANAGEMENT_URL": f"http://127.0.0.1:{arm.server_port}", "AZURE_ENV_NAME": "demo",
        }  # fmt: skip

    @property
    def values(self) -> dict[str, str]:
        """What the hooks wrote into the environment."""
        read: dict[str, str] = json.loads(self._values.read_text())
        return read

    def run(self, hook: str, **more: str) -> subprocess.CompletedProcess[str]:
        """One hook, as azd starts it."""
        return subprocess.run(
            [sys.executable, str(ROOT / "scripts" / f"{hook}.py")], cwd=ROOT / "scripts",
            env=self._base | self.values | more, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip


@pytest.fixture
def deployment(tmp_path: Path, arm: Arm) -> Deployment:
    """A fresh environment."""
    return Deployment(tmp_path, arm)


PLACE = {"AZURE_SUBSCRIPTION_ID": "sub"}
DEPLOYED = PLACE | {
    "AZURE_RESOURCE_GROUP": "rg-demo", "AZURE_TENANT_ID": "tenant", "FUNCTION_APP_NAME": "func-x",
    "SERVICE_URL": "https://func-x.azurewebsites.net", "KEY_VAULT_NAME": "kv-x", "ENTRA_APP_CLIENT_ID": "client-id",
}  # fmt: skip


@pytest.mark.parametrize("place", [{}, PLACE], ids=["nowhere yet", "an empty group"])
def test_a_first_deployment_gets_a_key_ring_of_its_own(deployment: Deployment, place: dict[str, str]) -> None:
    """One that the app accepts, another each time, and nothing of it is printed."""
    rings = set()
    for _ in range(2):
        done = deployment.run("preprovision", **place)
        assert done.returncode == 0, done.stderr
        ring = deployment.values["NEW_KEY_RING"]
        assert ring not in done.stdout + done.stderr
        rings.add(ring)
    assert len(rings) == 2
    made = Settings.from_env({"KEY_RING": ring, "AzureWebJobsStorage": "x"})
    assert [(name, len(key)) for name, key in made.key_ring] == [("k1", 32)]


def test_a_vault_that_has_a_ring_is_given_none(deployment: Deployment, arm: Arm) -> None:
    """Replacing it would lock everything away; its value is not even read."""
    arm.vaults = {"kv-x": True}
    assert deployment.run("preprovision", **PLACE, NEW_KEY_RING="k1:left-over").returncode == 0
    assert deployment.values["NEW_KEY_RING"] == ""
    assert all(line.startswith("GET") for line in arm.seen)


def test_nothing_is_deployed_when_nobody_can_tell(deployment: Deployment, arm: Arm) -> None:
    """Without the right to look, the deployment stops and says what to do."""
    arm.refuses = True
    done = deployment.run("preprovision", **PLACE)
    assert done.returncode == 1
    assert "AuthorizationFailed" in done.stderr
    assert "azd auth login" in done.stderr
    assert "NEW_KEY_RING" not in deployment.values


def test_a_fresh_clone_keeps_the_token_that_is_in_use(deployment: Deployment, arm: Arm) -> None:
    """A pipeline knows nothing of it, and would else take it away with the next deployment."""
    arm.vaults, arm.sites = {"kv-x": True}, {"func-x": {"BOOTSTRAP_TOKEN_ID": "f" * 64}}
    assert deployment.run("preprovision", **PLACE).returncode == 0
    assert deployment.values["BOOTSTRAP_TOKEN_ID"] == "f" * 64


def test_the_first_token_is_shown_once_and_azure_knows_its_hash(deployment: Deployment, arm: Arm) -> None:
    """It opens the API under the setting that was written; a second run shows none and changes nothing."""
    arm.sites = {"func-x": {"SERVICE_URL": "https://func-x.azurewebsites.net", "BOOTSTRAP_TOKEN_ID": ""}}
    done = deployment.run("postprovision", **DEPLOYED, NEW_KEY_RING="k1:secret")
    assert done.returncode == 0, done.stderr
    (token,) = set(re.findall(r"\b[0-9a-f]{64}\b", done.stdout))
    identity = hashlib.sha256(bytes.fromhex(token)).hexdigest()
    assert arm.sites["func-x"] == {"SERVICE_URL": DEPLOYED["SERVICE_URL"], "BOOTSTRAP_TOKEN_ID": identity}
    assert deployment.values == {"NEW_KEY_RING": "", "BOOTSTRAP_TOKEN_ID": identity}
    again = deployment.run("postprovision", **DEPLOYED)
    assert again.returncode == 0
    assert not re.search(r"\b[0-9a-f]{64}\b", again.stdout)
    assert arm.sites["func-x"]["BOOTSTRAP_TOKEN_ID"] == identity


def test_the_next_steps_can_be_pasted(deployment: Deployment, arm: Arm) -> None:
    """Addresses, consent, the smoke test and two calls whose bodies are JSON."""
    arm.sites = {"func-x": {}}
    shown = deployment.run("postprovision", **DEPLOYED).stdout
    assert "https://login.microsoftonline.com/tenant/adminconsent?client_id=client-id" in shown
    assert "https://func-x.azurewebsites.net/oauth" in shown
    assert f"make smoke URL={DEPLOYED['SERVICE_URL']} TOKEN=" in shown
    bodies = [json.loads(body) for body in re.findall(r"-d '(.*)'", shown)]
    assert bodies[0]["account"] == bodies[1]["oauth2"]["auth"]["delegatedAccount"]
    shown = deployment.run("postprovision", **DEPLOYED, ENTRA_ACCESS="application").stdout
    (application,) = re.findall(r"-d '(.*)'", shown)
    assert json.loads(application)["oauth2"]["provider"] == "outlookService"


def test_a_lost_token_is_replaced_when_asked_for(deployment: Deployment, arm: Arm) -> None:
    """`new` is not overruled by the id that the app still has."""
    arm.vaults, arm.sites = {"kv-x": True}, {"func-x": {"BOOTSTRAP_TOKEN_ID": "f" * 64}}
    assert deployment.run("preprovision", **PLACE, BOOTSTRAP_TOKEN_ID="new").returncode == 0
    assert "BOOTSTRAP_TOKEN_ID" not in deployment.values
    done = deployment.run("postprovision", **DEPLOYED, BOOTSTRAP_TOKEN_ID="new")
    (token,) = set(re.findall(r"\b[0-9a-f]{64}\b", done.stdout))
    assert arm.sites["func-x"]["BOOTSTRAP_TOKEN_ID"] == hashlib.sha256(bytes.fromhex(token)).hexdigest()


def test_no_token_is_made_where_none_is_wanted(deployment: Deployment, arm: Arm) -> None:
    """`none` takes the first token out of use for good."""
    arm.sites = {"func-x": {}}
    done = deployment.run("postprovision", **DEPLOYED, BOOTSTRAP_TOKEN_ID="none")
    assert done.returncode == 0
    assert not re.search(r"\b[0-9a-f]{64}\b", done.stdout)
    assert arm.sites["func-x"] == {}


def test_a_pipeline_is_told_no_token(deployment: Deployment, arm: Arm) -> None:
    """Its log is read by many."""
    arm.sites = {"func-x": {}}
    done = deployment.run("postprovision", **DEPLOYED, CI="true")
    assert done.returncode == 0
    assert not re.search(r"\b[0-9a-f]{64}\b", done.stdout + done.stderr)
    assert "BOOTSTRAP_TOKEN_ID" not in arm.sites["func-x"]


def test_no_token_is_shown_that_the_app_does_not_know(deployment: Deployment, arm: Arm) -> None:
    """When it can not be told, the hook fails and shows none."""
    arm.refuses = True
    done = deployment.run("postprovision", **DEPLOYED)
    assert done.returncode == 1
    assert not re.search(r"\b[0-9a-f]{64}\b", done.stdout + done.stderr)
    assert "BOOTSTRAP_TOKEN_ID" not in deployment.values


def test_what_is_left_after_azd_down_is_told(deployment: Deployment) -> None:
    """The registration and the deleted vault; the old token is forgotten."""
    done = deployment.run("postdown", **DEPLOYED, BOOTSTRAP_TOKEN_ID="f" * 64)
    assert done.returncode == 0
    assert "az ad app delete --id client-id" in done.stdout
    assert deployment.values["BOOTSTRAP_TOKEN_ID"] == ""


def test_a_token_made_by_hand_has_the_right_id() -> None:
    """scripts/first_token.py prints a token and its SHA-256."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "first_token.py")], capture_output=True, text=True, check=True
    )
    token, identity = re.findall(r"\b[0-9a-f]{64}\b", done.stdout)
    assert hashlib.sha256(bytes.fromhex(token)).hexdigest() == identity
    assert base64.b16decode(token.upper())
