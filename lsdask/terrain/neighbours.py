"""Blocks of a DEM with their neighbours: one task a chunk, whatever the chunks."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr
from dask._task_spec import List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.graphs import Chunked, Key, Node
from lsdask.terrain.ground import Ground, ground_of, sizes_block

Edge = Literal["void", "extrapolate"]

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From a block (y + 2, x + 2) and the sizes of its inner pixels (2, y) to a float32 array (..., y, x)."""

BEFORE, WHOLE, AFTER = slice(-1, None), slice(None), slice(0, 1)
"""What a block takes of the chunk before it, its own, and the one after it."""


def check_dem(dem: Any) -> None:
    """Raise BadInput unless ``dem`` holds numbers on (y, x)."""
    schema.check(dem, schema.MASK, "dem")
    if dem.dtype.kind not in "iuf":
        raise BadInput(sentence("dem", "hold whole or real numbers, metres", f"dtype={dem.dtype}"))


def derive(dem: xr.DataArray, kernel: Kernel, *, edge: Edge, leading: tuple[int, ...] = ()) -> Any:
    """Apply a kernel to a DEM, every pixel seeing its 3 x 3 neighbours.

    Parameters
    ----------
    dem : DataArray (y, x)
        Metres; integers are void where they hold ``_FillValue``.
    kernel : callable
        Picklable.
    edge : {"void", "extrapolate"}
        What stands beyond the image.
    leading : tuple of int
        Sizes of the axes that the kernel puts before (y, x).

    Returns
    -------
    numpy or Dask array (..., y, x) float32
        In the DEM's chunks, the leading axes whole.

    Raises
    ------
    BadInput
        If the DEM has other dims, no numbers or no grid, or is too small to be continued.
    """
    check_dem(dem)
    if edge not in get_args(Edge):
        raise BadInput(sentence("edge", "be 'void' or 'extrapolate'", f"edge={edge!r}"))
    if edge == "extrapolate" and min(dem.shape) < 2:
        raise BadInput(sentence("dem", "have two or more rows and columns to be continued beyond", str(dem.shape)))
    given = schema.nodata(dem), edge, ground_of(schema.geobox(dem, "dem")), kernel
    if isinstance(dem.data, da.Array):
        return _lazy(dem.data, leading, given)
    return chunk_block([[dem.values]], ([WHOLE], [WHOLE]), (0, dem.shape[0]), *given)


def _lazy(data: Any, leading: tuple[int, ...], given: tuple[Any, ...]) -> da.Array:
    data = data.rechunk(tuple(tuple(size for size in axis if size) for axis in data.chunks))
    name = "terrain-" + tokenize(data.name, leading, *given)
    layers = HighLevelGraph.from_collections(name, Nine(name, data, leading, given), dependencies=[data])
    chunks = (*((size,) for size in leading), *data.chunks)
    return da.Array(layers, name, chunks=chunks, meta=np.empty((0,) * len(chunks), "float32"))


class Nine(Chunked):
    """For each chunk (y, x) of a DEM one task, which takes of the nine chunks around it what it needs.

    ``map_overlap`` takes 14 tasks a chunk, and joins chunks thinner than the overlap.
    """

    def __init__(self, name: str, data: da.Array, leading: tuple[int, ...], given: tuple[Any, ...]) -> None:
        super().__init__(name, (*(1 for _ in leading), *data.numblocks))
        self.source, self.numblocks, self.given = data.name, data.numblocks, given
        self.starts = np.cumsum([0, *data.chunks[0]]).tolist()

    def tasks(self, block: tuple[int, ...]) -> dict[Key, Node]:
        (rows, y), (columns, x) = (_around(i, count) for i, count in zip(block[-2:], self.numblocks))
        nine = List(*(List(*(TaskRef((self.source, i, j)) for j in columns)) for i in rows))
        key, window = (self.name, *block), (self.starts[block[-2]], self.starts[block[-2] + 1])
        return {key: Task(key, chunk_block, nine, (y, x), window, *self.given)}


def _around(i: int, count: int) -> tuple[list[int], list[slice]]:
    """Give the chunks of an axis that chunk ``i`` looks at, and what it takes of each."""
    found = [(j, cut) for j, cut in ((i - 1, BEFORE), (i, WHOLE), (i + 1, AFTER)) if 0 <= j < count]
    return [j for j, _ in found], [cut for _, cut in found]


def chunk_block(
    chunks: list[list[np.ndarray]],
    cuts: tuple[list[slice], list[slice]],
    rows: tuple[int, int],
    nodata: float | int | None,
    edge: Edge,
    ground: Ground,
    kernel: Kernel,
) -> np.ndarray:
    """Apply a kernel to one chunk of a DEM.

    Parameters
    ----------
    chunks : list of lists of (y, x) arrays
        The chunk and its neighbours, as stored.
    cuts : (list of slice, list of slice)
        What is taken of each, on y and on x.
    rows : (int, int)
        Where the chunk begins and ends on y.
    nodata, edge, ground, kernel
        As in ``derive``.

    Returns
    -------
    (..., y, x) float32 array
    """
    parts = [[chunk[y, x] for chunk, x in zip(row, cuts[1])] for row, y in zip(chunks, cuts[0])]
    block = heights_block(np.block(parts) if len(parts) * len(parts[0]) > 1 else parts[0][0], nodata)
    beyond = [(cut[0] is not BEFORE, cut[-1] is not AFTER) for cut in cuts]
    return kernel(pad_block(block, beyond, edge), sizes_block(ground, *rows))


def heights_block(block: np.ndarray, nodata: float | int | None) -> np.ndarray:
    """Turn heights as stored into floats that hold them exactly: NaN where void or infinite.

    Parameters
    ----------
    block : (y, x) array
    nodata : float, int or None

    Returns
    -------
    (y, x) float32 or float64 array
    """
    kept = np.result_type(block.dtype, "float32")
    known = schema.known_block(block, nodata) & np.isfinite(block)
    return np.where(known, block, np.nan).astype(kept)


def pad_block(block: np.ndarray, beyond: list[tuple[bool, bool]], edge: Edge) -> np.ndarray:
    """Add a ring of one pixel where a block ends at the image's border.

    Parameters
    ----------
    block : (y, x) float array
    beyond : list of (bool, bool)
        For y and x: whether to add before and after.
    edge : {"void", "extrapolate"}
        NaN, or the straight line through the two nearest pixels, which is exact on planes, corners too.

    Returns
    -------
    (y, x) float array
    """
    if edge == "void":
        block = np.pad(block, [(int(before), int(after)) for before, after in beyond], constant_values=np.nan)
        return np.ascontiguousarray(block)
    for axis, (before, after) in enumerate(beyond):
        lines = np.moveaxis(block, axis, 0)
        first, last = lines[:1] * 2 - lines[1:2], lines[-1:] * 2 - lines[-2:-1]
        block = np.moveaxis(np.concatenate([first[: int(before)], lines, last[: int(after)]]), 0, axis)
    return np.ascontiguousarray(block)
