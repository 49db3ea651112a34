"""Calibration: stored numbers become reflectance, or numbers that compare over the years.

``reflectance = scale * stored + offset``, with a scale and an offset for each time and band, in the coordinates that
``load`` gives a cube. Sentinel-2 is the reason for *each time*: from processing baseline 04.00 (25 January 2022) its
stored numbers are 1000 higher, so that dark pixels may be negative; some catalogues have taken that back.

Source: ESA, Sentinel-2 Products Specification Document, BOA_ADD_OFFSET; STAC raster extension, scale and offset.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from lsdask import schema, sensors
from lsdask.errors import BadInput, sentence
from lsdask.scenes.items import Source, is_quality, said, time

if TYPE_CHECKING:
    import pystac

BASELINE = 4.0
"""The first processing baseline of Sentinel-2 whose numbers are shifted."""

SHIFTED_SINCE = pd.Timestamp("2022-01-25")
"""The day from which Sentinel-2 is processed so: what tells where an item does not say its baseline."""

BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
TAKEN_BACK = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
"""What says that a catalogue has taken the shift back; its items may still declare the offset then."""


# What items say


def coordinates(
    items: "Sequence[pystac.Item]",
    sources: Sequence[Sequence[Source | None]],
    steps: Sequence[int],
    sensor: sensors.Sensor | None,
) -> dict[str, Any]:
    """Give the coordinates ``scale`` and ``offset`` (time, band) of a cube, or none if nothing says them.

    NaN where nothing says them, or where items of one step say several.
    """
    shape = (steps[-1] + 1, len(sources[0]))
    said_of: dict[tuple[int, int], set[tuple[float, float]]] = {}
    for item, step, row in zip(items, steps, sources):
        for place, source in enumerate(row):
            if source is not None:
                said_of.setdefault((step, place), set()).add(_radiometry(item, source, sensor))
    found = np.full((2, *shape), np.nan)
    for (step, place), told in said_of.items():
        if len(told) == 1:
            found[:, step, place] = next(iter(told))
    if all(told <= {UNKNOWN} for told in said_of.values()):
        return {}
    return {"scale": (("time", "band"), found[0]), "offset": (("time", "band"), found[1])}


def _radiometry(item: "pystac.Item", source: Source, sensor: sensors.Sensor | None) -> tuple[float, float]:
    """Give scale and offset of a band of an item; NaN as None, so that equal is equal."""
    asset = item.assets[source.key]
    table = None if is_quality(source, sensor) else sensor
    scale, offset = said(asset, source.number, "scale"), said(asset, source.number, "offset")
    scale = table.scale if scale is None and table is not None else scale
    if scale is None:
        return UNKNOWN
    if offset is None:
        offset = 0.0 if table is None else _offset(item, table)
    return float(scale), 0.0 if _is_taken_back(item) else float(offset or 0.0)


UNKNOWN = (np.nan, np.nan)


def _offset(item: "pystac.Item", sensor: sensors.Sensor) -> float | None:
    """Give the offset of a sensor's table, for the processing baseline of an item."""
    if sensor.offset_since_0400 is None:
        return sensor.offset
    told = next((item.properties[field] for field in BASELINES if item.properties.get(field)), None)
    shifted = time(item) >= SHIFTED_SINCE if told is None else float(told) >= BASELINE
    return sensor.offset_since_0400 if shifted else sensor.offset


def _is_taken_back(item: "pystac.Item") -> bool:
    return any(item.properties.get(field) is True for field in TAKEN_BACK)


# Cubes


def reflectance(cube: xr.DataArray) -> xr.DataArray:
    """Turn stored numbers into reflectance, by the scale and offset of each time and band.

    Parameters
    ----------
    cube : DataArray (time, band, y, x)
        With coordinates ``scale`` and ``offset`` (time, band), as ``load`` gives them; others may be assigned.

    Returns
    -------
    DataArray (time, band, y, x) float32
        NaN where void; may be a little below 0 and above 1. Lazy if ``cube`` is. Without the two coordinates.

    Raises
    ------
    BadInput
        If scale or offset of some time and band is not known, or differs between the items of that time.
    """
    scale, offset = _known(cube)
    data = _mapped(reflectance_block, cube, scale, offset, dtype=np.dtype("float32"))
    coords = {str(dim): cube[dim] for dim in ("time", "band") if dim in cube.coords}
    return schema.wrap(data, schema.geobox(cube), schema.CUBE, name="reflectance", coords=coords)


def reflectance_block(
    values: np.ndarray, scale: np.ndarray, offset: np.ndarray, *, nodata: float | int | None
) -> np.ndarray:
    """Turn a block of stored numbers into reflectance.

    Parameters
    ----------
    values : (time, band, y, x) array
    scale, offset : (time, band) float array
    nodata : float, int or None
        What stands for void in ``values``.

    Returns
    -------
    (time, band, y, x) float32 array, NaN where void
    """
    if schema.bare_block(values, nodata):
        return np.broadcast_to(np.float32("nan"), values.shape)
    known = schema.known_block(values, nodata)
    found = values.astype("float32") * _aligned(scale) + _aligned(offset)
    found[~known] = np.nan
    return found


def harmonize(cube: xr.DataArray, *, offset: float | None = None) -> xr.DataArray:
    """Shift stored numbers so that all times of a cube have one offset, and may be compared and composited.

    For Sentinel-2 this takes 1000 off the numbers of processing baseline 04.00 and later, where the catalogue has not.

    Parameters
    ----------
    cube : DataArray (time, band, y, x) of integers or floats
        With coordinates ``scale`` and ``offset`` (time, band), as ``load`` gives them.
    offset : float, optional
        The offset that all times get. Default: for each band, the largest that a time has; pass 0 to make several
        cubes of Sentinel-2 compare.

    Returns
    -------
    DataArray (time, band, y, x), dtype as stored
        Void stays void. Integers that would leave the range of the dtype, or become the number that stands for void,
        become the next one that is neither: dark pixels of Sentinel-2 below 1001 become 1. Lazy if ``cube`` is. The
        coordinate ``offset`` says the new one.

    Raises
    ------
    BadInput
        If scale or offset of some time and band is not known, or differs between the items of that time; or if a band
        has several scales.
    """
    scale, offsets = _known(cube)
    if (scale != scale[:1]).any():
        band = schema.bands(cube)[int((scale != scale[:1]).any(axis=0).argmax())]
        rule = "be the same at all times, to shift numbers as they are stored"
        raise BadInput(sentence("scale", rule, f"several for {band}", "Use scenes.reflectance"))
    wanted = offsets.max(axis=0, keepdims=True) if offset is None else np.full_like(offsets[:1], offset)
    shift = (offsets - wanted) / scale
    if cube.dtype.kind != "f":
        shift = np.rint(shift)
    data = _mapped(harmonize_block, cube, shift, dtype=cube.dtype)
    made = cube.copy(data=data)
    return made.assign_coords(offset=(("time", "band"), np.broadcast_to(wanted, offsets.shape).copy()))


def harmonize_block(values: np.ndarray, shift: np.ndarray, *, nodata: float | int | None) -> np.ndarray:
    """Shift a block of stored numbers.

    Parameters
    ----------
    values : (time, band, y, x) array
    shift : (time, band) float array
        What is added; whole numbers for integers.
    nodata : float, int or None
        What stands for void in ``values``.

    Returns
    -------
    (time, band, y, x) array of the dtype of ``values``
    """
    if schema.bare_block(values, nodata) or not shift.any():
        return values
    known = schema.known_block(values, nodata)
    if values.dtype.kind == "f":
        return np.where(known, values + _aligned(shift), values)
    limits = np.iinfo(values.dtype)
    shifted = np.clip(values.astype("int64") + _aligned(shift.astype("int64"), "int64"), limits.min, limits.max)
    if nodata is not None:
        beside = nodata + 1 if nodata < limits.max else nodata - 1
        shifted[shifted == nodata] = beside
    return np.where(known, shifted, values).astype(values.dtype)


def _aligned(values: np.ndarray, dtype: str = "float32") -> np.ndarray:
    """Give (time, band) numbers as (time, band, 1, 1)."""
    return values.astype(dtype)[:, :, None, None]


def _known(cube: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Give scale and offset (time, band) of a cube, or say which is not known."""
    schema.check(cube, schema.CUBE, "cube")
    for name in ("scale", "offset"):
        if name not in cube.coords:
            do = "Load it with sensor=, from items that say it, or assign it: cube.assign_coords(...)"
            raise BadInput(sentence("cube", f"have a coordinate {name!r} (time, band)", "none", do))
    scale, offset = (cube[name].transpose("time", "band").values.astype("float64") for name in ("scale", "offset"))
    unknown = ~(np.isfinite(scale) & np.isfinite(offset))
    if unknown.any():
        step, band = (int(place[0]) for place in np.nonzero(unknown))
        got = f"none or several at {str(cube.time.values[step])[:19]} for {schema.bands(cube)[band]}"
        do = "Load with groupby='id' if items of one step differ, with sensor= if they do not say it"
        raise BadInput(sentence("scale and offset", "be known, one for each time and band", got, do))
    return scale, offset


def _mapped(block: Any, cube: xr.DataArray, *tables: np.ndarray, dtype: np.dtype) -> Any:
    """Map a block function over the chunks of a cube, with its part of (time, band) tables."""
    nodata = schema.nodata(cube)
    if not isinstance(cube.data, da.Array):
        return block(cube.values, *tables, nodata=nodata)
    parts = [da.from_array(table, chunks=cube.data.chunks[:2]) for table in tables]
    pairs = [pair for part in parts for pair in (part, "tb")]
    meta = np.empty((0, 0, 0, 0), dtype)
    return da.blockwise(block, "tbyx", cube.data, "tbyx", *pairs, nodata=nodata, dtype=dtype, meta=meta)
