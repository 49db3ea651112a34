"""Where things lie: the layout of a landscape in metres, and its scars."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from lsdask import inventory
from lsdask.synthetic.compiled import LEG, REACH_M, STATIONS, candidates_block, falls_block, outlines_block

TOWARDS_SEA = (0.8, 0.6)
"""Unit vector (south, east) that points out to sea."""

SEA_SHARE = 0.25
"""Share of the scene's length along TOWARDS_SEA that is sea."""

STEEP = (0.30, 0.67)
"""Ground of less fall than the first bears no scar, and of more than the second always may; metres a metre."""

GAP_M = 20.0
"""Two scars keep at least this far apart; of two that do not, one is not there."""


@dataclass(frozen=True)
class Ground:
    """What a landscape is a function of; lengths in metres, ``shape`` in pixels (y, x).

    ``scars`` are outlines in metres east and south of the upper left corner, instead of those the seed would give.
    """

    shape: tuple[int, int]
    seed: int
    resolution: float
    origin: tuple[float, float]
    crs: str
    density: float
    scars: tuple[Any, ...] | None = None

    @property
    def grid(self) -> GeoBox:
        """The whole scene in CRS space."""
        left, top = self.origin
        return GeoBox(self.shape, Affine(self.resolution, 0, left, 0, -self.resolution, top), self.crs)

    @property
    def length(self) -> float:
        """Length of the scene along TOWARDS_SEA, in metres."""
        return self.resolution * (self.shape[0] * TOWARDS_SEA[0] + self.shape[1] * TOWARDS_SEA[1])

    @property
    def layout(self) -> np.ndarray:
        """Where the shore crosses TOWARDS_SEA, plain and scarp widths, and height of the plateau, in metres."""
        inland = self.length * (1 - SEA_SHARE)
        scale = min(1.0, inland / 17_000)  # a small scene is a small landscape, not a piece of beach
        return np.array([inland, 2500 * scale, 6500 * scale, 800 * math.sqrt(scale)])

    @property
    def keys(self) -> np.ndarray:
        """One 64-bit key for each noise."""
        return np.random.default_rng([self.seed, 20]).integers(0, 2**63, size=32, dtype="uint64")

    def centres(self, axis: int, pixels: slice, halo: int = 0) -> np.ndarray:
        """Give the pixel centres of a range of an axis, in metres from the upper left corner."""
        return (np.arange(pixels.start - halo, pixels.stop + halo) + 0.5) * self.resolution


def near(ground: Ground, window: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    """Give the outlines (polygons, metres east and south) of the scars that touch a window, and their facts."""
    box = [part * ground.resolution for axis in window for part in (axis.start, axis.stop)]
    frame = shapely.box(box[2], box[0], box[3], box[1])
    if ground.scars is not None:
        given = np.asarray(ground.scars, dtype=object)
        numbers = np.flatnonzero(shapely.intersects(given, frame))
        return given[numbers], _facts(numbers)
    side = 1000 / math.sqrt(ground.density)
    reach = 3 * REACH_M + GAP_M  # from the window to a scar's head, from there to the head of one that displaces it
    cells = [(math.floor((a - reach) / side), math.floor((b + reach) / side) + 1) for a, b in (box[:2], box[2:])]
    outlines, facts = _scars(ground, cells[0], cells[1])
    shapes = np.asarray(shapely.polygons(outlines), dtype=object)
    kept = _apart(shapes, facts[:, 8]) & shapely.is_valid(shapes)
    touching = shapely.intersects(shapes, frame)
    return shapes[kept & touching], facts[kept & touching]


def _facts(numbers: np.ndarray) -> np.ndarray:
    """Give facts of given scars, as ``candidates_block`` orders them: number, full cover, slope not known."""
    facts = np.zeros((len(numbers), 9))
    facts[:, 0], facts[:, 6], facts[:, 7] = numbers, np.nan, 1.0
    return facts


def _scars(ground: Ground, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw the scars whose heads lie in a range of lattice cells: outlines, and facts with slope in place of luck."""
    facts, hashes = candidates_block(rows, columns, 1000 / math.sqrt(ground.density), ground.keys[31])
    reach = np.full(len(facts), 40.0)
    height, south, east = falls_block(facts[:, 2].copy(), facts[:, 3].copy(), reach, ground.layout, ground.keys)
    steep = np.sqrt(south**2 + east**2)
    chance = np.clip((steep - STEEP[0]) / (STEEP[1] - STEEP[0]), 0, 1)
    slides = (height > 20) & (facts[:, 6] < chance**2 * (3 - 2 * chance))
    facts = facts[slides]
    facts[:, 6] = np.degrees(np.arctan(steep[slides]))
    return outlines_block(facts, hashes[slides], _courses(ground, facts)), facts


def _courses(ground: Ground, facts: np.ndarray) -> np.ndarray:
    """Follow the fall of the ground from each head: (n, legs, 2) unit vectors (south, east)."""
    y, x, length = facts[:, 2], facts[:, 3], facts[:, 4]
    heading, legs = np.zeros((2, len(facts))), []
    for _ in range(-(-STATIONS // LEG)):
        fall = falls_block(y, x, np.maximum(25.0, 0.15 * length), ground.layout, ground.keys)[1:]
        heading = 0.5 * heading + fall
        heading = heading / (np.sqrt(heading[0] ** 2 + heading[1] ** 2) + 1e-9)
        legs.append(heading)
        step = length * LEG / (STATIONS - 1)
        y, x = y + step * heading[0], x + step * heading[1]
    return np.ascontiguousarray(np.stack(legs).transpose(2, 0, 1))


def _apart(shapes: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Say which scars stand: those that no scar of higher rank comes near. Source: Matern 1960, type II process."""
    left, top, right, bottom = (shapely.bounds(shapes) + GAP_M / 2 * np.array([-1, -1, 1, 1])).T
    boxes = np.asarray(shapely.box(left, top, right, bottom), dtype=object)
    one, other = shapely.STRtree(boxes).query(boxes)
    stands = np.ones(len(shapes), dtype=bool)
    stands[one[rank[one] < rank[other]]] = False
    return stands


def on_map(ground: Ground, shapes: np.ndarray) -> np.ndarray:
    """Put outlines in metres east and south of the upper left corner into the scene's CRS."""
    return shapely.transform(shapes, lambda xy: np.array(ground.origin) + xy * (1.0, -1.0))


def burned(ground: Ground, window: tuple[slice, slice], dtype: str) -> np.ndarray:
    """Burn the scars of a window: 1 as an integer, their cover as a float."""
    shapes, facts = near(ground, window)
    on_pixels = inventory.to_pixels(on_map(ground, shapes), ground.grid)
    values = 0.75 + 0.25 * facts[:, 7] if dtype == "float32" else 1
    return inventory.burn_block(on_pixels, window, values=values, dtype=dtype)
