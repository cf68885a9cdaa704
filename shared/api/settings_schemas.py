"""Settings beyond those that `SettingsBody` names: their types, and which of them hold secrets (emailengine.md 17).

Those under "without effect" belong to parts that this service does not have: IMAP, SMTP, other providers, a document
store, language models. The contract has them stored and read back, so that a client may write what it read elsewhere.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from shared.api.fields import Absent, Boolean, Input, Number, Single, Text256, Url


def _json_object(value: str) -> str:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("must hold JSON") from None
    if not isinstance(found, dict):
        raise ValueError("must hold a JSON object")
    return value


def _zone(value: str) -> str:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("must be the name of a time zone such as Europe/Tallinn") from None
    return value


def _any_url(value: str) -> str:
    """A URL of any scheme, whose password is where it is looked for when it is masked."""
    try:
        parts = urlsplit(value)
        sound = bool(parts.scheme and parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        sound = False
    if not sound or any(ord(ch) <= 32 or ord(ch) == 127 for ch in value):
        raise ValueError("must be a valid uri")
    return value


Size = Annotated[Number, Field(ge=0, le=1_073_741_824)] | None
Count = Annotated[Number, Field(ge=0, le=1_000_000_000)] | None
Port = Annotated[Number, Field(ge=0, le=65535)] | None
Share = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None
Text = Annotated[Annotated[str, StringConstraints(max_length=1024)] | None, Absent]
Secret = Annotated[Annotated[str, StringConstraints(max_length=10_240)] | None, Absent]
Long = Annotated[Annotated[str, StringConstraints(max_length=50_000)] | None, Absent]
AnyUrl = Annotated[Annotated[str, StringConstraints(max_length=4096), AfterValidator(_any_url)] | None, Absent]
Texts = Annotated[list[Text256] | None, Single]


class LogRules(Input):
    """`logs`: which accounts keep log lines, and how many."""

    all: Boolean = False
    maxLogLines: Annotated[Number, Field(ge=0, le=100_000)] = 10_000


class EffectiveSettings(Input):
    """Keys with an effect: logs, audit, events, tracking, exports, pages."""

    logs: LogRules | None = None
    tokenAuditLog: Boolean | None = None
    notifyWebSafeHtml: Boolean | None = None
    notifyAttachments: Boolean | None = None
    notifyAttachmentSize: Size = None
    notifyCalendarEvents: Boolean | None = None
    trackOpens: Boolean | None = None
    trackClicks: Boolean | None = None
    locale: Annotated[Literal["en", "et", "fr", "de", "pl", "ja", "nl"] | None, Absent] = None
    timezone: Annotated[Annotated[Text256, AfterValidator(_zone)] | None, Absent] = None
    exportMaxConcurrent: Count = None
    exportMaxGlobalConcurrent: Count = None
    exportMaxMessages: Count = None
    exportMaxSize: Count = None


class FurtherSettings(EffectiveSettings):
    """Keys without effect here: stored and read back."""

    trackSentMessages: Boolean | None = None
    outlookExportBatchSize: Annotated[Number, Field(ge=1, le=20)] | None = None
    queueKeep: Count = None
    scriptEnv: Annotated[
        Annotated[str, StringConstraints(max_length=100_000), AfterValidator(_json_object)] | None, Absent
    ] = None
    enableApiProxy: Boolean | None = None
    ignoreMailCertErrors: Boolean | None = None
    localAddresses: Texts = None
    resolveGmailCategories: Boolean | None = None
    proxyEnabled: Boolean | None = None
    proxyUrl: AnyUrl = None
    httpProxyEnabled: Boolean | None = None
    httpProxyUrl: AnyUrl = None
    smtpEhloName: Text = None
    smtpStrategy: Annotated[Literal["default", "dedicated", "random"] | None, Absent] = None
    smtpServerEnabled: Boolean | None = None
    smtpServerPort: Port = None
    smtpServerHost: Text = None
    smtpServerProxy: Boolean | None = None
    smtpServerAuthEnabled: Boolean | None = None
    smtpServerPassword: Secret = None
    smtpServerTLSEnabled: Boolean | None = None
    imapStrategy: Annotated[Literal["default", "dedicated", "random"] | None, Absent] = None
    imapIndexer: Annotated[Literal["full", "fast"] | None, Absent] = None
    imapProxyServerEnabled: Boolean | None = None
    imapProxyServerPort: Port = None
    imapProxyServerHost: Text = None
    imapProxyServerProxy: Boolean | None = None
    imapProxyServerPassword: Secret = None
    imapProxyServerTLSEnabled: Boolean | None = None
    gmailEnabled: Boolean | None = None
    gmailClientId: Text = None
    gmailClientSecret: Secret = None
    gmailRedirectUrl: Annotated[Url | None, Absent] = None
    gmailExtraScopes: Texts = None
    openAiAPIKey: Secret = None
    openAiAPIUrl: AnyUrl = None
    openAiModel: Text = None
    openAiPrompt: Long = None
    openAiTemperature: Share = None
    openAiTopP: Share = None
    openAiMaxTokens: Count = None
    openAiPreProcessingFn: Long = None
    openAiGenerateEmbeddings: Boolean | None = None
    generateEmailSummary: Boolean | None = None
    generateRiskAssessment: Boolean | None = None
    documentStoreEnabled: Boolean | None = None
    documentStoreUrl: AnyUrl = None
    documentStoreIndex: Text = None
    documentStoreAuthEnabled: Boolean | None = None
    documentStoreUsername: Text = None
    documentStorePassword: Secret = None
    documentStoreGenerateEmbeddings: Boolean | None = None
    documentStorePreProcessingEnabled: Boolean | None = None
    documentStoreChatModel: Text = None
    sentryEnabled: Boolean | None = None
    sentryDsn: AnyUrl = None
    mcpEnabled: Boolean | None = None
