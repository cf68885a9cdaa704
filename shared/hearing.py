"""What an account says about how it hears of changes: `{mode, reason}`, made from its record alone.

The mode is `push` only while a notification of the subscription in force was really received: with a person's
token Graph accepts subscriptions on shared mailboxes and then stays silent (graph.md 10.2), and a subscription of
the own mailbox is as silent when its notifications do not reach us.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from shared.accounts import Reach, Record

PROOF_WITHIN = timedelta(minutes=2)  # graph.md 10.5: latency is under a minute on average

OFTEN = "The mailbox is asked for changes every {shortest} to {longest} seconds, by its activity."
FOREIGN = (
    "Microsoft Graph does not deliver change notifications for another user's mailbox to an app signed in as a "
    "person. " + OFTEN + " Application access gives push, for the account itself or by a readerApp of its OAuth2 app."
)
NO_URL = "No public URL is set: set serviceUrl (POST /v1/settings) to get push. " + OFTEN
FAILED = "The subscription at Microsoft Graph could not be had: {problem}. " + OFTEN
AWAITED = "The subscription was created; the first notification that proves its delivery is awaited. " + OFTEN
SILENT = (
    "The subscription was created but nothing was delivered. Microsoft Graph must reach {base}/oauth/msg/notification "
    "from the internet, and queue messages must be worked off. It is checked again every hour. " + OFTEN
)
PASSIVE = (
    "The subscription was created; the sign-in may not write, so its delivery is proven by the first change in the "
    "mailbox. " + OFTEN
)
PUSH = "Microsoft Graph delivers change notifications for {whose}."
REFUSED = (
    " The reader app {app} was refused ({problem}), so the person's own rights are used. An administrator lets it read "
    'with: New-ManagementRoleAssignment -App {client} -Role "Application Mail.Read" -CustomResourceScope <scope with '
    "{mailbox}>, or checks with: Test-ServicePrincipalAuthorization -Identity {client} -Resource {mailbox} (takes "
    "effect within about two hours)."
)
SEND_ONLY: dict[str, Any] = {
    "mode": "none",
    "reason": "The sign-in granted sending only, so the mailbox can not be read.",
}


@dataclass(frozen=True)
class Hearing:
    """What the texts name besides the record: where notifications go, and how often a mailbox is asked."""

    base: str
    shortest_s: int
    longest_s: int

    def of(self, record: Record, reach: Reach) -> dict[str, Any]:
        """The account's `notifications`. `reach` is the one it is read with."""
        if record.get("sendOnly"):
            return SEND_ONLY
        push, reason = self._reason(record, reach)
        shown: dict[str, Any] = {"mode": "push" if push else "poll", "reason": reason}
        refused = record.get("reader") or {}
        if reach.is_foreign and reach.app.reader and refused.get("app") == reach.app.reader:
            names = {"app": refused["app"], "client": refused.get("client"), "problem": refused.get("problem")}
            shown["reason"] += REFUSED.format(mailbox=reach.mailbox.user, **names)
        return shown | ({"reader": reach.app.id} if reach.reader else {})

    def _reason(self, record: Record, reach: Reach) -> tuple[bool, str]:
        subscription = record.get("subscription") or {}
        names = {"shortest": self.shortest_s, "longest": self.longest_s, "base": self.base}
        if reach.is_foreign:
            return False, FOREIGN.format(**names)
        if not self.base:
            return False, NO_URL.format(**names)
        if is_proven(record):
            whose = "application access" if reach.is_application else "the signed-in user's own mailbox"
            return True, PUSH.format(whose=whose)
        if not subscription.get("id"):
            problem = (subscription.get("state") or {}).get("error") or "it is being created"
            return False, FAILED.format(problem=problem, **names)
        texts = {"silent": SILENT, "passive": PASSIVE}
        return False, texts.get((record.get("canary") or {}).get("state", ""), AWAITED).format(**names)


def is_proven(record: Record) -> bool:
    """True when a notification of the subscription in force was received."""
    current = (record.get("subscription") or {}).get("id")
    return bool(current) and (record.get("proof") or {}).get("for") == current
