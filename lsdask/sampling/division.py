"""How ground is divided: a region held out, and blocks dealt to sides. Planned from a table, or from parts of one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from lsdask import inventory
from lsdask.errors import BadInput, sentence
from lsdask.sampling import dealing
from lsdask.sampling.ground import Extent, Ground, Scenes, extents_of, ground

Parts = Callable[[], Iterable[pd.DataFrame]]
"""Gives the parts of a table, again each time."""

ENDS = {"east": (1, True), "west": (1, False), "south": (0, True), "north": (0, False)}
"""The axis of a direction, and whether it rises towards it."""

AT_ONCE = 100_000
"""Tiles whose outlines are held at a time."""


@dataclass(frozen=True)
class Division:
    """Says which side each tile is on.

    Attributes
    ----------
    ground : Ground
    buffer : int
    region : object with ``holds`` and ``meets``, or None
        Held out for the side ``held_out``.
    held_out : int
    block : float
        Side of a block, in pixels of the ground.
    blocks, side : (block,) int64 arrays
        Numbers of the blocks that are dealt, rising, and the side of each.
    """

    ground: Ground
    buffer: int
    region: Any
    held_out: int
    block: float
    blocks: np.ndarray
    side: np.ndarray

    def sides(self, tiles: pd.DataFrame) -> np.ndarray:
        """Give the side of each tile, -1 for those that see two: (tile,) int64."""
        boxes = self.ground.boxes(tiles, self.buffer)
        sides = np.full(len(tiles), -1)
        rest = np.ones(len(tiles), dtype=bool)
        if self.region is not None:
            sides[self.region.holds(boxes)] = self.held_out
            rest = ~self.region.meets(boxes)
        if len(self.blocks) and rest.any():
            sides[rest] = dealing.sides_of(boxes[rest], self.block, self.blocks, self.side)
        return sides


@dataclass(frozen=True)
class Window:
    """A region y0, x0, y1, x1; all in pixels of the ground."""

    bounds: np.ndarray

    def holds(self, boxes: np.ndarray) -> np.ndarray:
        """Say which boxes (box, 4) lie in it."""
        return (boxes[:, :2] >= self.bounds[:2]).all(axis=1) & (boxes[:, 2:] <= self.bounds[2:]).all(axis=1)

    def meets(self, boxes: np.ndarray) -> np.ndarray:
        """Say which boxes (box, 4) share ground with it."""
        return (boxes[:, :2] < self.bounds[2:]).all(axis=1) & (boxes[:, 2:] > self.bounds[:2]).all(axis=1)


@dataclass(frozen=True)
class Areas:
    """A region of polygons; in pixels of the ground."""

    shape: Any

    def holds(self, boxes: np.ndarray) -> np.ndarray:
        """Say which boxes (box, 4) lie in it."""
        return self._each(boxes, lambda outlines: shapely.covers(self.shape, outlines))

    def meets(self, boxes: np.ndarray) -> np.ndarray:
        """Say which boxes (box, 4) share ground with it."""
        return self._each(
            boxes, lambda outlines: shapely.intersects(self.shape, outlines) & ~shapely.touches(self.shape, outlines)
        )

    def _each(self, boxes: np.ndarray, test: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        shapely.prepare(self.shape)
        parts = np.array_split(boxes, max(1, len(boxes) // AT_ONCE))
        return np.concatenate([test(shapely.box(part[:, 1], part[:, 0], part[:, 3], part[:, 2])) for part in parts])


def plan(
    parts: Parts,
    shares: Sequence[float],
    *,
    draw: np.random.Generator,
    scenes: Scenes = None,
    block: float | None = None,
    buffer: int = 0,
    held_out: tuple[Any, float, int] | None = None,
) -> Division:
    """Plan a division from what the tiles weigh; the parts are looked at two or three times.

    Parameters
    ----------
    parts : callable
    shares : sequence of float
        Of each side, among the tiles outside the region.
    draw : numpy Generator
    scenes, block, buffer
        As in ``splitting.split``.
    held_out : (test, share, side), optional
        The region as ``splitting.split`` takes it, its share of the tiles where it is a direction, and its side.
    """
    if block is not None and block < 1:
        raise BadInput(sentence("block", "be at least 1 pixel", f"block={block}"))
    if buffer < 0:
        raise BadInput(sentence("buffer", "be at least 0 pixels", f"buffer={buffer}"))
    extents = extents_of(parts())
    frame = ground(scenes, extents)
    region, side = None, -1
    if held_out is not None:
        region, side = _region(held_out[0], held_out[1], parts, frame), held_out[2]
    block = block or _block(frame, extents, buffer)
    held = dealing.merge(_held(parts(), frame, buffer, region, block) if sum(shares) else (), 2)
    dealt = dealing.deal(held.held, shares, draw) if len(held.blocks) else held.blocks
    return Division(frame, buffer, region, side, block, held.blocks, dealt)


def _held(parts: Iterable[pd.DataFrame], frame: Ground, buffer: int, region: Any, block: float) -> Any:
    """Give what the blocks hold of each part, of the tiles that the region does not meet."""
    for part in parts:
        boxes = frame.boxes(part, buffer)
        rest = np.ones(len(part), dtype=bool) if region is None else ~region.meets(boxes)
        if rest.any():
            yield dealing.hold_block(boxes[rest], _weights(part)[rest], block)


def _weights(tiles: pd.DataFrame) -> np.ndarray:
    """Give (tile, kind) float64: one a tile, and one a tile with landslides: what a side has its share of."""
    positive = (tiles["positive"] > 0).to_numpy() if "positive" in tiles else np.zeros(len(tiles), dtype=bool)
    return np.stack([np.ones(len(tiles)), positive], axis=1)


def _block(frame: Ground, extents: dict[str, Extent], buffer: int) -> int:
    """Give the side of a block where none is asked for: an eighth of the extent, from 2 to 8 tiles with buffers."""
    windows = [
        [(*extent.low, *extent.high), (0, 0, extent.size + 2 * buffer, extent.size + 2 * buffer)]
        for extent in extents.values()
    ]
    boxes = np.array([frame.place(name, np.array(pair)) for name, pair in zip(extents, windows)])
    whole, tile = boxes[:, 0], boxes[:, 1]
    size = int(np.ceil((tile[:, 2:] - tile[:, :2]).max()))
    extent = whole[:, 2:].max(axis=0) - whole[:, :2].min(axis=0)
    return min(max(int(extent.max()) // (8 * size), 2), 8) * size


def _region(test: Any, share: float, parts: Parts, frame: Ground) -> Any:
    """Give the region that is held out."""
    if isinstance(test, str) and test in ENDS:
        if share <= 0:
            raise BadInput(sentence("fractions", f"give the test a share to hold out in the {test}", f"{share}"))
        return Window(_end(test, share, parts, frame))
    if isinstance(test, gpd.GeoDataFrame | Path) or (isinstance(test, str) and Path(test).suffix):
        if frame.first is None:
            do = "Pass scenes=image"
            raise BadInput(sentence("scenes", "be given where test is polygons", "no grid", do))
        shapes = inventory.on_pixels(inventory.load(test, name="test"), frame.first)
        return Areas(shapely.union_all(shapes))
    bounds = np.array([]) if isinstance(test, str) else np.asarray(test, dtype="float64")
    if bounds.shape != (4,) or not (bounds[:2] < bounds[2:]).all():
        rule = f"be one of {list(ENDS)}, polygons, or a window (y0, x0, y1, x1)"
        raise BadInput(sentence("test", rule, f"test={test!r}"))
    return Window(bounds)


def _end(direction: str, share: float, parts: Parts, frame: Ground) -> np.ndarray:
    """Give the bounds beyond which the last share of the tiles lies in a direction."""
    axis, rises = ENDS[direction]
    counts: dict[float, int] = {}
    for part in parts():
        places, times = np.unique(frame.boxes(part, 0)[:, axis if rises else axis + 2], return_counts=True)
        for place, n in zip(places.tolist(), times.tolist()):
            counts[place] = counts.get(place, 0) + n
    places = np.array(sorted(counts, reverse=rises))
    passed = np.cumsum([counts[place] for place in places])
    held = max(1, round(share * int(passed[-1])))
    bounds = np.array([-np.inf, -np.inf, np.inf, np.inf])
    bounds[axis if rises else axis + 2] = places[np.searchsorted(passed, held)]
    return bounds
