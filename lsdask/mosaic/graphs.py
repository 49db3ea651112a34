"""Lazy arrays whose chunks take their dates one at a time, or look at their neighbours.

Both are Dask layers that make their tasks when asked for them: a plan for a continent and a hundred dates is as small
as one for a village, and a window of it costs its own tasks only.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask._task_spec import List, Task, TaskRef
from dask.base import tokenize
from dask.blockwise import blockwise
from dask.highlevelgraph import HighLevelGraph, Layer

Key = tuple[Any, ...]


class Chunked(Layer):
    """A layer with one output for each block of an array, which knows what each of them reads.

    Attributes
    ----------
    name : str
        The outputs are ``(name, *block)``.
    counts : tuple of int
        Blocks on each axis.
    wanted : set of tuple of int, or None
        The blocks asked for; None for all of them.
    steps : int
        Tasks of a block.
    """

    has_legacy_tasks = False
    steps = 1

    def __init__(self, name: str, counts: Sequence[int]) -> None:
        super().__init__()
        self.name, self.counts = name, tuple(counts)
        self.wanted: set[tuple[int, ...]] | None = None
        self._held: tuple[Any, dict[Key, Task]] = (None, {})

    def tasks(self, block: tuple[int, ...]) -> dict[Key, Task]:
        """Give all tasks that make one output."""
        raise NotImplementedError

    def blocks(self) -> Iterator[tuple[int, ...]]:
        """Give the blocks asked for."""
        return iter(product(*map(range, self.counts)) if self.wanted is None else self.wanted)

    def is_materialized(self) -> bool:
        return False

    def get_output_keys(self) -> set[Key]:
        return {(self.name, *block) for block in self.blocks()}

    def cull(self, keys: set[Any], all_hlg_keys: Collection[Any]) -> tuple[Layer, Mapping[Any, set[Any]]]:
        part = self.__copy__()
        part._held = (None, {})
        part.wanted = {key[1:] for key in keys if isinstance(key, tuple) and key[0] == self.name}
        reads = {}
        for block in part.wanted:
            tasks = self.tasks(block)
            reads[self.name, *block] = set().union(*(task.dependencies for task in tasks.values())) - tasks.keys()
        return part, reads

    def __iter__(self) -> Iterator[Key]:
        return (key for block in self.blocks() for key in self.tasks(block))

    def __len__(self) -> int:
        return self.steps * (math.prod(self.counts) if self.wanted is None else len(self.wanted))

    def __getitem__(self, key: Any) -> Task:
        block = self.block_of(key)
        held = self._held
        if held[0] != block:  # Dask asks for the tasks of a block one after the other
            held = self._held = block, self.tasks(block)
        return held[1][key]

    def block_of(self, key: Any) -> tuple[int, ...]:
        """Give the block that a task helps to make; raise KeyError if it is of another layer."""
        block = key[1:] if isinstance(key, tuple) and key[0] == self.name else ()
        inside = len(block) == len(self.counts) and all(0 <= i < n for i, n in zip(block, self.counts))
        if not inside or (self.wanted is not None and block not in self.wanted):
            raise KeyError(key)
        return block


class Fold(Chunked):
    """For each chunk (y, x), a chain of tasks that takes the dates in one after the other.

    ``step(so_far, *blocks, start=)`` receives what it gave for the dates before (None for the first), and the blocks
    of each input at the next ones, of which the first has the number ``start``. Only one of them need be in memory.
    """

    def __init__(self, name: str, step: Callable[..., Any], cube: da.Array, others: Sequence[da.Array | None]) -> None:
        super().__init__(name, cube.numblocks[2:])
        self.step = step
        self.inputs = [None if array is None else (array.name, array.ndim) for array in (cube, *others)]
        self.starts = np.cumsum([0, *cube.chunks[0]])[:-1].tolist()
        self.steps = len(self.starts)

    def tasks(self, block: tuple[int, ...]) -> dict[Key, Task]:
        chain = {}
        for number, start in enumerate(self.starts):
            before = TaskRef(self._key(number - 1, block)) if number else None
            reads = [None if one is None else TaskRef(_place(*one, number, block)) for one in self.inputs]
            key = self._key(number, block)
            chain[key] = Task(key, self.step, before, *reads, start=start)
        return chain

    def _key(self, number: int, block: tuple[int, ...]) -> Key:
        last = number == len(self.starts) - 1
        return (self.name, *block) if last else (f"{self.name}-until", number, *block)

    def block_of(self, key: Any) -> tuple[int, ...]:
        inner = isinstance(key, tuple) and key[0] == f"{self.name}-until"
        return super().block_of((self.name, *key[2:]) if inner else key)


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


class Around(Chunked):
    """For each chunk (..., y, x), one task that gets the chunk with some pixels around it, cut at the image's edges."""

    def __init__(self, name: str, function: Callable[..., Any], array: da.Array, pixels: int) -> None:
        super().__init__(name, array.numblocks)
        self.function, self.source, self.pixels = function, array.name, pixels
        self.edges = [np.cumsum([0, *sizes]) for sizes in array.chunks[-2:]]

    def tasks(self, block: tuple[int, ...]) -> dict[Key, Task]:
        (rows, y), (columns, x) = (reach(edges, i, self.pixels) for edges, i in zip(self.edges, block[-2:]))
        lead = (self.source, *block[:-2])
        refs = [[TaskRef((*lead, row, column)) for column, _ in columns] for row, _ in rows]
        cuts = [cut for _, cut in rows], [cut for _, cut in columns]
        key, blocks = (self.name, *block), List(*(List(*row) for row in refs))
        return {key: Task(key, around_block, blocks, cuts, (y, x), self.function)}


def reach(edges: np.ndarray, i: int, pixels: int) -> tuple[list[tuple[int, slice]], slice]:
    """Say which blocks of an axis block ``i`` reads, what part of each, and where it lies in what they make.

    Parameters
    ----------
    edges : (blocks + 1,) int array
        Where blocks begin and end.
    i : int
    pixels : int
        How far it looks.

    Examples
    --------
    >>> reach(np.array([0, 4, 8, 10]), 1, 1)
    ([(0, slice(3, 4, None)), (1, slice(0, 4, None)), (2, slice(0, 1, None))], slice(1, 5, None))
    """
    low, high = max(int(edges[i]) - pixels, 0), min(int(edges[i + 1]) + pixels, int(edges[-1]))
    found = []
    for other, (start, stop) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist())):
        if start < high and stop > low:
            found.append((other, slice(max(low, start) - start, min(high, stop) - start)))
    return found, slice(int(edges[i]) - low, int(edges[i + 1]) - low)


def around_block(
    blocks: list[list[np.ndarray]],
    cuts: tuple[list[slice], list[slice]],
    keep: tuple[slice, slice],
    function: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Join the parts of neighbouring blocks, apply a function, and cut out the block in the middle."""
    parts = [[block[..., y, x] for block, x in zip(row, cuts[1])] for row, y in zip(blocks, cuts[0])]
    joined = np.concatenate([np.concatenate(row, axis=-1) for row in parts], axis=-2)
    return np.ascontiguousarray(function(joined)[..., keep[0], keep[1]])


def around(function: Callable[[np.ndarray], np.ndarray], array: da.Array, pixels: int, dtype: Any) -> da.Array:
    """Apply a function to each chunk (..., y, x) with the pixels around it; one task a chunk.

    Parameters
    ----------
    function : callable
        Keeps the shape; must not look farther than ``pixels``. Outside the image there is nothing.
    array : Dask array (..., y, x)
    pixels : int
    dtype : dtype
        Of the result.

    Returns
    -------
    Dask array of the same shape and chunks
    """
    name = "around-" + tokenize(function, array.name, pixels)
    graph = HighLevelGraph.from_collections(name, Around(name, function, array, pixels), dependencies=[array])  # type: ignore[list-item]
    return da.Array(graph, name, chunks=array.chunks, meta=np.empty((0,) * array.ndim, dtype))


def without_band(image: xr.DataArray, data: Any) -> xr.DataArray:
    """Put an array where an image (..., y, x) is, without its band dimension.

    ``image.isel(band=0)`` would do, but plans a task for each chunk of the image, needed or not.
    """
    dims = tuple(dim for dim in image.dims if dim != "band")
    coords = {name: value for name, value in image.coords.items() if name != "band" and "band" not in value.dims}
    return xr.DataArray(data, dims=dims, coords=coords)
