"""What is computed pixel by pixel: noise, relief, the outlines of scars, and what a sensor sees of it all.

Compiled functions that call each other are in this one file, as Numba's cache looks at the file of a function only.
"""

import math
from typing import Any

import numpy as np

from lsdask.compiling import njit

FULL_SCALE = 1023
"""The largest value of a 10-bit sensor such as CBERS-4A WPM."""

AREA_M2 = (393.0, 5286.0, 123872.0)
"""Least, median and largest scar, as in the relict-landslide inventory of Garcia et al. (Serra do Mar)."""

AREA_SPREAD = 0.965
"""Standard deviation of the natural logarithm of a scar's area, in the same inventory."""

REACH_M = 1000.0
"""No scar reaches further than this from its head, so a window needs only the heads this close to it."""

STATIONS = 14
"""Places along a scar, head to toe, at which its two sides are drawn."""

LEG = 3
"""Stations along which a scar keeps its direction."""

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
