"""Mail merge (emailengine.md 14.6): one mail for each recipient, each accepted by itself.

Under an idempotency key every entry has a key of its own, so that a repeat of a call that died half-way sends what is
missing and nothing twice. The answer of a call that came to its end is kept, and is what every repeat gets, unless an
entry failed for a reason that passes: then a repeat tries that entry again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import uuid
from collections.abc import Callable
from typing import Any

from azure.core.exceptions import AzureError

from shared.accounts import Accounts, Record, auth_of
from shared.attachments import References
from shared.clock import Clock, iso, parse_time
from shared.errors import ApiError, CredentialError, GraphFailure, InvalidInput, RecordTooLarge, StorageConflict
from shared.graph.failures import to_api
from shared.handlebars import Budget
from shared.idempotency import KEPT
from shared.mail_parts import content_size, too_large
from shared.rendering import Kit, Rendering
from shared.storage.keys import digest, storable
from shared.storage.tables import Row, Table
from shared.submit import Submit, payload_of
from shared.unsubscribing import Unsubscribing, list_headers

log = logging.getLogger("graphpost.mail_merge")
AT_ONCE = 8
# For a whole call, so that it ends before its caller stops waiting.
MOST_STEPS = 2_000_000
MOST_CHARACTERS = 100_000_000
MOST_BYTES = 256 * 1024 * 1024
Json = dict[str, Any]


class MailMerge:
    """Accepts mail merges."""

    def __init__(
        self,
        accounts: Accounts,
        submit: Submit,
        rendering: Rendering,
        references: References,
        answers: Table,
        clock: Clock,
        lists: Unsubscribing,
        new_uuid: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        """`answers` keeps the answers of calls with a key, beside the keys themselves."""
        self._accounts, self._submit, self._rendering = accounts, submit, rendering
        self._references, self._answers, self._clock = references, answers, clock
        self._lists, self._new_uuid = lists, new_uuid

    async def accept(self, account: str, fields: Json, *, structured: bool = False, key: str = "") -> Json:
        """`{mailMerge: [...]}` with what became of each entry, in their order. What concerns all of them is raised
        before any is accepted: NotFound, InvalidInput, ApiError."""
        record = await self._accounts.get(account)
        payload = payload_of(fields, structured) if key else ""
        kept = await self._kept(record, key) if key else None
        if kept is not None:
            return _repeated(kept, key, payload)
        run = await self._begun(record, fields, structured, key)
        places = asyncio.Semaphore(AT_ONCE)

        async def entry(number: int) -> Json:
            async with places:
                return await run.entry(number)

        results = await asyncio.gather(*(entry(number) for number in range(len(fields["mailMerge"]))))
        answer: Json = {"mailMerge": results}
        if not key:
            return answer
        kept = None if any(_may_pass(one) for one in results) else await self._keep(record, key, payload, results)
        if kept is not None:
            return _repeated(kept, key, payload)
        return answer | {"idempotency": {"key": key, "status": "MISS"}}

    async def _begun(self, record: Record, fields: Json, structured: bool, key: str) -> _Run:
        """What all entries have in common, checked and fetched once."""
        if not record.get("oauth2"):
            raise ApiError(404, "SMTP configuration not found", "SMTPUnavailable")
        base = ""
        if fields.get("listId"):
            base = await self._lists.base(fields.get("baseUrl"))
        common = {name: value for name, value in fields.items() if name not in ("mailMerge", "listId")}
        common = await self._rendering.with_template(record["account"], common | {"render": {}})
        if common.get("attachments"):
            resolved = await self._references.resolved(record["account"], common["attachments"])
            total = sum(map(content_size, resolved)) * len(fields["mailMerge"])
            if total > MOST_BYTES:
                text = f"The attachments of all mails together are {total} bytes, {MOST_BYTES} are allowed in one call."
                raise too_large(f"{text} Send fewer entries in one call", "attachments")
            common["attachments"] = resolved
        return _Run(self, record, fields, common, structured, key, base)

    # -- repeats -----------------------------------------------------------------------------------------------

    async def _kept(self, record: Record, key: str) -> Json | None:
        """The answer of an earlier call, if it is this account's and not too old."""
        row = await self._answers.get(storable(record["account"]), _answer_key(key))
        if row is None or row.value.get("birth") != record.get("birth", ""):
            return None
        return row.value if self._clock() - parse_time(row.columns["at"]) < KEPT else None

    async def _keep(self, record: Record, key: str, payload: str, results: list[Json]) -> Json | None:
        """Keeps the answer. None, or the answer of another call that was faster."""
        value = {"birth": record.get("birth", ""), "payload": payload, "answer": results}
        value["writer"] = secrets.token_hex(8)
        row = Row(storable(record["account"]), _answer_key(key), value, columns={"at": iso(self._clock())})
        try:
            await self._answers.insert(row)
        except StorageConflict:
            kept = await self._kept(record, key)
            if kept is None:
                await self._answers.put(row)  # one that is too old, or of an earlier account of this id
            return None if kept is None or kept["writer"] == value["writer"] else kept
        except RecordTooLarge:
            log.warning("the answer to a mail merge is too large to be kept; its entries keep their keys")
        return None


class _Run:
    """One call: the entries that are accepted with what they have in common."""

    def __init__(
        self, merge: MailMerge, record: Record, fields: Json, common: Json, structured: bool, key: str, base: str
    ) -> None:
        self._merge, self._record, self._entries = merge, record, fields["mailMerge"]
        self._list_id, self._base = fields.get("listId") or "", base
        self._structured, self._key, self._common = structured, key, common
        self._kit, self._budget = Kit(common), Budget(MOST_STEPS, MOST_CHARACTERS)

    async def entry(self, number: int) -> Json:
        """What became of one entry."""
        to = self._entries[number]["to"]
        try:
            return await self._accepted(number, to)
        except ApiError as problem:
            return _refused(to, problem)
        except (GraphFailure, CredentialError) as failure:
            shown = to_api(failure) if isinstance(failure, GraphFailure) else ApiError(503, str(failure))
            return _refused(to, shown)
        except AzureError as failure:
            log.error("storage failed for an entry of a mail merge: %s", type(failure).__name__)
            return _refused(to, ApiError(503, "The storage is not available", "StorageUnavailable"))
        except Exception as failure:  # the entries accepted before must be told of all the same
            log.error("an entry of a mail merge failed: %s", type(failure).__name__)
            return _refused(to, ApiError(500, "An internal server error occurred"))

    async def _accepted(self, number: int, to: Json) -> Json:
        entry, lists = self._entries[number], self._merge._lists
        named = {name: entry[name] for name in ("messageId", "sendAt") if entry.get(name)}
        more: Json = {}
        if self._list_id:
            if await lists.contains(self._list_id, to["address"]):
                return {"success": True, "to": to, "skipped": {"reason": "unsubscribe", "listId": self._list_id}}
            named.setdefault("messageId", self._new_message_id())
            more = await self._offered(lists, to, named["messageId"])
        headers = more.pop("headers", {})
        context = await self._merge._rendering.context(self._record, entry.get("params"), **more)
        fields = await asyncio.to_thread(self._filled, context)
        fields |= named | {"to": [to]} | ({"headers": (fields.get("headers") or {}) | headers} if headers else {})
        # A key of a caller has no line break, since it came in a header.
        key = f"{self._key}\n{number}" if self._key else ""
        answer = await self._merge._submit.accept_for(self._record, fields, structured=self._structured, key=key)
        told = {name: answer[name] for name in ("messageId", "queueId", "sendAt", "reference") if name in answer}
        return {"success": True, "to": to} | told

    def _filled(self, context: Json) -> Json:
        """The texts for one recipient, within his share of what the whole call may take."""
        budget = self._budget.share()
        given = Budget(budget.steps, budget.characters)
        try:
            return self._kit.filled(context, budget)
        finally:
            self._budget.spend(given, budget)

    async def _offered(self, lists: Unsubscribing, to: Json, message_id: str) -> Json:
        """The way off the list: headers, and what a template can name."""
        if not self._base:
            return {"rcpt": to | {"unsubscribeUrl": ""}}
        url = await lists.url(self._base, self._record["account"], self._list_id, to["address"], message_id)
        return {"headers": list_headers(self._list_id, self._base, url), "rcpt": to | {"unsubscribeUrl": url}}

    def _new_message_id(self) -> str:
        auth = auth_of(self._record)
        given = (self._common.get("from") or {}).get("address")
        sender = given or self._record.get("email") or auth.get("delegatedUser") or auth.get("user") or ""
        return f"<{self._merge._new_uuid()}@{sender.rpartition('@')[2] or 'localhost'}>"


def _answer_key(key: str) -> str:
    return digest("mail merge", key)


def _repeated(kept: Json, key: str, payload: str) -> Json:
    seen = {"key": key, "status": "HIT", "payloadMatches": kept["payload"] == payload}
    return {"mailMerge": kept["answer"], "idempotency": seen}


def _refused(to: Json, problem: ApiError) -> Json:
    fields = problem.fields.get("fields") or [{}]
    error = fields[0].get("message") or problem.message if isinstance(problem, InvalidInput) else problem.message
    return {
        "success": False,
        "to": to,
        "error": error,
        "code": problem.code or "SubmitFail",
        "statusCode": problem.status,
    }


def _may_pass(result: Json) -> bool:
    """Whether a repeat of this entry may end otherwise."""
    status = result.get("statusCode") or 0
    return status >= 500 or status == 429
