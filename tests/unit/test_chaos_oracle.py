"""The oracle of the chaos runs can fail: each breach it knows is found when it is there, and nothing else is."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.listener import Heard
from tests.chaos.oracle import UNKNOWN, Evidence, judge, signature
from tests.chaos.people import Delivered, Submitted

SECRET = "secret"
READ = {"isRead": True, "flag": {"flagStatus": "notFlagged"}}


def heard(event_id: str, event: str, data: dict[str, Any], account: str = "ann") -> Heard:
    """One delivery with a right signature."""
    body = json.dumps({"account": account, "event": event, "data": data}).encode()
    return Heard(event_id, signature(body, SECRET), body)


def mail(message_id: str, subject: str, **more: Any) -> dict[str, Any]:
    """A mail as the tenant shows it."""
    return {"id": f"id-{message_id}", "internetMessageId": message_id, "subject": subject, **more}


def calm() -> Evidence:
    """A run in which all went well: one mail sent, one received and read, one received and deleted."""
    copy_told = heard("e3", "messageNew", {"id": "id-m1"})
    return Evidence(
        submitted=[Submitted("ann", ["S0"], {"queueId": "q1", "messageId": "m1"})],
        delivered=[Delivered("ann", "ann@x", "id-d1"), Delivered("ann", "ann@x", "id-d2", gone=True)],
        heard=[
            heard("e1", "messageSent", {"queueId": "q1"}),
            heard("e2", "messageNew", {"id": "id-d1"}),
            copy_told,
            copy_told,  # a repeat under the same id
            heard("e4", "messageNew", {"id": "id-d2"}),
            heard("e5", "messageUpdated", {"id": "id-d1", "changes": {"flags": {"value": ["\\Seen"]}}}),
            heard("e6", "messageDeleted", {"id": "id-d2"}),
        ],
        inbox=[mail("m1", "S0")],
        boxes={"ann": [mail("d1", "D0", **READ), mail("m1", "S0", isRead=True)]},
        sent={"ann": [mail("m1", "S0")]},
        states={"ann": "connected"},
        poison={"outbox-poison": 0},
        secret=SECRET,
    )


def failed(code: str) -> Heard:
    """The end of the mail, told as failed."""
    return heard("e1", "messageFailed", {"queueId": "q1", "errorCode": code})


def forged(one: Heard) -> Heard:
    """A delivery whose signature is not that of its body."""
    return Heard(one.event_id, "wrong", one.body)


Change = Callable[[Evidence], Any]
BREACHES: dict[str, tuple[str, Change]] = {
    "a mail that never arrived": ("lost", lambda e: e.inbox.clear()),
    "a mail that arrived twice": ("double", lambda e: e.inbox.append(mail("m1", "S0"))),
    "two copies in Sent Items": ("double", lambda e: e.sent["ann"].append(mail("m1", "S0"))),
    "no copy in Sent Items": ("outcome", lambda e: e.sent["ann"].clear()),
    "a mail nobody submitted": ("foreign", lambda e: e.inbox.append(mail("m9", "other"))),
    "sent, and told as failed": ("outcome", lambda e: e.heard.__setitem__(0, failed("AccessDenied"))),
    "no outcome": ("outcome", lambda e: e.heard.pop(0)),
    "two outcomes": ("outcome", lambda e: e.heard.append(heard("e9", "messageSent", {"queueId": "q1"}))),
    "an outcome of no mail": ("outcome", lambda e: e.heard.append(heard("e9", "messageSent", {"queueId": "q9"}))),
    "a submit that was refused": ("refused", lambda e: e.submitted.append(Submitted("ann", ["S1"], refused="400"))),
    "a mail nobody was told of": ("missing", lambda e: e.heard.pop(1)),
    "a mail told as new twice": ("doubled", lambda e: e.heard.append(heard("e9", "messageNew", {"id": "id-d1"}))),
    "a deletion nobody was told of": ("missing", lambda e: e.heard.pop(6)),
    "a mail that is there, told as gone": (
        "untrue",
        lambda e: e.heard.append(heard("e9", "messageDeleted", {"id": "id-d1"})),
    ),
    "an event about no mail": ("foreign", lambda e: e.heard.append(heard("e9", "messageNew", {"id": "id-?"}))),
    "flags that are no more": ("stale", lambda e: e.boxes["ann"][0].update(isRead=False)),
    "deleted before new": ("order", lambda e: e.heard.insert(0, e.heard.pop(6))),
    "a wrong signature": ("forged", lambda e: e.heard.append(forged(e.heard[0]))),
    "one event id with two bodies": ("changed", lambda e: e.heard.append(heard("e1", "messageSent", {"queueId": "?"}))),
    "an account in an error": ("state", lambda e: e.states.update(ann="connectError")),
    "a message in a poison queue": ("grave", lambda e: e.poison.update({"outbox-poison": 1})),
}


@pytest.mark.parametrize("what", sorted(BREACHES))
def test_every_breach_is_found(what: str) -> None:
    """The calm run with one thing wrong is judged as that."""
    kind, spoil = BREACHES[what]
    evidence = copy.deepcopy(calm())
    spoil(evidence)
    verdict = judge(evidence)
    assert verdict.counts[kind] > 0
    assert any(problem.startswith(f"{kind}:") for problem in verdict.problems)


def test_a_calm_run_is_right() -> None:
    """Nothing wrong is found where nothing is wrong, and the counts are true."""
    verdict = judge(calm())
    assert verdict.problems == []
    counts = verdict.counts
    assert (counts["accepted"], counts["sent"], counts["expected"], counts["repeats"]) == (1, 1, 3, 1)


@pytest.mark.parametrize("arrived", [True, False], ids=["arrived", "not"])
def test_an_unknown_outcome_is_right_whether_it_arrived_or_not(arrived: bool) -> None:
    """`unknown` promises only that it was not sent twice."""
    evidence = calm()
    evidence.heard[0] = failed(UNKNOWN)
    if not arrived:
        evidence.inbox.clear()
        evidence.sent["ann"].clear()
        evidence.boxes["ann"].pop()
        evidence.heard = [one for one in evidence.heard if one.event_id != "e3"]
    verdict = judge(evidence)
    assert verdict.problems == []
    assert verdict.counts["unknown"] == 1


def test_without_keys_a_try_without_an_answer_may_have_been_sent() -> None:
    """Its mail arrived and was told of: one more mail, no breach."""
    evidence = calm()
    evidence.submitted[0].tries.insert(0, "S0.0")
    evidence.inbox.append(mail("m0", "S0.0"))
    evidence.heard.append(heard("e9", "messageSent", {"queueId": "q0"}))
    verdict = judge(evidence)
    assert verdict.problems == []
    assert verdict.counts["maybe"] == 1
