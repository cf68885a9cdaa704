"""What one operation costs: storage transactions, Graph calls and sign-in calls, counted exactly."""

from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any

import pytest

from local import services
from shared.notifications import client_state, receive
from tests.support.queues import StorageQueue
from tests.support.workshop import ANN, RITA, SUPPORT, Workshop

TO = [{"address": RITA}]


@dataclass
class Cost:
    """What was used."""

    storage: int
    graph: int
    login: int


@pytest.fixture
async def shop(quiet_azurite: services.Azurite) -> AsyncIterator[Workshop]:
    """Services whose queue messages really go to storage."""
    shop = await Workshop(quiet_azurite.connection_string).start(real_queues=True)
    yield shop
    await shop.stop()


async def cost(shop: Workshop, work: Awaitable[Any]) -> Cost:
    """What this work uses."""
    counts, before = dict(shop.world.log.counts), shop.services.storage.transactions
    await work
    now = shop.world.log.counts
    return Cost(
        shop.services.storage.transactions - before, now["graph"] - counts["graph"], now["login"] - counts["login"]
    )


async def connect(shop: Workshop, *accounts: str) -> None:
    """Initialises accounts, as their queued jobs would."""
    for account in accounts:
        await shop.services.access.initialise(account)


async def warm(shop: Workshop) -> str:
    """A shared mailbox on a person's rights that has sent a mail before; its id."""
    holder = await shop.own()
    account = await shop.delegated(SUPPORT, holder)
    await connect(shop, holder, account)
    answer = await shop.services.submit.accept(account, {"to": TO, "text": "warm"})
    await shop.services.outbox.send({"queueId": answer["queueId"]})
    return account


async def test_accepting_a_mail_costs_four_transactions_and_no_call(shop: Workshop) -> None:
    """The caller waits for storage alone."""
    account = await warm(shop)
    spent = await cost(shop, shop.services.submit.accept(account, {"to": TO, "text": "x"}))
    assert spent.storage <= 4
    assert (spent.graph, spent.login) == (0, 0)


async def test_sending_a_mail_costs_six_transactions_and_one_graph_call(shop: Workshop) -> None:
    """Warm: one sendMail, no sign-in, six transactions with the event included."""
    account = await warm(shop)
    answer = await shop.services.submit.accept(account, {"to": TO, "text": "x"})
    spent = await cost(shop, shop.services.outbox.send({"queueId": answer["queueId"]}))
    assert spent.storage <= 6
    assert (spent.graph, spent.login) == (1, 0)
    assert len(shop.arrived(RITA, answer["messageId"])) == 1


async def test_a_large_body_costs_one_transaction_more_to_accept(shop: Workshop) -> None:
    """The blob, and nothing else."""
    account = await warm(shop)
    await shop.services.blobs.put("warm", b"")
    spent = await cost(shop, shop.services.submit.accept(account, {"to": TO, "text": "x" * 600_000}))
    assert spent.storage <= 5


async def test_a_delegated_account_is_connected_with_two_graph_calls_and_no_sign_in(shop: Workshop) -> None:
    """The profile and the inbox; the token is the holder's own and warm."""
    holder = await shop.own()
    await connect(shop, holder)
    account = await shop.delegated(SUPPORT, holder)
    spent = await cost(shop, connect(shop, account))
    assert spent.graph <= 2
    assert spent.login == 0
    assert (await shop.record(account))["state"] == "connected"


async def test_a_chain_of_twenty_sends_with_the_transactions_of_a_chain_of_one(shop: Workshop) -> None:
    """How the mailbox is reached was settled when the chain was made."""
    costs = []
    for hops in (1, 19):
        parent = await shop.own()
        await connect(shop, parent)
        for _ in range(hops):
            parent = await shop.delegated(SUPPORT, parent)
        await connect(shop, parent)
        for _ in range(2):
            answer = await shop.services.submit.accept(parent, {"to": TO, "text": "x"})
            spent = await cost(shop, shop.services.outbox.send({"queueId": answer["queueId"]}))
        costs.append(spent)
    assert costs[0] == costs[1]


async def test_a_fresh_process_sends_without_a_sign_in(shop: Workshop) -> None:
    """The token is taken from storage; Entra is not asked."""
    account = await warm(shop)
    answer = await shop.services.submit.accept(account, {"to": TO, "text": "x"})
    other = shop.build()
    before = dict(shop.world.log.counts)
    await other.outbox.send({"queueId": answer["queueId"]})
    await other.close()
    now = shop.world.log.counts
    assert (now["graph"] - before["graph"], now["login"] - before["login"]) == (1, 0)


def test_a_notification_becomes_one_queue_message_and_touches_no_storage_itself() -> None:
    """Fifty entries of one account, the most Graph sends at once: one message, which the host writes."""
    key = b"k" * 32
    state = client_state("a", key)
    entries = [{"clientState": state, "changeType": "created", "resourceData": {"id": f"{n:0150}"}} for n in range(50)]
    import json

    reply = receive({"account": "a"}, json.dumps({"value": entries}).encode(), [key], lifecycle=False)
    assert len(reply.messages) == 1


async def test_a_quiet_poll_costs_two_reads_and_no_write(shop: Workshop) -> None:
    """A folder tree and the cursors are read; nothing has changed, so nothing is written."""
    account = await warm(shop)
    record = await shop.record(account)
    for _ in range(3):
        await shop.services.polling.poll(record)
    record = await shop.record(account)
    spent = await cost(shop, shop.services.polling.poll(record))
    assert spent.storage <= 3
    assert spent.login == 0


async def test_the_minute_timer_reads_once_when_nothing_is_due(shop: Workshop) -> None:
    """One query, however many accounts wait for later."""
    await warm(shop)
    spent = await cost(shop, shop.services.schedule.tick(shop.clock()))
    assert spent.storage == 1


async def test_the_messages_on_the_queue_are_what_the_host_expects(shop: Workshop, quiet_azurite: Any) -> None:
    """base64 around `{"job": …}`, whose top level holds nothing that the host would take for metadata."""
    import json

    account = await warm(shop)
    queue = StorageQueue(quiet_azurite.connection_string, "outbox")
    queue.drain()
    answer = await shop.services.submit.accept(account, {"to": TO, "text": "x"})
    (text,) = await queue.take()
    assert json.loads(text) == {"job": {"queueId": answer["queueId"]}}
    assert ANN not in text
