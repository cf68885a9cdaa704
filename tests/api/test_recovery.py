"""What must hold when a process dies between two lines, another process knows less, or an outage ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from local.tenant.control_login import mint
from shared.errors import StorageConflict
from shared.storage.queues import Queues
from tests.support.desk import DELEGATED
from tests.support.workshop import ANN, RITA, SUPPORT, Workshop

SALES, BOB = "sales@contoso.example", "bob@contoso.example"
Json = dict[str, Any]


async def tokens_of(shop: Workshop, user: str) -> Json:
    """What an account takes after a sign-in elsewhere."""
    tokens = mint(shop.world, {"user": user})
    ends = (shop.clock() + timedelta(seconds=tokens["expires_in"])).isoformat()
    return {"accessToken": tokens["access_token"], "refreshToken": tokens["refresh_token"], "expires": ends}


async def send(shop: Workshop, account: str) -> str:
    """Accepts a mail to Rita and works off what is due; its Message-ID."""
    accepted = await shop.services.submit.accept(account, {"to": [{"address": RITA}], "subject": "Hi", "text": "x"})
    await shop.run_due()
    return str(accepted["messageId"])


class Died(Exception):
    """Stands for a process that ends here."""


async def test_mail_received_during_a_long_outage_is_reported_after_it(workshop: Workshop) -> None:
    """A catch-up starts where the last one stood, not at the moment of recovery."""
    account = await workshop.own()
    await workshop.settle()
    workshop.lose = lambda: True
    message = workshop.deliver(ANN, "while nobody listened")
    await workshop.run_for(3 * 3600, tick_s=600)
    workshop.lose = lambda: False
    await workshop.services.onboarding.reconnect(account)
    await workshop.run_for(60)
    reported = [one["data"]["id"] for one in await workshop.events(account, "messageNew")]
    assert reported == [message]


async def test_a_lost_notification_is_made_up_for_within_the_hour(workshop: Workshop) -> None:
    """The hourly look at the subscription also looks for what no notification told."""
    account = await workshop.own()
    await workshop.settle()
    workshop.lose = lambda: True
    message = workshop.deliver(ANN, "lost")
    await workshop.settle()
    assert await workshop.events(account, "messageNew") == []
    await workshop.run_for(3700, tick_s=300)
    assert [one["data"]["id"] for one in await workshop.events(account, "messageNew")] == [message]


async def test_an_account_led_to_another_mailbox_hears_of_that_one_only(workshop: Workshop) -> None:
    """Cursors of the old mailbox are forgotten; its mail is nobody's event, and the new one's arrives."""
    holder = await workshop.own()
    account = await workshop.delegated(SUPPORT, holder)
    await workshop.run_for(180)
    oauth2 = {"auth": {"delegatedUser": SALES, "delegatedAccount": holder}}
    await workshop.services.onboarding.update(account, {"oauth2": oauth2})
    await workshop.run_for(180)
    workshop.deliver(SUPPORT, "for support")
    wanted = workshop.deliver(SALES, "for sales")
    await workshop.run_for(180)
    assert [one["data"]["id"] for one in await workshop.events(account, "messageNew")] == [wanted]


async def test_another_process_does_not_use_the_token_of_an_earlier_sign_in(workshop: Workshop) -> None:
    """A worker that remembers Ann's token sends as Bob once Bob has signed in for the account."""
    account = await workshop.own(ANN)
    await send(workshop, account)
    api = workshop.build()
    provider = (await workshop.record(account))["oauth2"]["provider"]
    oauth2 = {"provider": provider, "auth": {"user": BOB}, **await tokens_of(workshop, BOB)}
    await api.onboarding.update(account, {"oauth2": oauth2, "email": BOB})
    await api.close()
    await workshop.run_due()
    message_id = await send(workshop, account)
    copies = [one["internetMessageId"] for one in workshop.world.mail.dump(BOB, "sentitems")]
    assert message_id in copies
    assert message_id not in [one["internetMessageId"] for one in workshop.world.mail.dump(ANN, "sentitems")]


@pytest.mark.parametrize("step", ["emit", "after_connect"])
async def test_dying_right_after_connecting_leaves_no_deaf_account(workshop: Workshop, step: str) -> None:
    """Whatever was left undone when the process died is done by the next one: events, subscription, turns."""
    access = workshop.services.access
    tokens = await tokens_of(workshop, ANN)
    emit, after_connect = access._events.emit, access.after_connect

    async def dies(*_: Any, **__: Any) -> Any:
        raise Died

    provider = await workshop._app(DELEGATED)
    fields = {"account": "crash", "name": "Crash", "email": ANN}
    await workshop.services.onboarding.create(fields | {"oauth2": {"provider": provider, "auth": {}, **tokens}})
    if step == "emit":
        access._events.emit = dies  # type: ignore[method-assign]
    else:
        access.after_connect = dies
    with pytest.raises(Died):
        await access.initialise("crash")
    access._events.emit = emit  # type: ignore[method-assign]
    access.after_connect = after_connect
    await access.initialise("crash")
    await workshop.run_due()
    record = await workshop.record("crash")
    assert record["subscription"]["id"]
    assert record["turns"]["do"] == "sync"
    assert "unfinished" not in record
    told = [one["event"] for one in await workshop.events("crash", "accountInitialized", "authenticationSuccess")]
    assert sorted(told) == ["accountInitialized", "authenticationSuccess"]


async def test_a_mail_whose_queue_message_was_lost_is_taken_up_again(workshop: Workshop) -> None:
    """Accepted is accepted: without its message the mail goes out with the hourly look."""
    account = await workshop.own()
    accepted = await workshop.services.submit.accept(account, {"to": [{"address": RITA}], "text": "x"})
    workshop.queues.waiting.clear()
    workshop.advance(3600)
    assert await workshop.services.outbox.take_up(timedelta(minutes=20)) == 1
    await workshop.run_due()
    assert len(workshop.arrived(RITA, accepted["messageId"])) == 1


async def test_a_write_that_storage_repeats_does_not_lose_the_mail(workshop: Workshop) -> None:
    """A conflict with our own, repeated write is recognised: the mail leaves in the same turn, and only once."""
    account = await workshop.own()
    outbox = workshop.services.outbox
    real, calls = outbox._table.merge, []

    async def repeated(row: Any) -> Any:
        calls.append(row)
        stored = await real(row)
        if len(calls) == 1:
            raise StorageConflict("applied, and answered 412 to the repetition")
        return stored

    outbox._table.merge = repeated  # type: ignore[method-assign]
    accepted = await workshop.services.submit.accept(account, {"to": [{"address": RITA}], "text": "x"})
    await workshop.run_due()
    assert len(workshop.arrived(RITA, accepted["messageId"])) == 1
    await workshop.run_for(1800)
    assert len(workshop.arrived(RITA, accepted["messageId"])) == 1


async def test_queue_messages_do_not_expire_before_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail scheduled days ahead outlives the seven days a message has by default."""
    sent: list[dict[str, Any]] = []

    class Client:
        async def send_message(self, text: str, **options: Any) -> None:
            sent.append(options)

    queues = Queues(None)  # type: ignore[arg-type]
    monkeypatch.setattr(queues, "_client", lambda _name: Client())
    await queues.put("outbox", {"queueId": "1"}, delay_s=5 * 24 * 3600)
    assert sent == [{"visibility_timeout": 5 * 24 * 3600, "time_to_live": -1}]
