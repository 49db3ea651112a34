"""Placing: where rasters lie on a grid, in its pixels; and the grid that holds them all.

A raster of another CRS is placed by its edge, projected in steps. It may cross the antimeridian, or reach out of what
the CRS of the grid can show; its box is then larger than it, never smaller.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyproj
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS

from lsdask.errors import BadInput, sentence

ON_GRID = 1e-3
"""A raster lies on the grid if its pixels do to this share of a pixel."""

STEPS = 21
"""Points on each edge of a raster that is projected."""

WIDE = 60.0
"""Degrees from which on a raster's edge does not tell where its inside is, once it is projected."""

TURNS = np.array([-360.0, 0.0, 360.0])

EVERYWHERE = (-1e12, -1e12, 1e12, 1e12)
"""The place of a raster that may touch any pixel of a grid."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Outline:
    """Where a raster lies, by its own account.

    Attributes
    ----------
    crs : str
        WKT.
    transform : Affine
    shape : (int, int)
        Pixels, (y, x).
    """

    crs: str
    transform: Affine
    shape: tuple[int, int]


def boxes(outlines: Sequence[Outline], onto: Outline) -> np.ndarray:
    """Give the pixels of a grid that each raster may touch.

    Parameters
    ----------
    outlines : sequence of n Outline
    onto : Outline
        The grid.

    Returns
    -------
    (n, 4) int64 array
        (top, left, bottom, right); rounded outward, but not for a thousandth of a pixel, and a pixel more in another
        CRS. All 0, which is empty, for a raster that the CRS of the grid cannot show.
    """
    found = np.zeros((len(outlines), 4), "int64")
    groups: dict[str, list[int]] = {}
    for number, outline in enumerate(outlines):
        groups.setdefault(outline.crs, []).append(number)
    for crs, numbers in groups.items():
        places = extents([outlines[number] for number in numbers], onto)
        found[numbers] = rounded(places, 0 if equal(crs, onto.crs) else 1)
    return found


def extents(outlines: Sequence[Outline], onto: Outline) -> np.ndarray:
    """Give where rasters of one CRS lie on a grid, in its pixels.

    Returns
    -------
    (n, 4) float64 array
        (top, left, bottom, right). NaN for a raster that the CRS of the grid cannot show; ``EVERYWHERE`` for one
        that it shows in part, that holds a pole, or that is wider than ``WIDE``.
    """
    same = equal(outlines[0].crs, onto.crs)
    xs, ys = _edges(outlines, 2 if same else STEPS)
    if not same:
        xs, ys = (np.array(part) for part in _projection(outlines[0].crs, onto.crs).transform(xs, ys))
    wide = np.zeros(len(xs), bool)
    if not same and is_geographic(outlines[0].crs):
        wide = np.array([max(o.transform.a * o.shape[1], -o.transform.e * o.shape[0]) > WIDE for o in outlines])
    shown = np.isfinite(xs) & np.isfinite(ys)
    nowhere = ~shown.any(axis=1) & ~wide
    everywhere = ~nowhere & (~shown.all(axis=1) | wide)
    xs[~shown.all(axis=1)], ys[~shown.all(axis=1)] = 0.0, 0.0
    west, east = xs.min(axis=1), xs.max(axis=1)
    if is_geographic(onto.crs):
        west, east, holds_pole = _turned(xs if same else np.unwrap(xs, period=360.0, axis=1), onto)
        everywhere |= holds_pole
    left, right = ((edge - onto.transform.c) / onto.transform.a for edge in (west, east))
    top, bottom = ((edge - onto.transform.f) / onto.transform.e for edge in (ys.max(axis=1), ys.min(axis=1)))
    places = np.stack([top, left, bottom, right], axis=1)
    places[everywhere] = EVERYWHERE
    places[nowhere] = np.nan
    return places


def _edges(outlines: Sequence[Outline], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Give x and y of points on the way round each raster: (n, 4 * steps) float64."""
    share, zero, one = np.linspace(0, 1, steps), np.zeros(steps), np.ones(steps)
    right = np.concatenate([share, one, share[::-1], zero])
    down = np.concatenate([zero, share, one, share[::-1]])
    place = np.array([tuple(outline.transform)[:6] for outline in outlines], "float64")
    shape = np.array([outline.shape for outline in outlines], "float64")
    columns, rows = shape[:, 1:] * right, shape[:, :1] * down
    a, b, c, d, e, f = (place[:, [number]] for number in range(6))
    return a * columns + b * rows + c, d * columns + e * rows + f


def _turned(way: np.ndarray, onto: Outline) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the westmost and eastmost longitude of each raster, whole turns away where the grid is, and which of them
    hold a pole, as the way round them does not end where it began."""
    west, east = way.min(axis=1)[:, None] + TURNS, way.max(axis=1)[:, None] + TURNS
    first, last = sorted((onto.transform.c, onto.transform.c + onto.transform.a * onto.shape[1]))
    touches = (west < last) & (east > first)
    nearest = np.abs(west + east - first - last).argmin(axis=1)
    touches[np.arange(len(way)), nearest] |= ~touches.any(axis=1)
    hull = np.where(touches, west, np.inf).min(axis=1), np.where(touches, east, -np.inf).max(axis=1)
    return *hull, np.abs(way[:, -1] - way[:, 0]) > 180


def rounded(places: np.ndarray, margin: int) -> np.ndarray:
    """Round extents outward to boxes, but not for a thousandth of a pixel, and add a margin; NaN becomes all 0."""
    sides = np.concatenate([np.floor(places[:, :2] + ON_GRID) - margin, np.ceil(places[:, 2:] - ON_GRID) + margin], 1)
    sides[np.isnan(sides).any(axis=1)] = 0
    return sides.astype("int64")


def turn(outline: Outline, onto: Outline) -> Outline:
    """Move a raster in degrees by whole turns to where a grid in degrees is, such as one across the antimeridian."""
    if not is_geographic(onto.crs) or not equal(outline.crs, onto.crs):
        return outline
    _, left, _, right = extents([outline], onto)[0]
    if (right - left) * onto.transform.a > outline.shape[1] * outline.transform.a * 1.001:
        got, do = "a grid across the edge of one that goes round the Earth", "Read both sides apart"
        raise BadInput(sentence("grid", "lie on one side of the edge of a file", got, do))
    turns = round((onto.transform.c + left * onto.transform.a - outline.transform.c) / 360)
    if turns == 0:
        return outline
    return Outline(outline.crs, Affine.translation(360.0 * turns, 0) @ outline.transform, outline.shape)


def union(outlines: Sequence[Outline], names: Sequence[str]) -> GeoBox:
    """Give the grid that holds all rasters: in the CRS of most, on the pixels of the finest one in that CRS.

    Raises
    ------
    BadInput
        If a raster lies out of what that CRS can show; it is named.
    """
    alike = _alike({outline.crs for outline in outlines})
    crs = Counter(alike[outline.crs] for outline in outlines).most_common(1)[0][0]
    in_crs = (outline for outline in outlines if alike[outline.crs] == crs)
    finest = min(in_crs, key=lambda outline: abs(outline.transform.a * outline.transform.e))
    return spanned(outlines, names, Outline(crs, finest.transform, finest.shape))


def spanned(outlines: Sequence[Outline], names: Sequence[str], onto: Outline) -> GeoBox:
    """Give the grid that holds all rasters on the pixels of another, going on in all directions.

    In degrees, longitudes run on across the antimeridian: all lie within half a turn of the first.
    """
    onto = _beside(outlines[0], onto)
    found = boxes(outlines, onto)
    for name, box in zip(names, found):
        if box[0] >= box[2] or abs(box).max() >= EVERYWHERE[2] / 2:
            do = "Pass grid= in a CRS that holds all"
            raise BadInput(sentence(name, "lie within the CRS of the grid", "a place that it cannot show", do))
    (top, left), (bottom, right) = found[:, :2].min(0).tolist(), found[:, 2:].max(0).tolist()
    return GeoBox((bottom - top, right - left), onto.transform @ Affine.translation(left, top), onto.crs)


def _beside(outline: Outline, onto: Outline) -> Outline:
    """Move a grid in degrees by whole pixels to a raster that lies off it, as the others are looked for round it."""
    _, left, _, right = boxes([outline], onto)[0].tolist()
    if not is_geographic(onto.crs) or (left < onto.shape[1] and right > 0):
        return onto
    return Outline(onto.crs, onto.transform @ Affine.translation((left + right) // 2, 0), (1, 1))


def _alike(texts: set[str]) -> dict[str, str]:
    """Map every CRS text to one that stands for all that mean the same."""
    alike: dict[str, str] = {}
    for text in sorted(texts):
        alike[text] = next((other for other in alike.values() if equal(other, text)), text)
    return alike


def covers(boxes: Sequence[Box], shape: tuple[int, int]) -> bool:
    """Say whether boxes leave no pixel of a grid bare."""
    whole = shapely.box(0, 0, shape[1], shape[0])
    parts = [shapely.box(left, top, right, bottom) for top, left, bottom, right in boxes]
    return bool(shapely.union_all(parts).intersection(whole).area >= whole.area - 0.5)


def common(one: Box, other: Box) -> Box:
    """Give the pixels of both boxes; empty if the last two are not larger than the first two."""
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


def scale(outline: Outline, onto: Outline) -> tuple[float, float]:
    """Give how many pixels of a grid a pixel of a raster makes, (y, x), in its middle; 1 where that is not shown."""
    middle = np.array(outline.shape[::-1]) / 2
    columns, rows = middle[:, None] + ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    place = outline.transform
    xs, ys = place.a * columns + place.b * rows + place.c, place.d * columns + place.e * rows + place.f
    if not equal(outline.crs, onto.crs):
        xs, ys = _projection(outline.crs, onto.crs).transform(xs, ys)
    along_x, along_y = np.asarray(xs)[1:] - xs[0], np.asarray(ys)[1:] - ys[0]
    if is_geographic(onto.crs):
        along_x = (along_x + 180) % 360 - 180
    found = math.hypot(*along_y) / abs(onto.transform.e), math.hypot(*along_x) / onto.transform.a
    return found if all(math.isfinite(part) and part > 0 for part in found) else (1.0, 1.0)


@lru_cache(maxsize=256)
def is_geographic(crs: str) -> bool:
    """Say whether a CRS text is in degrees."""
    return bool(CRS.from_wkt(crs).is_geographic)


@lru_cache(maxsize=256)
def _projection(source: str, crs: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(source, crs, always_xy=True)


@lru_cache(maxsize=1024)
def equal(one: str, other: str) -> bool:
    """Say whether two CRS texts mean the same; comparing takes longer than opening a file."""
    return one == other or CRS.from_wkt(one) == CRS.from_wkt(other)
