"""Tiles divided into training, validation and test, or into folds, so that no pixel is seen by two of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import shapely

from lsdask.errors import BadInput, sentence
from lsdask.sampling.counting import touched
from lsdask.sampling.tables import check, name_of, windows_of

SPLITS = ("train", "valid", "test")
NONE = "none"
SMALLER = "Pass a smaller block or buffer, or more tiles"


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
    windows, seen = windows_of(tiles), _seen(tiles, buffer)
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
    windows = windows_of(tiles)
    low, high = windows[:, :2] - buffer + 0.25, windows[:, 2:] + buffer - 0.25  # tiles side by side do not meet
    boxes = shapely.box(low[:, 1], low[:, 0], high[:, 1], high[:, 0])
    for i, name in enumerate(SPLITS):
        mine, later = np.flatnonzero(side == name), np.flatnonzero(np.isin(side, SPLITS[i + 1 :]))
        tree = shapely.STRtree(boxes[mine])
        for part in np.array_split(later, max(1, len(later) // 10_000)):
            theirs, ours = tree.query(boxes[part], predicate="intersects")
            if len(ours):
                a, b = int(mine[ours[0]]), int(part[theirs[0]])
                got = f"{side[a]} {name_of(tiles, a)} and {side[b]} {name_of(tiles, b)}"
                do = "Divide them with sampling.split"
                raise BadInput(sentence("tiles", "not be seen by two splits", got, do))


def _check_fractions(fractions: tuple[float, float, float]) -> None:
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        do = "Pass (train, valid, test) such as (0.7, 0.15, 0.15)"
        raise BadInput(sentence("fractions", "be three shares that sum to 1", f"fractions={fractions}", do))


def _weights(tiles: pd.DataFrame) -> np.ndarray:
    """Give (tile, kind) float64: one a tile, and one a tile with landslides: what a split has its share of."""
    positive = (tiles["positive"] > 0).to_numpy() if "positive" in tiles else np.zeros(len(tiles), dtype=bool)
    return np.stack([np.ones(len(tiles)), positive], axis=1)


def _seen(tiles: pd.DataFrame, buffer: int) -> np.ndarray:
    """Give the windows with a buffer on each side, cut to the extent of all tiles."""
    windows = windows_of(tiles)
    extent = windows[:, 2:].max(axis=0)
    return np.concatenate([np.maximum(windows[:, :2] - buffer, 0), np.minimum(windows[:, 2:] + buffer, extent)], axis=1)


def _block(tiles: pd.DataFrame) -> int:
    """Give the side of a block where none is asked for: an eighth of the tiles' extent, from 2 to 8 tiles."""
    windows = windows_of(tiles)
    size = int(tiles["size"].max())
    extent = int((windows[:, 2:].max(axis=0) - windows[:, :2].min(axis=0)).max())
    return min(max(extent // (8 * size), 2), 8) * size


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
