"""Events about mail: by push and by polling, each of them exactly once."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from shared.notifications import client_state
from shared.polling import Found
from tests.support.application import Application, call
from tests.support.desk import Desk, Json, eventually
from tests.support.receiver import Received, Receiver
from tests.support.tenant import Tenant
from tests.support.workshop import ANN, SUPPORT, Workshop

CARL = {"name": "Carl Customer", "address": "carl@customer.example"}
BOB, SALES = "bob@contoso.example", "sales@contoso.example"


class Office(Desk):
    """The accounts of this file, made once: every way to hear of mail."""

    ann: str
    support: str
    by_app: str

    def account_of(self, way: str) -> tuple[str, str]:
        """(account, address) for `own push`, `application push` or `poll`."""
        return {
            "own push": (self.ann, ANN),
            "application push": (self.by_app, SALES),
            "poll": (self.support, SUPPORT),
        }[way]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(app: Application, tenant: Tenant) -> AsyncIterator[Office]:
    """A seeded tenant and one account for each way."""
    await tenant.reset()
    office = Office(app, tenant)
    await office.settings(webhooksEnabled=False)
    office.ann = await office.own()
    office.support = await office.delegated(SUPPORT, office.ann)
    office.by_app = await office.application(SALES)
    yield office
    await office.close()


@pytest.fixture
async def office(opened: Office, receiver: Receiver) -> AsyncIterator[Office]:
    """The accounts, heard by this test's receiver, with plain settings."""
    await opened.hear(
        receiver.url, notifyText=None, notifyTextSize=None, notifyHeaders=None, inboxNewOnly=None
    )
    yield opened
    await opened.settings(webhooksEnabled=False)
    await opened.tenant.switches(notification_repeat=1, notification_shuffle=False, notification_loss=0)


WAYS = pytest.mark.parametrize("way", ["own push", "application push", "poll"])


def news(subject: str) -> Any:
    """A predicate: the messageNew with this subject."""
    return lambda heard: heard.json["event"] == "messageNew" and heard.json["data"].get("subject") == subject


def said(receiver: Receiver, event: str, message_id: str) -> list[Received]:
    """What the receiver has heard of a message under one event name."""
    return [one for one in receiver.requests if one.json["event"] == event and one.json["data"].get("id") == message_id]


async def graph(
    office: Office, address: str, message_id: str, method: str, tail: str = "", body: Json | None = None
) -> None:
    """Somebody else changes a message over Graph."""
    token = (await office.tenant.token())["access_token"]
    headers = {"Authorization": f"Bearer {token}", "Prefer": 'IdType="ImmutableId"'}
    headers |= {} if body else {"Content-Length": "0"}
    url = f"{office.tenant.url}/v1.0/users/{address}/messages/{message_id}{tail}"
    answer = await call(method, url, json=body, headers=headers)
    assert answer.status < 300, answer.body


# -- messageNew ----------------------------------------------------------------------------------------------------


@WAYS
async def test_new_mail_is_told_with_the_fields_of_the_contract(office: Office, receiver: Receiver, way: str) -> None:
    """Envelope, addresses, ids, sizes, flags, folder and preview, whichever way it was heard of."""
    account, address = office.account_of(way)
    (placed,) = await office.tenant.deliver(
        CARL, [address], f"Order {way}", html="<p>Grüße</p>", cc=[{"name": "Bob", "address": "bob@other.example"}]
    )
    heard = (await receiver.wait_for(news(f"Order {way}"), 90)).json
    assert set(heard) == {"serviceUrl", "account", "date", "path", "event", "data"}
    assert (heard["serviceUrl"], heard["account"], heard["path"]) == (office.app.url, account, "Inbox")
    data = heard["data"]
    (mail,) = [one for one in await office.tenant.messages(address, "inbox") if one["id"] == placed["id"]]
    assert data["id"] == data["emailId"] == placed["id"]
    assert data["threadId"] == mail["conversationId"]
    assert data["messageId"] == placed["internetMessageId"]
    assert data["from"] == {"name": "Carl Customer", "address": "carl@customer.example"}
    assert [one["address"] for one in data["to"]] == [address]
    assert data["cc"] == [{"name": "Bob", "address": "bob@other.example"}]
    assert (data["flags"], data["unseen"]) == ([], True)
    assert not {"flagged", "draft", "bcc", "labels", "headers", "attachments", "path"} & set(data)
    assert data["text"] == {"id": placed["id"], "encodedSize": {"html": len("<p>Grüße</p>".encode())}}
    assert data["preview"] == "Grüße"
    assert data["messageSpecialUse"] == "\\Inbox"
    assert data["seemsLikeNew"] is True
    assert datetime.fromisoformat(data["date"]) == datetime.fromisoformat(mail["receivedDateTime"])


@WAYS
async def test_attachments_are_listed_without_their_content(office: Office, receiver: Receiver, way: str) -> None:
    """Name, type, size, inline and content id of each; the bytes stay in the mailbox."""
    _, address = office.account_of(way)
    files = [
        {"name": "größe.pdf", "content_type": "application/pdf", "content_base64": base64.b64encode(b"%PDF").decode()},
        {"name": "logo.png", "content_type": "image/png", "content_base64": "AAAA", "is_inline": True,
         "content_id": "logo@x"},
    ]  # fmt: skip
    await office.tenant.deliver(CARL, [address], f"Files {way}", html='<img src="cid:logo@x">', attachments=files)
    data = (await receiver.wait_for(news(f"Files {way}"), 90)).json["data"]
    first, second = data["attachments"]
    assert (first["filename"], first["contentType"], first["inline"]) == ("größe.pdf", "application/pdf", False)
    assert (second["filename"], second["contentId"], second["inline"]) == ("logo.png", "<logo@x>", True)
    assert first["id"] != second["id"]
    assert not {"content", "contentBytes"} & (set(first) | set(second))


async def test_text_and_headers_come_when_the_settings_ask_for_them(office: Office, receiver: Receiver) -> None:
    """notifyText with its size limit in bytes between characters, and the headers named, in lower case."""
    await office.settings(notifyText=True, notifyTextSize=7, notifyHeaders=["X-Order", "received"])
    await office.tenant.deliver(
        CARL, [ANN], "With text", html="äöü€ and more", headers={"X-Order": "17", "X-Other": "1"}
    )
    data = (await receiver.wait_for(news("With text"), 90)).json["data"]
    assert data["text"]["html"] == "äöü"  # the euro sign takes bytes 7 to 9
    assert data["text"]["hasMore"] is True
    assert data["text"]["encodedSize"] == {"html": len("äöü€ and more".encode())}
    assert set(data["headers"]) == {"x-order", "received"}
    assert data["headers"]["x-order"] == ["17"]
    await office.settings(notifyTextSize=None, notifyHeaders=["*"])
    await office.tenant.deliver(CARL, [ANN], "All of it", html="<p>short</p>", headers={"X-Order": "17"})
    data = (await receiver.wait_for(news("All of it"), 90)).json["data"]
    assert (data["text"]["html"], data["text"]["hasMore"]) == ("<p>short</p>", False)
    assert {"x-order", "received"} <= set(data["headers"])


@WAYS
async def test_only_the_inbox_is_told_when_only_the_inbox_is_wanted(
    office: Office, receiver: Receiver, way: str
) -> None:
    """inboxNewOnly keeps junk quiet; without it the junk folder is told with its path and special use."""
    _, address = office.account_of(way)
    await office.settings(inboxNewOnly=True)
    await office.tenant.deliver(CARL, [address], f"Quiet {way}", folder="junkemail")
    await office.tenant.deliver(CARL, [address], f"Loud {way}")
    await receiver.wait_for(news(f"Loud {way}"), 90)
    if way == "poll":
        counters = office.account(office.support)
        before = (await counters)["counters"]["events"].get("messageNew", 0)
        await eventually(lambda: _count_is(office, before), "the junk mail is counted", 90)
    assert not any(news(f"Quiet {way}")(one) for one in receiver.requests)
    await office.settings(inboxNewOnly=False)
    await office.tenant.deliver(CARL, [address], f"Junk {way}", folder="junkemail")
    heard = (await receiver.wait_for(news(f"Junk {way}"), 90)).json
    assert (heard["path"], heard["data"]["messageSpecialUse"]) == ("Junk Email", "\\Junk")


async def _count_is(office: Office, at_least: int) -> bool:
    return (await office.account(office.support))["counters"]["events"].get("messageNew", 0) >= at_least


async def test_events_that_are_not_wanted_are_not_sent(office: Office, receiver: Receiver) -> None:
    """webhookEvents is the list of what goes out: here the update, and not the arrival before it."""
    await office.settings(webhookEvents=["messageUpdated"])
    (placed,) = await office.tenant.deliver(CARL, [ANN], "Unwanted")
    path = re.escape(f"/messages/{placed['id']}")

    async def seen() -> bool:
        return bool(await office.tenant.log(surface="graph", method="GET", path=path))

    await eventually(seen, "the arrival is looked at")
    await graph(office, ANN, placed["id"], "PATCH", body={"isRead": True})
    await receiver.wait_for(
        lambda one: one.json["event"] == "messageUpdated" and one.json["data"]["id"] == placed["id"], 30
    )
    assert said(receiver, "messageNew", placed["id"]) == []


async def test_a_mailbox_in_german_shows_its_own_folder_names_and_the_usual_special_use(
    app: Application, tenant: Tenant, receiver: Receiver, office: Office
) -> None:
    """The path is `Posteingang`; inboxNewOnly still knows the inbox."""
    await tenant.add_principal(
        "hilfe@contoso.example", "shared", mail="hilfe@contoso.example", display_name="Hilfe",
        preferred_language="de-DE",
    )  # fmt: skip
    await tenant.grant(ANN, "hilfe@contoso.example", "full_access")
    account = await office.delegated("hilfe@contoso.example", office.ann)
    await office.settings(inboxNewOnly=True)
    await tenant.deliver(CARL, ["hilfe@contoso.example"], "Frage")
    heard = (await receiver.wait_for(news("Frage"), 90)).json
    assert (heard["account"], heard["path"]) == (account, "Posteingang")
    assert heard["data"]["messageSpecialUse"] == "\\Inbox"


@WAYS
async def test_every_event_is_told_exactly_once_though_notifications_repeat_and_mix(
    office: Office, receiver: Receiver, way: str
) -> None:
    """Each notification comes three times and shuffled; five mails make five messageNew and nothing more."""
    await office.tenant.switches(notification_repeat=3, notification_shuffle=True)
    _, address = office.account_of(way)
    subjects = [f"Mix {way} {number}" for number in range(5)]
    for subject in subjects:
        await office.tenant.deliver(CARL, [address], subject)
    for subject in subjects:
        await receiver.wait_for(news(subject), 90)
    await office.tenant.deliver(CARL, [address], f"Last {way}")
    await receiver.wait_for(news(f"Last {way}"), 90)
    for subject in subjects:
        assert len([one for one in receiver.requests if news(subject)(one)]) == 1


@WAYS
async def test_flags_and_deletion_are_told_once_each(office: Office, receiver: Receiver, way: str) -> None:
    """Read, flagged, unread again, gone: three messageUpdated with the flags of the moment and one messageDeleted."""
    account, address = office.account_of(way)
    (placed,) = await office.tenant.deliver(CARL, [address], f"Flags {way}")
    await receiver.wait_for(news(f"Flags {way}"), 90)
    message_id = placed["id"]

    for change, flags in (
        ({"isRead": True}, ["\\Seen"]),
        ({"flag": {"flagStatus": "flagged"}}, ["\\Seen", "\\Flagged"]),
        ({"isRead": False}, ["\\Flagged"]),
    ):
        await graph(office, address, message_id, "PATCH", body=change)
        heard = await receiver.wait_for(
            lambda one, flags=flags: (
                one.json["event"] == "messageUpdated"
                and one.json["data"]["id"] == message_id
                and one.json["data"]["changes"]["flags"]["value"] == flags
            ),
            30,
        )
        assert (heard.json["account"], heard.json["path"]) == (account, "Inbox")
        assert set(heard.json["data"]) == {"id", "threadId", "changes"}
    await graph(office, address, message_id, "POST", "/permanentDelete")
    heard = await receiver.wait_for(
        lambda one: one.json["event"] == "messageDeleted" and one.json["data"]["id"] == message_id, 30
    )
    where = (heard.json["path"], heard.json["specialUse"], heard.json["data"])
    assert where == ("Inbox", "\\Inbox", {"id": message_id})
    assert len(said(receiver, "messageUpdated", message_id)) == 3
    assert len(said(receiver, "messageDeleted", message_id)) == 1


# -- the account says how it hears -----------------------------------------------------------------------------------


async def test_an_account_says_how_it_hears_of_changes_and_keeps_client_state_to_itself(office: Office) -> None:
    """Mode and reason for each way; the subscription as EmailEngine shows it, without its proof."""
    for way, mode in (("own push", "push"), ("application push", "push"), ("poll", "poll")):
        account, _ = office.account_of(way)
        shown = await eventually(lambda a=account, m=mode: _hears(office, a, m), f"{way} is {mode}", 60)  # type: ignore[misc]
        assert {name: shown["notifications"][name] for name in ("gaps", "late", "resyncs")} == {
            "gaps": 0, "late": 0, "resyncs": 0
        }  # fmt: skip
        assert shown["notifications"]["reason"]
        assert "clientState" not in str(shown)
        if mode == "push":
            subscription = shown["outlookSubscription"]
            assert set(subscription) == {"id", "expirationDateTime", "state"}
            assert subscription["state"]["state"] == "created"
        else:
            assert "outlookSubscription" not in shown


async def _hears(office: Office, account: str, mode: str) -> Json | None:
    shown = await office.account(account)
    return shown if shown["notifications"]["mode"] == mode else None


async def test_a_shared_mailbox_never_gets_a_subscription_with_a_persons_token(office: Office) -> None:
    """What Graph would accept and never serve is not asked for; application access to the same mailbox has one."""
    found = await office.tenant.subscriptions()
    assert {one["mailbox"] for one in found} == {ANN, SALES}
    for one in found:
        assert one["immutableIds"] is True
        assert one["changeType"] == "created,updated,deleted"
        assert one["silent"] is False


async def test_deleting_an_account_ends_its_subscription(office: Office) -> None:
    """Graph has nobody to notify any more."""
    account = await office.application(BOB)
    assert BOB in {one["mailbox"] for one in await office.tenant.subscriptions()}
    await office.ok("DELETE", f"/v1/account/{account}")
    assert BOB not in {one["mailbox"] for one in await office.tenant.subscriptions()}


# -- in process: time and trouble -----------------------------------------------------------------------------------


async def new_ids(shop: Workshop, account: str) -> list[str]:
    """The ids of every messageNew of an account, in order."""
    return [one["data"]["id"] for one in await shop.events(account, "messageNew")]


async def opened_way(shop: Workshop, way: str) -> tuple[str, str]:
    """An account that hears in this way, and its address."""
    if way == "own push":
        return await shop.own(), ANN
    if way == "application push":
        return await shop.application(SALES), SALES
    return await shop.delegated(SUPPORT, await shop.own()), SUPPORT


async def hear(shop: Workshop, way: str) -> None:
    """Lets the account hear of what happened just now."""
    await shop.settle()
    if way == "poll":
        await shop.run_for(61)


@WAYS
async def test_mail_from_before_the_account_is_not_news_and_mail_right_after_is(workshop: Workshop, way: str) -> None:
    """What lay there is passed over; what comes between creation and the first look is told."""
    box = {"own push": ANN, "application push": SALES, "poll": SUPPORT}[way]
    for number in range(120):
        workshop.deliver(box, f"Old {number}")
    await asyncio.sleep(1.1 - workshop.clock().microsecond / 1e6)  # Graph keeps whole seconds
    account, address = await opened_way(workshop, way)
    fresh = workshop.deliver(address, "Fresh")
    await hear(workshop, way)
    await hear(workshop, way)
    assert await new_ids(workshop, account) == [fresh]


async def test_mail_in_a_folder_made_seconds_ago_is_told_with_its_path(workshop: Workshop) -> None:
    """Nested, with slashes and percent signs in the name, both by push and by polling."""
    for way in ("own push", "poll"):
        account, address = await opened_way(workshop, way)
        await hear(workshop, way)
        box = workshop.mailbox(address)
        outer = box.make_folder("50% / half", box.root)
        inner = box.make_folder("Kunden", outer)
        workshop.deliver(address, "Filed", folder=inner.id)
        await hear(workshop, way)
        (event,) = [one for one in await workshop.events(account, "messageNew") if one["data"]["subject"] == "Filed"]
        assert event["path"] == "50%25 %2F half/Kunden"
        assert "messageSpecialUse" not in event["data"]


async def test_a_created_message_that_is_already_gone_does_not_stop_the_others(workshop: Workshop) -> None:
    """It is told as messageMissing, and the mails beside it as new."""
    account, _ = await opened_way(workshop, "own push")
    first = workshop.deliver(ANN, "First")
    gone = workshop.deliver(ANN, "Gone")
    workshop.remove(ANN, gone)
    last = workshop.deliver(ANN, "Last")
    await hear(workshop, "own push")
    assert sorted(await new_ids(workshop, account)) == sorted([first, last])
    assert [one["data"] for one in await workshop.events(account, "messageMissing")] == [{"id": gone}]


async def test_a_copy_of_a_known_mail_does_not_seem_new(workshop: Workshop) -> None:
    """The same Message-ID again is told, but marked as seen before; so is what the mailbox itself sent."""
    account, _ = await opened_way(workshop, "own push")
    workshop.deliver(ANN, "One", message_id="<same@x.example>")
    await hear(workshop, "own push")
    workshop.deliver(ANN, "One", message_id="<same@x.example>")
    await workshop.services.submit.accept(account, {"to": [{"address": BOB}], "subject": "Out", "text": "x"})
    await workshop.run_due()
    await hear(workshop, "own push")
    found = [one["data"] for one in await workshop.events(account, "messageNew")]
    told = [(data["subject"], data["seemsLikeNew"]) for data in found]
    assert sorted(told) == [("One", False), ("One", True), ("Out", False)]
    (sent,) = [one for one in await workshop.events(account, "messageNew") if one["data"]["subject"] == "Out"]
    assert (sent["path"], sent["data"]["messageSpecialUse"]) == ("Sent Items", "\\Sent")


async def test_a_move_is_neither_new_nor_deleted(workshop: Workshop) -> None:
    """Ids are immutable: a mail in another folder is the same mail."""
    for way in ("own push", "poll"):
        account, address = await opened_way(workshop, way)
        mail = workshop.deliver(address, "Moves")
        await hear(workshop, way)
        workshop.move(address, mail, "archive" if "archive" in workshop.mailbox(address).well_known else "junkemail")
        await hear(workshop, way)
        workshop.move(address, mail, "deleteditems")
        await hear(workshop, way)
        assert dict(await workshop.happenings(account)) == {("messageNew", mail, ""): 1}


async def test_lost_notifications_are_made_up_for_after_missed(workshop: Workshop) -> None:
    """Ten mails whose notifications never came are told once each when Graph says that some were lost."""
    account, _ = await opened_way(workshop, "own push")
    workshop.lose = lambda: True
    lost = [workshop.deliver(ANN, f"Lost {number}") for number in range(10)]
    await workshop.settle()
    assert await new_ids(workshop, account) == []
    workshop.lose = lambda: False
    record = await workshop.record(account)
    await workshop.world.notifier.lifecycle(record["subscription"]["id"], "missed")
    await workshop.settle()
    assert sorted(await new_ids(workshop, account)) == sorted(lost)
    await workshop.world.notifier.resend(None)
    await workshop.settle()
    assert sorted(await new_ids(workshop, account)) == sorted(lost)


async def test_a_removed_subscription_is_made_again_and_what_was_missed_is_told(workshop: Workshop) -> None:
    """`subscriptionRemoved` leads to a new subscription and a look at what came meanwhile."""
    account, _ = await opened_way(workshop, "own push")
    old = (await workshop.record(account))["subscription"]["id"]
    workshop.lose = lambda: True
    missed = workshop.deliver(ANN, "Meanwhile")
    await workshop.settle()
    workshop.lose = lambda: False
    await workshop.world.notifier.lifecycle(old, "subscriptionRemoved")
    await workshop.settle()
    new = (await workshop.record(account))["subscription"]["id"]
    assert new != old
    assert [one.id for one in workshop.world.notifier.alive()] == [new]
    after = workshop.deliver(ANN, "After")
    await workshop.settle()
    await workshop.run_for(60)  # the look at what came meanwhile waits until the new subscription is settled
    assert sorted(await new_ids(workshop, account)) == sorted([missed, after])


async def test_a_subscription_that_needs_reauthorization_gets_it_and_is_renewed(workshop: Workshop) -> None:
    """Notifications go on, with the same subscription and a later end."""
    account, _ = await opened_way(workshop, "own push")
    before = (await workshop.record(account))["subscription"]
    workshop.advance(3600)
    await workshop.world.notifier.lifecycle(before["id"], "reauthorizationRequired")
    await workshop.settle()
    after = (await workshop.record(account))["subscription"]
    assert after["id"] == before["id"]
    assert datetime.fromisoformat(after["expirationDateTime"]) > datetime.fromisoformat(
        before["expirationDateTime"]
    ) + timedelta(minutes=50)
    mail = workshop.deliver(ANN, "Still heard")
    await workshop.settle()
    assert mail in await new_ids(workshop, account)


async def test_lifecycle_news_about_foreign_or_unknown_things_change_nothing(workshop: Workshop) -> None:
    """Another subscription's id, or an event nobody knows: the subscription in force stays."""
    account, _ = await opened_way(workshop, "own push")
    before = (await workshop.record(account))["subscription"]
    for subscription_id, event in (("another", "subscriptionRemoved"), (before["id"], "brandNewKind")):
        await workshop.services.subscriptions.lifecycle(account, subscription_id, event)
    await workshop.run_due()
    assert (await workshop.record(account))["subscription"] == before
    assert len(workshop.world.notifier.alive()) == 1


@pytest.mark.parametrize("way", ["own push", "application push"])
async def test_subscriptions_are_renewed_in_their_last_day_and_never_lapse(workshop: Workshop, way: str) -> None:
    """A week passes: one subscription, the same all the time, never with less than 22 hours left."""
    account, address = await opened_way(workshop, way)
    await workshop.settle()
    first = (await workshop.record(account))["subscription"]["id"]
    poll = workshop.services.polling.poll

    async def quiet(*_: Any, **__: Any) -> Found:
        return Found()  # a week of rounds over every folder takes minutes and is not what this is about

    workshop.services.polling.poll = quiet  # type: ignore[method-assign]
    for _ in range(7 * 4):
        await workshop.run_for(6 * 3600, tick_s=1800)
        (alive,) = workshop.world.notifier.alive()
        assert alive.id == first
        assert alive.expires_at - workshop.clock() > timedelta(hours=22)
    workshop.services.polling.poll = poll  # type: ignore[method-assign]
    renewals = workshop.requests("PATCH", "/subscriptions/")
    assert 3 <= len(renewals) <= 5
    mail = workshop.deliver(address, "A week later")
    await workshop.settle()
    assert mail in await new_ids(workshop, account)


async def test_a_subscription_that_graph_lost_is_replaced_at_the_renewal(workshop: Workshop) -> None:
    """404 at renewal: a new one is made, and mail that came in between is told."""
    account, _ = await opened_way(workshop, "own push")
    old = (await workshop.record(account))["subscription"]["id"]
    workshop.world.notifier.remove(old)
    workshop.advance(47 * 3600)
    missed = workshop.deliver(ANN, "In between")
    await workshop.services.schedule.tick(workshop.clock())
    await workshop.run_for(3 * 3600, tick_s=1800)
    assert (await workshop.record(account))["subscription"]["id"] != old
    assert missed in await new_ids(workshop, account)


async def test_a_handshake_that_fails_is_tried_again_and_nothing_is_lost_meanwhile(workshop: Workshop) -> None:
    """The endpoint fails the first handshake: the account says so and polls, then gets its push."""
    workshop.refuse_handshakes = 1
    account = await workshop.own()
    shown = await workshop.record(account)
    assert shown["state"] == "connected"
    assert shown["subscription"]["state"]["state"] == "error"
    assert shown["notifications"]["mode"] == "poll"
    early = workshop.deliver(ANN, "Early")
    await workshop.run_for(120)
    shown = await workshop.record(account)
    assert shown["notifications"]["mode"] == "push"
    assert shown["subscription"]["state"]["state"] == "created"
    late = workshop.deliver(ANN, "Late")
    await workshop.settle()
    assert sorted(await new_ids(workshop, account)) == sorted([early, late])


@pytest.mark.parametrize("status", [403, 429, 503])
async def test_a_subscription_that_graph_refuses_is_had_later(workshop: Workshop, status: int) -> None:
    """While Graph refuses, the mailbox is polled; an hour after it stops refusing, push is on."""
    workshop.world.faults.add({"method": "POST", "path_regex": "/subscriptions$"}, {"status": status}, 3)
    account = await workshop.own()
    assert (await workshop.record(account))["notifications"]["mode"] == "poll"
    mail = workshop.deliver(ANN, "Polled")
    await workshop.run_for(3700)
    assert (await workshop.record(account))["notifications"]["mode"] == "push"
    assert await new_ids(workshop, account) == [mail]


@pytest.mark.parametrize("status", [None, 400, 410])
async def test_expired_delta_links_are_replaced_without_repeating_anything(
    workshop: Workshop, status: int | None
) -> None:
    """Graph forgets where we were: everything is looked at again, nothing is told again, nothing new is missed."""
    account, _ = await opened_way(workshop, "poll")
    known = [workshop.deliver(SUPPORT, f"Known {number}") for number in range(3)]
    await workshop.run_for(61)
    assert sorted(await new_ids(workshop, account)) == sorted(known)
    fresh = workshop.deliver(SUPPORT, "Fresh")
    if status is None:
        owner = workshop.world.directory.find(SUPPORT)
        assert owner is not None
        assert workshop.world.mail.delta.expire(owner.id) > 0
    else:
        fault = {"status": status, "code": "SyncStateNotFound"}
        workshop.world.faults.add({"path_regex": "/delta"}, fault, 1)
        await workshop.run_for(61)
        workshop.world.faults.add({"path_regex": "/messages/delta"}, fault, 1)
    await workshop.run_for(130)
    assert sorted(await new_ids(workshop, account)) == sorted([*known, fresh])


async def test_a_long_first_walk_does_not_hold_up_what_arrives_meanwhile(workshop: Workshop) -> None:
    """A mailbox of 1,100 old mails needs several turns; a mail of now is told within the first two."""
    for number in range(1100):
        workshop.deliver(SUPPORT, f"Old {number}")
    await asyncio.sleep(1.1 - workshop.clock().microsecond / 1e6)
    account, _ = await opened_way(workshop, "poll")
    fresh = workshop.deliver(SUPPORT, "Fresh")
    await workshop.run_for(121)
    assert await new_ids(workshop, account) == [fresh]
    await workshop.run_for(600)
    assert await new_ids(workshop, account) == [fresh]


async def test_an_outage_of_graph_delays_events_and_loses_none(workshop: Workshop) -> None:
    """503 for ten minutes while notifications come and polls fall due: everything is told once afterwards."""
    holder = await workshop.own()
    account = await workshop.delegated(SUPPORT, holder)
    workshop.world.faults.add({}, {"status": 503}, None)
    mine, ours = workshop.deliver(ANN, "Mine"), workshop.deliver(SUPPORT, "Ours")
    await workshop.settle()
    await workshop.run_for(600)
    assert await new_ids(workshop, holder) == await new_ids(workshop, account) == []
    workshop.world.faults.remove()
    await workshop.run_for(1800)
    assert await new_ids(workshop, holder) == [mine]
    assert await new_ids(workshop, account) == [ours]


async def test_a_poll_that_dies_halfway_is_taken_up_by_the_safety_row(workshop: Workshop) -> None:
    """The process ends in the middle of a turn: within a quarter of an hour the next one tells what came."""
    account, _ = await opened_way(workshop, "poll")
    mail = workshop.deliver(SUPPORT, "Halfway")
    poll = workshop.services.polling.poll

    async def die(record: Json, *given: Any, **named: Any) -> Found:
        if record["account"] == account:
            raise KeyboardInterrupt
        return await poll(record, *given, **named)

    workshop.services.polling.poll = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        await workshop.run_for(61)
    workshop.services.polling.poll = poll  # type: ignore[method-assign]
    await workshop.run_for(900)
    assert await new_ids(workshop, account) == [mail]
    before = len(workshop.requests("GET", f"/users/{SUPPORT}/mailFolders/delta"))
    await workshop.run_for(600)
    assert 3 <= len(workshop.requests("GET", f"/users/{SUPPORT}/mailFolders/delta")) - before <= 7


async def test_a_quiet_mailbox_is_asked_no_more_than_its_interval_says(workshop: Workshop) -> None:
    """Ever more rarely: the folder tree, inbox and one folder more, and no chain doubles."""
    account, _ = await opened_way(workshop, "poll")
    await workshop.run_for(120)
    job = {"account": account, "do": "initialise", "force": True}
    for _ in range(3):
        await workshop.queues.put("mailboxes", job)
    await workshop.run_due()
    tree, anything = f"/users/{SUPPORT}/mailFolders/delta", f"/users/{SUPPORT}/mailFolders/.*delta"
    turns, calls = len(workshop.requests("GET", tree)), len(workshop.requests("GET", anything))
    await workshop.run_for(600)
    turns, calls = len(workshop.requests("GET", tree)) - turns, len(workshop.requests("GET", anything)) - calls
    assert 10 <= turns <= 26
    assert calls <= 3 * turns


async def test_forged_hints_cost_no_event(workshop: Workshop) -> None:
    """A notification with the right proof but an invented message id is a missing message, not an error."""
    account, _ = await opened_way(workshop, "own push")
    key = workshop.services.settings.key_ring[0][1]
    assert client_state(account, key)
    for message_id in ("no such id", "../../users/bob@contoso.example", "é" * 100):
        await workshop.services.changes.hinted(account, [["updated", message_id, "x"]])
    assert await new_ids(workshop, account) == []
