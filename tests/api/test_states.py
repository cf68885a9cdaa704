"""States of accounts and why: credentials that end, a login service out of reach, mailboxes that are not open,
and chains of delegation. Time passes on the test's own clock; storage and the tenant are real programs."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

import pytest

from local.tenant.control_login import mint
from local.tenant.login import Injected
from shared.api.account_view import account_view, listed_view
from tests.support.desk import APPLICATION, DELEGATED
from tests.support.workshop import ANN, RITA, SUPPORT, Workshop

Json = dict[str, Any]
SALES, LOCKED = "sales@contoso.example", "locked@contoso.example"
TOKEN_URL = "https://login.microsoftonline.com/common/oauth2/v2.0/token"
SIGN_IN_AGAIN = "The user must sign in again: open a new link from POST /v1/authentication/form for this account."
LOOPING, TOO_MANY = "Delegation looping detected", "Too many delegation hops"


async def shown(shop: Workshop, account: str) -> Json:
    """The account as the API shows it."""
    services = shop.services
    record = await services.accounts.get(account)
    holder = await services.accounts.find((record.get("reach") or {}).get("holder") or "")
    return await account_view(record, holder, services.accounts, services.apps, {})


async def state(shop: Workshop, account: str) -> str:
    return str((await shown(shop, account))["state"])


async def tokens_of(shop: Workshop, user: str) -> Json:
    """Tokens of a new sign-in, as an account takes them."""
    tokens = mint(shop.world, {"user": user})
    ends = (shop.clock() + timedelta(seconds=tokens["expires_in"])).isoformat()
    return {"accessToken": tokens["access_token"], "refreshToken": tokens["refresh_token"], "expires": ends}


async def sign_in(shop: Workshop, account: str, user: str = ANN) -> None:
    """The person signs in anew for an account that exists."""
    record = await shop.record(account)
    oauth2 = {"provider": record["oauth2"]["provider"], "auth": record["oauth2"]["auth"]}
    await shop.services.onboarding.update(account, {"oauth2": oauth2 | await tokens_of(shop, user)})
    await shop.run_due()


async def send(shop: Workshop, account: str) -> str:
    """Accepts a mail to Rita; its Message-ID."""
    fields = {"to": [{"address": RITA}], "subject": "Hello", "text": "A test"}
    return str((await shop.services.submit.accept(account, fields))["messageId"])


def revoke(shop: Workshop, user: str = ANN) -> None:
    """Every token of a person, issued so far, is worthless."""
    principal = shop.world.directory.find(user)
    assert principal is not None
    shop.world.login.revoke(principal, access_tokens=True)


def login_requests(shop: Workshop) -> list[Any]:
    return shop.world.log.select("login", None, "POST", "/token$")


# -- credentials that end -------------------------------------------------------------------------------------


async def test_a_revoked_holder_and_all_its_borrowers_say_why(workshop: Workshop) -> None:
    """When a person's tokens are revoked, the account and every child show the cause and the fix."""
    ann = await workshop.own()
    children = [await workshop.delegated(box, ann) for box in (SUPPORT, SALES)]
    grandchild = await workshop.delegated(SUPPORT, children[0])
    revoke(workshop)
    await workshop.run_for(65)
    for account in (ann, *children, grandchild):
        view = await shown(workshop, account)
        assert view["state"] == "authenticationError", account
        error = view["lastError"]
        assert error["serverResponseCode"] == "OauthRenewError"
        start = "Token request failed for outlook (refresh_token, HTTP 400): invalid_grant - AADSTS50173: "
        assert error["response"].startswith(start)
        assert error["description"] == SIGN_IN_AGAIN
    assert (await shown(workshop, ann))["lastError"].get("account") is None
    assert (await shown(workshop, grandchild))["lastError"]["account"] == ann


async def test_the_last_error_has_the_shape_of_the_contract(workshop: Workshop) -> None:
    """`tokenRequest` names request and answer; no token and no secret is in it."""
    ann = await workshop.own()
    revoke(workshop)
    await send(workshop, ann)
    await workshop.run_due()
    error = (await shown(workshop, ann))["lastError"]
    request = error["tokenRequest"]
    flag = request.pop("userFlag")
    assert flag["code"] == "OUTLOOK_USER_PASSWORD_CHANGED"
    assert flag["message"]
    assert request == {
        "url": TOKEN_URL,
        "method": "post",
        "grant": "refresh_token",
        "provider": "outlook",
        "status": 400,
        "clientId": DELEGATED["clientId"],
        "authority": "common",
        "response": {"error": "invalid_grant", "error_codes": [50173]},
    }
    assert "Trace ID" not in str(error)
    assert DELEGATED["clientSecret"] not in str(error)


async def test_a_new_sign_in_heals_the_children_without_a_call(workshop: Workshop) -> None:
    """After the person signed in again every child is connected, though nobody asked for any of them."""
    ann = await workshop.own()
    children = [await workshop.delegated(box, ann) for box in (SUPPORT, SALES)]
    revoke(workshop)
    await workshop.run_for(65)
    assert {await state(workshop, one) for one in (ann, *children)} == {"authenticationError"}
    await sign_in(workshop, ann)
    for account in (ann, *children):
        view = await shown(workshop, account)
        assert (view["state"], view["lastError"]) == ("connected", None), account
    for account in children:
        message_id = await send(workshop, account)
        await workshop.run_due()
        assert workshop.arrived(RITA, message_id)


async def test_the_error_event_is_sent_once_per_content(workshop: Workshop) -> None:
    """A failure that goes on is one event however often it is met; another cause is another event."""
    ann = await workshop.own()
    revoke(workshop)
    await send(workshop, ann)
    await workshop.run_for(8 * 3600)
    assert len(login_requests(workshop)) > 3, "it was tried again and again"
    assert len(await workshop.events(ann, "authenticationError")) == 1
    workshop.world.login.token_errors.append(Injected(aadsts=53003, times=None))
    await workshop.timers()  # the hourly sweep tries every account that is in an error
    await workshop.run_for(8 * 3600)
    events = await workshop.events(ann, "authenticationError")
    assert ["AADSTS50173" in one["data"]["response"] for one in events] == [True, False]
    workshop.world.login.token_errors.clear()
    await sign_in(workshop, ann)
    assert await state(workshop, ann) == "connected"
    assert len(await workshop.events(ann, "authenticationSuccess")) == 2, "at first, and after the error phase"
    assert len(await workshop.events(ann, "accountInitialized")) == 1


OUTAGES: dict[str, Any] = {
    "503": Injected(status=503, times=None),
    "500": Injected(status=500, error="server_error", times=None),
    "429": Injected(status=429, times=None, retry_after="1"),
}


@pytest.mark.parametrize("outage", [*OUTAGES, "dropped", "transient code", "discovery down"])
async def test_an_unreachable_login_service_is_a_connect_error(workshop: Workshop, outage: str) -> None:
    """An outage of the login service shows as connectError on holder and child and passes without anybody acting."""
    ann = await workshop.own()
    child = await workshop.delegated(SUPPORT, ann)
    world = workshop.world
    if outage in OUTAGES:
        world.login.token_statuses.append(OUTAGES[outage])
    elif outage == "dropped":
        world.faults.add({"path_regex": "/token$"}, {"drop": True}, None)
    elif outage == "discovery down":
        workshop.services = workshop.build()
        world.faults.add({"path_regex": "openid-configuration$"}, {"status": 503}, None)
    else:
        world.login.token_errors.append(Injected(aadsts=90033, times=None))
    seen = set()
    workshop.advance(2 * 3600)
    for _ in range(6):
        await workshop.run_for(30)
        seen |= {await state(workshop, ann), await state(workshop, child)}
    assert "connectError" in seen
    assert "authenticationError" not in seen
    assert await state(workshop, ann) == await state(workshop, child) == "connectError"
    assert await workshop.events(ann, "authenticationError") == []
    assert len(await workshop.events(ann, "connectError")) >= 1
    world.login.token_statuses.clear()
    world.login.token_errors.clear()
    world.faults.remove()
    await workshop.run_for(3600)
    assert await state(workshop, ann) == await state(workshop, child) == "connected"
    assert (await shown(workshop, child))["lastError"] is None


async def test_an_outage_names_the_login_service_and_no_address_beyond_it(workshop: Workshop) -> None:
    """The text of a connectError says what could not be reached, and has no token, query or library detail."""
    ann = await workshop.own()
    workshop.world.faults.add({"path_regex": "/token$"}, {"drop": True}, None)
    workshop.advance(2 * 3600)
    await send(workshop, ann)
    await workshop.run_due()
    error = (await shown(workshop, ann))["lastError"]
    assert error["response"] == (
        "The login service https://login.microsoftonline.com could not be reached (ConnectionError)"
    )
    assert (error["serverResponseCode"], error["tokenRequest"]["url"]) == ("TokenGenerationError", TOKEN_URL)


async def test_an_outage_of_graph_is_a_connect_error_that_passes(workshop: Workshop) -> None:
    """An account made while Graph is down connects by itself when Graph is back."""
    workshop.world.faults.add({"path_regex": "^/v1.0/"}, {"status": 503}, None)
    ann = await workshop.own()
    assert await state(workshop, ann) == "connectError"
    assert (await shown(workshop, ann))["lastError"]["serverResponseCode"] == "ApiRequestError"
    workshop.world.faults.remove()
    await workshop.run_for(70)
    assert await state(workshop, ann) == "connected"


# -- mailboxes that are not open ------------------------------------------------------------------------------

FULL_ACCESS = f"Run: Add-MailboxPermission -Identity {{}} -User {ANN} -AccessRights FullAccess"


@pytest.mark.parametrize(
    ("mailbox", "code", "says"),
    [
        (LOCKED, "ErrorItemNotFound", f"{ANN} lacks Full Access to {LOCKED}"),
        (LOCKED, "ErrorItemNotFound", FULL_ACCESS.format(LOCKED)),
        ("team@contoso.example", "ErrorItemNotFound", "or the address is not a mailbox"),
        ("nolicence@contoso.example", "MailboxNotEnabledForRESTAPI", "has no Exchange Online mailbox"),
        ("onprem@contoso.example", "MailboxNotEnabledForRESTAPI", "has no Exchange Online mailbox"),
        ("nobody@contoso.example", "ErrorInvalidUser", "Run: Get-User nobody@contoso.example"),
    ],
)
async def test_a_mailbox_that_is_not_open_says_which_layer_refused(
    workshop: Workshop, mailbox: str, code: str, says: str
) -> None:
    """The child's error has Graph's code, names the layer and prints the command; its parent stays connected."""
    ann = await workshop.own()
    child = await workshop.delegated(mailbox, ann)
    view = await shown(workshop, child)
    assert view["state"] == "authenticationError"
    assert view["lastError"]["serverResponseCode"] == "ApiRequestError"
    assert view["lastError"]["response"].startswith(f"{code}: ")
    assert says in view["lastError"]["description"]
    assert await state(workshop, ann) == "connected"


async def test_a_refusal_by_403_names_the_right_too(workshop: Workshop) -> None:
    """Some tenants answer 403 where Full Access is missing; the text then names both possible layers."""
    workshop.world.switches.missing_full_access = "403"
    child = await workshop.delegated(LOCKED, await workshop.own())
    view = await shown(workshop, child)
    assert view["state"] == "authenticationError"
    assert "Mail.ReadWrite.Shared" in view["lastError"]["description"]
    assert FULL_ACCESS.format(LOCKED) in view["lastError"]["description"]


async def test_a_missing_scope_is_named(workshop: Workshop) -> None:
    """A sign-in without the Shared scopes says that it lacks them, and what to do."""
    tokens = mint(workshop.world, {"user": ANN, "scopes": ["User.Read", "Mail.ReadWrite", "Mail.Send"]})
    ends = (workshop.clock() + timedelta(hours=1)).isoformat()
    provider = await workshop._app(DELEGATED)
    oauth2 = {"provider": provider, "auth": {"user": ANN}, "accessToken": tokens["access_token"], "expires": ends}
    ann = await workshop.add("ann", oauth2, email=ANN)
    assert await state(workshop, ann) == "connected"
    view = await shown(workshop, await workshop.delegated(SUPPORT, ann))
    assert view["state"] == "authenticationError"
    assert view["lastError"]["response"].startswith("ErrorAccessDenied: ")
    assert "Add the scopes to the OAuth2 app (extraScopes)" in view["lastError"]["description"]


async def test_a_right_granted_later_connects_the_mailbox_by_itself(workshop: Workshop) -> None:
    """Once the administrator ran the command the account recovers without a call."""
    child = await workshop.delegated(LOCKED, await workshop.own())
    assert await state(workshop, child) == "authenticationError"
    find = workshop.world.directory.find
    user, mailbox = find(ANN), find(LOCKED)
    assert user
    assert mailbox
    workshop.world.directory.grant(user, mailbox, "full_access")
    await workshop.run_for(2 * 3600)
    assert await state(workshop, child) == "connected"


@pytest.mark.parametrize("provider", ["outlook", "outlookService"])
@pytest.mark.parametrize(
    ("problem", "aadsts", "flag"),
    [
        ("wrong", 7000215, "OUTLOOK_CLIENT_SECRET_INVALID"),
        ("expired", 7000222, "OUTLOOK_CLIENT_SECRET_EXPIRED_OR_NOT_VALID"),
        ("unknown", 700016, "OUTLOOK_APP_ID_INVALID"),
    ],
)
async def test_a_broken_app_is_flagged(
    workshop: Workshop, provider: str, problem: str, aadsts: int, flag: str
) -> None:
    """A wrong or expired client secret and an unknown client id each give the contract's flag and the fix."""
    usual = DELEGATED if provider == "outlook" else APPLICATION
    client_id = secrets.token_hex(16)
    if problem != "unknown":
        secret = ("good", workshop.clock() - timedelta(days=1)) if problem == "expired" else ("other", None)
        known = workshop.world.directory.application(usual["clientId"])
        assert known is not None
        registered = type(known)(**{**vars(known), "client_id": client_id, "secrets": [secret]})
        workshop.world.directory.register(registered)
    fields = {**usual, "name": "broken", "clientId": client_id, "clientSecret": "good"}
    app = await workshop.services.apps.create(fields)
    refresh = mint(workshop.world, {"user": ANN})["refresh_token"]
    oauth2 = {"provider": app, "auth": {"user": ANN}}
    oauth2 |= {"refreshToken": refresh} if provider == "outlook" else {}
    account = await workshop.add("ann", oauth2, email=ANN)
    view = await shown(workshop, account)
    error = view["lastError"]
    assert view["state"] == "authenticationError"
    assert f"AADSTS{aadsts}" in error["response"]
    assert error["tokenRequest"]["userFlag"]["code"] == flag
    assert "OAuth2 app" in error["description"] or "PUT /v1/oauth2" in error["description"]
    assert error["serverResponseCode"] == ("OauthRenewError" if provider == "outlook" else "TokenGenerationError")


# -- chains ---------------------------------------------------------------------------------------------------


async def create(shop: Workshop, account: str, parent: str, mailbox: str = SUPPORT) -> None:
    """A borrower of exactly this id."""
    oauth2 = {"auth": {"delegatedUser": mailbox, "delegatedAccount": parent}}
    fields = {"account": account, "name": account, "email": mailbox, "oauth2": oauth2}
    await shop.services.onboarding.create(fields)


async def chain(shop: Workshop, hops: int, holder: str) -> list[str]:
    """Accounts that borrow one from the next, `hops` of them before the holder, farthest first."""
    tag = secrets.token_hex(4)
    names = [f"{tag}-{number}" for number in range(hops)] + [holder]
    for number in reversed(range(hops)):
        await create(shop, names[number], names[number + 1])
    await shop.run_due()
    return names


@pytest.mark.parametrize("hops", [1, 2, 19, 20])
async def test_a_chain_of_up_to_twenty_hops_sends(workshop: Workshop, hops: int) -> None:
    """The farthest account is connected and its mail reaches the recipient, from the shared address."""
    names = await chain(workshop, hops, await workshop.own())
    view = await shown(workshop, names[0])
    assert (view["state"], view["type"]) == ("connected", "delegated")
    message_id = await send(workshop, names[0])
    await workshop.run_due()
    (mail,) = workshop.arrived(RITA, message_id)
    assert mail["from"]["emailAddress"]["address"] == SUPPORT


async def test_a_chain_of_twenty_one_hops_refuses(workshop: Workshop) -> None:
    """One hop more than twenty is an error of that account alone; the one after it works."""
    names = await chain(workshop, 21, await workshop.own())
    await refuses(workshop, names[0], TOO_MANY)
    assert await state(workshop, names[1]) == "connected"


async def refuses(shop: Workshop, account: str, text: str) -> None:
    """The account shows the contract's text in get and list, and refuses mail operations with its state."""
    services = shop.services
    view = await shown(shop, account)
    assert (view["state"], view["delegationError"]) == ("authenticationError", text)
    assert view["lastError"]["response"] == text
    listed = await listed_view(await shop.record(account), None, services.accounts, services.apps)
    assert (listed["type"], listed["delegationError"]) == ("invalid", text)
    with pytest.raises(Exception, match="Requested account can not be authenticated") as refused:
        await services.accounts.usable(account)
    assert refused.value.envelope()["state"] == "authenticationError"  # type: ignore[attr-defined]


async def test_delegation_problems_have_the_words_of_the_contract(workshop: Workshop) -> None:
    """Missing account, no credentials at the end, loops with and without the start: word for word."""
    tag = secrets.token_hex(4)
    a, b, c, alone, empty, lost = (f"{tag}-{name}" for name in ("a", "b", "c", "alone", "empty", "lost"))
    await create(workshop, alone, alone)
    await create(workshop, c, b)
    await create(workshop, b, c)
    await create(workshop, a, b)
    await create(workshop, lost, f"{tag} gone/🦊")
    await workshop.services.onboarding.create({"account": f"{tag}-nothing", "name": "x"})
    await create(workshop, empty, f"{tag}-nothing")
    await workshop.run_due()
    for account in (alone, a, b, c):
        await refuses(workshop, account, LOOPING)
    await refuses(workshop, lost, f'Missing account data for delegated account "{tag} gone/🦊"')
    await refuses(workshop, empty, f'Invalid account data for delegated account "{tag}-nothing"')


async def test_children_may_come_before_their_parents(workshop: Workshop) -> None:
    """A chain created from its far end heals from the near one, without a call for any child."""
    tag = secrets.token_hex(4)
    names = [f"{tag}-{number}" for number in range(4)]
    for child, parent in zip(names, [*names[1:], f"{tag}-ann"], strict=True):
        await create(workshop, child, parent)
        await workshop.run_due()
    await refuses(workshop, names[0], f'Missing account data for delegated account "{tag}-ann"')
    oauth2 = {"provider": await workshop._app(DELEGATED), "auth": {"user": ANN}} | await tokens_of(workshop, ANN)
    fields = {"account": f"{tag}-ann", "name": "Ann", "email": ANN, "oauth2": oauth2}
    await workshop.services.onboarding.create(fields)
    await workshop.run_for(10)
    for account in names:
        assert await state(workshop, account) == "connected", account


async def test_a_deleted_parent_breaks_its_children_and_a_new_one_heals_them(workshop: Workshop) -> None:
    """Deleting the holder gives every child the contract's text; an account of the same id heals them."""
    ann = await workshop.own()
    names = await chain(workshop, 2, ann)
    provider = (await workshop.record(ann))["oauth2"]["provider"]
    await workshop.services.onboarding.delete(ann)
    await workshop.run_for(10)
    for account in names[:-1]:
        await refuses(workshop, account, f'Missing account data for delegated account "{ann}"')
    oauth2 = {"provider": provider, "auth": {"user": ANN}} | await tokens_of(workshop, ANN)
    await workshop.services.onboarding.create({"account": ann, "name": "Ann", "email": ANN, "oauth2": oauth2})
    await workshop.run_for(10)
    for account in names:
        assert await state(workshop, account) == "connected", account


async def test_relinking_in_the_middle_moves_everything_behind_it(workshop: Workshop) -> None:
    """When the middle of a chain borrows from another person, the far end sends with that person's token."""
    ann, john = await workshop.own(), await workshop.own("john@contoso.example")
    names = await chain(workshop, 4, ann)
    oauth2 = {"auth": {"delegatedUser": SALES, "delegatedAccount": john}}
    await workshop.services.onboarding.update(names[2], {"oauth2": oauth2})
    await workshop.run_for(10)
    revoke(workshop, ANN)
    message_id = await send(workshop, names[0])
    await workshop.run_due()
    assert workshop.arrived(RITA, message_id)
    caller = workshop.requests("POST", "sendMail$")[-1].caller
    assert caller["user"] == "john@contoso.example"
    assert await state(workshop, names[0]) == "connected"


async def test_a_loop_made_and_broken_again_heals(workshop: Workshop) -> None:
    """Turning the middle of a chain back on itself shows the loop on all of it; turning it away ends it."""
    names = await chain(workshop, 3, await workshop.own())
    loop = {"auth": {"delegatedUser": SUPPORT, "delegatedAccount": names[0]}}
    await workshop.services.onboarding.update(names[2], {"oauth2": loop})
    await workshop.run_for(10)
    for account in names[:3]:
        await refuses(workshop, account, LOOPING)
    straight = {"auth": {"delegatedUser": SUPPORT, "delegatedAccount": names[3]}}
    await workshop.services.onboarding.update(names[2], {"oauth2": straight})
    await workshop.run_for(10)
    for account in names:
        assert await state(workshop, account) == "connected", account


async def test_a_long_chain_costs_a_submit_nothing(workshop: Workshop) -> None:
    """Accepting and sending a mail takes as many storage transactions through twenty hops as through one."""
    ann = await workshop.own()
    workshop.without_statistics()
    spent = {}
    for hops in (1, 20):
        names = await chain(workshop, hops, ann)
        await send(workshop, names[0])
        await workshop.run_due()  # what is read once for a process has been read
        await workshop.services.service_settings.all()  # kept for ten seconds, which may just have passed
        before = workshop.services.storage.transactions
        message_id = await send(workshop, names[0])
        accepted = workshop.services.storage.transactions
        await workshop.run_due()
        assert workshop.arrived(RITA, message_id)
        spent[hops] = (accepted - before, workshop.services.storage.transactions - accepted)
    assert spent[20] == spent[1]
    assert spent[1][0] > 0


async def test_a_holder_without_a_mailbox_still_lends_its_rights(workshop: Workshop) -> None:
    """A person without a mailbox of their own shows that, while the shared mailbox they hold is connected."""
    find = workshop.world.directory.find
    user, mailbox = find("nolicence@contoso.example"), find(SUPPORT)
    assert user
    assert mailbox
    for right in ("full_access", "send_as"):
        workshop.world.directory.grant(user, mailbox, right)  # type: ignore[arg-type]
    holder = await workshop.own("nolicence@contoso.example")
    child = await workshop.delegated(SUPPORT, holder)
    assert await state(workshop, holder) == "authenticationError"
    assert await state(workshop, child) == "connected"
    message_id = await send(workshop, child)
    await workshop.run_due()
    assert workshop.arrived(RITA, message_id)
