"""The template as a compiler would see it: syntax, symbols, modules, and every resource against Microsoft's types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import bicep, resource_types
from tests.support.bicep import FILES, INFRA, Bicep, body_of, literal, properties, read, references, text_of

FILE = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
# Real types for which there is no data to compare with: looked at in test_what_has_no_type_data_is_small.
WITHOUT_DATA = {"Microsoft.Insights/workbooks@2023-06-01"}
needs_types = pytest.mark.skipif(
    not resource_types.DATA.exists(), reason=f"no Bicep type data at {resource_types.DATA}: resources are not compared"
)


def undefined(file: Bicep) -> set[str]:
    """Names that are used and nowhere declared."""
    return set(references(file.root)) - file.symbols - bicep.local_names(file.root)


def unused(file: Bicep) -> set[str]:
    """Parameters, variables and types that nothing uses, and resources that are looked up for nothing."""
    looked_up = {name for name, node in file.resources.items() if any(c.type == "existing" for c in node.children)}
    return ({*file.parameters, *file.variables, *file.types} | looked_up) - set(references(file.root))


def scratch(folder: Path, text: str) -> Bicep:
    """A file of one test."""
    path = folder / "scratch.bicep"
    path.write_text(text)
    return read(path)


@FILE
def test_every_file_is_bicep(path: Path) -> None:
    """Nothing that the grammar does not know."""
    assert list(bicep.mistakes(read(path).root)) == []


@FILE
def test_every_name_is_declared_and_used(path: Path) -> None:
    """Neither a misspelt symbol nor one that is left over."""
    file = read(path)
    assert undefined(file) == set()
    assert unused(file) == set()


def test_undefined_and_unused_names_would_be_found(tmp_path: Path) -> None:
    """The check above sees a misspelt name, also inside text, and leftovers of each kind."""
    file = scratch(
        tmp_path,
        "param one string\nparam two int = 2\nvar three = one\nvar four = '${fiv}'\n"
        "resource old 'A/b@1' existing = {\n  name: four\n}\n",
    )
    assert undefined(file) == {"fiv"}
    assert unused(file) == {"two", "three", "old"}


@FILE
def test_everything_says_what_it_is_for(path: Path) -> None:
    """Parameters and outputs have descriptions, and secrets are declared as such."""
    file = read(path)
    for name in (*(f"parameters.{one}" for one in file.parameters), *(f"outputs.{one}" for one in file.outputs)):
        assert any(one.startswith("@description(") for one in file.decorators[name]), name
        secret = any(word in name.lower() for word in ("secret", "password", "keyring")) and "Url" not in name
        assert not secret or "@secure()" in file.decorators[name], name


@FILE
def test_modules_get_exactly_their_parameters(path: Path) -> None:
    """Each module exists, is given what it asks for and nothing else, and only outputs that it has are read."""
    file = read(path)
    for name, node in file.modules.items():
        target = read(path.parent / literal(node))
        given = set(properties(properties(body_of(node))["params"]))
        needed = {one for one, at in target.parameters.items() if not any(c.type == "=" for c in at.children)}
        assert needed <= given <= set(target.parameters), name
        text = path.read_text()
        for mark in (f"{name}.outputs.", f"{name}.?outputs."):
            read_outputs = {part.split()[0].split(")")[0].split("}")[0] for part in text.split(mark)[1:]}
            assert read_outputs <= set(target.outputs), name


@needs_types
@FILE
def test_resources_are_of_microsofts_types(path: Path) -> None:
    """No unknown, misspelt, missing or read-only property, no value outside its choices, no unknown version."""
    file = read(path)
    wrong = [
        fault
        for name, node in file.resources.items()
        if literal(node) not in WITHOUT_DATA
        for fault in resource_types.faults(file, name)
    ]
    assert wrong == []


SEEDED = {
    "an unknown property": ("supportsHttpsTrafficOnly: true", "httpsOnly: true", "no such property"),
    "another case": ("allowBlobPublicAccess: false", "allowBlobPublicaccess: false", "but allowBlobPublicAccess"),
    "a value outside its choices": ("minimumTlsVersion: 'TLS1_2'", "accessTier: 'Warm'", "Warm"),
    "a wrong type": ("isLocalUserEnabled: false", "isLocalUserEnabled: 'no'", "not of type bool"),
    "a missing property": ("  kind: 'StorageV2'\n", "", "kind: missing"),
    "an unknown version": ("resource account 'Microsoft.Storage/storageAccounts@2025-06-01'",
                           "resource account 'Microsoft.Storage/storageAccounts@2025-06-02'", "no Microsoft"),
}  # fmt: skip


@needs_types
@pytest.mark.parametrize("fault", SEEDED)
def test_faults_in_resources_would_be_found(fault: str, tmp_path: Path) -> None:
    """Each kind of fault is seen when it is put into the storage account."""
    before, after, said = SEEDED[fault]
    text = (INFRA / "app" / "storage.bicep").read_text()
    assert before in text
    file = scratch(tmp_path, text.replace(before, after, 1))
    assert any(said in one for one in resource_types.faults(file, "account")), list(
        resource_types.faults(file, "account")
    )


def test_what_has_no_type_data_is_small() -> None:
    """The workbook alone: its body is compared by hand with what the service documents."""
    file = read(INFRA / "app" / "workbook.bicep")
    (node,) = file.resources.values()
    assert set(properties(body_of(node))) == {"name", "location", "tags", "kind", "properties"}
    inside = properties(properties(body_of(node))["properties"])
    assert set(inside) == {"displayName", "category", "sourceId", "serializedData"}
    pages = json.loads((INFRA / "app" / "workbook.json").read_text())
    assert pages["version"] == "Notebook/1.0"
    names = [item["name"] for item in pages["items"]]
    assert len(names) == len(set(names)) > 5


def test_parameters_and_their_file_name_the_same() -> None:
    """Every parameter can be set from the azd environment, and the file sets none that is not there."""
    given = json.loads((INFRA / "main.parameters.json").read_text())["parameters"]
    assert set(given) == set(read(INFRA / "main.bicep").parameters)


def test_only_name_and_place_are_asked_for() -> None:
    """`azd up` needs no other answer."""
    main = read(INFRA / "main.bicep")
    asked = {name for name, node in main.parameters.items() if not any(c.type == "=" for c in node.children)}
    assert asked == {"environmentName", "location"}


def test_defaults_in_the_parameter_file_are_those_of_the_template() -> None:
    """`${NAME=default}` says what main.bicep says, so that `az deployment` and `azd` deploy the same."""
    given = json.loads((INFRA / "main.parameters.json").read_text())["parameters"]
    main = read(INFRA / "main.bicep")
    for name, entry in given.items():
        value = entry["value"]
        if isinstance(value, str) and "=" in value:
            told = value.partition("=")[2].removesuffix("}")
            assert told == text_of(main.parameters[name].children[-1]).strip("'"), name


def test_outputs_of_modules_that_may_be_absent_are_asked_for_behind_their_condition() -> None:
    """Resource Manager fails on a reference to what was not deployed; the branch that is not taken is not looked at."""
    main = read(INFRA / "main.bicep")
    text = (INFRA / "main.bicep").read_text()
    optional = [name for name, node in main.modules.items() if any(c.type == "if_statement" for c in node.children)]
    assert set(optional) == {"network", "registration"}
    for name in optional:
        assert f"{name}.outputs" not in text
        for line in text.split("\n"):
            assert f"{name}.?outputs" not in line or "?" in line.partition(f"{name}.?outputs")[0], line


def test_no_secret_is_an_output() -> None:
    """Outputs are written into files on the machine that deploys."""
    for path in FILES:
        for name, node in read(path).outputs.items():
            text = text_of(node)
            assert not any(word in text for word in ("listKeys", "keyRing", "getSecret", "listSecrets")), name
