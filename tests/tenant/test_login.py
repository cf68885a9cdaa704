"""Sign-in and tokens, driven by MSAL itself where MSAL can do it, else by plain HTTP."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from local.tenant.errors import GraphError
from local.tenant.seed import APPLICATION_APP, DELEGATED_APP, IDENTITY_CLIENT, seeded_id

from .login_tenant import ANN, LOGIN, REDIRECT, Tenant

SCOPES = ["Mail.ReadWrite.Shared", "Mail.Send.Shared"]
ERROR_WORDS = [
    "invalid_request",
    "unauthorized_client",
    "access_denied",
    "unsupported_response_type",
    "server_error",
    "temporarily_unavailable",
    "invalid_resource",
    "login_required",
    "interaction_required",
    "consent_required",
]
DEFAULT = ["https://graph.microsoft.com/.default"]


async def sign_in(tenant: Tenant, app: Any, scopes: list[str] = SCOPES) -> dict[str, Any]:
    """The MSAL result of a sign-in as Ann through the page's form."""
    flow = app.initiate_auth_code_flow(scopes, redirect_uri=REDIRECT, login_hint=ANN)
    _, fields, _ = await tenant.visit(flow["auth_uri"], {"user": ANN})
    return await tenant.blocking(lambda: app.acquire_token_by_auth_code_flow(flow, fields))


def authorize_url(tenant: Tenant, segment: str | None = None, **changes: str | None) -> str:
    """An authorize address of the delegated application; None leaves a parameter out."""
    query: dict[str, str | None] = {
        "client_id": DELEGATED_APP,
        "response_type": "code",
        "redirect_uri": REDIRECT,
        "scope": "openid offline_access Mail.Send",
        "state": "s-1",
    }
    query |= changes
    segment = segment or tenant.world.directory.tenant_id
    given = {name: value for name, value in query.items() if value is not None}
    return f"{LOGIN}/{segment}/oauth2/v2.0/authorize?{urlencode(given)}"


async def code_form(tenant: Tenant, **changes: str | None) -> dict[str, str]:
    """A token request for a fresh code of Ann's."""
    _, fields, _ = await tenant.visit(authorize_url(tenant, **changes), {"user": ANN})
    return {
        "grant_type": "authorization_code",
        "client_id": DELEGATED_APP,
        "client_secret": "local-secret",
        "code": fields["code"],
        "redirect_uri": REDIRECT,
    }


async def refresh_form(tenant: Tenant) -> dict[str, str]:
    """A token request with a fresh refresh token of Ann's."""
    minted = await tenant.control("POST", "/tokens", {"user": ANN, "app": DELEGATED_APP})
    return {
        "grant_type": "refresh_token",
        "client_id": DELEGATED_APP,
        "client_secret": "local-secret",
        "refresh_token": minted["refresh_token"],
        "scope": "openid offline_access Mail.Send",
    }


def expect_error(answer: tuple[int, Any], aadsts: int, error: str) -> dict[str, Any]:
    """The error body, its form checked against graph.md 12.7."""
    status, body = answer
    assert (body["error_codes"], body["error"]) == ([aadsts], error)
    assert status == (401 if error == "invalid_client" else 400)
    assert body["error_description"].startswith(f"AADSTS{aadsts}: ")
    assert (
        f"Trace ID: {body['trace_id']} Correlation ID: {body['correlation_id']}" in body["error_description"]
    )
    assert body["error_uri"] == f"https://login.microsoftonline.com/error?code={aadsts}"
    return body


class TestMsal:
    """graph.md 13.3: MSAL with its production authority, only the host rewritten."""

    async def test_code_flow_gives_tokens_and_an_account(self, tenant: Tenant) -> None:
        """PKCE, nonce and client_info all hold together."""
        app = await tenant.msal_app()
        result = await sign_in(tenant, app)
        assert result.get("error") is None, result
        claims = result["id_token_claims"]
        assert (claims["oid"], claims["preferred_username"]) == (seeded_id("ann"), ANN)
        assert claims["iss"] == f"{LOGIN}/{claims['tid']}/v2.0"
        assert result["expires_in"] == 4500
        accounts = await tenant.blocking(app.get_accounts)
        assert accounts[0]["home_account_id"] == f"{claims['oid']}.{claims['tid']}"
        caller = tenant.world.login.authenticate(f"Bearer {result['access_token']}")
        assert caller.kind == "user"
        assert caller.scopes >= set(SCOPES)

    async def test_silent_uses_cache_then_refreshes(self, tenant: Tenant) -> None:
        """The first silent call costs no token request, a forced one rotates."""
        app = await tenant.msal_app()
        await sign_in(tenant, app)
        account = (await tenant.blocking(app.get_accounts))[0]
        before = await tenant.control("GET", "/counts")
        cached = await tenant.blocking(lambda: app.acquire_token_silent_with_error(SCOPES, account))
        assert cached["token_source"] == "cache"
        assert await tenant.control("GET", "/counts") == before
        fresh = await tenant.blocking(
            lambda: app.acquire_token_silent_with_error(SCOPES, account, force_refresh=True)
        )
        assert fresh["token_source"] == "identity_provider"

    @pytest.mark.parametrize("scope", ["https://graph.microsoft.com/Mail.ReadWrite", "Mail.ReadWrite"])
    async def test_scope_spelling_is_kept_for_the_cache(self, tenant: Tenant, scope: str) -> None:
        """graph.md 13.5: the spelling asked for comes back, so a silent call hits the cache."""
        app = await tenant.msal_app()
        result = await sign_in(tenant, app, [scope])
        assert scope in result["scope"].split()
        account = (await tenant.blocking(app.get_accounts))[0]
        silent = await tenant.blocking(lambda: app.acquire_token_silent_with_error([scope], account))
        assert silent["token_source"] == "cache"

    async def test_common_authority_signs_in_home_users(self, tenant: Tenant) -> None:
        """`common` works for the multi-tenant application and gives the home tenant's tokens."""
        app = await tenant.msal_app(authority=f"{LOGIN}/common")
        result = await sign_in(tenant, app)
        assert result["id_token_claims"]["tid"] == tenant.world.directory.tenant_id

    async def test_refresh_token_import(self, tenant: Tenant) -> None:
        """acquire_token_by_refresh_token takes a minted refresh token."""
        app = await tenant.msal_app()
        minted = await tenant.control("POST", "/tokens", {"user": ANN})
        result = await tenant.blocking(
            lambda: app.acquire_token_by_refresh_token(minted["refresh_token"], SCOPES)
        )
        assert result["refresh_token"] != minted["refresh_token"]

    async def test_client_credentials_with_secret(self, tenant: Tenant) -> None:
        """An application token has roles and lasts 3599 seconds."""
        app = await tenant.msal_app("local-app-secret", APPLICATION_APP)
        result = await tenant.blocking(lambda: app.acquire_token_for_client(DEFAULT))
        caller = tenant.world.login.authenticate(f"Bearer {result['access_token']}")
        assert result["expires_in"] == 3599
        assert (caller.kind, caller.roles) == ("app", {"Mail.ReadWrite", "Mail.Send", "User.Read.All"})

    @pytest.mark.parametrize("form", ["PS256", "RS256"])
    async def test_client_credentials_with_certificate(self, tenant: Tenant, form: str) -> None:
        """MSAL's PS256/x5t#S256 and its old RS256/x5t assertions are both accepted."""
        key, certificate = make_certificate()
        await tenant.control("PATCH", f"/applications/{APPLICATION_APP}", {"certificates": [certificate]})
        credential = {"private_key": key, "public_certificate": certificate}
        if form == "RS256":
            loaded = x509.load_pem_x509_certificate(certificate.encode())
            credential = {"private_key": key, "thumbprint": loaded.fingerprint(hashes.SHA1()).hex()}
        app = await tenant.msal_app(credential, APPLICATION_APP)
        result = await tenant.blocking(lambda: app.acquire_token_for_client(DEFAULT))
        assert "access_token" in result, result

    async def test_unknown_certificate_is_700027(self, tenant: Tenant) -> None:
        """A certificate the registration does not have is refused."""
        key, certificate = make_certificate()
        credential = {"private_key": key, "public_certificate": certificate}
        app = await tenant.msal_app(credential, APPLICATION_APP)
        result = await tenant.blocking(lambda: app.acquire_token_for_client(DEFAULT))
        assert (result["error"], result["error_codes"]) == ("invalid_client", [700027])

    async def test_client_credentials_with_managed_identity(self, tenant: Tenant) -> None:
        """A token of the identity endpoint serves as client assertion."""
        status, answer = await identity_token(tenant)
        assert (status, answer["token_type"]) == (200, "Bearer")
        assert answer["expires_on"].isdigit()
        app = await tenant.msal_app({"client_assertion": lambda: answer["access_token"]}, APPLICATION_APP)
        result = await tenant.blocking(lambda: app.acquire_token_for_client(DEFAULT))
        assert "access_token" in result, result

    async def test_identity_not_configured_is_700213(self, tenant: Tenant) -> None:
        """An assertion no federated credential matches is refused."""
        _, answer = await identity_token(tenant)
        app = await tenant.msal_app({"client_assertion": answer["access_token"]}, DELEGATED_APP)
        result = await tenant.blocking(lambda: app.acquire_token_for_client(DEFAULT))
        assert result["error_codes"] == [700213]

    async def test_server_error_raises_in_msal(self, tenant: Tenant) -> None:
        """A 503 on demand reaches MSAL as an exception, once."""
        await tenant.control("POST", "/login_errors", {"token_status": {"status": 503, "times": 1}})
        app = await tenant.msal_app("local-app-secret", APPLICATION_APP)
        with pytest.raises(Exception, match="503"):
            await tenant.blocking(lambda: app.acquire_token_for_client(DEFAULT))


async def identity_token(tenant: Tenant, header: str = "local") -> tuple[int, Any]:
    """(status, JSON) of the managed-identity endpoint."""
    query = {
        "api-version": "2019-08-01",
        "resource": "api://AzureADTokenExchange",
        "client_id": IDENTITY_CLIENT,
    }
    headers = {"X-IDENTITY-HEADER": header}
    async with tenant.session.get(f"{tenant.url}/msi/token", params=query, headers=headers) as response:
        return response.status, await response.json()


def make_certificate() -> tuple[str, str]:
    """(private key PEM, self-signed certificate PEM)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "graphpost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=2))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


class TestAuthorize:
    """graph.md 12.2."""

    async def test_page_lists_only_people_who_can_sign_in(self, tenant: Tenant) -> None:
        """Shared mailboxes are not offered."""
        status, _, page = await tenant.visit(authorize_url(tenant))
        assert status == 200
        assert ANN in page
        assert "support@" not in page

    @pytest.mark.parametrize(
        ("changes", "number"),
        [
            ({"client_id": "00000000-0000-0000-0000-000000000001"}, 700016),
            ({"redirect_uri": "https://elsewhere.example/oauth"}, 50011),
            ({"redirect_uri": "http://localhost:7071/other"}, 50011),
            ({"client_id": None}, 900144),
        ],
    )
    async def test_errors_that_stay_here(
        self, tenant: Tenant, changes: dict[str, str | None], number: int
    ) -> None:
        """Unknown application and wrong redirect URI reach nobody."""
        status, fields, page = await tenant.visit(authorize_url(tenant, **changes))
        assert (status, fields) == (400, {})
        assert f"AADSTS{number}" in page

    async def test_localhost_may_use_any_port(self, tenant: Tenant) -> None:
        """The port of a loopback redirect URI does not matter."""
        status, _, _ = await tenant.visit(authorize_url(tenant, redirect_uri="http://localhost:40123/oauth"))
        assert status == 200

    async def test_unknown_tenant_is_90002(self, tenant: Tenant) -> None:
        """Another tenant's id is not found here."""
        status, _, page = await tenant.visit(authorize_url(tenant, "6f1c0000-0000-4000-8000-000000000000"))
        assert status == 400
        assert "AADSTS90002" in page

    async def test_cancel_is_access_denied(self, tenant: Tenant) -> None:
        """The Cancel button sends 65004 with the subcode and the state."""
        _, fields, _ = await tenant.visit(authorize_url(tenant), {"cancel": "1"})
        assert fields["error"] == "access_denied"
        assert fields["error_subcode"] == "cancel"
        assert fields["error_description"].startswith("AADSTS65004: ")
        assert fields["state"] == "s-1"

    @pytest.mark.parametrize(
        ("changes", "error", "number"),
        [
            ({"prompt": "none"}, "login_required", 50058),
            ({"response_type": "token"}, "unsupported_response_type", 700054),
            ({"response_type": None}, "invalid_request", 900144),
            ({"scope": None}, "invalid_request", 900144),
            ({"scope": "openid Calendars.Read"}, "consent_required", 65001),
            ({"scope": "https://vault.example/.default"}, "invalid_resource", 500011),
        ],
    )
    async def test_errors_that_are_sent_back(
        self, tenant: Tenant, changes: dict[str, str | None], error: str, number: int
    ) -> None:
        """The application learns of everything but its own identity."""
        status, fields, _ = await tenant.visit(authorize_url(tenant, **changes))
        assert (status, fields["error"]) == (302, error)
        assert fields["error_description"].startswith(f"AADSTS{number}: ")

    @pytest.mark.parametrize(
        "error",
        ERROR_WORDS,
    )
    async def test_every_error_redirect_on_demand(self, tenant: Tenant, error: str) -> None:
        """Control can ask for each error of graph.md 12.2, once."""
        await tenant.control("POST", "/login_errors", {"next_authorize_error": {"error": error}})
        _, fields, _ = await tenant.visit(authorize_url(tenant))
        assert fields["error"] == error
        status, _, _ = await tenant.visit(authorize_url(tenant))
        assert status == 200

    async def test_auto_sign_in_approves_at_once(self, tenant: Tenant) -> None:
        """The switch needs no form, and prompt=none works with it."""
        await tenant.control("PATCH", "/switches", {"auto_sign_in": ANN})
        status, fields, _ = await tenant.visit(authorize_url(tenant, prompt="none"))
        assert status == 302
        assert {"code", "state", "session_state"} <= set(fields)

    async def test_form_post_brings_a_form(self, tenant: Tenant) -> None:
        """response_mode=form_post answers with a page that posts to the redirect URI."""
        status, _, page = await tenant.visit(authorize_url(tenant, response_mode="form_post"), {"user": ANN})
        assert status == 200
        assert f'action="{REDIRECT}"' in page
        assert 'name="code"' in page

    async def test_shared_mailbox_cannot_sign_in(self, tenant: Tenant) -> None:
        """Posting a shared mailbox's name stays here with 50057."""
        status, _, page = await tenant.visit(authorize_url(tenant), {"user": "support@contoso.example"})
        assert status == 400
        assert "AADSTS50057" in page

    async def test_single_tenant_app_on_common_is_50194(self, tenant: Tenant) -> None:
        """`common` is for multi-tenant applications."""
        await tenant.control("PATCH", f"/applications/{DELEGATED_APP}", {"multi_tenant": False})
        _, _, page = await tenant.visit(authorize_url(tenant, "common"))
        assert "AADSTS50194" in page

    async def test_admin_consent_answers_at_the_redirect_uri(self, tenant: Tenant) -> None:
        """graph.md 12.3: consent adds the scopes and reports tenant and state."""
        query = {
            "client_id": DELEGATED_APP,
            "redirect_uri": REDIRECT,
            "state": "c",
            "scope": "https://graph.microsoft.com/Calendars.Read",
        }
        url = f"{LOGIN}/organizations/v2.0/adminconsent?{urlencode(query)}"
        _, fields, _ = await tenant.visit(url, {"approve": "1"})
        assert (fields["admin_consent"], fields["state"]) == ("True", "c")
        assert fields["tenant"] == tenant.world.directory.tenant_id
        application = tenant.world.directory.application(DELEGATED_APP)
        assert application is not None
        assert "Calendars.Read" in application.delegated_scopes


class TestCode:
    """The authorization_code grant."""

    async def test_code_works_once(self, tenant: Tenant) -> None:
        """The second use is 54005."""
        form = await code_form(tenant)
        status, body = await tenant.token(form)
        assert status == 200
        assert "client_info" not in body
        assert body["scope"] == "openid Mail.Send"
        expect_error(await tenant.token(form), 54005, "invalid_grant")

    async def test_code_expires_after_ten_minutes(self, tenant: Tenant) -> None:
        """The clock moved by 601 seconds makes it 70008."""
        form = await code_form(tenant)
        await tenant.control("POST", "/clock", {"offset_s": 601})
        expect_error(await tenant.token(form), 70008, "invalid_grant")

    async def test_wrong_verifier_is_501481(self, tenant: Tenant) -> None:
        """PKCE is checked, and the code survives the mistake."""
        form = await code_form(tenant, code_challenge="right", code_challenge_method="plain")
        expect_error(await tenant.token({**form, "code_verifier": "wrong"}), 501481, "invalid_grant")
        expect_error(await tenant.token(form), 501481, "invalid_grant")
        status, _ = await tenant.token({**form, "code_verifier": "right"})
        assert status == 200

    async def test_tokens_depend_on_scopes(self, tenant: Tenant) -> None:
        """No offline_access, no refresh token; no openid, no id_token."""
        _, body = await tenant.token(await code_form(tenant, scope="Mail.Send"))
        assert "refresh_token" not in body
        assert "id_token" not in body

    async def test_nonce_reaches_the_id_token(self, tenant: Tenant) -> None:
        """And the id_token verifies against the published key set."""
        _, body = await tenant.token(await code_form(tenant, nonce="n-1"))
        async with tenant.session.get(f"{tenant.url}/common/discovery/v2.0/keys") as response:
            keys = jwt.PyJWKSet.from_dict(await response.json())
        kid = jwt.get_unverified_header(body["id_token"])["kid"]
        claims = jwt.decode(body["id_token"], keys[kid].key, algorithms=["RS256"], audience=DELEGATED_APP)
        assert claims["nonce"] == "n-1"
        assert claims["ver"] == "2.0"

    async def test_client_info_when_asked(self, tenant: Tenant) -> None:
        """base64url JSON of uid and utid."""
        form = await code_form(tenant)
        _, body = await tenant.token({**form, "client_info": "1"})
        info = json.loads(base64.urlsafe_b64decode(body["client_info"] + "=="))
        assert info == {"uid": seeded_id("ann"), "utid": tenant.world.directory.tenant_id}


class TestRefresh:
    """The refresh_token grant, graph.md 12.6."""

    async def test_old_refresh_token_stays_valid(self, tenant: Tenant) -> None:
        """Rotation gives a new token and keeps the old one."""
        form = await refresh_form(tenant)
        _, first = await tenant.token(form)
        _, second = await tenant.token(form)
        held = {form["refresh_token"], first["refresh_token"], second["refresh_token"]}
        assert len(held) == 3

    async def test_subset_of_scopes(self, tenant: Tenant) -> None:
        """Less than granted is fine; what nobody consented to is 65001 with its suberror."""
        form = await refresh_form(tenant)
        _, body = await tenant.token({**form, "scope": "Mail.Read"})
        assert body["scope"] == "Mail.Read"
        answer = await tenant.token({**form, "scope": "Calendars.Read"})
        assert expect_error(answer, 65001, "invalid_grant")["suberror"] == "consent_required"

    async def test_expires_after_ninety_days(self, tenant: Tenant) -> None:
        """Unused for 90 days is 700082."""
        form = await refresh_form(tenant)
        await tenant.control("POST", "/clock", {"offset_s": 90 * 86400 + 5})
        expect_error(await tenant.token(form), 700082, "invalid_grant")

    async def test_revoked_is_50173(self, tenant: Tenant) -> None:
        """Revoking by command ends refresh tokens, access tokens only when asked."""
        form = await refresh_form(tenant)
        _, body = await tenant.token(form)
        await tenant.control("POST", "/revoke", {"user": ANN})
        expect_error(await tenant.token(form), 50173, "invalid_grant")
        login = tenant.world.login
        assert login.authenticate(f"Bearer {body['access_token']}").principal is not None
        await tenant.control("POST", "/revoke", {"user": ANN, "access_tokens": True})
        with pytest.raises(GraphError, match="401 InvalidAuthenticationToken"):
            login.authenticate(f"Bearer {body['access_token']}")

    async def test_password_change_is_50173_until_next_sign_in(self, tenant: Tenant) -> None:
        """After an administrator's reset only a new sign-in helps."""
        form = await refresh_form(tenant)
        await tenant.control("PATCH", f"/principals/{ANN}", {"password_changed": True})
        expect_error(await tenant.token(form), 50173, "invalid_grant")
        _, fresh = await tenant.token(await code_form(tenant))
        status, _ = await tenant.token({**form, "refresh_token": fresh["refresh_token"]})
        assert status == 200

    async def test_disabled_user_is_50057(self, tenant: Tenant) -> None:
        """A disabled account gets no new tokens."""
        form = await refresh_form(tenant)
        await tenant.control("PATCH", f"/principals/{ANN}", {"enabled": False})
        expect_error(await tenant.token(form), 50057, "invalid_grant")

    async def test_deleted_user_is_50034(self, tenant: Tenant) -> None:
        """A deleted account neither."""
        form = await refresh_form(tenant)
        await tenant.control("DELETE", f"/principals/{ANN}")
        expect_error(await tenant.token(form), 50034, "invalid_grant")

    @pytest.mark.parametrize("number", [50076, 53003, 700084, 90033, 50196])
    async def test_any_error_on_demand(self, tenant: Tenant, number: int) -> None:
        """Control injects an AADSTS number, for one user, so many times."""
        form = await refresh_form(tenant)
        rule = {
            "aadsts": number,
            "error": "invalid_grant",
            "suberror": "basic_action",
            "times": 1,
            "user": ANN,
        }
        await tenant.control("POST", "/login_errors", {"token_errors": [rule]})
        body = expect_error(await tenant.token(form), number, "invalid_grant")
        assert body["suberror"] == "basic_action"
        assert (await tenant.token(form))[0] == 200


class TestClients:
    """Client authentication and client_credentials."""

    FORM = {  # noqa: RUF012
        "grant_type": "client_credentials",
        "client_id": APPLICATION_APP,
        "client_secret": "local-app-secret",
        "scope": DEFAULT[0],
    }

    @pytest.mark.parametrize(
        ("changes", "number", "error"),
        [
            ({"client_secret": "wrong"}, 7000215, "invalid_client"),
            ({"client_secret": None}, 7000218, "invalid_client"),
            ({"client_id": "unknown"}, 700016, "unauthorized_client"),
            ({"client_id": None}, 900144, "invalid_request"),
            ({"grant_type": "password"}, 70003, "unsupported_grant_type"),
            ({"grant_type": None}, 900144, "invalid_request"),
            ({"scope": "Mail.Send"}, 70011, "invalid_scope"),
            ({"scope": "https://vault.example/.default"}, 500011, "invalid_resource"),
        ],
    )
    async def test_refusals(
        self, tenant: Tenant, changes: dict[str, str | None], number: int, error: str
    ) -> None:
        """Each mistake has its number and word."""
        form = {name: value for name, value in {**self.FORM, **changes}.items() if value is not None}
        expect_error(await tenant.token(form), number, error)

    async def test_expired_secret_is_7000222(self, tenant: Tenant) -> None:
        """A secret past its date is told apart from a wrong one."""
        secret = {"value": "old", "expires_at": "2020-01-01T00:00:00Z"}
        await tenant.control("PATCH", f"/applications/{APPLICATION_APP}", {"secrets": [secret]})
        answer = await tenant.token({**self.FORM, "client_secret": "old"})
        expect_error(answer, 7000222, "invalid_client")

    async def test_basic_authentication(self, tenant: Tenant) -> None:
        """HTTP Basic serves as well as the form."""
        form = {"grant_type": "client_credentials", "scope": DEFAULT[0]}
        basic = base64.b64encode(f"{APPLICATION_APP}:local-app-secret".encode()).decode()
        status, _ = await tenant.token(form, headers={"Authorization": f"Basic {basic}"})
        assert status == 200

    @pytest.mark.parametrize("segment", ["common", "organizations"])
    async def test_needs_a_tenant_authority(self, tenant: Tenant, segment: str) -> None:
        """client_credentials on common is 9001023."""
        expect_error(await tenant.token(self.FORM, segment), 9001023, "invalid_request")

    async def test_unknown_tenant_is_90002(self, tenant: Tenant) -> None:
        """Another tenant is not here."""
        expect_error(await tenant.token(self.FORM, "elsewhere.example"), 90002, "invalid_request")

    async def test_identity_endpoint_wants_its_header(self, tenant: Tenant) -> None:
        """The wrong X-IDENTITY-HEADER gets no token."""
        assert (await identity_token(tenant, "wrong"))[0] == 401


class TestDiscovery:
    """graph.md 12.1."""

    @pytest.mark.parametrize(
        ("segment", "issuer"),
        [
            ("common", "https://login.microsoftonline.com/{tenantid}/v2.0"),
            (
                "contoso.example",
                "https://login.microsoftonline.com/84bd8158-6d4d-4958-8b9f-9d6445542f95/v2.0",
            ),
        ],
    )
    async def test_issuer(self, tenant: Tenant, segment: str, issuer: str) -> None:
        """The issuer of `common` is a template, the one of a domain has the tenant's id."""
        url = f"{tenant.url}/{segment}/v2.0/.well-known/openid-configuration"
        async with tenant.session.get(url) as response:
            assert (await response.json())["issuer"] == issuer

    async def test_key_rollover(self, tenant: Tenant) -> None:
        """A new key signs; tokens of the old key are good until it is dropped."""
        old = tenant.world.login.app_token(APPLICATION_APP, "x", {"Mail.Send"})
        kid = (await tenant.control("POST", "/keys/roll"))["kid"]
        new = tenant.world.login.app_token(APPLICATION_APP, "x", {"Mail.Send"})
        assert jwt.get_unverified_header(new)["kid"] == kid
        tenant.world.login.authenticate(f"Bearer {old}")
        await tenant.control("POST", "/keys/roll", {"drop_old": True})
        with pytest.raises(GraphError):
            tenant.world.login.authenticate(f"Bearer {old}")


class TestAuthenticate:
    """graph.md 2.3: the 401 texts."""

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            (None, "Access token is empty."),
            ("Bearer ", "Access token is empty."),
            ("Bearer nonsense", "CompactToken parsing failed with error code: "),
        ],
    )
    async def test_unusable_tokens(self, tenant: Tenant, header: str | None, message: str) -> None:
        """Nothing, and something that is no token."""
        with pytest.raises(GraphError) as caught:
            tenant.world.login.authenticate(header)
        assert caught.value.message.startswith(message)
        assert caught.value.headers["WWW-Authenticate"].startswith('Bearer realm=""')

    async def test_expired_and_wrong_audience(self, tenant: Tenant) -> None:
        """Each has its own text."""
        short = await tenant.control("POST", "/tokens", {"user": ANN, "expires_in": -1})
        other = await tenant.control("POST", "/tokens", {"user": ANN, "audience": "https://vault.example"})
        for minted, message in ((short, "the token is expired"), (other, "Invalid audience")):
            with pytest.raises(GraphError, match=message):
                tenant.world.login.authenticate(f"Bearer {minted['access_token']}")
