"""OAuth2 applications: the app registrations this service signs people in with, or acts as.

They come from two places: records made over `/v1/oauth2`, with a sealed client secret, and at most one app
defined by settings, which may use a certificate or a managed identity instead. Each process keeps what it read
for thirty seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.clock import Clock, iso
from shared.errors import ApiError, InvalidInput, NotFound, RecordDamaged, StorageConflict
from shared.sealed import OAUTH_APP, Resealer
from shared.settings import Settings
from shared.storage.keys import document_id, storable
from shared.storage.tables import Row, Table
from shared.vault import KeyMissing, SealBroken, Vault, encode

KEPT_S = 30
PARTITION = "app"
SHARED_AUTHORITIES = ("common", "organizations", "consumers")


@dataclass(frozen=True)
class Cloud:
    """Hosts of one national cloud, with scheme (graph.md 2.1) and its token exchange audience (12.5)."""

    login: str
    graph: str
    exchange_audience: str = "api://AzureADTokenExchange"


CLOUDS: Mapping[str, Cloud] = {
    "global": Cloud("https://login.microsoftonline.com", "https://graph.microsoft.com"),
    "gcc-high": Cloud(
        "https://login.microsoftonline.us", "https://graph.microsoft.us", "api://AzureADTokenExchangeUSGov"
    ),
    "dod": Cloud(
        "https://login.microsoftonline.us", "https://dod-graph.microsoft.us", "api://AzureADTokenExchangeUSGov"
    ),
    "china": Cloud(
        "https://login.chinacloudapi.cn",
        "https://microsoftgraph.chinacloudapi.cn",
        "api://AzureADTokenExchangeChina",
    ),
}


@dataclass(frozen=True)
class OauthApp:
    """One application. `secret`, `certificate`, `managed_identity`: exactly one is set on a complete app.

    `reader` is the id of the application-access app that reads the shared mailboxes of this app's people. `broken`
    says why a stored secret does not open; nothing is asked of the login service then.
    """

    id: str
    name: str
    provider: str
    client_id: str
    enabled: bool = True
    secret: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    managed_identity: str = ""
    authority: str = "organizations"
    cloud: str = "global"
    redirect_url: str = ""
    extra_scopes: tuple[str, ...] = ()
    skip_scopes: tuple[str, ...] = ()
    title: str = ""
    reader: str = ""
    from_settings: bool = False
    broken: str = ""

    @property
    def is_application(self) -> bool:
        """True for application access: client credentials, nobody signs in."""
        return self.provider == "outlookService"

    @property
    def hosts(self) -> Cloud:
        return CLOUDS[self.cloud]

    def scopes(self) -> list[str]:
        """The scopes a sign-in asks for, as full URLs; the protocol's own ones are added by MSAL."""
        wanted = [self._full(name) for name in ("Mail.ReadWrite", "Mail.Send", "User.Read", *self.extra_scopes)]
        skipped = {self._full(name) for name in self.skip_scopes}
        reserved = {self._full(name) for name in ("openid", "profile", "offline_access", "email")}
        return [scope for scope in dict.fromkeys(wanted) if scope not in skipped | reserved]

    def _full(self, scope: str) -> str:
        return scope if "://" in scope else f"{self.hosts.graph}/{scope}"


class OauthApps:
    """Reads and writes applications."""

    def __init__(
        self, table: Table, vault: Vault, clock: Clock, settings: Settings, resealer: Resealer | None = None
    ) -> None:
        self._table, self._vault, self._clock = table, vault, clock
        self._resealer = resealer or Resealer(vault)
        self._configured = _configured(settings)
        self._kept: dict[str, tuple[float, Row | None]] = {}

    async def find(self, app_id: str) -> OauthApp | None:
        """The application, or None; one whose record is damaged can not be used and counts as absent."""
        if self._configured and app_id == self._configured.id:
            return self._configured
        row = await self._row(app_id)
        return self._opened(row) if row else None

    async def newer(self, app: OauthApp) -> OauthApp | None:
        """The application as it stands in storage, if that is not what this process knew; None otherwise."""
        if app.from_settings:
            return None
        self._kept.pop(app.id, None)
        found = await self.find(app.id)
        return found if found != app else None

    async def resolve(self, provider: str | None) -> OauthApp | None:
        """The app an account names: by id, or by the literal `outlook` when exactly one such app exists (6.1)."""
        if not provider:
            return None
        found = await self.find(provider)
        if found is None and provider in ("outlook", "outlookService"):
            fitting = [app for app in await self.all() if app.provider == provider]
            return fitting[0] if len(fitting) == 1 else None
        return found

    async def all(self) -> list[OauthApp]:
        """Every application, oldest first, the configured one at the head."""
        rows = await self._rows()
        return ([self._configured] if self._configured else []) + [self._opened(row) for row in rows]

    async def views(self) -> list[dict[str, Any]]:
        """Every application as the API shows it, secrets masked."""
        rows = await self._rows()
        shown = [_configured_view(self._configured)] if self._configured else []
        return shown + [self._view(row) for row in rows]

    async def view(self, app_id: str) -> dict[str, Any]:
        """One application as the API shows it; NotFound."""
        if self._configured and app_id == self._configured.id:
            return _configured_view(self._configured)
        row = await self._table.get(PARTITION, storable(app_id))
        if row is None:
            raise app_not_found()
        return self._view(row)

    def _view(self, row: Row) -> dict[str, Any]:
        view, broken = _view(row.value), self._opened(row).broken
        return view | ({"lastError": {"response": broken}} if broken else {})

    async def create(self, fields: dict[str, Any]) -> str:
        """Stores a new application; its id. InvalidInput for a `readerApp` that can not be one."""
        await self._check_reader(fields["provider"], fields)
        app_id = document_id()
        now = iso(self._clock())
        record = {"enabled": False, **fields, "id": app_id, "created": now, "updated": now}
        await self._table.insert(Row(PARTITION, app_id, self._sealed(record)))
        return app_id

    async def update(self, app_id: str, fields: dict[str, Any]) -> None:
        """Changes only the given fields; NotFound, or 403 for the app that settings define."""
        self._refuse_configured(app_id)
        while True:
            row = await self._table.get(PARTITION, storable(app_id))
            if row is None:
                raise app_not_found()
            if row.value["provider"] == "outlookService" and fields.get("authority") in SHARED_AUTHORITIES:
                raise InvalidInput.field("authority", '"authority" must be the tenant id for application access')
            await self._check_reader(row.value["provider"], fields)
            record = row.value | self._sealed({**fields, "id": app_id, "updated": iso(self._clock())})
            try:
                await self._table.replace(Row(PARTITION, app_id, record, row.etag))
            except StorageConflict:
                continue
            self._kept.pop(app_id, None)
            return

    async def _check_reader(self, provider: str, fields: dict[str, Any]) -> None:
        """400 unless `readerApp` names an app with application access, for an app that people sign in with."""
        reader_id = fields.get("readerApp")
        if not reader_id:
            return
        if provider != "outlook":
            raise InvalidInput.field("readerApp", '"readerApp" is only allowed for provider outlook')
        reader = await self.find(reader_id)
        if reader is None:
            raise InvalidInput.field("readerApp", '"readerApp" must be the id of an OAuth2 app that exists')
        if not reader.is_application:
            raise InvalidInput.field("readerApp", '"readerApp" must be an app of provider outlookService')

    async def note_failure(self, app_id: str, response: str | None) -> None:
        """Keeps the last application-level failure for `lastError` (8); None clears it."""
        row = await self._table.get(PARTITION, storable(app_id))
        error = {"response": response} if response else None
        if row is None or row.value.get("lastError") == error:
            return
        try:
            await self._table.replace(Row(PARTITION, app_id, row.value | {"lastError": error}, row.etag))
        except StorageConflict:
            return  # informative only: the next failure writes it

    async def delete(self, app_id: str) -> None:
        """Removes the application; NotFound, or 403 for the app that settings define."""
        self._refuse_configured(app_id)
        if not await self._table.delete(PARTITION, storable(app_id)):
            raise app_not_found()
        self._kept.pop(app_id, None)

    def _refuse_configured(self, app_id: str) -> None:
        if self._configured and app_id == self._configured.id:
            raise ApiError(403, "This application is defined by the service's settings (OAUTH_APP_…). Change it there.")

    async def _rows(self) -> list[Row]:
        """Every record, oldest first: ids do not sort by time, since base64url does not keep the order of bytes."""
        return sorted(await self._table.partition(PARTITION), key=lambda row: row.value["created"])

    async def _row(self, app_id: str) -> Row | None:
        now = self._clock().timestamp()
        kept = self._kept.get(app_id)
        if kept is None or not kept[0] <= now < kept[0] + KEPT_S:
            kept = (now, await self._stored(app_id))
            if kept[1] is not None:
                self._kept[app_id] = kept
        return kept[1]

    async def _stored(self, app_id: str) -> Row | None:
        try:
            row = await self._table.get(PARTITION, storable(app_id))
        except RecordDamaged:
            return None
        return await self._resealer.renewed(self._table, row, OAUTH_APP) if row else None

    def _sealed(self, record: dict[str, Any]) -> dict[str, Any]:
        if not record.get("clientSecret"):
            return record
        place = f"oauth2apps/{record['id']}/clientSecret"
        return record | {"clientSecret": self._vault.seal(record["clientSecret"].encode(), place)}

    def _opened(self, row: Row) -> OauthApp:
        record, secret, broken = row.value, "", ""
        try:
            if sealed := record.get("clientSecret"):
                secret = self._vault.open(sealed, OAUTH_APP.place(row)).decode()
        except SealBroken as problem:
            fix = "Put the key back into KEY_RING, or set" if isinstance(problem, KeyMissing) else "Set"
            broken = f"The client secret of the OAuth2 app can not be opened: {problem}. {fix} clientSecret again "
            broken += f"with PUT /v1/oauth2/{row.key}"
        return OauthApp(
            id=row.key,
            name=record["name"],
            provider=record["provider"],
            client_id=record.get("clientId") or "",
            enabled=bool(record.get("enabled")),
            secret=secret,
            authority=_authority(record),
            cloud=record.get("cloud") or "global",
            redirect_url=record.get("redirectUrl") or "",
            extra_scopes=tuple(record.get("extraScopes") or ()),
            skip_scopes=tuple(record.get("skipScopes") or ()),
            title=record.get("title") or record["name"],
            broken=broken,
            reader=record.get("readerApp") or "",
        )


def app_not_found() -> NotFound:
    return NotFound("Document was not found", "NotFound")


def _authority(record: dict[str, Any]) -> str:
    authority, tenant = record.get("authority") or "", record.get("tenant") or ""
    if record["provider"] == "outlookService" and authority in ("", *SHARED_AUTHORITIES):
        return tenant or authority
    return authority or tenant or "organizations"


def _configured(settings: Settings) -> OauthApp | None:
    """The app of the settings, under an id that stays the same as long as its client id does."""
    if not settings.oauth_app_client_id:
        return None
    app_id = encode(hashlib.sha256(settings.oauth_app_client_id.encode()).digest()[:12])
    return OauthApp(
        id=app_id,
        name=settings.oauth_app_name,
        title=settings.oauth_app_name,
        provider=settings.oauth_app_provider,
        client_id=settings.oauth_app_client_id,
        secret=settings.oauth_app_client_secret,
        certificate=settings.oauth_app_certificate.replace("\\n", "\n"),
        managed_identity=settings.oauth_app_managed_identity,
        authority=settings.oauth_app_authority,
        cloud=settings.oauth_app_cloud,
        extra_scopes=settings.oauth_app_extra_scopes if settings.oauth_app_provider == "outlook" else (),
        reader=settings.oauth_app_reader,
        from_settings=True,
    )


def _configured_view(app: OauthApp) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": app.id,
        "name": app.name,
        "title": app.title,
        "provider": app.provider,
        "enabled": True,
        "clientId": app.client_id,
        "authority": app.authority,
        "cloud": app.cloud,
        "extraScopes": list(app.extra_scopes),
        "readerApp": app.reader or None,
    }
    return _view(record | ({"clientSecret": "set"} if app.secret else {}))


def _view(record: dict[str, Any]) -> dict[str, Any]:
    shown = {name: record[name] for name in _SHOWN if record.get(name) is not None}
    if record.get("clientSecret"):
        shown["clientSecret"] = "******"
    listed = bool(record.get("enabled")) and record["provider"] == "outlook"
    return shown | {
        "enabled": bool(record.get("enabled")),
        "baseScopes": "api",
        "includeInListing": listed,
        "cloud": record.get("cloud") or "global",
        "lastError": record.get("lastError"),
    }


_SHOWN = (
    "id name description title provider created updated clientId authority redirectUrl extraScopes skipScopes "
    "cloud tenant readerApp"
).split()
