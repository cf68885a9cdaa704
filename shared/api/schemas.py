"""Request bodies and queries, one class each. What is accepted here has an effect, or the contract says that it
has none; everything else is refused with the field's name."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from shared.api.fields import (
    Absent,
    AccountId,
    Address,
    Boolean,
    Email,
    Header,
    Input,
    Moment,
    MomentOrNow,
    Name,
    Number,
    Page,
    Single,
    Text256,
    Url,
)
from shared.api.reference_schemas import Reference, TimeZone
from shared.api.settings_schemas import FurtherSettings
from shared.api.template_schemas import MergeRules
from shared.api.token_schemas import RateRule
from shared.events import EVENT_TYPES
from shared.oauth_apps import SHARED_AUTHORITIES

RELAY = (
    "has no effect here: this service speaks Microsoft Graph only and has no {name} connections. Use any Microsoft "
    "365 account as the relay: connect it over POST /v1/authentication/form, or add an application-access account "
    "(an OAuth2 app with provider outlookService), and name it in oauth2.auth.delegatedAccount"
)


def _no_server(name: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if value not in (None, False):
            raise ValueError(RELAY.format(name=name.upper()))
        return None

    return BeforeValidator(check)


def _later(what: str) -> BeforeValidator:
    """A field of the contract that this version does not carry: refused, never ignored."""

    def check(value: Any) -> Any:
        if value not in (None, False, "", [], {}):
            raise ValueError(f"is not available on this service yet ({what}). Leave it out")
        return None

    return BeforeValidator(check)


Path = Annotated[list[Annotated[str, StringConstraints(max_length=1024)]] | None, Single]
Subconnections = Annotated[list[Text256] | None, Single]


class Auth(Input):
    """Who signs in, and whose mailbox it is (5.1)."""

    user: Annotated[Name | None, Absent] = None
    delegatedUser: Annotated[Name | None, Absent] = None
    delegatedAccount: Annotated[Name | None, Absent] = None

    @model_validator(mode="after")
    def _whole(self) -> Auth:
        if self.delegatedAccount and not self.delegatedUser:
            raise ValueError('"delegatedUser" is required together with "delegatedAccount"')
        return self


Token = Annotated[str, StringConstraints(max_length=16384)]


class Oauth2(Input):
    """The `oauth2` object of an account."""

    authorize: Boolean | None = None
    redirectUrl: Annotated[Url | None, Absent] = None
    provider: Annotated[Name | None, Absent] = None
    auth: Auth | None = None
    accessToken: Annotated[Token | None, Absent] = None
    refreshToken: Annotated[Token | None, Absent] = None
    expires: Moment | None = None
    authority: Annotated[Text256 | None, Absent] = None
    useAuthServer: Annotated[None, _later("tokens from an external credential service")] = None


class Oauth2Update(Oauth2):
    partial: Boolean = False


def _false_is_absent(value: Any) -> Any:
    return None if value is False else value


class AccountFields(Input):
    """What create and update have in common (6.1)."""

    email: Annotated[Email | None, Absent] = None
    expectedEmail: Annotated[Email | None, Absent] = None
    path: Path = None
    subconnections: Subconnections = None
    webhooks: Annotated[Url | None, Absent] = None
    webhooksCustomHeaders: list[Header] | None = None
    copy_: Annotated[Boolean | None, Field(alias="copy")] = None
    logs: Boolean = False
    notifyFrom: MomentOrNow | None = None
    syncFrom: Moment | None = None
    proxy: Annotated[Annotated[str, StringConstraints(max_length=1024)] | None, Absent] = None
    smtpEhloName: Annotated[Text256 | None, Absent] = None
    imapIndexer: Literal["full", "fast"] | None = None
    imap: Annotated[None, _no_server("imap")] = None
    smtp: Annotated[None, _no_server("smtp")] = None
    locale: Annotated[Annotated[str, StringConstraints(max_length=100)] | None, Absent] = None
    tz: Annotated[Annotated[str, StringConstraints(max_length=100)] | None, Absent] = None


class AccountCreate(AccountFields):
    account: AccountId | None
    name: Name
    oauth2: Annotated[Oauth2 | None, BeforeValidator(_false_is_absent)] = None

    @model_validator(mode="after")
    def _whole_oauth2(self) -> AccountCreate:
        if self.oauth2 is None:
            return self
        if self.oauth2.authorize:
            if self.oauth2.accessToken or self.oauth2.refreshToken:
                raise ValueError('"accessToken" and "refreshToken" can not be given together with "authorize"')
        elif self.oauth2.auth is None:
            raise ValueError('"auth" is required')
        elif self.oauth2.redirectUrl:
            raise ValueError('"redirectUrl" is only allowed together with "authorize"')
        return self


class AccountUpdate(AccountFields):
    name: Name | None = None
    oauth2: Annotated[Oauth2Update | None, BeforeValidator(_false_is_absent)] = None


class AccountQuery(Input):
    quota: Boolean = False


class AccountDelete(Input):
    revoke: Boolean = False


class AccountList(Page):
    state: (
        Literal[
            "init", "connecting", "syncing", "connected", "authenticationError", "connectError", "unset",
            "disconnected", "paused",
        ]
        | None
    ) = None  # fmt: skip
    query: Annotated[Text256 | None, Absent] = None


class Reconnect(Input):
    reconnect: Boolean = False


class SetupLink(Input):
    """What a signed link holds. Clients that sign links themselves may leave out where the browser ends."""

    account: Annotated[AccountId | None, Absent] = None
    name: Annotated[Name | None, Absent] = None
    email: Annotated[Email | None, Absent] = None
    expectedEmail: Annotated[Email | None, Absent] = None
    delegated: Boolean = False
    syncFrom: Moment | None = None
    notifyFrom: MomentOrNow | None = None
    subconnections: Subconnections = None
    path: Path = None
    redirectUrl: Annotated[Url | None, Absent] = None


class AuthenticationForm(SetupLink):
    """POST /v1/authentication/form (7.1)."""

    redirectUrl: Url
    type: Annotated[Name | None, Absent, BeforeValidator(_false_is_absent)] = None


Scope = Annotated[str, StringConstraints(max_length=255, strip_whitespace=True, pattern=r"^[\x21-\x7e]+$")]


class Oauth2AppFields(Input):
    description: Annotated[Annotated[str, StringConstraints(max_length=1024)] | None, Absent] = None
    title: Annotated[Text256 | None, Absent] = None
    enabled: Boolean = False
    clientId: Annotated[Name | None, Absent, BeforeValidator(_false_is_absent)] = None
    clientSecret: Annotated[Annotated[str, StringConstraints(max_length=256)] | None, Absent] = None
    extraScopes: Annotated[list[Scope] | None, Single] = None
    skipScopes: Annotated[list[Scope] | None, Single] = None
    authority: Annotated[
        Annotated[str, StringConstraints(max_length=1024, pattern=r"^[A-Za-z0-9.\-]+$")] | None, Absent
    ] = None
    cloud: Literal["global", "gcc-high", "dod", "china"] | None = None
    tenant: Annotated[
        Annotated[str, StringConstraints(max_length=1024, pattern=r"^[A-Za-z0-9.\-]+$")] | None, Absent
    ] = None
    redirectUrl: Annotated[Url | None, Absent] = None
    readerApp: Annotated[Name | None, Absent] = None


class Oauth2AppCreate(Oauth2AppFields):
    name: Annotated[Name, StringConstraints(min_length=1)]
    provider: Literal["outlook", "outlookService"]
    baseScopes: Literal["api"] = "api"

    @model_validator(mode="after")
    def _tenant_of_application(self) -> Oauth2AppCreate:
        own = [one for one in (self.authority, self.tenant) if one and one not in SHARED_AUTHORITIES]
        if self.provider == "outlookService" and not own:
            raise ValueError('"authority" must be the tenant id for application access')
        return self


class Oauth2AppUpdate(Oauth2AppFields):
    name: Annotated[Name, StringConstraints(min_length=1)] | None = None


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError("must be an IP address or a network in CIDR notation") from None
    return value


class Restrictions(Input):
    referrers: Annotated[list[Text256] | None, Single] = None
    addresses: Annotated[list[Annotated[str, AfterValidator(_network)]] | None, Single] = None
    rateLimit: RateRule | None = None


class Permissions(Input):
    actions: Annotated[list[Literal["read", "write", "send", "destructive"]], Field(min_length=1)]
    groups: Annotated[
        list[
            Literal[
                "account", "mailbox", "message", "submit", "outbox", "export", "template", "blocklist", "webhook",
                "gateway", "events", "diagnostics", "logs",
            ]
        ],
        Field(min_length=1),
    ]  # fmt: skip


def _json_text(value: str) -> str:
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("must hold JSON") from None
    return value


class TokenCreate(Input):
    """POST /v1/tokens (3)."""

    account: Annotated[AccountId | None, Absent] = None
    description: Annotated[str, StringConstraints(max_length=1024, strip_whitespace=True)]
    scopes: Annotated[list[Literal["api", "smtp", "imap-proxy", "mcp"]], Single] = Field(default=["api"])
    metadata: Annotated[
        Annotated[str, StringConstraints(max_length=1_048_576), AfterValidator(_json_text)] | None, Absent
    ] = None
    restrictions: Restrictions | None = None
    permissions: Permissions | None = None
    expires: Moment | None = None
    ip: Annotated[Text256 | None, Absent] = None


class TokenList(Page):
    account: Annotated[AccountId | None, Absent] = None
    query: Annotated[Text256 | None, Absent] = None


def _base64(value: str) -> str:
    try:
        base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be a valid base64 string") from None
    return "".join(value.split())


class Attachment(Input):
    filename: Annotated[
        Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")] | None, Absent
    ] = None
    contentType: Annotated[Annotated[str, StringConstraints(max_length=256, strip_whitespace=True)] | None, Absent] = (
        None
    )
    contentDisposition: Literal["inline", "attachment"] | None = None
    cid: Annotated[Annotated[str, StringConstraints(max_length=256, pattern=r"^[\x21-\x7e]*$")] | None, Absent] = None
    encoding: Literal["base64"] = "base64"
    content: Annotated[str, StringConstraints(max_length=5_242_880), AfterValidator(_base64)] | None = None
    reference: Annotated[Annotated[str, StringConstraints(max_length=2048, strip_whitespace=True)] | None, Absent] = (
        None
    )

    @model_validator(mode="after")
    def _one_source(self) -> Attachment:
        if self.reference and self.content is not None:
            raise ValueError('"reference" can not be given together with "content"')
        if not self.reference and self.content is None:
            raise ValueError('"content" is required, or a "reference" to an attachment of a stored message')
        return self


LongText = Annotated[Annotated[str, StringConstraints(max_length=5_242_880, strip_whitespace=True)] | None, Absent]
Recipients = Annotated[list[Address] | None, Single]


class Envelope(Input):
    """Informative on Graph: it shows in the queue entry and in webhooks (14.1)."""

    from_: Annotated[Email | None, Field(alias="from"), Absent] = None
    to: Annotated[list[Email], Single] = Field(default=[])


class SubmitQuery(Input):
    useStructuredFormat: Boolean = False
    documentStore: Boolean = False


class SubmitMessage(MergeRules):
    """POST /v1/account/{account}/submit (14.1)."""

    from_: Annotated[Address | None, Field(alias="from")] = None
    to: Recipients = None
    cc: Recipients = None
    bcc: Recipients = None
    replyTo: Recipients = None
    subject: Annotated[Annotated[str, StringConstraints(max_length=10240, strip_whitespace=True)] | None, Absent] = None
    text: LongText = None
    html: LongText = None
    previewText: Annotated[Annotated[str, StringConstraints(max_length=1024)] | None, Absent] = None
    attachments: list[Attachment] | None = None
    messageId: Annotated[Annotated[str, StringConstraints(max_length=996)] | None, Absent] = None
    headers: dict[str, Annotated[str, StringConstraints(max_length=100_000)]] | None = None
    sendAt: Moment | None = None
    deliveryAttempts: Annotated[Number, Field(ge=1, le=100)] | None = None
    envelope: Envelope | None = None
    # Without effect on Graph, as the contract says.
    copy_: Annotated[Boolean | None, Field(alias="copy")] = None
    sentMailPath: Annotated[Annotated[str, StringConstraints(max_length=1024)] | None, Absent] = None
    gateway: Annotated[Text256 | None, Absent] = None
    dsn: dict[str, Any] | None = None
    proxy: Annotated[Annotated[str, StringConstraints(max_length=1024)] | None, Absent] = None
    localAddress: Annotated[Text256 | None, Absent] = None
    locale: Annotated[Annotated[str, StringConstraints(max_length=100)] | None, Absent] = None
    tz: Annotated[TimeZone | None, Absent] = None
    baseUrl: Annotated[Url | None, Absent] = None
    raw: Annotated[Annotated[str, StringConstraints(max_length=5_242_880), AfterValidator(_base64)] | None, Absent] = (
        None
    )
    reference: Reference | None = None
    trackOpens: Boolean | None = None
    trackClicks: Boolean | None = None
    trackingEnabled: Boolean | None = None
    dryRun: Boolean = False

    @model_validator(mode="after")
    def _raw_alone(self) -> SubmitMessage:
        if self.raw:
            for name in ("subject", "text", "html", "previewText", "attachments"):
                if getattr(self, name):
                    raise ValueError(f'"{name}" can not be given together with "raw"')
            if self.reference and (self.reference.inline or self.reference.forwardAttachments):
                name = "inline" if self.reference.inline else "forwardAttachments"
                raise ValueError(f'"{name}" can not be given together with "raw", whose content stays as it is')
        return self

    @field_validator("subject")
    @classmethod
    def _one_line(cls, value: str | None) -> str | None:
        # A line break in a subject would start a new header.
        return " ".join(value.splitlines()) if value else value


EventName = Annotated[str, WithJsonSchema({"enum": ["*", *EVENT_TYPES]})]


class SettingsBody(FurtherSettings):
    """POST /v1/settings (17). Null removes a setting."""

    serviceUrl: Annotated[Url | None, Absent] = None
    notificationBaseUrl: Annotated[Url | None, Absent] = None
    serviceSecret: Annotated[Annotated[str, StringConstraints(max_length=1024)] | None, Absent] = None
    serviceSecretOld: Literal["******"] | None = None
    webhooksEnabled: Boolean | None = None
    webhooks: Annotated[Url | None, Absent] = None
    webhookEvents: Annotated[list[EventName] | None, Single] = None
    webhooksCustomHeaders: list[Header] | None = None
    notifyHeaders: Annotated[list[Text256] | None, Single] = None
    notifyText: Boolean | None = None
    notifyTextSize: Annotated[Number, Field(ge=0, le=1_073_741_824)] | None = None
    inboxNewOnly: Boolean | None = None
    deliveryAttempts: Annotated[Number, Field(ge=0, le=100)] | None = None
    templateHeader: Annotated[Annotated[str, StringConstraints(max_length=100_000)] | None, Absent] = None
    templateHtmlHead: Annotated[Annotated[str, StringConstraints(max_length=100_000)] | None, Absent] = None
    pageBrandName: Annotated[Text256 | None, Absent] = None

    @field_validator("serviceSecret", mode="before")
    @classmethod
    def _kept(cls, value: Any) -> Any:
        # All signatures hang on it: an empty field of a form must not replace it. Null makes a new one.
        if value == "":
            raise ValueError("is not allowed to be empty")
        return value

    @field_validator("webhookEvents")
    @classmethod
    def _known(cls, value: list[str] | None) -> list[str] | None:
        for event in value or ():
            if event != "*" and event not in EVENT_TYPES:
                shown = event[:100].encode("utf-8", "replace").decode()  # pydantic can not carry half a character
                raise ValueError(f'has an unknown event "{shown}". Known: *, {", ".join(EVENT_TYPES)}')
        return value


class DeadLetters(Page):
    """GET /v1/webhooks/dead."""

    account: Annotated[AccountId | None, Absent] = None


class Replay(Input):
    """POST /v1/webhooks/replay: which dead letters; all without a field."""

    account: Annotated[AccountId | None, Absent] = None
    endpoint: Annotated[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{24}$")] | None, Absent] = None
    since: Moment | None = None
