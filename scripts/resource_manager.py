"""Azure Resource Manager and the azd environment, as the deployment hooks use them. Needs nothing but Python and azd.

Everything goes through Resource Manager, so that hooks also work where vault and storage are behind private endpoints,
and without any role on what is in them.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from typing import Any

MANAGEMENT = {
    "AzureCloud": "https://management.azure.com",
    "AzureUSGovernment": "https://management.usgovcloudapi.net",
    "AzureChinaCloud": "https://management.chinacloudapi.cn",
}
SITES, VAULTS, RESOURCES = "2025-03-01", "2024-11-01", "2021-04-01"
KEY_RING = "key-ring"
Json = dict[str, Any]


class AzureFailed(Exception):
    """Azure or azd refused; the text is what they said."""


def setting(name: str) -> str:
    """A value of the azd environment, which azd hands to its hooks."""
    return os.environ.get(name, "").strip()


def azd(*arguments: str) -> str:
    """What azd prints. AzureFailed when it fails."""
    done = subprocess.run(["azd", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AzureFailed(f"azd {arguments[0]} {arguments[1]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def remember(name: str, value: str) -> None:
    """Writes a value into the azd environment."""
    azd("env", "set", name, value)


def in_pipeline() -> bool:
    """Whether a pipeline runs this: its log is no place for a token."""
    return any(setting(name).lower() in ("true", "1") for name in ("CI", "GITHUB_ACTIONS", "TF_BUILD"))


class Management:
    """Azure Resource Manager with the rights of who is signed in to azd."""

    def __init__(self) -> None:
        cloud = setting("AZURE_CLOUD") or "AzureCloud"
        self._root = setting("AZURE_MANAGEMENT_URL") or MANAGEMENT[cloud]
        shown = json.loads(azd("auth", "token", "--scope", f"{MANAGEMENT[cloud]}/.default", "--output", "json"))
        self._token = shown["token"]
        self._group = f"/subscriptions/{setting('AZURE_SUBSCRIPTION_ID')}/resourceGroups/{group_name()}"

    def call(self, method: str, path: str, version: str, body: Json | None = None) -> Json | None:
        """The body of an answer, None for a 404; `path` begins behind the resource group's."""
        sign = "&" if "?" in path else "?"
        request = urllib.request.Request(
            f"{self._root}{self._group}{path}{sign}api-version={version}",
            data=None if body is None and method == "GET" else json.dumps(body or {}).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                parsed: Json = json.loads(answer.read() or b"{}")
                return parsed
        except urllib.error.HTTPError as problem:
            if problem.code == 404:
                return None
            text = problem.read(2000).decode("utf-8", "replace")
            raise AzureFailed(f"{method} {path.partition('?')[0]}: {problem.code} {text}") from None
        except OSError as problem:
            raise AzureFailed(f"{method} {path.partition('?')[0]}: {problem}") from None

    def names(self, kind: str) -> list[str]:
        """The names of the resources of a kind in the group; none when there is no group yet."""
        found = self.call("GET", f"/resources?$filter=resourceType%20eq%20'{kind}'", RESOURCES)
        return [one["name"] for one in (found or {}).get("value", [])]

    def has_key_ring(self) -> bool:
        """Whether a vault of the group holds a key ring. Its value is not read."""
        return any(
            self.call("GET", f"/providers/Microsoft.KeyVault/vaults/{vault}/secrets/{KEY_RING}", VAULTS)
            for vault in self.names("Microsoft.KeyVault/vaults")
        )

    def app_settings(self, site: str) -> dict[str, str] | None:
        """The settings of a site; None when there is none."""
        found = self.call("POST", f"/providers/Microsoft.Web/sites/{site}/config/appsettings/list", SITES)
        return None if found is None else dict(found.get("properties") or {})

    def change_app_settings(self, site: str, values: dict[str, str]) -> None:
        """Writes the whole set, which restarts the app."""
        path = f"/providers/Microsoft.Web/sites/{site}/config/appsettings"
        if self.call("PUT", path, SITES, {"properties": values}) is None:
            raise AzureFailed(f"there is no function app {site}")


def group_name() -> str:
    """The resource group, whose name the template makes from the environment's."""
    return setting("AZURE_RESOURCE_GROUP") or f"rg-{setting('AZURE_ENV_NAME')}"
