"""Whether a split holds: no ground seen by tiles of two sides."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import shapely

from lsdask.errors import BadInput, sentence
from lsdask.sampling.ground import Scenes, extents_of, ground, seen
from lsdask.sampling.splitting import SPLITS
from lsdask.sampling.tables import check, name_of

SLIVER = 0.01
"""Pixels by which outlines are drawn in, so that tiles side by side do not meet."""


def check_split(tiles: pd.DataFrame, *, buffer: int = 0, scenes: Scenes = None) -> None:
    """Raise BadInput if ground is seen by tiles of two splits, naming two such tiles and their scenes.

    Parameters
    ----------
    tiles : DataFrame
        A tile index with the column ``split``; its "none" tiles are not looked at.
    buffer : int
        Pixels on each side of a tile that it sees too.
    scenes : DataArray or mapping of str to DataArray, optional
        As in ``split``. Tiles of different scenes are held against each other by the upright boxes around them.
    """
    check(tiles, "split")
    tiles = tiles[tiles["split"].isin(SPLITS)]
    if tiles.empty:
        return
    side = tiles["split"].to_numpy()
    scene = tiles["scene"].to_numpy() if "scene" in tiles else np.zeros(len(tiles))
    frame = ground(scenes, extents_of([tiles]))
    for name in pd.unique(scene):
        mine = np.flatnonzero(scene == name)
        for a, b in _meeting(seen(tiles.iloc[mine], buffer).astype("float64"), side[mine]):
            _refuse(tiles, mine[a[0]], mine[b[0]])
    if len(pd.unique(scene)) > 1:
        for a, b in _meeting(frame.boxes(tiles, buffer), side):
            apart = np.flatnonzero(scene[a] != scene[b])
            if len(apart):
                _refuse(tiles, a[apart[0]], b[apart[0]])


def _meeting(boxes: np.ndarray, side: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give pairs of rows of different sides whose boxes y0, x0, y1, x1 share ground, some at a time."""
    low, high = boxes[:, :2] + SLIVER, boxes[:, 2:] - SLIVER
    outlines = shapely.box(low[:, 1], low[:, 0], high[:, 1], high[:, 0])
    for i, name in enumerate(SPLITS):
        mine, later = np.flatnonzero(side == name), np.flatnonzero(np.isin(side, SPLITS[i + 1 :]))
        tree = shapely.STRtree(outlines[mine])
        for part in np.array_split(later, max(1, len(later) // 10_000)):
            theirs, ours = tree.query(outlines[part], predicate="intersects")
            if len(ours):
                yield mine[ours], part[theirs]


def _refuse(tiles: pd.DataFrame, a: int, b: int) -> None:
    named = (f"{tiles['split'].iloc[row]} {name_of(tiles, row)}" for row in (int(a), int(b)))
    do = "Divide them with sampling.split"
    raise BadInput(sentence("tiles", "not be seen by two splits", " and ".join(named), do))
