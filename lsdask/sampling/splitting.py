"""Tiles divided into training, validation and test, or into folds, so that no pixel is seen by two of them."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from lsdask.errors import BadInput, sentence
from lsdask.sampling import files
from lsdask.sampling.division import Division, Parts, plan
from lsdask.sampling.ground import Scenes
from lsdask.sampling.tables import check, draws

SPLITS = ("train", "valid", "test")
NONE = "none"
FRACTIONS = (0.7, 0.15, 0.15)
SMALLER = "Pass a smaller block or buffer, or more tiles"

type Test = str | Path | gpd.GeoDataFrame | tuple[int, int, int, int] | None
"""What is held out: a direction, polygons, or a window y0, x0, y1, x1."""


def split(
    tiles: pd.DataFrame,
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    block: int | None = None,
    buffer: int = 0,
    test: Test = None,
    scenes: Scenes = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Divide tiles into training, validation and test by square blocks, so that no pixel is seen by two of them.

    The blocks are dealt out in a random order, each to the split that lacks most tiles (and most tiles with
    landslides, where the column ``positive`` tells). A tile that touches blocks of two splits belongs to none.
    Tiles of several scenes are dealt together, so that no ground is in two splits where scenes overlap.

    Parameters
    ----------
    tiles : DataFrame
        A tile index; of several scenes, with the column ``scene``.
    fractions : (float, float, float)
        Shares of train, valid and test; they sum to 1.
    block : int, optional
        Side of a block, in pixels (of the first of ``scenes``); by default an eighth of the tiles' extent, but 2 to 8
        times the largest tile with its buffer. Larger blocks lose fewer tiles to "none", smaller ones meet the
        fractions more closely.
    buffer : int
        Pixels on each side of a tile that it sees too, such as a halo.
    test : {"east", "west", "north", "south"}, (y0, x0, y1, x1), GeoDataFrame or path, optional
        Holds out a region for the test instead of blocks: the last ``fractions[2]`` of the tiles in that direction, a
        window in pixels (of the first of ``scenes``), or polygons. Tiles that it cuts belong to none.
    scenes : DataArray or mapping of str to DataArray, optional
        The image that the tiles lie in, needed where ``test`` is polygons; or the image of each name in the column
        ``scene``, in any CRS: a tile off the first one's grid counts with the upright box around it. Only grids are
        looked at.
    seed : int

    Returns
    -------
    DataFrame
        The tiles with the column ``split``; ``check_split`` holds for it.

    Raises
    ------
    BadInput
        If the fractions do not sum to 1, a split with a share gets no tile, or a scene is missing.
    """
    check(tiles)
    options: dict[str, Any] = {"block": block, "buffer": buffer, "test": test, "scenes": scenes, "seed": seed}
    division, wanted = _plan_split(lambda: [tiles], fractions=fractions, **options)
    return next(_divided([tiles], division, _as_splits, wanted))


def split_file(source: str | Path, target: str | Path, **options: Any) -> int:
    """Divide the tiles of a file as ``split`` does, and write them to another, holding a row group at a time.

    Parameters
    ----------
    source, target : path
        Parquet files; may be the same.
    **options
        As of ``split``.

    Returns
    -------
    int
        The number of tiles.

    Raises
    ------
    NotFound, BadInput
        If there is no such file, or as ``split``; the target is then as it was.
    """
    division, wanted = _plan_split(_places(source), **options)
    return files.write(_divided(files.parts(source), division, _as_splits, wanted), target)


def folds(
    tiles: pd.DataFrame, k: int, *, block: int | None = None, buffer: int = 0, scenes: Scenes = None, seed: int = 0
) -> pd.DataFrame:
    """Deal tiles into ``k`` folds of about equal size by square blocks, so that no pixel is seen by two folds.

    Parameters
    ----------
    tiles : DataFrame
        A tile index.
    k : int
        At least 2.
    block, buffer, scenes, seed
        As in ``split``.

    Returns
    -------
    DataFrame
        The tiles with the column ``fold``: 0 to k - 1, or -1 for tiles that touch two folds. ``as_split`` makes one
        of them the test.

    Raises
    ------
    BadInput
        If a fold gets no tile, or a scene is missing.
    """
    check(tiles)
    division = _plan_folds(lambda: [tiles], k, block=block, buffer=buffer, scenes=scenes, seed=seed)
    return next(_divided([tiles], division, _as_folds, range(k)))


def folds_file(source: str | Path, target: str | Path, k: int, **options: Any) -> int:
    """Deal the tiles of a file as ``folds`` does, and write them to another, holding a row group at a time.

    Parameters
    ----------
    source, target : path
        Parquet files; may be the same.
    k : int
    **options
        As of ``folds``.

    Returns
    -------
    int
        The number of tiles.
    """
    division = _plan_folds(_places(source), k, **options)
    return files.write(_divided(files.parts(source), division, _as_folds, range(k)), target)


def as_split(tiles: pd.DataFrame, fold: int, *, k: int | None = None) -> pd.DataFrame:
    """Make one fold the test, the next the validation (of three folds or more), and the others the training.

    Parameters
    ----------
    tiles : DataFrame
        A tile index with the column ``fold``.
    fold : int
    k : int, optional
        How many folds there are, where ``tiles`` are a part of a table; by default as many as they name.

    Returns
    -------
    DataFrame
        The tiles with the column ``split``.
    """
    check(tiles, "fold")
    of = tiles["fold"].to_numpy()
    k = k or int(of.max()) + 1
    if not 0 <= fold < k:
        raise BadInput(sentence("fold", f"be from 0 to {k - 1}", f"fold={fold}"))
    cases = [of < 0, of == fold, (of == (fold + 1) % k) & (k > 2)]
    return tiles.assign(split=np.select(cases, [NONE, "test", "valid"], default="train").astype(object))


def _plan_split(
    parts: Parts,
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    test: Test = None,
    seed: int = 0,
    **options: Any,
) -> tuple[Division, list[int]]:
    """Plan a split, and say which sides must get a tile."""
    _check_fractions(fractions)
    shares = fractions if test is None else (fractions[0], fractions[1], 0.0)
    held_out = None if test is None else (test, fractions[2], SPLITS.index("test"))
    division = plan(parts, shares, held_out=held_out, draw=draws(seed, 2), **options)
    wanted = [side for side, share in enumerate(shares) if share > 0 or (side == 2 and test is not None)]
    return division, wanted


def _plan_folds(parts: Parts, k: int, *, seed: int = 0, **options: Any) -> Division:
    if k < 2:
        raise BadInput(sentence("k", "be at least 2", f"k={k}"))
    return plan(parts, [1 / k] * k, draw=draws(seed, 3), **options)


def _places(source: str | Path) -> Parts:
    """Give a function that reads what a plan needs of a file, again each time."""
    names = files.columns_of(source)
    needed = ["y", "x", "size", *(name for name in ("positive", "scene") if name in names)]
    return partial(files.parts, source, needed)


def _as_splits(tiles: pd.DataFrame, sides: np.ndarray) -> pd.DataFrame:
    return tiles.assign(split=np.array([*SPLITS, NONE], dtype=object)[sides])


def _as_folds(tiles: pd.DataFrame, sides: np.ndarray) -> pd.DataFrame:
    return tiles.assign(fold=sides)


def _divided(
    parts: Any, division: Division, column: Callable[[pd.DataFrame, np.ndarray], pd.DataFrame], wanted: Sequence[int]
) -> Iterator[pd.DataFrame]:
    """Add the column to part after part; raise BadInput before the last if a side has got no tile."""
    lacking = set(wanted)
    coming = iter(parts)
    part = next(coming)
    while part is not None:
        sides = division.sides(part)
        lacking -= set(np.unique(sides).tolist())
        following = next(coming, None)
        if following is None and lacking:
            names = SPLITS if column is _as_splits else range(len(wanted))
            got = f"no tile for {', '.join(str(names[side]) for side in sorted(lacking))}"
            raise BadInput(sentence("tiles", "be enough, and far enough apart, for every side", got, SMALLER))
        yield column(part, sides)
        part = following


def _check_fractions(fractions: tuple[float, float, float]) -> None:
    if len(fractions) != 3 or min(fractions) < 0 or not abs(sum(fractions) - 1) <= 1e-6:
        do = "Pass (train, valid, test) such as (0.7, 0.15, 0.15)"
        raise BadInput(sentence("fractions", "be three shares that sum to 1", f"fractions={fractions}", do))
