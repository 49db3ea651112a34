"""The dates of a cube become one value per pixel and band."""

from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import schema
from lsdask.errors import BadInput, sentence

Method = Literal["first", "last", "mean", "median", "max", "min"]
METHODS: tuple[str, ...] = ("first", "last", "mean", "median", "max", "min")


def composite(cube: xr.DataArray, *, method: Method = "first", mask: xr.DataArray | None = None) -> xr.DataArray:
    """Make one image of the dates of a cube, from valid pixels only.

    A pixel of a date is valid if all its bands are known and ``mask`` does not hide it; where no date is valid, the
    result is void. With ``first`` and ``last`` all bands of a pixel come from one date; the others reduce each band
    by itself.

    Parameters
    ----------
    cube : DataArray (time, band, y, x)
        In order of time. Integers or floats, lazy or in memory.
    method : {"first", "last", "mean", "median", "max", "min"}
        How to reduce the valid dates.
    mask : DataArray (time, y, x) or (y, x) bool, optional
        ``True`` where a pixel is valid, on the grid of ``cube``.

    Returns
    -------
    DataArray (band, y, x), dtype as stored, lazy if ``cube`` is
        Means and medians of integers are rounded, halves to even. Integers without ``_FillValue`` get one if there
        is a mask: 0, or the lowest value for signed integers.

    Raises
    ------
    BadInput
        If ``cube`` is no cube, ``method`` is unknown, or ``mask`` is not bool, lies on another grid or has other
        times.

    Examples
    --------
    >>> composite(cube, method="median", mask=clear)  # doctest: +SKIP
    """
    schema.check(cube, schema.CUBE, "cube")
    if method not in METHODS:
        raise BadInput(sentence("method", f"be one of {', '.join(METHODS)}", f"method={method!r}"))
    if cube.sizes["time"] == 0:
        raise BadInput(sentence("cube", "have at least one time", "none"))
    grid = schema.geobox(cube, "cube")
    nodata = schema.nodata(cube)
    if mask is not None:
        _check_mask(mask, cube)
        nodata = _default_nodata(cube.dtype) if nodata is None else nodata
    data = _reduce(cube, None if mask is None else mask.data, method, nodata)
    coords = {"band": cube["band"]} if "band" in cube.coords else {}
    return schema.wrap(data, grid, schema.MOSAIC, name="mosaic", coords=coords, nodata=nodata)


def composite_block(
    cube: np.ndarray, mask: np.ndarray | None = None, *, method: str, nodata: float | int | None
) -> np.ndarray:
    """Reduce the dates of a block.

    Parameters
    ----------
    cube : (time, band, y, x) array
    mask : (time, y, x) or (y, x) bool, optional
        ``True`` where a pixel is valid.
    method : str
        One of ``METHODS``.
    nodata : float, int or None
        What stands for void, in ``cube`` and in the result.

    Returns
    -------
    (band, y, x) array of the dtype of ``cube``
    """
    valid = schema.valid_block(cube, nodata)
    if mask is not None:
        valid = valid & mask
    if method in ("first", "last"):
        image = _pick(cube, valid, last=method == "last")
    else:
        image = _REDUCERS[method](cube, valid[:, np.newaxis], valid.sum(axis=0))
    if nodata is not None:
        image[:, ~valid.any(axis=0)] = nodata
    return image


def _pick(cube: np.ndarray, valid: np.ndarray, *, last: bool) -> np.ndarray:
    """Take all bands of the first or last valid date."""
    date = len(valid) - 1 - valid[::-1].argmax(axis=0) if last else valid.argmax(axis=0)
    return np.take_along_axis(cube, date[np.newaxis, np.newaxis], axis=0)[0]


def _mean(cube: np.ndarray, valid: np.ndarray, looks: np.ndarray) -> np.ndarray:
    total = np.sum(cube, axis=0, where=valid, dtype="float64")
    return _as_stored(total / np.maximum(looks, 1), cube.dtype)


def _median(cube: np.ndarray, valid: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """Sort the invalid dates behind the valid ones, then take the middle of these."""
    ranked = np.sort(np.where(valid, cube, _highest(cube.dtype)), axis=0)
    middle = [np.maximum((looks - 1) // 2, 0), np.minimum(looks // 2, len(cube) - 1)]
    low, high = (np.take_along_axis(ranked, at[np.newaxis, np.newaxis], axis=0)[0] for at in middle)
    return _as_stored((low.astype("float64") + high.astype("float64")) / 2, cube.dtype)


def _max(cube: np.ndarray, valid: np.ndarray, looks: np.ndarray) -> np.ndarray:
    return cube.max(axis=0, where=valid, initial=_lowest(cube.dtype))


def _min(cube: np.ndarray, valid: np.ndarray, looks: np.ndarray) -> np.ndarray:
    return cube.min(axis=0, where=valid, initial=_highest(cube.dtype))


_REDUCERS = {"mean": _mean, "median": _median, "max": _max, "min": _min}


def _as_stored(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return values.astype(dtype) if dtype.kind == "f" else np.rint(values).astype(dtype)


def _lowest(dtype: np.dtype) -> Any:
    return dtype.type(-np.inf) if dtype.kind == "f" else np.iinfo(dtype).min


def _highest(dtype: np.dtype) -> Any:
    return dtype.type(np.inf) if dtype.kind == "f" else np.iinfo(dtype).max


def _default_nodata(dtype: np.dtype) -> int:
    return 0 if dtype.kind == "u" else int(np.iinfo(dtype).min)


def _check_mask(mask: Any, cube: xr.DataArray) -> None:
    dims = ("time", "y", "x") if "time" in getattr(mask, "dims", ()) else ("y", "x")
    schema.check(mask, dims, "mask")
    if mask.dtype != bool:
        do = "Compare it first, as in mask == 1: True means valid"
        raise BadInput(sentence("mask", "be bool, True where a pixel is valid", f"dtype={mask.dtype}", do))
    schema.on_grid(mask, cube, "mask", "cube")
    if "time" in dims and mask.sizes["time"] != cube.sizes["time"]:
        rule = f"have the {cube.sizes['time']} times of cube"
        raise BadInput(sentence("mask", rule, f"{mask.sizes['time']}"))


def _reduce(cube: xr.DataArray, mask: Any, method: str, nodata: float | int | None) -> Any:
    """Map ``composite_block`` over chunks, each holding all times and bands."""
    options: dict[str, Any] = {"method": method, "nodata": nodata}
    if not isinstance(cube.data, da.Array) and not isinstance(mask, da.Array):
        return composite_block(cube.values, mask, **options)
    stack = da.asarray(cube.data).rechunk({0: -1, 1: -1})
    arrays = [(stack, "tbyx")]
    if mask is not None:
        mask = da.asarray(mask)
        arrays.append((mask.rechunk((*[-1] * (mask.ndim - 2), *stack.chunks[2:])), "tyx"[-mask.ndim :]))
    pairs = [part for array, dims in arrays for part in (array, dims)]
    return da.blockwise(
        composite_block,
        "byx",
        *pairs,
        concatenate=True,
        align_arrays=False,
        dtype=cube.dtype,
        meta=np.empty((0, 0, 0), cube.dtype),
        **options,
    )
