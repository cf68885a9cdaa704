"""What one operation costs: storage transactions, Graph calls and sign-in calls, counted exactly."""

import base64
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any

import pytest

from local import services
from shared.attachments import attachment_id
from shared.events import delivery_job, event_id
from shared.notifications import client_state, receive
from shared.storage.tables import Row
from shared.webhook_target import target_of
from tests.support.queues import StorageQueue
from tests.support.receiver import Receiver
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
    shop.without_statistics()
    counts, before = dict(shop.world.log.counts), shop.services.storage.transactions
    await work
    now = shop.world.log.counts
    return Cost(
        shop.services.storage.transactions - before, now["graph"] - counts["graph"], now["login"] - counts["login"]
    )


def writes_of(shop: Workshop, *tables: str) -> list[str]:
    """Grows by the name of each of these tables that is written to from now on."""
    seen: list[str] = []
    for name in tables:
        table = shop.services.tables[name]
        for method in ("insert", "replace", "put", "delete"):
            real = getattr(table, method)

            async def noted(*given: Any, real: Any = real, name: str = name, **named: Any) -> Any:
                seen.append(name)
                return await real(*given, **named)

            setattr(table, method, noted)
    return seen


async def job_of(shop: Workshop, account: str, number: int) -> dict[str, Any]:
    """The job of the account's next turn, as its row has it."""
    chain = (await shop.record(account))["turns"]["chain"]
    rows = await shop.services.tables["schedule"].partition("due")
    (row,) = [one for one in rows if one.value["job"]["chain"] == chain]
    return {**row.value["job"], "due": row.key, "number": number}


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


async def test_an_idempotency_key_costs_one_transaction_more(shop: Workshop) -> None:
    """The key's record; the outbox's own row is the answer."""
    account = await warm(shop)
    await shop.services.submit.accept(account, {"to": TO, "text": "warm"}, key="warm")
    plain = await cost(shop, shop.services.submit.accept(account, {"to": TO, "text": "x"}))
    keyed = await cost(shop, shop.services.submit.accept(account, {"to": TO, "text": "x"}, key="k"))
    assert keyed.storage == plain.storage + 1


async def test_a_quiet_mailbox_pays_nothing_for_the_lanes(shop: Workshop) -> None:
    """With its lane in the job, a send costs what it costs without."""
    account = await warm(shop)
    costs = []
    for more in ({}, {"mailbox": shop.services.accounts.lane(account)}):
        answer = await shop.services.submit.accept(account, {"to": TO, "text": "x"})
        costs.append(await cost(shop, shop.services.outbox.send({"queueId": answer["queueId"], **more})))
    assert shop.services.accounts.lane(account)
    assert costs[0] == costs[1]


async def test_a_mail_that_has_to_wait_costs_one_transaction_and_no_call(shop: Workshop) -> None:
    """Put back to its time without a look at its record."""
    account = await warm(shop)
    answer = await shop.services.submit.accept(account, {"to": TO, "text": "x"})
    lane = shop.services.accounts.lane(account)
    shop.services.lanes.throttled(lane, 30)
    spent = await cost(shop, shop.services.outbox.send({"queueId": answer["queueId"], "mailbox": lane}))
    assert (spent.storage, spent.graph) == (1, 0)


async def test_a_change_of_state_does_not_move_the_body(shop: Workshop) -> None:
    """A mail of 400 KB that is throttled: what goes to storage in its turns is a few KB."""
    account = await warm(shop)
    answer = await shop.services.submit.accept(account, {"to": TO, "text": "x" * 400_000})
    sent: list[int] = []
    count = shop.services.storage.count

    def weigh(request: Any) -> None:
        sent.append(len(request.http_request.body or b""))
        count(request)

    shop.services.storage.count = weigh  # type: ignore[method-assign]
    shop.services.tables["outbox"]._made = None
    shop.world.faults.add({"path_regex": "/sendMail$"}, {"status": 429, "retry_after": "0.5"})
    await shop.services.outbox.send({"queueId": answer["queueId"]})
    assert len(sent) >= 3
    assert 0 < sum(sent) < 10_000


async def test_a_large_body_costs_one_transaction_more_to_accept(shop: Workshop) -> None:
    """The blob, and nothing else."""
    account = await warm(shop)
    await shop.services.blobs.put("warm", b"")
    spent = await cost(shop, shop.services.submit.accept(account, {"to": TO, "text": "x" * 600_000}))
    assert spent.storage <= 5


@pytest.mark.parametrize("parts", [1, 3])
async def test_a_large_mail_costs_a_draft_a_send_and_what_its_attachments_need(shop: Workshop, parts: int) -> None:
    """n files up to 3 MB: n + 2 calls. n files of three ranges: a session each, and one request for each range."""
    account = await shop.own()
    await connect(shop, account)
    answer = await shop.services.submit.accept(account, {"to": TO, "text": "warm"})
    await shop.services.outbox.send({"queueId": answer["queueId"]})
    await shop.services.tables["drafts"].put(Row("warm", "warm", {}))  # the table is there
    for size, calls in ((3_000_000, 1), (2 * 3_932_160 + 1, 1)):
        files = [{"filename": f"{n}.bin", "content": base64.b64encode(bytes(size)).decode()} for n in range(parts)]
        before = shop.world.log.counts["upload"]
        accepted = shop.services.submit.accept(account, {"to": TO, "text": "x", "attachments": files})
        spent = await cost(shop, accepted)
        assert spent.graph == 0
        (row,) = [one async for one in shop.services.tables["outbox"].scan("state eq 'queued'") if "parts" in one.value]
        spent = await cost(shop, shop.services.outbox.send({"queueId": row.key}))
        assert (spent.graph, spent.login) == (2 + parts * calls, 0)
        # Two more for settings that are read again, since megabytes may take longer than they are remembered.
        assert spent.storage <= 6 + 8 + 2 + parts * (3 if size < 3_932_160 else 5)
        assert shop.world.log.counts["upload"] - before == (0 if size < 3_932_160 else parts * 3)
        (mail,) = shop.arrived(RITA, row.value["messageId"])
        assert [one["size"] for one in mail["attachments"]] == [size] * parts


async def test_an_attachment_by_reference_costs_one_call(shop: Workshop) -> None:
    """However often it is named; an attached message costs two."""
    account = await warm(shop)
    message = shop.deliver(SUPPORT, attachments=[{"name": "a.txt", "contentBytes": "YQ=="}])
    reference = attachment_id(message, shop.message(SUPPORT, message).attachments[0].id)
    files = [{"reference": reference}, {"reference": reference, "filename": "b.txt"}]
    spent = await cost(shop, shop.services.submit.accept(account, {"to": TO, "text": "x", "attachments": files}))
    assert (spent.graph, spent.login) == (1, 0)
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


async def test_a_quiet_poll_costs_three_calls_two_reads_and_no_write(shop: Workshop) -> None:
    """Folder tree, inbox and one folder more; tree and cursors are read, and nothing is written."""
    account = await warm(shop)
    record = await shop.record(account)
    reach = await shop.services.accounts.reading_reach(record)
    for turn in range(3):
        await shop.services.polling.poll(record, reach, turn=turn)
    writes = writes_of(shop, "cursors", "trees", "accounts", "markers")
    spent = await cost(shop, shop.services.polling.poll(record, reach, turn=3))
    assert (spent.graph, spent.login) == (3, 0)
    assert spent.storage <= 2
    assert writes == []


async def test_a_quiet_turn_costs_three_reads_and_the_next_turn(shop: Workshop) -> None:
    """The record besides, and two transactions that put the next turn where it belongs."""
    account = await warm(shop)
    for turn in range(3):
        await shop.services.sync.turn(await job_of(shop, account, turn))
    job = await job_of(shop, account, 3)
    spent = await cost(shop, shop.services.sync.turn(job))
    assert (spent.graph, spent.login) == (3, 0)
    assert spent.storage <= 5


async def test_a_silent_hour_of_push_costs_a_round_over_the_folders_and_one_call(shop: Workshop) -> None:
    """The folder tree, each folder, and the audit; nothing is fetched that was told before."""
    account = await shop.own()
    await connect(shop, account)
    current = (await shop.record(account))["subscription"]["id"]
    await shop.services.proof.heard(await shop.record(account), [current])
    await shop.services.sync.catch_up(account)
    await shop.services.sync.turn(await job_of(shop, account, 0))
    shop.advance(3600)
    tree = await shop.services.mailboxes.stored(account)
    assert tree is not None
    job = await job_of(shop, account, 1)
    spent = await cost(shop, shop.services.sync.turn(job))
    assert (await shop.record(account))["notifications"]["mode"] == "push"
    assert spent.graph == 1 + len(tree.folders) + 1


async def test_proving_a_subscription_costs_two_graph_calls(shop: Workshop) -> None:
    """One draft made and erased; the second notification for the same subscription notes nothing."""
    account = await shop.own()
    await connect(shop, account)
    assert len(shop.requests("POST", "/messages$")) == 1
    current = (await shop.record(account))["subscription"]["id"]
    unproven = await shop.record(account)
    spent = await cost(shop, shop.services.proof.heard(unproven, [current]))
    assert spent.graph == 1
    record = await shop.record(account)
    assert (await cost(shop, shop.services.proof.heard(record, [current]))).storage == 0


async def warm_webhooks(shop: Workshop, receiver: Receiver) -> None:
    """Settings and the endpoint's health, read just now."""
    shop.services.service_settings._kept = None
    await shop.services.service_settings.all()
    await shop.services.endpoints.newest(target_of(receiver.url, []).endpoint)


@pytest.mark.parametrize(("order", "delivered"), [(0, 6), (3, 7)])
async def test_an_event_costs_two_transactions_and_its_delivery_six_or_seven(
    shop: Workshop, receiver: Receiver, order: int, delivered: int
) -> None:
    """Recorded: insert and message. Delivered: event, account, claim, two for the account's counters, outcome; one more
    for an event that has something before it. The endpoint's health is read once in half a minute."""
    values = {"webhooksEnabled": True, "webhooks": receiver.url, "webhookEvents": ["*"]}
    await shop.services.service_settings.write(values)
    account = (await shop.services.onboarding.create({"account": None, "name": "x"}))["account"]
    events = shop.services.tables["events"]
    for number in range(2):
        about = f"m{number}"
        emitted = shop.services.events.emit(account, "messageUpdated", {}, happening=about, about=about, order=order)
        await warm_webhooks(shop, receiver)
        recorded = await cost(shop, emitted)
        (row,) = [one for one in await events.partition(account) if one.key.endswith(event_id(account, about))]
        await warm_webhooks(shop, receiver)
        sent = await cost(shop, shop.services.webhooks.deliver(delivery_job(account, row.key, shop.clock())))
    assert recorded.storage == 2
    assert sent.storage == delivered
    assert len(receiver.requests) == 2


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
    job = json.loads(text)["job"]
    assert job == {"queueId": answer["queueId"], "mailbox": job["mailbox"]}
    assert len(job["mailbox"]) == 16
    assert SUPPORT not in text
    assert ANN not in text


async def test_a_failed_delivery_costs_nine_transactions_and_seven_from_then_on(
    shop: Workshop, receiver: Receiver
) -> None:
    """Beside what a delivery costs: the next attempt's message, and a read and a write of the endpoint's health."""
    values = {"webhooksEnabled": True, "webhooks": receiver.url, "webhookEvents": ["*"]}
    await shop.services.service_settings.write(values)
    account = (await shop.services.onboarding.create({"account": None, "name": "x"}))["account"]
    events, spent = shop.services.tables["events"], []
    receiver.answer_next(*[500] * 4)
    for name in ("first", "second"):
        await shop.services.events.emit(account, "messageNew", {}, happening=name, about=name)
        (row,) = [one for one in await events.partition(account) if one.key.endswith(event_id(account, name))]
        for attempt in range(2):
            job = delivery_job(account, row.key, shop.clock()) | {"attempt": attempt}
            await warm_webhooks(shop, receiver)
            spent.append((await cost(shop, shop.services.webhooks.deliver(job))).storage)
    assert spent[2:] == [9, 7]
