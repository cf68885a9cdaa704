"""Access tokens of the API: stored only as hashes, checked in the contract's order (emailengine.md 1.2, 3)."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from shared.clock import Clock, iso, parse_time
from shared.errors import ApiError, Forbidden, RecordDamaged, Unauthorized
from shared.storage.tables import Row, Table

KEY = "token"


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
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _refers(pattern: str, referrer: str) -> bool:
    """`*` stands for anything; a pattern without a scheme is compared with host and path alone."""
    parts = urlsplit(referrer)
    subject = referrer if "://" in pattern else f"{parts.netloc}{parts.path}"
    expression = ".*".join(re.escape(piece) for piece in pattern.split("*"))
    return re.fullmatch(expression, subject, re.IGNORECASE) is not None


def token_id(token: str) -> str:
    """The id of a token: SHA-256 of its 32 bytes (1.6). ValueError when it is not 64 hex digits."""
    if not re.fullmatch(r"[0-9a-f]{64}", token):
        raise ValueError("an access token is 64 hex digits")
    return hashlib.sha256(bytes.fromhex(token)).hexdigest()


class AccessTokens:
    """Mints, checks and lists access tokens. The value of a token is known only to who asked for it."""

    def __init__(self, table: Table, clock: Clock, bootstrap: str, bootstrap_id: str = "") -> None:
        self._table, self._clock = table, clock
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
            return Grant(identity)
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
        )

    def _expired(self, row: Row) -> bool:
        expires = row.value.get("expires")
        return isinstance(expires, str) and parse_time(expires) <= self._clock()

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
            _view(row.value)
            async for row in self._table.scan()
            if (account is None or row.value.get("account") == account)
            and wanted in (row.value.get("description") or "").lower()
        ]
        return sorted(found, key=lambda view: str(view["created"]), reverse=True)

    async def view(self, token_or_id: str) -> dict[str, Any] | None:
        """One token by its value or its id, or None."""
        for identity in self._identities(token_or_id):
            if row := await self._readable(identity):
                return _view(row.value)
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
                return True
        return False

    async def delete_of_account(self, account: str) -> None:
        """Removes every token bound to an account."""
        async for row in self._table.scan():
            if row.value.get("account") == account:
                await self._table.delete(row.partition, row.key)

    @staticmethod
    def _identities(token_or_id: str) -> list[str]:
        try:
            return [token_or_id, token_id(token_or_id)]
        except ValueError:
            return []


def _view(record: dict[str, Any]) -> dict[str, Any]:
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
        "access": {"time": None, "ip": None},
        "id": record["id"],
    }
