"""What looks at a deployment, run against the app itself: it finds nothing wrong there, and what is wrong elsewhere."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

from local.services import BOOTSTRAP_TOKEN, ROOT
from tests.support.application import Application
from tests.support.desk import APPLICATION
from tests.support.rest import Rest
from tests.support.tenant import Tenant

SUPPORT, SALES = "support@contoso.example", "sales@contoso.example"


async def script(name: str, *arguments: str) -> tuple[int, str]:
    """A script of an operator: its exit status and what it printed."""

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments]
        return subprocess.run(command, cwd=Path("/"), capture_output=True, text=True, timeout=500, check=False)

    done = await asyncio.to_thread(run)
    return done.returncode, done.stdout + done.stderr


async def test_a_good_deployment_passes(rest: Rest, app: Application) -> None:
    """Every look is well; without a token only what the public sees is looked at."""
    await rest.ok("POST", "/v1/oauth2", {"name": "Smoke", **APPLICATION})
    status, shown = await script("smoke", app.url, BOOTSTRAP_TOKEN)
    assert (status, shown.count("ok   ")) == (0, 8), shown
    assert BOOTSTRAP_TOKEN not in shown
    status, shown = await script("smoke", app.url)
    assert (status, shown.count("ok   ")) == (0, 4), shown


async def test_what_is_wrong_is_named(rest: Rest, app: Application) -> None:
    """A token that is not known and a missing OAuth2 app: each with what to do, and a status that stops a pipeline."""
    status, shown = await script("smoke", app.url, "0" * 64)
    assert status == 1
    assert "WRONG The token opens the API" in shown
    status, shown = await script("smoke", app.url, BOOTSTRAP_TOKEN)
    assert status == 1
    assert "WRONG There is an OAuth2 app" in shown
    assert shown.count("WRONG") == 1, shown
    assert (await script("smoke"))[0] == 2


async def test_the_check_tells_whether_a_scope_limits(rest: Rest, app: Application, tenant: Tenant) -> None:
    """Open while everything is open to the app, refused once Exchange limits it; nothing is left behind."""
    await rest.ok("POST", "/v1/oauth2", {"name": "Reader", **APPLICATION})
    command = ("mailbox_scope", "check", app.url, BOOTSTRAP_TOKEN, "--inside", SUPPORT, "--outside", SALES)
    status, shown = await script(*command)
    assert status == 1, shown
    assert "does not limit" in shown
    path = f"/applications/{APPLICATION['clientId']}"
    support = await tenant.change_principal(SUPPORT)
    await tenant.control("PATCH", path, {"mailbox_allow_list": [support["id"]]})
    status, shown = await script(*command)
    assert status == 0, shown
    status, shown = await script(*command[:-1], "nobody@contoso.example")
    assert status == 3, shown
    await tenant.control("PATCH", path, {"mailbox_allow_list": []})
    status, shown = await script(*command)
    assert status == 3, shown
    accounts: Any = await rest.ok("GET", "/v1/accounts")
    assert not [one for one in accounts["accounts"] if one["account"].startswith("scope-check-")]


async def test_the_recipe_names_app_mailboxes_and_roles() -> None:
    """Commands for Exchange with everything quoted; what is no id or address is refused."""
    ids = ("--client-id", "11111111-2222-3333-4444-555555555555", "--object-id", "aaaaaaaa-2222-3333-4444-555555555555")
    status, shown = await script("mailbox_scope", "recipe", *ids, "--mailbox", SUPPORT, "--mailbox", SALES)
    assert status == 0
    assert f"New-ServicePrincipal -AppId '{ids[1]}' -ObjectId '{ids[3]}'" in shown
    for mailbox in (SUPPORT, SALES):
        assert f"Set-Mailbox -Identity '{mailbox}' -CustomAttribute15 'graphpost'" in shown
        assert f"Test-ServicePrincipalAuthorization -Identity '{ids[3]}' -Resource '{mailbox}'" in shown
    for role in ("Application Mail.ReadWrite", "Application Mail.Send"):
        assert f"-Role '{role}' -CustomResourceScope 'Graphpost mailboxes'" in shown
    status, shown = await script("mailbox_scope", "recipe", *ids, "--group", "Bob's group")
    assert "Get-Group -Identity 'Bob''s group'" in shown
    for wrong in ("x@y'; Remove-Mailbox z", "nobody"):
        assert (await script("mailbox_scope", "recipe", *ids, "--mailbox", wrong))[0] == 2
