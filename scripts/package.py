"""Builds what runs in Azure: the app, its packages for Python 3.13 on x86-64, and byte code.

    python scripts/package.py [--zip FILE] [--python PATH]

Fills the folder `package`, which azd deploys as it is, and with --zip one archive of it for other publishers and for
going back later. Nothing is built in Azure. Needs uv (pip install uv), and Python 3.13 for the byte code: without it
the app works and starts slower.

Byte code is `unchecked-hash`: it survives the archive, which loses the times that ordinary byte code is checked by, and
the deployed files are read-only. It is made here and not in the sources, where it would hide every later change.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "package"
PACKAGES = Path(".python_packages/lib/site-packages")  # the path is fixed by the Functions host
PYTHON = "3.13"
PLATFORM = "x86_64-manylinux_2_28"
OURS = ("function_app.py", "host.json", "requirements.txt", "shared")
KEPT = {".gitignore", ".funcignore"}
# Not needed at run time. The metadata of packages stays: entry points are found through it.
WASTE = ("**/__pycache__", "**/tests", "**/test", "**/*.pyi", "**/*.c", "**/*.h", "**/*.pyx", "**/*.pxd", "bin")
IDENTIFIER = re.compile(r"[a-z][a-z_]*")


class CannotBuild(Exception):
    """Something is missing on this machine; the text says what to do."""


def clear(folder: Path) -> None:
    """Empties the folder but for what belongs into the repository."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name in KEPT:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def copy_sources(folder: Path) -> None:
    """The app itself, without anything a run has left in it."""
    for name in OURS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy2(source, folder / name)


def uv() -> list[str]:
    """The command that runs uv. CannotBuild when there is none."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if not found:
        raise CannotBuild("uv is needed: pip install uv, or see https://docs.astral.sh/uv/")
    return [found]


def install_packages(folder: Path) -> None:
    """The packages of requirements.txt as Azure's Python wants them, whatever runs here."""
    options = ["--python-platform", PLATFORM, "--python-version", PYTHON, "--only-binary", ":all:"]
    where = ["--target", str(folder / PACKAGES), "-r", str(ROOT / "requirements.txt")]
    if subprocess.run([*uv(), "pip", "install", "--quiet", *options, *where], check=False).returncode:
        raise CannotBuild("uv could not install the packages; its message is above")


def remove_waste(packages: Path) -> None:
    """What packages bring along for their developers."""
    for pattern in WASTE:
        for path in list(packages.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()


def words_of(sources: Path) -> set[str]:
    """Every name that the code uses: what it does not name, it can not reach in the SDK."""
    words: set[str] = set()
    for path in sources.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                words.add(node.attr)
            elif isinstance(node, ast.ImportFrom) and node.module:
                words |= set(node.module.split("."))
    return {word for word in words if IDENTIFIER.fullmatch(word)}


def unreachable(generated: Path, words: set[str]) -> Iterator[Path]:
    """What can go from msgraph's 18,000 generated files: folders whose name the code never says, and the models but
    those it imports. `item` stands behind each `by_…_id`. The SDK finds each builder by an attribute of that name."""
    for path in sorted(generated.iterdir()):
        if path.is_dir():
            if path.name in words | {"item"}:
                yield from unreachable(path, words)
            else:
                yield path
        elif generated.name == "models" and path.suffix == ".py" and path.stem not in words | {"__init__"}:
            yield path


def slim(packages: Path, words: set[str]) -> None:
    """Removes what of the Graph SDK can not be reached."""
    generated = packages / "msgraph" / "generated"
    for path in list(unreachable(generated, words)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for note in generated.glob("kiota*"):
        note.unlink()


def target_python(given: str = "") -> str | None:
    """A Python of exactly the version in Azure: byte code of another one is of no use."""
    for name in (given or sys.executable, f"python{PYTHON}"):
        shown = shutil.which(name)
        asked = [shown or "", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if shown and subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == PYTHON:
            return shown
    return None


def compile_all(folder: Path, given: str = "") -> bool:
    """Byte code for all; False when no Python of the version is here."""
    python = target_python(given)
    if python is None:
        print(f"no Python {PYTHON} here: the package has no byte code and starts slower", file=sys.stderr)
        return False
    compileall = [python, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    parts = [str(folder / name) for name in ("function_app.py", "shared", ".python_packages")]
    subprocess.run([*compileall, "-s", str(folder), *parts], check=False)  # templates of packages may not compile
    return True


def size_of(folder: Path) -> tuple[int, int]:
    """Files and bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name not in KEPT]
    return len(sizes), sum(sizes)


def archive(folder: Path, file: Path) -> None:
    """One archive; the same sources give the same bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as made:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name not in KEPT:
                entry = zipfile.ZipInfo(str(path.relative_to(folder)), (1980, 1, 1, 0, 0, 0))
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                made.writestr(entry, path.read_bytes())


def build(folder: Path = FOLDER, python: str = "") -> None:
    """Fills the folder; `python` names the Python that makes the byte code."""
    clear(folder)
    copy_sources(folder)
    install_packages(folder)
    packages = folder / PACKAGES
    remove_waste(packages)
    slim(packages, words_of(folder / "shared"))
    compile_all(folder, python)


def main(arguments: list[str]) -> int:
    """Runs it; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--zip", type=Path, help="also write this archive")
    parser.add_argument("--python", default="", help=f"the Python {PYTHON} that makes the byte code")
    wanted = parser.parse_args(arguments)
    try:
        build(python=wanted.python)
    except CannotBuild as problem:
        print(f"cannot build the package: {problem}", file=sys.stderr)
        return 1
    files, size = size_of(FOLDER)
    print(f"package: {files:,} files, {size / 1e6:.1f} MB")
    if wanted.zip:
        archive(FOLDER, wanted.zip)
        print(f"{wanted.zip}: {wanted.zip.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
