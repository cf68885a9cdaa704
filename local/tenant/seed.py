"""The demonstration tenant: the people, shared mailboxes, rights and applications `World.seed()` creates."""

from __future__ import annotations

from .directory import HOME_DOMAIN, Application, Directory, Kind, ManagedIdentity, Principal, seeded_id

DELEGATED_APP = "11111111-2222-3333-4444-555555555555"
APPLICATION_APP = "22222222-3333-4444-5555-666666666666"
IDENTITY_CLIENT = "33333333-4444-5555-6666-777777777777"
IDENTITY_PRINCIPAL = "44444444-5555-6666-7777-888888888888"

DELEGATED_SCOPES = frozenset(
    [
        "openid",
        "profile",
        "email",
        "offline_access",
        "User.Read",
        "User.ReadBasic.All",
        "Mail.Read",
        "Mail.ReadWrite",
        "Mail.Send",
        "Mail.Read.Shared",
        "Mail.ReadWrite.Shared",
        "Mail.Send.Shared",
    ]
)

# name before the @, display name, kind
PEOPLE: tuple[tuple[str, str, Kind], ...] = (
    ("ann", "Ann Smith", "user"),
    ("bob", "Bob Jones", "user"),
    ("john", "John Doe", "user"),
    ("rita", "Rita Recipient", "user"),
    ("relay", "Relay", "user"),
    ("support", "Support", "shared"),
    ("sales", "Sales", "shared"),
    ("info", "Info", "shared"),
    ("locked", "Locked", "shared"),
    ("nosend", "NoSend", "shared"),
    ("behalf", "Behalf", "shared"),
    ("team", "Team", "group"),
    ("nolicence", "No Licence", "unlicensed"),
    ("onprem", "On Premises", "onpremises"),
)

# The one mailbox whose UPN is not its public address (graph.md 8.2).
OTHER_UPN = {"info": "infombx@contoso.onmicrosoft.example"}


def seed_directory(directory: Directory, redirect_uris: list[str]) -> None:
    """Fill an empty directory; object ids are fixed (`seeded_id(<name before the @>)`).

    `redirect_uris` are added to those of the delegated application.
    """
    for name, display_name, kind in PEOPLE:
        address = f"{name}@{HOME_DOMAIN}"
        language = "en-GB" if kind == "user" else None
        directory.add(
            Principal(
                id=seeded_id(name),
                upn=OTHER_UPN.get(name, address),
                mail=address,
                display_name=display_name,
                kind=kind,
                preferred_language=language,
            )
        )
    _seed_rights(directory)
    _seed_applications(directory, redirect_uris)


def _seed_rights(directory: Directory) -> None:
    full_senders: dict[str, tuple[str, ...]] = {
        "ann": ("support", "sales", "info"),
        "john": ("support", "sales", "info"),
    }
    full_senders["relay"] = ("sales", "support")
    for user, mailboxes in full_senders.items():
        for mailbox in mailboxes:
            directory.grant(f"{user}@{HOME_DOMAIN}", f"{mailbox}@{HOME_DOMAIN}", "full_access")
            directory.grant(f"{user}@{HOME_DOMAIN}", f"{mailbox}@{HOME_DOMAIN}", "send_as")
    ann = f"ann@{HOME_DOMAIN}"
    directory.grant(ann, f"nosend@{HOME_DOMAIN}", "full_access")
    directory.grant(ann, f"behalf@{HOME_DOMAIN}", "full_access")
    directory.grant(ann, f"behalf@{HOME_DOMAIN}", "send_on_behalf")


def _seed_applications(directory: Directory, redirect_uris: list[str]) -> None:
    directory.register(
        Application(
            DELEGATED_APP,
            "Graphpost (delegated)",
            secrets=[("local-secret", None)],
            redirect_uris=["http://127.0.0.1:7071/oauth", "http://localhost:7071/oauth", *redirect_uris],
            delegated_scopes=set(DELEGATED_SCOPES),
            multi_tenant=True,
        )
    )
    directory.identities.append(ManagedIdentity(IDENTITY_CLIENT, IDENTITY_PRINCIPAL))
    federated = {
        "issuer": f"https://login.microsoftonline.com/{directory.tenant_id}/v2.0",
        "subject": IDENTITY_PRINCIPAL,
        "audience": "api://AzureADTokenExchange",
    }
    directory.register(
        Application(
            APPLICATION_APP,
            "Graphpost (application)",
            secrets=[("local-app-secret", None)],
            federated=[federated],
            application_roles={"Mail.ReadWrite", "Mail.Send", "User.Read.All"},
        )
    )
