"""Connecting an account: obtains a token, probes the mailbox, and says which layer refused when one did.

The probes are those of graph.md 9.2, at most two Graph calls: the profile, and the inbox, whose answer tells
Full Access. A refusal is an authenticationError with the fix; an outage is a connectError and is tried again by
itself.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from shared.accounts import Accounts, Reach, Record, auth_of, delegate_of, is_send_only
from shared.clock import Clock, iso
from shared.credentials import Credentials
from shared.errors import CredentialError, GraphFailure
from shared.events import Events
from shared.graph import requests
from shared.graph.client import Answer, Graph, TokenSource
from shared.graph.failures import hint, is_transient
from shared.graph.paths import MailboxPath
from shared.oauth_apps import OauthApp

log = logging.getLogger("graphpost.access")
RETRIES_S = (15, 60, 300, 900)  # waits before an account in an error state is tried again


class Access:
    """Calls Graph on behalf of accounts, and keeps their states true to what happened."""

    def __init__(
        self,
        accounts: Accounts,
        credentials: Credentials,
        events: Events,
        graph_of: Callable[[OauthApp], Graph],
        clock: Clock,
    ) -> None:
        self._accounts, self._credentials, self._events = accounts, credentials, events
        self._graph_of, self._clock = graph_of, clock
        self.after_connect: Callable[[Record], Awaitable[None]] | None = None
        self.on_other_mailbox: Callable[[Record], Awaitable[None]] | None = None

    # -- calls ---------------------------------------------------------------------------------------------

    def graph(self, reach: Reach) -> Graph:
        return self._graph_of(reach.app)

    def token_source(self, reach: Reach, initialising: str = "") -> TokenSource:
        """Tokens of the mailbox's credential holder; a failure is noted on the holder before it is raised, and
        the holder is tried again by itself, unless it is the account being initialised."""

        async def token(rejected: str | None) -> str:
            try:
                return await self._token(reach, rejected)
            except CredentialError as failure:
                if reach.reader:
                    raise  # the reader's trouble, not the holder's: reading falls back to the holder's own token
                known = await self.note_failure(reach.holder, failure, reach.version)
                if known and reach.holder != initialising:
                    await self._try_again(reach.holder, 0)
                raise

        return token

    async def _token(self, reach: Reach, rejected: str | None) -> str:
        """A refusal may be about an app whose secret another process has set anew since this one read it."""
        try:
            return await self._credentials.token(reach.holder, reach.app, rejected, reach.version)
        except CredentialError as failure:
            newer = None if failure.transient else await self._accounts.newer_app(reach.app)
            if newer is None:
                raise
        return await self._credentials.token(reach.holder, newer, rejected, reach.version)

    async def call(self, reach: Reach, build: Callable[[Any], Any], initialising: str = "") -> Answer:
        """One Graph call for the mailbox: `build` makes the request from the SDK's client.

        Raises GraphFailure or CredentialError.
        """
        graph = self.graph(reach)
        token = self.token_source(reach, initialising)
        return await graph.call(reach.mailbox, reach.app, token, build(graph.client))

    async def call_as(self, app: OauthApp, build: Callable[[Any], Any]) -> Answer:
        """One Graph call of an application itself, about no account. Raises GraphFailure or CredentialError."""
        graph = self._graph_of(app)

        async def token(rejected: str | None) -> str:
            return await self._credentials.token("", app, rejected)

        return await graph.call(MailboxPath(), app, token, build(graph.client))

    async def follow_as(self, app: OauthApp, link: str) -> Answer:
        """The page behind a link that Graph gave to `call_as`."""
        return await self.call_as(app, lambda _: self._graph_of(app).follow(link))

    # -- connecting ----------------------------------------------------------------------------------------

    async def initialise(self, account: str, attempt: int = 0, force: bool = False) -> None:
        """Connects the account and notes the outcome on its record."""
        record = await self._accounts.find(account)
        if record is not None:
            await self._tell_failures(record)
        is_done = record is not None and record["state"] in ("connected", "unset") and not record.get("unfinished")
        if record is None or (is_done and not force):
            return
        version = (record.get("reach") or {}).get("version")
        try:
            reach = await self._accounts.reach(record)
            found = await self._probe(record, reach)
        except CredentialError as failure:
            await self.note_failure(account, failure, version)
            await self._try_again(account, attempt)
        except GraphFailure as failure:
            mailbox = auth_of(record).get("delegatedUser") or record.get("email") or account
            text = hint(failure, mailbox, await self._delegate(record))
            await self._note_graph_failure(account, failure, text)
            await self._try_again(account, attempt)
        else:
            await self._finish(record, reach, found)

    async def _finish(self, before: Record, reach: Reach, found: dict[str, Any]) -> None:
        """What follows a successful probe. The record says `unfinished` until all of it is done, so that a process
        that dies in between is followed by one that does it again."""
        if self.on_other_mailbox is not None and before.get("inbox") not in (None, found.get("inbox")):
            await self.on_other_mailbox(before)
        record = await self.note_success(before["account"], found)
        if record is None:
            return
        await self._wake(record["account"], reach)
        if self.after_connect is not None:
            await self.after_connect(record)
        await self._accounts.change(
            record["account"], lambda current: {k: v for k, v in current.items() if k != "unfinished"}
        )

    async def _probe(self, record: Record, reach: Reach) -> dict[str, Any]:
        """What the record learns from the mailbox: language, principal name, inbox id."""
        learned: dict[str, Any] = {}
        account = record["account"]
        try:
            profile = (await self.call(reach, lambda c: requests.profile(c, reach.mailbox), account)).json()
        except GraphFailure as failure:
            # Another user's profile is 403 without User.ReadBasic.All, and 404 for an address that is not the
            # principal name; the mailbox may be open all the same (graph.md 8.2, 9.2).
            if reach.mailbox.user is None or failure.status not in (403, 404):
                raise
        else:
            language = (profile.get("preferredLanguage") or "").split("-")[0]
            if language and not record.get("locale"):
                learned["locale"] = language
            if reach.mailbox.user is None and profile.get("userPrincipalName"):
                learned["user"] = profile["userPrincipalName"]
        holder = record if reach.holder == account else await self._accounts.find(reach.holder)
        learned["sendOnly"] = is_send_only(holder or record)
        if learned["sendOnly"]:
            return learned
        inbox = (await self.call(reach, lambda c: requests.folder(c, reach.mailbox, "inbox"), account)).json()
        return learned | {"inbox": inbox["id"]}

    async def _delegate(self, record: Record) -> str:
        """The person whose rights are used, as the administrator knows them."""
        holder = (record.get("reach") or {}).get("holder")
        if holder and holder != record["account"]:
            record = await self._accounts.find(holder) or record
        return delegate_of(record)

    async def _try_again(self, account: str, attempt: int) -> None:
        """A few times soon; after that the hourly sweep tries every account that is in an error."""
        if attempt < len(RETRIES_S):
            await self._accounts.queue_job(account, "initialise", RETRIES_S[attempt], attempt=attempt + 1)

    async def take_up(self) -> int:
        """Tries every account that is not connected though it could be; the number tried."""
        found = 0
        async for record in self._accounts.all():
            is_failing = record["state"] in ("connecting", "connectError", "authenticationError")
            if is_failing or record.get("unfinished") or record.get("untold"):
                await self._accounts.queue_job(record["account"], "initialise", attempt=len(RETRIES_S))
                found += 1
        return found

    async def _wake(self, account: str, reach: Reach) -> None:
        """Accounts that borrow from this one and wait in an error are tried at once: its recovery is theirs. The
        others look for what came while there was no token."""
        if reach.holder != account:
            return
        for child in await self._accounts.borrowers(account):
            record = await self._accounts.find(child)
            if record is not None and record["state"] != "unset":
                do = "catch_up" if record["state"] == "connected" else "initialise"
                await self._accounts.queue_job(child, do)

    # -- states --------------------------------------------------------------------------------------------

    async def note_success(self, account: str, learned: dict[str, Any]) -> Record | None:
        """The account is connected; events accountInitialized and authenticationSuccess as due (4.1)."""
        now = iso(self._clock())

        def connect(record: Record) -> Record:
            had_failed, was = record.pop("failing", None) is not None, record["state"]
            news = "first" if not record.get("initialized") else "again" if had_failed else ""
            user = learned.get("user")
            if user and record.get("oauth2") and not auth_of(record).get("delegatedAccount"):
                record["oauth2"]["auth"] = auth_of(record) | {"user": user}
            record |= {k: v for k, v in learned.items() if k != "user"}
            record |= {"state": "connected", "lastError": None, "initialized": True, "syncTime": now}
            return record | {"unfinished": record.get("unfinished") or {"news": news, "at": now, "was": was}}

        record = await self._accounts.change(account, connect)
        if record is None:
            return None
        await self._tell_failures(record)
        news, at = record["unfinished"]["news"], record["unfinished"]["at"]
        if news == "first":
            happening = f"initialized {record['created']} {record.get('flushed', '')}"
            await self._events.emit(account, "accountInitialized", {"initialized": True}, happening=happening)
        if news == "again":
            await self._accounts.queue_job(account, "catch_up")  # what came while the mailbox was out of reach
        if news:
            user = auth_of(record).get("user") or auth_of(record).get("delegatedUser") or record.get("email")
            happening = f"authenticated {at}"
            await self._events.emit(account, "authenticationSuccess", {"user": user}, happening=happening)
        return record

    async def note_failure(self, account: str, failure: CredentialError, version: str | None = None) -> bool:
        """No token: authenticationError, or connectError when only the way to the login service is broken. True
        when it was not known before. `version` names the sign-in that failed: when the holder has a newer one, the
        failure says nothing any more and is not noted."""
        record = await self._accounts.find(account)
        holder = ((record or {}).get("reach") or {}).get("holder")
        if record is not None and holder and holder != account:
            account = holder  # every borrower shows the cause from there
        return await self._note(account, failure.transient, failure.last_error, version)

    async def _note_graph_failure(self, account: str, failure: GraphFailure, text: str) -> None:
        error = {"response": str(failure), "serverResponseCode": "ApiRequestError"}
        error |= {"description": text} if text else {}
        error |= {"requestId": failure.request_id} if failure.request_id else {}
        await self._note(account, is_transient(failure), error)

    async def _note(self, account: str, transient: bool, error: dict[str, Any], version: str | None = None) -> bool:
        """True when this is news. The event that is due is kept on the record until it was told, so that the next
        one who looks tells it where a process died in between."""
        state = "connectError" if transient else "authenticationError"
        data = {k: v for k, v in error.items() if k in ("response", "serverResponseCode", "tokenRequest")}
        untold = {"event": state, "data": data, "id": secrets.token_hex(8)}

        def fail(record: Record) -> Record:
            if version is not None and (record.get("credentialsVersion") or "") != version:
                return record
            shown = {k: v for k, v in error.items() if k != "requestId"}
            # What was told is kept apart from the state, which a changed setting moves to `connecting` in between.
            if record.get("failing") == shown | {"state": state}:
                is_shown = record["state"] == state and record.get("lastError")
                return record if is_shown else record | {"state": state, "lastError": error}
            due = [*record.get("untold", ()), untold]
            return record | {"state": state, "lastError": error, "failing": shown | {"state": state}, "untold": due}

        record = await self._accounts.change(account, fail)
        if record is None:
            return False
        is_news = untold in record.get("untold", ())
        if is_news and not transient:
            log.error("graphpost.accounts.authentication_error code=%s", error.get("serverResponseCode"))
        await self._tell_failures(record)
        return is_news

    async def _tell_failures(self, record: Record) -> None:
        """Tells the failures that the record holds as untold. Twice is harmless: each has an id of its own."""
        due, account = record.get("untold") or [], record["account"]
        for one in due:
            await self._events.emit(account, one["event"], one["data"], happening=f"{one['event']} {one['id']}")

        def told(current: Record) -> Record:
            left = [one for one in current.get("untold", ()) if one not in due]
            rest = {name: value for name, value in current.items() if name != "untold"}
            return rest | ({"untold": left} if left else {})

        if due:
            await self._accounts.change(account, told)
