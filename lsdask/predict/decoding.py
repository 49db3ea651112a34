"""What the tiles of a run read: pixels of the chunks they touch, counted without reading any."""

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import store, tiling
from lsdask.predict.jobs import Job
from lsdask.predict.sharing import SharedReader

Touched = tuple[np.ndarray, np.ndarray]
"""The first chunk that each tile of an axis touches, and the one after its last."""


def pixels_of(grid: tiling.Grid, tiles: np.ndarray) -> int:
    """Count the pixels of some tiles, (rows, columns) bool."""
    rows, columns = (_sizes(size, side) for size, side in zip(grid.shape, grid.tile))
    return int(rows @ tiles.astype("int64") @ columns)


def _sizes(size: int, side: int) -> np.ndarray:
    starts = np.arange(0, size, side)
    return np.minimum(starts + side, size) - starts


def decoded_of(described: Job, tiles: np.ndarray, processes: int) -> int:
    """Count the pixels of the chunks that some tiles touch: each once a strip; of several processes, once a tile."""
    grid, starts = described.grid, _starts(described.image)
    axes = [touched_axis(edges, size, side, grid.halo) for edges, size, side in zip(starts, grid.shape, grid.tile)]
    shared = processes == 1 and isinstance(described.kernel.reader, SharedReader)
    if not shared:
        rows, columns = (edges[last] - edges[first] for edges, (first, last) in zip(starts, axes))
        return int(rows @ tiles.astype("int64") @ columns)
    sides = [np.diff(edges) for edges in starts]
    strips = [slice(top, top + tiling.STRIP) for top in range(0, len(tiles), tiling.STRIP)]
    return sum(chunks_of(tiles[strip], (axes[0][0][strip], axes[0][1][strip]), axes[1], sides) for strip in strips)


def chunks_of(
    strip: np.ndarray,
    rows: tuple[np.ndarray, np.ndarray],
    columns: tuple[np.ndarray, np.ndarray],
    sides: list[np.ndarray],
) -> int:
    """Count the pixels of the chunks that tiles of one strip touch, each chunk once.

    Parameters
    ----------
    strip : (rows, columns) bool array
        The tiles.
    rows, columns : two int arrays each
        The first chunk of each tile, and the one after its last.
    sides : two int arrays
        Sides of the chunks, in pixels.
    """
    low = rows[0].min()
    touched = np.zeros((int(rows[1].max() - low), len(sides[1])), bool)
    for line, first, last in zip(strip, *rows):
        change = np.zeros(len(sides[1]) + 1, "int64")
        np.add.at(change, columns[0][line], 1)
        np.add.at(change, columns[1][line], -1)
        touched[first - low : last - low] |= np.cumsum(change)[:-1] > 0
    return int(sides[0][low : low + len(touched)] @ touched.astype("int64") @ sides[1])


def touched_axis(starts: np.ndarray, size: int, tile: int, halo: int) -> tuple[np.ndarray, np.ndarray]:
    """Say which chunks of an axis each tile touches with its halo.

    Parameters
    ----------
    starts : (chunks + 1,) int array
        Where chunks begin; the last is where the last one ends, which may lie beyond the image.
    size, tile, halo : int
        The axis, a tile and its halo, in pixels.

    Returns
    -------
    first, after : (tiles,) int arrays
        The first chunk, and the one after the last.

    Examples
    --------
    >>> [part.tolist() for part in touched_axis(np.array([0, 512, 1024]), 1024, 512, 64)]
    [[0, 0], [2, 2]]
    """
    begin = np.arange(0, size, tile)
    first = np.searchsorted(starts, np.maximum(begin - halo, 0), side="right") - 1
    return first, np.searchsorted(starts, np.minimum(begin + tile + halo, size), side="left")


def _starts(image: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Say where the chunks of an image begin on y and x: those stored, or those of its graph, or single pixels."""
    path = store.source(image)
    if path is not None:
        sides = store.array(path, name=str(image.name)).chunks[-2:]
        rows, columns = (side * np.arange(-(-size // side) + 1) for size, side in zip(image.shape[-2:], sides))
        return rows, columns
    if isinstance(image.data, da.Array):
        rows, columns = (np.cumsum([0, *sizes]) for sizes in image.data.chunks[-2:])
        return rows, columns
    return np.arange(image.shape[-2] + 1), np.arange(image.shape[-1] + 1)
