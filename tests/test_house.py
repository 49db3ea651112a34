"""The house as a whole: what importing it loads, which way its rooms import, what its pages say."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lsdask

PACKAGE = Path(lsdask.__file__).parent

LAYERS = {
    **dict.fromkeys(["errors", "telling", "compiling"], 0),
    **dict.fromkeys(["schema", "tiling", "store", "ledger", "tasks", "graphs", "sensors"], 1),
    **dict.fromkeys(["scenes", "mosaic", "terrain", "statistics", "kmeans", "inventory", "sampling", "streaming"], 2),
    **dict.fromkeys(["evaluate", "models", "losses", "augment", "synthetic"], 2),
    **dict.fromkeys(["predict", "training"], 3),
    **dict.fromkeys(["bench", "recipes", "report"], 4),
    "cli": 5,
}

TORCH_ROOMS = {"models", "losses", "augment", "training", "streaming", "predict", "recipes", "bench", "cli"}


def rooms() -> list[tuple[str, Path]]:
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    return [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in files]


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    """The modules a file imports, dotted."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_every_room_has_a_layer_and_a_name_in_the_list() -> None:
    names = {room for room, _ in rooms()}
    assert names <= set(LAYERS)
    assert names == set(lsdask.ROOMS)


@pytest.mark.parametrize(("room", "path"), rooms(), ids=lambda value: str(value).removeprefix(str(PACKAGE)))
def test_rooms_import_their_own_layer_or_lower(room: str, path: Path) -> None:
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "lsdask" and len(parts) > 1 and parts[1] in LAYERS:
            assert LAYERS[parts[1]] <= LAYERS[room], f"{room} imports {parts[1]}"


def test_rooms_import_each_other_in_no_circle() -> None:
    graph: dict[str, set[str]] = {room: set() for room, _ in rooms()}
    for room, path in rooms():
        parts = [name.split(".") for name in imported(path)]
        graph[room] |= {p[1] for p in parts if p[0] == "lsdask" and len(p) > 1 and p[1] in graph and p[1] != room}
    import graphlib

    list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(("room", "path"), rooms(), ids=lambda value: str(value).removeprefix(str(PACKAGE)))
def test_torch_lives_in_its_rooms(room: str, path: Path) -> None:
    if room not in TORCH_ROOMS:
        assert not {name for name in imported(path) if name.split(".")[0] in ("torch", "lightning")}


def test_importing_lsdask_loads_the_standard_library_only() -> None:
    code = "import sys; before = set(sys.modules); import lsdask; print(*sorted(set(sys.modules) - before))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    foreign = {name.split(".")[0] for name in printed.split()} - sys.stdlib_module_names - {"lsdask"}
    assert foreign == set()


def test_a_room_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"lsdask has no room 'kitchen'\. Its rooms are"):
        _ = lsdask.kitchen
    assert "predict" in dir(lsdask)
