"""Scope strings: what was asked for, in its own spelling, and what that means for the resource."""

from __future__ import annotations

from dataclasses import dataclass

from .directory import Application
from .login_errors import LoginError

GRAPH = "https://graph.microsoft.com"
# graph.md 2.1 [D]: Graph's application id, accepted as a name of the resource.
GRAPH_NAMES = (GRAPH, "00000003-0000-0000-c000-000000000000")
OPENID_SCOPES = ("openid", "profile", "email", "offline_access")


@dataclass(frozen=True)
class Asked:
    """One scope as written and its short name; `.default` stands for everything consented."""

    spelling: str
    name: str


@dataclass(frozen=True)
class Granted:
    """What a token gets: `spellings` for the answer, canonical `names` for the token, OpenID wishes."""

    spellings: tuple[str, ...]
    names: tuple[str, ...]
    openid: bool
    offline_access: bool


def _split(spelling: str) -> Asked:
    """Raises LoginError 500011 for a resource that is not Graph."""
    for resource in GRAPH_NAMES:
        if spelling.lower().startswith(resource.lower() + "/"):
            # Clients that join root and scope with two slashes are understood, too.
            return Asked(spelling, spelling[len(resource) :].lstrip("/"))
    if "/" in spelling or ":" in spelling:
        resource = spelling.rsplit("/", 1)[0]
        text = f"The resource principal named {resource} was not found in the tenant."
        raise LoginError(500011, text, error="invalid_resource")
    return Asked(spelling, spelling)


def parse(scope: str | None) -> list[Asked]:
    """The scopes of a request in order. Raises LoginError for none at all, or `.default` beside others."""
    if scope is None:
        raise missing_parameter("scope")
    asked = [_split(spelling) for spelling in dict.fromkeys(scope.split())]
    names = [a.name for a in asked if a.name.lower() not in OPENID_SCOPES]
    if not asked or (".default" in names and len(names) > 1):
        raise LoginError(
            70011, f"The provided value for the input parameter 'scope' is not valid: {scope!r}."
        )
    return asked


def missing_parameter(name: str) -> LoginError:
    """AADSTS900144 naming the parameter."""
    return LoginError(900144, f"The request body must contain the following parameter: '{name}'.")


def consented(application: Application, asked: list[Asked]) -> Granted:
    """The delegated scopes of the application that were asked for.

    Raises LoginError 65001 for one that was not consented. The spelling asked for is kept (13.3, 13.5);
    offline_access never shows in the answer (12.4 example). Only what was asked for is given: a real tenant
    adds scopes consented earlier [P].
    """
    known = {name.lower(): name for name in application.delegated_scopes}
    names: dict[str, None] = {}
    for one in asked:
        if one.name == ".default":
            names.update(dict.fromkeys(sorted(application.delegated_scopes)))
        elif one.name.lower() in known:
            names[known[one.name.lower()]] = None
        else:
            raise _no_consent(application, one)
    names.pop("offline_access", None)
    words = {a.name.lower() for a in asked}
    return Granted(
        spellings=tuple(a.spelling for a in asked if a.name.lower() != "offline_access"),
        names=tuple(names),
        openid="openid" in words,
        offline_access="offline_access" in words,
    )


def _no_consent(application: Application, asked: Asked) -> LoginError:
    text = (
        "The user or administrator has not consented to use the application with ID "
        f"'{application.client_id}' named '{application.display_name}'. Send an interactive authorization "
        f"request for this user and resource. Scope: {asked.spelling}."
    )
    return LoginError(65001, text)
