"""What images say about polygons: their statistics within each, and the lie of the land under it."""

from typing import Any

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.inventory.burning import Window, burn_block, on_pixels
from lsdask.inventory.measuring import crs_of, metres

CHUNK = 2048
"""Side of what is read at once of an image that is not lazy, pixels."""


def summarize(frame: gpd.GeoDataFrame, image: xr.DataArray, *, client: Any = None) -> gpd.GeoDataFrame:
    """Add to an inventory the mean, least and largest value of an image within each polygon.

    Reads once, chunk by chunk, and only chunks that polygons touch. Pass a slope, an index or its change, or the
    bands of a mosaic.

    Parameters
    ----------
    frame : GeoDataFrame
        Polygons in any CRS. Of those that overlap, the later has the pixels they share.
    image : DataArray (y, x) or (band, y, x)
        Pixels without data in any band count for none.
    client : distributed.Client, optional
        Where to run; Dask's own choice unless given.

    Returns
    -------
    GeoDataFrame
        With columns ``<name>_mean``, ``<name>_min``, ``<name>_max`` for each band, or for the image's own name; NaN
        where no pixel with data has its centre in the polygon.

    Raises
    ------
    BadInput
        If the image has other dims, no grid or no name, or the polygons no CRS.
    """
    bands = image.expand_dims("band") if getattr(image, "dims", None) == schema.MASK else image
    schema.check(bands, schema.MOSAIC, "image")
    names = schema.bands(bands) if bands is image else (_name(image),)
    table = _reduced(frame, bands, values_block, client)
    count = table.pop("count")
    added = {}
    for i, name in enumerate(names):
        added[f"{name}_mean"] = table[f"sum_{i}"] / count.where(count > 0)
        added[f"{name}_min"], added[f"{name}_max"] = table[f"min_{i}"], table[f"max_{i}"]
    return frame.assign(**{key: column.to_numpy() for key, column in added.items()})


def _name(image: xr.DataArray) -> str:
    if not image.name:
        raise BadInput(sentence("image", "have a name, to call its columns by", "none", "Use image.rename('slope')"))
    return str(image.name)


def values_block(labels: np.ndarray, values: np.ndarray, offsets: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """Reduce the values of a block, polygon by polygon.

    Parameters
    ----------
    labels : (pixel,) int array
        Which of ``n`` polygons each pixel lies in.
    values : (band, pixel) array
    offsets : (2, pixel) float64
        Not looked at.
    n : int

    Returns
    -------
    dict of (n,) float64
        ``count``, and ``sum_<i>``, ``min_<i>``, ``max_<i>`` of each band; inf where there is no pixel.
    """
    made = {"count": np.bincount(labels, minlength=n).astype("float64")}
    for i, band in enumerate(values.astype("float64")):
        made[f"sum_{i}"] = np.bincount(labels, band, n)
        made[f"min_{i}"], made[f"max_{i}"] = np.full(n, np.inf), np.full(n, -np.inf)
        np.minimum.at(made[f"min_{i}"], labels, band)
        np.maximum.at(made[f"max_{i}"], labels, band)
    return made


def terrain(frame: gpd.GeoDataFrame, elevation: xr.DataArray, *, client: Any = None) -> gpd.GeoDataFrame:
    """Add to an inventory the lie of the land under each polygon.

    Slope and aspect are those of the plane that fits the ground in the polygon best, so that a scar has the one
    direction it slid in, and length and width are measured along and across it.

    Parameters
    ----------
    frame : GeoDataFrame
        Polygons in the CRS of the elevation, which is projected.
    elevation : DataArray (y, x)
        Metres.
    client : distributed.Client, optional
        Where to run; Dask's own choice unless given.

    Returns
    -------
    GeoDataFrame
        With columns ``elevation_mean``, ``elevation_min``, ``elevation_max`` and ``relief`` (m), ``slope`` (degrees),
        ``aspect`` (degrees from grid north, clockwise, downhill), ``length_m`` (along the aspect) and ``width_m``
        (across it); NaN where pixels are too few, or the ground level.

    Raises
    ------
    BadInput
        If the elevation has other dims or no projected CRS.
    """
    schema.check(elevation, schema.MASK, "elevation")
    grid = schema.geobox(elevation, "elevation")
    crs = crs_of(grid)
    if crs.is_geographic:
        raise BadInput(sentence("elevation", "have a projected CRS", crs.name, "Use odc.geo.xr.xr_reproject"))
    frame = frame if frame.crs == crs else frame.to_crs(crs)
    unit = metres(crs)
    high = summarize(frame, elevation.rename("elevation"), client=client)
    table = _reduced(frame, elevation.expand_dims("band"), moments_block, client)
    down, east = _plane(table) / unit / np.array([[grid.transform.e], [grid.transform.a]])
    fall = np.hypot(east, down)
    aspect = np.degrees(np.arctan2(-east, -down)) % 360
    length, width = _extents(frame.geometry.to_numpy(), np.radians(aspect))
    level = ~(fall > 0)
    return high.assign(
        relief=high.elevation_max - high.elevation_min,
        slope=np.degrees(np.arctan(fall)),
        aspect=np.where(level, np.nan, aspect),
        length_m=np.where(level, np.nan, length * unit),
        width_m=np.where(level, np.nan, width * unit),
    )


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


def _extents(shapes: np.ndarray, aspect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure polygons along and across a direction (radians from north, clockwise), in CRS units."""
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    sine, cosine = np.sin(aspect)[owner], np.cos(aspect)[owner]
    along, across = xy[:, 0] * sine + xy[:, 1] * cosine, xy[:, 0] * cosine - xy[:, 1] * sine
    return _range(along, owner, len(shapes)), _range(across, owner, len(shapes))


def _range(values: np.ndarray, owner: np.ndarray, n: int) -> np.ndarray:
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    np.fmin.at(low, owner, values)
    np.fmax.at(high, owner, values)
    return high - low


# --- polygon by polygon, chunk by chunk ------------------------------------------------------------------------------


def _reduced(frame: gpd.GeoDataFrame, image: xr.DataArray, kernel: Any, client: Any) -> pd.DataFrame:
    """Reduce an image (band, y, x) within each polygon: a row each, in order."""
    if frame.crs is None:
        raise BadInput(sentence("frame", "have a CRS", "none", "Say which it is: frame.set_crs('EPSG:...')"))
    shapes = on_pixels(frame, schema.geobox(image, "image"))
    data = da.asarray(image.data)
    data = data.rechunk((-1, *(data.chunks[1:] if image.chunks else (CHUNK, CHUNK))))
    tree, blocks, void = shapely.STRtree(shapes), data.to_delayed()[0], schema.nodata(image)
    tasks = []
    for row, rows in enumerate(_ranges(data.chunks[1])):
        for column, columns in enumerate(_ranges(data.chunks[2])):
            touching = np.sort(tree.query(shapely.box(columns.start, rows.start, columns.stop, rows.stop)))
            if len(touching):
                given = shapes[touching], touching, (rows, columns)
                tasks.append(dask.delayed(_partial, pure=False)(blocks[row, column], *given, void, kernel))
    partials = dask.compute(*tasks, **({} if client is None else {"scheduler": client}))
    none = kernel(np.empty(0, int), np.empty((data.shape[0], 0)), np.empty((2, 0)), len(frame))
    return _merged([pd.DataFrame(none), *partials])


def _ranges(chunks: tuple[int, ...]) -> list[slice]:
    stops = np.cumsum(chunks)
    return [slice(int(stop - size), int(stop)) for stop, size in zip(stops, chunks)]


def _partial(
    block: np.ndarray, shapes: np.ndarray, places: np.ndarray, window: Window, void: Any, kernel: Any
) -> pd.DataFrame:
    """Reduce one block: a row for each polygon that touches it."""
    labels = burn_block(shapes, window, values=np.arange(1, len(shapes) + 1), dtype="int32")
    y, x = np.nonzero((labels > 0) & schema.valid_block(block, void))
    label = labels[y, x] - 1
    box = shapely.bounds(shapes)[label]
    centre = np.stack([box[:, 1] + box[:, 3], box[:, 0] + box[:, 2]]) / 2
    offsets = np.stack([y + window[0].start, x + window[1].start]) - centre
    return pd.DataFrame(kernel(label, block[:, y, x], offsets, len(shapes)), index=places)


def _merged(partials: list[pd.DataFrame]) -> pd.DataFrame:
    """Put the rows of each polygon together: sums added, least of the least, largest of the largest."""
    every = pd.concat(partials)
    how = {name: name[:3] if name.startswith(("min", "max")) else "sum" for name in every.columns.astype(str)}
    table = every.groupby(level=0).agg(how)
    return table.replace([np.inf, -np.inf], np.nan)
