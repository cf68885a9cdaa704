"""Both halves of the tenant together: a token from MSAL, mail over Graph, control's view of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from local.tenant.seed import APPLICATION_APP, seeded_id
from local.tenant.world import World

from .login_tenant import ANN, Tenant, start
from .test_login import sign_in

SUPPORT = "support@contoso.example"
RITA = "rita@contoso.example"


@pytest_asyncio.fixture
async def whole() -> AsyncIterator[Tenant]:
    """A seeded tenant with everything."""
    world = World()
    world.seed()
    server, running = await start(world, graph=True)
    yield running
    await running.session.close()
    await server.close()


async def bearer(tenant: Tenant) -> dict[str, str]:
    """Ann's header, from a sign-in by MSAL."""
    scopes = ["User.Read", "Mail.ReadWrite", "Mail.ReadWrite.Shared", "Mail.Send", "Mail.Send.Shared"]
    result = await sign_in(tenant, await tenant.msal_app(), scopes)
    return {"Authorization": f"Bearer {result['access_token']}"}


async def test_token_reads_me(whole: Tenant) -> None:
    """A token obtained by MSAL answers /me with the signed-in user."""
    async with whole.session.get(f"{whole.url}/v1.0/me", headers=await bearer(whole)) as response:
        assert response.status == 200
        me = await response.json()
        assert response.headers["request-id"]
    assert (me["id"], me["userPrincipalName"]) == (seeded_id("ann"), ANN)


async def test_send_from_shared_mailbox(whole: Tenant) -> None:
    """The copy is in the shared mailbox's Sent Items and the recipient has it (graph.md 8.3)."""
    message = {
        "subject": "Hello",
        "from": {"emailAddress": {"address": SUPPORT}},
        "body": {"contentType": "text", "content": "Hi"},
        "toRecipients": [{"emailAddress": {"address": RITA}}],
    }
    url = f"{whole.url}/v1.0/users/{SUPPORT}/sendMail"
    async with whole.session.post(url, json={"message": message}, headers=await bearer(whole)) as response:
        assert response.status == 202, await response.text()
    for mailbox, folder, count in ((SUPPORT, "sentitems", 1), (ANN, "sentitems", 0), (RITA, "inbox", 1)):
        held = (await whole.control("GET", f"/mailboxes/{mailbox}/messages?folder={folder}"))["value"]
        assert [m["subject"] for m in held] == ["Hello"] * count


async def test_delivered_message_is_listed(whole: Tenant) -> None:
    """Control puts a message with an attachment into a mailbox; an application reads it."""
    attachment = {"name": "a.txt", "content_type": "text/plain", "content_base64": "YQ=="}
    body = {
        "from": {"name": "Carl", "address": "carl@customer.example"},
        "to": [SUPPORT],
        "subject": "Broken",
        "text": "It is.",
        "headers": {"X-Case": "7"},
        "attachments": [attachment],
    }
    (placed,) = (await whole.control("POST", "/deliver", body))["delivered"]
    assert placed["mailbox"] == SUPPORT
    minted = await whole.control("POST", "/tokens", {"app": APPLICATION_APP})
    headers = {"Authorization": f"Bearer {minted['access_token']}"}
    url = f"{whole.url}/v1.0/users/{SUPPORT}/mailFolders/inbox/messages"
    async with whole.session.get(url, headers=headers) as response:
        (listed,) = (await response.json())["value"]
    assert (listed["subject"], listed["hasAttachments"]) == ("Broken", True)


async def test_control_refuses_what_is_not_there(whole: Tenant) -> None:
    """Unknown mailboxes, folders and subscriptions are 404."""
    await whole.control("GET", "/mailboxes/team@contoso.example/messages", expect=404)
    await whole.control("GET", f"/mailboxes/{ANN}/messages?folder=nonsense", expect=404)
    sender = {"from": "a@b.example", "to": ["nobody@contoso.example"]}
    await whole.control("POST", "/deliver", sender, expect=404)
    body = {"subscription_id": "none", "event": "missed"}
    await whole.control("POST", "/lifecycle", body, expect=404)
    assert (await whole.control("GET", "/subscriptions"))["value"] == []
    folders = (await whole.control("GET", f"/mailboxes/{ANN}/folders"))["value"]
    assert "inbox" in {folder["wellKnownName"] for folder in folders}
