"""Application settings: read once from the environment, checked all together, frozen.

`TABLE` is the single list of what can be set. `local.settings.sample.json` and the deployment template are
checked against it by tests, so a setting exists everywhere or nowhere.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


class SettingsError(Exception):
    """Some settings are missing or wrong. The text names every one of them, each with its fix."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("The app is not configured:\n" + "\n".join(f"  - {problem}" for problem in problems))


@dataclass(frozen=True)
class Setting:
    """One row of the table: the environment name, how to read it, its default, and what it is for."""

    name: str
    field: str
    read: Callable[[str], Any]
    default: Any
    purpose: str
    required: bool = False


def _text(value: str) -> str:
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        sound = parts.scheme in ("http", "https") and bool(parts.netloc)
    except ValueError:
        sound = False  # the exception's own text may hold the value
    if not sound:
        raise ValueError("must be an http(s) URL such as https://mail.contoso.com")
    return value.rstrip("/")


def _graph_root(value: str) -> str:
    return _url(value).removesuffix("/v1.0")


def _token(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("must be 64 lower-case hex digits; make one with: openssl rand -hex 32")
    return value


def _token_id(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("must be the id of a token, 64 lower-case hex digits; make both with: scripts/first_token.py")
    return value


def _seconds(value: str) -> int:
    seconds = int(value) if value.isdecimal() else 0
    if not 1 <= seconds <= 3600:
        raise ValueError("must be a whole number of seconds from 1 to 3600")
    return seconds


def _hold(value: str) -> int:
    seconds = int(value) if value.isdecimal() and len(value) < 5 else -1
    if not 0 <= seconds <= 120:
        raise ValueError("must be a whole number of seconds from 0 to 120")
    return seconds


def _switch(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value == "true"


def _words(value: str) -> tuple[str, ...]:
    return tuple(value.replace(",", " ").split())


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError("must be one of " + ", ".join(choices))
        return value

    return read


def _key_ring(value: str) -> tuple[tuple[str, bytes], ...]:
    """`name:base64,name:base64`, newest key first."""
    hint = "must be name:base64-of-32-bytes, newest first; make a key with: openssl rand -base64 32"
    keys: list[tuple[str, bytes]] = []
    for part in filter(None, (piece.strip() for piece in value.split(","))):
        name, _, encoded = part.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(hint) from None
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name) or len(key) != 32:
            raise ValueError(hint)
        keys.append((name, key))
    if not keys or len({name for name, _ in keys}) != len(keys):
        raise ValueError(hint)
    return tuple(keys)


_REFERENCE = "@Microsoft.KeyVault("
LOOPBACK = ("127.0.0.0/8", "::1/128")


def _networks(value: str) -> tuple[str, ...]:
    """`all`, `none`, or networks in CIDR notation."""
    if value in ("all", "none"):
        return ("0.0.0.0/0", "::/0") if value == "all" else ()
    try:
        return tuple(str(ipaddress.ip_network(word, strict=False)) for word in _words(value))
    except ValueError:
        raise ValueError("must be all, none, or networks such as 10.1.0.0/16 fd00:1::/32") from None


TABLE: tuple[Setting, ...] = (
    Setting(
        "KEY_RING",
        "key_ring",
        _key_ring,
        None,
        "Keys that seal tokens and secrets at rest: name:base64 of 32 bytes, newest first.",
        required=True,
    ),
    Setting(
        "SERVICE_URL",
        "service_url",
        _url,
        "",
        "Public base URL of this service. Default in Azure: https://$WEBSITE_HOSTNAME.",
    ),
    Setting(
        "BOOTSTRAP_TOKEN",
        "bootstrap_token",
        _token,
        "",
        "An access token with every right, for the first calls and for pipelines: 64 hex digits.",
    ),
    Setting(
        "BOOTSTRAP_TOKEN_ID",
        "bootstrap_token_id",
        _token_id,
        "",
        "The id (SHA-256) of such a token: it opens everything, and no setting holds the token itself.",
    ),
    Setting(
        "LOGIN_ENDPOINT",
        "login_endpoint",
        _url,
        "",
        "Development only: where the Microsoft login host is replaced by a local tenant.",
    ),
    Setting(
        "GRAPH_ENDPOINT",
        "graph_endpoint",
        _graph_root,
        "",
        "Development only: where Microsoft Graph is replaced by a local tenant (without /v1.0).",
    ),
    Setting(
        "SEND_FORMAT",
        "send_format",
        _one_of("mime", "structured"),
        "mime",
        "How mail travels to Graph: mime (keeps text and html, calendar parts, headers) or structured.",
    ),
    Setting(
        "POLL_INTERVAL_SECONDS",
        "poll_interval_s",
        _seconds,
        15,
        "The shortest wait, in seconds, before a mailbox without push notifications is asked for changes again.",
    ),
    Setting(
        "POLL_LONGEST_SECONDS",
        "poll_longest_s",
        _seconds,
        0,
        "The longest such wait, reached when nothing happens in a mailbox. Default: 20 times the shortest.",
    ),
    Setting(
        "WEBHOOK_PRIVATE_TARGETS",
        "webhook_private_targets",
        _networks,
        None,
        "Networks inside which webhooks may be sent: CIDRs, all, or none. Left out: none, or loopback in development.",
    ),
    Setting(
        "OAUTH_TOKENS_API",
        "oauth_tokens_api",
        _switch,
        False,
        "true lets GET /v1/account/{account}/oauth-token hand out the access tokens of mailboxes.",
    ),
    Setting(
        "CHANGES_HOLD_SECONDS",
        "changes_hold_seconds",
        _hold,
        15,
        "How long GET /v1/changes waits for something new before it answers: 0 to 120 seconds.",
    ),
    Setting("OAUTH_APP_CLIENT_ID", "oauth_app_client_id", _text, "", "Client id of an OAuth2 app set here."),
    Setting(
        "OAUTH_APP_CLIENT_SECRET",
        "oauth_app_client_secret",
        _text,
        "",
        "Its client secret. Leave empty with a certificate or a managed identity.",
    ),
    Setting(
        "OAUTH_APP_CERTIFICATE",
        "oauth_app_certificate",
        _text,
        "",
        "Its certificate instead of a secret: PEM with the private key and the certificate.",
    ),
    Setting(
        "OAUTH_APP_MANAGED_IDENTITY",
        "oauth_app_managed_identity",
        _text,
        "",
        "Client id of the user-assigned managed identity the app trusts, instead of a secret.",
    ),
    Setting(
        "OAUTH_APP_PROVIDER",
        "oauth_app_provider",
        _one_of("outlook", "outlookService"),
        "outlook",
        "outlook: people sign in. outlookService: application access.",
    ),
    Setting(
        "OAUTH_APP_AUTHORITY",
        "oauth_app_authority",
        _text,
        "organizations",
        "common, organizations, consumers, or the tenant id (required for outlookService).",
    ),
    Setting(
        "OAUTH_APP_CLOUD",
        "oauth_app_cloud",
        _one_of("global", "gcc-high", "dod", "china"),
        "global",
        "National cloud of that app.",
    ),
    Setting(
        "OAUTH_APP_EXTRA_SCOPES",
        "oauth_app_extra_scopes",
        _words,
        ("User.ReadBasic.All", "Mail.ReadWrite.Shared", "Mail.Send.Shared"),
        "Scopes that app asks for beyond its own mailbox.",
    ),
    Setting(
        "OAUTH_APP_READER",
        "oauth_app_reader",
        _text,
        "",
        "Id of an OAuth2 app with application access that reads the shared mailboxes of that app's people.",
    ),
    Setting("OAUTH_APP_NAME", "oauth_app_name", _text, "Microsoft 365", "Name of that app on the sign-in page."),
)


@dataclass(frozen=True)
class Settings:
    """The checked settings. One field per row of `TABLE`, plus the storage connection."""

    key_ring: tuple[tuple[str, bytes], ...]
    storage: Mapping[str, str]
    service_url: str = ""
    bootstrap_token: str = ""
    bootstrap_token_id: str = ""
    login_endpoint: str = ""
    graph_endpoint: str = ""
    send_format: str = "mime"
    poll_interval_s: int = 15
    poll_longest_s: int = 300
    webhook_private_targets: tuple[str, ...] = ()
    oauth_tokens_api: bool = False
    changes_hold_seconds: int = 15
    oauth_app_client_id: str = ""
    oauth_app_client_secret: str = ""
    oauth_app_certificate: str = ""
    oauth_app_managed_identity: str = ""
    oauth_app_provider: str = "outlook"
    oauth_app_authority: str = "organizations"
    oauth_app_cloud: str = "global"
    oauth_app_extra_scopes: tuple[str, ...] = ()
    oauth_app_reader: str = ""
    oauth_app_name: str = "Microsoft 365"

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Settings:
        """The settings, or SettingsError naming every problem at once."""
        problems: list[str] = []
        values: dict[str, Any] = {"storage": _storage(environment, problems)}
        for setting in TABLE:
            values[setting.field] = _read(setting, environment, problems)
        values["service_url"] = values["service_url"] or _azure_url(environment)
        if values["webhook_private_targets"] is None:
            developing = values["login_endpoint"] or values["graph_endpoint"]
            values["webhook_private_targets"] = LOOPBACK if developing else ()
        _check_polling(values, problems)
        _check_app(values, problems)
        if problems:
            raise SettingsError(problems)
        return cls(**values)


def _read(setting: Setting, environment: Mapping[str, str], problems: list[str]) -> Any:
    raw = environment.get(setting.name, "").strip()
    if not raw:
        if setting.required:
            problems.append(f"{setting.name} is not set. {setting.purpose}")
        return setting.default
    if raw.startswith(_REFERENCE):
        # Azure leaves the text of a reference it can not follow in its place; it must not be taken for a value.
        problems.append(
            f"{setting.name} is a Key Vault reference that Azure could not follow. See that the secret exists and that "
            "the app's identity is Key Vault Secrets User on the vault; then restart the app"
        )
        return setting.default
    try:
        return setting.read(raw)
    except ValueError as problem:
        # The value itself is left out of the text: it may be a secret.
        problems.append(f"{setting.name} {problem}")
        return setting.default


def _storage(environment: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """The storage connection as the Functions host reads it (functions-host.md 3): one connection string, or
    the identity form `AzureWebJobsStorage__accountName` / `__tableServiceUri` and friends."""
    name = "AzureWebJobsStorage"
    if environment.get(name):
        return {"connection_string": environment[name]}
    prefix = name + "__"
    parts = {key[len(prefix) :]: value for key, value in environment.items() if key.startswith(prefix)}
    if not parts.get("accountName") and not parts.get("tableServiceUri"):
        problems.append(
            "AzureWebJobsStorage is not set. Give a connection string (UseDevelopmentStorage=true for Azurite) "
            "or AzureWebJobsStorage__accountName with an identity"
        )
    elif not parts.get("accountName"):
        for service in ("blob", "queue"):
            if not parts.get(f"{service}ServiceUri"):
                problems.append(f"{prefix}{service}ServiceUri is not set. Give it beside {prefix}tableServiceUri")
    return parts


def _azure_url(environment: Mapping[str, str]) -> str:
    host = environment.get("WEBSITE_HOSTNAME", "")
    if not host:
        return ""
    loopback = host.split(":")[0] in ("localhost", "127.0.0.1")
    return f"{'http' if loopback else 'https'}://{host}"


def _check_polling(values: dict[str, Any], problems: list[str]) -> None:
    shortest = values["poll_interval_s"]
    values["poll_longest_s"] = values["poll_longest_s"] or min(20 * shortest, 3600)
    if values["poll_longest_s"] < shortest:
        problems.append("POLL_LONGEST_SECONDS must not be less than POLL_INTERVAL_SECONDS")


def _check_app(values: dict[str, Any], problems: list[str]) -> None:
    """The OAuth2 app defined by settings is either absent or complete."""
    credentials = [
        name
        for name in ("oauth_app_client_secret", "oauth_app_certificate", "oauth_app_managed_identity")
        if values[name]
    ]
    if values["oauth_app_client_id"] and len(credentials) != 1:
        problems.append(
            "OAUTH_APP_CLIENT_ID needs exactly one of OAUTH_APP_CLIENT_SECRET, OAUTH_APP_CERTIFICATE, "
            "OAUTH_APP_MANAGED_IDENTITY"
        )
    if credentials and not values["oauth_app_client_id"]:
        problems.append(f"{credentials[0].upper()} is set but OAUTH_APP_CLIENT_ID is not")
    shared_authority = values["oauth_app_authority"] in ("common", "organizations", "consumers")
    if values["oauth_app_client_id"] and values["oauth_app_provider"] == "outlookService" and shared_authority:
        problems.append("OAUTH_APP_AUTHORITY must be the tenant id when OAUTH_APP_PROVIDER is outlookService")
