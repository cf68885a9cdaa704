"""Request shapes of what stands around the mail."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from shared.api.fields import Absent, Boolean, Email, Input, Moment, MomentOrNow, Number, Text256


class AutoconfigQuery(Input):
    """GET /v1/autoconfig."""

    email: Email


class Verification(Input):
    """POST /v1/verifyAccount: looked at only for its form, since neither can be connected to."""

    mailboxes: Boolean = False
    imap: dict[str, Any] | bool | None = None
    smtp: dict[str, Any] | bool | None = None
    proxy: Annotated[Annotated[str, StringConstraints(max_length=1024)] | None, Absent] = None
    smtpEhloName: Annotated[Text256 | None, Absent] = None


class SyncRequest(Input):
    """PUT /v1/account/{account}/sync."""

    sync: Boolean = False


class FlushRequest(Input):
    """PUT /v1/account/{account}/flush."""

    flush: Boolean = False
    notifyFrom: MomentOrNow | None = None
    syncFrom: Moment | None = None
    imapIndexer: Annotated[Annotated[str, StringConstraints(pattern="^(full|fast)$")] | None, Absent] = None


class AppVerification(Input):
    """POST /v1/oauth2/{app}/verify."""

    account: Annotated[Text256 | None, Absent] = None
    testConnection: Boolean = False


class StatsQuery(Input):
    """GET /v1/stats."""

    seconds: Annotated[Number, Field(ge=0, le=604_800)] = 3600
