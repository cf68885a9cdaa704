"""What the template promises: settings that the code reads, storage that it uses, roles, security, alerts."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from shared.settings import TABLE
from shared.storage.blobs import CONTAINER
from shared.wiring import QUEUES, TABLES
from tests.support.bicep import FILES, INFRA, ROOT, Evaluator, body_of, literal, properties, read, text_of

APP = INFRA / "app"
FUNCTIONS = (ROOT / "function_app.py").read_text()
# Set by hand or in development alone; docs/operations.md says when.
NOT_IN_TEMPLATE = {"BOOTSTRAP_TOKEN", "LOGIN_ENDPOINT", "GRAPH_ENDPOINT"}
HOST_SETTINGS = {
    "AzureWebJobsStorage__blobServiceUri", "AzureWebJobsStorage__queueServiceUri",
    "AzureWebJobsStorage__tableServiceUri", "AzureWebJobsStorage__credential", "AzureWebJobsStorage__clientId",
    "AzureWebJobsDisableHomepage",
    "APPLICATIONINSIGHTS_CONNECTION_STRING", "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
}  # fmt: skip
REFUSED_ON_FLEX = {
    "FUNCTIONS_WORKER_RUNTIME", "FUNCTIONS_WORKER_RUNTIME_VERSION", "FUNCTIONS_EXTENSION_VERSION",
    "WEBSITE_RUN_FROM_PACKAGE", "WEBSITE_CONTENTSHARE", "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING",
    "WEBSITE_MOUNT_ENABLED", "SCM_DO_BUILD_DURING_DEPLOYMENT", "ENABLE_ORYX_BUILD", "WEBSITE_TIME_ZONE", "TZ",
    "WEBSITE_MAX_DYNAMIC_APPLICATION_SCALE_OUT", "AzureWebJobsStorage",
}  # fmt: skip
ROLES = {
    "storageBlobDataOwner": "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",
    "storageQueueDataContributor": "974c5e8b-45b9-4653-ba55-5f855dd0fb88",
    "storageTableDataContributor": "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3",
    "keyVaultSecretsUser": "4633458b-17de-408a-b874-0445c86b69e6",
    "monitoringMetricsPublisher": "3913510d-42f4-4e42-8a64-420c390055eb",
    "storageBlobDataContributor": "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
    "keyVaultSecretsOfficer": "b86a8fe4-44ce-4948-aee5-eccb2c155cd7",
}
GRAPH_PERMISSIONS = {
    "openid": "37f7f235-527c-4136-accd-4a02d197296e",
    "profile": "14dad69e-099b-42c9-810b-d002981feec1",
    "email": "64a6cdd6-aab1-4aaf-94b8-3cc8405e90d0",
    "offline_access": "7427e0e9-2fba-42fe-b0c0-848c9e6a8182",
    "User.Read": "e1fe6dd8-ba31-4d61-89e7-88639da4683d",
    "User.ReadBasic.All": "b340eb25-3456-403f-be2f-af7a0d370277",
    "Mail.ReadWrite": "024d486e-b451-40bb-833d-3e66d98c5c73",
    "Mail.ReadWrite.Shared": "5df07973-7d5d-46ed-9847-1271055cbd51",
    "Mail.Send": "e383f46e-2787-4529-855e-0e479a3ffac0",
    "Mail.Send.Shared": "a367ab51-6b49-43bf-a716-a1fb06d2a174",
}


def value_of(file: str, resource: str) -> dict[str, Any]:
    """The body of a resource as far as the file alone tells."""
    parsed = read(APP / f"{file}.bicep")
    made: dict[str, Any] = Evaluator(parsed, {}).value(body_of(parsed.resources[resource]))
    return made


def listed(name: str) -> list[str]:
    """A list of names in storage.bicep."""
    parsed = read(APP / "storage.bicep")
    values: list[str] = Evaluator(parsed, {}).variable(name)
    return values


def setting_names() -> set[str]:
    """The app settings of the template."""
    file = read(APP / "api.bicep")
    return set(properties(properties(body_of(file.resources["settings"]))["properties"]))


# -- Settings ---------------------------------------------------------------------------------------------------------


def test_the_template_sets_what_the_code_reads_and_nothing_else() -> None:
    """A setting is a row of shared/settings.py, one of the host, or listed as not for Azure."""
    known = {row.name for row in TABLE}
    names = setting_names()
    assert known - names == NOT_IN_TEMPLATE, "add to api.bicep `settings`: the first, or take away: the second"
    assert names - known == HOST_SETTINGS


def test_what_the_template_does_not_set_is_explained() -> None:
    """docs/operations.md tells when to set it."""
    text = (ROOT / "docs" / "operations.md").read_text()
    for name in NOT_IN_TEMPLATE:
        assert f"`{name}`" in text, name


def test_settings_that_flex_consumption_refuses_are_absent() -> None:
    """Each of them fails the deployment, or is ignored."""
    assert not setting_names() & REFUSED_ON_FLEX


def test_the_site_configuration_holds_only_what_flex_consumption_takes() -> None:
    """Newer regions refuse the rest with an error that names none of it."""
    assert set(value_of("api", "app")["properties"]["siteConfig"]) == {"minTlsVersion"}


def test_secrets_are_references_to_the_vault() -> None:
    """No secret stands in a setting, and only secrets of known names are read."""
    text = (APP / "api.bicep").read_text()
    assert set(re.findall(r"SecretUri=\$\{secretsUrl\}([a-z-]+)\)", text)) == {
        "key-ring", "oauth-app-secret", "oauth-app-certificate",
    }  # fmt: skip
    for name in ("KEY_RING", "OAUTH_APP_CLIENT_SECRET", "OAUTH_APP_CERTIFICATE"):
        (line,) = re.findall(rf"^    {name}: (.*)$", text, re.MULTILINE)
        assert "@Microsoft.KeyVault(" in line


# -- Storage ----------------------------------------------------------------------------------------------------------


def test_every_table_is_created() -> None:
    """In infra/app/storage.bicep `tableNames`, exactly those of shared/wiring.py."""
    assert not (missing := set(TABLES) - set(listed("tableNames"))), f"add to tableNames: {sorted(missing)}"
    assert not (extra := set(listed("tableNames")) - set(TABLES)), f"no code uses: {sorted(extra)}"


def test_every_queue_is_created_with_its_poison_queue() -> None:
    """In `queueNames`: each queue of shared/wiring.py, since triggers do not create theirs."""
    wanted = {name for queue in QUEUES for name in (queue, f"{queue}-poison")}
    assert not (missing := wanted - set(listed("queueNames"))), f"add to queueNames: {sorted(missing)}"
    assert set(listed("queueNames")) == wanted


def test_triggers_and_outputs_name_queues_that_are_created() -> None:
    """What function_app.py binds is in the template."""
    bound = set(re.findall(r'queue_name="([a-z-]+)"', FUNCTIONS))
    assert bound
    assert bound <= set(listed("queueNames"))


def test_containers_are_created() -> None:
    """The one for large bodies, and that of the package which the site deploys from."""
    assert set(listed("containerNames")) == {CONTAINER, "packages"}


@pytest.mark.parametrize("name", [*TABLES, *(f"{queue}-poison" for queue in QUEUES)])
def test_names_are_allowed_by_storage(name: str) -> None:
    """Tables: letters and digits, from 3 to 63; queues: also hyphens."""
    pattern = r"[a-z][a-z0-9]{2,62}" if name in TABLES else r"[a-z0-9](-?[a-z0-9]){2,62}"
    assert re.fullmatch(pattern, name)


# -- Rights -----------------------------------------------------------------------------------------------------------


def test_role_ids_are_microsofts() -> None:
    """A wrong digit would be another role."""
    parsed = read(APP / "access.bicep")
    assert Evaluator(parsed, {}).variable("roles") == ROLES


def test_roles_are_given_on_resources_and_say_to_whom() -> None:
    """Never on the group or the subscription; with the kind of principal: else new identities are not found."""
    parsed = read(APP / "access.bicep")
    for name, node in parsed.resources.items():
        if "roleAssignments" in literal(node):
            body = properties(body_of(node))
            assert text_of(body["scope"]) in ("storage", "vault", "component"), name
            assert "principalType" in properties(body["properties"]), name
    elsewhere = [path.name for path in FILES if path.name != "access.bicep" and "roleAssignments" in path.read_text()]
    assert elsewhere == []


def test_graph_permissions_are_microsofts_and_few() -> None:
    """The delegated ones that the code asks for; for application access none that opens a mailbox."""
    parsed = read(APP / "entra.bicep")
    evaluator = Evaluator(parsed, {})
    assert evaluator.variable("delegatedScopes") == GRAPH_PERMISSIONS
    assert evaluator.variable("applicationRoles") == {"User.Read.All": "df021288-bdef-4463-88db-98f22de89214"}
    assert "passwordCredentials" not in (APP / "entra.bicep").read_text()


def test_the_registration_trusts_the_identity() -> None:
    """By object id and the audience of the exchange, under a name that orders the two."""
    trust = value_of("entra", "trust")
    assert trust["audiences"] == ["api://AzureADTokenExchange"]
    assert trust["name"] == "${registration.uniqueName}/function-app"
    main = (INFRA / "main.bicep").read_text()
    assert "identityPrincipalId: identity.outputs.principalId" in main


# -- Security ---------------------------------------------------------------------------------------------------------


def test_storage_is_locked_down() -> None:
    """Identities alone, over TLS, nothing public, nothing to other tenants."""
    given = value_of("storage", "account")["properties"]
    expected = {
        "allowSharedKeyAccess": False, "allowBlobPublicAccess": False, "allowCrossTenantReplication": False,
        "isLocalUserEnabled": False, "minimumTlsVersion": "TLS1_2", "supportsHttpsTrafficOnly": True,
        "defaultToOAuthAuthentication": True,
    }  # fmt: skip
    assert {name: given[name] for name in expected} == expected
    assert value_of("storage", "blobs")["properties"]["deleteRetentionPolicy"]["enabled"] is True
    assert "listKeys" not in "".join(path.read_text() for path in FILES)


def test_the_site_is_locked_down() -> None:
    """TLS 1.2 and https only, no password for publishing, one identity for everything."""
    site = value_of("api", "app")
    assert site["properties"]["httpsOnly"] is True
    assert site["properties"]["siteConfig"]["minTlsVersion"] == "1.2"
    assert site["identity"]["type"] == "UserAssigned"
    for name in ("ftp", "scm"):
        policy = value_of("api", name)
        assert (policy["name"], policy["properties"]) == (name, {"allow": False})
    storage = site["properties"]["functionAppConfig"]["deployment"]["storage"]
    assert storage["authentication"]["type"] == "UserAssignedIdentity"


def test_the_vault_is_locked_down() -> None:
    """Roles only, soft delete, purge protection unless switched off, and a ring that is never written over."""
    parsed = read(APP / "vault.bicep")
    for protected, days in ((True, 90), (False, 7)):
        given = Evaluator(parsed, {"purgeProtection": protected, "isPrivate": False})
        body = given.value(body_of(parsed.resources["vault"]))["properties"]
        assert (body["enableRbacAuthorization"], body["enableSoftDelete"]) == (True, True)
        assert (body["enablePurgeProtection"], body["softDeleteRetentionInDays"]) == (protected or None, days)
    assert text_of(read(INFRA / "main.bicep").parameters["purgeProtection"].children[-1]) == "true"
    assert "@onlyIfNotExists()" in parsed.decorators["resources.ring"]
    assert "if (!empty(keyRing))" in text_of(parsed.resources["ring"])


def test_private_means_private() -> None:
    """With a network, storage and vault take no call from outside it."""
    for name, resource in (("storage", "account"), ("vault", "vault")):
        parsed = read(APP / f"{name}.bicep")
        for private, access, default in ((True, "Disabled", "Deny"), (False, "Enabled", "Allow")):
            values = Evaluator(parsed, {"isPrivate": private, "purgeProtection": True})
            given = values.value(body_of(parsed.resources[resource]))["properties"]
            assert (given["publicNetworkAccess"], given["networkAcls"]["defaultAction"]) == (access, default)


def test_telemetry_takes_identities_only() -> None:
    """Neither the workspace nor the component knows a key."""
    assert value_of("monitoring", "workspace")["properties"]["features"]["disableLocalAuth"] is True
    assert value_of("monitoring", "component")["properties"]["DisableLocalAuth"] is True


def test_everything_is_tagged() -> None:
    """What can have tags has them; azd finds the site by its own."""
    untaggable = ("Microsoft.Authorization/", "Microsoft.Graph/", "/blobServices", "/queueServices", "/tableServices")
    untaggable += ("/diagnosticSettings", "/config", "basicPublishing", "/secrets", "/privateDnsZoneGroups")
    for path in FILES:
        parsed = read(path)
        for name, node in parsed.resources.items():
            is_made = "existing" not in {child.type for child in node.children}
            if is_made and not any(part in literal(node) for part in untaggable):
                assert "tags" in properties(body_of(node)), f"{path.name} {name}"
    assert "'azd-service-name': 'api'" in (APP / "api.bicep").read_text()
    assert "'azd-env-name': environmentName" in (INFRA / "main.bicep").read_text()


# -- The host and the alerts ------------------------------------------------------------------------------------------


def test_the_python_is_the_one_the_package_is_built_for() -> None:
    """Packages and byte code fit one version alone."""
    runtime = value_of("api", "app")["properties"]["functionAppConfig"]["runtime"]
    script = (ROOT / "scripts" / "package.py").read_text()
    assert runtime == {"name": "python", "version": "3.13"}
    assert 'PYTHON = "3.13"' in script


def test_the_host_sends_telemetry_in_the_open_form() -> None:
    """OpenTelemetry, where sampling of the older form would only mislead."""
    host = json.loads((ROOT / "host.json").read_text())
    assert host["telemetryMode"] == "OpenTelemetry"
    assert "applicationInsights" not in host.get("logging", {})


def names_in_queries() -> set[str]:
    """Each `graphpost.…` that an alert or the workbook asks for."""
    text = (APP / "alerts.bicep").read_text() + (APP / "workbook.json").read_text()
    return set(re.findall(r"['\"](graphpost\.[a-z_]+\.[a-z_]+)['\"]", text))


def test_alerts_ask_for_what_the_code_logs() -> None:
    """A name that nothing logs would never fire."""
    code = "".join(path.read_text() for path in (ROOT / "shared").rglob("*.py"))
    logged = set(re.findall(r"[\"'](graphpost\.[a-z_]+\.[a-z_]+)\b", code))
    names = names_in_queries()
    assert len(names) > 8
    assert not names - logged


def test_what_the_issue_of_an_operator_is_has_an_alert() -> None:
    """Poison messages, refused accounts, gaps, webhooks that fail, an app that does not run."""
    rules = Evaluator(read(APP / "alerts.bicep"), {}).variable("rules")
    titles = {rule["name"] for rule in rules}
    assert titles >= {
        "graphpost-poison-messages", "graphpost-accounts-authentication-error", "graphpost-events-gaps",
        "graphpost-webhooks-paused", "graphpost-webhooks-dead", "graphpost-silent", "graphpost-settings-refused",
    }  # fmt: skip
    windows = {5, 10, 15, 30, 45, 60, 120, 180, 240, 300, 360, 1440, 2880}  # what the service takes
    assert all(rule["minutes"] in windows and 0 <= rule["severity"] <= 4 for rule in rules)
    functions = set(re.findall(r'@app.function_name\("([a-z_]+)"\)', FUNCTIONS))
    asked = set(re.findall(r"has \"([a-z_]+)\"", (APP / "alerts.bicep").read_text()))
    assert asked <= functions
