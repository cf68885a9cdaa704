"""Events under lasting trouble: folders and messages that Graph refuses, addresses and apps that change."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from shared import notifications
from shared.errors import GraphFailure
from tests.support.desk import APPLICATION, DELEGATED
from tests.support.workshop import ANN, SUPPORT, Workshop

BOB, SALES = "bob@contoso.example", "sales@contoso.example"
Json = dict[str, Any]


async def told(shop: Workshop, account: str) -> dict[tuple[str, str, str], int]:
    """Everything that was told of messages."""
    return dict(await shop.happenings(account))


async def watch(shop: Workshop, account: str) -> Json:
    """The counters of what was missed."""
    return dict((await shop.record(account)).get("watch") or {})


def refuse_folder(shop: Workshop, folder_id: str, status: int) -> None:
    """Graph answers so to every delta of this folder from now on, by link or not."""
    path = f"/mailFolders(/|\\('){folder_id}('\\))?/messages/delta"
    shop.world.faults.add({"path_regex": path}, {"status": status}, None)


# -- folders that Graph refuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "status"), [("push", 403), ("poll", 400), ("poll", 500)])
async def test_a_folder_that_graph_refuses_holds_up_no_other_and_is_told_when_it_opens(
    workshop: Workshop, way: str, status: int
) -> None:
    """Mail of the other folders is told, the refused one is asked ever more rarely, the account neither fails nor is
    connected again and again; what was changed in the folder is told within the hour after it opens."""
    holder = await workshop.own()
    address = ANN if way == "push" else SUPPORT
    account = holder if way == "push" else await workshop.delegated(SUPPORT, holder)
    box = workshop.mailbox(address)
    bad, good = (box.make_folder(name, box.root) for name in ("Bad", "Good"))
    await workshop.settle()
    await workshop.run_for(120)
    refuse_folder(workshop, bad.id, status)
    workshop.lose = lambda: True
    before = len(workshop.requests("GET", f"/(me|users/{address})$"))
    hidden = workshop.deliver(address, "Hidden", folder=bad.id)
    shown = [workshop.deliver(address, "Shown"), workshop.deliver(address, "Also", folder=good.id)]
    await workshop.settle()
    await workshop.run_for(3700, 300)
    assert {message for _, message, _ in await told(workshop, account)} >= set(shown)
    more = [workshop.deliver(address, "More", folder=good.id)]
    await workshop.settle()
    await workshop.run_for(2 * 3600, 600)
    assert {message for _, message, _ in await told(workshop, account)} >= {*shown, *more}
    asked = len(workshop.requests("GET", f"/mailFolders/{bad.id}/messages/delta"))
    await workshop.run_for(2 * 3600, 600)
    assert 1 <= len(workshop.requests("GET", f"/mailFolders/{bad.id}/messages/delta")) - asked <= 2 * 3
    assert len(workshop.requests("GET", f"/(me|users/{address})$")) == before
    assert (await workshop.record(account))["audited"]
    workshop.world.faults.remove()
    workshop.mark(address, hidden, isRead=True)
    await workshop.settle()
    await workshop.run_for(3700, 300)
    events = await told(workshop, account)
    assert any(message == hidden and "Seen" in flags for _, message, flags in events)
    assert max(events.values()) == 1


async def test_more_refused_folders_than_a_round_has_pages_let_every_round_end(workshop: Workshop) -> None:
    """Folders that Graph shows and does not open: mail of the inbox goes on being told, by turns that end."""
    account = await workshop.delegated(SUPPORT, await workshop.own())
    box = workshop.mailbox(SUPPORT)
    for number in range(25):
        refuse_folder(workshop, box.make_folder(f"Closed {number}", box.root).id, 403)
    await workshop.run_for(120, 60)
    mail = workshop.deliver(SUPPORT, "Heard")
    await workshop.run_for(120, 60)
    assert await told(workshop, account) == {("messageNew", mail, ""): 1}
    calls = len(workshop.requests("GET", "/messages/delta"))
    await workshop.run_for(3600, 600)
    calls = len(workshop.requests("GET", "/messages/delta")) - calls
    assert calls <= 40 * 3 + 25 * 6  # turns over inbox and one folder more, and each refused one some times
    assert await watch(workshop, account) == {}


async def test_a_mailbox_whose_audit_is_refused_is_asked_ever_more_rarely_and_goes_on(workshop: Workshop) -> None:
    """The search for received mail alone is refused for good: turns go on, and connecting anew does not spin."""
    account = await workshop.delegated(SUPPORT, await workshop.own())
    await workshop.run_for(60)
    profile = f"/users/{SUPPORT}$"
    workshop.world.faults.add({"method": "GET", "path_regex": f"/users/{SUPPORT}/messages$"}, {"status": 403}, None)
    before = len(workshop.requests("GET", profile))
    mail = workshop.deliver(SUPPORT, "Told all the same")
    await workshop.run_for(2 * 3600, 600)
    assert await told(workshop, account) == {("messageNew", mail, ""): 1}
    assert len(workshop.requests("GET", profile)) - before <= 7


# -- subscriptions -------------------------------------------------------------------------------------------------


async def push(shop: Workshop, address: str = "") -> str:
    """An account whose push is proven: Ann's own, or an application's where an address is given."""
    account = await (shop.application(address) if address else shop.own())
    await shop.settle()
    await shop.run_for(60)
    await shop.settle()
    assert (await shop.record(account))["notifications"]["mode"] == "push"
    return account


@pytest.mark.parametrize("ends", ["created", "failed"])
async def test_a_worker_that_stalled_beyond_its_lease_leaves_what_another_made(workshop: Workshop, ends: str) -> None:
    """Its own subscription comes minutes late, or not at all: the record keeps the one of the other worker, alive."""
    account = await push(workshop)
    current = (await workshop.record(account))["subscription"]["id"]
    workshop.world.notifier.remove(current)
    await workshop.services.subscriptions.forget(account, current)
    other, slow = workshop.build(), workshop.services.subscriptions
    real = slow._lasting

    async def stalls(ask: Any) -> Any:
        answer = await real(ask)
        workshop.advance(300)
        await other.sync.subscribe(account)
        if ends == "failed":
            raise GraphFailure(504, "GatewayTimeout", "too late")
        return answer

    slow._lasting = stalls  # type: ignore[method-assign]
    await workshop.services.sync.subscribe(account)
    slow._lasting = real  # type: ignore[method-assign]
    await other.close()
    (alive,) = workshop.world.notifier.alive()
    subscription = (await workshop.record(account))["subscription"]
    assert (subscription["id"], subscription["state"]["state"]) == (alive.id, "created")


@pytest.mark.parametrize("changed", ["address", "client", "reader"])
async def test_a_changed_address_or_app_reaches_the_subscriptions_there_are(workshop: Workshop, changed: str) -> None:
    """Within the hour one subscription with the new address, or of the new app, is proven; mail is told once."""
    second = register(workshop, "33333333-3333-4444-5555-666666666666")
    shop, apps = workshop, workshop.services.apps
    if changed == "reader":
        people = await shop._app(DELEGATED)
        await apps.update(people, {"readerApp": await shop._app(APPLICATION)})
        account, address = await shop.delegated(SUPPORT, await shop.own()), SUPPORT
        await shop.settle()
        await apps.update(people, {"readerApp": await apps.create({"name": "second", **second})})
    else:
        account, address = await push(shop, SALES), SALES
    before = await shop.record(account)
    if changed == "address":
        base = (await shop.services.service_settings.notification_base()).replace("127.0.0.1", "localhost")
        await shop.services.service_settings.write({"notificationBaseUrl": base})
    if changed == "client":
        await apps.update(await shop._app(APPLICATION), {"clientId": second["clientId"]})
    await shop.run_for(3700, 300)
    await shop.settle()
    record = await shop.record(account)
    assert record["subscription"]["id"] != before["subscription"]["id"]
    assert record["notifications"]["mode"] == "push"
    made = shop.world.notifier.find(record["subscription"]["id"])
    if changed == "address":
        assert made.notification_url.startswith(base)
        assert shop.world.notifier.find(before["subscription"]["id"]) is None
    else:
        assert made.application_id == second["clientId"]
    mail = shop.deliver(address, "Heard at the new place")
    await shop.settle()
    assert await told(shop, account) == {("messageNew", mail, ""): 1}
    settled = (await shop.record(account))["subscription"]["id"]
    await shop.run_for(3700, 300)
    assert (await shop.record(account))["subscription"]["id"] == settled


@pytest.mark.parametrize("follows", ["refused", "silent"])
async def test_turns_of_push_wake_when_its_subscription_was_lost(workshop: Workshop, follows: str) -> None:
    """A renewal finds it gone, and the next one is refused, or made and silent: mail is told within minutes, also when
    the looks that follow each attempt are over."""
    account = await push(workshop)
    await workshop.run_for(600, 300)
    current = (await workshop.record(account))["subscription"]["id"]
    workshop.world.notifier.remove(current)
    workshop.world.switches.notification_loss = 1
    if follows == "refused":
        workshop.world.faults.add({"method": "POST", "path_regex": "/subscriptions$"}, {"status": 403}, None)
    await workshop.services.subscriptions.lifecycle(account, current, "reauthorizationRequired")
    await workshop.run_for(1000, 300)
    mail = workshop.deliver(ANN, "Polled")
    await workshop.run_for(240, 300)
    assert (await workshop.record(account))["notifications"]["mode"] == "poll"
    assert await told(workshop, account) == {("messageNew", mail, ""): 1}


def register(shop: Workshop, client_id: str) -> Json:
    """Another application like the usual one: what an OAuth2 app over it holds."""
    directory = shop.world.directory
    usual = directory.applications[APPLICATION["clientId"]]
    directory.applications[client_id] = replace(usual, client_id=client_id, display_name="Another")
    return APPLICATION | {"clientId": client_id}


# -- notifications of other subscriptions --------------------------------------------------------------------------


async def test_a_late_notification_of_the_mailbox_before_is_no_event(workshop: Workshop) -> None:
    """The account was led from one mailbox to another; what Graph still says of the first is not taken for news."""
    account = await push(workshop, SALES)
    before = (await workshop.record(account))["subscription"]["id"]
    provider = (await workshop.record(account))["oauth2"]["provider"]
    await workshop.services.onboarding.update(account, {"oauth2": {"provider": provider, "auth": {"user": BOB}}})
    await workshop.run_for(60)
    await workshop.settle()
    late = workshop.deliver(SALES, "Of the old mailbox")
    for kind in ("created", "updated"):
        content = {"account": account, "kind": "changes", "items": [[kind, late, before]]}
        await workshop.queues.put_text("notifications", notifications.TAG + json.dumps(content))
    await workshop.run_for(600, 300)
    assert await told(workshop, account) == {}
    mail = workshop.deliver(BOB, "Of the new mailbox")
    await workshop.settle()
    assert await told(workshop, account) == {("messageNew", mail, ""): 1}


async def test_a_notification_that_comes_before_its_subscription_is_stored_is_told(workshop: Workshop) -> None:
    """Graph speaks while the worker that made the subscription still waits for storage: told seconds later."""
    keep, early = workshop.services.subscriptions._keep, []

    async def slow(account: str, *given: Any) -> Any:
        if not early:
            early.append(workshop.deliver(ANN, "Early"))
            for _ in range(3):
                await asyncio.sleep(0.02)
                for name, job in workshop.queues.take_due():
                    if name == "notifications":
                        await workshop.run(name, job)
            assert await told(workshop, account) == {}
        return await keep(account, *given)

    workshop.services.subscriptions._keep = slow  # type: ignore[method-assign]
    account = await workshop.own()
    workshop.services.sync.turn = _nothing  # type: ignore[method-assign]
    workshop.services.sync.catch_up = _nothing  # type: ignore[method-assign]
    await workshop.settle()
    await workshop.run_for(10)
    assert await told(workshop, account) == {("messageNew", early[0], ""): 1}


async def _nothing(*_: Any, **__: Any) -> None:
    """Delta finds nothing here."""


# -- messages that are never given ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "status"), [("message", 403), ("message", 500), ("attachments", 400), ("attachments", 403)]
)
async def test_a_new_message_that_is_never_given_is_counted_once_and_told_when_it_is(
    workshop: Workshop, part: str, status: int
) -> None:
    """The message itself or its attachments are refused for days: others are told, `gaps` is 1; a look at it that
    succeeds in the end tells it once."""
    account = await push(workshop)
    files = [{"name": "a.txt", "contentBytes": "YQ=="}]
    bad = workshop.deliver(ANN, "Bad", attachments=files)
    path = f"/messages/{bad}" + ("/attachments" if part == "attachments" else "$")
    workshop.world.faults.add({"method": "GET", "path_regex": path}, {"status": status}, None)
    good = workshop.deliver(ANN, "Good")
    await workshop.settle()
    await workshop.run_for(2 * 86_400, 7200)
    assert await told(workshop, account) == {("messageNew", good, ""): 1}
    assert (await watch(workshop, account))["gaps"] == 1
    workshop.world.faults.remove()
    workshop.mark(ANN, bad, isRead=True)
    await workshop.settle()
    assert [one["data"]["id"] for one in await workshop.events(account, "messageNew")] == [good, bad]
    assert (await watch(workshop, account))["gaps"] == 1


async def test_a_message_put_off_outlasts_an_outage_and_a_lost_sign_in(workshop: Workshop) -> None:
    """Its attachments fail, then Graph is away for a day: it is told afterwards though delta has passed it."""
    account = await push(workshop)
    mail = workshop.deliver(ANN, "Late", attachments=[{"name": "a.txt", "contentBytes": "YQ=="}])
    workshop.world.faults.add({"method": "GET", "path_regex": f"/messages/{mail}/attachments"}, {"status": 500}, 3)
    await workshop.settle()
    await workshop.services.sync.catch_up(account)
    workshop.world.faults.add({}, {"status": 503}, None)
    await workshop.run_for(86_400, 7200)
    workshop.world.faults.remove()
    await workshop.run_for(3 * 3600, 600)
    assert await told(workshop, account) == {("messageNew", mail, ""): 1}
    assert await watch(workshop, account) == {}


async def test_a_message_deleted_while_it_is_looked_at_is_no_gap(workshop: Workshop) -> None:
    """Given, and gone before its attachments were asked for: told as deleted."""
    account = await push(workshop)
    mail = workshop.deliver(ANN, "Brief", attachments=[{"name": "a.txt", "contentBytes": "YQ=="}])
    real = workshop.services.changes._texts.new

    async def late(*given: Any) -> Any:
        if not workshop.mailbox(ANN).was_purged(mail):
            workshop.lose = lambda: True
            workshop.remove(ANN, mail)
        return await real(*given)

    workshop.services.changes._texts.new = late  # type: ignore[method-assign]
    await workshop.settle()
    await workshop.run_for(120)
    assert await told(workshop, account) == {("messageDeleted", mail, ""): 1}
    assert await watch(workshop, account) == {}


# -- states --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recovers", [False, True])
async def test_a_state_whose_teller_died_is_told_once_by_the_next_one(workshop: Workshop, recovers: bool) -> None:
    """The record says connectError and no event was stored: the sweep tells it, or whoever connects the account, and
    before it says that it is well again."""
    account = await push(workshop)
    access = workshop.services.access
    emit = access._events.emit

    async def dies(*_: Any, **__: Any) -> bool:
        raise KeyboardInterrupt

    access._events.emit = dies  # type: ignore[method-assign]
    workshop.world.faults.add({}, {"status": 503}, None)
    with pytest.raises(KeyboardInterrupt):
        await access.initialise(account, force=True)
    access._events.emit = emit  # type: ignore[method-assign]
    assert (await workshop.record(account))["state"] == "connectError"
    if recovers:
        workshop.world.faults.remove()
        await access.initialise(account)
    await workshop.timers()
    await workshop.run_due()
    await workshop.timers()
    await workshop.run_due()
    events = await workshop.events(account, "connectError", "authenticationSuccess")
    expected = ["authenticationSuccess", "connectError", *(["authenticationSuccess"] if recovers else [])]
    assert [one["event"] for one in events] == expected
    assert "untold" not in await workshop.record(account)


# -- canaries ------------------------------------------------------------------------------------------------------


async def test_a_shared_mailbox_that_closes_while_it_is_read_tells_no_deletion(workshop: Workshop) -> None:
    """Full Access is taken away in the middle of a page: every message answers 404 from then on. What was there
    stays there; when it is open again, what really happened is told."""
    directory = workshop.world.directory
    account = await workshop.delegated(SUPPORT, await workshop.own())
    mails = [workshop.deliver(SUPPORT, f"Mail {number}") for number in range(3)]
    await workshop.run_for(120)
    for mail in mails:
        workshop.mark(SUPPORT, mail, isRead=True)
    changes = workshop.services.changes
    real = changes.entry

    async def closes(*given: Any, **named: Any) -> Any:
        directory.revoke(ANN, SUPPORT, "full_access")
        return await real(*given, **named)

    changes.entry = closes  # type: ignore[method-assign]
    await workshop.run_for(30)
    changes.entry = real  # type: ignore[method-assign]
    await workshop.run_for(7200, 300)
    assert await workshop.events(account, "messageDeleted") == []
    directory.grant(ANN, SUPPORT, "full_access")
    workshop.remove(SUPPORT, mails[0])
    await workshop.timers()
    await workshop.run_for(7200, 300)
    gone = await workshop.events(account, "messageDeleted")
    assert [one["data"]["id"] for one in gone] == [mails[0]]
    read = await workshop.events(account, "messageUpdated")
    assert {one["data"]["id"] for one in read} >= set(mails[1:])


async def test_two_jobs_at_once_make_one_canary(workshop: Workshop) -> None:
    """Both found a subscription without proof and without a canary: one draft is made."""
    workshop.world.switches.notification_loss = 1
    account = await workshop.own()
    await workshop.run_for(4000, 300)  # until the next canary is due
    record = await workshop.record(account)
    await workshop.services.accounts.change(account, lambda r: {k: v for k, v in r.items() if k != "canary"})
    bare = {name: value for name, value in record.items() if name != "canary"}
    reach = await workshop.services.accounts.reading_reach(record)
    before, other = len(workshop.requests("POST", "/messages$")), workshop.build()
    await asyncio.gather(*(one.proof.seek(bare, reach) for one in (workshop.services, other)))
    await other.close()
    assert len(workshop.requests("POST", "/messages$")) == before + 1
