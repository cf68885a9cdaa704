"""What somebody finds who can read the storage account, or the log: no secret, no mail."""

import base64
import json
import re
from typing import Any

from azure.storage.queue import QueueServiceClient

from local.services import BOOTSTRAP_TOKEN, Azurite
from tests.support.rest import APP_CLIENT_SECRET, CLIENT_SECRET, Hooks, Rest, unique, until
from tests.support.tenant import Tenant

ANN, SUPPORT = "ann@contoso.example", "support@contoso.example"
SERVICE_SECRET = "word-that-signs-webhooks"
HEADER, OWN_HEADER = "word-in-a-settings-header", "word-in-an-account-header"
PASSWORD = "word-in-a-webhook-url"
OUTGOING, INCOMING = "Words that Ann writes to Rita in confidence", "Words that a customer writes to Support"
BEARER = re.compile(rb"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}")
REFRESH = re.compile(rb"\b1\.[A-Za-z0-9_-]{80,}")  # what the login service's refresh tokens look like


async def a_whole_life(rest: Rest, hooks: Hooks) -> dict[str, str]:
    """Sign-in, borrowed mailbox, application access, imported tokens, mail out, mail in; every secret by name."""
    tenant = rest.tenant
    url = hooks.receiver.url.replace("http://", f"http://user:{PASSWORD}@")
    await rest.ok(
        "POST", "/v1/settings",
        {"serviceSecret": SERVICE_SECRET, "webhooks": url, "webhooksCustomHeaders": [{"key": "X-A", "value": HEADER}]},
    )  # fmt: skip
    signed, child, service, imported = unique("signed"), unique("child"), unique("service"), unique("imported")
    form = {"account": signed, "redirectUrl": "https://x.example/", "type": await rest.outlook_app()}
    await rest.sign_in((await rest.ok("POST", "/v1/authentication/form", form))["url"], ANN)
    own_header = [{"key": "X-B", "value": OWN_HEADER}]
    await rest.create(
        child, {"auth": {"delegatedUser": SUPPORT, "delegatedAccount": signed}}, email=SUPPORT,
        webhooksCustomHeaders=own_header,
    )  # fmt: skip
    await rest.create(service, {"provider": await rest.service_app(), "auth": {"user": "sales@contoso.example"}})
    tokens = await tenant.token(user="john@contoso.example")
    await rest.create(
        imported,
        {
            "provider": form["type"], "auth": {"user": "john@contoso.example"}, "accessToken": tokens["access_token"],
            "refreshToken": tokens["refresh_token"],
        },
    )  # fmt: skip
    for account in (signed, child, service, imported):
        await rest.connected(account)
    minted = await rest.ok("POST", "/v1/tokens", {"description": "d"})
    await rest.call("GET", f"/v1/accounts?access_token={minted['token']}", token=None)
    await rest.call("GET", f"/v1/tokens/{minted['token']}")
    mail = {"to": {"address": "rita@contoso.example"}, "subject": "S", "text": OUTGOING, "html": f"<p>{OUTGOING}</p>"}
    sent = await rest.ok("POST", f"/v1/account/{signed}/submit", mail)
    await hooks.wait(signed, "messageSent")
    await tenant.deliver("carl@customer.example", [SUPPORT], text=INCOMING)
    await hooks.wait(child, "messageNew")

    async def settled() -> bool:
        entries = (await rest.ok("GET", "/v1/outbox"))["messages"]
        return not [entry for entry in entries if entry["queueId"] == sent["queueId"] and entry.get("progress")]

    await until("the outbox settled", settled)
    return {
        "client secret": CLIENT_SECRET, "client secret of application access": APP_CLIENT_SECRET,
        "service secret": SERVICE_SECRET, "header of the settings": HEADER, "header of an account": OWN_HEADER,
        "password of the webhook URL": PASSWORD, "imported access token": tokens["access_token"],
        "imported refresh token": tokens["refresh_token"], "access token of the API": minted["token"],
        "bootstrap token": BOOTSTRAP_TOKEN,
    }  # fmt: skip


async def issued(tenant: Tenant) -> set[str]:
    """The refresh tokens and codes that went over the wire to the login service."""
    found: set[str] = set()
    for entry in await tenant.log(surface="login", path="/token"):
        body = base64.b64decode(entry["body_base64"] or "").decode()
        found |= set(re.findall(r"(?:refresh_token|code|client_secret)=([^&]{12,})", body))
    return found


def unwrapped(raw: bytes) -> bytes:
    """What is readable in storage, and again what that holds in base64."""
    found = [raw]
    for run in re.findall(rb"[A-Za-z0-9+/_-]{24,}", raw):
        whole = run[: len(run) // 4 * 4].translate(bytes.maketrans(b"-_", b"+/"))
        found.append(base64.b64decode(whole))
    return b"\n".join(found)


def spellings(secret: str) -> list[bytes]:
    """A secret as it is, and as somebody might store it thinking that hides it."""
    raw = secret.encode()
    return [raw, base64.b64encode(raw)[:-4], base64.urlsafe_b64encode(raw)[:-4], raw.hex().encode(), raw[::-1]]


async def test_no_table_holds_a_secret(rest: Rest, hooks: Hooks, azurite: Azurite) -> None:
    """After sign-ins, mails and webhooks no property of any entity, nor any queued job, holds any secret."""
    secrets = await a_whole_life(rest, hooks)
    wire = await issued(rest.tenant)
    assert wire, "the tenant saw no token request, so this test would prove nothing"
    at_rest = rest.bytes_at_rest()
    assert REFRESH.search(secrets["imported refresh token"].encode())
    assert BEARER.search(secrets["imported access token"].encode())
    assert b"credentials " in at_rest, "no credentials were stored, so this test would prove nothing"
    queues = QueueServiceClient.from_connection_string(azurite.connection_string)
    for queue in queues.list_queues():
        for message in queues.get_queue_client(queue.name).peek_messages(32):
            at_rest += base64.b64decode(message.content)
    at_rest = unwrapped(at_rest)
    wanted: dict[str, Any] = secrets | {f"on the wire {number}": one for number, one in enumerate(sorted(wire))}
    found = [name for name, secret in wanted.items() for spelling in spellings(secret) if spelling in at_rest]
    assert found == []
    assert not BEARER.search(at_rest), BEARER.search(at_rest)
    assert not REFRESH.search(at_rest), REFRESH.search(at_rest)


async def test_the_search_for_secrets_would_find_one(rest: Rest) -> None:
    """A secret in a property of any table is found by what the test above does, so a clean result means something."""
    table = rest.tables.create_table_if_not_exists("markers")
    wrapped = base64.b64encode(json.dumps({"of": CLIENT_SECRET}).encode()).decode()
    table.upsert_entity({"PartitionKey": "p", "RowKey": "r", "v00": json.dumps({"a": wrapped}).encode()})
    try:
        assert CLIENT_SECRET.encode() in unwrapped(rest.bytes_at_rest())
    finally:
        table.delete_entity("p", "r")


async def test_the_log_holds_no_secret_and_no_mail(rest: Rest, hooks: Hooks) -> None:
    """The app's log of all this has no token, no secret, no address of a customer and no word of any mail."""
    log = rest.app.host.log_path
    start = log.stat().st_size
    secrets = await a_whole_life(rest, hooks)
    wire = await issued(rest.tenant)
    await rest.app.call("POST", "/v1/account", body=b'{"name": "' + OUTGOING.encode(), headers={})
    text = log.read_bytes()[start:]
    assert b"send_message ok" in text, "the log does not show this run, so this test would prove nothing"
    private = secrets | {"a mail out": OUTGOING, "a mail in": INCOMING, "a sender": "carl@customer.example"}
    private |= {f"on the wire {number}": one for number, one in enumerate(sorted(wire))}
    assert [name for name, secret in private.items() if secret.encode() in text] == []
    assert not BEARER.search(text)
    assert not REFRESH.search(text)
    assert b"Bearer " not in text
