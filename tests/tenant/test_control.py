"""The control plane, the fault switchboard, the request log and the errors of the Graph surface."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from local.tenant.seed import APPLICATION_APP
from local.tenant.world import Switches

from .login_tenant import ANN, Tenant

SUPPORT = "support@contoso.example"


@pytest_asyncio.fixture
async def bearer(tenant: Tenant) -> AsyncIterator[dict[str, str]]:
    """Ann's Authorization header."""
    minted = await tenant.control("POST", "/tokens", {"user": ANN})
    yield {"Authorization": f"Bearer {minted['access_token']}"}


async def graph(
    tenant: Tenant, method: str, path: str, headers: dict[str, str] | None = None, **kw: Any
) -> tuple[int, Any, Any]:
    """(status, JSON, headers) of a Graph call."""
    async with tenant.session.request(method, tenant.url + path, headers=headers, **kw) as response:
        return response.status, await response.json(), response.headers


class TestSeed:
    """The demonstration tenant."""

    async def test_ids_and_rights_are_the_same_each_time(self, tenant: Tenant) -> None:
        """Seeding again gives the same directory."""
        before = await tenant.control("GET", "/principals"), await tenant.control("GET", "/rights")
        await tenant.control("POST", "/seed")
        assert before == (await tenant.control("GET", "/principals"), await tenant.control("GET", "/rights"))

    async def test_rights_matrix(self, tenant: Tenant) -> None:
        """Full Access, Send As and Send on Behalf are independent (graph.md 8.1)."""
        directory = tenant.world.directory
        ann = directory.find(ANN)
        assert ann is not None
        held = {}
        for name in ("support", "info", "nosend", "behalf", "locked", "ann"):
            mailbox = directory.find(f"{name}@contoso.example")
            assert mailbox is not None
            rights = ("full_access", "send_as", "send_on_behalf")
            held[name] = tuple(directory.has_right(ann, mailbox, right) for right in rights)
        assert held == {
            "support": (True, True, False),
            "info": (True, True, False),
            "nosend": (True, False, False),
            "behalf": (True, False, True),
            "locked": (False, False, False),
            "ann": (True, True, True),
        }

    async def test_find_takes_id_upn_and_primary_address(self, tenant: Tenant) -> None:
        """Aliases only with the switch; delivery takes them always."""
        directory = tenant.world.directory
        await tenant.control("PATCH", f"/principals/{SUPPORT}", {"aliases": ["help@contoso.example"]})
        info = directory.find("INFO@contoso.example")
        assert info is not None
        assert info is directory.find("infombx@contoso.onmicrosoft.example") is directory.find(info.id)
        assert directory.find("help@contoso.example") is None
        assert directory.mailbox_for_address("Help@contoso.example") is directory.find(SUPPORT)
        assert directory.mailbox_for_address("team@contoso.example") is None
        await tenant.control("PATCH", "/switches", {"resolve_aliases": True})
        assert directory.find("help@contoso.example") is directory.find(SUPPORT)

    async def test_reset_leaves_an_empty_tenant(self, tenant: Tenant) -> None:
        """No principals, default switches, real time."""
        await tenant.control("PATCH", "/switches", {"concurrency_limit": 1})
        summary = await tenant.control("POST", "/reset")
        assert (summary["principals"], summary["applications"]) == (0, [])
        assert await tenant.control("GET", "/switches") == asdict(Switches())


class TestChanges:
    """Switches, clock, directory."""

    async def test_wrong_switches_change_nothing(self, tenant: Tenant) -> None:
        """Unknown names and wrong values are 400, all or nothing."""
        for body in ({"nonsense": 1}, {"missing_full_access": "500"}, {"concurrency_limit": "4"}):
            answer = await tenant.control("PATCH", "/switches", {"resolve_aliases": True, **body}, expect=400)
            assert next(iter(body)) in answer["error"]
        assert tenant.world.switches == Switches()

    async def test_principal_life(self, tenant: Tenant) -> None:
        """Create, change, refuse a taken address, delete."""
        body = {"upn": "eve@contoso.example", "display_name": "Eve", "kind": "shared"}
        made = await tenant.control("POST", "/principals", body)
        assert (made["mail"], made["kind"]) == ("eve@contoso.example", "shared")
        await tenant.control("POST", "/principals", {"upn": ANN}, expect=400)
        await tenant.control("PATCH", f"/principals/{made['id']}", {"kind": "wrong"}, expect=400)
        await tenant.control("DELETE", f"/principals/{made['id']}")
        await tenant.control("PATCH", f"/principals/{made['id']}", {}, expect=404)

    async def test_rights_by_control(self, tenant: Tenant) -> None:
        """Grant and revoke answer with what is held now."""
        body = {"user": "bob@contoso.example", "mailbox": SUPPORT, "right": "send_as"}
        assert (await tenant.control("POST", "/rights", body))["rights"] == ["send_as"]
        assert (await tenant.control("DELETE", "/rights", body))["rights"] == []
        await tenant.control("POST", "/rights", {**body, "right": "all"}, expect=400)
        await tenant.control("POST", "/rights", {**body, "mailbox": "nobody"}, expect=404)

    async def test_application_by_control(self, tenant: Tenant) -> None:
        """A new registration, and a changed one."""
        made = await tenant.control(
            "POST", "/applications", {"secrets": ["s"], "application_roles": ["Mail.Send"]}
        )
        assert made["secrets"] == [{"value": "s", "expires_at": None}]
        path = f"/applications/{made['client_id']}"
        changed = await tenant.control("PATCH", path, {"mailbox_allow_list": [SUPPORT]})
        assert changed["mailbox_allow_list"] == [SUPPORT]
        await tenant.control("PATCH", path, {"certificates": ["no PEM"]}, expect=400)
        await tenant.control("PATCH", "/applications/none", {}, expect=404)

    async def test_time_moves(self, tenant: Tenant) -> None:
        """The clock's offset ends access tokens."""
        minted = await tenant.control("POST", "/tokens", {"app": APPLICATION_APP})
        authorization = f"Bearer {minted['access_token']}"
        assert tenant.world.login.authenticate(authorization).kind == "app"
        await tenant.control("POST", "/clock", {"offset_s": 3600})
        assert tenant.world.login.peek(authorization) is None

    async def test_bad_json_is_400(self, tenant: Tenant) -> None:
        """Control says what is wrong with a body."""
        async with tenant.session.post(f"{tenant.url}/_tenant/rights", data=b"{") as response:
            assert response.status == 400
            assert "JSON" in (await response.json())["error"]


class TestFaults:
    """graph.md 15 item 9."""

    @pytest.mark.parametrize("retry_after", ["2", "2.128", None])
    async def test_throttled(self, tenant: Tenant, bearer: dict[str, str], retry_after: str | None) -> None:
        """429 in the form of graph.md 11, with integer, fractional or no Retry-After."""
        rule = {"match": {"mailbox": SUPPORT}, "action": {"status": 429, "retry_after": retry_after}}
        await tenant.control("POST", "/faults", rule)
        assert (await graph(tenant, "GET", "/v1.0/me/work", bearer))[0] == 200
        path = f"/v1.0/users/{SUPPORT}/work"
        status, body, headers = await graph(tenant, "POST", path, bearer)
        assert (status, body["error"]["code"]) == (429, "TooManyRequests")
        assert body["error"]["innerError"]["message"] == "Please retry after"
        assert headers.get("Retry-After") == retry_after
        assert (await graph(tenant, "POST", path, bearer))[0] == 200

    async def test_failure_after_the_work(self, tenant: Tenant, bearer: dict[str, str]) -> None:
        """504 although the work was done."""
        await tenant.control("POST", "/faults", {"action": {"after": {"status": 504}}})
        assert (await graph(tenant, "GET", "/v1.0/me/work", bearer))[0] == 504
        assert len(tenant.work) == 1

    @pytest.mark.parametrize(("action", "done"), [({"drop": True}, 0), ({"after": {"drop": True}}, 1)])
    async def test_dropped_connection(
        self, tenant: Tenant, bearer: dict[str, str], action: dict[str, Any], done: int
    ) -> None:
        """The connection closes without an answer, before or after the work; the log says status 0."""
        await tenant.control("POST", "/faults", {"match": {"method": "POST"}, "action": action})
        with pytest.raises(aiohttp.ClientError):
            await graph(tenant, "POST", "/v1.0/me/work", bearer, data=b"x")
        assert len(tenant.work) == done
        await asyncio.sleep(0.05)
        assert tenant.world.log.entries[-1].status == 0

    async def test_path_and_probability(self, tenant: Tenant, bearer: dict[str, str]) -> None:
        """A rule for another path, and one that never happens, do nothing; DELETE removes them."""
        action = {"status": 503}
        await tenant.control(
            "POST", "/faults", {"match": {"path_regex": "/sendMail$"}, "action": action, "times": None}
        )
        rule = await tenant.control("POST", "/faults", {"action": action, "probability": 0, "times": None})
        assert (await graph(tenant, "GET", "/v1.0/me/work", bearer))[0] == 200
        await tenant.control("DELETE", f"/faults/{rule['id']}")
        assert await tenant.control("DELETE", "/faults") == {"removed": 1}

    async def test_faults_reach_login_but_not_control(self, tenant: Tenant) -> None:
        """A token request fails, control goes on."""
        await tenant.control(
            "POST", "/faults", {"action": {"status": 503, "retry_after": "1"}, "times": None}
        )
        status, _ = await tenant.token({"grant_type": "client_credentials"})
        assert status == 503
        await tenant.control("GET", "/switches")

    async def test_senseless_rules_are_refused(self, tenant: Tenant) -> None:
        """Unknown actions, bad patterns, none at all."""
        for rule in (
            {"action": {"explode": 1}},
            {},
            {"match": {"path_regex": "("}, "action": {"drop": True}},
        ):
            await tenant.control("POST", "/faults", rule, expect=400)

    async def test_concurrency_per_app_and_mailbox(self, tenant: Tenant, bearer: dict[str, str]) -> None:
        """The fifth request in flight on one mailbox is 429; another mailbox is free (graph.md 11)."""
        await tenant.control("POST", "/faults", {"action": {"delay_s": 0.3}, "times": None})
        own = [graph(tenant, "GET", "/v1.0/me/work", bearer) for _ in range(5)]
        other = graph(tenant, "POST", f"/v1.0/users/{SUPPORT}/work", bearer)
        answers = await asyncio.gather(*own, other)
        assert sorted(status for status, _, _ in answers) == [200] * 5 + [429]
        refused = next(body for status, body, _ in answers if status == 429)
        assert refused["error"]["code"] == "ApplicationThrottled"
        assert refused["error"]["message"] == "Application is over its MailboxConcurrency limit."


class TestGraphErrors:
    """graph.md 2.3 and 15 item 11."""

    async def test_ids_on_errors(self, tenant: Tenant, bearer: dict[str, str]) -> None:
        """Ids in body and headers, the client's own echoed."""
        await tenant.control("POST", "/faults", {"action": {"status": 403}})
        headers = {**bearer, "client-request-id": "77aa"}
        status, body, answered = await graph(tenant, "GET", "/v1.0/me/work", headers)
        assert (status, body["error"]["code"]) == (403, "ErrorAccessDenied")
        inner = body["error"]["innerError"]
        assert set(inner) == {"date", "request-id", "client-request-id"}
        assert answered["request-id"] == inner["request-id"]
        assert answered["client-request-id"] == inner["client-request-id"] == "77aa"
        assert answered["x-ms-ags-diagnostic"]

    async def test_ids_on_success(self, tenant: Tenant, bearer: dict[str, str]) -> None:
        """Answers that went well carry the ids, too."""
        _, _, headers = await graph(tenant, "GET", "/v1.0/me/work", bearer)
        assert {"request-id", "client-request-id", "x-ms-ags-diagnostic"} <= {
            name.lower() for name in headers
        }


class TestLog:
    """What control can tell about requests."""

    async def test_entries_and_counts(self, tenant: Tenant, bearer: dict[str, str]) -> None:
        """Caller, headers and body of a Graph call; a count per surface; control is not counted."""
        headers = {**bearer, "Prefer": 'IdType="ImmutableId"'}
        await graph(tenant, "POST", "/v1.0/me/work?$top=1", headers, data=b"abc")
        await tenant.token({"grant_type": "client_credentials"})
        assert await tenant.control("GET", "/counts") == {"graph": 1, "upload": 0, "login": 1, "msi": 0}
        log = await tenant.control("GET", "/log?surface=graph&method=post&path=work$")
        (entry,) = log["requests"]
        assert entry["caller"]["user"] == ANN
        assert (entry["status"], entry["query"]) == (200, "$top=1")
        assert entry["headers"]["Prefer"] == headers["Prefer"]
        assert base64.b64decode(entry["body_base64"]) == b"abc"
        later = await tenant.control("GET", f"/log?since={log['last']}")
        assert later["requests"] == []

    async def test_cleared_and_without_bodies(self, tenant: Tenant, bearer: dict[str, str]) -> None:
        """DELETE forgets; a switch leaves bodies out."""
        await graph(tenant, "POST", "/v1.0/me/work", bearer, data=b"abc")
        assert await tenant.control("DELETE", "/log") == {"graph": 0, "upload": 0, "login": 0, "msi": 0}
        await tenant.control("PATCH", "/switches", {"capture_bodies": False})
        await graph(tenant, "POST", "/v1.0/me/work", bearer, data=b"abc")
        (entry,) = (await tenant.control("GET", "/log"))["requests"]
        assert (entry["body_base64"], entry["body_size_bytes"]) == (None, 3)


async def test_command_line_starts_and_stops() -> None:
    """`python -m local.tenant` prints its address and ends on SIGTERM."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "local.tenant", "--port", "0", "--service-url", "http://127.0.0.1:9999"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=root, env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
    assert line.startswith("tenant listening on http://127.0.0.1:")
    url = line.split()[-1]
    async with aiohttp.ClientSession() as session, session.get(f"{url}/_tenant/applications") as response:
        applications = (await response.json())["value"]
    assert "http://127.0.0.1:9999/oauth" in applications[0]["redirect_uris"]
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 10) == 0
