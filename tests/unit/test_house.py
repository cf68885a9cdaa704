"""The rules of the house that a reader relies on: direction of imports, settings in every place, route order."""

import ast
import json
import re
from pathlib import Path

import pytest

from shared.settings import TABLE

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"api": 3, "": 2, "graph": 1, "storage": 0, "handlebars": 0}  # a lower layer imports no higher one
BELOW = {"errors", "clock", "settings", "vault", "oauth_apps"}  # plain words every layer may use


def modules() -> list[Path]:
    return sorted((ROOT / "shared").rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """The modules of `shared` that a file imports when it runs; imports for type checkers do not count."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in typing_only and str(node.module).startswith("shared"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    """No module imports from a layer above its own, and only the edges know the wiring."""
    parts = path.relative_to(ROOT / "shared").parts
    layer = PACKAGES[parts[0] if len(parts) > 1 else ""]
    for name in imports_of(path):
        target = name.split(".")[1:]
        if target[0] in BELOW or target[0].startswith("__"):
            continue
        assert PACKAGES.get(target[0], 2) <= layer, f"{path.name} imports {name}"
        if target[0] == "wiring":
            assert parts[0] == "api" or path.name == "jobs.py", f"{path.name} imports the wiring"


def test_local_knows_nothing_of_the_application() -> None:
    """The tenant and the host reach the app over HTTP alone, so that they cannot share its mistakes."""
    for path in (ROOT / "local").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) shared", path.read_text(), re.MULTILINE), path


def test_every_setting_is_in_the_sample_file() -> None:
    """`local.settings.sample.json` and the table of settings name the same things."""
    values = json.loads((ROOT / "local.settings.sample.json").read_text())["Values"]
    hosts = {"FUNCTIONS_WORKER_RUNTIME", "AzureWebJobsStorage"}
    assert set(values) - hosts == {setting.name for setting in TABLE}


def test_no_file_reads_the_environment_but_the_settings() -> None:
    """Settings are read in one place; the two edges that hand over `os.environ` are known."""
    readers = {path.name for path in modules() if "os.environ" in path.read_text()}
    assert readers <= {"wiring.py", "notify_endpoint.py"}


def test_the_catch_all_route_sorts_last() -> None:
    """The host takes the first HTTP function by name that fits, so every other one must come before it."""
    import function_app

    http = [
        function.get_function_name()
        for function in function_app.app.get_functions()
        if function.get_bindings_dict()["bindings"][0]["type"].lower() == "httptrigger"
    ]
    assert max(http, key=str.lower) == "rest_api"
