"""What flows between the rooms: plain xarray objects, checked at the door.

=========  =======================  =================================  ==========================================
word       dims                     dtype                              meaning
=========  =======================  =================================  ==========================================
cube       (time, band, y, x)       as stored                          scenes on one grid, lazy
mosaic     (band, y, x)             as stored or float32               one value per pixel and band
mask       (y, x)                   uint8                              1 landslide, 0 not, 255 unknown
labels     (y, x) or (k, y, x)      uint8                              cluster ids, 255 unknown
scores     (class, y, x)            uint8 (p x 250, 255 unknown) or    probabilities
                                    float32 (NaN unknown)
=========  =======================  =================================  ==========================================

``y`` falls, ``x`` rises, coordinates are pixel centres, the CRS is in the ``spatial_ref`` coordinate. No data is
NaN in floats and the ``_FillValue`` attribute in integers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from lsdask.errors import BadInput, sentence

CUBE = ("time", "band", "y", "x")
MOSAIC = ("band", "y", "x")
MASK = ("y", "x")
SCORES = ("class", "y", "x")

UNKNOWN = 255
"""What masks, labels and uint8 scores hold where nothing is known."""

SCORE_STEPS = 250
"""A probability p is stored as ``round(p * SCORE_STEPS)`` in uint8 scores."""


def check(image: Any, dims: Sequence[str], name: str = "image") -> None:
    """Raise BadInput unless ``image`` is a DataArray with exactly these dims, in this order."""
    if not isinstance(image, xr.DataArray):
        raise BadInput(sentence(name, f"be an xarray.DataArray with dims {tuple(dims)}", f"a {type(image).__name__}"))
    if image.dims == tuple(dims):
        return
    do = f"Use {name}.transpose{tuple(dims)}" if set(image.dims) == set(dims) else ""
    raise BadInput(sentence(name, f"have dims {tuple(dims)}", str(image.dims), do))


def nodata(image: xr.DataArray) -> float | int | None:
    """Give the value that stands for no data: NaN for floats, the declared one for integers, else None."""
    if image.dtype.kind == "f":
        return float("nan")
    declared = image.attrs.get("_FillValue", image.encoding.get("_FillValue"))
    return None if declared is None else int(declared)


def check_nodata(value: float | int | None, dtype: Any) -> None:
    """Raise BadInput if ``value`` cannot be held by ``dtype``."""
    dtype = np.dtype(dtype)
    if value is None or dtype.kind == "f":
        return
    limits = np.iinfo(dtype)
    if not (float(value).is_integer() and limits.min <= value <= limits.max):
        rule = f"be a whole number from {limits.min} to {limits.max}, the range of {dtype}"
        raise BadInput(sentence("nodata", rule, f"nodata={value}"))


def bands(image: xr.DataArray) -> tuple[str, ...]:
    """Give the band names, or ``band_1`` ... where the image has none."""
    if "band" in image.coords:
        return tuple(str(name) for name in np.atleast_1d(image["band"].values))
    return tuple(f"band_{i + 1}" for i in range(image.sizes["band"]))


def known_block(data: Any, nodata: float | int | None) -> Any:
    """Say, value by value, whether there is data: ``True`` means *has data*.

    Parameters
    ----------
    data : numpy or Dask array
        Any shape and dtype.
    nodata : float, int or None
        The value that stands for no data; NaN is always no data.

    Returns
    -------
    bool array of the same shape
    """
    known = ~np.isnan(data) if data.dtype.kind == "f" else np.ones_like(data, dtype=bool)
    if nodata is not None and not np.isnan(nodata):
        known &= data != np.asarray(nodata).astype(data.dtype)
    return known


def valid_block(data: Any, nodata: float | int | None) -> Any:
    """Say where a pixel has data in every band.

    Parameters
    ----------
    data : (..., band, y, x) array
    nodata : float, int or None

    Returns
    -------
    (..., y, x) bool array
    """
    return known_block(data, nodata).all(axis=-3)


def floats_block(values: np.ndarray, nodata: float | int | None) -> np.ndarray:
    """Turn values as stored, of any shape and dtype, into new float32 ones: NaN where there is no data."""
    floats = values.astype("float32", order="C")
    if nodata is not None and not np.isnan(nodata):
        floats[values == np.asarray(nodata).astype(values.dtype)] = np.nan  # as stored: float32 tells fewer integers
    return floats


def bare_block(data: np.ndarray, nodata: float | int | None) -> bool:
    """Say whether a block is one void number that takes no room, as blocks of a cube are where no file lies.

    Kernels that ask can pass over it; any other sees an array like all others.

    Parameters
    ----------
    data : numpy array
    nodata : float, int or None

    Returns
    -------
    bool
        False also for a void block that takes room.
    """
    return not any(data.strides) and data.size > 0 and not known_block(data.flat[0:1], nodata).any()


def valid(image: xr.DataArray) -> xr.DataArray:
    """Say where data is: ``True`` where a pixel has data, in every band if there are bands. Lazy if the image is.

    Parameters
    ----------
    image : DataArray (..., y, x)
        A cube, mosaic, mask, labels or scores.

    Returns
    -------
    DataArray (..., y, x) bool, without the band dimension
    """
    known = image.copy(data=known_block(image.data, nodata(image)))
    known.attrs, known.encoding = {}, {}
    return known.all("band") if "band" in known.dims else known


def geobox(image: xr.DataArray, name: str = "image") -> GeoBox:
    """Give the grid of an image in CRS space.

    The resolution and origin written in ``spatial_ref`` are used where the coordinates agree with them to a
    thousandth of a pixel, so that a window cut out of a grid keeps that grid's exact numbers.

    Raises
    ------
    BadInput
        If the image has no CRS, no coordinates, or coordinates that are not evenly spaced.
    """
    if "spatial_ref" not in image.coords or not image["spatial_ref"].attrs.get("crs_wkt"):
        do = "Write one with rioxarray: image.rio.write_crs('EPSG:...')"
        raise BadInput(sentence(name, "have a CRS in its 'spatial_ref' coordinate", "none", do))
    reference = image["spatial_ref"].attrs
    written = [float(part) for part in str(reference.get("GeoTransform", "")).split()]
    x_start, x_step = _axis(image, "x", written[0:2], name)
    y_start, y_step = _axis(image, "y", [written[3], written[5]] if written else [], name)
    transform = Affine(x_step, 0.0, x_start, 0.0, y_step, y_start)
    return GeoBox((image.sizes["y"], image.sizes["x"]), transform, reference["crs_wkt"])


def _axis(image: xr.DataArray, dim: str, written: list[float], name: str) -> tuple[float, float]:
    """Give the outer edge of an axis's first pixel and the signed size of a pixel, in CRS units."""
    if dim not in image.coords:
        raise BadInput(sentence(name, f"have a {dim!r} coordinate of pixel centres", "none"))
    centres = np.asarray(image[dim].values, dtype="float64")
    if len(centres) > 1:
        step = (centres[-1] - centres[0]) / (len(centres) - 1)
        if step == 0 or np.abs(np.diff(centres) - step).max() > 1e-3 * abs(step):
            raise BadInput(sentence(name, f"have evenly spaced {dim!r} coordinates", "steps that differ"))
    elif written:
        step = written[1]
    else:
        raise BadInput(sentence(name, f"have two or more pixels on {dim!r}, or a GeoTransform", "one and none"))
    start = centres[0] - step / 2
    if written and abs(step - written[1]) * len(centres) < 1e-3 * abs(step):
        pixels = (start - written[0]) / written[1]
        if abs(pixels - round(pixels)) < 1e-3:
            return written[0] + round(pixels) * written[1], written[1]
    return float(start), float(step)


def wrap(
    data: Any,
    grid: GeoBox,
    dims: Sequence[str],
    *,
    name: str,
    coords: Mapping[str, Any] | None = None,
    nodata: float | int | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Make a DataArray of an array and its grid: coordinates, CRS, band names and nodata in their places.

    Parameters
    ----------
    data : numpy or Dask array
        Its last two axes are (y, x) of ``grid``.
    grid : GeoBox
        The grid in CRS space.
    dims : sequence of str
        One name an axis, ending in ``"y", "x"``.
    name : str
        The name of the DataArray, and of its variable in a store.
    coords : mapping, optional
        Coordinates of the other dims, such as ``{"band": ["red", "nir"]}``.
    nodata : float, int or None
        Written as ``_FillValue`` for integers; floats hold NaN and declare nothing else.
    attrs : mapping, optional
        Further attributes.

    Returns
    -------
    DataArray
    """
    check_nodata(nodata, data.dtype)
    declared = {} if nodata is None or data.dtype.kind == "f" else {"_FillValue": data.dtype.type(nodata)}
    places: dict[str, Any] = {
        **{str(key): value for key, value in xr_coords(grid, dims=("y", "x")).items()},
        **(coords or {}),
    }
    return xr.DataArray(data, dims=tuple(dims), coords=places, name=name, attrs={**declared, **(attrs or {})})


def on_grid(image: xr.DataArray, like: xr.DataArray, name: str, of: str) -> None:
    """Raise BadInput unless two images share shape, CRS and transform (to a thousandth of a pixel)."""
    mine, theirs = geobox(image, name), geobox(like, of)
    if mine.shape == theirs.shape and mine.crs == theirs.crs:
        shift = np.asarray((~theirs.transform @ mine.transform)[:6]) - np.asarray(Affine.identity()[:6])
        if np.abs(shift).max() < 1e-3:
            return
    do = "Put it there with odc.geo.xr.xr_reproject, or rasterise again with like=" + of
    raise BadInput(sentence(name, f"lie on the grid of {of}, {_grid_text(theirs)}", _grid_text(mine), do))


def _grid_text(grid: GeoBox) -> str:
    left, top = grid.transform.c, grid.transform.f
    crs = f"EPSG:{grid.crs.epsg}" if grid.crs and grid.crs.epsg else "its own CRS"
    return f"{grid.shape[0]} x {grid.shape[1]} px of {abs(grid.transform.a):g} from ({left:.10g}, {top:.10g}) in {crs}"


def encode_scores_block(probability: Any, dtype: Any) -> Any:
    """Turn probabilities into stored scores.

    Parameters
    ----------
    probability : float array
        0 to 1, NaN where unknown.
    dtype : dtype
        ``uint8`` (``round(p * 250)``, 255 unknown) or a float type (as is).

    Returns
    -------
    array of ``dtype``, same shape
    """
    if np.dtype(dtype).kind == "f":
        return probability.astype(dtype, copy=False)
    steps = np.clip(np.rint(probability * SCORE_STEPS), 0, SCORE_STEPS)
    return np.where(np.isnan(steps), UNKNOWN, steps).astype(dtype)


def first_step(threshold: float | np.ndarray) -> Any:
    """Give the smallest uint8 score whose probability reaches a threshold; 251 if none does.

    step / 250 is the very float that a user writes for a decimal like 0.1, so the comparison is exact.

    Examples
    --------
    >>> int(first_step(0.1)), int(first_step(0.5001))
    (25, 126)
    """
    return np.searchsorted(np.arange(SCORE_STEPS + 1) / SCORE_STEPS, threshold)


def decode_scores_block(scores: Any) -> Any:
    """Turn stored scores into probabilities: float32, NaN where unknown. The inverse of ``encode_scores_block``.

    Parameters
    ----------
    scores : uint8 or float array

    Returns
    -------
    float32 array, same shape
    """
    if scores.dtype.kind == "f":
        return scores.astype("float32", copy=False)
    probability = scores.astype("float32") / np.float32(SCORE_STEPS)
    return np.where(scores == UNKNOWN, np.float32("nan"), probability)


def score_attrs(dtype: Any) -> dict[str, Any]:
    """Give the attributes of a scores array, so that plain xarray decodes it to probabilities."""
    if np.dtype(dtype).kind == "f":
        return {"long_name": "probability"}
    return {"long_name": "probability", "scale_factor": 1 / SCORE_STEPS, "_FillValue": np.uint8(UNKNOWN)}


def one_class(scores: xr.DataArray, class_: Any = None) -> xr.DataArray:
    """Give the scores of one class.

    Parameters
    ----------
    scores : DataArray (class, y, x) or (y, x)
    class_ : optional
        Its label in ``class``; needed where there are several.

    Returns
    -------
    DataArray (y, x)

    Raises
    ------
    BadInput
        If these are no scores, or the class is not one of theirs.
    """
    if isinstance(scores, xr.DataArray) and scores.ndim == 2:
        check(scores, MASK, "scores")
        return scores
    check(scores, SCORES, "scores")
    labels = scores["class"].values.tolist() if "class" in scores.coords else list(range(scores.sizes["class"]))
    if class_ is None and len(labels) == 1:
        return scores.isel({"class": 0})
    if class_ not in labels:
        raise BadInput(sentence("class_", f"be one of {labels}", f"class_={class_!r}"))
    return scores.isel({"class": labels.index(class_)})
