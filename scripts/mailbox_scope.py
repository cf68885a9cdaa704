"""Application access for the mailboxes you name, and no others: RBAC for Applications in Exchange Online.

    python scripts/mailbox_scope.py recipe --client-id ID --object-id ID --mailbox support@contoso.com [--mailbox ...]
    python scripts/mailbox_scope.py recipe --client-id ID --object-id ID --group "Graphpost mailboxes"
    python scripts/mailbox_scope.py check URL [TOKEN] --inside support@contoso.com --outside ceo@contoso.com

`recipe` prints the commands for Exchange Online PowerShell. --object-id is that of the enterprise application, not of
the app registration: azd prints it as ENTRA_SERVICE_PRINCIPAL_ID. Mailboxes are marked by an attribute, so that more of
them need no new scope; with --group the members of a mail-enabled group are meant.

`check` asks the running service, which alone can act as the app: it connects both mailboxes under names of its own, and
deletes them again. A scope limits nothing while the app also has mail permissions consented in Entra: then the outside
mailbox opens, and this says so. Changes in Exchange take from thirty minutes to two hours. Ends with 0 when the inside
mailbox opens and the outside one is refused, with 1 when the scope does not limit, with 3 when nothing can be said.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import sys
import time
import urllib.error
import urllib.request
from typing import Any

ROLES = ("Application Mail.ReadWrite", "Application Mail.Send")
ATTRIBUTE, MARK = "CustomAttribute15", "graphpost"
PATIENCE_S = 200.0
GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
ADDRESS = re.compile(r"[^@\s'\"`$;|&<>]+@[^@\s'\"`$;|&<>]+")
Json = dict[str, Any]


def quoted(text: str) -> str:
    """A text in single quotes of PowerShell."""
    return "'" + text.replace("'", "''") + "'"


def guid(text: str) -> str:
    """An id as it is, or an error of the command line."""
    if not GUID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an id such as 11111111-2222-3333-4444-555555555555")
    return text


def address(text: str) -> str:
    """An address as it is, or an error of the command line."""
    if not ADDRESS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address")
    return text


def scope_commands(mailboxes: list[str], group: str, name: str) -> list[str]:
    """The commands that say which mailboxes are meant."""
    if group:
        named = quoted(group)
        return [
            f"$group = Get-Group -Identity {named}",
            f'New-ManagementScope -Name {quoted(name)} -RecipientRestrictionFilter '
            f"\"MemberOfGroup -eq '$($group.DistinguishedName)'\"",
        ]
    marks = [f"Set-Mailbox -Identity {quoted(one)} -{ATTRIBUTE} {quoted(MARK)}" for one in mailboxes]
    restriction = quoted(f"{ATTRIBUTE} -eq '{MARK}'")
    return [*marks, f"New-ManagementScope -Name {quoted(name)} -RecipientRestrictionFilter {restriction}"]


def recipe(client_id: str, object_id: str, mailboxes: list[str], group: str, name: str) -> str:
    """The commands, in order, with what they are for."""
    roles = [
        f"New-ManagementRoleAssignment -App {quoted(object_id)} -Role {quoted(role)} "
        f"-CustomResourceScope {quoted(name)}"
        for role in ROLES
    ]
    tests = [
        f"Test-ServicePrincipalAuthorization -Identity {quoted(object_id)} -Resource {quoted(one)} | Format-Table"
        for one in mailboxes or ["a mailbox of the group"]
    ]
    lines = [
        "# Exchange Online PowerShell, as an Organization Management administrator:",
        "Connect-ExchangeOnline",
        "",
        "# The app, as Exchange knows it.",
        f"New-ServicePrincipal -AppId {quoted(client_id)} -ObjectId {quoted(object_id)} -DisplayName 'Graphpost'",
        "",
        "# The mailboxes it may open.",
        *scope_commands(mailboxes, group, name),
        "",
        "# What it may do there.",
        *roles,
        "",
        "# InScope must say True here, and False for every other mailbox.",
        *tests,
        "",
        "# In Entra the app must have no consented Mail permissions: they hold for every mailbox,",
        "# whatever the scope says.",
        "# Let it keep User.Read.All alone, and have an administrator consent to that.",
        "# Changes work after thirty minutes to two hours. Then see for yourself:",
        "#   python scripts/mailbox_scope.py check URL --inside <one of these> --outside <any other>",
    ]
    return "\n".join(lines)


class Service:
    """The running service."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url.rstrip("/"), token

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        """The body of an answer. OSError, with what the service says, for anything but a 200."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                parsed: Json = json.load(answer)
                return parsed
        except urllib.error.HTTPError as problem:
            text = problem.read(2000).decode("utf-8", "replace")
            raise OSError(f"{method} {path}: {problem.code} {text}") from None

    def application(self, wanted: str) -> str:
        """The id of the OAuth2 app with application access."""
        apps = self.call("GET", "/v1/oauth2?pageSize=1000")["apps"]
        fitting = [
            app["id"] for app in apps if app["provider"] == "outlookService" and wanted in ("", app["id"])
        ]
        if len(fitting) != 1:
            raise OSError(f"there are {len(fitting)} OAuth2 apps with application access; name one with --app")
        return str(fitting[0])

    def opens(self, app: str, mailbox: str) -> tuple[str, str]:
        """`open`, `refused` or `unclear` for a mailbox, and why."""
        account = f"scope-check-{secrets.token_hex(6)}"
        oauth2 = {"provider": app, "auth": {"user": mailbox}}
        fields = {"account": account, "name": "Scope check", "email": mailbox, "oauth2": oauth2}
        self.call("POST", "/v1/account", fields)
        try:
            return self._outcome(account)
        finally:
            self.call("DELETE", f"/v1/account/{account}")

    def _outcome(self, account: str) -> tuple[str, str]:
        deadline, state = time.monotonic() + PATIENCE_S, ""
        while time.monotonic() < deadline:
            record = self.call("GET", f"/v1/account/{account}")
            state, problem = record["state"], record.get("lastError") or {}
            if state == "connected":
                return "open", "it can be read"
            if state == "authenticationError":
                # Exchange's own refusal; a mailbox that is not there, or a sign-in that fails, says nothing of a scope.
                answer = str(problem.get("response"))
                return ("refused" if "ErrorAccessDenied" in answer else "unclear"), answer
            time.sleep(1)
        return "unclear", f"still {state} after {PATIENCE_S:.0f} s"


def check(service: Service, app: str, inside: str, outside: str) -> int:
    """Opens both mailboxes and judges; the exit status."""
    found_in, why_in = service.opens(app, inside)
    print(f"inside:  {found_in}: {why_in}")
    found_out, why_out = service.opens(app, outside)
    print(f"outside: {found_out}: {why_out}")
    if found_out == "open":
        print("The scope does not limit. Remove the mail permissions consented in Entra (application: Mail.*).")
        return 1
    if (found_in, found_out) == ("open", "refused"):
        print("The scope limits: the one opens, the other does not.")
        return 0
    print("Nothing can be said: the inside mailbox has to open, and the outside one to be refused by Exchange.")
    return 3


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    printing = commands.add_parser("recipe", help="print the commands for Exchange")
    printing.add_argument("--client-id", type=guid, required=True)
    printing.add_argument("--object-id", type=guid, required=True)
    which = printing.add_mutually_exclusive_group(required=True)
    which.add_argument("--mailbox", type=address, action="append", default=[])
    which.add_argument("--group", default="")
    printing.add_argument("--name", default="Graphpost mailboxes", help="name of the scope")
    checking = commands.add_parser("check", help="tell whether the scope limits")
    checking.add_argument("url")
    checking.add_argument("token", nargs="?", default=os.environ.get("GRAPHPOST_TOKEN", ""))
    checking.add_argument("--inside", type=address, required=True)
    checking.add_argument("--outside", type=address, required=True)
    checking.add_argument("--app", default="", help="id of the OAuth2 app, where there are several")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Runs it; the exit status."""
    wanted = parse(arguments)
    if wanted.command == "recipe":
        print(recipe(wanted.client_id, wanted.object_id, wanted.mailbox, wanted.group, wanted.name))
        return 0
    service = Service(wanted.url, wanted.token)
    try:
        return check(service, service.application(wanted.app), wanted.inside, wanted.outside)
    except OSError as problem:
        print(problem, file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
