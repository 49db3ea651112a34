"""Vector masks: coasts, towns and areas of interest, rasterised where they are looked at."""

from pathlib import Path
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from pyproj import Transformer

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.inventory import burning

STEP_M = 1000.0
"""Longest straight piece of an outline that goes into another CRS, metres: off by 2 cm where it is curved there."""


def mask_vector(
    shapes: gpd.GeoDataFrame | gpd.GeoSeries | str | Path,
    like: xr.DataArray,
    *,
    inside: bool = True,
    all_touched: bool = False,
    buffer_m: float = 0.0,
) -> xr.DataArray:
    """Make a mask of polygons on the grid of an image, lazily.

    A pixel is in a polygon if its centre is, as in ``rasterio.features.rasterize``. Outlines go once into the CRS of
    the grid; a chunk looks at the polygons that touch it and at no others.

    Parameters
    ----------
    shapes : GeoDataFrame, GeoSeries or path
        Polygons in any CRS; a path names GeoJSON, GeoPackage, FlatGeobuf, a shapefile or GeoParquet. A single
        geometry goes in as ``geopandas.GeoSeries([geometry], crs=...)``.
    like : DataArray (..., y, x)
        The image whose grid and chunks the mask takes; it is not read.
    inside : bool
        Whether what lies in the polygons is valid (an area of interest), or what lies outside (of the sea, of towns).
    all_touched : bool
        Count pixels as in a polygon that it touches anywhere.
    buffer_m : float
        Make the polygons larger by so many metres first, or smaller if negative: in the CRS of the grid if that is
        in metres, else in the UTM zone of their middle, which is true to 0.1 % within it only.

    Returns
    -------
    DataArray (y, x) bool
        ``True`` where a pixel is valid.

    Raises
    ------
    NotFound
        If the file is not there.
    BadInput
        If the shapes have no CRS or are points or lines, or ``like`` has no grid.

    Examples
    --------
    >>> clear & mask_vector("towns.gpkg", clear, inside=False, buffer_m=100)  # doctest: +SKIP
    """
    grid = schema.geobox(like, "like")
    frame = _frame(shapes)
    if frame.crs != grid.crs:
        frame = _clipped(frame, grid, abs(buffer_m))
    if buffer_m:
        frame = _buffered(frame, grid.crs, buffer_m)
    if frame.crs != grid.crs:
        frame = _placed(frame, grid.crs)
    sizes = like.chunksizes
    chunks = (sizes["y"], sizes["x"]) if sizes else (burning.CHUNK, burning.CHUNK)
    pixels = burning.to_pixels(frame.geometry.to_numpy(), grid)
    burned = burning.burn(pixels, grid.shape, chunks=chunks, all_touched=all_touched)
    data: Any = da.map_blocks(np.equal, burned, 1 if inside else 0, dtype=bool)
    return schema.wrap(data, grid, schema.MASK, name="valid")


def _frame(shapes: Any) -> gpd.GeoDataFrame:
    if isinstance(shapes, gpd.GeoSeries):
        shapes = gpd.GeoDataFrame(geometry=shapes)
    if not isinstance(shapes, gpd.GeoDataFrame | str | Path):
        do = "Wrap a geometry in geopandas.GeoSeries([geometry], crs=...)"
        raise BadInput(sentence("shapes", "be a GeoDataFrame, GeoSeries or path", f"a {type(shapes).__name__}", do))
    return burning.load(shapes, name="shapes")


def _clipped(frame: gpd.GeoDataFrame, grid: Any, margin_m: float) -> gpd.GeoDataFrame:
    """Cut polygons to the surroundings of a grid: a world's sea has no place in one UTM zone."""
    left, bottom, right, top = grid.boundingbox
    around = 0.1 * max(right - left, top - bottom) + margin_m / _metres(grid.crs, max(abs(bottom), abs(top)))
    place = Transformer.from_crs(grid.crs.proj, frame.crs, always_xy=True)
    bounds = place.transform_bounds(left - around, bottom - around, right + around, top + around)
    if not np.isfinite(bounds).all() or bounds[0] >= bounds[2]:  # over the antimeridian, or a pole
        return frame
    frame = frame[shapely.intersects(frame.geometry.to_numpy(), shapely.box(*bounds))]
    cut = shapely.intersection(frame.geometry.to_numpy(), shapely.box(*bounds))
    return frame.set_geometry(gpd.GeoSeries(cut, index=frame.index, crs=frame.crs))


def _metres(crs: Any, latitude: float = 0.0) -> float:
    """Give the length of a CRS's unit; of a degree that of longitude, the shorter one."""
    crs = getattr(crs, "proj", crs)
    if crs.is_geographic:
        return 111_320 * max(np.cos(np.deg2rad(min(latitude, 90))), 0.01)
    return crs.axis_info[0].unit_conversion_factor or 1.0


def _placed(frame: gpd.GeoDataFrame, crs: Any) -> gpd.GeoDataFrame:
    """Put polygons into another CRS, in short pieces, as a straight edge in one is curved in the other."""
    fine = shapely.segmentize(frame.geometry.to_numpy(), STEP_M / _metres(frame.crs))
    placed = frame.set_geometry(gpd.GeoSeries(fine, index=frame.index, crs=frame.crs)).to_crs(crs)
    if len(placed) and not np.isfinite(placed.total_bounds).all():
        do = "Clip them to the area of the image first"
        raise BadInput(sentence("shapes", f"lie within the CRS of like, {crs}", "points that have no place in it", do))
    return placed


def _buffered(frame: gpd.GeoDataFrame, crs: Any, metres: float) -> gpd.GeoDataFrame:
    """Make polygons larger or smaller; those that vanish are left out."""
    metric = crs.projected and _metres(crs) == 1
    near = crs if metric or frame.empty else frame.estimate_utm_crs()
    placed = frame if frame.crs == near else _placed(frame, near)
    placed = placed.set_geometry(placed.geometry.buffer(metres))
    return placed[~placed.geometry.is_empty]
