"""After `azd down`: what is left, since it does not belong to the resource group."""

from __future__ import annotations

from resource_manager import azd, setting


def main() -> int:
    """Says it; never fails, so that nothing stays half removed."""
    client_id = setting("ENTRA_APP_CLIENT_ID")
    if client_id and (setting("ENTRA_APP") or "create") == "create":
        print("Left in the directory: the app registration. To remove it, so that its name is free again:")
        print(f"  az ad app delete --id {client_id}\n  and take it out of Deleted applications, or wait thirty days")
    print("The vault is kept, deleted, for up to ninety days: `az keyvault list-deleted` shows it. A new deployment")
    print("under the same name needs `az keyvault recover` or, without purge protection, `az keyvault purge`.")
    try:
        azd("env", "set", "BOOTSTRAP_TOKEN_ID", "")
    except Exception as problem:
        print(f"(the azd environment still names the old token: {problem})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
