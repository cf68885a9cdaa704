"""`make bench`: timings of this machine, for people. Budgets that must hold are in tests/budgets."""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from local.services import App, Azurite, Service, app_settings, free_port
from local.services import Tenant as TenantService
from shared.api.downloads import json_answer
from shared.listing import attached
from shared.messages import listed_view
from shared.notifications import client_state, receive
from tests.budgets.test_imports import FLOOR, HANDSHAKE, seconds
from tests.support.application import Application
from tests.support.desk import Desk, eventually
from tests.support.receiver import Receiver
from tests.support.tenant import Tenant

RITA, SUPPORT, ANN = "rita@contoso.example", "support@contoso.example", "ann@contoso.example"


def show(what: str, values_ms: list[float]) -> None:
    """One line: median, 99th percentile, and how often it was measured."""
    ordered = sorted(values_ms)
    high = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(f"  {what:<52} {statistics.median(ordered):8.1f} ms   p99 {high:8.1f} ms   n={len(ordered)}", flush=True)


def imports() -> None:
    """What a cold start costs: whole processes, from nothing to their end."""
    for title, program in (
        ("Python alone", "pass"),
        ("azure.functions (the floor)", FLOOR),
        ("function_app", "import function_app"),
        ("first notification answered", HANDSHAKE),
        ("the API app", "import shared.api.app"),
        ("msgraph-sdk and the table client", "import msgraph.graph_service_client, azure.data.tables.aio"),
    ):
        seconds(program)
        show(title, [seconds(program) * 1000 for _ in range(5)])


def listing() -> None:
    """A page of 100 messages from Graph's bytes to ours."""
    recipient = {"emailAddress": {"name": "Ann", "address": ANN}}
    one = {
        "id": "AAkALg" + "x" * 120,
        "conversationId": "AAQk" + "y" * 80,
        "receivedDateTime": "2026-11-20T07:41:03Z",
        "isRead": False,
        "subject": "Order 4711",
        "from": recipient,
        "toRecipients": [recipient] * 3,
        "bodyPreview": "Good morning " * 15,
        "body": {"contentType": "html", "content": "<p>Good morning</p>" * 150},
        "internetMessageId": "<b7c1@mail.contoso.example>",
        "attachments": [{"id": "AAMk" + "z" * 130, "name": "order.pdf", "contentType": "application/pdf", "size": 9}],
    }
    raw = json.dumps({"value": [one] * 100}).encode()
    spent = []
    for _ in range(50):
        started = time.process_time()
        json_answer([listed_view(message, attached(message)) for message in json.loads(raw)["value"]])
        spent.append((time.process_time() - started) * 1000)
    show(f"100 messages ({len(raw) // 1024} KiB), CPU", spent)


def endpoint() -> None:
    """A thousand notifications in one POST, from the body to what is queued: the answer waits for nothing else."""
    key = b"k" * 32
    state = client_state("an-account", key)
    entries = [
        {
            "subscriptionId": "7f105c7d-2dc5-4530-97cd-4e7ae6534c07",
            "clientState": state,
            "changeType": "created",
            "resource": "Users/6f1c/Messages/" + f"{number:0150}",
            "resourceData": {"@odata.type": "#Microsoft.Graph.Message", "id": f"{number:0150}"},
        }
        for number in range(1000)
    ]
    body, spent = json.dumps({"value": entries}).encode(), []
    for _ in range(50):
        started = time.perf_counter()
        receive({"account": "an-account"}, body, [key], lifecycle=False)
        spent.append((time.perf_counter() - started) * 1000)
    show(f"1,000 notifications in one POST ({len(body) // 1024} KiB)", spent)


async def measure(times: int, act: Callable[[int], Awaitable[None]]) -> list[float]:
    """Milliseconds of each of so many acts, one after the other."""
    spent = []
    for number in range(times):
        started = time.perf_counter()
        await act(number)
        spent.append((time.perf_counter() - started) * 1000)
    return spent


async def running(app: Application, tenant: Tenant) -> None:
    """What a caller of a warm app waits for."""
    desk, receiver = Desk(app, tenant), await Receiver().start()
    await desk.hear(receiver.url)
    holder = await desk.own()
    shared = await desk.delegated(SUPPORT, holder)

    async def accept(number: int) -> None:
        await desk.accepted(shared, to=[{"address": RITA}], subject=f"bench {number}", text="Hello")

    async def send(number: int) -> None:
        accepted = await desk.accepted(shared, to=[{"address": RITA}], subject=f"sent {number}", text="Hello")
        await eventually(lambda: there(accepted["messageId"]), "the mail", 30)

    async def there(message_id: str) -> bool:
        return any(one["internetMessageId"] == message_id for one in await tenant.messages(RITA, "inbox"))

    async def push(number: int) -> None:
        await tenant.deliver("carl@customer.example", [ANN], f"push {number}", text="Hello")
        await receiver.wait_for(lambda hook: f"push {number}" == hook.json["data"].get("subject"), timeout_s=30)

    async def read(_: int) -> None:
        await desk.account(shared)

    show("GET account (delegated)", await measure(100, read))
    show("submit accepted", await measure(100, accept))
    await asyncio.sleep(3)
    show("submit to the recipient's inbox", await measure(15, send))
    show("mail delivered to webhook received (push)", await measure(15, push))
    await receiver.stop()


def stack() -> None:
    """The app with storage and tenant of its own."""
    port = free_port()
    storage, tenant = Azurite(), TenantService(service_url=f"http://127.0.0.1:{port}")
    with storage, tenant:
        settings = app_settings(storage=storage.connection_string, tenant_url=tenant.url)
        started = time.perf_counter()
        app: Service = App(port, settings=settings, poll_seconds=0.2)
        with app:
            show("app started and answering", [(time.perf_counter() - started) * 1000])
            asyncio.run(running(Application(app), Tenant(tenant)))  # type: ignore[arg-type]


def main() -> int:
    """Prints the table."""
    print(f"Python {sys.version.split()[0]}\n")
    imports()
    listing()
    endpoint()
    stack()
    return 0


if __name__ == "__main__":
    sys.exit(main())
