"""Profiles: /me, /users/{id}, /users with a filter (graph.md 3.3, 8.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from .access import check_profile_scope, is_callers_own, me_without_user
from .errors import GraphError
from .graph_call import GraphCall
from .query_options import read_list_query, read_select

if TYPE_CHECKING:
    from .directory import Principal

USER_TYPE = "microsoft.graph.user"
_DEFAULT = [
    "businessPhones",
    "displayName",
    "givenName",
    "jobTitle",
    "mail",
    "mobilePhone",
    "officeLocation",
    "preferredLanguage",
    "surname",
    "userPrincipalName",
    "id",
]
_WITH_SELECT = ["proxyAddresses", "otherMails", "accountEnabled", "userType", "mailNickname"]
_KNOWN = frozenset((*_DEFAULT, *_WITH_SELECT))


async def get_user(call: GraphCall) -> web.Response:
    """The profile; 404 Request_ResourceNotFound for groups and unknown references (graph.md 9.1 [F])."""
    found = _principal(call)
    check_profile_scope(call.caller, is_callers_own(call.caller, found))
    if found is None or found.kind == "group":
        message = (
            f"Resource '{call.reference}' does not exist or one of its queried reference-property objects "
            "are not present."
        )
        raise GraphError(404, "Request_ResourceNotFound", message)
    select = read_select(call.options, _KNOWN, USER_TYPE)
    return call.answer({"@odata.context": f"{call.root}/$metadata#users/$entity", **_selected(found, select)})


def _principal(call: GraphCall) -> Principal | None:
    if call.reference is not None:
        return call.world.directory.find(call.reference)
    if call.caller.kind != "user":
        raise me_without_user()
    return call.caller.principal


async def list_users(call: GraphCall) -> web.Response:
    """The users a filter finds: mail, userPrincipalName, proxyAddresses/any(...) (graph.md 8.2 [D])."""
    check_profile_scope(call.caller, is_own=False)
    query = read_list_query({"$top": "100", **call.options}, _KNOWN, USER_TYPE)
    users = [p for p in call.world.directory.principals.values() if p.kind != "group"]
    if query.filter is not None:
        test = query.filter.matches
        users = [user for user in users if test(_profile(user).get)]
    page = users[query.skip : query.skip + query.top]
    answer: dict[str, Any] = {"@odata.context": f"{call.root}/$metadata#users"}
    if query.count:
        answer["@odata.count"] = len(users)
    answer["value"] = [_selected(user, query.select) for user in page]
    if query.skip + query.top < len(users):
        following = call.request.rel_url.update_query({"$skip": str(query.skip + query.top)})
        answer["@odata.nextLink"] = f"{call.request.scheme}://{call.request.host}{following.raw_path_qs}"
    return call.answer(answer)


def _selected(user: Principal, select: list[str] | None) -> dict[str, Any]:
    """The default fields, or just the selected ones: unlike mail, the directory adds no id [P]."""
    profile = _profile(user)
    return {name: profile[name] for name in (_DEFAULT if select is None else select)}


def _profile(user: Principal) -> dict[str, Any]:
    given, _, surname = user.display_name.partition(" ")
    primary = [f"SMTP:{user.mail}"] if user.mail else []
    return {
        "id": user.id,
        "displayName": user.display_name,
        "givenName": given if user.kind == "user" else None,
        "surname": surname or None if user.kind == "user" else None,
        "mail": user.mail,
        "userPrincipalName": user.upn,
        "jobTitle": None,
        "mobilePhone": None,
        "officeLocation": None,
        "businessPhones": [],
        "preferredLanguage": user.preferred_language,
        "proxyAddresses": primary + [f"smtp:{alias}" for alias in user.aliases],
        "otherMails": [],
        # Sign-in to a shared mailbox is blocked (graph.md 8.1 [P]).
        "accountEnabled": user.enabled and user.kind != "shared",
        "userType": "Guest" if "#EXT#" in user.upn else "Member",
        "mailNickname": user.upn.partition("@")[0],
    }
