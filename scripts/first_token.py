"""Makes an API token with every right, and its id, which is all that Azure is told.

    python scripts/first_token.py

Without azd the id is the parameter `bootstrapTokenId`. With azd, `azd env set BOOTSTRAP_TOKEN_ID new` and
`azd provision` replace a lost token. The id is the SHA-256 of the token.
"""

from __future__ import annotations

import hashlib
import secrets


def make() -> tuple[str, str]:
    """A new token and its id."""
    raw = secrets.token_bytes(32)
    return raw.hex(), hashlib.sha256(raw).hexdigest()


if __name__ == "__main__":
    token, identity = make()
    print(f"token (keep it, it is shown once): {token}\nid (BOOTSTRAP_TOKEN_ID):           {identity}")
