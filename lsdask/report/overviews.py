"""Small images of large ones, made chunk by chunk: a figure of a continent needs the memory of a figure."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import batched, product
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import schema, store

SIDE = 1200
"""Longest side of an overview, in its own pixels."""

NEAR = 512
"""Side of what is read at once where cells are smaller, in pixels: about that of a stored chunk."""


def step_of(shape: Sequence[int], side: int = SIDE) -> int:
    """Give how many pixels of an image a pixel of its overview spans, on both axes.

    Beyond four it is a multiple of four, so that a mean can be taken of every few pixels (see :func:`overview`).

    Examples
    --------
    >>> step_of((3000, 2401)), step_of((1200 * 17, 100))
    (3, 20)
    """
    least = max(-(-max(shape) // side), 1)
    return least if least <= 4 else -(-least // 4) * 4


def overview(image: xr.DataArray, how: str, *, side: int = SIDE) -> np.ndarray:
    """Shrink an image to at most ``side`` pixels, chunk by chunk.

    Parameters
    ----------
    image : DataArray (..., y, x)
        Lazy or not.
    how : {"mean", "max", "sum", "first"}
        What a pixel shows of the square it spans: the mean of the known pixels (float32, NaN if there is none; of
        4 x 4 evenly spaced ones where it spans more); the greatest known one (uint8, 255 unknown), so that thin
        landslides do not vanish; the sum (int64); or the upper left one.
    side : int
        Longest side of the result.

    Returns
    -------
    (..., y, x) array, ceil(size / step_of(...)) pixels on each axis
    """
    step = step_of(image.shape[-2:], side)
    stride = {"first": step, "mean": max(step // 4, 1)}.get(how, 1)
    image = image[..., ::stride, ::stride]
    step //= stride
    if how == "first":
        return np.asarray(image.values)
    whole = image.chunk({dim: step * max(2048 // step, 1) for dim in ("y", "x")}).data
    dtype = {"mean": "float32", "sum": "int64"}.get(how, image.dtype)
    small = tuple(tuple(-(-n // step) for n in sizes) for sizes in whole.chunks[-2:])
    known = {"nodata": schema.nodata(image)} if how == "mean" else {}
    block = {"mean": mean_block, "max": max_block, "sum": sum_block}[how]
    chunks = (*whole.chunks[:-2], *small)
    return np.asarray(da.map_blocks(block, whole, step=step, chunks=chunks, dtype=dtype, **known).compute())


def mean_block(data: np.ndarray, *, step: int, nodata: float | int | None) -> np.ndarray:
    """Shrink by the mean of the known pixels: (..., y, x) of any dtype to float32, NaN where none is known."""
    known = schema.known_block(data, nodata)
    total = _squares(np.where(known, data, 0).astype("float32"), step, 0).sum(axis=(-3, -1))
    count = _squares(known, step, False).sum(axis=(-3, -1))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def max_block(data: np.ndarray, *, step: int) -> np.ndarray:
    """Shrink by the greatest known pixel: (..., y, x) uint8, 255 unknown."""
    # One more, modulo 256, makes unknown the least: 255 -> 0.
    return _squares(data + np.uint8(1), step, 0).max(axis=(-3, -1)) - np.uint8(1)


def sum_block(data: np.ndarray, *, step: int) -> np.ndarray:
    """Shrink by the sum: (..., y, x) bool or integer to int64."""
    return _squares(data, step, 0).sum(axis=(-3, -1), dtype="int64")


def _squares(data: np.ndarray, step: int, fill: Any) -> np.ndarray:
    """Cut the last two axes in squares, (..., y, step, x, step), filled up at the lower and right edge."""
    height, width = data.shape[-2:]
    short = [(0, 0)] * (data.ndim - 2) + [(0, -height % step), (0, -width % step)]
    full = np.pad(data, short, constant_values=fill)
    return full.reshape(*data.shape[:-2], -(-height // step), step, -(-width // step), step)


def coverage(image: xr.DataArray, *, columns: int = 64, window: int = 64) -> np.ndarray:
    """Say how much of an image holds data, cell by cell, from a small window in the middle of each cell.

    Only these windows are read, straight from the store, so a continent takes seconds. Of small images, whose cells
    share chunks, all is read, and not a chunk for each of its cells.

    Parameters
    ----------
    image : DataArray (..., y, x)
        Lazy or not.
    columns : int
        Cells on x, at most; those on y follow, as cells are square.
    window : int
        Side of the windows, in pixels.

    Returns
    -------
    (rows, columns) float32 array
        Share of pixels with data in every layer, 0 to 1.

    Raises
    ------
    Unreadable
        If a window cannot be read.
    """
    reader, nodata = store.reader(image), schema.nodata(image)
    cell = -(-image.shape[-1] // columns)
    together = max(NEAR // cell, 1)
    parts = [list(batched(_middles(size, cell, window), together)) for size in image.shape[-2:]]

    def share(part: tuple[Sequence[slice], Sequence[slice]]) -> np.ndarray:
        (y0, y1), (x0, x1) = ((places[0].start, places[-1].stop) for places in part)
        known = schema.known_block(reader.read(slice(y0, y1), slice(x0, x1)), nodata)
        known = known.all(axis=tuple(range(known.ndim - 2)))
        rows, columns = part
        return np.array([[known[_moved(y, y0), _moved(x, x0)].mean() for x in columns] for y in rows], "float32")

    with ThreadPoolExecutor() as pool:
        shares = pool.map(share, product(*parts))
        return np.block([[next(shares) for _ in parts[1]] for _ in parts[0]])


def _moved(place: slice, by: int) -> slice:
    return slice(place.start - by, place.stop - by)


def _middles(size: int, cell: int, window: int) -> list[slice]:
    """Give the middle of each cell of an axis."""
    starts = range(0, size, cell)
    ends = [min(start + cell, size) for start in starts]
    skips = [max(end - start - window, 0) // 2 for start, end in zip(starts, ends)]
    return [slice(start + skip, min(start + skip + window, end)) for start, end, skip in zip(starts, ends, skips)]
