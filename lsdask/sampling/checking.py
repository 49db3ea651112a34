"""Whether a split holds: no ground seen by tiles of two sides."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import shapely

from lsdask.errors import BadInput, sentence
from lsdask.sampling import dealing, files
from lsdask.sampling.division import Parts
from lsdask.sampling.ground import Ground, Scenes, extents_of, ground, seen
from lsdask.sampling.splitting import SPLITS
from lsdask.sampling.tables import check, name_of

SLIVER = 0.01
"""Pixels by which outlines are drawn in, so that tiles side by side do not meet."""

AT_ONCE = 10_000
"""Tiles that are held against the others at a time."""


def check_split(tiles: pd.DataFrame | str | Path, *, buffer: int = 0, scenes: Scenes = None) -> None:
    """Raise BadInput if ground is seen by tiles of two splits, naming two such tiles and their scenes.

    Squares of ground that tiles of one split only touch are passed over, so what is held is the tiles at the
    borders between splits.

    Parameters
    ----------
    tiles : DataFrame or path
        A tile index with the column ``split``, or its file; its "none" tiles are not looked at.
    buffer : int
        Pixels on each side of a tile that it sees too.
    scenes : DataArray or mapping of str to DataArray, optional
        As in ``split``. Tiles of different scenes are held against each other by the upright boxes around them.
    """
    parts = _parts_of(tiles)
    extents = extents_of(parts())
    if not extents:
        return
    frame = ground(scenes, extents)
    near = _near_others(parts, frame, buffer, max(extent.size for extent in extents.values()) + 2 * buffer)
    if len(near):
        _check(near, frame, buffer)


def _parts_of(tiles: pd.DataFrame | str | Path) -> Parts:
    """Give a function that gives the tiles of the splits in parts, each row under its number in the table."""
    if not isinstance(tiles, pd.DataFrame):
        names = ["y", "x", "size", "split", *(["scene"] if "scene" in files.columns_of(tiles) else [])]
        return partial(_of_splits, partial(files.parts, tiles, names))
    check(tiles, "split")
    return partial(_of_splits, lambda: (tiles[i : i + files.ROWS] for i in range(0, len(tiles), files.ROWS)))


def _of_splits(parts: Parts) -> Iterator[pd.DataFrame]:
    begin = 0
    for part in parts():
        numbered = part.set_axis(pd.RangeIndex(begin, begin + len(part)))
        begin += len(part)
        kept = numbered[numbered["split"].isin(SPLITS)]
        if len(kept):
            yield kept


def _near_others(parts: Parts, frame: Ground, buffer: int, side: int) -> pd.DataFrame:
    """Keep the tiles that touch a square of ground which a tile of another split touches too."""
    squares = {name: np.zeros(0, dtype="int64") for name in SPLITS}
    for part in parts():
        for name, rows in part.groupby("split"):
            found = np.unique(dealing.touching(frame.boxes(rows, buffer), side)[1])
            squares[str(name)] = np.union1d(squares[str(name)], found)
    every, times = np.unique(np.concatenate(list(squares.values())), return_counts=True)
    return pd.concat([_touching(part, frame, buffer, side, every[times > 1]) for part in parts()])


def _touching(part: pd.DataFrame, frame: Ground, buffer: int, side: int, squares: np.ndarray) -> pd.DataFrame:
    tile, cell = dealing.touching(frame.boxes(part, buffer), side)
    return part.iloc[np.unique(tile[np.isin(cell, squares)])]


def _check(tiles: pd.DataFrame, frame: Ground, buffer: int) -> None:
    """Hold tiles against each other: those of a scene by their pixels, those of two by their boxes."""
    side = tiles["split"].to_numpy()
    scene = tiles["scene"].to_numpy() if "scene" in tiles else np.zeros(len(tiles))
    for name in pd.unique(scene):
        mine = np.flatnonzero(scene == name)
        for a, b in _meeting(seen(tiles.iloc[mine], buffer), side[mine]):
            _refuse(tiles.iloc[mine], a[0], b[0])
    if len(pd.unique(scene)) > 1:
        for a, b in _meeting(frame.boxes(tiles, buffer), side):
            apart = np.flatnonzero(scene[a] != scene[b])
            if len(apart):
                _refuse(tiles, a[apart[0]], b[apart[0]])


def _meeting(boxes: np.ndarray, side: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Give pairs of rows of different sides whose boxes y0, x0, y1, x1 share ground, some at a time."""
    low, high = boxes[:, :2] + SLIVER, boxes[:, 2:] - SLIVER
    outlines = shapely.box(low[:, 1], low[:, 0], high[:, 1], high[:, 0])
    for i, name in enumerate(SPLITS):
        mine, later = np.flatnonzero(side == name), np.flatnonzero(np.isin(side, SPLITS[i + 1 :]))
        tree = shapely.STRtree(outlines[mine])
        for part in np.array_split(later, max(1, len(later) // AT_ONCE)):
            theirs, ours = tree.query(outlines[part], predicate="intersects")
            if len(ours):
                yield mine[ours], part[theirs]


def _refuse(tiles: pd.DataFrame, a: int, b: int) -> None:
    named = (f"{tiles['split'].iloc[row]} {name_of(tiles, row)}" for row in (int(a), int(b)))
    do = "Divide them with sampling.split"
    raise BadInput(sentence("tiles", "not be seen by two splits", " and ".join(named), do))
