"""A page for each room, made of its ``__all__`` and its docstrings, before the site is read."""

import pydoc
from pathlib import Path
from typing import Any

from docutils import nodes
from public import ROOMS, Name, everything, names, parts_of
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import lsdask

FOLDER = "reference"


def write(app: Sphinx) -> None:
    """Write the pages that have changed, and take away those of rooms that are gone."""
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(exist_ok=True)
    pages = {folder / f"{room}.rst": page(room) for room in ROOMS}
    for path in set(folder.glob("*.rst")) - set(pages):
        path.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def page(room: str) -> str:
    """A room's page, in reStructuredText: what it is for, its names in a table, then each of them."""
    listed = sorted(names(room), key=_rank)
    parts = [f"{room}\n{'=' * len(room)}", f".. automodule:: lsdask.{room}", *_summary(listed)]
    return "\n\n".join([*parts, *map(_entry, listed), *map(_part, parts_of(room))]) + "\n"


def _part(module: str) -> str:
    return f"{module}\n{'-' * len(module)}\n\n.. automodule:: {module}\n   :members:"


def _rank(name: Name) -> int:
    """What most readers look for first: functions, then classes, constants, and the functions of blocks below them."""
    return 3 if name.name.endswith("_block") else ("function", "class", "exception", "data").index(name.kind) % 3


def _summary(listed: list[Name]) -> list[str]:
    if not listed:
        return []
    rows = [f"   * - :py:obj:`{name.name} <{name.path}>`\n     - {_first_line(name)}" for name in listed]
    return ["\n".join([".. list-table::\n   :class: names\n   :widths: 25 75\n", *rows])]


def _first_line(name: Name) -> str:
    return name.said.split("\n\n")[0].replace("\n", " ") or (f"``{name.shown}``" if name.shown else "")


def _entry(name: Name) -> str:
    if name.kind != "data":
        members = "\n   :members:" if name.kind == "class" else ""
        return f".. auto{name.kind}:: {name.path}{members}"
    value = f"\n   :value: {name.shown}" if name.shown else ""
    said = "".join(f"\n   {line}".rstrip(" ") for line in ["", *name.said.splitlines()])
    return f".. py:data:: {name.name}\n   :module: lsdask.{name.room}{value}\n{said}"


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.Node) -> Any:
    """Lead a name written as its inner module, or an error's bare name, to where it is public.

    A type in a signature that no room offers stays text; what is not there at all is left to be warned of.
    """
    target = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py":
        return None
    path = public_paths().get(target)
    if path is None:
        return shown if target.startswith("lsdask.") and pydoc.locate(target) is not None else None
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", path, node, shown)


def public_paths() -> dict[str, str]:
    """The public path of what is known by another one."""
    inner = {f"{name.home}.{name.name}": path for path, name in everything().items()}
    errors = {name: f"lsdask.errors.{name}" for name in vars(lsdask.errors) if f"lsdask.errors.{name}" in everything()}
    return inner | errors


def skip(app: Sphinx, what: str, name: str, value: object, skipped: bool, options: object) -> bool | None:
    """Leave out what Python itself says of a named tuple's fields."""
    return True if str(getattr(value, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True}
