"""A made-up Serra do Mar of any size: coast, towns, pasture, forested scarp, and landslide scars with their outlines.

Every value is a pure function of the seed and of a place on the ground: gradient noise on lattices whose corners
are hashed, and scars drawn per lattice cell. So any window is computed alone, and any chunking gives the same
pixels bit for bit. The landscape is laid out in metres, from the scene's upper left corner: a finer resolution
shows the same ground in more detail.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import dask.array as da
import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from affine import Affine
from numba import njit
from odc.geo.geobox import GeoBox

from lsdask import inventory, schema
from lsdask.errors import BadInput, sentence

BANDS = ("blue", "green", "red", "nir")
NODATA = 0
FULL_SCALE = 1023
"""The largest value of a 10-bit sensor such as CBERS-4A WPM."""

AREA_M2 = (393.0, 5286.0, 123872.0)
"""Least, median and largest scar, as in the relict-landslide inventory of Garcia et al. (Serra do Mar)."""

AREA_SPREAD = 0.965
"""Standard deviation of the natural logarithm of a scar's area, in the same inventory."""

REACH_M = 1000.0
"""No scar reaches further than this from its head, so a window needs only the heads this close to it."""

TOWARDS_SEA = (0.8, 0.6)
"""Unit vector (south, east) that points out to sea."""

SEA_SHARE = 0.25
"""Share of the scene's length along TOWARDS_SEA that is sea."""

# Signal above the path radiance, in DN on level ground, per band; the first three after a CBERS-4A WPM clip.
PATH = np.array([188.0, 118.0, 78.0, 38.0], dtype="float32")
COVERS = np.array(
    [
        [44.0, 58.0, 70.0, 372.0],  # forest
        [72.0, 102.0, 150.0, 408.0],  # pasture
        [104.0, 146.0, 282.0, 330.0],  # bare soil
        [128.0, 158.0, 232.0, 262.0],  # town
        [12.0, 22.0, 18.0, 14.0],  # river
        [68.0, 106.0, 144.0, 462.0],  # fern
    ],
    dtype="float32",
)


class Landscape(NamedTuple):
    """A scene and its truth, on one grid."""

    scene: xr.DataArray
    mask: xr.DataArray
    polygons: gpd.GeoDataFrame


@dataclass(frozen=True)
class Ground:
    """What a landscape is a function of; lengths in metres, ``shape`` in pixels (y, x)."""

    shape: tuple[int, int]
    seed: int
    resolution: float
    origin: tuple[float, float]
    crs: str
    density: float

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


# --- noise -----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _hash(key: Any, row: Any, column: Any) -> Any:
    """Mix a key and a lattice place into 64 bits. Source: Steele, Lea, Flood 2014, SplitMix64's finaliser."""
    h = key + np.uint64(row) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(column) * np.uint64(0xD1B54A32D192ED03)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@njit(cache=True, nogil=True)
def _unit(h: Any, part: int) -> Any:
    """Give the 16-bit part 0 to 3 of a hash as a number from 0 up to 1."""
    return np.float32((h >> np.uint64(16 * part)) & np.uint64(0xFFFF)) * np.float32(1 / 65536)


@njit(cache=True, nogil=True)
def _fade(t: Any) -> Any:
    """Give 6t^5 - 15t^4 + 10t^3, whose first and second slopes are 0 at 0 and 1. Source: Perlin 2002, section 3."""
    return t * t * t * (t * (t * np.float32(6) - np.float32(15)) + np.float32(10))


@njit(cache=True, nogil=True)
def _side(key: Any, row: Any, column: Any, ty: Any, w: Any) -> Any:
    """Give the offset and slope along x of the noise that one side of a lattice cell has at height ``ty``."""
    upper, lower = _hash(key, row, column), _hash(key, row + 1, column)
    ux, uy = np.float32(2) * _unit(upper, 0) - np.float32(1), np.float32(2) * _unit(upper, 1) - np.float32(1)
    lx, ly = np.float32(2) * _unit(lower, 0) - np.float32(1), np.float32(2) * _unit(lower, 1) - np.float32(1)
    above, below = uy * ty, ly * (ty - np.float32(1))
    return above + w * (below - above), ux + w * (lx - ux)


@njit(cache=True, nogil=True)
def _add_noise(out: Any, ys: Any, xs: Any, wavelength: float, height: float, key: Any) -> None:
    """Add one octave of noise to ``out``.

    Along a run of columns in one lattice cell the noise is a blend of two straight lines, so a pixel costs six
    operations however many corners were hashed.
    """
    cell = np.empty(xs.size, np.int64)
    tx = np.empty(xs.size, np.float32)
    shift = _unit(key, 0), _unit(key, 1)  # no two lattices share their lines, which would show
    for k in range(xs.size):
        place = xs[k] / wavelength + shift[1]
        cell[k] = math.floor(place)
        tx[k] = np.float32(place - cell[k])
    fx = _fade(tx)
    scale = np.float32(height)
    for r in range(ys.size):
        place = ys[r] / wavelength + shift[0]
        row = math.floor(place)
        ty = np.float32(place - row)
        w = _fade(ty)
        k = 0
        while k < xs.size:
            column, first = cell[k], k
            while k < xs.size and cell[k] == column:
                k += 1
            a, b = _side(key, row, column, ty, w)
            c, d = _side(key, row, column + 1, ty, w)
            for j in range(first, k):
                left, right = a + b * tx[j], c + d * (tx[j] - np.float32(1))
                out[r, j] += scale * (left + fx[j] * (right - left))


@njit(cache=True, nogil=True)
def fractal_block(ys: Any, xs: Any, wavelength: float, octaves: int, keys: Any) -> Any:
    """Sum octaves of gradient noise, each of half the wavelength and half the height of the one before.

    Parameters
    ----------
    ys, xs : (y,) and (x,) float64
        Places on the ground, metres; the noise is computed where these rows and columns cross.
    wavelength : float
        Side of a lattice cell of the first octave, metres.
    octaves : int
    keys : (octaves,) uint64
        Which noise.

    Returns
    -------
    (y, x) float32, one octave about -0.7 to 0.7, mean 0
        Source: Perlin 2002, "Improving noise".
    """
    out = np.zeros((ys.size, xs.size), np.float32)
    for i in range(octaves):
        _add_noise(out, ys, xs, wavelength * 0.5**i, 0.5**i, keys[i])
    return out


@njit(cache=True, nogil=True)
def ridges_block(ys: Any, xs: Any, wavelength: float, octaves: int, keys: Any) -> Any:
    """Compute a ridged multifractal: sharp crests, smooth valley floors. Source: Musgrave 1994, chapter 16.

    Returns
    -------
    (y, x) float32, 0 to about 1.6
    """
    out = np.zeros((ys.size, xs.size), np.float32)
    weight = np.ones((ys.size, xs.size), np.float32)
    noise = np.empty_like(out)
    for i in range(octaves):
        noise[:] = 0
        _add_noise(noise, ys, xs, wavelength * 0.5**i, 1.0, keys[i])
        height = np.float32(0.47**i)
        for r in range(ys.size):
            for j in range(xs.size):
                crest = np.float32(1) - min(np.float32(1), np.float32(2.2) * abs(noise[r, j]))
                crest *= crest * weight[r, j]
                weight[r, j] = min(np.float32(1), np.float32(1.7) * crest + np.float32(0.1))
                out[r, j] += height * crest
    return out


# --- ground ----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _step(value: Any, start: Any, stop: Any) -> Any:
    """Rise smoothly from 0 at ``start`` to 1 at ``stop``."""
    t = min(np.float32(1), max(np.float32(0), np.float32((value - start) / (stop - start))))
    return t * t * (np.float32(3) - np.float32(2) * t)


@njit(cache=True, nogil=True)
def elevation_block(ys: Any, xs: Any, layout: Any, keys: Any) -> Any:
    """Compute height above the sea at the crossings of some rows and columns.

    Parameters
    ----------
    ys, xs : (y,) and (x,) float64
        Places on the ground, metres from the upper left corner.
    layout : (4,) float64
        ``Ground.layout``.
    keys : (32,) uint64
        ``Ground.keys``.

    Returns
    -------
    (y, x) float32
        Metres; 0 in the sea and 1 or more on land.
    """
    inland, plain, scarp, height = layout
    shore = fractal_block(ys, xs, 6000.0, 5, keys[0:])
    front = fractal_block(ys, xs, 5000.0, 3, keys[5:])
    relief = ridges_block(ys, xs, 3000.0, 7, keys[8:])
    out = np.empty(relief.shape, np.float32)
    for r in range(ys.size):
        for j in range(xs.size):
            straight = inland - ys[r] * 0.8 - xs[j] * 0.6
            coast = straight + 0.9 * plain * shore[r, j]
            foot = straight + 1.4 * plain * front[r, j] - 0.8 * plain
            rise = _step(foot, 0.0, scarp)
            rough = _step(foot, -0.2 * plain, 0.5 * scarp) * (1.0 - 0.45 * _step(foot, scarp, 1.6 * scarp))
            land = 2.0 + 0.004 * min(coast, plain) + height * rise + 430.0 * rough * (relief[r, j] - 0.25)
            out[r, j] = max(land, 1.0) if coast > 0 else 0.0
    return out


# --- scars -----------------------------------------------------------------------------------------------------------

STATIONS = 14
"""Places along a scar, head to toe, at which its two sides are drawn."""

LEG = 3
"""Stations along which a scar keeps its direction."""

STEEP = (0.30, 0.67)
"""Ground of less fall than the first bears no scar, and of more than the second always may; metres a metre."""

GAP_M = 20.0
"""Two scars keep at least this far apart; of two that do not, one is not there."""


@njit(cache=True, nogil=True)
def falls_block(y: Any, x: Any, reach: Any, layout: Any, keys: Any) -> Any:
    """Compute height and downhill gradient of the ground about some places.

    Parameters
    ----------
    y, x, reach : (n,) float64
        Metres from the upper left corner; the gradient is taken over twice the reach.
    layout, keys : arrays
        As for ``elevation_block``.

    Returns
    -------
    (3, n) float64
        Height in metres; fall to the south and to the east, metres a metre.
    """
    out = np.empty((3, y.size))
    for i in range(y.size):
        around = np.array([-reach[i], 0.0, reach[i]])
        z = elevation_block(y[i] + around, x[i] + around, layout, keys)
        out[0, i], out[1, i] = z[1, 1], (z[0, 1] - z[2, 1]) / (2 * reach[i])
        out[2, i] = (z[1, 0] - z[1, 2]) / (2 * reach[i])
    return out


@njit(cache=True, nogil=True)
def candidates_block(rows: Any, columns: Any, side: float, key: Any) -> Any:
    """Draw one candidate for a scar in each of a range of lattice cells.

    Parameters
    ----------
    rows, columns : (int, int)
        Half-open ranges of cells.
    side : float
        Side of a cell, metres.
    key : uint64

    Returns
    -------
    facts : (n, 9) float64
        Cell row and column; y and x of the head, length and width in metres; luck, cover and rank, 0 to 1.
    hashes : (n,) uint64
        From which its outline is drawn.
    """
    facts = np.empty(((rows[1] - rows[0]) * (columns[1] - columns[0]), 9))
    hashes = np.empty(len(facts), np.uint64)
    n = 0
    for row in range(rows[0], rows[1]):
        for column in range(columns[0], columns[1]):
            h = _hash(key, row, column)
            size, kind = _hash(h, 0, 1), _hash(h, 0, 2)
            normal = math.sqrt(3.0) * (_unit(size, 0) + _unit(size, 1) + _unit(size, 2) + _unit(size, 3) - 2.0)
            area = min(AREA_M2[2], max(AREA_M2[0], AREA_M2[1] * math.exp(AREA_SPREAD * normal)))
            length = math.sqrt(area * (1.6 + 2.2 * _unit(kind, 0)) / 0.7)
            facts[n, 0], facts[n, 1] = row, column
            facts[n, 2], facts[n, 3] = (row + np.float64(_unit(h, 0))) * side, (column + np.float64(_unit(h, 1))) * side
            facts[n, 4], facts[n, 5] = length, area / (0.7 * length)
            facts[n, 6], facts[n, 7] = _unit(h, 2), _unit(kind, 1)
            facts[n, 8] = _unit(kind, 2) + np.float64(_unit(kind, 3)) / 65536
            hashes[n] = h
            n += 1
    return facts, hashes


@njit(cache=True, nogil=True)
def outlines_block(facts: Any, hashes: Any, courses: Any) -> Any:
    """Draw scars along their courses: tapered to the head, fullest below the middle, with wavering sides.

    Parameters
    ----------
    facts, hashes : arrays
        As ``candidates_block`` gives them.
    courses : (n, legs, 2) float64
        Unit vectors (south, east), each of LEG stations.

    Returns
    -------
    (n, 2 * STATIONS, 2) float64
        (east, south) metres from the upper left corner, down one side and up the other, of the area drawn and
        rounded to 1/64 m, which any CRS coordinate holds exactly.
    """
    out = np.empty((len(facts), 2 * STATIONS, 2))
    for n in range(len(facts)):
        y, x, length, width = facts[n, 2], facts[n, 3], facts[n, 4], facts[n, 5]
        stride, points = length / (STATIONS - 1), out[n]
        for i in range(STATIONS):
            south, east = courses[n, i // LEG]
            s = i / (STATIONS - 1)
            taper = math.sqrt(max(0.0, 1 - (2 * s - 1) ** 4)) * (0.7 + 0.5 * s) * 0.5 * width + 0.02 * width
            side = _hash(hashes[n], i, 3)
            a, b = taper * (0.75 + 0.5 * _unit(side, 0)), taper * (0.75 + 0.5 * _unit(side, 1))
            points[i, 0], points[i, 1] = x - a * south, y + a * east
            points[2 * STATIONS - 1 - i, 0], points[2 * STATIONS - 1 - i, 1] = x + b * south, y - b * east
            y, x = y + stride * south, x + stride * east
        _resize(points, 0.7 * length * width)
    return out


@njit(cache=True, nogil=True)
def _resize(points: Any, area: float) -> None:
    """Scale an outline about its mean to an area, and round it."""
    mean_x, mean_y, twice = points[:, 0].mean(), points[:, 1].mean(), 0.0
    for i in range(len(points)):
        j = (i + 1) % len(points)
        twice += (points[i, 0] - mean_x) * (points[j, 1] - mean_y) - (points[j, 0] - mean_x) * (points[i, 1] - mean_y)
    scale = math.sqrt(area / max(abs(twice) / 2, 1e-9))
    for i in range(len(points)):
        points[i, 0] = math.floor((mean_x + scale * (points[i, 0] - mean_x)) * 64 + 0.5) / 64
        points[i, 1] = math.floor((mean_y + scale * (points[i, 1] - mean_y)) * 64 + 0.5) / 64


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


def _near(ground: Ground, window: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    """Give the outlines (polygons, metres east and south) of the scars that touch a window, and their facts."""
    box = [part * ground.resolution for axis in window for part in (axis.start, axis.stop)]
    side = 1000 / math.sqrt(ground.density)
    reach = 3 * REACH_M + GAP_M  # from the window to a scar's head, from there to the head of one that displaces it
    cells = [(math.floor((a - reach) / side), math.floor((b + reach) / side) + 1) for a, b in (box[:2], box[2:])]
    outlines, facts = _scars(ground, cells[0], cells[1])
    shapes = np.asarray(shapely.polygons(outlines), dtype=object)
    kept = _apart(shapes, facts[:, 8]) & shapely.is_valid(shapes)
    touching = shapely.intersects(shapes, shapely.box(box[2], box[0], box[3], box[1]))
    return shapes[kept & touching], facts[kept & touching]


def _apart(shapes: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Say which scars stand: those that no scar of higher rank comes near. Source: Matern 1960, type II process."""
    left, top, right, bottom = (shapely.bounds(shapes) + GAP_M / 2 * np.array([-1, -1, 1, 1])).T
    boxes = np.asarray(shapely.box(left, top, right, bottom), dtype=object)
    one, other = shapely.STRtree(boxes).query(boxes)
    stands = np.ones(len(shapes), dtype=bool)
    stands[one[rank[one] < rank[other]]] = False
    return stands


# --- sensor ----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _house(y: float, x: float, key: Any) -> Any:
    """Give the brightness of a place in town: streets every 96 m round houses of 24 m."""
    if y % 96 < 14 or x % 96 < 14:
        return np.float32(0.62)
    return np.float32(0.7) + np.float32(0.6) * _unit(_hash(key, math.floor(y / 24), math.floor(x / 24)), 0)


@njit(cache=True, nogil=True)
def render_block(z: Any, fern: Any, fields: Any, start: Any, resolution: float, keys: Any) -> Any:
    """Turn ground into what the sensor counts.

    Parameters
    ----------
    z, fern : (y + 2, x + 2) float32
        Elevation in metres and cover of landslide scars, 0 to 1, with one pixel around the window.
    fields : (6, y + 2, x + 2) float32
        Noise: pasture, soil, town, river, natural fern, canopy.
    start : (int, int)
        Row and column of the window's first pixel.
    resolution : float
        Metres a pixel.
    keys : (32,) uint64

    Returns
    -------
    (4, y, x) uint16
        DN of 10 bit, 0 in the sea.
    """
    rows, columns = z.shape[0] - 2, z.shape[1] - 2
    out = np.zeros((4, rows, columns), np.uint16)
    for r in range(rows):
        for j in range(columns):
            a, b = r + 1, j + 1
            if z[a, b] <= 0:
                continue
            south = (z[a + 1, b] - z[a - 1, b]) / np.float32(2 * resolution)
            east = (z[a, b + 1] - z[a, b - 1]) / np.float32(2 * resolution)
            steep = np.sqrt(south * south + east * east)
            # The sun stands 50 degrees high in the north-east: (north, east, up) = (0.455, 0.455, 0.766).
            light = (np.float32(0.766) + np.float32(0.455) * (south - east)) / np.sqrt(1 + steep * steep)
            light = np.float32(0.42) + np.float32(0.58 / 0.766) * max(np.float32(0.05), light)
            pasture = _step(
                fields[0, a, b] - np.float32(0.18) * max(np.float32(0), steep - np.float32(0.1)), 0.12, 0.18
            )
            soil = pasture * _step(fields[1, a, b], 0.30, 0.34)
            town = _step(fields[2, a, b], 0.10, 0.14) * (1 - _step(z[a, b], 15.0, 30.0)) * (1 - _step(steep, 0.1, 0.2))
            river = (1 - _step(abs(fields[3, a, b]), 0.006, 0.012)) * (1 - _step(z[a, b], 20.0, 40.0))
            wild = np.float32(0.7) * _step(fields[4, a, b], 0.44, 0.48)
            scar = np.float32(0)
            for p in range(3):
                for q in range(3):
                    scar += fern[r + p, j + q] * np.float32(1 / 9)
            scar = max(scar, wild) * (np.float32(0.8) + np.float32(0.6) * fields[1, a, b])
            scar = min(np.float32(1), max(np.float32(0), scar))
            h = _hash(keys[30], start[0] + r, start[1] + j)
            canopy = np.float32(0.26) * fields[5, a, b] + np.float32(0.16) * (_unit(h, 0) - np.float32(0.5))
            house = _house((start[0] + r) * resolution, (start[1] + j) * resolution, keys[29])
            grain = _hash(h, 0, 1)
            for i in range(4):
                tree = COVERS[0, i] * (1 + canopy)
                grass = COVERS[1, i] * (1 + np.float32(0.25) * fields[1, a, b] + np.float32(0.2) * canopy)
                signal = tree + pasture * (grass - tree)
                signal += soil * (COVERS[2, i] - signal)
                signal += scar * (COVERS[5, i] * (1 + np.float32(0.3) * canopy) - signal)
                signal += town * (COVERS[3, i] * house - signal)
                signal += river * (COVERS[4, i] - signal)
                spread = _unit(grain, i) + _unit(_hash(grain, 0, 2), i) - np.float32(1)
                count = PATH[i] + light * signal + np.float32(7) * spread
                out[i, r, j] = np.uint16(min(np.float32(FULL_SCALE), max(np.float32(1), count + np.float32(0.5))))
    return out


# --- the public face -------------------------------------------------------------------------------------------------


def _noises(ys: np.ndarray, xs: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Compute the noises of ``render_block``: (6, y, x) float32."""
    made = ((2400.0, 4, 15), (200.0, 3, 18), (3000.0, 3, 19), (5000.0, 4, 22), (420.0, 3, 26), (40.0, 1, 28))
    return np.stack([fractal_block(ys, xs, length, octaves, keys[key:]) for length, octaves, key in made])


def _on_map(ground: Ground, shapes: np.ndarray) -> np.ndarray:
    """Put outlines in metres east and south of the upper left corner into the scene's CRS."""
    return shapely.transform(shapes, lambda xy: np.array(ground.origin) + xy * (1.0, -1.0))


def _burned(ground: Ground, window: tuple[slice, slice], dtype: str) -> np.ndarray:
    """Burn the scars of a window: 1 as an integer, their cover as a float."""
    shapes, facts = _near(ground, window)
    on_pixels = inventory.to_pixels(_on_map(ground, shapes), ground.grid)
    values = 0.75 + 0.25 * facts[:, 7] if dtype == "float32" else 1
    return inventory.burn_block(on_pixels, window, values=values, dtype=dtype)


def scene_block(ground: Ground, window: tuple[slice, slice]) -> np.ndarray:
    """Compute a window of the scene: (4, y, x) uint16."""
    rows, columns = window
    ys, xs = ground.centres(0, rows, halo=1), ground.centres(1, columns, halo=1)
    z = elevation_block(ys, xs, ground.layout, ground.keys)
    around = slice(rows.start - 1, rows.stop + 1), slice(columns.start - 1, columns.stop + 1)
    fern = _burned(ground, around, "float32")
    start = rows.start, columns.start
    return render_block(z, fern, _noises(ys, xs, ground.keys), start, ground.resolution, ground.keys)


def mask_block(ground: Ground, window: tuple[slice, slice]) -> np.ndarray:
    """Compute a window of the mask: (y, x) uint8, 255 in the sea."""
    return np.where(height_block(ground, window) > 0, _burned(ground, window, "uint8"), np.uint8(schema.UNKNOWN))


def height_block(ground: Ground, window: tuple[slice, slice]) -> np.ndarray:
    """Compute a window of the elevation: (y, x) float32, metres."""
    ys, xs = (ground.centres(axis, pixels) for axis, pixels in enumerate(window))
    return elevation_block(ys, xs, ground.layout, ground.keys)


@dataclass(frozen=True)
class Seen:
    """A landscape as an array that is computed where it is read; what the lazy arrays are made of.

    Attributes
    ----------
    ground : Ground
    kernel : callable
        From ground and window (rows, columns) to the pixels of the window.
    shape : tuple of int
    dtype : dtype
    """

    ground: Ground
    kernel: Callable[[Ground, tuple[slice, slice]], np.ndarray]
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        window, steps = inventory.hull(key[-2:], self.shape[-2:])
        return self.kernel(self.ground, window)[(*key[:-2], *steps)]


def _lazy(ground: Ground, kernel: Any, chunks: Any, *, dtype: str, bands: int | None = None) -> da.Array:
    """Make a lazy array of a kernel: one task a chunk."""
    shape = ground.shape if bands is None else (bands, *ground.shape)
    sides = chunks if isinstance(chunks, tuple) else (chunks, chunks)
    source = Seen(ground, kernel, shape, np.dtype(dtype))
    sizes = sides if bands is None else (bands, *sides)
    return da.from_array(source, chunks=sizes, asarray=False, meta=np.empty((0,) * len(shape), dtype))


def _ground(shape: tuple[int, int], seed: int, *, resolution: float, crs: str, origin: Any, density: float) -> Ground:
    """Check what a landscape is a function of."""
    for name, value, good in (
        ("shape", shape, len(shape) == 2 and all(isinstance(n, int | np.integer) and n > 0 for n in shape)),
        ("resolution", resolution, resolution > 0),
        ("density", density, density > 0),
        ("seed", seed, isinstance(seed, int | np.integer) and seed >= 0),
    ):
        if not good:
            rule = "be whole and not negative" if name == "seed" else "be positive"
            raise BadInput(sentence(name, rule, f"{name}={value}"))
    left, top = float(origin[0]), float(origin[1])
    return Ground((int(shape[0]), int(shape[1])), int(seed), float(resolution), (left, top), crs, float(density))


ORIGIN = (360_000.0, 7_400_000.0)
"""Where the upper left corner lies by default: in the Serra do Mar, in the CRS below."""

CRS = "EPSG:32723"


def scene(
    shape: tuple[int, int] = (2048, 2048),
    seed: int = 0,
    *,
    chunks: int | tuple[int, int] = 1024,
    resolution: float = 8.0,
    crs: str = CRS,
    origin: tuple[float, float] = ORIGIN,
    density: float = 6.0,
) -> xr.DataArray:
    """Make a scene of a landscape with landslide scars, as CBERS-4A WPM would see it. Lazy: one task a chunk.

    Fern-covered scars run down steep, forested slopes; pasture and natural fern have nearly their colour.

    Parameters
    ----------
    shape : (int, int)
        Pixels (y, x).
    seed : int
        Another seed, another landscape.
    chunks : int or (int, int)
        Pixels a chunk (y, x); the pixels' values do not depend on it.
    resolution : float
        Metres a pixel.
    crs : str
        Any CRS in metres.
    origin : (float, float)
        Upper left corner (x, y) in the CRS.
    density : float
        Candidates for a scar per km2 of ground; on ground that is flat or holds a scar already, none comes of one.

    Returns
    -------
    DataArray (band, y, x) uint16
        Bands blue, green, red and nir, counts of 10 bit; 0 is void and marks the sea.

    Raises
    ------
    BadInput
        If a size is not positive.

    Examples
    --------
    >>> scene((65536, 65536)).shape
    (4, 65536, 65536)
    """
    ground = _ground(shape, seed, resolution=resolution, crs=crs, origin=origin, density=density)
    data = _lazy(ground, scene_block, chunks, dtype="uint16", bands=len(BANDS))
    return schema.wrap(data, ground.grid, schema.MOSAIC, name="scene", coords={"band": list(BANDS)}, nodata=NODATA)


def mask(
    shape: tuple[int, int] = (2048, 2048),
    seed: int = 0,
    *,
    chunks: int | tuple[int, int] = 1024,
    resolution: float = 8.0,
    crs: str = CRS,
    origin: tuple[float, float] = ORIGIN,
    density: float = 6.0,
) -> xr.DataArray:
    """Make the mask of ``scene`` with the same arguments, lazily.

    It equals ``inventory.rasterize(polygons(...), scene(...))``, without computing the scene.

    Returns
    -------
    DataArray (y, x) uint8
        1 landslide, 0 not, 255 sea.
    """
    ground = _ground(shape, seed, resolution=resolution, crs=crs, origin=origin, density=density)
    data = _lazy(ground, mask_block, chunks, dtype="uint8")
    return schema.wrap(data, ground.grid, schema.MASK, name="mask", nodata=schema.UNKNOWN)


def elevation(
    shape: tuple[int, int] = (2048, 2048),
    seed: int = 0,
    *,
    chunks: int | tuple[int, int] = 1024,
    resolution: float = 8.0,
    crs: str = CRS,
    origin: tuple[float, float] = ORIGIN,
) -> xr.DataArray:
    """Make the ground under ``scene`` with the same arguments, lazily.

    Returns
    -------
    DataArray (y, x) float32
        Metres above the sea, which lies at 0.
    """
    ground = _ground(shape, seed, resolution=resolution, crs=crs, origin=origin, density=1.0)
    data = _lazy(ground, height_block, chunks, dtype="float32")
    return schema.wrap(data, ground.grid, schema.MASK, name="elevation", attrs={"units": "m"})


def polygons(
    shape: tuple[int, int] = (2048, 2048),
    seed: int = 0,
    *,
    window: tuple[slice, slice] | None = None,
    resolution: float = 8.0,
    crs: str = CRS,
    origin: tuple[float, float] = ORIGIN,
    density: float = 6.0,
) -> gpd.GeoDataFrame:
    """Give the outlines of the scars of ``scene`` with the same arguments.

    Parameters
    ----------
    window : (slice, slice), optional
        Rows and columns of the scene; only scars that touch them are given, whole. The scene, unless given.

    Returns
    -------
    GeoDataFrame
        ``id`` (its lattice cell, the same in every window), ``slope`` at the head in degrees, ``cover`` of fern
        from 0 to 1, ``area_m2``, and the outline in the scene's CRS.
    """
    ground = _ground(shape, seed, resolution=resolution, crs=crs, origin=origin, density=density)
    shapes, facts = _near(ground, window or (slice(0, ground.shape[0]), slice(0, ground.shape[1])))
    columns = {
        "id": [f"{row}.{column}" for row, column in facts[:, :2].astype(int)],
        "slope": facts[:, 6],
        "cover": facts[:, 7],
        "area_m2": shapely.area(shapes),
    }
    return gpd.GeoDataFrame(columns, geometry=_on_map(ground, shapes), crs=crs)


def landscape(shape: tuple[int, int] = (2048, 2048), seed: int = 0, **ground: Any) -> Landscape:
    """Make a scene, its mask and its polygons in one call; further arguments as for ``scene``."""
    outlines = {key: value for key, value in ground.items() if key != "chunks"}
    return Landscape(scene(shape, seed, **ground), mask(shape, seed, **ground), polygons(shape, seed, **outlines))
