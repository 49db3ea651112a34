"""Lazy arrays whose chunks take their dates one at a time, or all at once."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
from dask._task_spec import Task, TaskRef
from dask.base import tokenize
from dask.blockwise import blockwise
from dask.highlevelgraph import HighLevelGraph, Layer

from lsdask.graphs import Around, Chunked, Key, Node

TOGETHER = 100
"""Most chunks that are folded date by date together, where their inputs look at their neighbours."""


class Fold(Chunked):
    """For each chunk (y, x), a chain of tasks that takes the dates in one after the other.

    ``step(so_far, *blocks, start=)`` receives what it gave for the dates before (None for the first), and the blocks
    of each input at the next ones, of which the first has the number ``start``. Only one of them need be in memory.

    An input that looks at its neighbours, such as a grown mask, is made of blocks that several chains wait for. Were
    these run one after the other, the blocks of all dates would be held for the last; so the chains of a window take
    turns, one date after the other.
    """

    def __init__(self, name: str, step: Callable[..., Any], cube: da.Array, others: Sequence[da.Array | None]) -> None:
        super().__init__(name, cube.numblocks[2:])
        self.step = step
        self.inputs = [None if array is None else (array.name, array.ndim) for array in (cube, *others)]
        self.starts = np.cumsum([0, *cube.chunks[0]])[:-1].tolist()
        self.steps = len(self.starts)
        layers = [layer for one in others if one is not None for layer in one.dask.layers.values()]
        self.takes_turns = any(isinstance(layer, Around) for layer in layers)

    def tasks(self, block: tuple[int, ...]) -> dict[Key, Node]:
        chain: dict[Key, Node] = {}
        other, earlier = self._before(block)
        for number, start in enumerate(self.starts):
            before = TaskRef(self._key(number - 1, block)) if number else None
            reads = [None if one is None else TaskRef(_place(*one, number, block)) for one in self.inputs]
            waits = other != block and number >= earlier
            turn = TaskRef(self._key(number - earlier, other)) if waits else None
            key = self._key(number, block)
            chain[key] = Task(key, _in_turn, turn, self.step, before, *reads, start=start)
        return chain

    def _before(self, block: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """Give the block whose turn is before that of a block, and how many dates earlier: 0 or, for the first, 1."""
        wanted = self.wanted or ()
        together = sorted(wanted) if self.takes_turns and 0 < len(wanted) <= TOGETHER else [block]
        turn = together.index(block)
        return together[turn - 1], 0 if turn else 1

    def cull(self, keys: set[Any], all_hlg_keys: Collection[Any]) -> tuple[Layer, Mapping[Any, set[Any]]]:
        part, reads = super().cull(keys, all_hlg_keys)
        own = (self.name, f"{self.name}-until")
        return part, {key: {one for one in needed if one[0] not in own} for key, needed in reads.items()}

    def _key(self, number: int, block: tuple[int, ...]) -> Key:
        last = number == len(self.starts) - 1
        return (self.name, *block) if last else (f"{self.name}-until", number, *block)

    def block_of(self, key: Any) -> tuple[int, ...]:
        inner = isinstance(key, tuple) and key[0] == f"{self.name}-until"
        return super().block_of((self.name, *key[2:]) if inner else key)


def _in_turn(_: Any, step: Callable[..., Any], *given: Any, start: int) -> Any:
    """Take a step once the chain before has taken its own."""
    return step(*given, start=start)


def _place(name: str, ndim: int, time: int, block: tuple[int, ...]) -> Key:
    """Name a block of a cube (time, band, y, x), or of what lies on (time, y, x) or (y, x)."""
    return name, *{4: (time, 0), 3: (time,), 2: ()}[ndim], *block


def fold(step: Callable[..., Any], cube: da.Array, others: Sequence[da.Array | None]) -> tuple[HighLevelGraph, str]:
    """Plan a fold over the dates of a cube.

    Parameters
    ----------
    step : callable
        As ``Fold`` says.
    cube : Dask array (time, band, y, x)
        All bands in one chunk.
    others : sequence of Dask array or None
        Arrays on (time, y, x) or (y, x) in the chunks of the cube.

    Returns
    -------
    (HighLevelGraph, str)
        The graph, and the name of its results ``(name, row, column)``.
    """
    arrays = [cube, *(array for array in others if array is not None)]
    name = "fold-" + tokenize(step, *(None if array is None else array.name for array in (cube, *others)))
    return HighLevelGraph.from_collections(name, Fold(name, step, cube, others), dependencies=arrays), name  # type: ignore[arg-type]


def gather(function: Callable[..., Any], cube: da.Array, mask: da.Array | None) -> tuple[HighLevelGraph, str]:
    """Plan a task for each chunk that gets a list of blocks, one a date, of a cube and of a mask; else as ``fold``."""
    arrays = [cube] if mask is None else [cube, mask]
    name = "gather-" + tokenize(function, *(array.name for array in arrays))
    pairs = [one for array in arrays for one in (array.name, {4: "tbyx", 3: "tyx", 2: "yx"}[array.ndim])]
    layer = blockwise(function, name, "yx", *pairs, numblocks={array.name: array.numblocks for array in arrays})
    return HighLevelGraph.from_collections(name, layer, dependencies=arrays), name  # type: ignore[arg-type]


def part(
    graph: HighLevelGraph,
    name: str,
    function: Callable[..., Any],
    chunks: Sequence[tuple[int, ...]],
    dtype: Any,
    **options: Any,
) -> da.Array:
    """Make an array of one part of the results of ``fold`` or ``gather``.

    Parameters
    ----------
    graph, name
        What they gave.
    function : callable
        From a result to a block.
    chunks : sequence of tuples of int
        Of the array: (band,) y, x.
    dtype : dtype
    **options
        For ``function``.

    Returns
    -------
    Dask array (band, y, x) or (y, x)
    """
    out = f"{function.__name__.strip('_')}-" + tokenize(name, function, options)
    dims = "byx"[-len(chunks) :]
    counts = tuple(len(sizes) for sizes in chunks[-2:])
    new = {"b": 1} if len(chunks) == 3 else {}
    layer = blockwise(function, out, dims, name, "yx", numblocks={name: counts}, new_axes=new, **options)
    graph = HighLevelGraph({**graph.layers, out: layer}, {**graph.dependencies, out: {name}})
    return da.Array(graph, out, chunks=tuple(chunks), meta=np.empty((0,) * len(chunks), dtype))
