"""Quality bands become masks: ``True`` where a pixel is valid."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from scipy import ndimage

from lsdask import graphs, schema
from lsdask.errors import BadInput, sentence
from lsdask.mosaic.qualities import BITS, CLASSES, CLOUDS, CMASK, QA_PIXEL, SCL


def mask(quality: xr.DataArray, kind: str, *, hide: Sequence[str] | None = None) -> xr.DataArray:
    """Make a mask of a quality band, by the name of its kind.

    Parameters
    ----------
    quality : DataArray (..., y, x), integers
        The quality band, at any times; a ``band`` dimension must have one band.
    kind : {"scl", "qa_pixel", "bqa", "cmask", "udm", "udm2"}
        Sentinel-2 scene classification, Landsat Collection 2 or 1, CBERS, RapidEye, PlanetScope.
    hide : sequence of str, optional
        What is not valid, of the names in ``SCL``, ``QA_PIXEL``, ``BQA``, ``CMASK``, ``UDM`` or ``UDM2``; default
        ``CLOUDS[kind]``. For snow too: ``[*CLOUDS[kind], "snow"]``.

    Returns
    -------
    DataArray (..., y, x) bool, lazy if ``quality`` is
        ``True`` where a pixel is valid.

    Raises
    ------
    BadInput
        If ``kind`` or a name to hide is unknown, or ``quality`` is not integers of one band.

    Examples
    --------
    >>> clear = mask(cube.sel(band=["SCL"]), "scl")  # doctest: +SKIP
    """
    if kind not in CLOUDS:
        raise BadInput(sentence("kind", f"be one of {', '.join(CLOUDS)}", f"kind={kind!r}"))
    names = CLOUDS[kind] if hide is None else hide
    if kind in CLASSES:
        return _mask_classes(quality, kind, names, CLASSES[kind])
    return mask_qa(quality, hide=names, bits=BITS[kind])


def mask_scl(
    scl: xr.DataArray,
    *,
    hide: Sequence[str] = CLOUDS["scl"],
) -> xr.DataArray:
    """Make a mask of a Sentinel-2 scene classification.

    Parameters
    ----------
    scl : DataArray (..., y, x), integers
        The SCL band, at any times; a ``band`` dimension must have one band.
    hide : sequence of str
        Classes that are not valid, of ``SCL``; add ``"snow"`` where it matters.

    Returns
    -------
    DataArray (..., y, x) bool, lazy if ``scl`` is
        ``True`` where a pixel is valid.

    Raises
    ------
    BadInput
        If a class is unknown or ``scl`` is not integers of one band.
    """
    return _mask_classes(scl, "scl", hide, SCL)


def mask_cmask(cmask: xr.DataArray, *, hide: Sequence[str] = CLOUDS["cmask"]) -> xr.DataArray:
    """Make a mask of the cloud mask that INPE delivers with CBERS scenes.

    Parameters
    ----------
    cmask : DataArray (..., y, x), integers
        The CMASK band, at any times; a ``band`` dimension must have one band.
    hide : sequence of str
        Classes that are not valid, of ``CMASK``. It tells no shadows: see ``grow``.

    Returns
    -------
    DataArray (..., y, x) bool, lazy if ``cmask`` is
        ``True`` where a pixel is valid.

    Raises
    ------
    BadInput
        If a class is unknown or ``cmask`` is not integers of one band.
    """
    return _mask_classes(cmask, "cmask", hide, CMASK)


def mask_snow(cube: xr.DataArray, *, green: str, swir: str, above: float = 0.4) -> xr.DataArray:
    """Make a mask of snow from the bands themselves, for sensors whose quality band tells none.

    Snow is where (green - swir) / (green + swir), the normalised difference snow index, is above a threshold. Clear
    water and shadows on snow are so too, and are hidden with it.

    Parameters
    ----------
    cube : DataArray (..., band, y, x)
        Reflectances, in any unit that is 0 at no light: take an offset away first.
    green, swir : str
        Bands near 0.56 and 1.6 micrometres.
    above : float
        The threshold.

    Returns
    -------
    DataArray (..., y, x) bool, lazy if ``cube`` is
        ``True`` where there is no snow, and where a band is void and nothing can be said.

    Raises
    ------
    BadInput
        If ``cube`` has no such bands.

    Notes
    -----
    Source: D. K. Hall, G. A. Riggs and V. V. Salomonson, Development of methods for mapping global snow cover using
    MODIS data, Remote Sensing of Environment 54, 1995.
    """
    names = schema.bands(cube) if isinstance(cube, xr.DataArray) and "band" in cube.dims else ()
    for name, band in (("green", green), ("swir", swir)):
        if band not in names:
            raise BadInput(sentence(name, f"be a band of cube ({', '.join(names) or 'which has none'})", repr(band)))
    pair = cube.isel(band=[names.index(green), names.index(swir)])
    known = schema.valid(pair)
    values = pair.data.astype("float32")
    snow = snow_block(values[..., 0, :, :], values[..., 1, :, :], above=above)
    return known.copy(data=~(snow & known.data)).rename("valid")


def snow_block(green: Any, swir: Any, *, above: float) -> Any:
    """Say where the normalised difference snow index is above a threshold.

    Parameters
    ----------
    green, swir : float arrays of one shape
    above : float

    Returns
    -------
    bool array of the same shape
    """
    return (green - swir) > above * (green + swir)


def mask_qa(
    qa: xr.DataArray,
    *,
    hide: Sequence[str] = CLOUDS["qa_pixel"],
    bits: Mapping[str, tuple[int, int, int]] = QA_PIXEL,
) -> xr.DataArray:
    """Make a mask of a band of quality bits, such as Landsat's.

    Parameters
    ----------
    qa : DataArray (..., y, x), integers
        The quality band, at any times; a ``band`` dimension must have one band.
    hide : sequence of str
        Conditions that are not valid, of ``bits``; add ``"snow"`` where it matters.
    bits : mapping
        The layout: from name to (first bit, bits, least value that says yes). ``QA_PIXEL`` is that of Collection 2,
        ``BQA`` that of Collection 1, which tells no dilated clouds.

    Returns
    -------
    DataArray (..., y, x) bool, lazy if ``qa`` is
        ``True`` where a pixel is valid.

    Raises
    ------
    BadInput
        If a condition is unknown or ``qa`` is not integers of one band.
    """
    _check_names("hide", hide, bits)
    asked = [bits[name] for name in hide]
    return _mask(qa, "qa", partial(qa_block, conditions=asked))


def qa_block(values: np.ndarray, conditions: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Say where none of some conditions holds.

    Parameters
    ----------
    values : integer array
        Quality bits.
    conditions : sequence of (first bit, bits, least value that says yes)

    Returns
    -------
    bool array of the same shape
    """
    valid = np.ones(values.shape, bool)
    for first, count, least in conditions:
        valid &= ((values >> first) & ((1 << count) - 1)) < least
    return valid


def grow(mask: xr.DataArray, pixels: int) -> xr.DataArray:
    """Hide also what lies within a distance of hidden pixels: clouds have edges that masks miss.

    Parameters
    ----------
    mask : DataArray (..., y, x) bool
        ``True`` where a pixel is valid.
    pixels : int
        The distance, between pixel centres.

    Returns
    -------
    DataArray (..., y, x) bool, lazy if ``mask`` is

    Raises
    ------
    BadInput
        If ``mask`` is not bool on (..., y, x), or ``pixels`` is negative.
    """
    if not isinstance(mask, xr.DataArray) or mask.dims[-2:] != ("y", "x") or mask.dtype != bool:
        raise BadInput(sentence("mask", "be a DataArray of bool on (..., y, x)", f"{type(mask).__name__}"))
    if pixels < 0:
        raise BadInput(sentence("pixels", "not be negative", f"pixels={pixels}"))
    if not isinstance(mask.data, da.Array):
        return mask.copy(data=grow_block(mask.values, pixels))
    return mask.copy(data=graphs.around(partial(grow_block, pixels=pixels), mask.data, pixels, bool))


def grow_block(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Keep the pixels farther than a distance from the hidden ones.

    Parameters
    ----------
    mask : (..., y, x) bool
        ``True`` where a pixel is valid.
    pixels : int

    Returns
    -------
    (..., y, x) bool
    """
    grown = np.ones_like(mask)
    for plane in np.ndindex(mask.shape[:-2]):
        if not mask[plane].all():
            grown[plane] = ndimage.distance_transform_edt(mask[plane]) > pixels
    return grown


def _mask(quality: Any, name: str, of: Callable[[np.ndarray], np.ndarray]) -> xr.DataArray:
    """Turn a quality band into a mask, block by block."""
    if not isinstance(quality, xr.DataArray) or quality.dims[-2:] != ("y", "x") or quality.dtype.kind not in "iu":
        got = f"{quality.dtype} on {quality.dims}" if isinstance(quality, xr.DataArray) else type(quality).__name__
        raise BadInput(sentence(name, "be a DataArray of integers on (..., y, x)", got))
    if quality.sizes.get("band", 1) != 1:
        do = f"Pick it: {name}.sel(band=...)"
        raise BadInput(sentence(name, "have one band", f"{quality.sizes['band']}", do))
    axis = quality.dims.index("band") if "band" in quality.dims else None
    block = partial(_mask_block, of=of, axis=axis)
    lazy = isinstance(quality.data, da.Array)
    drop = [] if axis is None else [axis]
    data: Any = da.map_blocks(block, quality.data, drop_axis=drop, dtype=bool) if lazy else block(quality.values)
    return graphs.without_band(quality, data).rename("valid")


def _mask_block(values: np.ndarray, *, of: Callable[[np.ndarray], np.ndarray], axis: int | None) -> np.ndarray:
    return of(values if axis is None else values.take(0, axis=axis))


def _mask_classes(quality: Any, name: str, hide: Sequence[str], classes: Mapping[str, int]) -> xr.DataArray:
    """Hide some classes of a classification."""
    _check_names("hide", hide, classes)
    return _mask(quality, name, partial(classes_block, hidden=[classes[one] for one in hide]))


def classes_block(values: np.ndarray, hidden: Sequence[int]) -> np.ndarray:
    """Say where a classification holds none of some classes: bool of the same shape."""
    return ~np.isin(values, hidden)


def _check_names(name: str, asked: Sequence[str], known: Mapping[str, Any]) -> None:
    unknown = [one for one in asked if one not in known]
    if isinstance(asked, str) or unknown:
        raise BadInput(sentence(name, f"hold some of {', '.join(known)}", f"{name}={asked!r}"))
