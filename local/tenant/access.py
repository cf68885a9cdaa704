"""Who may open which mailbox, checked in the order of graph.md 15 item 2.

Token (401, done by the login side) → scope (403) → principal (404) → Full Access (404, by switch 403).
The send right comes after these, in sending.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import GraphError
from .mailbox import item_not_found

if TYPE_CHECKING:
    from .directory import Principal
    from .login import Caller
    from .world import World

# Each need with the permissions that cover it; the larger include the smaller (graph.md 4 [D]).
_COVERED_BY = {
    "Mail.ReadBasic": ("Mail.ReadBasic", "Mail.Read", "Mail.ReadWrite"),
    "Mail.Read": ("Mail.Read", "Mail.ReadWrite"),
    "Mail.ReadWrite": ("Mail.ReadWrite",),
    "Mail.Send": ("Mail.Send",),
    "MailboxSettings.Read": ("MailboxSettings.Read", "MailboxSettings.ReadWrite"),
}
_PROFILE = (
    "User.ReadBasic.All",
    "User.Read.All",
    "User.ReadWrite.All",
    "Directory.Read.All",
    "Directory.ReadWrite.All",
)


def access_denied(message: str = "Access is denied. Check credentials and try again.") -> GraphError:
    """graph.md 9.1 [F]."""
    return GraphError(403, "ErrorAccessDenied", message)


def me_without_user() -> GraphError:
    """graph.md 2.2 [F]: /me with an app-only token."""
    return GraphError(400, "BadRequest", "/me request is only valid with delegated authentication flow.")


def directory_denied() -> GraphError:
    """graph.md 9.1 [F]: a directory call without a directory permission."""
    return GraphError(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")


def is_callers_own(caller: Caller, owner: Principal | None) -> bool:
    """Whether this is the mailbox or profile of the person who calls."""
    return caller.principal is not None and owner is not None and caller.principal.id == owner.id


def sees_only_basics(caller: Caller, is_own: bool) -> bool:
    """Whether only Mail.ReadBasic lets this caller read (then bodies and attachments are hidden)."""
    return not _covers(caller, "Mail.Read", is_own)


def open_principal(world: World, caller: Caller, reference: str | None, need: str) -> Principal:
    """The mailbox owner behind /me (reference None) or /users/{reference}, when the caller may do `need`."""
    if reference is None:
        if caller.kind != "user" or caller.principal is None:
            raise me_without_user()
        owner: Principal | None = caller.principal
    else:
        owner = world.directory.find(reference)
    is_own = is_callers_own(caller, owner)
    if not _covers(caller, need, is_own):
        raise access_denied()
    if owner is None:
        raise GraphError(404, "ErrorInvalidUser", f"The requested user '{reference}' is invalid.")
    _check_has_mailbox(owner)
    _check_reach(world, caller, owner, is_own)
    return owner


def _covers(caller: Caller, need: str, is_own: bool) -> bool:
    """User tokens: the plain or `.Shared` scope for the own mailbox, only `.Shared` for others (8.1 [D])."""
    enough = _COVERED_BY[need]
    if caller.kind == "app":
        # Mail.ReadBasic.All is the second application form of ReadBasic (graph.md 4, permission ids).
        return any(role in caller.roles or f"{role}.All" in caller.roles for role in enough)
    shared = any(f"{scope}.Shared" in caller.scopes for scope in enough)
    return shared or (is_own and any(scope in caller.scopes for scope in enough))


def _check_has_mailbox(owner: Principal) -> None:
    """The answers of graph.md 9.1 and 9.2 row 3 for principals without a cloud mailbox [F]."""
    if owner.kind == "group":
        raise item_not_found()
    if owner.kind in ("unlicensed", "onpremises"):
        message = "The mailbox is either inactive, soft-deleted, or is hosted on-premise."
        raise GraphError(404, "MailboxNotEnabledForRESTAPI", message)


def _check_reach(world: World, caller: Caller, owner: Principal, is_own: bool) -> None:
    if caller.kind == "app":
        application = world.directory.applications.get(caller.app_id)
        allowed = application.mailbox_allow_list if application else None
        if allowed is not None and owner.id not in allowed:
            # graph.md 8.6 [F].
            policy = "Blocked by tenant configured AppOnly AccessPolicy settings."
            raise access_denied(f"Access to OData is disabled: [RAOP] : {policy}")
        return
    if is_own or caller.principal is None:
        return
    if not world.directory.has_right(caller.principal, owner, "full_access"):
        raise access_denied() if world.switches.missing_full_access == "403" else item_not_found()


def check_profile_scope(caller: Caller, is_own: bool) -> None:
    """Raises 403 unless the caller may read profiles (graph.md 3.3, 4 [D])."""
    granted = caller.roles if caller.kind == "app" else caller.scopes
    own_scopes = ("User.Read", "User.ReadWrite") if is_own else ()
    if not any(scope in granted for scope in (*own_scopes, *_PROFILE)):
        raise directory_denied()
