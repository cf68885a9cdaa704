"""The directory: who exists, which applications are registered, who may do what in whose mailbox."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .world import Switches

Kind = Literal["user", "shared", "group", "unlicensed", "onpremises"]
Right = Literal["full_access", "send_as", "send_on_behalf"]
RIGHTS: tuple[Right, ...] = ("full_access", "send_as", "send_on_behalf")

HOME_TENANT = "84bd8158-6d4d-4958-8b9f-9d6445542f95"
HOME_DOMAIN = "contoso.example"


@dataclass
class Principal:
    """One directory object that an address can belong to.

    `upn` and `mail` may differ, and `mail` may be None (graph.md 3.3 [D]). `kind` decides which of the
    answers of graph.md 9.1 a mailbox call gets.
    """

    id: str
    upn: str
    mail: str | None
    display_name: str
    kind: Kind = "user"
    aliases: list[str] = field(default_factory=list)
    preferred_language: str | None = None
    enabled: bool = True
    # True after an administrator's reset: old refresh tokens fail with AADSTS50173 (graph.md 12.6 [D]).
    password_changed: bool = False
    # MessageCopyForSentAsEnabled and MessageCopyForSendOnBehalfEnabled (graph.md 8.3, 8.7 [D]).
    save_copy_send_as: bool = False
    save_copy_on_behalf: bool = False

    @property
    def has_mailbox(self) -> bool:
        """Whether Exchange Online holds a mailbox (graph.md 9.1: the other kinds get 404s)."""
        return self.kind in ("user", "shared")

    @property
    def can_sign_in(self) -> bool:
        """Whether a person can sign in; shared mailboxes have sign-in blocked (graph.md 8.1 [P])."""
        return self.enabled and self.kind in ("user", "unlicensed", "onpremises")

    @property
    def addresses(self) -> list[str]:
        """Every address that leads here: primary SMTP, UPN, aliases."""
        return [a for a in (self.mail, self.upn, *self.aliases) if a]


@dataclass
class Application:
    """An app registration with its credentials and what was consented for it.

    `secrets` are (value, expires_at or None), `certificates` PEM texts, `federated` dicts of issuer, subject,
    audience (graph.md 12.4, 12.5 [D]). `delegated_scopes` are the consented ones. `mailbox_allow_list`
    None means every mailbox (graph.md 8.6).
    """

    client_id: str
    display_name: str
    secrets: list[tuple[str, datetime | None]] = field(default_factory=list)
    certificates: list[str] = field(default_factory=list)
    federated: list[dict[str, str]] = field(default_factory=list)
    redirect_uris: list[str] = field(default_factory=list)
    delegated_scopes: set[str] = field(default_factory=set)
    application_roles: set[str] = field(default_factory=set)
    mailbox_allow_list: set[str] | None = None
    multi_tenant: bool = False


@dataclass(frozen=True)
class ManagedIdentity:
    """A user-assigned managed identity (graph.md 12.5): known by client id, tokens carry the principal id."""

    client_id: str
    principal_id: str


class Directory:
    """Principals, applications and mailbox rights of one tenant; look-ups ignore case."""

    def __init__(self, switches: Switches, tenant_id: str = HOME_TENANT, domain: str = HOME_DOMAIN) -> None:
        self.tenant_id = tenant_id
        self.domain = domain
        self.principals: dict[str, Principal] = {}
        self.applications: dict[str, Application] = {}
        self.identities: list[ManagedIdentity] = []
        self.rights: dict[tuple[str, str], set[Right]] = {}
        self._switches = switches

    def add(self, principal: Principal) -> Principal:
        """The principal, now known to the directory. Raises ValueError when an address is taken."""
        for address in principal.addresses:
            owner = self._holder(address)
            if owner is not None and owner.id != principal.id:
                raise ValueError(f"{address} already belongs to {owner.upn}")
        self.principals[principal.id] = principal
        return principal

    def remove(self, principal: Principal) -> None:
        """Forget the principal and every right given by or to it."""
        self.principals.pop(principal.id, None)
        self.rights = {pair: held for pair, held in self.rights.items() if principal.id not in pair}

    def application(self, client_id: str) -> Application | None:
        """The registration with this client id, any case."""
        return self.applications.get(client_id.lower())

    def register(self, application: Application) -> Application:
        """The application, now registered under its client id."""
        self.applications[application.client_id.lower()] = application
        return application

    def find(self, reference: str) -> Principal | None:
        """The principal a Graph path means: object id, UPN or primary SMTP address.

        Aliases count only with the switch `resolve_aliases` (graph.md 8.2 [F]: an alias may fail).
        """
        wanted = reference.lower()
        for principal in self.principals.values():
            if wanted in (principal.id.lower(), principal.upn.lower(), (principal.mail or "").lower()):
                return principal
        if self._switches.resolve_aliases:
            return self._holder(reference)
        return None

    def mailbox_for_address(self, address: str) -> Principal | None:
        """The principal whose mailbox receives mail for any of its addresses, aliases included."""
        holder = self._holder(address)
        return holder if holder is not None and holder.has_mailbox else None

    def _holder(self, address: str) -> Principal | None:
        wanted = address.lower()
        for principal in self.principals.values():
            if wanted in (a.lower() for a in principal.addresses):
                return principal
        return None

    def _pair(self, user: Principal | str, mailbox: Principal | str) -> tuple[str, str]:
        return self._resolved(user).id, self._resolved(mailbox).id

    def _resolved(self, reference: Principal | str) -> Principal:
        if isinstance(reference, Principal):
            return reference
        principal = self.find(reference)
        if principal is None:
            raise LookupError(f"no principal {reference!r}")
        return principal

    def grant(self, user: Principal | str, mailbox: Principal | str, right: Right) -> None:
        """Give the user the right in the mailbox, at once (really: up to two hours, graph.md 8.7)."""
        self.rights.setdefault(self._pair(user, mailbox), set()).add(right)

    def revoke(self, user: Principal | str, mailbox: Principal | str, right: Right) -> None:
        """Take the right away; not held is no error."""
        self.rights.get(self._pair(user, mailbox), set()).discard(right)

    def has_right(self, user: Principal, mailbox: Principal, right: Right) -> bool:
        """Whether the user holds the right; the own mailbox needs none. None implies another (8.1)."""
        return user.id == mailbox.id or right in self.rights.get((user.id, mailbox.id), set())


def seeded_id(name: str) -> str:
    """A GUID that is the same in every run, so tests and people can write it down."""
    return str(uuid.uuid5(uuid.UUID(HOME_TENANT), name))
