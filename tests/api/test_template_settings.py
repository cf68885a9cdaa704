"""The app under the exact settings that the template gives it, and no others.

Storage is an Azurite that is reached as in Azure: over https, with tokens of the managed identity, through a stand-in
for the token endpoint. Not to be seen without Azure: that the role assignments suffice, that Key Vault references are
followed (here their value is put in place, as Azure does), and that the host's own triggers use the identity.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from local.services import ROOT
from shared.settings import TABLE
from tests.support.identity import STORAGE, Identity, LockedAzurite, certificate
from tests.support.template import TENANT, settings

CLIENT_ID = "99999999-8888-7777-6666-555555555555"
TOKEN = secrets.token_hex(32)
APP_CLIENT_ID = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
# One process, as the host starts one: it calls the API as the host does, and prints what came of it.
CALLS = """
import asyncio, json, sys
import azure.functions as func
import function_app
from shared.api.mount import answer

async def main():
    for method, path, body, token in json.load(sys.stdin):
        url = "https://func-x.azurewebsites.net" + path
        headers = {"Content-Type": "application/json"} | ({"Authorization": "Bearer " + token} if token else {})
        request = func.HttpRequest(method=method, url=url, headers=headers, body=json.dumps(body or {}).encode())
        got = await answer(request, None)
        print(json.dumps([got.status_code, json.loads(got.get_body())]))
    from shared import wiring
    if wiring._services:
        held = wiring._services
        await held.blobs.put("probe", b"x" * 70_000)
        print(json.dumps([200, {"blob": len(await held.blobs.get("probe"))}]))
        print(json.dumps([200, {"queue": await held.queues.length("mailboxes")}]))
        await held.close()

asyncio.run(main())
"""


def bare_environment() -> dict[str, str]:
    """What a process needs to run at all: nothing of Functions and none of our settings."""
    ours = {row.name for row in TABLE}
    prefixes = ("AzureWebJobs", "AzureFunctions", "FUNCTIONS_", "WEBSITE_", "IDENTITY_", "MSI_", "AZURE_")
    prefixes += ("APPLICATIONINSIGHTS",)
    return {
        name: value for name, value in os.environ.items() if name not in ours and not name.startswith(prefixes)
    }


def outputs(endpoints: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What the modules of the template put out, for this storage."""
    storage: dict[str, Any] = {f"{kind}Endpoint": url for kind, url in endpoints.items()}
    return {
        "identity": {"id": "/identity", "clientId": CLIENT_ID, "principalId": "object-id"},
        "storage": {**storage, "name": "stx", "id": "/storage", "packageContainer": "packages"},
        "vault": {"name": "kv-x", "id": "/vault", "secretsUrl": "https://kv-x.vault.azure.net/secrets/"},
        "monitoring": {"connectionString": "InstrumentationKey=0", "workspaceId": "/workspace", "componentName": "x"},
        "registration": {"clientId": APP_CLIENT_ID, "servicePrincipalId": "sp"},
    }


def in_process(environment: dict[str, str], calls: list[list[Any]]) -> tuple[list[Any], str]:
    """What a fresh process answers to these calls, and what it logged."""
    done = subprocess.run(
        [sys.executable, "-c", CALLS], cwd=ROOT, env=environment, input=json.dumps(calls), capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert done.returncode == 0, done.stderr[-3000:]
    return lines, done.stderr


@pytest.fixture
async def identity() -> AsyncIterator[Identity]:
    """The identity's token endpoint."""
    listening = await Identity(CLIENT_ID).start()
    yield listening
    await listening.stop()


async def test_the_app_works_under_the_settings_of_the_template(
    identity: Identity, tmp_path: Path, service_logs: Path
) -> None:
    """Records, queues and bodies go to storage with the identity's tokens alone, and the first token opens the API."""
    import asyncio

    crt, key = certificate(tmp_path)
    with LockedAzurite(crt, key, service_logs) as storage:
        token_id = hashlib.sha256(bytes.fromhex(TOKEN)).hexdigest()
        given = settings(
            outputs(storage.endpoints()), environmentName="t", location="x", bootstrapTokenId=token_id
        )
        assert given["KEY_RING"] == "@Microsoft.KeyVault(SecretUri=https://kv-x.vault.azure.net/secrets/key-ring)"
        given["KEY_RING"] = "k1:" + base64.b64encode(secrets.token_bytes(32)).decode()
        environment = bare_environment() | given | identity.environment() | {"SSL_CERT_FILE": str(crt)}
        environment |= {"WEBSITE_HOSTNAME": "func-x.azurewebsites.net"}
        calls: list[list[Any]] = [
            ["GET", "/health", None, ""],
            ["GET", "/v1/accounts", None, "0" * 64],
            ["POST", "/v1/settings", {"webhookEvents": ["*"]}, TOKEN],
            ["GET", "/v1/settings?serviceUrl=true&serviceSecret=true", None, TOKEN],
            ["GET", "/v1/oauth2", None, TOKEN],
            ["POST", "/v1/account", {"account": "a", "name": "A", "email": "a@x.example",
             "oauth2": {"auth": {"delegatedUser": "a@x.example", "delegatedAccount": "none"}}}, TOKEN],
            ["GET", "/v1/accounts", None, TOKEN],
        ]  # fmt: skip
        answers, log = await asyncio.to_thread(in_process, environment, calls)
    health, refused, _, shown, apps, created, accounts, blob, queue = answers
    assert health == [200, {"success": True}]
    assert refused[0] == 401
    assert shown[1]["serviceUrl"] == "https://func-abcdefghijklm.azurewebsites.net"
    (app,) = apps[1]["apps"]
    assert (app["clientId"], app["authority"], app["provider"]) == (APP_CLIENT_ID, TENANT["tenantId"], "outlook")
    assert created[0] == 200, created
    assert accounts[1]["total"] == 1
    assert blob == [200, {"blob": 70_000}]
    assert queue[0] == 200
    assert identity.asked[STORAGE] >= 1
    assert TOKEN not in log
    assert "Unclosed" not in log


VARIANTS: dict[str, dict[str, Any]] = {
    "an existing registration with a secret": {
        "entraApp": "existing", "entraClientId": APP_CLIENT_ID, "entraCredential": "secret",
    },
    "an existing registration with a certificate": {
        "entraApp": "existing", "entraClientId": APP_CLIENT_ID, "entraCredential": "certificate",
    },
    "an existing registration that trusts the identity": {"entraApp": "existing", "entraClientId": APP_CLIENT_ID},
    "no registration": {"entraApp": "none"},
    "application access": {"entraAccess": "application", "signInAudience": "AzureADMultipleOrgs"},
    "many tenants": {"signInAudience": "AzureADMultipleOrgs"},
    "a domain of its own": {"serviceUrl": "https://mail.contoso.example/"},
    "another national cloud": {"graphCloud": "dod"},
    "without a first token": {"bootstrapTokenId": "none"},
    "with another first token": {"bootstrapTokenId": "new"},
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_way_to_deploy_gives_settings_that_are_accepted(variant: str) -> None:
    """Once Azure has followed the references, none of them is refused at the start."""
    from shared.settings import Settings

    parameters = VARIANTS[variant]
    endpoints = {kind: f"https://st.{kind}.core.windows.net/" for kind in ("blob", "queue", "table")}
    known = outputs(endpoints)
    if parameters.get("entraApp", "create") != "create":
        del known["registration"]
    given = settings(known, environmentName="t", location="x", **parameters)
    followed = {
        name: "secret" if value.startswith("@Microsoft.KeyVault(") else value for name, value in given.items()
    } | {"KEY_RING": "k1:" + base64.b64encode(b"k" * 32).decode()}
    made = Settings.from_env(followed)
    assert bool(made.oauth_app_client_id) == (variant != "no registration")
    assert made.oauth_app_provider == ("outlookService" if variant == "application access" else "outlook")
    assert (made.oauth_app_authority == "organizations") == (variant == "many tenants")
    assert made.service_url.startswith("https://")
    assert made.oauth_app_cloud == parameters.get("graphCloud", "global")


def test_what_is_wrong_is_told_at_once_and_as_a_503() -> None:
    """References that Azure could not follow, and storage without an address: each with its fix, in the log alone."""
    given = settings(
        outputs({"blob": "https://b", "queue": "", "table": "https://t"}), environmentName="t", location="x"
    )
    calls: list[list[Any]] = [["GET", "/health", None, ""], ["GET", "/v1/accounts", None, TOKEN]]
    answers, log = in_process(bare_environment() | given, calls)
    for status, body in answers:
        assert (status, body["code"]) == (503, "NotConfigured")
        assert "KEY_RING" not in json.dumps(body)
    assert "graphpost.settings.refused" in log
    assert "KEY_RING is a Key Vault reference that Azure could not follow" in log
    assert "AzureWebJobsStorage__queueServiceUri is not set" in log
