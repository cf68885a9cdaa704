"""A process may die before or after every single effect it has; nothing is lost then, and nothing done twice.

Every story is lived once for each point it has, dying there, until one life comes to its end. What the dead process
held comes back as the host brings it back; then a day passes, and the mailboxes of the tenant and the log of the
webhook receiver must look as if nobody had died.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local import services
from local.tenant.control_login import mint
from shared.schedule import PARTITION
from tests.support.desk import DELEGATED
from tests.support.mortal import Json, Mortal
from tests.support.workshop import ANN, RITA, SUPPORT

NOSEND = "nosend@contoso.example"
TOO_MANY_POINTS = 150
DAY = 24
OUTCOMES = ("messageSent", "messageFailed")
Story = Callable[[], Awaitable[Any]]
Life = tuple[str, Any]  # where the process died, and what the story left to look at


@pytest.fixture
async def shop(quiet_azurite: services.Azurite) -> AsyncIterator[Mortal]:
    """A workshop of this one test whose processes can die."""
    made = await Mortal(quiet_azurite.connection_string).start()
    made.world.switches.notification_delay_s = 0.001
    yield made
    made.fate.disarm()
    await made.stop()


async def every_point(shop: Mortal, story: Story, *kinds: str, calm_s: float = 0) -> list[Life]:
    """The story lived once for each point of its work of these kinds, dying there; the last one lives. `calm_s` is
    what it takes a life to come to its end after the death, so that no other one falls into it."""
    lives: list[Life] = []
    for point in range(TOO_MANY_POINTS):
        shop.fate.arm([point], *kinds)
        left = await story()
        died = ", ".join(shop.fate.deaths)
        shop.fate.disarm()
        lives.append((f"point {point}, {died}" if died else "lived", left))
        if not died:
            return lives
        if calm_s:
            await shop.run_for(calm_s, tick_s=600)
    raise AssertionError(f"the story has more than {TOO_MANY_POINTS} points: {shop.fate.passed}")


def no_failures(shop: Mortal) -> None:
    """No trigger raised, and no message ended as poison."""
    assert shop.failures == []
    assert shop.poison == []


# -- sending ---------------------------------------------------------------------------------------------------


def copies(shop: Mortal, mailbox: str, folder: str, message_id: str) -> int:
    """How often a mail is in a folder of the tenant."""
    return sum(one["internetMessageId"] == message_id for one in shop.world.mail.dump(mailbox, folder))


def outcomes(shop: Mortal, account: str, queue_id: str) -> list[str]:
    """What the receiver was told of a mail's end, each event id once."""
    told = shop.heard(account, *OUTCOMES).values()
    return [one["event"] for one in told if one["data"]["queueId"] == queue_id]


async def check_sent(shop: Mortal, account: str, mailbox: str, lives: list[Life]) -> None:
    """Each mail is with its recipient once, in the right Sent Items once, and was told as sent once."""
    found = {
        where: (
            copies(shop, RITA, "inbox", accepted["messageId"]),
            copies(shop, mailbox, "sentitems", accepted["messageId"]),
            outcomes(shop, account, accepted["queueId"]),
        )
        for where, accepted in lives
    }
    assert found == dict.fromkeys(found, (1, 1, ["messageSent"]))
    no_failures(shop)


async def accepted(shop: Mortal, account: str, **fields: Any) -> Json:
    """A mail to Rita, accepted."""
    given = {"to": [{"address": RITA}], "subject": "Hello", "text": "x"} | fields
    return await shop.services.submit.accept(account, given)


async def without_turns(shop: Mortal) -> None:
    """The mailboxes' own recurring turns end here: they would only take time."""
    shop.queues.waiting.clear()
    for row in await shop.services.tables["schedule"].partition(PARTITION):
        await shop.services.tables["schedule"].delete(row.partition, row.key)


async def sender(shop: Mortal, mailbox: str = SUPPORT) -> str:
    """A shared mailbox on a person's rights, settled."""
    holder = await shop.own()
    account = await shop.delegated(mailbox, holder)
    await shop.run_for(60)
    await without_turns(shop)
    return account


SENDS: dict[str, tuple[Json, Json]] = {
    "plain": ({}, {}),
    "large": ({"text": "x" * 600_000}, {}),
    "structured": ({"from": {"address": ANN}}, {}),
    "504 after sending": ({}, {"after": {"status": 504}}),
    "dropped before sending": ({}, {"drop": True}),
    "throttled": ({}, {"status": 429, "retry_after": "2.5"}),
}


async def test_a_send_that_dies_anywhere_sends_once(shop: Mortal) -> None:
    """From the queue message to the last look: one mail, one copy, one event, wherever the process died."""
    account = await sender(shop)
    lives: list[Life] = []
    for kind, (fields, fault) in SENDS.items():

        async def story(fields: Json = fields, fault: Json = fault) -> Json:
            if fault:
                shop.world.faults.add({"path_regex": "/sendMail$"}, fault, 1)
            mail = await accepted(shop, account, **fields)
            await shop.run_for(200 if fault else 1)
            shop.world.faults.remove()
            return mail

        for where, mail in await every_point(shop, story, "outbox", calm_s=1200 if fault else 0):
            lives.append((f"{kind}: {where}", mail))
        await shop.run_for(1200, tick_s=600)
    await shop.hours(DAY)
    await check_sent(shop, account, SUPPORT, lives)


async def test_a_refused_send_that_dies_anywhere_fails_once(shop: Mortal) -> None:
    """No Send As: the mail is nowhere, and messageFailed comes once."""
    account = await sender(shop, NOSEND)

    async def story() -> Json:
        mail = await accepted(shop, account)
        await shop.run_for(1)
        return mail

    lives = await every_point(shop, story, "outbox")
    await shop.hours(DAY)
    for where, mail in lives:
        assert copies(shop, RITA, "inbox", mail["messageId"]) == 0, where
        assert outcomes(shop, account, mail["queueId"]) == ["messageFailed"], where
    no_failures(shop)


async def test_a_send_whose_mailbox_can_not_be_asked_ends_as_unknown_once(shop: Mortal) -> None:
    """Sent, dropped, and nobody can look: told as unknown once, and never sent again."""
    account = await sender(shop)

    async def story() -> Json:
        shop.world.faults.add({"path_regex": "/sendMail$"}, {"after": {"drop": True}}, 1)
        mail = await accepted(shop, account)
        await shop.run_for(1)
        shop.world.faults.add({"method": "GET", "path_regex": "/messages$"}, {"status": 504}, None)
        await shop.run_for(3000, tick_s=600)
        shop.world.faults.remove()
        return mail

    lives = await every_point(shop, story, "outbox", calm_s=1200)
    await shop.hours(DAY)
    for where, mail in lives:
        told = [one for one in shop.heard(account, *OUTCOMES).values() if one["data"]["queueId"] == mail["queueId"]]
        assert len(told) == 1, where
        is_unknown = told[0]["data"].get("errorCode") == "SendOutcomeUnknown"
        assert is_unknown or told[0]["event"] == "messageSent", where
        assert copies(shop, RITA, "inbox", mail["messageId"]) in ((0, 1) if is_unknown else (1,)), where


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(
    kind=st.sampled_from(["plain", "504 after sending", "dropped before sending"]),
    points=st.lists(st.integers(0, 12), min_size=2, max_size=3),
)
def test_a_send_that_dies_several_times_sends_once(
    quiet_azurite: services.Azurite, kind: str, points: list[int]
) -> None:
    """The process that took over dies as well, and the next one too."""

    async def play() -> None:
        shop = await Mortal(quiet_azurite.connection_string).start()
        try:
            fields, fault = SENDS[kind]
            account = await sender(shop)
            if fault:
                shop.world.faults.add({"path_regex": "/sendMail$"}, fault, 1)
            shop.fate.arm(points, "outbox", "webhooks")
            mail = await accepted(shop, account, **fields)
            await shop.hours(2)
            shop.fate.disarm()
            await shop.hours(2)
            await check_sent(shop, account, SUPPORT, [(str(shop.fate.deaths), mail)])
        finally:
            await shop.stop()

    asyncio.run(play())


# -- accepting -------------------------------------------------------------------------------------------------


async def test_accepting_that_dies_anywhere_gives_one_mail_or_none(shop: Mortal) -> None:
    """A caller without an answer repeats: the repeat is sent once, what he got no answer for at most once."""
    account = await sender(shop)
    number = 0

    async def story() -> tuple[str, Json]:
        nonlocal number
        number += 1
        body = {"to": [{"address": RITA}], "subject": f"First {number}", "text": "x"}
        answer = await shop.request("POST", f"/v1/account/{account}/submit", body)
        if answer is None:
            answer = await shop.request("POST", f"/v1/account/{account}/submit", body | {"subject": f"Again {number}"})
        assert answer is not None
        assert answer.status_code == 200, answer.text
        await shop.run_for(1)
        return f"First {number}", answer.json()

    lives = await every_point(shop, story, "http")
    await shop.hours(DAY)
    subjects = Counter(one["subject"] for one in shop.world.mail.dump(RITA, "inbox"))
    assert {where: subjects[first] for where, (first, _) in lives if subjects[first] > 1} == {}
    await check_sent(shop, account, SUPPORT, [(where, mail) for where, (_, mail) in lives])


async def test_accepting_with_a_key_that_dies_anywhere_gives_one_mail(shop: Mortal) -> None:
    """The same key again, by a caller without an answer: one mail, whatever became of the first call."""
    account = await sender(shop)
    number = 0

    async def submit(body: Json, key: str) -> Any:
        return await shop.request("POST", f"/v1/account/{account}/submit", body, Idempotency_Key=key)

    async def story() -> tuple[str, Json]:
        nonlocal number
        number += 1
        body = {"to": [{"address": RITA}], "subject": f"Keyed {number}", "text": "x"}
        for _ in range(20):
            answer = await submit(body, f"key {number}")
            if answer is not None and answer.status_code == 200:
                await shop.run_for(1)
                return f"Keyed {number}", answer.json()
            await shop.run_for(15)  # as long as the dead holder's lease may last
        raise AssertionError(f"no answer after {shop.fate.deaths}")

    lives = await every_point(shop, story, "http")
    await shop.hours(DAY)
    subjects = Counter(one["subject"] for one in shop.world.mail.dump(RITA, "inbox"))
    assert {where: subjects[subject] for where, (subject, _) in lives} == {where: 1 for where, _ in lives}
    await check_sent(shop, account, SUPPORT, [(where, mail) for where, (_, mail) in lives])


# -- hearing of changes ----------------------------------------------------------------------------------------


def told_of(shop: Mortal, account: str, message_id: str) -> list[str]:
    """The events about a message in the order of their first arrival, each event id once."""
    return [one["event"] for one in shop.heard(account).values() if one["data"].get("id") == message_id]


CHANGES = {"deliver": "messageNew", "read": "messageUpdated", "remove": "messageDeleted"}
TURN_S = 300
MESSAGES = 80  # more than a change has points


@pytest.mark.parametrize("way", ["push", "poll"])
async def test_a_change_whose_job_dies_anywhere_is_told_once(quiet_azurite: services.Azurite, way: str) -> None:
    """New, read, deleted: one event each for every message, whichever of the jobs died, by push and by polling."""
    shop = await Mortal(quiet_azurite.connection_string, POLL_INTERVAL_SECONDS=str(TURN_S)).start()
    try:
        shop.world.switches.notification_delay_s = 0.001
        holder = await shop.own()
        account, address = (holder, ANN) if way == "push" else (await shop.delegated(SUPPORT, holder), SUPPORT)
        await shop.run_for(3 * TURN_S, tick_s=TURN_S)
        lives = await lives_of_changes(shop, address, way)
        await shop.hours(3)
        found = {where: told_of(shop, account, mail) for where, (_, mail) in lives}
        expected = {step: list(dict.fromkeys(["messageNew", event])) for step, event in CHANGES.items()}
        assert found == {where: expected[step] for where, (step, _) in lives}
        no_failures(shop)
    finally:
        await shop.stop()


async def lives_of_changes(shop: Mortal, address: str, way: str) -> list[Life]:
    """A message of its own for each life: it arrives, is read or is removed, and the job that hears of it dies."""
    kind, wait_s = ("notifications", 0.0) if way == "push" else ("mailboxes", TURN_S + 1.0)

    async def heard(seconds: float) -> None:
        await shop.settle()
        await shop.run_for(seconds, tick_s=TURN_S)

    lives: list[Life] = []
    for step in CHANGES:
        earlier = [] if step == "deliver" else [shop.deliver(address) for _ in range(MESSAGES)]
        await heard(wait_s)

        async def story(step: str = step, earlier: list[str] = earlier) -> tuple[str, str]:
            mail = earlier.pop() if earlier else shop.deliver(address)
            if step == "read":
                shop.mark(address, mail, isRead=True)
            if step == "remove":
                shop.remove(address, mail)
            await heard(wait_s)
            return step, mail

        for where, left in await every_point(shop, story, kind, calm_s=700):
            lives.append((f"{step}: {where}", left))
    return lives


# -- webhooks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_answer", [200, 500])
async def test_a_delivery_that_dies_anywhere_reaches_the_receiver(shop: Mortal, first_answer: int) -> None:
    """At least once, always under the same event id and with the same content; a death costs one repeat at most."""
    account = await sender(shop)
    number = 0

    async def story() -> str:
        nonlocal number
        number += 1
        name = f"story {number}"
        await shop.services.events.emit(account, "messageFailed", {"queueId": name}, happening=name)
        if first_answer != 200:
            shop.receiver.answer_next(first_answer)
        await shop.run_for(20)
        return name

    lives = await every_point(shop, story, "webhooks", calm_s=1200)
    await shop.hours(DAY)
    heard = [one for one in shop.receiver.requests if one.json["event"] == "messageFailed"]
    for where, name in lives:
        mine = [one for one in heard if one.json["data"]["queueId"] == name]
        assert len({one.headers["X-EE-Wh-Event-Id"] for one in mine}) == 1, where
        assert len({one.body for one in mine}) == 1, where
        assert len(mine) <= (2 if first_answer == 200 else 3), where
    no_failures(shop)


# -- accounts --------------------------------------------------------------------------------------------------


async def create(shop: Mortal, body: Json) -> None:
    """The account, asked for until there is an answer."""
    for _ in range(3):
        answer = await shop.request("POST", "/v1/account", body)
        if answer is not None:
            assert answer.status_code == 200, answer.text
            return
    raise AssertionError("no answer")


async def tokens(shop: Mortal, user: str) -> Json:
    """`oauth2` of an account whose person signed in elsewhere."""
    answer = mint(shop.world, {"user": user})
    ends = (shop.clock() + timedelta(seconds=answer["expires_in"])).isoformat()
    given = {"accessToken": answer["access_token"], "refreshToken": answer["refresh_token"], "expires": ends}
    return {"provider": await shop._app(DELEGATED), "auth": {"user": user}, **given}


async def of_ann(shop: Mortal, account: str) -> Json:
    """The body that creates an account of Ann's mailbox with tokens of its own."""
    return {"account": account, "name": "Made", "email": ANN, "oauth2": await tokens(shop, ANN)}


async def test_creating_that_dies_anywhere_ends_connected_and_told_once(shop: Mortal) -> None:
    """The caller repeats: the account is connected, heard of its mailbox, and was told as added once."""
    number = 0

    async def story() -> str:
        nonlocal number
        number += 1
        account = f"made-{number}"
        await create(shop, await of_ann(shop, account))
        await shop.run_for(30)
        return account

    lives = await every_point(shop, story, "http")
    await shop.hours(3)
    for where, account in lives:
        assert (await shop.record(account))["state"] == "connected", where
    told = {where: Counter(one["event"] for one in shop.heard(account).values()) for where, account in lives}
    expected = Counter(["accountAdded", "accountInitialized", "authenticationSuccess"])
    assert told == dict.fromkeys(told, expected)
    no_failures(shop)


async def test_connecting_that_dies_anywhere_connects_once(shop: Mortal) -> None:
    """Probe, state, events, subscription, turns: done by the next process where one died; one subscription lives."""
    number = 0

    async def story() -> str:
        nonlocal number
        number += 1
        account = f"connected-{number}"
        await shop.services.onboarding.create(await of_ann(shop, account))
        await shop.run_for(5)
        return account

    lives = await every_point(shop, story, "mailboxes")
    await shop.hours(3)
    mail = shop.deliver(ANN)
    await shop.settle()
    for where, account in lives:
        record = await shop.record(account)
        assert record["state"] == "connected", where
        assert "unfinished" not in record, where
        assert told_of(shop, account, mail) == ["messageNew"], where
    told = {where: Counter(one["event"] for one in shop.heard(account).values()) for where, account in lives}
    expected = Counter(["accountAdded", "accountInitialized", "authenticationSuccess", "messageNew"])
    assert told == dict.fromkeys(told, expected)
    no_failures(shop)


async def test_deleting_that_dies_anywhere_leaves_nothing(shop: Mortal) -> None:
    """The caller repeats until told so or until it is gone: no record, no token, no queued mail, told once."""
    number = 0

    async def story() -> str:
        nonlocal number
        number += 1
        account = f"gone-{number}"
        await shop.services.onboarding.create(await of_ann(shop, account))
        await shop.run_for(5)
        later = (shop.clock() + timedelta(hours=2)).isoformat()
        await accepted(shop, account, sendAt=later, subject=f"never {number}")
        for _ in range(3):
            answer = await shop.request("DELETE", f"/v1/account/{account}")
            if answer is not None:
                assert answer.status_code in (200, 404), answer.text
                break
        await shop.run_for(5)
        return account

    lives = await every_point(shop, story, "http")
    await shop.hours(4)
    shop.deliver(ANN)
    await shop.settle()
    assert [one["subject"] for one in shop.world.mail.dump(RITA, "inbox") if one["subject"].startswith("never")] == []
    for where, account in lives:
        told = Counter(one["event"] for one in shop.heard(account).values())
        assert told["accountDeleted"] == 1, where
        assert told["messageNew"] == 0, where
        for table in ("accounts", "credentials", "cursors", "markers", "trees"):
            assert await shop.services.tables[table].partition(account) == [], (where, table)
    no_failures(shop)


async def test_a_token_refresh_that_dies_anywhere_leaves_a_working_sign_in(shop: Mortal) -> None:
    """The next process has a token, at whichever moment the one that asked Entra died."""
    account = await shop.own()
    await shop.run_for(60)
    await without_turns(shop)

    async def story() -> Json:
        shop.advance(2 * 3600)
        mail = await accepted(shop, account)
        await shop.run_for(1)
        return mail

    lives = await every_point(shop, story, "outbox", calm_s=1300)
    await shop.hours(3)
    await check_sent(shop, account, ANN, lives)
    assert (await shop.record(account))["state"] == "connected"
    assert shop.heard(account, "authenticationError", "connectError") == {}


async def test_a_tick_that_dies_anywhere_loses_no_turn(shop: Mortal) -> None:
    """Polling goes on, one chain for the mailbox, and a mail scheduled for later goes out once."""
    holder = await shop.own()
    account = await shop.delegated(SUPPORT, holder)
    await shop.run_for(60)

    async def story() -> tuple[str, Json]:
        later = (shop.clock() + timedelta(days=7)).isoformat()
        mail = await accepted(shop, account, sendAt=later)
        shop.advance(7 * 24 * 3600 + 60)
        await shop.tick("schedule_due")
        await shop.run_for(1800)
        message = shop.deliver(SUPPORT)
        await shop.run_for(4000, tick_s=300)
        return message, mail

    lives = await every_point(shop, story, "schedule_due")
    await shop.hours(3)
    for where, (message, _) in lives:
        assert told_of(shop, account, message) == ["messageNew"], where
    await check_sent(shop, account, SUPPORT, [(where, mail) for where, (_, mail) in lives])
    rows = await shop.services.tables["schedule"].partition(PARTITION)
    chains = Counter(row.value["job"]["account"] for row in rows if "chain" in row.value["job"])
    assert chains == {holder: 1, account: 1}
