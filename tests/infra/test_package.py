"""The package for Azure: what scripts/package.py takes, and that the app's Graph requests can be made with it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import msgraph
import pytest

from tests.support.bicep import ROOT

# Every function of shared/ that makes a request is called, with values made from its annotations.
REQUESTS = """
import importlib, inspect, json, pathlib, sys
from datetime import UTC, datetime
from kiota_abstractions.authentication import AnonymousAuthenticationProvider
from msgraph.graph_request_adapter import GraphRequestAdapter
from msgraph.graph_service_client import GraphServiceClient
import msgraph
from shared.graph.paths import MailboxPath
from shared.search import SearchQuery

adapter = GraphRequestAdapter(AnonymousAuthenticationProvider())
adapter.base_url = "https://graph.microsoft.com/v1.0"
client = GraphServiceClient(request_adapter=adapter)
MADE = {
    "GraphServiceClient": lambda: client, "MailboxPath": lambda: MailboxPath("a@x.example"), "str": lambda: "x",
    "bytes": lambda: b"x", "int": lambda: 1, "bool": lambda: True, "datetime": lambda: datetime.now(UTC),
    "SearchQuery": lambda: SearchQuery("isRead eq true"),
}

def value(annotation):
    text = str(annotation).replace(" | None", "")
    if text in MADE:
        return MADE[text]()
    if text.startswith(("dict", "Mapping")):
        return {}
    if text.startswith(("list", "tuple", "Sequence", "Iterable")):
        return []
    return "x"

urls = {}
for path in sorted(pathlib.Path("shared/graph").glob("*.py")):
    module = importlib.import_module("shared.graph." + path.stem)
    for name, function in inspect.getmembers(module, inspect.isfunction):
        given = inspect.signature(function)
        if function.__module__ != module.__name__ or "RequestInformation" not in str(given.return_annotation):
            continue
        if "GraphServiceClient" not in [str(one.annotation) for one in given.parameters.values()]:
            continue
        made = function(**{one.name: value(one.annotation) for one in given.parameters.values()})
        made.path_parameters["baseurl"] = adapter.base_url
        urls[name] = made.url
print(json.dumps({"sdk": msgraph.__file__, "urls": urls}))
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/package.py."""
    spec = importlib.util.spec_from_file_location("package", ROOT / "scripts" / "package.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mirrored(source: Path, target: Path, dropped: set[Path]) -> int:
    """A folder of links to what is not dropped; how many files."""
    target.mkdir()
    count = 0
    for path in source.iterdir():
        if path in dropped or path.name == "__pycache__":
            continue
        if path.is_dir():
            count += mirrored(path, target / path.name, dropped)
        else:
            (target / path.name).symlink_to(path)
            count += 1
    return count


def test_every_graph_request_is_made_with_what_stays_of_the_sdk(script: ModuleType, tmp_path: Path) -> None:
    """The parts of msgraph that are left out are never reached, though more than nine tenths of it."""
    import json

    sdk = Path(msgraph.__file__).parent
    words = script.words_of(ROOT / "shared")
    kept = mirrored(sdk, tmp_path / "msgraph", set(script.unreachable(sdk / "generated", words)))
    assert 10 < kept < 1500
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", REQUESTS], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["sdk"].startswith(str(tmp_path))
    assert len(found["urls"]) >= 15
    assert all("/v1.0/" in url for url in found["urls"].values()), found["urls"]


def test_a_folder_that_is_used_is_kept_and_another_is_not(script: ModuleType, tmp_path: Path) -> None:
    """By the names that the code says; models by what is imported."""
    for name in ("users/item/messages/delta", "users/item/calendar", "teams", "models"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("models/message.py", "models/team.py", "models/__init__.py", "base.py", "users/item/messages/b.py"):
        (tmp_path / name).touch()
    found = script.unreachable(tmp_path, {"users", "messages", "models", "message"})
    gone = {str(path.relative_to(tmp_path)) for path in found}
    assert gone == {"teams", "users/item/calendar", "users/item/messages/delta", "models/team.py"}


def test_sources_go_without_what_runs_left_in_them(script: ModuleType, tmp_path: Path) -> None:
    """The app, its host.json and templates; no byte code, which would be of another Python, and nothing else."""
    script.copy_sources(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"function_app.py", "host.json", "requirements.txt", "shared"}
    assert not list(tmp_path.rglob("*.pyc"))
    assert list(tmp_path.rglob("*.html"))


def test_the_same_sources_make_the_same_archive(script: ModuleType, tmp_path: Path) -> None:
    """Times and order do not count, and what belongs to the repository alone is not in it."""
    folder = tmp_path / "package"
    (folder / "shared").mkdir(parents=True)
    for name in ("host.json", "shared/a.py", ".funcignore"):
        (folder / name).write_text(name)
    files = [tmp_path / "one.zip", tmp_path / "two.zip"]
    script.archive(folder, files[0])
    (folder / "host.json").touch()
    script.archive(folder, files[1])
    assert files[0].read_bytes() == files[1].read_bytes()
    assert zipfile.ZipFile(files[0]).namelist() == ["host.json", "shared/a.py"]


def test_building_empties_the_folder_but_for_its_rules(script: ModuleType, tmp_path: Path) -> None:
    """What an earlier version had, and this one has not, is not deployed."""
    (tmp_path / "shared").mkdir()
    for name in ("shared/old.py", "old.py", ".gitignore", ".funcignore"):
        (tmp_path / name).touch()
    script.clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".gitignore", ".funcignore"}
