"""Which tiles of an image to learn from: a table with one row a tile.

A tile index is a ``pandas.DataFrame``; each function takes one and gives a new one.

========  =======  ==========================================================================================
column    dtype    meaning
========  =======  ==========================================================================================
y, x      int64    the tile's top-left pixel in the image
size      int64    side of the tile, in pixels
valid     float64  share of the tile's pixels that have data, 0 to 1 (``describe``)
positive  float64  share of the tile's known pixels that are landslide, 0 to 1; NaN if none is known (``describe``)
cluster   uint8    the commonest label, the lowest of equals; 255 if none is known (``describe``)
split     object   "train", "valid", "test", or "none" for tiles that belong to no side (``split``, ``as_split``)
fold      int64    0 up, or -1 for tiles that belong to no fold (``folds``)
========  =======  ==========================================================================================

A pixel is known where the mask is 0 or 1 and, if validity is given, the image has data.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import dask
import dask.array as da
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from numba import njit

from lsdask import schema
from lsdask.errors import BadInput, sentence

SPLITS = ("train", "valid", "test")
NONE = "none"
Balance = Literal["smallest", "mean", "oversample"]
"""How groups of tiles are made to weigh alike."""

SMALLER = "Pass a smaller block or buffer, or more tiles"
MADE_BY = {"valid": "describe", "positive": "describe", "cluster": "describe", "split": "split", "fold": "folds"}
CHUNK = 2048
"""Chunks that an image in memory is counted in, in pixels."""


def grid(image: xr.DataArray, size: int, *, overlap: float = 0.0) -> pd.DataFrame:
    """Cover an image with whole tiles at even steps; the last of a row or column is shifted back inside the image.

    Parameters
    ----------
    image : DataArray (..., y, x)
        Only its shape is used.
    size : int
        Side of a tile, in pixels.
    overlap : float
        Share of a tile's side that it has in common with the next, from 0 to below 1; the step is rounded to
        a whole pixel.

    Returns
    -------
    DataFrame with columns y, x, size
        Row by row; every pixel of the image is in a tile.

    Raises
    ------
    BadInput
        If the image is smaller than a tile, or the overlap not in [0, 1).

    Examples
    --------
    >>> image = xr.DataArray(np.zeros((4, 100, 70)), dims=("band", "y", "x"))
    >>> grid(image, 64)[["y", "x"]].values.tolist()
    [[0, 0], [0, 6], [36, 0], [36, 6]]
    """
    if not 0 <= overlap < 1:
        raise BadInput(sentence("overlap", "be a share of the tile's side, from 0 to below 1", f"overlap={overlap}"))
    height, width = _shape(image, size)
    step = max(1, round(size * (1 - overlap)))
    y, x = np.meshgrid(_starts(height, size, step), _starts(width, size, step), indexing="ij")
    return table(y.ravel(), x.ravel(), size)


def random(image: xr.DataArray, size: int, n: int, *, seed: int) -> pd.DataFrame:
    """Draw tiles anywhere in an image, each place as likely as any other.

    Parameters
    ----------
    image : DataArray (..., y, x)
        Only its shape is used.
    size : int
        Side of a tile, in pixels.
    n : int
        How many; they may overlap, or rarely be the same.
    seed : int
        The same seed gives the same tiles.

    Returns
    -------
    DataFrame with columns y, x, size

    Raises
    ------
    BadInput
        If the image is smaller than a tile, or ``n`` is not positive.
    """
    height, width = _shape(image, size)
    if n < 1:
        raise BadInput(sentence("n", "be at least 1", f"n={n}"))
    draw = np.random.default_rng([seed, 0])
    return table(draw.integers(0, height - size + 1, n), draw.integers(0, width - size + 1, n), size)


def table(y: Any, x: Any, size: int) -> pd.DataFrame:
    """Make a tile index of top-left pixels and one side."""
    y, x = np.asarray(y, dtype="int64"), np.asarray(x, dtype="int64")
    return pd.DataFrame({"y": y, "x": x, "size": np.full(len(y), size, dtype="int64")})


def check(tiles: pd.DataFrame, *columns: str, name: str = "tiles") -> None:
    """Raise BadInput unless a tile index has rows, the columns y, x and size, and those named."""
    if not isinstance(tiles, pd.DataFrame):
        raise BadInput(sentence(name, "be a DataFrame with columns y, x, size", f"a {type(tiles).__name__}"))
    missing = [column for column in ("y", "x", "size", *columns) if column not in tiles]
    if missing:
        how = MADE_BY.get(missing[0])
        do = f"Make it with sampling.{how}" if how else ""
        raise BadInput(sentence(name, f"have the column {missing[0]!r}", f"columns {list(tiles.columns)}", do))
    if tiles.empty:
        raise BadInput(sentence(name, "hold at least one tile", "an empty tile index", "Loosen what selected them"))


def check_inside(tiles: pd.DataFrame, shape: tuple[int, int]) -> None:
    """Raise BadInput unless every tile lies in an image of ``shape`` (y, x)."""
    y, x, size = (tiles[column].to_numpy() for column in ("y", "x", "size"))
    outside = (y < 0) | (x < 0) | (size < 1) | (y + size > shape[0]) | (x + size > shape[1])
    if outside.any():
        got = _name(tiles, int(np.argmax(outside)))
        raise BadInput(sentence("tiles", f"lie inside the image of {shape[0]} x {shape[1]} px", got))


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


def select(
    tiles: pd.DataFrame,
    *,
    min_valid: float | None = None,
    min_positive: float | None = None,
    max_positive: float | None = None,
) -> pd.DataFrame:
    """Keep the described tiles within limits.

    Parameters
    ----------
    tiles : DataFrame
        A tile index with the columns that the limits are on.
    min_valid : float, optional
        Least share of valid pixels.
    min_positive, max_positive : float, optional
        Least and greatest share of positive pixels; a tile where none is known passes neither.
        ``min_positive=0`` keeps tiles of known pixels, and any tile with a landslide pixel has more than 0.

    Returns
    -------
    DataFrame
        Its rows, numbered anew; perhaps none.
    """
    keep = np.ones(len(tiles), dtype=bool)
    limits = (("valid", min_valid, np.greater_equal), ("positive", min_positive, np.greater_equal))
    for column, limit, holds in (*limits, ("positive", max_positive, np.less_equal)):
        if limit is not None:
            check(tiles, column)
            keep &= holds(tiles[column].to_numpy(), limit)
    return tiles[keep].reset_index(drop=True)


def balance(
    tiles: pd.DataFrame,
    *,
    by: Literal["positive", "cluster"] = "positive",
    how: Balance = "smallest",
    seed: int = 0,
) -> pd.DataFrame:
    """Draw fewer of the commoner tiles, or more of the rarer, so that groups weigh alike.

    Parameters
    ----------
    tiles : DataFrame
        A described tile index.
    by : {"positive", "cluster"}
        Two groups, with and without a landslide pixel, or a group a cluster. Tiles where this is unknown are
        left out.
    how : {"smallest", "mean", "oversample"}
        Groups above the size of the smallest, or above the mean size (rounded down), are drawn down to it; or
        groups below the size of the largest repeat their tiles up to it, each as often as any other to within one.
    seed : int

    Returns
    -------
    DataFrame
        Rows in their order, numbered anew.

    Raises
    ------
    BadInput
        If the column is missing, or fewer than two groups are there.
    """
    check(tiles, by)
    if how not in get_args(Balance):
        raise BadInput(sentence("how", f"be one of {', '.join(get_args(Balance))}", f"how={how!r}"))
    known = tiles[tiles[by].notna()] if by == "positive" else tiles[tiles[by] != schema.UNKNOWN]
    group = (known[by] > 0).to_numpy() if by == "positive" else known[by].to_numpy()
    sizes = np.unique(group, return_counts=True)[1]
    if len(sizes) < 2:
        raise BadInput(sentence("tiles", f"hold two or more groups by {by!r}", f"{len(sizes)}"))
    place = np.random.default_rng([seed, 1]).permutation(len(known))
    rank = pd.Series(place).groupby(group).rank(method="first").to_numpy().astype("int64")
    if how == "oversample":
        size = pd.Series(place).groupby(group).transform("size").to_numpy()
        times, rest = np.divmod(sizes.max(), size)
        return known.loc[known.index.repeat(times + (rank <= rest))].reset_index(drop=True)
    most = sizes.min() if how == "smallest" else int(sizes.mean())
    return known[rank <= most].reset_index(drop=True)


def split(
    tiles: pd.DataFrame,
    *,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    block: int | None = None,
    buffer: int = 0,
    test: str | tuple[int, int, int, int] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Divide tiles into training, validation and test by square blocks, so that no pixel is seen by two of them.

    The blocks are dealt out in a random order, each to the split that lacks most tiles (and most tiles with
    landslides, where the column ``positive`` tells). A tile that touches blocks of two splits belongs to none.

    Parameters
    ----------
    tiles : DataFrame
        A tile index.
    fractions : (float, float, float)
        Shares of train, valid and test; they sum to 1.
    block : int, optional
        Side of a block, in pixels; by default an eighth of the tiles' extent, but 2 to 8 times the largest tile.
        Larger blocks lose fewer overlapping tiles, smaller ones meet the fractions more closely.
    buffer : int
        Pixels on each side of a tile that it sees too, such as a halo.
    test : {"east", "west", "north", "south"} or (y0, x0, y1, x1), optional
        Holds out one region for the test instead of blocks: the last ``fractions[2]`` of the tiles in that
        direction, or a window in pixels.
    seed : int

    Returns
    -------
    DataFrame
        The tiles with the column ``split``; ``check_split`` holds for it.

    Raises
    ------
    BadInput
        If the fractions do not sum to 1, or a split with a share gets no tile.
    """
    check(tiles)
    _check_fractions(fractions)
    windows, seen = _windows(tiles), _seen(tiles, buffer)
    sides = np.full(len(tiles), -1)
    rest = np.ones(len(tiles), dtype=bool)
    if test is not None:
        region = _region(test, windows, windows[:, 2:].max(axis=0), fractions[2])
        sides[_inside(seen, region)] = SPLITS.index("test")
        rest = ~_touches(seen, region)
        fractions = (fractions[0], fractions[1], 0.0)
    draw = np.random.default_rng([seed, 2])
    sides[rest] = _deal_blocks(seen[rest], _weights(tiles)[rest], fractions, block or _block(tiles), draw)
    wanted = [name for name, share in zip(SPLITS, fractions) if share > 0] + (["test"] if test is not None else [])
    result = tiles.assign(split=np.array([*SPLITS, NONE], dtype=object)[sides])
    lacking = [name for name in wanted if not (result["split"] == name).any()]
    if lacking:
        raise BadInput(sentence("tiles", "be enough for every split", f"no tile for {', '.join(lacking)}", SMALLER))
    return result


def folds(tiles: pd.DataFrame, k: int, *, block: int | None = None, buffer: int = 0, seed: int = 0) -> pd.DataFrame:
    """Deal tiles into ``k`` folds of about equal size by square blocks, so that no pixel is seen by two folds.

    Parameters
    ----------
    tiles : DataFrame
        A tile index.
    k : int
        At least 2.
    block, buffer, seed
        As in ``split``.

    Returns
    -------
    DataFrame
        The tiles with the column ``fold``: 0 to k - 1, or -1 for tiles that touch two folds. ``as_split`` makes one
        of them the test.

    Raises
    ------
    BadInput
        If a fold gets no tile.
    """
    check(tiles)
    if not 2 <= k <= len(tiles):
        raise BadInput(sentence("k", "be from 2 to the number of tiles", f"k={k}"))
    draw = np.random.default_rng([seed, 3])
    fold = _deal_blocks(_seen(tiles, buffer), _weights(tiles), [1 / k] * k, block or _block(tiles), draw)
    lacking = sorted(set(range(k)) - set(fold.tolist()))
    if lacking:
        raise BadInput(sentence("tiles", "be enough for every fold", f"no tile for {lacking}", SMALLER))
    return tiles.assign(fold=fold.astype("int64"))


def as_split(tiles: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Make one fold the test, the next the validation (of three folds or more), and the others the training.

    Parameters
    ----------
    tiles : DataFrame
        A tile index with the column ``fold``.
    fold : int

    Returns
    -------
    DataFrame
        The tiles with the column ``split``.
    """
    check(tiles, "fold")
    of = tiles["fold"].to_numpy()
    k = int(of.max()) + 1
    if not 0 <= fold < k:
        raise BadInput(sentence("fold", f"be from 0 to {k - 1}", f"fold={fold}"))
    cases = [of < 0, of == fold, (of == (fold + 1) % k) & (k > 2)]
    return tiles.assign(split=np.select(cases, [NONE, "test", "valid"], default="train").astype(object))


def check_split(tiles: pd.DataFrame, *, buffer: int = 0) -> None:
    """Raise BadInput if a pixel is seen by tiles of two splits, naming two such tiles.

    Parameters
    ----------
    tiles : DataFrame
        A tile index with the column ``split``; its "none" tiles are not looked at.
    buffer : int
        Pixels on each side of a tile that it sees too.
    """
    check(tiles, "split")
    side = tiles["split"].to_numpy()
    windows = _windows(tiles)
    low, high = windows[:, :2] - buffer + 0.25, windows[:, 2:] + buffer - 0.25  # tiles side by side do not meet
    boxes = shapely.box(low[:, 1], low[:, 0], high[:, 1], high[:, 0])
    for i, name in enumerate(SPLITS):
        mine, later = np.flatnonzero(side == name), np.flatnonzero(np.isin(side, SPLITS[i + 1 :]))
        tree = shapely.STRtree(boxes[mine])
        for part in np.array_split(later, max(1, len(later) // 10_000)):
            theirs, ours = tree.query(boxes[part], predicate="intersects")
            if len(ours):
                a, b = int(mine[ours[0]]), int(part[theirs[0]])
                got = f"{side[a]} {_name(tiles, a)} and {side[b]} {_name(tiles, b)}"
                do = "Divide them with sampling.split"
                raise BadInput(sentence("tiles", "not be seen by two splits", got, do))


def shape_of(image: xr.DataArray) -> tuple[int, int]:
    """Give an image's (height, width) in pixels."""
    return image.sizes["y"], image.sizes["x"]


def _shape(image: xr.DataArray, size: int) -> tuple[int, int]:
    """Give (height, width) of an image that holds a tile."""
    if not isinstance(image, xr.DataArray) or image.dims[-2:] != ("y", "x"):
        got = str(image.dims) if isinstance(image, xr.DataArray) else f"a {type(image).__name__}"
        raise BadInput(sentence("image", "be an xarray.DataArray with last dims ('y', 'x')", got))
    if not isinstance(size, int | np.integer) or size < 1:
        raise BadInput(sentence("size", "be whole and at least 1 pixel", f"size={size}"))
    height, width = shape_of(image)
    if size > min(height, width):
        got = f"size={size} for an image of {height} x {width} px"
        raise BadInput(sentence("size", "not exceed the image", got, f"Pass at most {min(height, width)}"))
    return height, width


def _starts(length: int, size: int, step: int) -> np.ndarray:
    """Give the first pixels of an axis's tiles; the last tile ends with the axis."""
    starts = np.arange(0, length - size + 1, step)
    return starts if starts[-1] == length - size else np.append(starts, length - size)


def _name(tiles: pd.DataFrame, row: int) -> str:
    y, x, size = (int(tiles[column].iloc[row]) for column in ("y", "x", "size"))
    return f"tile {row} (y={y}, x={x}, size={size})"


def _windows(tiles: pd.DataFrame) -> np.ndarray:
    """Give (tile, 4) int64: y0, x0, y1, x1."""
    y, x, size = (tiles[column].to_numpy(dtype="int64") for column in ("y", "x", "size"))
    return np.stack([y, x, y + size, x + size], axis=1)


def _seen(tiles: pd.DataFrame, buffer: int) -> np.ndarray:
    """Give the windows with a buffer on each side, cut to the extent of all tiles."""
    windows = _windows(tiles)
    extent = windows[:, 2:].max(axis=0)
    return np.concatenate([np.maximum(windows[:, :2] - buffer, 0), np.minimum(windows[:, 2:] + buffer, extent)], axis=1)


def _block(tiles: pd.DataFrame) -> int:
    """Give the side of a block where none is asked for: an eighth of the tiles' extent, from 2 to 8 tiles."""
    windows = _windows(tiles)
    size = int(tiles["size"].max())
    extent = int((windows[:, 2:].max(axis=0) - windows[:, :2].min(axis=0)).max())
    return min(max(extent // (8 * size), 2), 8) * size


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
    for place, rows, windows in _by_chunk(_windows(tiles), *edges):
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


def _check_fractions(fractions: tuple[float, float, float]) -> None:
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        do = "Pass (train, valid, test) such as (0.7, 0.15, 0.15)"
        raise BadInput(sentence("fractions", "be three shares that sum to 1", f"fractions={fractions}", do))


def _region(test: Any, windows: np.ndarray, extent: np.ndarray, share: float) -> np.ndarray:
    """Give the held-out window y0, x0, y1, x1."""
    if not isinstance(test, str):
        return np.asarray(test, dtype="int64")
    if share <= 0:
        raise BadInput(sentence("fractions", f"give the test a share to hold out in the {test}", f"{share}"))
    ends = {"east": (1, 1.0), "west": (1, -1.0), "south": (0, 1.0), "north": (0, -1.0)}
    if test not in ends:
        raise BadInput(sentence("test", f"be one of {list(ends)} or (y0, x0, y1, x1)", f"test={test!r}"))
    axis, towards = ends[test]
    region = np.array([0, 0, *extent])
    held = max(1, round(share * len(windows)))
    if towards > 0:
        region[axis] = np.sort(windows[:, axis])[-held]
    else:
        region[axis + 2] = np.sort(windows[:, axis + 2])[held - 1]
    return region


def _inside(windows: np.ndarray, region: np.ndarray) -> np.ndarray:
    return (windows[:, :2] >= region[:2]).all(axis=1) & (windows[:, 2:] <= region[2:]).all(axis=1)


def _touches(windows: np.ndarray, region: np.ndarray) -> np.ndarray:
    return (windows[:, :2] < region[2:]).all(axis=1) & (windows[:, 2:] > region[:2]).all(axis=1)


def _weights(tiles: pd.DataFrame) -> np.ndarray:
    """Give (tile, kind) float64: one a tile, and one a tile with landslides: what a split has its share of."""
    positive = (tiles["positive"] > 0).to_numpy() if "positive" in tiles else np.zeros(len(tiles), dtype=bool)
    return np.stack([np.ones(len(tiles)), positive], axis=1)


def _deal_blocks(
    seen: np.ndarray, weights: np.ndarray, fractions: Sequence[float], block: int, draw: np.random.Generator
) -> np.ndarray:
    """Give each tile the share (its place in ``fractions``) of the blocks it sees, or -1 where they differ."""
    if not len(seen) or not sum(fractions):
        return np.full(len(seen), -1)
    first, last = seen[:, :2] // block, (seen[:, 2:] - 1) // block
    columns = int(last[:, 1].max()) + 1
    tile, cell = touched(list(first.T), list(last.T), columns)
    cells, cell = np.unique(cell, return_inverse=True)
    home = np.searchsorted(cells, first[:, 0] * columns + first[:, 1])
    held = np.stack([np.bincount(home, kind, len(cells)) for kind in weights.T], axis=1)
    side = _deal(held / np.maximum(held.sum(axis=0), 1), np.asarray(fractions) / sum(fractions), draw)
    low, high = np.full(len(seen), len(fractions)), np.full(len(seen), -1)
    np.minimum.at(low, tile, side[cell])
    np.maximum.at(high, tile, side[cell])
    return np.where(low == high, low, -1)


def _deal(held: np.ndarray, fractions: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Deal blocks (block, kind) in a random order, each to the split that lacks most of its share."""
    got = np.zeros(len(fractions))
    side = np.zeros(len(held), dtype="int64")
    share = np.where(fractions > 0, fractions, 1.0)
    for block in draw.permutation(len(held)):
        side[block] = int(np.argmin(np.where(fractions > 0, got / share, np.inf)))
        got[side[block]] += held[block].sum()
    return side
