"""EmailEngine's own documents on shared mailboxes, run word for word.

Every curl example is taken out of the text and sent as it stands; only host, access token, app id and the tokens of
Microsoft are put in. The tenant has the people whom the examples name.
"""

import asyncio
import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.application import Answer, call
from tests.support.rest import NO_ACCOUNT, Rest, is_envelope, until
from tests.support.tenant import Tenant

SEEDS = Path(__file__).parents[3] / "shared" / "seeds"
MAILBOXES, GUIDE = SEEDS / "emailengine-shared-mailboxes.txt", SEEDS / "emailengine-ms365-guide.txt"
pytestmark = pytest.mark.skipif(
    not (MAILBOXES.exists() and GUIDE.exists()), reason=f"EmailEngine's documents are not in {SEEDS}"
)

HOST, TOKEN, APP_IDS = "https://your-ee.com", "YOUR_ACCESS_TOKEN", ("AAABiCtT7XUAAAAF", "AAABlf_0iLgAAAAQ")
TOKENS = ("EwBIA8l6...", "M.R3_BAY...")
JOHN, RELAY, ADMIN, OTHER_ADMIN = "john@company.com", "relay@company.com", "admin@company.com", "admin@contoso.com"
SUPPORT, SALES, INFO = "support@company.com", "sales@company.com", "info@company.com"
SHARED, SHARED_UPN = "shared@contoso.com", "sharedmailbox@contoso.onmicrosoft.com"
# The examples in the order of the document.
NAMES = (
    "direct by form", "direct by tokens", "main by form", "delegated", "many: support", "many: sales", "many: info",
    "other address by sign-in", "other address by tokens", "other address delegated", "look at support",
    "send from support", "relay over SMTP", "sales through the relay", "support through the relay", "send from sales",
    "look at sales", "look at the relay",
)  # fmt: skip


class Curl(NamedTuple):
    """A curl command, taken apart."""

    method: str
    url: str
    headers: dict[str, str]
    body: str | None


def parse(command: str) -> Curl:
    """A curl command as its shell would read it. AssertionError for an option this reader does not know."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words.pop(0) == "curl"
    method, url, headers, body = "", "", {}, None
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = words.pop(0)
        else:
            assert not word.startswith("-"), word
            url = word
    return Curl(method or ("GET" if body is None else "POST"), url, headers, body)


def examples() -> dict[str, Curl]:
    """Every curl command of the document by its name."""
    commands = re.findall(r"^curl (?:'[^']*'|\\\n|[^'\n])*", MAILBOXES.read_text(), re.MULTILINE)
    return dict(zip(NAMES, map(parse, commands), strict=True))


def json_after(text: str, mark: str) -> dict[str, Any]:
    """The first JSON object after a mark in the text."""
    found: dict[str, Any] = json.JSONDecoder().raw_decode(text, text.index("{", text.index(mark)))[0]
    return found


class Company:
    """The examples' company at Microsoft, and a service that knows its OAuth2 app."""

    def __init__(self, rest: Rest, app_id: str) -> None:
        self.rest, self.tenant, self.app_id = rest, rest.tenant, app_id

    async def run(self, name: str, tokens_of: str | None = None) -> Answer:
        """Sends one example."""
        example = examples()[name]
        body = example.body
        for app_id in APP_IDS:
            body = body.replace(app_id, self.app_id) if body else None
        if tokens_of and body:
            issued = await self.tenant.token(user=tokens_of)
            for shown, real in zip(TOKENS, (issued["access_token"], issued["refresh_token"]), strict=True):
                assert shown in body
                body = body.replace(shown, real)
        headers = {name: value.replace(TOKEN, self.rest.app.token) for name, value in example.headers.items()}
        url = example.url.replace(HOST, self.rest.app.url)
        answer = await call(example.method, url, body=body.encode() if body else None, headers=headers)
        assert answer.status == 200 or is_envelope(answer.body, answer.status)
        return answer

    async def ok(self, name: str, tokens_of: str | None = None) -> Any:
        """Sends one example that must be answered 200; the parsed body."""
        answer = await self.run(name, tokens_of)
        assert answer.status == 200, answer
        return answer.body

    async def sign_in_main(self) -> None:
        """Step 1 of the document: John connects `my-account`."""
        link = (await self.ok("main by form"))["url"]
        back, _ = await self.rest.sign_in(link, JOHN)
        assert back == {"target": "https://myapp.com/settings", "account": "my-account", "state": "new"}
        await self.rest.connected("my-account")

    async def arrived(self, mailbox: str, message_id: str) -> dict[str, Any]:
        """A mail once it is in the recipient's mailbox."""

        async def look() -> dict[str, Any] | None:
            return self.find(await self.tenant.messages(mailbox), message_id)

        return await until(f"mail for {mailbox}", look)

    async def was_sent(self, sent: dict[str, Any], to: str, sender: str, mailbox: str, not_in: str) -> None:
        """The mail arrived from that address, with one copy: in the sending mailbox's Sent Items."""
        mail = await self.arrived(f"external:{to}", sent["messageId"])
        assert mail["from"]["emailAddress"]["address"] == sender
        assert self.find(await self.tenant.messages(mailbox, "sentitems"), sent["messageId"])
        assert not self.find(await self.tenant.messages(not_in), sent["messageId"])

    @staticmethod
    def find(messages: list[dict[str, Any]], message_id: str) -> dict[str, Any] | None:
        return next((one for one in messages if one["internetMessageId"] == message_id), None)


@pytest.fixture
async def company(rest: Rest) -> Company:
    """Everybody the examples name, with the rights the document asks for."""
    tenant: Tenant = rest.tenant
    for upn in (JOHN, RELAY, ADMIN, OTHER_ADMIN):
        await tenant.add_principal(upn)
    for upn in (SUPPORT, SALES, INFO):
        await tenant.add_principal(upn, "shared")
    await tenant.add_principal(SHARED_UPN, "shared", mail=SHARED)
    rights = {JOHN: (SUPPORT, SALES, INFO, SHARED_UPN), RELAY: (SALES, SUPPORT), ADMIN: (SUPPORT,)}
    rights[OTHER_ADMIN] = (SHARED_UPN,)
    for user, mailboxes in rights.items():
        for mailbox in mailboxes:
            await tenant.grant(user, mailbox, "full_access")
            await tenant.grant(user, mailbox, "send_as")
    return Company(rest, await rest.outlook_app())


def is_part_of(documented: Any, answer: Any) -> bool:
    """Whether everything a document shows is in an answer; more is harmless."""
    if isinstance(documented, dict):
        return isinstance(answer, dict) and all(is_part_of(v, answer.get(k)) for k, v in documented.items())
    return bool(documented == answer)


# -- the document on shared mailboxes -------------------------------------------------------------------------


def test_every_example_of_the_document_is_found() -> None:
    """The reader finds as many commands as the text has, and each test below names its own."""
    text = MAILBOXES.read_text()
    assert len(re.findall(r"^curl ", text, re.MULTILINE)) == len(examples()) == len(NAMES)
    assert "curl" not in GUIDE.read_text()
    source = Path(__file__).read_text().partition("# -- the document on shared mailboxes")[2]
    assert [name for name in NAMES if f'"{name}"' not in source and name != "main by form"] == []


async def test_direct_access_by_the_hosted_form(company: Company) -> None:
    """The person signs in with her own account; the shared mailbox appears with the shared address."""
    link = (await company.ok("direct by form"))["url"]
    assert (await company.rest.call("GET", "/v1/account/shared-support")).body == NO_ACCOUNT
    back, _ = await company.rest.sign_in(link, ADMIN)
    assert back == {"target": "https://myapp.com/settings", "account": "shared-support", "state": "new"}
    record = await company.rest.connected("shared-support")
    assert (record["name"], record["email"], record["app"]) == ("Support Mailbox", SUPPORT, company.app_id)
    assert record["oauth2"]["auth"] == {"user": ADMIN, "delegatedUser": SUPPORT}


async def test_the_hosted_form_without_rights_signs_in_but_cannot_open_the_mailbox(company: Company) -> None:
    """As the document says: authentication succeeds, access does not, and the account says why."""
    link = (await company.ok("direct by form"))["url"]
    back, _ = await company.rest.sign_in(link, OTHER_ADMIN)
    assert back["state"] == "new"
    record = await company.rest.in_state("shared-support", "authenticationError")
    assert record["lastError"]["serverResponseCode"] == "ApiRequestError"
    assert "Full Access" in record["lastError"]["description"]


async def test_direct_access_with_tokens_obtained_elsewhere(company: Company) -> None:
    """`user` is whose tokens they are, `delegatedUser` whose mailbox."""
    assert await company.ok("direct by tokens", ADMIN) == {"account": "shared-support", "state": "new"}
    record = await company.rest.connected("shared-support")
    assert record["oauth2"]["auth"] == {"user": ADMIN, "delegatedUser": SUPPORT}
    await company.was_sent(await company.ok("send from support"), "test@example.com", SUPPORT, SUPPORT, ADMIN)


async def test_delegated_access_to_one_mailbox(company: Company) -> None:
    """Main account, shared mailbox, the documented answer, a mail from the shared address."""
    await company.sign_in_main()
    assert await company.ok("delegated") == {"account": "shared-support", "state": "new"}
    await company.rest.connected("shared-support")
    documented = json_after(MAILBOXES.read_text(), "Expected response:")
    answer = await company.ok("look at support")
    assert is_part_of(documented, answer), answer
    assert (answer["type"], answer["state"]) == ("delegated", "connected")
    await company.was_sent(await company.ok("send from support"), "test@example.com", SUPPORT, SUPPORT, JOHN)


async def test_delegated_access_to_many_mailboxes(company: Company) -> None:
    """All three use the one main account, and the main account stays its own."""
    await company.sign_in_main()
    for name in ("many: support", "many: sales", "many: info"):
        assert (await company.ok(name))["state"] == "new"
    for account, address in (("shared-support", SUPPORT), ("shared-sales", SALES), ("shared-info", INFO)):
        record = await company.rest.connected(account)
        assert (record["type"], record["email"]) == ("delegated", address)
        assert record["oauth2"] == {"auth": {"delegatedUser": address, "delegatedAccount": "my-account"}}
    assert (await company.rest.get("my-account"))["email"] == JOHN
    exchanged = await company.tenant.log(surface="login", method="POST", path="/token")
    assert len(exchanged) == 1, "only the one sign-in should have asked for tokens"


async def test_another_address_than_the_principal_name_by_sign_in(company: Company) -> None:
    """The redirect leads to Microsoft; after the sign-in `email` is shown and used as From."""
    answer = await company.ok("other address by sign-in")
    assert set(answer) == set(json_after(MAILBOXES.read_text(), "\nResponse:")) == {"redirect"}
    assert answer["redirect"].startswith(company.tenant.url)
    back, _ = await company.rest.sign_in(answer["redirect"], OTHER_ADMIN)
    assert back == {"target": "https://myapp.com/settings", "account": "shared-support", "state": "new"}
    record = await company.rest.connected("shared-support")
    assert (record["email"], record["oauth2"]["auth"]["delegatedUser"]) == (SHARED, SHARED_UPN)
    await company.was_sent(await company.ok("send from support"), "test@example.com", SHARED, SHARED, OTHER_ADMIN)


async def test_another_address_than_the_principal_name_with_tokens(company: Company) -> None:
    """The same with tokens obtained elsewhere."""
    assert (await company.ok("other address by tokens", OTHER_ADMIN))["state"] == "new"
    record = await company.rest.connected("shared-support")
    assert record["oauth2"]["auth"] == {"user": OTHER_ADMIN, "delegatedUser": SHARED_UPN}
    await company.was_sent(await company.ok("send from support"), "test@example.com", SHARED, SHARED, OTHER_ADMIN)


async def test_another_address_than_the_principal_name_delegated(company: Company) -> None:
    """The same with the main account's credentials."""
    await company.sign_in_main()
    assert (await company.ok("other address delegated"))["state"] == "new"
    record = await company.rest.connected("shared-support")
    assert (record["type"], record["email"]) == ("delegated", SHARED)
    await company.was_sent(await company.ok("send from support"), "test@example.com", SHARED, SHARED, JOHN)


async def test_an_smtp_relay_is_refused_with_the_way_out(company: Company) -> None:
    """There is no SMTP here: a 400 that names `smtp` and says what to do instead, and no account."""
    answer = await company.run("relay over SMTP")
    assert (answer.status, answer.body["message"]) == (400, "Invalid input")
    (field,) = answer.body["fields"]
    assert field["key"] == "smtp"
    for hint in ("Microsoft 365", "/v1/authentication/form", "outlookService", "delegatedAccount"):
        assert hint in field["message"]
    assert "smtp-password" not in str(answer.body)
    missing = await company.run("look at the relay")
    assert (missing.status, missing.body) == (404, NO_ACCOUNT)


async def test_senders_work_through_a_microsoft_365_account_as_the_relay(company: Company) -> None:
    """Senders created first wait for the relay; once it is a Microsoft 365 account they send as themselves."""
    assert (await company.ok("sales through the relay"))["state"] == "new"
    record = await company.rest.in_state("sales-sender", "authenticationError")
    assert record["lastError"]["response"] == 'Missing account data for delegated account "smtp-relay"'
    form = {
        "account": "smtp-relay", "name": "SMTP Relay Account", "email": RELAY, "type": company.app_id,
        "redirectUrl": "https://myapp.com/settings",
    }  # fmt: skip
    link = (await company.rest.ok("POST", "/v1/authentication/form", form))["url"]
    await company.rest.sign_in(link, RELAY)
    assert (await company.rest.connected("smtp-relay"))["email"] == RELAY
    assert (await company.ok("look at the relay"))["state"] == "connected"
    assert (await company.ok("support through the relay"))["state"] == "new"
    await asyncio.gather(company.rest.in_state("sales-sender", "connected"), company.rest.connected("support-sender"))
    text = MAILBOXES.read_text()
    documented = json_after(text[text.index("Account Type and State") :], "\nResponse:")
    answer = await company.ok("look at sales")
    assert is_part_of(documented, answer), answer
    await company.was_sent(await company.ok("send from sales"), "customer@example.com", SALES, SALES, RELAY)


# -- the guide ------------------------------------------------------------------------------------------------


async def test_the_guides_payload_and_its_steps(company: Company) -> None:
    """The payload connects; a new link for the main account's id refreshes its grant; reconnect is accepted."""
    await company.tenant.add_principal("shared@example.com", "shared")
    await company.tenant.grant(JOHN, "shared@example.com", "full_access")
    await company.sign_in_main()
    payload = json_after(GUIDE.read_text(), "Example Payload")
    assert await company.rest.ok("POST", "/v1/account", payload) == {"account": "shared", "state": "new"}
    record = await company.rest.connected("shared")
    assert is_part_of(payload | {"type": "delegated", "state": "connected"}, record)
    link = (await company.ok("main by form"))["url"]
    back, _ = await company.rest.sign_in(link, JOHN)
    assert back == {"target": "https://myapp.com/settings", "account": "my-account", "state": "existing"}
    await company.rest.connected("my-account")
    answer = await company.rest.ok("PUT", "/v1/account/shared/reconnect", {"reconnect": True})
    assert answer == {"reconnect": True}
    await company.rest.connected("shared")
