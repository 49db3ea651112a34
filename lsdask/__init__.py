"""Landslide maps from satellite scenes over whole mountain ranges.

The rooms of the house are its API: ``import lsdask as ls``, then ``ls.scenes.open(...)``,
``ls.predict.run(...)``. Each room is loaded on first use, so importing lsdask loads the standard library only.
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

ROOMS = (
    "augment",
    "bench",
    "cli",
    "compiling",
    "errors",
    "evaluate",
    "graphs",
    "inventory",
    "kmeans",
    "ledger",
    "losses",
    "models",
    "mosaic",
    "predict",
    "recipes",
    "report",
    "sampling",
    "scenes",
    "schema",
    "sensors",
    "statistics",
    "store",
    "streaming",
    "synthetic",
    "tasks",
    "telling",
    "terrain",
    "tiling",
    "training",
)
__all__ = ["ROOMS", "__version__"]


def __getattr__(name: str) -> ModuleType:
    if name in ROOMS:
        return import_module(f"lsdask.{name}")
    raise AttributeError(f"lsdask has no room {name!r}. Its rooms are {', '.join(ROOMS)}.")


def __dir__() -> list[str]:
    return [*__all__, *ROOMS]
