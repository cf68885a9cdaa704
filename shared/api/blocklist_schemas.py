"""Requests about blocklists (emailengine.md 19.7)."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from shared.api.fields import Absent, AccountId, Email, Input, Page


class BlocklistPage(Page):
    """GET of the lists, or of one list's addresses."""


class BlocklistEntry(Input):
    """POST /v1/blocklist/{listId}."""

    account: AccountId
    recipient: Email
    reason: Annotated[Annotated[str, StringConstraints(max_length=1024, strip_whitespace=True)] | None, Absent] = None


class BlocklistRemoval(Input):
    """DELETE /v1/blocklist/{listId}."""

    recipient: Email
