"""What must be true in the end, read from the tenant's mailboxes and the receiver's log, never from the app's word."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.listener import Heard
from tests.chaos.people import Delivered, Submitted

Json = dict[str, Any]
UNKNOWN = "SendOutcomeUnknown"
ORDER = ("messageNew", "messageUpdated", "messageDeleted")
SHOWN = 40  # problems in a report; a broken run has thousands


@dataclass
class Evidence:
    """Everything that can be seen from outside."""

    submitted: list[Submitted]
    delivered: list[Delivered]
    heard: list[Heard]
    inbox: list[Json]  # the recipient's
    boxes: dict[str, list[Json]]  # every mail of each account's mailbox, drafts apart
    sent: dict[str, list[Json]]  # its Sent Items
    states: dict[str, str]
    poison: dict[str, int]
    secret: str


@dataclass
class Verdict:
    """Counts for the table, and what is wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def wrong(self, kind: str, text: str) -> None:
        """Notes one breach."""
        self.counts[kind] += 1
        if len(self.problems) < SHOWN:
            self.problems.append(f"{kind}: {text}")


def judge(evidence: Evidence) -> Verdict:
    """The verdict on a run that has come to rest."""
    verdict = Verdict()
    events = first_arrivals(evidence, verdict)
    judge_sends(evidence, events, verdict)
    judge_changes(evidence, events, verdict)
    for account, state in evidence.states.items():
        if state != "connected":
            verdict.wrong("state", f"{account} ends as {state}")
    for queue, count in evidence.poison.items():
        verdict.counts["poison"] += count
        if count:
            verdict.wrong("grave", f"{count} messages in {queue}")
    return verdict


def first_arrivals(evidence: Evidence, verdict: Verdict) -> list[Json]:
    """Each event id once, in the order of first arrival; repeats must be the same bytes, signatures right."""
    bodies: dict[str, bytes] = {}
    events = []
    for one in evidence.heard:
        if one.signature != signature(one.body, evidence.secret):
            verdict.wrong("forged", f"the signature of {one.event_id} is wrong")
        if one.event_id not in bodies:
            bodies[one.event_id] = one.body
            events.append(one.event)
        elif bodies[one.event_id] != one.body:
            verdict.wrong("changed", f"{one.event_id} came with two bodies")
    verdict.counts["events"] = len(events)
    verdict.counts["repeats"] = len(evidence.heard) - len(events)
    return events


def signature(body: bytes, secret: str) -> str:
    """base64url HMAC-SHA256 without padding (emailengine.md 18.2)."""
    mac = hmac.new(secret.encode(), body, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


# -- sending ---------------------------------------------------------------------------------------------------


def judge_sends(evidence: Evidence, events: list[Json], verdict: Verdict) -> None:
    """Each accepted mail with its recipient and in its own Sent Items once; or unknown; or failed and nowhere."""
    inbox = Counter(mail["internetMessageId"] for mail in evidence.inbox)
    subjects = Counter(mail["subject"] for mail in evidence.inbox)
    sent = {account: Counter(mail["internetMessageId"] for mail in mails) for account, mails in evidence.sent.items()}
    ends: dict[str, list[Json]] = defaultdict(list)
    for event in events:
        if event["event"] in ("messageSent", "messageFailed"):
            ends[event["data"]["queueId"]].append(event)
    for mail in evidence.submitted:
        if not mail.answer:
            verdict.wrong("refused", f"{mail.tries} was refused: {mail.refused}")
            continue
        verdict.counts["accepted"] += 1
        message_id = mail.answer["messageId"]
        copies = inbox[message_id], sent[mail.account][message_id]
        _judge_one(mail, copies, ends.pop(mail.answer["queueId"], []), verdict)
    tried = {subject for mail in evidence.submitted for subject in mail.tries}
    for subject, count in subjects.items():
        if count > 1:
            verdict.wrong("double", f"{subject} arrived {count} times")
        if subject not in tried:
            verdict.wrong("foreign", f"{subject} was never submitted")
    _judge_unanswered(evidence, subjects, ends, verdict)


def _judge_one(mail: Submitted, copies: tuple[int, int], ends: list[Json], verdict: Verdict) -> None:
    name = mail.tries[-1]
    if max(copies) > 1:
        verdict.wrong("double", f"{name} is {copies[0]} times in the inbox and {copies[1]} times in Sent Items")
    if len(ends) != 1:
        verdict.wrong("outcome", f"{name} has {len(ends)} outcomes: {[one['event'] for one in ends]}")
        if copies[0] == 0:
            verdict.wrong("lost", f"{name} is nowhere")
        return
    event, code = ends[0]["event"], ends[0]["data"].get("errorCode")
    kind = "sent" if event == "messageSent" else "unknown" if code == UNKNOWN else "failed"
    verdict.counts[kind] += 1
    right = {"sent": copies == (1, 1), "unknown": copies in ((0, 0), (1, 1)), "failed": copies == (0, 0)}[kind]
    if not right:
        breach = "lost" if copies[0] == 0 else "outcome"
        verdict.wrong(breach, f"{name} was told as {kind} ({code}), inbox and Sent Items have {copies}")


def _judge_unanswered(
    evidence: Evidence, subjects: Counter[str], ends: dict[str, list[Json]], verdict: Verdict
) -> None:
    """What was taken though its caller got no answer: told once each, and as many as there are mails."""
    maybe = {subject for mail in evidence.submitted for subject in (mail.tries[:-1] if mail.answer else mail.tries)}
    verdict.counts["maybe"] = sum(subjects[subject] for subject in maybe)
    told = [event for one in ends.values() for event in one]
    if len(told) != len(ends):
        verdict.wrong("outcome", "a mail without an answer has two outcomes")
    sent = sum(event["event"] == "messageSent" for event in told)
    unknown = sum(event["data"].get("errorCode") == UNKNOWN for event in told)
    if not sent <= verdict.counts["maybe"] <= sent + unknown:
        verdict.wrong("outcome", f"{sent} mails without an answer told as sent, {verdict.counts['maybe']} arrived")


# -- changes ---------------------------------------------------------------------------------------------------


def judge_changes(evidence: Evidence, events: list[Json], verdict: Verdict) -> None:
    """One messageNew for each mail in the mailboxes, deletions told, nothing told of what never was there."""
    told: dict[tuple[str, str], list[Json]] = defaultdict(list)
    for event in events:
        if isinstance(event["data"].get("id"), str):
            told[event["account"], event["data"]["id"]].append(event)
    gone = {(mail.account, mail.message_id) for mail in evidence.delivered if mail.gone}
    there = {(account, mail["id"]): mail for account, mails in evidence.boxes.items() for mail in mails}
    for key, mail in there.items():
        _judge_present(key, mail, told[key], verdict)
    for key in gone:
        _judge_gone(key, told[key], verdict)
    for key, about in told.items():
        if key not in there and key not in gone:
            verdict.wrong("foreign", f"{[one['event'] for one in about]} about a message that never was: {key}")
        _judge_order(key, about, verdict)


def _judge_present(key: tuple[str, str], mail: Json, about: list[Json], verdict: Verdict) -> None:
    names = Counter(one["event"] for one in about)
    verdict.counts["expected"] += 1
    if names["messageNew"] == 0:
        verdict.wrong("missing", f"no messageNew for {mail['subject']} {key}")
    if names["messageNew"] > 1:
        verdict.wrong("doubled", f"{names['messageNew']} messageNew for {mail['subject']} {key}")
    if names["messageDeleted"] or names["messageMissing"]:
        verdict.wrong("untrue", f"{mail['subject']} {key} is there and was told as gone")
    flags = [one["data"]["changes"]["flags"]["value"] for one in about if one["event"] == "messageUpdated"]
    is_known = bool(flags) and flags[-1] == flags_of(mail)
    if names["messageNew"] and not is_known and flags:
        verdict.wrong("stale", f"{mail['subject']} {key} has {flags_of(mail)}, told last {flags[-1]}")


def _judge_gone(key: tuple[str, str], about: list[Json], verdict: Verdict) -> None:
    """Deleted before anybody could look, it may never have been told of; told as new, its end must be told too."""
    names = Counter(one["event"] for one in about)
    for name in ("messageNew", "messageDeleted"):
        if names[name] > 1:
            verdict.wrong("doubled", f"{names[name]} {name} for a deleted mail {key}")
    if names["messageNew"]:
        verdict.counts["expected"] += 1
    if names["messageNew"] and not names["messageDeleted"]:
        verdict.wrong("missing", f"no messageDeleted for {key}")


def _judge_order(key: tuple[str, str], about: list[Json], verdict: Verdict) -> None:
    places = [ORDER.index(one["event"]) for one in about if one["event"] in ORDER]
    if places != sorted(places):
        verdict.wrong("order", f"{[one['event'] for one in about]} for {key}")


def flags_of(mail: Json) -> list[str]:
    """The flags of the contract (emailengine.md), from Graph's properties."""
    flags = ["\\Seen"] if mail.get("isRead") else []
    return flags + (["\\Flagged"] if (mail.get("flag") or {}).get("flagStatus") == "flagged" else [])
