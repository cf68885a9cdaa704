"""Access tokens of the API: stored only as hashes, checked in the contract's order (emailengine.md 1.2, 3)."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from shared.clock import Clock, iso, parse_time
from shared.errors import ApiError, Forbidden, RecordDamaged, Unauthorized
from shared.storage.tables import Row, Table
from shared.token_use import RateLimit, TokenUse

KEY = "token"
USE_NOTED = timedelta(minutes=10)  # how exact `access` is
MOST_NOTED = 5000


@dataclass(frozen=True)
class Operation:
    """What is asked for: the contract's coordinates (section 2), and the account it concerns if any."""

    group: str
    action: str
    account: str | None = None

    @property
    def permission(self) -> str:
        return f"{self.group}:{self.action}"


@dataclass(frozen=True)
class Caller:
    """Where a request came from."""

    address: str = ""
    referrer: str = ""


@dataclass(frozen=True)
class Grant:
    """What a presented token allows."""

    token_id: str
    scopes: tuple[str, ...] = ("*",)
    account: str | None = None
    permissions: dict[str, Any] | None = None
    restrictions: dict[str, Any] = field(default_factory=dict)
    expires: str | None = None
    counts_for: str = ""  # the token whose rate limit the calls of this one use up; its own when empty
    is_bootstrap: bool = False

    @property
    def rate_limit(self) -> RateLimit | None:
        """The limit of this token's calls; None for none."""
        rule = self.restrictions.get("rateLimit")
        return RateLimit(self.counts_for or self.token_id, rule["maxRequests"], rule["timeWindow"]) if rule else None

    def confine(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of a token made with this one, which can not be used to step outside this one's limits."""
        if self.restrictions:
            fields = fields | {"restrictions": self.restrictions}
            fields |= {"countsFor": self.counts_for or self.token_id} if self.rate_limit else {}
        if self.expires and self.expires < (fields.get("expires") or "9999"):
            fields = fields | {"expires": self.expires}
        return fields

    @property
    def is_unrestricted(self) -> bool:
        return self.account is None and not self.permissions and not self.restrictions

    def check(self, operation: Operation, caller: Caller) -> None:
        """Raises the contract's 403 when the token does not cover the operation."""
        if not {"api", "*"} & set(self.scopes):
            raise Forbidden("Unauthorized scope", requestedScope="api")
        if self.permissions and not self._permits(operation):
            raise Forbidden("Unauthorized permission", requiredPermission=operation.permission)
        if self.account is not None and operation.account != self.account:
            raise Forbidden("Unauthorized account")
        self._check_restrictions(caller)

    def _permits(self, operation: Operation) -> bool:
        permissions = self.permissions or {}
        return (
            operation.group != "admin"
            and operation.group in permissions.get("groups", [])
            and operation.action in permissions.get("actions", [])
        )

    def _check_restrictions(self, caller: Caller) -> None:
        addresses = self.restrictions.get("addresses") or []
        if addresses and not any(_contains(network, caller.address) for network in addresses):
            raise Forbidden("Unauthorized address", remoteAddress=caller.address)
        referrers = self.restrictions.get("referrers") or []
        if referrers and not any(_refers(pattern, caller.referrer) for pattern in referrers):
            raise Forbidden("Unauthorized referrer")


def _contains(network: str, address: str) -> bool:
    try:
        caller = ipaddress.ip_address(address.partition("%")[0])
        within = ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
    mapped = caller.ipv4_mapped if isinstance(caller, ipaddress.IPv6Address) else None
    return caller in within or (mapped is not None and mapped in within)


def _refers(pattern: str, referrer: str) -> bool:
    """`*` stands for anything; a pattern without a scheme is compared with host and path alone."""
    subject = referrer
    if "://" not in pattern:
        try:
            parts = urlsplit(referrer)
        except ValueError:
            return False
        subject = f"{parts.netloc}{parts.path}"
    return _fits(pattern.lower(), subject.lower())


def _fits(pattern: str, text: str) -> bool:
    """Whether the text is the pattern with something for each `*`. Looks at each character a bounded number of times:
    a regular expression with many stars can take for ever."""
    first, *pieces = pattern.split("*")
    if not pieces:
        return pattern == text
    last = pieces.pop()
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in pieces:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def token_id(token: str) -> str:
    """The id of a token: SHA-256 of its 32 bytes (1.6). ValueError when it is not 64 hex digits."""
    if not re.fullmatch(r"[0-9a-f]{64}", token):
        raise ValueError("an access token is 64 hex digits")
    return hashlib.sha256(bytes.fromhex(token)).hexdigest()


class AccessTokens:
    """Mints, checks and lists access tokens. The value of a token is known only to who asked for it."""

    def __init__(self, table: Table, clock: Clock, bootstrap: str, use: TokenUse, bootstrap_id: str = "") -> None:
        self._table, self._clock, self.use = table, clock, use
        self._noted: dict[str, datetime] = {}
        self._bootstrap_ids = [one for one in (token_id(bootstrap) if bootstrap else "", bootstrap_id) if one]

    def _is_bootstrap(self, identity: str) -> bool:
        return any(hmac.compare_digest(identity, known) for known in self._bootstrap_ids)

    async def grant_of(self, presented: str | None) -> Grant:
        """What the presented token allows; 401 when there is none or it is not known. One transaction, none
        for the bootstrap token."""
        if not presented:
            raise Unauthorized("Missing authentication")
        try:
            identity = token_id(presented)
        except ValueError:
            raise Unauthorized("Bad token") from None
        if self._is_bootstrap(identity):
            return Grant(identity, is_bootstrap=True)
        row = await self._readable(identity)
        if row is None or self._expired(row):
            raise Unauthorized("Bad token")
        record = row.value
        return Grant(
            identity,
            tuple(record["scopes"]),
            record.get("account"),
            record.get("permissions"),
            record.get("restrictions") or {},
            record.get("expires"),
            record.get("countsFor", ""),
        )

    def _expired(self, row: Row) -> bool:
        expires = row.value.get("expires")
        return isinstance(expires, str) and parse_time(expires) <= self._clock()

    async def note_access(self, grant: Grant, address: str) -> None:
        """Keeps when and from where a token was used last. One transaction, at most every ten minutes for a token."""
        now, noted = self._clock(), self._noted.get(grant.token_id)
        if grant.is_bootstrap or (noted is not None and timedelta(0) <= now - noted < USE_NOTED):
            return
        if len(self._noted) >= MOST_NOTED:
            self._noted.clear()
        self._noted[grant.token_id] = now
        await self._table.set_columns(grant.token_id, KEY, {"usedAt": iso(now), "usedFrom": address})

    async def mint(self, fields: dict[str, Any]) -> dict[str, str]:
        """A new token and its id. Only the hash is stored."""
        token = secrets.token_hex(32)
        identity = token_id(token)
        record = {**fields, "id": identity, "created": iso(self._clock())}
        await self._table.insert(Row(identity, KEY, record))
        return {"token": token, "id": identity}

    async def views(self, account: str | None = None, query: str | None = None) -> list[dict[str, Any]]:
        """Tokens as the API shows them, newest first; of one account when given."""
        wanted = (query or "").lower()
        found = [
            _view(row)
            async for row in self._table.scan()
            if (account is None or row.value.get("account") == account)
            and wanted in (row.value.get("description") or "").lower()
        ]
        return sorted(found, key=lambda view: str(view["created"]), reverse=True)

    async def view(self, token_or_id: str) -> dict[str, Any] | None:
        """One token by its value or its id, or None."""
        for identity in self._identities(token_or_id):
            if row := await self._readable(identity):
                return _view(row)
        return None

    async def _readable(self, identity: str) -> Row | None:
        """The record; a damaged one allows nothing and shows nothing, but it can be deleted."""
        try:
            return await self._table.get(identity, KEY)
        except RecordDamaged:
            return None

    async def delete(self, token_or_id: str) -> bool:
        """True when a token was removed. The bootstrap token belongs to the settings: 403."""
        for identity in self._identities(token_or_id):
            if identity in self._bootstrap_ids:
                raise ApiError(
                    403, "The bootstrap token is defined by BOOTSTRAP_TOKEN or BOOTSTRAP_TOKEN_ID. Change it there."
                )
            if await self._table.delete(identity, KEY):
                await self.use.forget(identity)
                return True
        return False

    async def delete_of_account(self, account: str) -> None:
        """Removes every token bound to an account."""
        async for row in self._table.scan():
            if row.value.get("account") == account:
                await self._table.delete(row.partition, row.key)
                await self.use.forget(row.partition)

    async def sweep(self) -> int:
        """Cuts the audit logs, and removes what is left of tokens that are gone; how many entries."""
        return await self.use.sweep(self._known)

    async def _known(self) -> set[str]:
        """Every token, and those gone ones whose limit is still counted on by tokens that were made with them."""
        counted = {str(row.value.get("countsFor")) async for row in self._table.scan()}
        return counted | {partition for partition, _ in await self._table.keys()}

    @staticmethod
    def _identities(token_or_id: str) -> list[str]:
        try:
            return [token_or_id, token_id(token_or_id)]
        except ValueError:
            return []


def _view(row: Row) -> dict[str, Any]:
    record = row.value
    return {
        "account": record.get("account"),
        "description": record.get("description"),
        "metadata": record.get("metadata"),
        "ip": record.get("ip"),
        "remoteAddress": record.get("remoteAddress"),
        "scopes": record["scopes"],
        "restrictions": record.get("restrictions"),
        "permissions": record.get("permissions"),
        "created": record["created"],
        "expires": record.get("expires"),
        "access": {"time": row.columns.get("usedAt"), "ip": row.columns.get("usedFrom") or None},
        "id": record["id"],
    }
