"""After `azd provision`: the first API token, shown once, the addresses, and the next three steps."""

from __future__ import annotations

import json
import sys
from typing import Any

from first_token import make
from resource_manager import AzureFailed, Management, in_pipeline, remember, setting

LOGIN = {
    "AzureCloud": "https://login.microsoftonline.com",
    "AzureUSGovernment": "https://login.microsoftonline.us",
    "AzureChinaCloud": "https://login.chinacloudapi.cn",
}


def first_token() -> str:
    """A new token, known to the app by its id; "" when there is one already (or `none` is wanted), or nobody would
    see it. `new` asks for another one."""
    if setting("BOOTSTRAP_TOKEN_ID") not in ("", "new") or in_pipeline():
        return ""
    token, identity = make()
    management, site = Management(), setting("FUNCTION_APP_NAME")
    values = management.app_settings(site)
    if values is None:
        raise AzureFailed(f"there is no function app {site}")
    management.change_app_settings(site, values | {"BOOTSTRAP_TOKEN_ID": identity})
    try:
        remember("BOOTSTRAP_TOKEN_ID", identity)
    except AzureFailed as problem:  # the app knows it, so it has to be shown; the next run learns the id from the app
        print(f"(the azd environment does not know the token's id: {problem})", file=sys.stderr)
    return token


def consent_url() -> str:
    """Where an administrator consents for everybody; "" without a registration."""
    client_id = setting("ENTRA_APP_CLIENT_ID")
    login = LOGIN[setting("AZURE_CLOUD") or "AzureCloud"]
    return f"{login}/{setting('AZURE_TENANT_ID')}/adminconsent?client_id={client_id}" if client_id else ""


def addresses() -> str:
    """What was deployed, and where."""
    url = setting("SERVICE_URL")
    lines = [("API", url), ("redirect URI", f"{url}/oauth"), ("key vault", setting("KEY_VAULT_NAME"))]
    if setting("ENTRA_APP_CLIENT_ID"):
        lines += [("app registration", setting("ENTRA_APP_CLIENT_ID")), ("consent for all", consent_url())]
    return "\n".join(f"  {name:<17} {value}" for name, value in lines if value)


def call(path: str, body: dict[str, Any], token: str) -> str:
    """A call of the API that can be pasted into a shell."""
    return (
        f"curl -X POST {setting('SERVICE_URL')}{path} \\\n"
        f'       -H "Authorization: Bearer {token}" -H "Content-Type: application/json" \\\n'
        f"       -d '{json.dumps(body)}'"
    )


def next_steps(token: str) -> str:
    """From here to the first shared mailbox."""
    shown, shared = token or "$TOKEN", {"account": "support", "name": "Support", "email": "support@contoso.com"}
    if setting("ENTRA_ACCESS") == "application":
        second = "Let the app into mailboxes, by what this prints:"
        command = "python scripts/mailbox_scope.py recipe --help"
        oauth2: dict[str, Any] = {"provider": "outlookService", "auth": {"user": "support@contoso.com"}}
        third = "Add the first shared mailbox:"
    else:
        second = "Somebody signs in, at the address that this answers:"
        form = {"account": "ann", "name": "Ann", "email": "ann@contoso.com", "redirectUrl": "https://contoso.com"}
        command = call("/v1/authentication/form", form, shown)
        oauth2 = {"auth": {"delegatedUser": "support@contoso.com", "delegatedAccount": "ann"}}
        third = "Add the first shared mailbox, to which Ann has Full Access:"
    return (
        "Next:\n  1. When `azd up` or `azd deploy` is through, see that it works:\n"
        f"     make smoke URL={setting('SERVICE_URL')} TOKEN={shown}\n"
        f"  2. {second}\n     {command}\n"
        f"  3. {third}\n     {call('/v1/account', {**shared, 'oauth2': oauth2}, shown)}"
    )


def main() -> int:
    """Runs it; the exit status."""
    try:
        remember("NEW_KEY_RING", "")
        token = first_token()
    except AzureFailed as problem:
        print(f"no API token was made:\n  {problem}\nRun `azd provision` again.", file=sys.stderr)
        return 1
    print(f"\nGraphpost\n{addresses()}\n")
    if token:
        print(f"  API token         {token}\n\nKeep the token: it has every right and is shown this once.\n")
    elif in_pipeline() and not setting("BOOTSTRAP_TOKEN_ID"):
        print("No API token yet: run `azd provision` on a machine of yours, or scripts/first_token.py.\n")
    if not in_pipeline():
        print(next_steps(token))
    return 0


if __name__ == "__main__":
    sys.exit(main())
