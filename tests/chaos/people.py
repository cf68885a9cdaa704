"""Who uses the system meanwhile: clients that submit and repeat what got no answer, and people with their mail."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.support.application import Answer, Application
from tests.support.tenant import Tenant

RECIPIENT = "rita@contoso.example"
DEEDS = ("read", "read", "flag", "move", "trash", "delete")


@dataclass
class Submitted:
    """One mail a client wants sent: the subjects of its tries, and the answer in the end."""

    account: str
    tries: list[str] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)
    refused: str = ""


@dataclass
class Delivered:
    """One mail from outside, and whether somebody deleted it for good."""

    account: str
    mailbox: str
    message_id: str
    gone: bool = False


class Clients:
    """Submits mails through the API until each has an answer."""

    def __init__(self, chance: random.Random, app: Application, accounts: list[str]) -> None:
        self.submitted: list[Submitted] = []
        self.answers: Counter[str] = Counter()
        self._chance, self._app, self._accounts = chance, app, accounts

    async def submit(self, number: int) -> None:
        """One mail, mostly with an Idempotency-Key. With a key every try is the same mail; without one a try that got
        no answer may have been taken, so each has a subject of its own."""
        key = f"key {number}" if self._chance.random() < 0.7 else ""
        mail = Submitted(self._chance.choice(self._accounts))
        self.submitted.append(mail)
        while not mail.answer and not mail.refused:
            subject = f"S{number}" if key else f"S{number}.{len(mail.tries)}"
            if subject not in mail.tries:
                mail.tries.append(subject)
            answer = await self._try(mail.account, subject, key)
            if answer is not None and answer.status == 200:
                mail.answer = answer.body
            elif answer is not None and 400 <= answer.status < 500 and answer.status not in (409, 429):
                mail.refused = f"{answer.status} {answer.body!r}"
            else:
                self.answers["no answer" if answer is None else str(answer.status)] += 1
                await asyncio.sleep(self._chance.uniform(0.1, 1.0))

    async def _try(self, account: str, subject: str, key: str) -> Answer | None:
        body = {"to": [{"address": RECIPIENT}], "subject": subject, "text": "x" * self._chance.choice([10, 2000])}
        headers = {"Idempotency-Key": key} if key else {}
        try:
            async with asyncio.timeout(20):
                return await self._app.call("POST", f"/v1/account/{account}/submit", body, headers)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None


class People:
    """Mail arrives, and its owners read, flag, move and delete it."""

    def __init__(self, chance: random.Random, tenant: Tenant, mailboxes: dict[str, str]) -> None:
        """`mailboxes`: the address of each account."""
        self.delivered: list[Delivered] = []
        self.deeds: Counter[str] = Counter()
        self._chance, self._tenant, self._mailboxes = chance, tenant, mailboxes

    async def deliver(self, number: int) -> None:
        """One mail from a customer, and perhaps something done to an earlier one."""
        account, mailbox = self._chance.choice(list(self._mailboxes.items()))
        (placed,) = await self._tenant.deliver("carl@customer.example", [mailbox], f"D{number}", text="Hello")
        self.delivered.append(Delivered(account, mailbox, placed["id"]))
        if self._chance.random() < 0.5:
            await self._act(self._chance.choice(self.delivered[-60:]))

    async def _act(self, mail: Delivered) -> None:
        deed = self._chance.choice(DEEDS)
        path = f"/mailboxes/{mail.mailbox}/messages/{mail.message_id}"
        if mail.gone:
            return
        self.deeds[deed] += 1
        if deed == "read":
            await self._tenant.control("PATCH", path, {"isRead": True})
        elif deed == "flag":
            await self._tenant.control("PATCH", path, {"flag": {"flagStatus": "flagged"}})
        elif deed == "delete":
            mail.gone = True
            await self._tenant.control("DELETE", path)
        else:
            folder = "junkemail" if deed == "move" else "deleteditems"
            await self._tenant.control("POST", f"{path}/move", {"folder": folder})


async def paced(work: Any, count: int, per_s: float, at_once: int = 8) -> None:
    """`work(number)` for so many numbers, at most so many a second and at once."""
    gate = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with gate:
            await work(number)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(number))
            await asyncio.sleep(1 / per_s)
