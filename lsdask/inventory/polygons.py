"""Score maps of any size to polygons with attributes."""

import math
import os
from collections.abc import Iterator
from typing import Any, Literal

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.inventory.burning import through
from lsdask.inventory.measuring import crs_of, measure, metres
from lsdask.inventory.runs import Runs, merge, parted
from lsdask.inventory.tracing import Areas, areas, spans, together, trace_block
from lsdask.tasks import check_workers

CHUNK = 2048
"""Chunks smaller than this are traced together, pixels a side."""

AT_ONCE = 2
"""Tiles for each thread that are traced before what is finished leaves memory; at least a row of tiles is."""


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
    at work and of the table, about 1 kB a landslide; ``batches`` needs none for the table.

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
    options = {"min_area_m2": min_area_m2, "class_": class_, "connectivity": connectivity, "client": client}
    places, frames, _ = zip(*_frames(scores, threshold, **options))
    place = np.concatenate(places)
    frame = pd.concat(frames, ignore_index=True).iloc[np.lexsort((place[:, 1], place[:, 0]))]
    return _numbered(frame, 1)


def batches(
    scores: xr.DataArray,
    *,
    threshold: float = 0.5,
    min_area_m2: float = 0.0,
    class_: Any = None,
    connectivity: Literal[4, 8] = 4,
    apart: bool = False,
    client: Any = None,
) -> Iterator[gpd.GeoDataFrame]:
    """Give the polygons of ``vectorize`` as they are finished, going down the map: for maps of a continent.

    A polygon is finished when no tile below can add to it. Memory is that of some rows of tiles, their polygons, and
    what still goes on below them.

    Parameters
    ----------
    scores, threshold, min_area_m2, class_, connectivity, client
        As for ``vectorize``.
    apart : bool
        Keep polygons whose boxes meet in one batch, so that ``fill_holes`` and ``simplify``, for which only what
        lies in a polygon's box matters, make of the batches, one by one, what they make of the whole table. No
        polygon leaves then before all that reach as high as it have ended.

    Yields
    ------
    GeoDataFrame
        As ``vectorize`` gives it; together, the same rows in another order. ``id`` runs on from one to the next.

    Raises
    ------
    BadInput
        As ``vectorize``, when the first is asked for.

    Examples
    --------
    >>> write(batches(scores), "landslides.parquet")  # doctest: +SKIP
    >>> write(map(fill_holes, batches(scores, apart=True)), "landslides.parquet")  # doctest: +SKIP
    """
    options = {"min_area_m2": min_area_m2, "class_": class_, "connectivity": connectivity, "client": client}
    found = _frames(scores, threshold, **options)
    first = 1
    for place, frame, _ in _held(found) if apart else found:
        first += len(frame)
        yield _numbered(frame.iloc[np.lexsort((place[:, 1], place[:, 0]))], first - len(frame))
        del place, frame  # not to be held while the next is made


Finished = tuple[np.ndarray, gpd.GeoDataFrame, float]
"""First pixels (n, 2) and table of polygons, and the y below which all lies that is to come."""


def _held(found: Iterator[Finished]) -> Iterator[Finished]:
    """Hold polygons back until none to come can meet their boxes, nor the boxes of those that they are held with."""
    places, frames = [], []
    for place, frame, below in found:
        places.append(place)
        frames.append(frame)
        del place, frame
        place, frame = np.concatenate(places), pd.concat(frames, ignore_index=True)
        free = free_block(frame.bounds.to_numpy(), below)
        places, frames = [place[~free]], [frame[~free]]
        place, frame = place[free], frame[free]
        yield place, frame, below
        del place, frame  # not to be held while the next is made


def free_block(bounds: np.ndarray, below: float) -> np.ndarray:
    """Say which boxes lie above a line, with all boxes that they are joined to by boxes that meet.

    Parameters
    ----------
    bounds : (box, 4) float64
        Least x, least y, greatest x, greatest y.
    below : float
        The y of the line; boxes that touch it do not lie above.

    Returns
    -------
    (box,) bool
    """
    boxes, n = shapely.box(*bounds.T), len(bounds)
    one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    groups, group = connected_components(coo_array((np.ones(len(one), bool), (one, other)), (n, n)), directed=False)
    return np.bincount(group[bounds[:, 1] <= below], minlength=groups)[group] == 0


def _numbered(frame: gpd.GeoDataFrame, first: int) -> gpd.GeoDataFrame:
    frame = frame.reset_index(drop=True)
    frame.insert(0, "id", np.arange(first, first + len(frame)))
    return frame


def _frames(
    scores: xr.DataArray, threshold: float, *, min_area_m2: float, class_: Any, connectivity: int, client: Any
) -> Iterator[Finished]:
    """Give what is finished after each few rows of tiles."""
    _check_numbers(threshold, min_area_m2, connectivity)
    flat = schema.one_class(scores, class_)
    grid = schema.geobox(flat, "scores")
    data, low, high, scale = _levels(flat, threshold)
    pixel = _pixel_m2(grid)
    least = 1 if pixel is None else max(1, math.ceil(min_area_m2 / pixel * (1 - 1e-9)))
    tiles, reach = _tiles(data), int(connectivity == 8)
    for found, row in _finished(tiles, low, high, reach=reach, least=least, client=client):
        frame = _frame(found, grid, scale, pixel)
        large = (frame.area_m2 >= min_area_m2).to_numpy()
        yield found.place[large], frame[large], float(through(grid.transform, np.array([[0, row]]))[0, 1])
        del found, frame, large  # not to be held while the next is made


def _check_numbers(threshold: float, min_area_m2: float, connectivity: int) -> None:
    if not 0 <= threshold <= 1:
        raise BadInput(sentence("threshold", "lie in 0..1", f"threshold={threshold}"))
    if not min_area_m2 >= 0:
        raise BadInput(sentence("min_area_m2", "be 0 or more", f"min_area_m2={min_area_m2}"))
    if connectivity not in (4, 8):
        raise BadInput(sentence("connectivity", "be 4 or 8", f"connectivity={connectivity}"))


def _levels(scores: xr.DataArray, threshold: float) -> tuple[da.Array, Any, Any, float]:
    """Give the scores, the least and largest value that is a landslide, and what divides a value into a score."""
    data = da.asarray(scores.data)
    if data.dtype == bool:
        return data.view("uint8"), np.uint8(1), np.uint8(1), 1.0
    if data.dtype == np.uint8:
        return data, np.uint8(schema.first_step(threshold)), np.uint8(schema.UNKNOWN - 1), float(schema.SCORE_STEPS)
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


def _finished(
    data: da.Array, low: Any, high: Any, *, reach: int, least: int, client: Any
) -> Iterator[tuple[Areas, int]]:
    """Trace a map from the top down, some rows of tiles at a time.

    Yields
    ------
    Areas
        Those that end above the next rows of tiles.
    int
        The first row of any that is to come; one that is not in the map after the last.
    """
    check_workers(client)
    tops, lefts = (np.cumsum(axis) - axis for axis in data.chunks)
    blocks, trace = data.to_delayed(), dask.delayed(trace_block, pure=False)
    step = max(_at_once(client) // len(lefts), 1)
    below: list[Runs] = []
    for top in range(0, len(tops), step):
        rows = range(top, min(top + step, len(tops)))
        corners = {(i, j): (int(tops[i]), int(lefts[j])) for i in rows for j in range(len(lefts))}
        traced = [
            trace(blocks[place], low, high, corner=corner, shape=data.shape, reach=reach, least=least)
            for place, corner in corners.items()
        ]
        pieces = dask.compute(*traced, **({} if client is None else {"scheduler": client}))
        crossing = merge([*below, *(runs for _, runs in pieces)])
        bottom = int(tops[rows[-1]] + data.chunks[0][rows[-1]])
        ended, going_on = parted(crossing, (crossing.row == bottom - 1) & (bottom < data.shape[0]), reach=reach)
        below = [going_on]
        first = int(going_on.row.min(initial=bottom)) if bottom < data.shape[0] else bottom + 1
        yield together([*(inside for inside, _ in pieces), areas(ended, reach=reach, least=least)]), first
        del pieces  # not to be held while the next are traced


def _at_once(client: Any) -> int:
    """Say how many tiles to trace before what is finished leaves."""
    return AT_ONCE * (os.cpu_count() or 1 if client is None else sum(client.nthreads().values()))


def _frame(found: Areas, grid: GeoBox, scale: float, pixel: float | None) -> gpd.GeoDataFrame:
    """Make the table of traced areas."""
    shapes = _shapes(found, grid)
    area, perimeter = measure(shapes, crs_of(grid))
    columns = {
        "area_m2": area if pixel is None else found.pixels * pixel,
        "perimeter_m": perimeter,
        "mean_score": found.total / found.pixels / scale,
        "max_score": found.top / scale,
    }
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=crs_of(grid))


def _shapes(found: Areas, grid: GeoBox) -> np.ndarray:
    """Make Polygons and MultiPolygons in the CRS of the grid: (area,) object array."""
    # Every ring is closed by its first corner.
    first = np.cumsum(found.size) - found.size
    closed = found.corners[np.insert(np.arange(len(found.corners)), first + found.size, first)]
    rings, parts = (np.concatenate([[0], np.cumsum(n)]) for n in (found.size + 1, found.rings))
    coords = through(grid.transform, closed.astype("float64"))
    polygons = np.asarray(shapely.from_ragged_array(shapely.GeometryType.POLYGON, coords, (rings, parts)))
    first_part = np.cumsum(found.parts) - found.parts
    shapes = polygons[first_part]
    several = found.parts > 1
    if several.any():
        owner = np.repeat(np.arange(int(several.sum())), found.parts[several])
        shapes[several] = shapely.multipolygons(
            polygons[spans(first_part[several], found.parts[several])], indices=owner
        )
    return shapes


def _pixel_m2(grid: GeoBox) -> float | None:
    """Give the area of a pixel of a projected grid, m2; None where it differs from row to row."""
    if crs_of(grid).is_geographic:
        return None
    return abs(grid.transform.determinant) * metres(crs_of(grid)) ** 2
