"""What tiles hold: pixels with data, landslides and clusters, counted chunk by chunk."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from numba import njit

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.sampling.tables import check, check_inside, shape_of, windows_of

CHUNK = 2048
"""Chunks that an image in memory is counted in, in pixels."""


def describe(
    tiles: pd.DataFrame,
    *,
    mask: xr.DataArray | None = None,
    valid: xr.DataArray | None = None,
    labels: xr.DataArray | None = None,
) -> pd.DataFrame:
    """Add what the tiles hold: the share of valid pixels, of positive pixels, and the commonest cluster.

    The layers are read chunk by chunk, each chunk once; a tile's counts are sums over the chunks it touches.

    Parameters
    ----------
    tiles : DataFrame
        A tile index.
    mask : DataArray (y, x) uint8, optional
        1 landslide, 0 not, 255 unknown; gives the column ``positive``.
    valid : DataArray (y, x) bool or (band, y, x), optional
        ``schema.valid(image)``, or the image itself; gives the column ``valid``.
    labels : DataArray (y, x) uint8, optional
        Cluster ids, 255 unknown; gives the column ``cluster``.

    Returns
    -------
    DataFrame
        The tiles with the new columns.

    Raises
    ------
    BadInput
        If no layer is given, layers differ in shape, a tile lies outside them, or the mask holds other values.
    """
    layers = _layers(mask, valid, labels)
    check(tiles)
    check_inside(tiles, shape_of(next(iter(layers.values()))))
    return tiles.assign(**finish(_counts(tiles, layers), tiles["size"].to_numpy(), tuple(layers)))


class Counts(NamedTuple):
    """Pixels a tile, int64: with data, with a known mask, positive, and of each label (tile, label)."""

    valid: np.ndarray
    known: np.ndarray
    positive: np.ndarray
    labels: np.ndarray


def count_block(
    windows: np.ndarray, mask: np.ndarray | None, valid: np.ndarray | None, labels: np.ndarray | None
) -> Counts:
    """Count the pixels of windows of one chunk (the partial of ``describe``).

    Parameters
    ----------
    windows : (tile, 4) int array
        y0, x0, y1, x1 in the chunk, half open.
    mask, valid, labels : (y, x) arrays or None
        uint8, bool and uint8.

    Returns
    -------
    Counts
        A count is 0 where its layer is not given.
    """
    zero = np.zeros(len(windows), dtype="int64")
    known = positive = zero
    if mask is not None:
        check_mask_block(mask)
        seen = True if valid is None else valid
        known = _window_sums((mask != schema.UNKNOWN) & seen, windows)
        positive = _window_sums((mask == 1) & seen, windows)
    return Counts(
        zero if valid is None else _window_sums(valid, windows), known, positive, _label_sums(labels, windows)
    )


def check_mask_block(mask: np.ndarray) -> None:
    """Raise BadInput if a mask holds anything but 0, 1 and 255."""
    other = (mask > 1) & (mask != schema.UNKNOWN)
    if other.any():
        raise BadInput(sentence("mask", "hold 1 (landslide), 0 (not) and 255 (unknown)", str(mask[other][0])))


def finish(counts: Counts, size: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """Turn summed counts into the columns of the layers that were given.

    Parameters
    ----------
    counts : Counts
    size : (tile,) int array
        Sides, in pixels.
    layers : sequence of str
        Those of "mask", "valid", "labels" that were counted.

    Returns
    -------
    dict of (tile,) arrays
    """
    columns: dict[str, np.ndarray] = {}
    if "valid" in layers:
        columns["valid"] = counts.valid / size.astype("float64") ** 2
    if "mask" in layers:
        share = np.full(len(size), np.nan)
        columns["positive"] = np.divide(counts.positive, counts.known, out=share, where=counts.known > 0)
    if "labels" in layers:
        first = counts.labels.argmax(axis=1) if counts.labels.shape[1] else np.zeros(len(size), dtype="int64")
        columns["cluster"] = np.where(counts.labels.sum(axis=1) > 0, first, schema.UNKNOWN).astype("uint8")
    return columns


def _layers(
    mask: xr.DataArray | None, valid: xr.DataArray | None, labels: xr.DataArray | None
) -> dict[str, xr.DataArray]:
    """Check the layers and give those there are, each (y, x)."""
    if valid is not None and (valid.dtype != bool or "band" in valid.dims):
        valid = schema.valid(valid)
    given = {"mask": mask, "valid": valid, "labels": labels}
    layers = {name: layer for name, layer in given.items() if layer is not None}
    if not layers:
        raise BadInput(sentence("describe", "get at least one of mask, valid, labels", "none"))
    for name, layer in layers.items():
        schema.check(layer, schema.MASK, name)
        if name != "valid" and layer.dtype != np.uint8:
            raise BadInput(sentence(name, "be uint8", str(layer.dtype), f"Use {name}.astype('uint8')"))
    shapes = {name: layer.shape for name, layer in layers.items()}
    if len(set(shapes.values())) > 1:
        raise BadInput(sentence("the layers", "have one shape", str(shapes)))
    return layers


def _counts(tiles: pd.DataFrame, layers: dict[str, xr.DataArray]) -> Counts:
    """Count chunk by chunk and sum over the chunks that a tile touches."""
    arrays = [(layer if layer.chunks else layer.chunk(CHUNK)).data for layer in layers.values()]
    chunks, arrays = da.core.unify_chunks(*(part for array in arrays for part in (array, "yx")))
    edges = [np.cumsum((0, *chunks[dim])) for dim in "yx"]
    blocks = [array.to_delayed() for array in arrays]
    count = dask.delayed(count_block, pure=False)
    members, partials = [], []
    for place, rows, windows in _by_chunk(windows_of(tiles), *edges):
        given = dict(zip(layers, (block[place] for block in blocks)))
        partials.append(count(windows, *(given.get(name) for name in ("mask", "valid", "labels"))))
        members.append(rows)
    return _merge(len(tiles), members, dask.compute(*partials))


def _by_chunk(windows: np.ndarray, y_edges: np.ndarray, x_edges: np.ndarray) -> Iterator[tuple[Any, Any, Any]]:
    """Give, chunk by chunk, its place, the tiles that touch it, and their windows in it."""
    first = [np.searchsorted(edges, windows[:, i], "right") - 1 for i, edges in enumerate((y_edges, x_edges))]
    last = [np.searchsorted(edges, windows[:, i + 2], "left") - 1 for i, edges in enumerate((y_edges, x_edges))]
    rows, places = touched(first, last, len(x_edges) - 1)
    cuts = np.flatnonzero(np.diff(places, prepend=-1))
    for members, place in zip(np.split(rows, cuts[1:]), places[cuts]):
        i, j = divmod(int(place), len(x_edges) - 1)
        low, high = (y_edges[i], x_edges[j]), (y_edges[i + 1], x_edges[j + 1])
        near = np.clip(windows[members], [*low, *low], [*high, *high]) - [*low, *low]
        yield (i, j), members, near


def touched(first: Sequence[np.ndarray], last: Sequence[np.ndarray], columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Pair tiles with the cells they touch.

    Parameters
    ----------
    first, last : two (tile,) int arrays
        The first and last cell that a tile touches, on y and on x.
    columns : int
        Cells in a row.

    Returns
    -------
    tile, cell : two (pair,) int64 arrays
        Sorted by cell, then tile; a cell is ``row * columns + column``.
    """
    tile: list[np.ndarray] = []
    cell: list[np.ndarray] = []
    for dy in range(int((last[0] - first[0]).max()) + 1):
        for dx in range(int((last[1] - first[1]).max()) + 1):
            there = np.flatnonzero((first[0] + dy <= last[0]) & (first[1] + dx <= last[1]))
            tile.append(there)
            cell.append((first[0][there] + dy) * columns + first[1][there] + dx)
    tiles, cells = np.concatenate(tile), np.concatenate(cell)
    order = np.lexsort((tiles, cells))
    return tiles[order], cells[order]


def _merge(n: int, members: Sequence[np.ndarray], partials: Sequence[Counts]) -> Counts:
    """Sum the counts of chunks; no tile is twice in one chunk's members."""
    width = max(partial.labels.shape[1] for partial in partials)
    valid, known, positive = np.zeros((3, n), dtype="int64")
    labels = np.zeros((n, width), dtype="int32")
    for rows, partial in zip(members, partials):
        valid[rows] += partial.valid
        known[rows] += partial.known
        positive[rows] += partial.positive
        labels[rows, : partial.labels.shape[1]] += partial.labels
    return Counts(valid, known, positive, labels)


def _window_sums(where: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Count the True pixels of windows with a summed-area table (Crow 1984), whatever they overlap."""
    area = _summed_area(where)
    y0, x0, y1, x1 = windows.T
    return (area[y1, x1] - area[y0, x1] - area[y1, x0] + area[y0, x0]).astype("int64")


@njit(cache=True, nogil=True)
def _summed_area(where: np.ndarray) -> np.ndarray:
    area = np.zeros((where.shape[0] + 1, where.shape[1] + 1), dtype=np.int32)
    for y in range(where.shape[0]):
        row = np.int32(0)
        for x in range(where.shape[1]):
            row += where[y, x]
            area[y + 1, x + 1] = area[y, x + 1] + row
    return area


def _label_sums(labels: np.ndarray | None, windows: np.ndarray) -> np.ndarray:
    """Count every label's pixels of windows: (tile, label) int32, as wide as the highest label needs."""
    if labels is None:
        return np.zeros((len(windows), 0), dtype="int32")
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=schema.UNKNOWN + 1)[: schema.UNKNOWN])
    return _count_labels(labels, windows, int(present.max()) + 1 if len(present) else 0)


@njit(cache=True, nogil=True)
def _count_labels(labels: np.ndarray, windows: np.ndarray, width: int) -> np.ndarray:
    counts = np.zeros((len(windows), width), dtype=np.int32)
    for tile in range(len(windows)):
        y0, x0, y1, x1 = windows[tile]
        for y in range(y0, y1):
            for x in range(x0, x1):
                label = labels[y, x]
                if label < width:  # 255 is unknown, and no label is higher than the highest
                    counts[tile, label] += 1
    return counts
