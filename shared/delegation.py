"""Follows `delegatedAccount` from an account to the account whose credentials it borrows. No I/O of its own.

Rules of emailengine.md 5.2: while an account has both `delegatedUser` and `delegatedAccount` the walk goes on
to `delegatedAccount`; 20 hops work, 21 do not; an id met twice is a loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from shared.errors import DelegationError

LONGEST_CHAIN = 20

Lookup = Callable[[str], Awaitable[dict[str, Any] | None]]


@dataclass(frozen=True)
class Chain:
    """The accounts walked, first to last. The last one holds the credentials."""

    accounts: tuple[str, ...]
    holder_record: dict[str, Any]

    @property
    def holder(self) -> str:
        return self.accounts[-1]


def parent_of(record: dict[str, Any]) -> str | None:
    """The account this one borrows from, or None when it stands for itself."""
    auth = (record.get("oauth2") or {}).get("auth") or {}
    return auth.get("delegatedAccount") if auth.get("delegatedUser") else None


def has_credentials(record: dict[str, Any]) -> bool:
    """True when the account can obtain tokens itself, by a sign-in, imported tokens or application access."""
    return bool(record.get("credentials"))


async def resolve(start: str, record: dict[str, Any], lookup: Lookup) -> Chain:
    """The chain from `start` to its credential holder.

    Raises DelegationError with the contract's text. A chain of n hops costs n look-ups.
    """
    walked = [start]
    while (parent := parent_of(record)) is not None:
        if parent in walked:
            raise DelegationError("Delegation looping detected")
        if len(walked) > LONGEST_CHAIN:
            raise DelegationError("Too many delegation hops")
        found = await lookup(parent)
        if found is None:
            raise DelegationError(f'Missing account data for delegated account "{parent}"')
        walked.append(parent)
        record = found
    if len(walked) > 1 and not has_credentials(record):
        raise DelegationError(f'Invalid account data for delegated account "{walked[-1]}"')
    return Chain(tuple(walked), record)
