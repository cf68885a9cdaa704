"""What makes up for lost notifications: delta, audit, canary, subscriptions that come back, readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from shared.canary import stamp
from shared.notifications import receive
from shared.subscriptions import other_end
from tests.support.desk import APPLICATION, DELEGATED
from tests.support.workshop import ANN, SUPPORT, Workshop

BOB, SALES = "bob@contoso.example", "sales@contoso.example"
Json = dict[str, Any]


async def shown(shop: Workshop, account: str) -> Json:
    """The account's `notifications` as the record has them."""
    return dict((await shop.record(account))["notifications"])


async def watch(shop: Workshop, account: str) -> Json:
    """The counters of what was missed."""
    return dict((await shop.record(account)).get("watch") or {})


async def told(shop: Workshop, account: str) -> dict[tuple[str, str, str], int]:
    """Everything that was told of messages."""
    return dict(await shop.happenings(account))


async def quiet_turns(shop: Workshop, seconds: float, tick_s: float = 300) -> None:
    """Lets time pass, giving the tenant's notifications the moment they take in earnest."""
    await shop.run_for(seconds, tick_s)
    await shop.settle()


# -- proof ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["own", "application"])
async def test_push_is_claimed_only_after_a_notification_came_and_the_canary_leaves_nothing(
    workshop: Workshop, way: str
) -> None:
    """Before the first notification the mode is poll and says what is awaited; after it, push; no draft, no event."""
    workshop.world.switches.notification_delay_s = 0.3
    account = await (workshop.own() if way == "own" else workshop.application(ANN))
    before = await shown(workshop, account)
    assert before["mode"] == "poll"
    assert "awaited" in before["reason"]
    await workshop.settle()
    assert (await shown(workshop, account))["mode"] == "push"
    await quiet_turns(workshop, 60)
    assert workshop.world.mail.dump(ANN, "drafts") == workshop.world.mail.dump(ANN, "deleteditems") == []
    assert await told(workshop, account) == {}
    assert "canary" not in await workshop.record(account)


async def test_a_subscription_that_stays_silent_never_becomes_push_and_no_event_is_lost(workshop: Workshop) -> None:
    """Graph accepts and never notifies: polling tells everything, the reason says what to look at, and a later
    notification makes it push."""
    workshop.world.switches.notification_loss = 1
    account = await workshop.own()
    mail = workshop.deliver(ANN, "Heard all the same")
    await workshop.run_for(180, 30)
    now = await shown(workshop, account)
    assert now["mode"] == "poll"
    assert "nothing was delivered" in now["reason"]
    assert await told(workshop, account) == {("messageNew", mail, ""): 1}
    assert workshop.world.mail.dump(ANN, "drafts") == []
    assert len(workshop.requests("POST", "/messages$")) == 1
    await workshop.run_for(4000, 300)  # an hour, and up to one more wait between two turns
    assert len(workshop.requests("POST", "/messages$")) == 2
    assert (await shown(workshop, account))["mode"] == "poll"
    assert len(workshop.world.notifier.alive()) == 1
    workshop.world.switches.notification_loss = 0
    workshop.deliver(ANN, "And by push")
    await workshop.settle()
    assert (await shown(workshop, account))["mode"] == "push"


async def test_a_canary_whose_maker_died_is_found_by_its_stamp_and_removed(workshop: Workshop) -> None:
    """The draft was made, its id was never stored: within minutes it is gone, and nothing was told of it."""
    workshop.world.switches.notification_loss = 1
    send = workshop.services.proof._canary.send

    async def dies(account: str, reach: Any) -> str:
        await send(account, reach)
        raise KeyboardInterrupt

    workshop.services.proof._canary.send = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        await workshop.own()
    workshop.services.proof._canary.send = send  # type: ignore[method-assign]
    (account,) = [one["account"] async for one in workshop.services.accounts.all()]
    assert len(workshop.world.mail.dump(ANN, "drafts")) == 1
    workshop.world.switches.notification_loss = 0
    await quiet_turns(workshop, 300, 30)
    assert workshop.world.mail.dump(ANN, "drafts") == []
    assert await told(workshop, account) == {}


async def test_nobody_can_hide_a_mail_behind_the_stamp_of_a_canary(workshop: Workshop) -> None:
    """A received mail with the right stamp is told like any other: only a draft is taken for a canary."""
    account = await workshop.own()
    await workshop.settle()
    key = workshop.services.settings.key_ring[0][1]
    mail = workshop.deliver(ANN, stamp(account, key))
    await workshop.settle()
    assert await told(workshop, account) == {("messageNew", mail, ""): 1}


async def test_changes_that_only_delta_told_cost_a_subscription_its_proof(workshop: Workshop) -> None:
    """Late ones are counted, the account says poll until a canary was heard again, and gaps stay 0."""
    account = await workshop.own()
    await workshop.settle()
    assert (await shown(workshop, account))["mode"] == "push"
    await workshop.run_for(60)  # the look that follows a new subscription is over
    workshop.world.switches.notification_loss = 1
    lost = workshop.deliver(ANN, "Lost")
    workshop.advance(1800)
    await workshop.run_for(3700, 300)
    assert (await shown(workshop, account))["mode"] == "poll"
    counted = await watch(workshop, account)
    assert (counted["late"], counted.get("gaps", 0)) == (1, 0)
    workshop.world.switches.notification_loss = 0
    await quiet_turns(workshop, 4000)
    assert (await shown(workshop, account))["mode"] == "push"
    assert await told(workshop, account) == {("messageNew", lost, ""): 1}


# -- delta as the truth, and gaps ------------------------------------------------------------------------------------


async def test_lost_updates_and_deletions_are_told_within_the_hour(workshop: Workshop) -> None:
    """Not only arrivals: flags and ends of messages are made up for by the hourly round."""
    account = await workshop.own()
    await workshop.settle()
    kept, ended = workshop.deliver(ANN, "Kept"), workshop.deliver(ANN, "Ended")
    await workshop.settle()
    await workshop.run_for(60)
    workshop.lose = lambda: True
    workshop.mark(ANN, kept, flag={"flagStatus": "flagged"})
    workshop.remove(ANN, ended)
    await workshop.settle()
    await workshop.run_for(3700, 300)
    assert await told(workshop, account) == {
        ("messageNew", kept, ""): 1, ("messageNew", ended, ""): 1,
        ("messageUpdated", kept, "\\Flagged"): 1, ("messageDeleted", ended, ""): 1,
    }  # fmt: skip


async def test_a_mail_that_came_by_push_and_went_unheard_between_two_rounds_is_told_as_deleted(
    workshop: Workshop,
) -> None:
    """Delta never speaks of it, since it was there at no round: the round asks for what only a hint told."""
    account = await workshop.own()
    await workshop.settle()
    await workshop.run_for(60)
    brief, moved, stays = (workshop.deliver(ANN, name) for name in ("Brief", "Moved", "Stays"))
    await workshop.settle()
    workshop.lose = lambda: True
    workshop.move(ANN, moved, "junkemail")
    workshop.remove(ANN, brief)
    workshop.remove(ANN, moved)
    await workshop.settle()
    await workshop.run_for(3700, 300)
    news = {("messageNew", one, ""): 1 for one in (brief, moved, stays)}
    gone = {("messageDeleted", one, ""): 1 for one in (brief, moved)}
    assert await told(workshop, account) == news | gone


async def test_after_a_forgotten_cursor_deletions_are_told_and_moves_are_not_deletions(workshop: Workshop) -> None:
    """Everything happened while Graph forgot where we were: one is gone, one moved, one read, one new."""
    holder = await workshop.own()
    account = await workshop.delegated(SUPPORT, holder)
    gone, moved, read = (workshop.deliver(SUPPORT, name) for name in ("Gone", "Moved", "Read"))
    await workshop.run_for(120)
    workshop.remove(SUPPORT, gone)
    workshop.move(SUPPORT, moved, "junkemail")
    workshop.mark(SUPPORT, read, isRead=True)
    fresh = workshop.deliver(SUPPORT, "Fresh")
    owner = workshop.world.directory.find(SUPPORT)
    assert owner is not None
    workshop.world.mail.delta.expire(owner.id)
    await workshop.run_for(600)
    news = {("messageNew", one, ""): 1 for one in (gone, moved, read, fresh)}
    assert await told(workshop, account) == news | {
        ("messageDeleted", gone, ""): 1, ("messageUpdated", read, "\\Seen"): 1
    }  # fmt: skip
    assert (await watch(workshop, account))["resyncs"] > 0


async def test_a_message_that_delta_does_not_know_is_found_by_the_audit_and_counted(workshop: Workshop) -> None:
    """Neither a hint nor delta told of it: within the next two hours it is told, and `gaps` says so."""
    holder = await workshop.own()
    account = await workshop.delegated(SUPPORT, holder)
    await workshop.run_for(120)
    entry = workshop.services.changes.entry

    async def deaf(*_: Any, **__: Any) -> None:
        return None

    workshop.services.changes.entry = deaf  # type: ignore[method-assign,assignment]
    mail = workshop.deliver(SUPPORT, "Unseen")
    await workshop.run_for(600)
    assert await told(workshop, account) == {}
    workshop.services.changes.entry = entry  # type: ignore[method-assign]
    await workshop.run_for(7200, 300)
    assert await told(workshop, account) == {("messageNew", mail, ""): 1}
    assert (await watch(workshop, account))["gaps"] == 1


async def test_an_ordinary_day_leaves_no_gap(workshop: Workshop) -> None:
    """Mail before, during and after an outage: all counters of an account stay at nothing."""
    account = await workshop.own()
    await workshop.settle()
    for number in range(5):
        workshop.deliver(ANN, f"Mail {number}")
        await workshop.settle()
        await workshop.run_for(1500, 300)
    assert await watch(workshop, account) == {}
    assert len([1 for event, *_ in await told(workshop, account) if event == "messageNew"]) == 5


async def test_a_message_that_graph_refuses_for_good_is_left_out_counted_once_and_holds_up_nothing(
    workshop: Workshop,
) -> None:
    """403 for one message alone: the others are told, `gaps` is 1, and it is told when Graph gives it after all."""
    holder = await workshop.own()
    account = await workshop.delegated(SUPPORT, holder)
    await workshop.run_for(60)
    bad, good = workshop.deliver(SUPPORT, "Bad"), workshop.deliver(SUPPORT, "Good")
    fault = workshop.world.faults.add({"method": "GET", "path_regex": f"/messages/{bad}"}, {"status": 403}, None)
    assert fault
    await workshop.run_for(120)
    assert await told(workshop, account) == {("messageNew", good, ""): 1}
    assert (await watch(workshop, account))["gaps"] == 1
    workshop.world.faults.remove()
    workshop.mark(SUPPORT, bad, isRead=True)
    await workshop.run_for(600)
    assert (await told(workshop, account))[("messageNew", bad, "")] == 1


# -- adaptive waits --------------------------------------------------------------------------------------------------


async def test_a_quiet_mailbox_is_asked_ever_more_rarely_and_an_active_one_often(workshop: Workshop) -> None:
    """At first every 15 seconds; after hours of silence every five minutes; a change brings the short waits back."""
    holder = await workshop.own()
    await workshop.delegated(SUPPORT, holder)

    async def turns_in(seconds: float) -> int:
        before = len(workshop.requests("GET", f"/users/{SUPPORT}/mailFolders/delta"))
        await workshop.run_for(seconds)
        return len(workshop.requests("GET", f"/users/{SUPPORT}/mailFolders/delta")) - before

    assert 4 <= await turns_in(120) <= 10  # eight, fewer where a turn takes long: its real time counts besides
    await workshop.run_for(2 * 3600)
    assert 10 <= await turns_in(3600) <= 14
    workshop.deliver(SUPPORT, "Somebody is there")
    await workshop.run_for(330)
    assert await turns_in(240) >= 3  # at the long waits it would be one


# -- subscriptions -----------------------------------------------------------------------------------------------------


async def test_a_handshake_that_fails_twice_is_had_at_the_third_try_within_a_minute(workshop: Workshop) -> None:
    """The first retry comes after five seconds, from an endpoint that is warm by then."""
    workshop.refuse_handshakes = 2
    account = await workshop.own()
    assert (await shown(workshop, account))["mode"] == "poll"
    await workshop.run_for(6, 1)
    assert len(workshop.requests("POST", "/subscriptions$")) == 2
    await quiet_turns(workshop, 40, 10)
    assert (await shown(workshop, account))["mode"] == "push"
    assert len(workshop.world.notifier.alive()) == 1


async def test_two_instances_at_once_make_one_subscription(workshop: Workshop) -> None:
    """Both see a record without one; the lease lets one of them act."""
    import asyncio

    account = await workshop.own()
    await workshop.settle()
    current = (await workshop.record(account))["subscription"]["id"]
    workshop.world.notifier.remove(current)
    other = workshop.build()
    before = len(workshop.requests("POST", "/subscriptions$"))
    await workshop.services.subscriptions.forget(account, current)
    await asyncio.gather(*(one.sync.subscribe(account) for one in (workshop.services, other)))
    await other.close()
    assert len(workshop.requests("POST", "/subscriptions$")) == before + 1
    (alive,) = workshop.world.notifier.alive()
    assert (await workshop.record(account))["subscription"]["id"] == alive.id


async def test_a_subscription_that_was_made_and_never_stored_is_ended(workshop: Workshop) -> None:
    """The process dies between Graph's answer and the record: the next one ends the stray before it makes another."""
    keep = workshop.services.subscriptions._keep

    async def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    workshop.services.subscriptions._keep = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        await workshop.own()
    workshop.services.subscriptions._keep = keep  # type: ignore[method-assign]
    assert len(workshop.world.notifier.alive()) == 1
    await workshop.run_for(600, 60)
    (account,) = [one["account"] async for one in workshop.services.accounts.all()]
    (alive,) = workshop.world.notifier.alive()
    assert (await workshop.record(account))["subscription"]["id"] == alive.id


@pytest.mark.parametrize("days", [-3, 3])
@pytest.mark.parametrize("ceiling", [4230, 10070])
async def test_a_clock_that_is_days_off_still_gets_and_keeps_its_subscription(
    workshop: Workshop, days: int, ceiling: int
) -> None:
    """Graph's own time and limit, from its refusal, are gone by; renewals come in time by Graph's clock."""
    workshop.world.switches.subscription_ceiling_minutes = ceiling
    workshop.clock.skew_s = days * 86400
    account = await workshop.application(SALES)
    assert len(workshop.world.notifier.alive()) == 1
    await workshop.settle()
    assert (await shown(workshop, account))["mode"] == "push"
    for _ in range(4):
        workshop.advance(20 * 3600)
        record = await workshop.record(account)
        reach = await workshop.services.accounts.reading_reach(record)
        await workshop.services.subscriptions.see_to(record, reach)
        (alive,) = workshop.world.notifier.alive()
        assert (alive.expires_at - workshop.world.clock.now()).total_seconds() > 4 * 3600


def test_only_refusals_about_the_end_of_life_are_answered_with_another_end() -> None:
    """The limit in the text and the time in the Date header decide; another 400 stays what it is."""
    from datetime import UTC, datetime, timedelta

    from shared.errors import GraphFailure

    now = datetime(2026, 1, 1, tzinfo=UTC)
    text = "Subscription expiration can only be 1440 minutes in the future."
    refusal = GraphFailure(400, "ExtensionError", text, date="Fri, 20 Nov 2026 12:00:00 GMT")
    assert other_end(refusal, now) == datetime(2026, 11, 20, 12, tzinfo=UTC) + timedelta(minutes=1435)
    assert other_end(GraphFailure(400, "ValidationError", "The property 'resource' is required."), now) is None
    assert other_end(GraphFailure(403, "ExtensionError", text), now) is None


async def test_a_notification_for_an_account_that_is_gone_ends_its_subscription(workshop: Workshop) -> None:
    """Deleted while Graph was out of reach: the next genuine notification is enough."""
    account = await workshop.application(SALES)
    await workshop.settle()
    workshop.world.faults.add({"method": "DELETE"}, {"status": 503}, None)
    await workshop.services.onboarding.delete(account)
    workshop.world.faults.remove()
    assert len(workshop.world.notifier.alive()) == 1
    workshop.deliver(SALES, "Anybody there")
    await workshop.settle()
    assert workshop.world.notifier.alive() == []


async def test_the_sweep_ends_subscriptions_without_an_account_and_no_other(workshop: Workshop) -> None:
    """One of a deleted account, one an account no longer names; the one in force and a stranger's stay."""
    account = await workshop.application(SALES)
    gone = await workshop.application(BOB)
    await workshop.settle()
    workshop.world.faults.add({"method": "DELETE"}, {"status": 503}, None)
    await workshop.services.onboarding.delete(gone)
    workshop.world.faults.remove()
    assert len(workshop.world.notifier.alive()) == 2
    assert await workshop.services.orphans.sweep() == 1
    (alive,) = workshop.world.notifier.alive()
    assert alive.id == (await workshop.record(account))["subscription"]["id"]
    assert await workshop.services.orphans.sweep() == 0


async def test_lifecycle_news_may_come_twice_and_in_any_order(workshop: Workshop) -> None:
    """Removed, missed, needs authorization, again and late: one living subscription, and mail is heard of."""
    account = await workshop.own()
    await workshop.settle()
    first = (await workshop.record(account))["subscription"]["id"]
    await workshop.world.notifier.lifecycle(first, "reauthorizationRequired")
    await workshop.world.notifier.lifecycle(first, "subscriptionRemoved")
    await workshop.settle()
    for event in ("missed", "reauthorizationRequired", "subscriptionRemoved", "somethingNew") * 2:
        await workshop.services.subscriptions.lifecycle(account, first, event)
    await workshop.settle()
    (alive,) = workshop.world.notifier.alive()
    record = await workshop.record(account)
    assert alive.id == record["subscription"]["id"] != first
    assert record["notifications"]["mode"] == "push"
    mail = workshop.deliver(ANN, "Heard")
    await workshop.settle()
    assert (await told(workshop, account))[("messageNew", mail, "")] == 1


# -- readers -----------------------------------------------------------------------------------------------------------


async def with_reader(shop: Workshop) -> str:
    """The id of an application that reads the shared mailboxes of the people's app."""
    reader = await shop._app(APPLICATION)
    people = await shop._app(DELEGATED)
    await shop.services.apps.update(people, {"readerApp": reader})
    return reader


async def test_a_reader_app_gives_a_shared_mailbox_push_while_mail_is_sent_by_the_person(workshop: Workshop) -> None:
    """Subscription and events by the application; the mail still goes with Ann's rights."""
    reader = await with_reader(workshop)
    holder = await workshop.own()
    account = await workshop.delegated(SUPPORT, holder)
    await workshop.settle()
    now = await shown(workshop, account)
    assert (now["mode"], now["reader"]) == ("push", reader)
    mail = workshop.deliver(SUPPORT, "Pushed")
    await workshop.settle()
    assert await told(workshop, account) == {("messageNew", mail, ""): 1}
    record = await workshop.record(account)
    assert not (await workshop.services.accounts.reach(record)).is_application
    await workshop.services.submit.accept(account, {"to": [{"address": BOB}], "subject": "Out", "text": "x"})
    await workshop.run_due()
    (sent,) = workshop.world.mail.dump(SUPPORT, "sentitems")
    assert sent["subject"] == "Out"
    (posted,) = workshop.requests("POST", "/sendMail")
    assert posted


async def test_a_reader_that_is_refused_leaves_the_mailbox_to_the_person_and_says_what_to_do(
    workshop: Workshop,
) -> None:
    """403 by the administrator's scope: polling with Ann's token, the command in the reason, events go on; an hour
    after the scope was widened it is push."""
    await with_reader(workshop)
    application = workshop.world.directory.applications[APPLICATION["clientId"]]
    application.mailbox_allow_list = set()
    holder = await workshop.own()
    account = await workshop.delegated(SUPPORT, holder)
    now = await shown(workshop, account)
    assert now["mode"] == "poll"
    assert "Test-ServicePrincipalAuthorization" in now["reason"]
    assert "reader" not in now
    assert (await workshop.record(account))["state"] == "connected"
    mail = workshop.deliver(SUPPORT, "Polled")
    await workshop.run_for(120)
    assert await told(workshop, account) == {("messageNew", mail, ""): 1}
    application.mailbox_allow_list = None
    await quiet_turns(workshop, 4200)
    assert (await shown(workshop, account))["mode"] == "push"
    application.mailbox_allow_list = set()
    workshop.deliver(SUPPORT, "Again the person")
    await workshop.settle()
    await quiet_turns(workshop, 300, 60)
    assert (await shown(workshop, account))["mode"] == "poll"
    assert len(await workshop.events(account, "messageNew")) == 2


# -- the endpoint ------------------------------------------------------------------------------------------------------


def test_a_thousand_entries_are_packed_once_and_verified_by_one_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof is computed once for each key and not for each entry; repeats are written once."""
    from shared import notifications

    key, made = b"k" * 32, []
    state = notifications.client_state("a", key)
    real: Callable[..., str] = notifications.client_state
    monkeypatch.setattr(notifications, "client_state", lambda *a: made.append(a) or real(*a))
    entries = [{"clientState": state, "changeType": "updated", "resourceData": {"id": f"{n % 500:0150}"}}
               for n in range(1000)]  # fmt: skip
    reply = receive({"account": "a"}, json.dumps({"value": entries}).encode(), [key], lifecycle=False)
    assert reply.status == 202
    assert len(made) == 1
    items = [item for text in reply.messages for item in notifications.parse(text)["items"]]
    assert len(items) == len({item[1] for item in items}) == 500


async def test_many_hints_about_one_message_cost_one_fetch(workshop: Workshop) -> None:
    """Created, updated and updated again in one batch."""
    account = await workshop.own()
    await workshop.settle()
    mail = workshop.deliver(ANN, "Once")
    workshop.world.notifier._pending.clear()
    before = len(workshop.requests("GET", f"/messages/{mail}"))
    hints = [["created", mail, "s"], ["updated", mail, "s"], ["updated", mail, "t"]]
    await workshop.services.changes.hinted(account, hints)
    assert len(workshop.requests("GET", f"/messages/{mail}")) == before + 1
    assert await told(workshop, account) == {("messageNew", mail, ""): 1}


@pytest.mark.parametrize("at", ["emit", "keep"])
async def test_a_worker_that_dies_while_it_tells_is_followed_by_one_that_tells_the_same(
    workshop: Workshop, at: str
) -> None:
    """Claimed and not told, or told and not settled; meanwhile the message was read: new and update, each once."""
    account = await workshop.own()
    await workshop.settle()
    changes = workshop.services.changes
    target, name = (changes._events, "emit") if at == "emit" else (changes._markers, "keep")
    real, calls = getattr(target, name), []

    async def dies(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) == (1 if at == "emit" else 2):
            raise KeyboardInterrupt
        return await real(*given, **named)

    mail = workshop.deliver(ANN, "Told once")
    workshop.world.notifier._pending.clear()
    setattr(target, name, dies)
    with pytest.raises(KeyboardInterrupt):
        await changes.hinted(account, [["created", mail, "s"]])
    setattr(target, name, real)
    workshop.mark(ANN, mail, isRead=True)
    workshop.world.notifier._pending.clear()
    await changes.hinted(account, [["created", mail, "s"]])
    assert await told(workshop, account) == {("messageNew", mail, ""): 1, ("messageUpdated", mail, "\\Seen"): 1}


@pytest.mark.parametrize("moved", [False, True], ids=["stays", "moved"])
async def test_a_mail_told_by_a_poll_that_died_and_gone_before_the_next_is_told_as_deleted(
    workshop: Workshop, moved: bool
) -> None:
    """The cursor did not move on, so delta never speaks of the mail again; what was told of it is asked for."""
    account = await workshop.delegated(SUPPORT, await workshop.own())
    await workshop.run_for(60)
    polling, mail = workshop.services.polling, workshop.deliver(SUPPORT, "Brief")
    record, real = await workshop.record(account), workshop.services.changes.entry

    async def tells_and_dies(*given: Any, **named: Any) -> Any:
        if moved:
            workshop.move(SUPPORT, mail, "junkemail")
        await real(*given, **named)
        raise KeyboardInterrupt

    workshop.services.changes.entry = tells_and_dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        await polling.poll(record, await workshop.services.accounts.reach(record))
    workshop.services.changes.entry = real  # type: ignore[method-assign]
    assert await told(workshop, account) == {("messageNew", mail, ""): 1}
    workshop.remove(SUPPORT, mail)
    await workshop.run_for(600)
    assert await told(workshop, account) == {("messageNew", mail, ""): 1, ("messageDeleted", mail, ""): 1}
    rows = await workshop.services.tables["cursors"].partition(account)
    assert rows
    assert not any(row.value.get("open") for row in rows)


async def test_a_mail_told_beside_a_first_walk_and_gone_before_its_end_is_told_as_deleted(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long walk does not hold up what arrives; what came and went during it, the walk never names."""
    monkeypatch.setattr("shared.polling.ROUND_FOR", timedelta(0))  # one page a round
    for number in range(500):
        workshop.deliver(SUPPORT, f"Old {number}")
    workshop.advance(5)  # Graph keeps whole seconds: what came in the second of the account's start counts as new
    account = await workshop.delegated(SUPPORT, await workshop.own())
    await workshop.run_for(16, 5)
    assert not await workshop.services.polling.has_walked(account)
    mail = workshop.deliver(SUPPORT, "Brief")
    while not await told(workshop, account):
        assert not await workshop.services.polling.has_walked(account)
        await workshop.run_for(16, 5)
    workshop.remove(SUPPORT, mail)
    await workshop.run_for(900)
    assert await workshop.services.polling.has_walked(account)
    assert await told(workshop, account) == {("messageNew", mail, ""): 1, ("messageDeleted", mail, ""): 1}


async def test_an_account_whose_recurring_job_is_gone_gets_a_new_one(workshop: Workshop) -> None:
    """The row was deleted by hand, or damaged and removed: the hourly sweep notices, and mail is heard of again."""
    account = await workshop.delegated(SUPPORT, await workshop.own())
    before = (await workshop.record(account))["turns"]["chain"]
    table = workshop.services.tables["schedule"]
    for row in await table.partition("due"):
        if row.value["job"].get("chain") == before:
            await table.delete(row.partition, row.key)
    workshop.queues.waiting.clear()
    assert await workshop.services.sync.take_up() == 1
    assert (await workshop.record(account))["turns"]["chain"] != before
    assert await workshop.services.sync.take_up() == 0
    message = workshop.deliver(SUPPORT)
    await workshop.run_for(60)
    assert [one["data"]["id"] for one in await workshop.events(account, "messageNew")] == [message]
