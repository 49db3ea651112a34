"""Landslide inventories: polygons to a mask, and score maps of any size to polygons."""

import math
import tempfile
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pyproj
import rasterio.features
import shapely
import xarray as xr
from affine import Affine
from numba import njit
from odc.geo.geobox import GeoBox

from lsdask import schema
from lsdask.errors import BadInput, NotFound, sentence

Window = tuple[slice, slice]

CHUNK = 2048
"""Side of a chunk of a mask whose ``like`` is not lazy, in pixels."""


# --- polygons to pixels ----------------------------------------------------------------------------------------------


def rasterize(polygons: gpd.GeoDataFrame | str | Path, like: xr.DataArray, *, unknown: bool = True) -> xr.DataArray:
    """Burn an inventory into a mask on the grid of an image, lazily.

    A pixel is landslide if its centre lies in a polygon, as in ``rasterio.features.rasterize``. A chunk looks at the
    polygons that touch it and at no others.

    Parameters
    ----------
    polygons : GeoDataFrame or path
        The inventory in any CRS; a path names GeoJSON, GeoPackage, FlatGeobuf, a shapefile or GeoParquet. Geometries
        that are not valid are mended, with a warning that counts them.
    like : DataArray (..., y, x)
        The image whose grid, chunks and void the mask takes.
    unknown : bool
        Write 255 where ``like`` is void. Say False to leave the image unread.

    Returns
    -------
    DataArray (y, x) uint8
        1 landslide, 0 not, 255 unknown.

    Raises
    ------
    NotFound
        If the file is not there.
    BadInput
        If the inventory has no CRS or holds points or lines, or ``like`` has no grid.
    """
    grid = schema.geobox(like, "like")
    burned = burn(on_pixels(load(polygons), grid), grid.shape, chunks=_chunks(like), dtype="uint8")
    if unknown and not (like.dtype.kind in "iub" and schema.nodata(like) is None):
        known = schema.valid(like)
        known = known.any([dim for dim in known.dims if dim not in schema.MASK])
        burned = da.where(da.asarray(known.data).rechunk(burned.chunks), burned, np.uint8(schema.UNKNOWN))
    return schema.wrap(burned, grid, schema.MASK, name="mask", nodata=schema.UNKNOWN)


def _chunks(like: xr.DataArray) -> Any:
    sizes = like.chunksizes
    return (sizes["y"], sizes["x"]) if sizes else (CHUNK, CHUNK)


def load(polygons: gpd.GeoDataFrame | str | Path, *, name: str = "polygons") -> gpd.GeoDataFrame:
    """Read an inventory and check that it is one.

    Parameters
    ----------
    polygons : GeoDataFrame or path
        As for ``rasterize``.
    name : str
        What to call it in an error.

    Returns
    -------
    GeoDataFrame
        Its rows that hold an area, with valid Polygons and MultiPolygons.

    Raises
    ------
    NotFound
        If the file is not there.
    BadInput
        If there is no CRS, or there are points or lines.
    """
    frame = polygons if isinstance(polygons, gpd.GeoDataFrame) else _read(Path(polygons), name)
    if frame.crs is None:
        do = f"Say which it is: {name}.set_crs('EPSG:...')"
        raise BadInput(sentence(name, "have a CRS", "none", do))
    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    kinds = set(frame.geom_type) - {"Polygon", "MultiPolygon", "GeometryCollection"}
    if kinds:
        do = f"Buffer them, or leave them out: {name}[{name}.geom_type.isin(['Polygon', 'MultiPolygon'])]"
        raise BadInput(sentence(name, "hold Polygons and MultiPolygons only", ", ".join(sorted(kinds)), do))
    return _mended(frame, name)


def _read(path: Path, name: str) -> gpd.GeoDataFrame:
    if not path.exists():
        raise NotFound(sentence(name, "name a file", f"{path}, which is not there"))
    read = gpd.read_parquet if path.suffix in (".parquet", ".geoparquet") else gpd.read_file
    try:
        return read(path)
    except (ValueError, OSError, RuntimeError) as error:
        rule = "name a file of polygons (GeoJSON, GPKG, FlatGeobuf, GeoParquet)"
        raise BadInput(sentence(name, rule, f"{path}: {error}".rstrip("."))) from error


def _mended(frame: gpd.GeoDataFrame, name: str) -> gpd.GeoDataFrame:
    """Make every geometry valid, and say how many were not."""
    broken = ~frame.geometry.is_valid | (frame.geom_type == "GeometryCollection")
    if not broken.any():
        return frame
    text = f"{int(broken.sum())} of {len(frame)} geometries of {name} were not valid and have been mended"
    warnings.warn(text, stacklevel=4)
    frame = frame.copy()
    mended = [_area_of(shape) for shape in shapely.make_valid(frame.geometry[broken].to_numpy())]
    frame.loc[broken, frame.geometry.name] = gpd.GeoSeries(mended, index=frame.index[broken], crs=frame.crs)
    return frame[~frame.geometry.is_empty]


def _area_of(geometry: Any) -> Any:
    """Leave the polygons of a geometry, which may hold points and lines beside them."""
    parts = shapely.get_parts(geometry)
    if (shapely.get_type_id(parts) == shapely.GeometryType.GEOMETRYCOLLECTION).any():
        parts = shapely.get_parts(parts)
    return shapely.union_all(parts[shapely.area(parts) > 0])


def on_pixels(frame: gpd.GeoDataFrame, grid: GeoBox) -> np.ndarray:
    """Give the geometries of an inventory, in any CRS, as ``to_pixels`` does."""
    frame = frame if frame.crs == grid.crs else frame.to_crs(grid.crs)
    return to_pixels(frame.geometry.to_numpy(), grid)


def to_pixels(geometries: np.ndarray, grid: GeoBox) -> np.ndarray:
    """Put geometries of a grid's CRS into its pixel coordinates (column, row): (geometry,) object array."""
    return shapely.transform(geometries, lambda xy: _through(~grid.transform, xy))


def to_map(geometries: np.ndarray, grid: GeoBox) -> np.ndarray:
    """Put geometries in pixel coordinates (column, row) of a grid into its CRS: (geometry,) object array."""
    return shapely.transform(geometries, lambda xy: _through(grid.transform, xy))


def _through(transform: Affine, xy: np.ndarray) -> np.ndarray:
    """Send points (n, 2) through a transform."""
    x = transform.a * xy[:, 0] + transform.b * xy[:, 1] + transform.c
    y = transform.d * xy[:, 0] + transform.e * xy[:, 1] + transform.f
    return np.stack([x, y], axis=1)


def burn_block(geometries: np.ndarray, window: Window, *, values: Any = 1, dtype: Any = "uint8") -> np.ndarray:
    """Burn geometries in pixel coordinates into a window of the grid.

    Parameters
    ----------
    geometries : (geometry,) object array of Polygons and MultiPolygons
        In pixel coordinates (column, row) of the whole grid, so that all windows round alike; later ones on top.
    window : (slice, slice)
        Rows and columns.
    values : number or sequence
        What to burn, one for all or one for each.
    dtype : dtype
        Of the result.

    Returns
    -------
    (y, x) array of ``dtype``; 0 outside
    """
    rows, columns = window
    shape = rows.stop - rows.start, columns.stop - columns.start
    if not len(geometries):
        return np.zeros(shape, dtype)
    pairs = zip(geometries, np.broadcast_to(values, len(geometries)).tolist())
    corner = Affine.translation(columns.start, rows.start)
    return rasterio.features.rasterize(pairs, out_shape=shape, transform=corner, fill=0, dtype=dtype)


class Burning:
    """Geometries on a grid as an array that is burned where it is read; what a lazy mask is made of.

    Attributes
    ----------
    geometries : (polygon,) object array
        In pixel coordinates (column, row).
    shape : (int, int)
        The grid, pixels (y, x).
    """

    ndim = 2

    def __init__(self, geometries: np.ndarray, shape: tuple[int, int], dtype: Any) -> None:
        self.geometries, self.shape, self.dtype = geometries, (int(shape[0]), int(shape[1])), np.dtype(dtype)

    @cached_property
    def tree(self) -> shapely.STRtree:
        """The geometries by place."""
        return shapely.STRtree(self.geometries)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "tree"}

    def __dask_tokenize__(self) -> Any:
        return "lsdask.Burning", self.shape, str(self.dtype), shapely.to_wkb(self.geometries).tolist()

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        window, steps = hull(key, self.shape)
        box = shapely.box(window[1].start, window[0].start, window[1].stop, window[0].stop)
        touching = np.sort(self.tree.query(box))
        return burn_block(self.geometries[touching], window, dtype=self.dtype)[steps]


def hull(key: tuple[slice, ...], shape: Sequence[int]) -> tuple[Window, tuple[slice, slice]]:
    """Split two slices of an array's key into the window they span and the steps to take in that window.

    Examples
    --------
    >>> hull((slice(10, None, 5), slice(3, 4)), (20, 20))
    ((slice(10, 16, None), slice(3, 4, None)), (slice(0, 6, 5), slice(0, 1, 1)))
    """
    y, x = (_span(range(*part.indices(size))) for part, size in zip(key, shape))
    return (y[0], x[0]), (y[1], x[1])


def _span(taken: range) -> tuple[slice, slice]:
    """Give the least range that holds the positions taken, at least one, and where they lie in it."""
    if not taken:
        return slice(0, 1), slice(0, 0, 1)
    low, high = min(taken[0], taken[-1]), max(taken[0], taken[-1]) + 1
    last = taken[-1] - low + (1 if taken.step > 0 else -1)
    return slice(low, high), slice(taken[0] - low, last if last >= 0 else None, taken.step)


def burn(geometries: np.ndarray, shape: Sequence[int], *, chunks: Any, dtype: Any = "uint8") -> da.Array:
    """Make a lazy array (y, x) of geometries in pixel coordinates: 1 in them, 0 outside; one task a chunk."""
    source = Burning(geometries, (shape[0], shape[1]), dtype)
    return da.from_array(source, chunks=chunks, asarray=False, meta=np.empty((0, 0), dtype))


# --- pixels to outlines, as integers ---------------------------------------------------------------------------------
#
# A map is first reduced to *runs*, the unbroken stretches of true pixels of each row. Runs are few, they join across
# tiles by being laid end to end, and an outline follows from the runs of two neighbouring rows alone: it has a corner
# wherever a run begins or ends in one row and not in the other. So a tile traces what lies inside it and hands on the
# runs of what touches its edge; tracing those again, all tiles together, gives the outlines that the whole map would
# have given, point for point.


class Runs(NamedTuple):
    """Stretches of true pixels, sorted by row and start.

    Attributes
    ----------
    row, start, stop : (run,) int64
        Pixels ``[start, stop)`` of a row of the whole map.
    total, top : (run,) float64
        Sum and largest of the values of these pixels.
    """

    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    total: np.ndarray
    top: np.ndarray

    def take(self, chosen: np.ndarray) -> "Runs":
        """Give some of the runs, by a bool array or by their positions in rising order."""
        return Runs(*(part[chosen] for part in self))


class Rings(NamedTuple):
    """Outlines of areas, in pixel coordinates; positive (clockwise, y falling) outside, negative round a hole.

    Attributes
    ----------
    corners : (corner, 2) int64
        (x, y), ring after ring; a ring's first corner is not repeated.
    size : (ring,) int64
        Corners of each ring.
    part : (ring,) int64
        The 4-connected part that each ring bounds, as the position of its first run; outside first, then its holes.
    """

    corners: np.ndarray
    size: np.ndarray
    part: np.ndarray


@njit(cache=True, nogil=True)
def _scan(values: Any, low: Any, high: Any, row: Any, start: Any, stop: Any, total: Any, top: Any) -> int:
    """Write the runs of values from low to high, as many as there is room for; give how many there are."""
    n, room = 0, row.size
    for r in range(values.shape[0]):
        j = 0
        while j < values.shape[1]:
            if not low <= values[r, j] <= high:
                j += 1
                continue
            first, added, most = j, 0.0, values[r, j]
            while j < values.shape[1] and low <= values[r, j] <= high:
                added += values[r, j]
                most = max(most, values[r, j])
                j += 1
            if n < room:
                row[n], start[n], stop[n], total[n], top[n] = r, first, j, added, most
            n += 1
    return n


def runs_block(values: np.ndarray, low: Any, high: Any, *, corner: tuple[int, int] = (0, 0)) -> Runs:
    """Find the runs of pixels whose value lies from ``low`` to ``high``.

    Parameters
    ----------
    values : (y, x) array
        NaN lies in no range.
    low, high : number
        Both included.
    corner : (int, int)
        Row and column of the first pixel in the whole map.

    Returns
    -------
    Runs
    """
    room = values.size // 32 + 1024
    while True:
        places = [np.empty(room, "int64") for _ in range(3)]
        sums = [np.empty(room, "float64") for _ in range(2)]
        n = _scan(values, low, high, *places, *sums)
        if n <= room:
            row, start, stop = (part[:n] for part in places)
            return Runs(row + corner[0], start + corner[1], stop + corner[1], sums[0][:n], sums[1][:n])
        room = n


def merge(pieces: list[Runs]) -> Runs:
    """Put the runs of neighbouring tiles together: sorted, and one where two meet end to end.

    Returns
    -------
    Runs
    """
    runs = Runs(*(np.concatenate(parts) for parts in zip(*pieces)))
    runs = runs.take(np.lexsort((runs.start, runs.row)))
    if not len(runs.row):
        return runs
    meets = (runs.row[1:] == runs.row[:-1]) & (runs.start[1:] == runs.stop[:-1])
    first = np.flatnonzero(np.concatenate([[True], ~meets]))
    last = np.append(first[1:], len(runs.row)) - 1
    total, top = np.add.reduceat(runs.total, first), np.maximum.reduceat(runs.top, first)
    return Runs(runs.row[first], runs.start[first], runs.stop[last], total, top)


@njit(cache=True, nogil=True)
def _root(parent: Any, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def areas_block(row: Any, start: Any, stop: Any, reach: int) -> Any:
    """Say which area each run belongs to.

    Parameters
    ----------
    row, start, stop : (run,) int64
        As in ``Runs``.
    reach : int
        0 joins pixels by their sides (4-connected), 1 by their corners too (8-connected).

    Returns
    -------
    (run,) int64
        The position of the area's first run.
    """
    parent = np.arange(row.size)
    above = 0
    for i in range(row.size):
        while above < i and (row[above] < row[i] - 1 or (row[above] < row[i] and stop[above] + reach <= start[i])):
            above += 1
        j = above
        while j < i and row[j] < row[i] and start[j] < stop[i] + reach:
            a, b = _root(parent, i), _root(parent, j)
            parent[max(a, b)] = min(a, b)
            j += 1
    for i in range(row.size):
        parent[i] = _root(parent, i)
    return parent


@njit(cache=True, nogil=True)
def _corners(row: Any, start: Any, stop: Any) -> Any:
    """Find every corner of every outline and the corner that follows it.

    Each line between two rows is swept from left to right over the ends of the runs above and below it. Where a
    run begins or ends on one side only, the outline turns; where one ends above and another begins below (or the
    other way about), two corners of one place belong to the two runs that meet there.

    Returns
    -------
    x, y : (corner,) int64
    follower : (corner,) int64
        The next corner, with the area on the right hand.
    twin : (corner,) int64
        The other corner of the same place, or -1.
    run : (corner,) int64
        A run of the area it bounds.
    """
    n = row.size
    x, y = np.empty(4 * n, np.int64), np.empty(4 * n, np.int64)
    follower, twin, run = np.empty(4 * n, np.int64), np.full(4 * n, -1, np.int64), np.empty(4 * n, np.int64)
    opened = np.empty(2 * n, np.int64)  # the corner at the upper end of the side a run's start or stop lies on
    made = 0
    a0, a1, b1 = 0, 0, 0
    while a1 > a0 or b1 < n:
        if a1 > a0 and (b1 == n or row[b1] > row[a0] + 1):
            line, b0 = row[a0] + 1, b1  # below lies an empty row
        else:
            line, b0 = row[b1], b1
            while b1 < n and row[b1] == line:
                b1 += 1
        i, k = 2 * a0, 2 * b0  # ends of runs above and below: 2 * run for its start, 2 * run + 1 for its stop
        waiting = -1
        while i < 2 * a1 or k < 2 * b1:
            up = (stop[i // 2] if i % 2 else start[i // 2]) if i < 2 * a1 else np.int64(2**62)
            down = (stop[k // 2] if k % 2 else start[k // 2]) if k < 2 * b1 else np.int64(2**62)
            if up == down and i % 2 == k % 2:
                opened[k] = opened[i]
                i, k = i + 1, k + 1
                continue
            here = min(up, down)
            both = up == down
            for turn in range(2 if both else 1):
                c = made
                made += 1
                x[c], y[c] = here, line
                # At a place of two corners, the one whose horizontal side lies to the left comes first.
                ends = (turn == (1 - i % 2)) if both else up < down
                if ends:
                    run[c] = i // 2
                    if i % 2:
                        follower[opened[i]] = c
                    else:
                        follower[c] = opened[i]
                else:
                    run[c] = k // 2
                    opened[k] = c
                if waiting < 0:
                    waiting = c
                else:
                    # The area lies above this side if, just left of here, a run above is open.
                    if i % 2:
                        follower[c] = waiting
                    else:
                        follower[waiting] = c
                    waiting = -1
            if both:
                twin[made - 1], twin[made - 2] = made - 2, made - 1
            if up == here:
                i += 1
            if down == here:
                k += 1
        a0, a1 = b0, b1
    return x[:made], y[:made], follower[:made], twin[:made], run[:made]


@njit(cache=True, nogil=True)
def _follow(x: Any, y: Any, follower: Any, twin: Any) -> Any:
    """Walk from corner to corner; where a walk comes back to a place, what it went round is a ring of its own.

    Returns
    -------
    order : (corner,) int64
        The corners, ring after ring.
    size : (ring,) int64
    hole : (ring,) bool
    """
    order, size = np.empty(x.size, np.int64), np.empty(x.size // 4 + 1, np.int64)
    hole = np.empty(size.size, np.bool_)
    path, place = np.empty(x.size, np.int64), np.full(x.size, -1, np.int64)
    seen = np.zeros(x.size, np.bool_)
    rings, written = 0, 0
    for first in range(x.size):
        if seen[first]:
            continue
        c, length = first, 0
        while True:
            back = -1
            if seen[c]:
                back = 0
            elif twin[c] >= 0 and place[twin[c]] >= 0:
                back = place[twin[c]]
            if back >= 0:
                twice = np.int64(0)
                for k in range(back, length):
                    a, b = path[k], path[k + 1 if k + 1 < length else back]
                    twice += x[a] * y[b] - x[b] * y[a]
                    place[a] = -1
                    order[written + k - back] = a
                size[rings], hole[rings] = length - back, twice < 0
                written, rings, length = written + length - back, rings + 1, back
            if seen[c]:
                break
            seen[c] = True
            path[length], place[c] = c, length
            c, length = follower[c], length + 1
    return order, size[:rings], hole[:rings]


def rings_block(runs: Runs) -> Rings:
    """Trace the outlines of runs.

    Parameters
    ----------
    runs : Runs

    Returns
    -------
    Rings
        Without corners on a straight line; no ring touches itself.
    """
    x, y, follower, twin, run = _corners(runs.row, runs.start, runs.stop)
    order, size, hole = _follow(x, y, follower, twin)
    first = np.concatenate([[0], np.cumsum(size)])[:-1].astype(int)
    part = areas_block(runs.row, runs.start, runs.stop, 0)[run[order[first]]]
    sorted_ = np.lexsort((hole, part))
    corners = np.stack([x, y], axis=1)[order[_spans(first[sorted_], size[sorted_])]]
    return Rings(corners, size[sorted_], part[sorted_])


def _spans(first: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Give the positions of some ranges, one range after the other."""
    ends = np.cumsum(size)
    return np.repeat(first - ends + size, size) + np.arange(ends[-1] if len(ends) else 0)


class Areas(NamedTuple):
    """Traced areas, in the order of their first runs.

    Attributes
    ----------
    corners : (corner, 2) int64
        (x, y) in pixels, ring after ring; the first corner of a ring is not repeated.
    size : (ring,) int64
        Corners of each ring, part after part; a part's outside first, then its holes.
    rings : (part,) int64
        Rings of each 4-connected part, area after area.
    parts : (area,) int64
        Parts of each area: 1, or more where they meet only at corners.
    place : (area, 2) int64
        Row and column of its first pixel.
    pixels : (area,) int64
    total, top : (area,) float64
        Sum and largest of its pixels' values.
    """

    corners: np.ndarray
    size: np.ndarray
    rings: np.ndarray
    parts: np.ndarray
    place: np.ndarray
    pixels: np.ndarray
    total: np.ndarray
    top: np.ndarray


def areas(runs: Runs, *, reach: int = 0, least: int = 1) -> Areas:
    """Trace the areas that runs make up.

    Parameters
    ----------
    runs : Runs
    reach : int
        0 for 4-connected areas, 1 for 8-connected.
    least : int
        Leave out areas of fewer pixels.

    Returns
    -------
    Areas
    """
    first, area = np.unique(areas_block(runs.row, runs.start, runs.stop, reach), return_inverse=True)
    pixels = np.bincount(area, runs.stop - runs.start, len(first)).astype("int64")
    large = pixels >= least
    runs, area = runs.take(large[area]), (np.cumsum(large) - 1)[area[large[area]]]
    top = np.zeros(int(large.sum()))
    np.maximum.at(top, area, runs.top)
    corners, size, rings, parts = _traced(runs, area, len(top))
    place = np.stack([runs.row, runs.start], axis=1)[np.unique(area, return_index=True)[1]]
    return Areas(corners, size, rings, parts, place, pixels[large], np.bincount(area, runs.total, len(top)), top)


def _traced(runs: Runs, area: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Trace runs, with rings in the order of their areas: corners, size, rings and parts, as in ``Areas``."""
    traced = rings_block(runs)
    order = np.argsort(area[traced.part], kind="stable")
    first = np.cumsum(traced.size) - traced.size
    corners = traced.corners[_spans(first[order], traced.size[order])]
    part = traced.part[order]
    begins = np.flatnonzero(np.diff(part, prepend=-1))
    rings = np.diff(begins, append=len(part))
    return corners, traced.size[order], rings, np.bincount(area[part[begins]], minlength=n)


def trace_block(
    values: np.ndarray,
    low: Any,
    high: Any,
    *,
    corner: tuple[int, int],
    shape: tuple[int, int],
    reach: int = 0,
    least: int = 1,
) -> tuple[Areas, Runs]:
    """Trace the areas of a tile that touch no other tile.

    Parameters
    ----------
    values : (y, x) array
        The tile.
    low, high : number
        Pixels of values from low to high, both included, are traced.
    corner, shape : (int, int)
        Row and column of the tile's first pixel in the whole map; rows and columns of the whole map.
    reach, least : int
        As for ``areas``.

    Returns
    -------
    Areas
        What lies inside.
    Runs
        What reaches another tile.
    """
    runs = runs_block(values, low, high, corner=corner)
    (top, left), (bottom, right) = corner, (corner[0] + values.shape[0], corner[1] + values.shape[1])
    crosses = (runs.row == top) & (top > 0) | (runs.row == bottom - 1) & (bottom < shape[0])
    crosses |= (runs.start == left) & (left > 0) | (runs.stop == right) & (right < shape[1])
    area = areas_block(runs.row, runs.start, runs.stop, reach)
    goes_on = np.zeros(len(area), dtype=bool)
    goes_on[area[crosses]] = True
    return areas(runs.take(~goes_on[area]), reach=reach, least=least), runs.take(goes_on[area])


# --- scores to polygons ----------------------------------------------------------------------------------------------

COLUMNS = ("id", "area_m2", "perimeter_m", "mean_score", "max_score")


def vectorize(
    scores: xr.DataArray,
    *,
    threshold: float = 0.5,
    min_area_m2: float = 0.0,
    class_: Any = None,
    connectivity: Literal[4, 8] = 4,
    client: Any = None,
) -> gpd.GeoDataFrame:
    """Turn a score map of any size into polygons, tile by tile, equal to tracing the whole map at once.

    What does not depend on the tiles: geometries, attributes and order, to the last bit. Memory is that of the tiles
    at work, of the polygons, and of the rows of those that cross a tile's edge.

    Parameters
    ----------
    scores : DataArray (class, y, x) or (y, x), uint8, float or bool
        Probabilities as ``schema`` stores them, or True where there is a landslide. 255 (uint8) and NaN (float) are
        unknown, and no landslide.
    threshold : float, 0 to 1
        A pixel is landslide where its score >= threshold. uint8 scores are compared as the multiples of 1/250 they
        are, floats in their own precision.
    min_area_m2 : float
        Leave out smaller ones.
    class_ : label or int, optional
        Which class, by its label in the ``class`` coordinate, or its position where there is none. May be left out if
        there is one.
    connectivity : {4, 8}
        Whether pixels that meet at a side (4) or also those that meet at a corner (8) are one landslide. Its parts
        that meet at corners only are parts of a MultiPolygon, so that every geometry is valid.
    client : distributed.Client, optional
        Where to run; Dask's own choice unless given.

    Returns
    -------
    GeoDataFrame
        ``id`` (1 and on, from the top), ``area_m2``, ``perimeter_m`` (holes' too), ``mean_score``, ``max_score``,
        ``geometry``, in the CRS of the scores. Areas and lengths are measured in the plane of a projected CRS (so
        use one that keeps areas: a Mercator does not) and on the ellipsoid of a geographic one.

    Raises
    ------
    BadInput
        If dims, dtype, grid, threshold, area, class or connectivity do not fit.
    """
    _check_numbers(threshold, min_area_m2, connectivity)
    flat = _one_class(scores, class_)
    grid = schema.geobox(flat, "scores")
    data, low, high, scale = _levels(flat, threshold)
    pixel = _pixel_m2(grid)
    least = 1 if pixel is None else max(1, math.ceil(min_area_m2 / pixel * (1 - 1e-9)))
    found = _gathered(_tiles(data), low, high, reach=int(connectivity == 8), least=least, client=client)
    frame = _frame(found, grid, scale, pixel)
    frame = frame[frame.area_m2 >= min_area_m2].reset_index(drop=True)
    frame.insert(0, "id", np.arange(1, len(frame) + 1))
    return frame


def _check_numbers(threshold: float, min_area_m2: float, connectivity: int) -> None:
    if not 0 <= threshold <= 1:
        raise BadInput(sentence("threshold", "lie in 0..1", f"threshold={threshold}"))
    if not min_area_m2 >= 0:
        raise BadInput(sentence("min_area_m2", "be 0 or more", f"min_area_m2={min_area_m2}"))
    if connectivity not in (4, 8):
        raise BadInput(sentence("connectivity", "be 4 or 8", f"connectivity={connectivity}"))


def _one_class(scores: xr.DataArray, class_: Any) -> xr.DataArray:
    """Give the (y, x) scores of one class."""
    if isinstance(scores, xr.DataArray) and scores.ndim == 2:
        schema.check(scores, schema.MASK, "scores")
        return scores
    schema.check(scores, schema.SCORES, "scores")
    labels = scores["class"].values.tolist() if "class" in scores.coords else list(range(scores.sizes["class"]))
    if class_ is None and len(labels) == 1:
        return scores.isel({"class": 0})
    if class_ not in labels:
        raise BadInput(sentence("class_", f"be one of {labels}", f"class_={class_!r}"))
    return scores.isel({"class": labels.index(class_)})


def _levels(scores: xr.DataArray, threshold: float) -> tuple[da.Array, Any, Any, float]:
    """Give the scores, the least and largest value that is a landslide, and what divides a value into a score."""
    data = da.asarray(scores.data)
    if data.dtype == bool:
        return data.view("uint8"), np.uint8(1), np.uint8(1), 1.0
    if data.dtype == np.uint8:
        steps = np.arange(schema.SCORE_STEPS + 1)
        low = np.uint8(np.flatnonzero(steps / schema.SCORE_STEPS >= threshold)[0])
        return data, low, np.uint8(schema.UNKNOWN - 1), float(schema.SCORE_STEPS)
    if data.dtype.kind != "f":
        rule = "be uint8 (p x 250), float or bool"
        raise BadInput(sentence("scores", rule, str(data.dtype), "Pass scores == 1 for a map of ones and zeros"))
    wide = data.astype("float32") if data.dtype.itemsize < 4 else data
    low = data.dtype.type(threshold).astype(wide.dtype)
    return wide, low, wide.dtype.type(np.inf), 1.0


def _tiles(data: da.Array) -> da.Array:
    """Join small chunks to tiles of about CHUNK pixels a side, and split none."""
    return data.rechunk(tuple(_joined(axis) for axis in data.chunks))


def _joined(axis: tuple[int, ...]) -> tuple[int, ...]:
    tiles: list[int] = []
    for size in axis:
        if tiles and tiles[-1] + size <= CHUNK:
            tiles[-1] += size
        else:
            tiles.append(size)
    return tuple(tiles)


def _gathered(data: da.Array, low: Any, high: Any, *, reach: int, least: int, client: Any) -> Areas:
    """Trace every tile, then what crosses their edges, and put all in order."""
    tops, lefts = (np.cumsum(axis) - axis for axis in data.chunks)
    blocks = data.to_delayed()
    trace = dask.delayed(trace_block, pure=False)
    traced = [
        trace(blocks[i, j], low, high, corner=(int(top), int(left)), shape=data.shape, reach=reach, least=least)
        for i, top in enumerate(tops)
        for j, left in enumerate(lefts)
    ]
    pieces = dask.compute(*traced, **({} if client is None else {"scheduler": client}))
    crossing = areas(merge([runs for _, runs in pieces]), reach=reach, least=least)
    return _together([*(inside for inside, _ in pieces), crossing])


def _together(pieces: list[Areas]) -> Areas:
    """Put the areas of several tiles together, in the order of their first pixels."""
    every = Areas(*(np.concatenate(parts) for parts in zip(*pieces)))
    order = np.lexsort((every.place[:, 1], every.place[:, 0]))
    parts = _spans((np.cumsum(every.parts) - every.parts)[order], every.parts[order])
    rings = _spans((np.cumsum(every.rings) - every.rings)[parts], every.rings[parts])
    corners = _spans((np.cumsum(every.size) - every.size)[rings], every.size[rings])
    return Areas(
        every.corners[corners],
        every.size[rings],
        every.rings[parts],
        *(part[order] for part in every[3:]),
    )


def _frame(found: Areas, grid: GeoBox, scale: float, pixel: float | None) -> gpd.GeoDataFrame:
    """Make the table of traced areas."""
    shapes = _shapes(found, grid)
    area, perimeter = _measured(shapes, grid)
    columns = {
        "area_m2": area if pixel is None else found.pixels * pixel,
        "perimeter_m": perimeter,
        "mean_score": found.total / found.pixels / scale,
        "max_score": found.top / scale,
    }
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=grid.crs.proj if grid.crs else None)


def _shapes(found: Areas, grid: GeoBox) -> np.ndarray:
    """Make Polygons and MultiPolygons in the CRS of the grid: (area,) object array."""
    # Every ring is closed by its first corner.
    first = np.cumsum(found.size) - found.size
    closed = found.corners[np.insert(np.arange(len(found.corners)), first + found.size, first)]
    rings, parts = (np.concatenate([[0], np.cumsum(n)]) for n in (found.size + 1, found.rings))
    coords = _through(grid.transform, closed.astype("float64"))
    polygons = np.asarray(shapely.from_ragged_array(shapely.GeometryType.POLYGON, coords, (rings, parts)))
    first_part = np.cumsum(found.parts) - found.parts
    shapes = polygons[first_part]
    several = found.parts > 1
    if several.any():
        owner = np.repeat(np.arange(int(several.sum())), found.parts[several])
        shapes[several] = shapely.multipolygons(
            polygons[_spans(first_part[several], found.parts[several])], indices=owner
        )
    return shapes


def _pixel_m2(grid: GeoBox) -> float | None:
    """Give the area of a pixel of a projected grid, m2; None where it differs from row to row."""
    if grid.crs is None or grid.crs.geographic:
        return None
    return abs(grid.transform.determinant) * _metres(grid) ** 2


def _metres(grid: GeoBox) -> float:
    """Give the length of the CRS's unit in metres."""
    return float(grid.crs.proj.axis_info[0].unit_conversion_factor) if grid.crs else 1.0


def _measured(shapes: np.ndarray, grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Measure area (m2) and perimeter (m): in the plane of a projected CRS, on the ellipsoid of a geographic one.

    A cylindrical equal-area projection of the CRS's own ellipsoid keeps meridians and parallels straight, so areas
    bounded by them come out exact. Source: Snyder 1987, Map projections, chapter 10.
    """
    if grid.crs is None or not grid.crs.geographic:
        unit = _metres(grid)
        return shapely.area(shapes) * unit**2, shapely.length(shapes) * unit
    globe = grid.crs.proj.get_geod()
    if globe is None:
        raise BadInput(sentence("scores", "have a CRS with an ellipsoid", str(grid.crs)))
    flat = pyproj.Proj(f"+proj=cea +a={globe.a!r} +b={globe.b!r}")
    area = shapely.area(shapely.transform(shapes, lambda xy: np.stack(flat(xy[:, 0], xy[:, 1]), axis=1)))
    return area, _around(shapes, globe)


def _around(shapes: np.ndarray, globe: pyproj.Geod) -> np.ndarray:
    """Measure perimeters on an ellipsoid, m."""
    rings, owner = shapely.get_rings(shapes, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    along = ring[1:] == ring[:-1]
    _, _, steps = globe.inv(*xy[:-1][along].T, *xy[1:][along].T)
    return np.bincount(owner[ring[:-1][along]], steps, len(shapes))


WRITERS = {".parquet": "", ".geoparquet": "", ".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".geojson": "GeoJSON"}


def write(frame: gpd.GeoDataFrame, path: str | Path) -> Path:
    """Write an inventory, whole or not at all; what was there before is replaced once the new file is complete.

    Parameters
    ----------
    frame : GeoDataFrame
    path : path
        Its suffix says the format: .parquet (GeoParquet), .gpkg (GeoPackage), .fgb (FlatGeobuf) or .geojson.

    Returns
    -------
    Path

    Raises
    ------
    BadInput
        If the suffix says none of these.
    NotFound
        If the folder is not there.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise BadInput(sentence("path", f"end in one of {', '.join(WRITERS)}", path.name))
    if not path.parent.is_dir():
        raise NotFound(sentence("path", "lie in a folder that exists", str(path.parent)))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
        whole = Path(folder) / path.name
        if driver := WRITERS[path.suffix]:
            frame.to_file(whole, driver=driver)
        else:
            frame.to_parquet(whole)
        whole.replace(path)
    return path
