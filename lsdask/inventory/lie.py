"""The lie of the land under each polygon: how high, how steep, which way it falls, how long and wide along that."""

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox

from lsdask import schema
from lsdask.inventory.attributes import summarize
from lsdask.inventory.measuring import crs_in
from lsdask.inventory.zonal import reduced
from lsdask.terrain import derivatives, ground


def terrain(frame: gpd.GeoDataFrame, elevation: xr.DataArray, *, client: Any = None) -> gpd.GeoDataFrame:
    """Add to an inventory the lie of the land under each polygon.

    ``slope`` and ``aspect`` are those of the plane that fits the ground in the polygon best, so that a scar has the
    one direction it slid in, and length and width are measured along and across it. ``slope_mean`` and
    ``aspect_mean`` are means over its pixels, as rough as the ground is.

    Parameters
    ----------
    frame : GeoDataFrame
        Polygons in any CRS.
    elevation : DataArray (y, x)
        Metres. In degrees, a pixel is as large as on the ellipsoid in the middle of each polygon.
    client : distributed.Client, optional
        Where to run; Dask's own choice unless given.

    Returns
    -------
    GeoDataFrame
        In the CRS of the elevation, with columns ``elevation_mean``, ``elevation_min``, ``elevation_max`` and
        ``relief`` (m), ``slope`` and ``slope_mean`` (degrees), ``aspect`` and ``aspect_mean`` (degrees from grid
        north, clockwise, downhill), ``length_m`` (along the aspect) and ``width_m`` (across it); NaN where pixels are
        too few, or the ground level.

    Raises
    ------
    BadInput
        If the elevation has other dims, no grid, or one that is not north up.

    Source
    ------
    ``aspect_mean``: the direction of the sum of the pixels' downhill directions, each as long as the sine of its
    slope, so that level ground says nothing; Mardia and Jupp 2000, Directional Statistics, section 2.2.
    """
    schema.check(elevation, schema.MASK, "elevation")
    grid = schema.geobox(elevation, "elevation")
    frame = frame if crs_in(frame) == grid.crs else frame.to_crs(grid.crs)
    high = summarize(frame, elevation.rename("elevation"), client=client)
    width, height = _pixel_m(frame, grid)
    rows, columns = _plane(reduced(frame, elevation.expand_dims("band"), moments_block, client))
    north, east = -rows / height, columns / width
    fall = np.hypot(east, north)
    aspect = np.where(fall > 0, np.degrees(np.arctan2(-east, -north)) % 360, np.nan)
    unit = np.stack([width / abs(grid.transform.a), height / abs(grid.transform.e)])
    length, width_m = _extents(frame.geometry.to_numpy(), np.radians(aspect), unit)
    return high.assign(
        relief=high.elevation_max - high.elevation_min,
        slope=np.degrees(np.arctan(fall)),
        aspect=aspect,
        **_of_pixels(frame, elevation, client),
        length_m=length,
        width_m=width_m,
    )


def _pixel_m(frame: gpd.GeoDataFrame, grid: GeoBox) -> np.ndarray:
    """Give width and height of a pixel in the middle of each polygon: (2, polygon) m."""
    middle = frame.geometry.bounds[["miny", "maxy"]].to_numpy().mean(axis=1)
    row = np.nan_to_num((middle - grid.transform.f) / grid.transform.e)
    row = np.clip(row, 0, grid.shape[0] - 1).astype(int)
    return ground.sizes_block(ground.ground_of(grid), 0, grid.shape[0])[:, row]


def _of_pixels(frame: gpd.GeoDataFrame, elevation: xr.DataArray, client: Any) -> dict[str, np.ndarray]:
    """Give means over the pixels of each polygon: slope and aspect, degrees."""
    said = summarize(frame, derivatives.bands(elevation, ("slope", "northness", "eastness")), client=client)
    north, east = said.northness_mean.to_numpy(), said.eastness_mean.to_numpy()
    level = np.hypot(north, east) < 1e-9
    aspect = np.where(level, np.nan, np.degrees(np.arctan2(east, north)) % 360)
    return {"slope_mean": said.slope_mean.to_numpy(), "aspect_mean": aspect}


MOMENTS = ("y", "x", "z", "yy", "xx", "xy", "yz", "xz")
"""What is summed over a polygon's pixels, by the letters of what is multiplied."""


def moments_block(labels: np.ndarray, values: np.ndarray, offsets: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """Sum what the plane of best fit needs, polygon by polygon.

    Parameters
    ----------
    labels : (pixel,) int array
        Which of ``n`` polygons each pixel lies in.
    values : (1, pixel) array
        Heights.
    offsets : (2, pixel) float64
        Rows and columns from a place in the pixel's polygon.
    n : int

    Returns
    -------
    dict of (n,) float64
        ``count``, and ``sum_<moment>`` of each of MOMENTS.
    """
    of = {"y": offsets[0], "x": offsets[1], "z": values[0].astype("float64")}
    products = {
        name: np.prod([of[letter] for letter in name], axis=0) for name in ("y", "x", "z", "yy", "xx", "xy", "yz", "xz")
    }
    sums = {f"sum_{name}": np.bincount(labels, product, n) for name, product in products.items()}
    return {"count": np.bincount(labels, minlength=n).astype("float64"), **sums}


def _plane(table: pd.DataFrame) -> np.ndarray:
    """Solve for the planes of best fit: (2, polygon) metres a row and metres a column, NaN where none is best."""
    n = table["count"].to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = {name: table[f"sum_{name}"].to_numpy() / n for name in MOMENTS}
        about = {pair: mean[pair] - mean[pair[0]] * mean[pair[1]] for pair in MOMENTS[3:]}
        spread = about["yy"] * about["xx"] - about["xy"] ** 2
        rows = (about["yz"] * about["xx"] - about["xz"] * about["xy"]) / spread
        columns = (about["xz"] * about["yy"] - about["yz"] * about["xy"]) / spread
    return np.where(spread > 1e-6, np.stack([rows, columns]), np.nan)


def _extents(shapes: np.ndarray, aspect: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure polygons along and across a direction (radians from north, clockwise): m, given those of a CRS unit."""
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    x, y = xy.T * unit[:, owner]
    sine, cosine = np.sin(aspect)[owner], np.cos(aspect)[owner]
    return _range(x * sine + y * cosine, owner, len(shapes)), _range(x * cosine - y * sine, owner, len(shapes))


def _range(values: np.ndarray, owner: np.ndarray, n: int) -> np.ndarray:
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    np.fmin.at(low, owner, values)
    np.fmax.at(high, owner, values)
    return np.where(high >= low, high - low, np.nan)
