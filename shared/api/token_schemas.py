"""What is asked for with access tokens beyond making them (emailengine.md 3)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.api.fields import Input, Number, Page


class RateRule(Input):
    """`restrictions.rateLimit`: so many calls in so many seconds."""

    maxRequests: Annotated[Number, Field(ge=1, le=1_000_000_000)]
    timeWindow: Annotated[Number, Field(ge=1, le=31_536_000)]


class TokenLogPage(Page):
    """GET /v1/tokens/{token}/log."""

    pageSize: Annotated[Number, Field(ge=1, le=200)] = 20
