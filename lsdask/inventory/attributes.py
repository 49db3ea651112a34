"""What images say about polygons: their statistics within each, and what changed there from before to after."""

from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import xarray as xr

from lsdask import schema
from lsdask.errors import BadInput, sentence
from lsdask.inventory.zonal import reduced


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
    table = reduced(frame, bands, values_block, client)
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


def change(
    frame: gpd.GeoDataFrame,
    pair: xr.DataArray,
    *,
    bands: tuple[str, str] = ("nir", "red"),
    name: str = "ndvi",
    client: Any = None,
) -> gpd.GeoDataFrame:
    """Add to an inventory how a normalised difference of two bands changed within each polygon.

    Parameters
    ----------
    frame : GeoDataFrame
        Polygons in any CRS.
    pair : DataArray (band, y, x)
        Before and after, as ``mosaic.pair`` gives it: with bands ``pre_<band>`` and ``post_<band>``, in proportion to
        reflectance. Only pixels that both sides know count.
    bands : (str, str)
        The index is (first - second) / (first + second): near infrared and red make the NDVI.
    name : str
        What to call it.
    client : distributed.Client, optional
        Where to run; Dask's own choice unless given.

    Returns
    -------
    GeoDataFrame
        With columns ``<name>_pre``, ``<name>_post`` and ``<name>_change`` (post - pre): means over the polygon, NaN
        where no pixel is known.

    Raises
    ------
    BadInput
        If bands are not two, the image lacks one of the four or has no grid, or the polygons have no CRS.
    """
    schema.check(pair, schema.MOSAIC, "pair")
    if len(bands) != 2:
        raise BadInput(sentence("bands", "name two bands", f"bands={tuple(bands)}"))
    wanted, held = [f"{side}_{band}" for side in ("pre", "post") for band in bands], schema.bands(pair)
    if lacking := [band for band in wanted if band not in held]:
        raise BadInput(sentence("pair", f"have the bands {', '.join(wanted)}", f"no {', '.join(lacking)}"))
    four = pair.isel(band=[held.index(band) for band in wanted])
    chunks = ((3,), *four.chunks[1:]) if four.chunks else None
    data = da.asarray(four.data).rechunk({0: -1})
    index = da.map_blocks(
        change_block, data, schema.nodata(pair), chunks=chunks or ((3,), *data.chunks[1:]), dtype="float32"
    )
    coords = {"band": ["pre", "post", "change"]}
    said = summarize(
        frame[[frame.geometry.name]],
        schema.wrap(index, schema.geobox(pair, "pair"), schema.MOSAIC, name=name, coords=coords),
        client=client,
    )
    return frame.assign(**{f"{name}_{which}": said[f"{which}_mean"].to_numpy() for which in coords["band"]})


def change_block(block: np.ndarray, nodata: float | int | None) -> np.ndarray:
    """Give a normalised difference before, after, and its change.

    Parameters
    ----------
    block : (4, y, x) array
        First and second band before, first and second after.
    nodata : float, int or None

    Returns
    -------
    (3, y, x) float32 array
        Before, after, after - before; NaN where a band has no data or two add up to 0.
    """
    known = np.where(schema.known_block(block, nodata), block, np.float32("nan")).astype("float32")
    first, second = known[0::2], known[1::2]
    index = np.divide(first - second, first + second, out=np.full_like(first, np.nan), where=first + second != 0)
    return np.concatenate([index, index[1:] - index[:1]])
