"""What tiles hold: pixels with data, landslides and clusters, counted chunk by chunk."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from lsdask import schema
from lsdask.compiling import njit
from lsdask.errors import BadInput, sentence
from lsdask.sampling.tables import check, check_inside, shape_of, windows_of

CHUNK = 2048
"""Chunks that an image in memory is counted in, in pixels."""

FALSE_ALARM, MISSED = 2, 3
"""What ``evaluate.agreement`` holds where scores are wrong."""


def describe(
    tiles: pd.DataFrame,
    *,
    mask: xr.DataArray | None = None,
    valid: xr.DataArray | None = None,
    labels: xr.DataArray | None = None,
    agreement: xr.DataArray | None = None,
) -> pd.DataFrame:
    """Add what the tiles hold: shares of pixels that are valid, landslide or wrongly scored, and the commonest cluster.

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
    agreement : DataArray (y, x) uint8, optional
        Where a score map is right and wrong, as ``evaluate.agreement(scores, mask)`` says; gives the columns
        ``false_alarm`` and ``missed``.

    Returns
    -------
    DataFrame
        The tiles with the new columns.

    Raises
    ------
    BadInput
        If no layer is given, layers differ in shape or grid, a tile lies outside them, or a layer holds values that
        stand for nothing.
    """
    layers = layers_of(mask, valid, labels, agreement)
    check(tiles)
    check_inside(tiles, shape_of(next(iter(layers.values()))))
    counts = count(windows_of(tiles), layers)
    return tiles.assign(**finish(counts, tiles["size"].to_numpy(), tuple(layers)))


class Counts(NamedTuple):
    """Pixels a tile, int64.

    Attributes
    ----------
    valid, known, positive : (tile,) arrays
        With data, with a known mask, landslide.
    scored, false_alarm, missed : (tile,) arrays
        Of known agreement, scored as landslide wrongly, landslide scored as none.
    labels : (tile, label) array
        Of each label.
    """

    valid: np.ndarray
    known: np.ndarray
    positive: np.ndarray
    scored: np.ndarray
    false_alarm: np.ndarray
    missed: np.ndarray
    labels: np.ndarray

    def take(self, rows: Any) -> "Counts":
        """Give the counts of some tiles."""
        return Counts(*(part[rows] for part in self))

    @classmethod
    def zeros(cls, n: int) -> "Counts":
        """Give the counts of ``n`` tiles of which nothing is read yet."""
        valid, known, positive, scored, false_alarm, missed = np.zeros((6, n), dtype="int64")
        return cls(valid, known, positive, scored, false_alarm, missed, np.zeros((n, 0), dtype="int32"))

    def plus(self, rows: Any, more: "Counts") -> "Counts":
        """Add the counts of some tiles, none of them twice; these arrays take the sums, and are spent."""
        wide = more.labels.shape[1] - self.labels.shape[1]
        sums = self if wide <= 0 else self._replace(labels=np.pad(self.labels, ((0, 0), (0, wide))))
        for total, part in zip(sums[:-1], more[:-1]):
            total[rows] += part
        sums.labels[rows, : more.labels.shape[1]] += more.labels
        return sums


def count_block(
    windows: np.ndarray,
    mask: np.ndarray | None = None,
    valid: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    agreement: np.ndarray | None = None,
) -> Counts:
    """Count the pixels of windows of one chunk (the partial of ``describe``).

    Parameters
    ----------
    windows : (tile, 4) int array
        y0, x0, y1, x1 in the chunk, half open.
    mask, valid, labels, agreement : (y, x) arrays or None
        bool for ``valid``, uint8 for the others.

    Returns
    -------
    Counts
        A count is 0 where its layer is not given.
    """
    seen = True if valid is None else valid
    known, positive = _shares(windows, mask, check_mask_block, seen, (1,))
    scored, false_alarm, missed = _shares(windows, agreement, _check_agreement_block, seen, (FALSE_ALARM, MISSED))
    data = np.zeros(len(windows), dtype="int64") if valid is None else _window_sums(valid, windows)
    return Counts(data, known, positive, scored, false_alarm, missed, _label_sums(labels, windows))


def _shares(
    windows: np.ndarray, layer: np.ndarray | None, check_block: Any, seen: Any, values: Sequence[int]
) -> list[np.ndarray]:
    """Count the seen pixels of windows where a layer is known, and those where it holds each of some values."""
    if layer is None:
        return [np.zeros(len(windows), dtype="int64")] * (1 + len(values))
    check_block(layer)
    where = [layer != schema.UNKNOWN, *(layer == value for value in values)]
    return [_window_sums(pixels & seen, windows) for pixels in where]


def check_mask_block(mask: np.ndarray) -> None:
    """Raise BadInput if a mask holds anything but 0, 1 and 255."""
    other = (mask > 1) & (mask != schema.UNKNOWN)
    if other.any():
        raise BadInput(sentence("mask", "hold 1 (landslide), 0 (not) and 255 (unknown)", str(mask[other][0])))


def _check_agreement_block(agreement: np.ndarray) -> None:
    other = (agreement > MISSED) & (agreement != schema.UNKNOWN)
    if other.any():
        rule, do = "hold 0 to 3 and 255 (unknown)", "Make it with evaluate.agreement"
        raise BadInput(sentence("agreement", rule, str(agreement[other][0]), do))


def finish(counts: Counts, size: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """Turn summed counts into the columns of the layers that were given.

    Parameters
    ----------
    counts : Counts
    size : (tile,) int array
        Sides, in pixels.
    layers : sequence of str
        Those of "mask", "valid", "labels", "agreement" that were counted.

    Returns
    -------
    dict of (tile,) arrays
    """
    columns: dict[str, np.ndarray] = {}
    if "valid" in layers:
        columns["valid"] = counts.valid / size.astype("float64") ** 2
    if "mask" in layers:
        columns["positive"] = _ratio(counts.positive, counts.known)
    if "labels" in layers:
        first = counts.labels.argmax(axis=1) if counts.labels.shape[1] else np.zeros(len(size), dtype="int64")
        columns["cluster"] = np.where(counts.labels.sum(axis=1) > 0, first, schema.UNKNOWN).astype("uint8")
    if "agreement" in layers:
        columns["false_alarm"] = _ratio(counts.false_alarm, counts.scored)
        columns["missed"] = _ratio(counts.missed, counts.scored)
    return columns


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def layers_of(
    mask: xr.DataArray | None,
    valid: xr.DataArray | None,
    labels: xr.DataArray | None,
    agreement: xr.DataArray | None,
) -> dict[str, xr.DataArray]:
    """Check the layers and give those there are, each (y, x)."""
    if valid is not None and (valid.dtype != bool or "band" in valid.dims):
        valid = schema.valid(valid)
    given = {"valid": valid, "mask": mask, "labels": labels, "agreement": agreement}
    layers = {name: layer for name, layer in given.items() if layer is not None}
    if not layers:
        raise BadInput(sentence("the layers", f"be at least one of {', '.join(given)}", "none"))
    for name, layer in layers.items():
        schema.check(layer, schema.MASK, name)
        if name != "valid" and layer.dtype != np.uint8:
            raise BadInput(sentence(name, "be uint8", str(layer.dtype), f"Use {name}.astype('uint8')"))
    shapes = {name: layer.shape for name, layer in layers.items()}
    if len(set(shapes.values())) > 1:
        raise BadInput(sentence("the layers", "have one shape", str(shapes)))
    check_grids(layers)
    return layers


def check_grids(layers: Mapping[str, xr.DataArray]) -> None:
    """Raise BadInput unless the layers that have a grid have one."""
    placed = [(name, layer) for name, layer in layers.items() if "spatial_ref" in layer.coords]
    for name, layer in placed[1:]:
        schema.on_grid(layer, placed[0][1], name, placed[0][0])


def count(windows: np.ndarray, layers: Mapping[str, xr.DataArray]) -> Counts:
    """Count chunk by chunk and sum over the chunks that a tile touches."""
    arrays = [lazy(layer).data for layer in layers.values()]
    chunks, arrays = da.core.unify_chunks(*(part for array in arrays for part in (array, "yx")))
    edges = [np.cumsum((0, *chunks[dim])) for dim in "yx"]
    blocks = [array.to_delayed() for array in arrays]
    counting = dask.delayed(count_block, pure=False)
    members, partials = [], []
    for place, rows, near in _by_chunk(windows, *edges):
        partials.append(counting(near, **dict(zip(layers, (block[place] for block in blocks)))))
        members.append(rows)
    total = Counts.zeros(len(windows))
    for rows, partial in zip(members, dask.compute(*partials)):
        total = total.plus(rows, partial)
    return total


def lazy(layer: xr.DataArray) -> xr.DataArray:
    """Give a layer as chunks."""
    return layer if layer.chunks else layer.chunk(CHUNK)


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
