"""What lsdask's rooms offer: their public names, where each is written, and what is said of it."""

import ast
import inspect
import pkgutil
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from sphinx.pycode import ModuleAnalyzer

import lsdask

ROOMS = tuple(room for room in lsdask.ROOMS if room != "cli")
"""The rooms with a page of names; the command has a page of its own."""

SHORT = 60
"""Letters of the longest value that is shown."""


@dataclass(frozen=True)
class Name:
    """One public name of a room.

    ``home`` is the module that it is written in; ``kind`` is function, class, exception or data.
    """

    room: str
    name: str
    home: str
    value: Any

    @property
    def path(self) -> str:
        return f"lsdask.{self.room}.{self.name}"

    @property
    def kind(self) -> str:
        if inspect.isclass(self.value) and not isinstance(self.value, types.GenericAlias):
            return "exception" if issubclass(self.value, Exception) else "class"
        return "function" if callable(self.value) and inspect.isroutine(self.value) else "data"

    @property
    def said(self) -> str:
        """The docstring; of data, the string or comment beside its assignment."""
        if self.kind != "data":
            return inspect.getdoc(self.value) or ""
        lines = ModuleAnalyzer.for_module(self.home).find_attr_docs().get(("", self.name), [])
        return "\n".join(lines).strip()

    @property
    def shown(self) -> str:
        """The value of data, where it is short and says something."""
        plain = isinstance(self.value, str | int | float | tuple)
        return repr(self.value) if plain and len(repr(self.value)) <= SHORT else ""


@cache
def names(room: str) -> tuple[Name, ...]:
    """The public names of a room: its ``__all__``, or what a room of one file defines without an underscore."""
    module = import_module(f"lsdask.{room}")
    homes = dict(_homes(module))
    listed = getattr(module, "__all__", None) or [name for name in homes if not name.startswith("_")]
    return tuple(Name(room, name, homes.get(name, module.__name__), getattr(module, name)) for name in listed)


def _homes(module: types.ModuleType) -> Iterator[tuple[str, str]]:
    """Each name that a module defines, and each that it takes from its own parts, with the module that defines it."""
    for node in ast.parse(Path(str(module.__file__)).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, module.__name__
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((target.id, module.__name__) for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{module.__name__}."):
            yield from ((alias.asname or alias.name, str(node.module)) for alias in node.names)


def parts_of(room: str) -> list[str]:
    """The modules of a room that offers no names of its own, as ``recipes``: they are what it offers."""
    module = import_module(f"lsdask.{room}")
    if names(room) or not hasattr(module, "__path__"):
        return []
    return sorted(part.name for part in pkgutil.iter_modules(module.__path__, f"{module.__name__}."))


@cache
def everything() -> dict[str, Name]:
    """All public names of all rooms, by path."""
    return {name.path: name for room in ROOMS for name in names(room)}
