"""The authorize endpoint, admin consent, sign-out: what a browser visits (graph.md 12.2, 12.3 [D])."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from . import login_pages as pages
from .directory import Application, Principal
from .login_clients import known_application
from .login_errors import KNOWN, LoginError, error_body
from .login_scopes import consented, missing_parameter, parse
from .tokens import base64url

if TYPE_CHECKING:
    from .world import World

SESSION_COOKIE = "ESTSAUTHPERSISTENT"
LOOPBACK = ("localhost", "127.0.0.1")
MODES = ("query", "form_post", "fragment")


def redirect_uri_allowed(application: Application, redirect_uri: str) -> bool:
    """Exact match; for http on localhost and 127.0.0.1 any port will do (graph.md 12.2 [D])."""
    if redirect_uri in application.redirect_uris:
        return True
    asked = urlsplit(redirect_uri)
    if asked.scheme != "http" or asked.hostname not in LOOPBACK:
        return False
    for registered in map(urlsplit, application.redirect_uris):
        same_host = (registered.scheme, registered.hostname) == ("http", asked.hostname)
        if same_host and (registered.path or "/", registered.query) == (asked.path or "/", asked.query):
            return True
    return False


def send_back(redirect_uri: str, mode: str, fields: dict[str, str]) -> web.Response:
    """The answer at the application's redirect URI, by the response mode asked for."""
    if mode == "form_post":
        return pages.form_post(redirect_uri, fields)
    query_separator = "&" if urlsplit(redirect_uri).query else "?"
    separator = "#" if mode == "fragment" else query_separator
    location = f"{redirect_uri}{separator}{urlencode(fields)}"
    return web.Response(status=302, headers={"Location": location, "Cache-Control": "no-store"})


class AuthorizeRequest:
    """One visit of the authorize page; the form posts to the same address, so the query comes again."""

    def __init__(self, world: World, request: web.Request) -> None:
        self.world = world
        self.request = request
        self.query = dict(request.query)

    def check_destination(self) -> Application:
        """The application, when answering at the redirect URI is safe. Raises LoginError otherwise."""
        self.world.login.home_tenant(self.request.match_info["tenant"])
        for name in ("client_id", "redirect_uri"):
            if not self.query.get(name):
                raise missing_parameter(name)
        application = known_application(self.world, self.query["client_id"])
        if not redirect_uri_allowed(application, self.query["redirect_uri"]):
            uri = self.query["redirect_uri"]
            text = (
                f"The redirect URI '{uri}' specified in the request does not match the redirect URIs "
                f"configured for the application '{application.client_id}'."
            )
            raise LoginError(50011, text)
        self.world.login.check_audience(application, self.request.match_info["tenant"])
        return application

    def check_wishes(self, application: Application) -> None:
        """Raises LoginError for what goes back to the application as error."""
        if not self.query.get("response_type"):
            raise missing_parameter("response_type")
        if self.query["response_type"] != "code":
            wanted = self.query["response_type"]
            raise LoginError(700054, f"response_type '{wanted}' is not enabled for the application.")
        if self.query.get("response_mode", "query") not in MODES:
            raise LoginError(9002313)
        if self.query.get("code_challenge_method", "plain") not in ("S256", "plain"):
            raise LoginError(9002313)
        try:
            consented(application, parse(self.query.get("scope")))
        except LoginError as error:
            if error.aadsts == 65001:
                # graph.md 12.2: at this endpoint the word is consent_required.
                raise LoginError(65001, error.text, error="consent_required") from error
            raise

    def back(self, fields: dict[str, str]) -> web.Response:
        """The fields, with the state, at the redirect URI."""
        mode = self.query.get("response_mode", "query")
        if "state" in self.query:
            fields = {**fields, "state": self.query["state"]}
        return send_back(self.query["redirect_uri"], mode, fields)

    def back_with_error(self, error: LoginError, subcode: str | None = None) -> web.Response:
        """The error at the redirect URI (graph.md 12.2)."""
        body = error_body(self.world, error)
        fields = {"error": error.error, "error_description": body["error_description"]}
        fields["error_uri"] = body["error_uri"]
        if subcode:
            fields["error_subcode"] = subcode
        if error.claims:
            fields["claims"] = error.claims
        return self.back(fields)

    def approved(self, principal: Principal) -> web.Response:
        """The code at the redirect URI, and a session cookie for `prompt=none`."""
        login = self.world.login
        session = login.sign_in(principal)
        fields = {"code": login.issue_code(principal, self.query)}
        if self.query.get("client_info") == "1":
            fields["client_info"] = client_info(self.world, principal)
        response = self.back({**fields, "session_state": self.world.new_guid()})
        response.set_cookie(SESSION_COOKIE, session, path="/", httponly=True, samesite="Lax")
        return response


def client_info(world: World, principal: Principal) -> str:
    """base64url JSON of user and tenant id (graph.md 12.4 [D])."""
    return base64url(json.dumps({"uid": principal.id, "utid": world.directory.tenant_id}).encode())


def _injected(visit: AuthorizeRequest) -> web.Response | None:
    one = visit.world.login.take_injected(visit.world.login.authorize_errors, None)
    if one is None:
        return None
    by_word = {known.error: number for number, known in reversed(KNOWN.items())}
    number = one.aadsts or by_word.get(one.error or "", 90033)
    error = LoginError(number, one.description, error=one.error, claims=one.claims)
    return visit.back_with_error(error, one.error_subcode)


def _session_user(visit: AuthorizeRequest) -> Principal | None:
    """The person `prompt=none` may continue for: the automatic one, or the browser session's."""
    world = visit.world
    if world.switches.auto_sign_in:
        return world.directory.find(world.switches.auto_sign_in)
    owner = world.login.sessions.get(visit.request.cookies.get(SESSION_COOKIE, ""))
    return world.directory.principals.get(owner or "")


def _show(visit: AuthorizeRequest, application: Application) -> web.Response:
    """GET: an immediate answer where no person is needed, else the page."""
    world = visit.world
    wants_silence = visit.query.get("prompt") == "none"
    if wants_silence or world.switches.auto_sign_in:
        principal = _session_user(visit)
        if principal is not None and principal.can_sign_in:
            return visit.approved(principal)
        if wants_silence:
            return visit.back_with_error(LoginError(50058))
        return pages.stays_here(50034, f"The user account {world.switches.auto_sign_in} cannot sign in.")
    people = [p for p in world.directory.principals.values() if p.can_sign_in]
    hint = visit.query.get("login_hint")
    return pages.choose_user(people, application.display_name, visit.query["scope"].split(), hint)


async def _chosen(visit: AuthorizeRequest) -> web.Response:
    """POST: the person's choice."""
    form = await visit.request.post()
    if "cancel" in form:
        return visit.back_with_error(LoginError(65004), "cancel")
    principal = visit.world.directory.find(str(form.get("user", "")))
    if principal is None or principal.kind == "group":
        return pages.stays_here(50034, "The user account does not exist in the directory.")
    if not principal.can_sign_in:
        # Shared mailboxes have sign-in blocked (graph.md 8.1 [P]).
        return pages.stays_here(50057, "The user account is disabled.")
    return visit.approved(principal)


def add_authorize_routes(app: web.Application, world: World) -> None:
    """Mount authorize, sign-out and admin consent."""

    async def authorize(request: web.Request) -> web.Response:
        visit = AuthorizeRequest(world, request)
        try:
            application = visit.check_destination()
        except LoginError as error:
            return pages.stays_here(error.aadsts, error.text)
        try:
            visit.check_wishes(application)
        except LoginError as error:
            if visit.query.get("response_mode", "query") not in MODES:
                visit.query["response_mode"] = "query"
            return visit.back_with_error(error)
        injected = _injected(visit)
        if injected is not None:
            return injected
        return await _chosen(visit) if request.method == "POST" else _show(visit, application)

    async def logout(request: web.Request) -> web.Response:
        world.login.sessions.pop(request.cookies.get(SESSION_COOKIE, ""), None)
        target = request.query.get("post_logout_redirect_uri")
        response = send_back(target, "query", {}) if target else pages.signed_out()
        response.del_cookie(SESSION_COOKIE, path="/")
        return response

    async def consent(request: web.Request) -> web.Response:
        return await _admin_consent(world, request)

    for method in ("GET", "POST"):
        app.router.add_route(method, "/{tenant}/oauth2/v2.0/authorize", authorize)
        app.router.add_route(method, "/{tenant}/v2.0/adminconsent", consent)
        app.router.add_route(method, "/{tenant}/adminconsent", consent)
    app.router.add_get("/{tenant}/oauth2/v2.0/logout", logout)


async def _admin_consent(world: World, request: web.Request) -> web.Response:
    """Admin consent v2, v1 without scope (graph.md 12.3 [D]); explicit scopes then count as consented."""
    visit = AuthorizeRequest(world, request)
    try:
        application = visit.check_destination()
    except LoginError as error:
        return pages.stays_here(error.aadsts, error.text)
    scope = visit.query.get("scope", "")
    form = await request.post()
    ids = {"admin_consent": "True", "tenant": world.directory.tenant_id}
    if "cancel" in form:
        body = error_body(world, LoginError(65004))
        return visit.back({"error": "access_denied", "error_description": body["error_description"], **ids})
    if "approve" not in form and not world.switches.auto_sign_in:
        return pages.approve(application.display_name, scope)
    try:
        asked = parse(scope) if scope else []
    except LoginError as error:
        return visit.back_with_error(error)
    application.delegated_scopes |= {a.name for a in asked if a.name != ".default"}
    return visit.back({**ids, "scope": scope} if scope else ids)
