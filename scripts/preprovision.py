"""Before `azd provision`: a first key ring where there is none, and the id of the API token that is in use.

The ring is made here because a template can not make random bytes. A vault that has one is given none: replacing it
would lock everything away that was sealed with it. It stands in the azd environment during the deployment only.
"""

from __future__ import annotations

import base64
import secrets
import sys

from resource_manager import AzureFailed, Management, remember, setting


def new_ring() -> str:
    """A ring of one key: 32 random bytes."""
    return "k1:" + base64.b64encode(secrets.token_bytes(32)).decode()


def prepare() -> None:
    """Fills NEW_KEY_RING and BOOTSTRAP_TOKEN_ID of the azd environment."""
    if not setting("AZURE_SUBSCRIPTION_ID"):
        remember("NEW_KEY_RING", new_ring())  # the very first run: azd has yet to ask where to; the template skips
        return  # a ring that exists all the same
    management = Management()
    remember("NEW_KEY_RING", "" if management.has_key_ring() else new_ring())
    if not setting("BOOTSTRAP_TOKEN_ID"):
        # A pipeline or a fresh clone knows nothing of the token, and would take it away.
        for site in management.names("Microsoft.Web/sites"):
            known = (management.app_settings(site) or {}).get("BOOTSTRAP_TOKEN_ID")
            if known:
                remember("BOOTSTRAP_TOKEN_ID", known)


def main() -> int:
    """Runs it; the exit status."""
    try:
        prepare()
    except AzureFailed as problem:
        print(f"cannot tell whether there is a key ring already, so nothing is deployed:\n  {problem}", file=sys.stderr)
        print("Sign in with `azd auth login`, and see that you may read the resource group.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
