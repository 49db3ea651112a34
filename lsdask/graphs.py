"""Dask layers that make their tasks only when they are asked for.

A plan for a continent and a hundred dates is then as small as one for a village, and a window of it costs its own
tasks only.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import product
from operator import getitem
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask._task_spec import Alias, List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph, Layer

Key = tuple[Any, ...]
Node = Task | Alias
Part = tuple[str, tuple[int, ...], tuple[Any, ...]]


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
        self._held: tuple[Any, dict[Key, Node]] = (None, {})

    def tasks(self, block: tuple[int, ...]) -> dict[Key, Node]:
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

    def __getitem__(self, key: Any) -> Node:
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


class Taken(Chunked):
    """Parts of blocks of other arrays, one after the other on the first axis.

    ``places`` has for each of them the array, the first numbers of its block, and an index into the block; the empty
    index takes all of it, which costs nothing.
    """

    def __init__(self, name: str, counts: Sequence[int], places: Sequence[Part]) -> None:
        super().__init__(name, counts)
        self.places = places

    def tasks(self, block: tuple[int, ...]) -> dict[Key, Node]:
        source, lead, index = self.places[block[0]]
        key: Any = (self.name, *block)
        of: Any = (source, *lead, *block[1:])
        return {key: Task(key, getitem, TaskRef(of), index) if index else Alias(key, of)}


class Around(Chunked):
    """For each chunk (..., y, x), one task that gets the chunk with some pixels around it, cut at the image's edges."""

    def __init__(self, name: str, function: Callable[..., Any], array: da.Array, pixels: int) -> None:
        super().__init__(name, array.numblocks)
        self.function, self.source, self.pixels = function, array.name, pixels
        self.edges = [np.cumsum([0, *sizes]) for sizes in array.chunks[-2:]]

    def tasks(self, block: tuple[int, ...]) -> dict[Key, Node]:
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


def take(array: da.Array, numbers: Sequence[int] | np.ndarray) -> da.Array:
    """Choose steps of the first axis, as ``array[numbers]`` does; no task is made before a chunk is asked for.

    Parameters
    ----------
    array : Dask array
    numbers : sequence or array of int
        Which steps, in the order wanted; not negative.

    Returns
    -------
    Dask array
        One step a chunk on the first axis, the other axes as given.
    """
    starts = np.cumsum([0, *array.chunks[0]])
    places: list[Part] = []
    for number in numbers:
        block = int(np.searchsorted(starts, number, side="right")) - 1
        step = int(number - starts[block])
        places.append((array.name, (block,), () if array.chunks[0][block] == 1 else (slice(step, step + 1),)))
    return _taken([array], places, array.chunks[1:], array.ndim)


def stack(arrays: Sequence[da.Array]) -> da.Array:
    """Put arrays of the same chunks on a new first axis, as ``dask.array.stack`` does, but see ``take``."""
    return _taken(arrays, [(array.name, (), (None,)) for array in arrays], arrays[0].chunks, arrays[0].ndim + 1)


def _taken(arrays: Sequence[da.Array], places: Sequence[Part], chunks: tuple[Any, ...], ndim: int) -> da.Array:
    name = "taken-" + tokenize(places)
    layer = Taken(name, (len(places), *map(len, chunks)), places)
    graph = HighLevelGraph.from_collections(name, layer, dependencies=list(arrays))  # type: ignore[arg-type]
    meta = np.empty((0,) * ndim, arrays[0].dtype)
    return da.Array(graph, name, chunks=((1,) * len(places), *chunks), meta=meta)


def at_times(image: xr.DataArray, numbers: Sequence[int] | np.ndarray) -> xr.DataArray:
    """Choose dates of an image (time, ..., y, x), as ``image.isel(time=numbers)`` does, but see ``take``."""
    if not isinstance(image.data, da.Array) or image.dims[0] != "time":
        return image.isel(time=numbers)
    coords = image.coords.to_dataset().isel(time=numbers).coords
    made = xr.DataArray(take(image.data, numbers), coords, image.dims, image.name, image.attrs)
    made.encoding = image.encoding
    return made


def without_band(image: xr.DataArray, data: Any) -> xr.DataArray:
    """Put an array where an image (..., y, x) is, without its band dimension.

    ``image.isel(band=0)`` would do, but plans a task for each chunk of the image, needed or not.
    """
    dims = tuple(dim for dim in image.dims if dim != "band")
    coords = {name: value for name, value in image.coords.items() if name != "band" and "band" not in value.dims}
    return xr.DataArray(data, dims=dims, coords=coords)
