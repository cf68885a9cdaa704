"""Files that other programs read: each against its schema, and the pipelines against known mistakes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.bicep import INFRA, ROOT, read
from tests.support.resource_types import SCHEMAS

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WITH_SCHEMA = {
    "azure.yaml": "azure.yaml.schema.json",
    "host.json": "host.schema.json",
    "local.settings.sample.json": "local.settings.schema.json",
    "infra/bicepconfig.json": "bicepconfig.schema.json",
}
DEPLOYING = (ROOT / ".github/workflows/azure-dev.yml", ROOT / ".azdo/pipelines/azure-dev.yml")


def program(name: str) -> str:
    """A program of the development packages, beside the Python that runs."""
    return str(Path(sys.executable).with_name(name))


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """What a program says."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", WITH_SCHEMA)
def test_files_fit_their_schemas(name: str) -> None:
    """As azd, the Functions host, Core Tools and Bicep will read them."""
    schema = SCHEMAS / WITH_SCHEMA[name]
    if not schema.exists():
        pytest.skip(f"no schema at {schema}: {name} is not compared")
    done = run(program("check-jsonschema"), "--schemafile", str(schema), name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_fit_their_schema() -> None:
    """The schema comes with the checker."""
    done = run(program("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_azure_pipeline_fits_its_schema(tmp_path: Path) -> None:
    """But for the task that installs azd: it comes from the marketplace, and the schema knows Microsoft's own alone."""
    text = DEPLOYING[1].read_text()
    assert "- task: setup-azd@1" in text
    copy = tmp_path / "pipeline.yml"
    copy.write_text(text.replace("- task: setup-azd@1", "- script: install azd"))
    command = [program("check-jsonschema"), "--regex-variant", "python", "--builtin-schema", "vendor.azure-pipelines"]
    done = run(*command, str(copy))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_workflows_have_no_known_weakness() -> None:
    """Pinned actions, narrow rights, no credentials left on disk, nothing of a stranger in a shell."""
    done = run(program("zizmor"), "--offline", "--no-progress", "--quiet", ".github/workflows")
    assert done.returncode == 0, done.stdout + done.stderr


def test_editor_files_are_json() -> None:
    """VS Code and dev containers also take comments; these have none, so that everything reads them."""
    for path in [*(ROOT / ".vscode").glob("*.json"), ROOT / ".devcontainer" / "devcontainer.json"]:
        json.loads(path.read_text())


def azure_yaml() -> dict[str, Any]:
    """The project file of azd."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "azure.yaml").read_text())
    return loaded


def test_hooks_exist_where_azd_looks_for_them() -> None:
    """Paths of a service's hooks begin in its own folder."""
    project = azure_yaml()
    service = project["services"]["api"]
    paths = [ROOT / hook["run"] for hook in project["hooks"].values()]
    paths += [ROOT / service["project"] / hook["run"] for hook in service["hooks"].values()]
    assert len(paths) == 4
    assert all(path.resolve().is_file() for path in paths)
    assert (ROOT / service["project"]).is_dir()
    assert service["remoteBuild"] is False
    # Beside the hooks: azd would else install the whole application for them.
    assert (ROOT / "scripts" / "requirements.txt").is_file()


def variables() -> set[str]:
    """The names of the azd environment that the parameters are made from."""
    return set(re.findall(r"\$\{([A-Z_]+)", (INFRA / "main.parameters.json").read_text()))


def test_pipelines_know_every_parameter() -> None:
    """What a person chose for an environment is not undone by its pipeline."""
    azd_sets = {"AZURE_ENV_NAME", "AZURE_LOCATION", "AZURE_PRINCIPAL_ID", "AZURE_PRINCIPAL_TYPE", "NEW_KEY_RING"}
    of_people = {"GRANT_DEPLOYER"}
    wanted = variables() - azd_sets - of_people
    assert set(azure_yaml()["pipeline"]["variables"]) == wanted
    workflow = yaml.safe_load(DEPLOYING[0].read_text())
    assert wanted <= set(workflow["env"])


def test_pipeline_defaults_are_those_of_the_parameters() -> None:
    """A repository variable that was never set means the same as in azd."""
    defaults = dict(re.findall(r"\$\{([A-Z_]+)=([^}]*)\}", (INFRA / "main.parameters.json").read_text()))
    workflow = yaml.safe_load(DEPLOYING[0].read_text())["env"]
    for name, default in defaults.items():
        if name in workflow and "||" in workflow[name]:
            assert f"|| '{default}'" in workflow[name], name


@pytest.mark.parametrize("path", DEPLOYING, ids=["github", "azure"])
def test_pipelines_check_deploy_look_and_go_back(path: Path) -> None:
    """Tests and the template first, then what-if or deployment, the smoke test, else the last good package."""
    text = path.read_text() + (ROOT / ".github/workflows/ci.yml").read_text() * (path == DEPLOYING[0])
    for step in (
        "make test", "az bicep build", "az bicep lint", "scripts/package.py", "azd provision --preview",
        "azd deploy api --from-package", "scripts/smoke.py",
    ):  # fmt: skip
        assert step in text, step
    assert text.count("--from-package") >= 2
    assert not re.search(r"client-secret|AZURE_CREDENTIALS|password", text, re.IGNORECASE)


def test_outputs_that_are_named_exist() -> None:
    """What hooks and pipelines read from the deployment is an output of it."""
    outputs = set(read(INFRA / "main.bicep").outputs)
    text = "".join(path.read_text() for path in DEPLOYING)
    assert set(re.findall(r"azd env get-value ([A-Z_]+)", text)) <= outputs
    hooks = "".join((ROOT / "scripts" / f"{name}.py").read_text() for name in ("postprovision", "postdown"))
    of_azd = {"BOOTSTRAP_TOKEN_ID", "ENTRA_ACCESS", "ENTRA_APP", "AZURE_CLOUD"}
    assert set(re.findall(r'setting\("([A-Z_]+)"\)', hooks)) <= outputs | of_azd


def test_core_tools_would_publish_the_same_files() -> None:
    """`.funcignore` keeps what scripts/package.py takes, and drops what it leaves."""
    import ast

    script = ast.parse((ROOT / "scripts" / "package.py").read_text())
    (ours,) = (
        ast.literal_eval(node.value)
        for node in script.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "OURS"
    )
    if not shutil.which("git"):
        pytest.skip("there is no git here: the files of the project are not known")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard")
    rules = ("git", "-c", f"core.excludesFile={ROOT / '.funcignore'}", "ls-files", "--ignored", "--exclude-standard")
    ignored = run(*rules, "--cached").stdout + run(*rules, "--others").stdout
    if listed.returncode:
        pytest.skip("not a git repository: the files of the project are not known")
    kept = set(listed.stdout.split("\n")) - set(ignored.split("\n")) - {""}
    outside = {name for name in kept if name.split("/")[0] not in ours}
    missing = {name for name in listed.stdout.split() if name.split("/")[0] in ours} - kept
    assert not outside, f"add to .funcignore: {sorted(outside)[:10]}"
    assert not missing
