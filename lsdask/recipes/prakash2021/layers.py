"""The layers of an image set on one grid of a base resolution: images of 8 bit, heights, masks of the regions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from lsdask import inventory, mosaic, scenes, schema, terrain
from lsdask.errors import BadInput, sentence
from lsdask.recipes.prakash2021.areas import REGIONS, Row, fractions_of, name_of, paths_of, stretch_of

COLORS = ("red", "green", "blue")
DATES = ("pre", "post")
OPTICAL = tuple(f"{date}_{color}" for date in DATES for color in COLORS)
"""Bands of the images, in the order of the network's first two inputs."""


def image_of(row: Row, folder: Path, resolution: float, *, derived: bool = False) -> xr.DataArray:
    """Put all layers of an image set on the grid of its later image at a base resolution.

    Parameters
    ----------
    row : dict
        Of the areas table.
    folder : Path
        What its paths are relative to.
    resolution : float
        Side of a pixel, m.
    derived : bool
        Give hillshade and slope, derived on the heights' own grid and then resampled, as the authors predict, in the
        place of heights.

    Returns
    -------
    DataArray (band, y, x) float32, lazy
        ``OPTICAL`` from 0 to 255, then ``dem`` in m, or ``hillshade`` and ``slope`` in degrees; NaN in all bands
        where one of them is void, or the table says so.

    Raises
    ------
    BadInput
        If an image has no bands red, green and blue, or is not of 8 bit and the table has no stretch.
    """
    grid = grid_of(row, folder, resolution)
    dem = scenes.open(folder / row["dem"]).isel(time=0, band=0, drop=True).rename("dem")
    relief = [terrain.hillshade(dem, edge="extrapolate"), terrain.slope(dem, edge="extrapolate")] if derived else [dem]
    optical = [eight_bit(_photo(row, date, folder), row) for date in DATES]
    stacked = mosaic.stack([terrain.resample(layer, grid) for layer in (*optical, *relief)])
    valid = schema.valid(stacked)
    if row["void"]:
        valid &= mosaic.mask_vector(folder / row["void"], stacked, inside=False)
    return stacked.where(valid)


def grid_of(row: Row, folder: Path, resolution: float) -> GeoBox:
    """Give the grid of a base resolution from the upper left corner of the later image, in metres (UTM if it is not).

    Of as many pixels as the image has in whole, as GDAL counts them with ``-tr``.
    """
    box = schema.geobox(_photo(row, "post", folder)).extent
    crs = box.crs if box.crs is not None and box.crs.units == ("metre", "metre") else None
    bounds = box.to_crs(crs or "utm").boundingbox
    shape = tuple(max(round(side / resolution), 1) for side in (bounds.span_y, bounds.span_x))
    transform = Affine(resolution, 0, bounds.left, 0, -resolution, bounds.top)
    return GeoBox((shape[0], shape[1]), transform, bounds.crs)


def eight_bit(image: xr.DataArray, row: Row) -> xr.DataArray:
    """Stretch an image to whole values from 0 to 255, lazily; NaN where void.

    Raises
    ------
    BadInput
        If it is not of 8 bit, and the table says nothing of its stretch.
    """
    stretch = stretch_of(row)
    if stretch is None and image.dtype != np.uint8:
        rule = "say which values become 0 and 255 where images are not of 8 bit"
        raise BadInput(sentence(f"stretch of {name_of(row)}", rule, f"nothing, for {image.dtype}", 'Write "low high"'))
    low, high = stretch or (0.0, 255.0)
    options = {"nodata": schema.nodata(image), "low": low, "high": high}
    data = da.map_blocks(eight_bit_block, image.data, **options, dtype="float32", meta=np.empty((0, 0, 0), "float32"))
    return schema.wrap(data, schema.geobox(image), schema.MOSAIC, name="image", coords={"band": image["band"].values})


def eight_bit_block(values: np.ndarray, *, nodata: float | int | None, low: float, high: float) -> np.ndarray:
    """Stretch values so that ``low`` becomes 0 and ``high`` 255, rounded and cut off there; void becomes NaN.

    Parameters
    ----------
    values : array
        As stored.
    nodata : float, int or None
    low, high : float

    Returns
    -------
    float32 array of the same shape
    """
    share = (values.astype("float32") - np.float32(low)) / np.float32(high - low)
    stretched = np.rint(np.clip(share, 0, 1) * np.float32(255))
    return np.where(schema.known_block(values, nodata), stretched, np.float32("nan"))


def masks_of(row: Row, first: Row, folder: Path, image: xr.DataArray) -> dict[str, xr.DataArray]:
    """Burn the inventory, once for each region of the area.

    Parameters
    ----------
    row, first : dict
        The image set, and the first one of its area, in shares of which regions may be.
    folder : Path
    image : DataArray (band, y, x)
        What ``image_of`` gave.

    Returns
    -------
    dict of DataArray (y, x) uint8
        ``train``, ``valid`` and ``test``, or ``test`` alone, which is then all of it: 1 landslide, 0 not, 255 void
        or outside the region. No pixel is known in two of them.

    Raises
    ------
    BadInput
        If a region has no pixel in the image, or the test shares ground with another region.
    """
    truth = inventory.rasterize(folder / row["inventory"], image)
    shapes = {part: _region(first, part, folder) for part in REGIONS if row[part]}
    if not shapes:
        return {"test": truth}
    inside = {part: mosaic.mask_vector(shape, image) for part, shape in shapes.items()}
    _check_regions(name_of(row), inside)
    inside["train"] &= ~inside["valid"]
    return {part: _kept(truth, region) for part, region in inside.items()}


def _check_regions(name: str, inside: Mapping[str, xr.DataArray]) -> None:
    """Raise BadInput if a region is not in the image, or the test shares pixels with what is learnt or judged by."""
    pixels = {part: int(region.sum()) for part, region in inside.items()}
    for part, count in pixels.items():
        if not count:
            raise BadInput(sentence(f"{part} of {name}", "lie in the image", "a region outside it"))
    for part in ("train", "valid"):
        shared = int((inside[part] & inside["test"]).sum())
        if shared:
            got = f"{shared / pixels['test']:.2%} of the test in both"
            raise BadInput(sentence(f"{part} and test of {name}", "share no ground", got))


def _photo(row: Row, date: str, folder: Path) -> xr.DataArray:
    """Open an image: its bands red, green and blue, or its three bands in that order."""
    paths = paths_of(row[date], folder)
    nodata = float(row["nodata"]) if row["nodata"] else None
    source: Any = dict(zip(COLORS, paths)) if len(paths) == len(COLORS) else paths
    image = scenes.open(source, nodata=nodata).isel(time=0, drop=True)
    if set(COLORS) <= set(schema.bands(image)):
        image = image.sel(band=list(COLORS))
    if image.sizes["band"] != len(COLORS):
        rule = "have the bands red, green and blue, or three bands in that order"
        raise BadInput(sentence(f"{date} of {name_of(row)}", rule, f"{', '.join(schema.bands(image))}"))
    return image.assign_coords(band=[f"{date}_{color}" for color in COLORS])


def _region(first: Row, part: str, folder: Path) -> gpd.GeoDataFrame:
    """Give the polygons of a region."""
    box = fractions_of(first[part])
    if box is None:
        return inventory.load(folder / first[part], name=f"{part} of {name_of(first)}")
    whole = schema.geobox(_photo(first, "post", folder))
    left, top, right, bottom = box
    edges = whole.boundingbox
    x = [edges.left + share * edges.span_x for share in (left, right)]
    y = [edges.top - share * edges.span_y for share in (bottom, top)]
    return gpd.GeoDataFrame(geometry=[shapely.box(x[0], y[0], x[1], y[1])], crs=whole.crs)


def _kept(truth: xr.DataArray, region: xr.DataArray) -> xr.DataArray:
    """Leave known what lies in a region."""
    kept = truth.where(region, schema.UNKNOWN).astype("uint8")
    return schema.wrap(kept.data, schema.geobox(truth), schema.MASK, name="mask", nodata=schema.UNKNOWN)
