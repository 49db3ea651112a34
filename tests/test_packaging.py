"""What is installed, and where: the metadata says what the code imports, and a wheel works where nothing else is."""

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lsdask as ls

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lsdask"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = {"pytorch": "torch"}
"""What conda-forge calls otherwise."""

UNIMPORTED = {"torchvision", "rioxarray", "xbatcher"}
"""Needed in the version that fits torch, by segmentation_models_pytorch; and what users bring to what lsdask gives."""


def named(requirements: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(Requirement(text).name): Requirement(text) for text in requirements}


BROUGHT = packages_distributions()

CORE = named(PROJECT["dependencies"])
EXTRAS = {extra: named(listed) for extra, listed in PROJECT["optional-dependencies"].items()}
BESIDE = ("dev", "docs", "notebooks")
"""Extras of what is done with a clone, and not by the package."""

FOR_USERS = {name for extra, listed in EXTRAS.items() if extra not in BESIDE for name in listed}
BY_OTHERS = {"tensorboard", "asyncssh"}
"""Imported by torch and by Dask, where they are asked for what these bring."""


def imports() -> Iterator[tuple[str, bool]]:
    """Each module of another project that lsdask imports, and whether as soon as its own module is imported."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node in tree.body) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module, node in tree.body


@cache
def distributions(module: str) -> set[str]:
    """The projects that bring a module; ``odc`` is shared by several, so its second part tells them apart."""
    parts = module.split(".")
    if parts[0] == "odc":
        return {f"odc-{parts[1]}"} if len(parts) > 1 else set()
    return {canonicalize_name(name) for name in BROUGHT.get(parts[0], [parts[0]])}


def foreign() -> set[tuple[str, bool]]:
    own = {"lsdask", *sys.stdlib_module_names}
    return {(module, at_once) for module, at_once in imports() if module.split(".")[0] not in own}


def test_what_is_imported_at_once_is_a_dependency() -> None:
    assert {module for module, at_once in foreign() if at_once and not distributions(module) & set(CORE)} == set()


def test_what_is_imported_later_is_a_dependency_or_in_an_extra() -> None:
    known = {*CORE, *FOR_USERS}
    # urllib3 is a part of what requests offers: its adapters take urllib3's Retry
    strange = {module for module, _ in foreign() if not distributions(module) & known and module != "urllib3.util"}
    assert strange == set()


def test_every_dependency_is_imported() -> None:
    used = set().union(*(distributions(module) for module, _ in foreign()))
    assert set(CORE) - used - UNIMPORTED == set()
    assert FOR_USERS - used - UNIMPORTED - BY_OTHERS == set()


def test_the_lock_holds_every_requirement_and_names_no_place() -> None:
    text = (ROOT / "requirements.lock").read_text()
    pinned = dict(line.split("==") for line in text.splitlines() if re.match(r"[a-z0-9]", line))
    for name, requirement in {**CORE, **{k: v for listed in EXTRAS.values() for k, v in listed.items()}}.items():
        assert name in pinned, name
        assert requirement.specifier.contains(pinned[name].split(";")[0].strip(), prereleases=True), name
    assert not re.search(r"://|--(extra-)?index|--find-links|@ ", text)


def test_conda_gets_the_same_list() -> None:
    text = (ROOT / "environment.yml").read_text().partition("dependencies:")[2]
    lines = re.findall(r"^  - (\S+)$", text, re.MULTILINE)
    listed = [Requirement(line) for line in lines if not line.startswith(("python=", "pip"))]
    assert f"python={(ROOT / '.python-version').read_text().strip()}" in lines
    assert {CONDA.get(requirement.name, requirement.name): str(requirement.specifier) for requirement in listed} == {
        name: str(requirement.specifier) for name, requirement in CORE.items()
    }


def test_an_error_that_names_an_extra_names_one_that_is_there() -> None:
    text = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    told = set(re.findall(r"lsdask\[(\w+)\]", text))
    assert {"cloud", "icechunk"} <= told <= set(EXTRAS)


def test_the_install_page_lists_every_extra() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(EXTRAS)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "uv", "build", "--out-dir", str(out), str(ROOT)], out)
    return out


def run(command: list[str], folder: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    kept = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*") if path.suffix in {".py", ".typed", ".csv"}}
    assert {name for name in held if ".dist-info/" not in name} == kept
    assert "lsdask/py.typed" in held
    assert f"lsdask-{ls.__version__}.dist-info/licenses/LICENSE" in held


@pytest.mark.slow
def test_the_sdist_holds_what_the_tests_and_pages_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"tests/conftest.py", "docs/conf.py", "Makefile", "benchmarks/README.md"} <= held
    assert not {name for name in held if ".venv" in name or "__pycache__" in name or ".zarr" in name}


@pytest.mark.slow
@pytest.mark.cluster
def test_a_wheel_works_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    uv = [sys.executable, "-m", "uv"]
    run([*uv, "venv", "--python", sys.executable, "fresh"], tmp_path)
    python = str(tmp_path / "fresh" / "bin" / "python")
    (wheel,) = built.glob("*.whl")
    lock = str(ROOT / "requirements.lock")
    run([*uv, "pip", "install", "--python", python, "--constraint", lock, str(wheel)], tmp_path)

    command = str(tmp_path / "fresh" / "bin" / "lsdask")
    assert run([command, "--version"], tmp_path).strip() == ls.__version__
    where = run([python, "-c", "import lsdask; print(lsdask.__file__)"], tmp_path)
    assert where.startswith(str(tmp_path / "fresh"))
    rooms = "import lsdask as ls; print(*(getattr(ls, room).__name__ for room in ls.ROOMS))"
    assert len(run([python, "-c", rooms], tmp_path).split()) == len(ls.ROOMS)
    there = {canonicalize_name(line.split("==")[0]) for line in _frozen(uv, python, tmp_path)}
    assert set(CORE) <= there
    assert not there & (FOR_USERS | set(EXTRAS["dev"]) | set(EXTRAS["docs"])) - set(CORE)

    run([command, "demo", "--size", "512", "--epochs", "1", "--workers", "1", "--out", "demo"], tmp_path)
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000


def _frozen(uv: list[str], python: str, folder: Path) -> list[str]:
    return run([*uv, "pip", "freeze", "--python", python], folder).splitlines()
