"""The dates of a cube become one value per pixel and band.

All of it is lazy. Most methods hold one date of a chunk at a time, so that a hundred dates cost the memory of one.
Masks that were grown and feathering look at the chunks around; a window of few chunks (``folding.TOGETHER``) is then
held at one date at a time: 0.3 GB for 4 bands and 2048 x 2048 pixels, however many dates. The median and the medoid
hold the chunk at all dates, as stored: 100 dates, 4 bands, 512 x 512 pixels of uint16 are 210 MB. Smaller chunks hold
less.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import graphs, schema
from lsdask.errors import BadInput, sentence
from lsdask.mosaic import folding, reducing
from lsdask.mosaic.feathering import feather as weights
from lsdask.mosaic.reducing import FOLDED, PICKING, STACKED, Rule

Method = Literal["first", "last", "mean", "median", "max", "min", "best", "medoid"]
METHODS: tuple[str, ...] = (*FOLDED, *STACKED)


class Composite(NamedTuple):
    """A composite and where it comes from; computed together, the pixels are read once.

    Attributes
    ----------
    image : DataArray (band, y, x)
        The composite.
    looks : DataArray (y, x) uint16
        On how many dates a pixel is valid.
    scene : DataArray (y, x) int16 or None
        The number of the date that a pixel is from, -1 (``_FillValue``) for none; None for methods that pick no date.
    """

    image: xr.DataArray
    looks: xr.DataArray
    scene: xr.DataArray | None


def composite(
    cube: xr.DataArray,
    *,
    method: Method = "first",
    mask: xr.DataArray | None = None,
    by: str | xr.DataArray | None = None,
    feather: int = 0,
) -> xr.DataArray:
    """Make one image of the dates of a cube, from valid pixels only.

    A pixel of a date is valid if all its bands are known and ``mask`` does not hide it; where no date is valid, the
    result is void. With ``first``, ``last``, ``best`` and ``medoid`` all bands of a pixel come from one date; the
    others reduce each band by itself.

    Parameters
    ----------
    cube : DataArray (time, band, y, x)
        In order of time. Integers or floats, lazy or in memory.
    method : {"first", "last", "mean", "median", "max", "min", "best", "medoid"}
        How to reduce the valid dates. ``best`` takes the date with the highest score, see ``by``; ``medoid`` the one
        with the least sum of distances over all bands to the others (bands should have like ranges). The earliest of
        equals is taken.
    mask : DataArray (time, y, x) or (y, x) bool, optional
        ``True`` where a pixel is valid, on the grid of ``cube``.
    by : str or DataArray (time, y, x) or (y, x), optional
        For ``best`` the score: the name of a band of ``cube``, or an array on its grid. For ``mean`` an array of
        weights. A date whose score is void, or whose weight is not above 0, is not valid.
    feather : int
        For ``mean``: a date fades in over so many pixels from where it is not valid, so that its edges leave no seam;
        see ``feathering.feather``.

    Returns
    -------
    DataArray (band, y, x), dtype as stored, lazy if ``cube`` is
        Means and medians of integers are rounded, halves to even. Integers without ``_FillValue`` get one if there
        is a mask, or scores or weights: 0, or the lowest value for signed integers.

    Raises
    ------
    BadInput
        If ``cube`` is no cube, ``method`` is unknown, ``mask`` is not bool, an array lies on another grid or has
        other times, or ``by`` or ``feather`` is given to a method that has no use for it.

    Examples
    --------
    >>> composite(cube, method="median", mask=clear)  # doctest: +SKIP
    >>> composite(cube, method="best", by="ndvi", mask=clear)  # doctest: +SKIP
    """
    return composite_parts(cube, method=method, mask=mask, by=by, feather=feather).image


def composite_parts(
    cube: xr.DataArray,
    *,
    method: Method = "first",
    mask: xr.DataArray | None = None,
    by: str | xr.DataArray | None = None,
    feather: int = 0,
) -> Composite:
    """Make a composite, with the count of clear looks and the scene each pixel is from.

    Parameters
    ----------
    cube, method, mask, by, feather
        As for ``composite``.

    Returns
    -------
    Composite
        Its image is that of ``composite``. ``dask.compute(*parts)`` reads pixels once, and so does writing
        ``stack([parts.image, parts.looks])``.

    Raises
    ------
    BadInput
        As ``composite`` does.
    """
    _check(cube, method, by, feather)
    grid, nodata = schema.geobox(cube, "cube"), schema.nodata(cube)
    shown = None if mask is None else _aligned(_checked_mask(mask), cube, "mask")
    if feather:
        by = weights(_shown(cube, shown), feather)
    score = _aligned(_known(by), cube, "by") if isinstance(by, xr.DataArray) else None
    if nodata is None and (mask is not None or by is not None):
        nodata = default_nodata(cube.dtype)
    rule = Rule(method, nodata, cube.dtype.str, schema.bands(cube).index(by) if isinstance(by, str) else None)
    image, looks, scene = _parts(cube, shown, score, rule)
    coords = {"band": cube["band"]} if "band" in cube.coords else {}
    return Composite(
        schema.wrap(image, grid, schema.MOSAIC, name="mosaic", coords=coords, nodata=nodata),
        schema.wrap(looks, grid, schema.MASK, name="looks", attrs={"long_name": "count of clear looks"}),
        None if scene is None else schema.wrap(scene, grid, schema.MASK, name="scene", nodata=reducing.NONE),
    )


def _parts(cube: xr.DataArray, mask: Any, by: Any, rule: Rule) -> tuple[Any, Any, Any]:
    """Give image, looks and scene (or None), as arrays."""
    if any(isinstance(array, da.Array) for array in (cube.data, mask, by)):
        return _lazy_parts(da.asarray(cube.data).rechunk({1: -1}), mask, by, rule)
    if rule.method in STACKED:
        pixels = reducing.stack_block([cube.values], [mask] if np.ndim(mask) == 3 else mask, rule=rule)
    else:
        pixels = reducing.fold_block(None, cube.values, mask, by, rule=rule)
    return reducing.image_block(pixels, rule=rule), pixels.looks, pixels.scene


def _lazy_parts(stack: da.Array, mask: Any, by: Any, rule: Rule) -> tuple[Any, Any, Any]:
    mask, by = (None if array is None else _like(da.asarray(array), stack) for array in (mask, by))
    if rule.method in STACKED:
        graph, name = folding.gather(partial(reducing.stack_block, rule=rule), stack, mask)
    else:
        graph, name = folding.fold(partial(reducing.fold_block, rule=rule), stack, [mask, by])
    plane = stack.chunks[2:]
    image = folding.part(graph, name, reducing.image_block, stack.chunks[1:], stack.dtype, rule=rule)
    looks = folding.part(graph, name, reducing.looks_block, plane, "uint16")
    scene = folding.part(graph, name, reducing.scene_block, plane, "int16") if rule.method in PICKING else None
    return image, looks, scene


def _like(array: da.Array, stack: da.Array) -> da.Array:
    """Put an array on ([time,] y, x) in the chunks of a stack (time, band, y, x)."""
    chunks = (stack.chunks[0], *stack.chunks[2:])[-array.ndim :]
    return array.rechunk(chunks)


def default_nodata(dtype: np.dtype) -> int:
    """Give what stands for void in integers that declare nothing: 0, or the lowest value of signed ones."""
    return 0 if dtype.kind == "u" else int(np.iinfo(dtype).min)


def _shown(cube: xr.DataArray, mask: Any) -> xr.DataArray:
    """Say where each date is valid: (time, y, x) bool."""
    block = partial(schema.valid_block, nodata=schema.nodata(cube))
    lazy = isinstance(cube.data, da.Array)
    known = cube.data.rechunk({1: -1}).map_blocks(block, drop_axis=1, dtype=bool) if lazy else block(cube.values)
    return graphs.without_band(cube, known if mask is None else known & mask)


def _known(by: xr.DataArray) -> xr.DataArray:
    """Turn what is void in scores or weights to NaN."""
    return by if by.dtype.kind == "f" or schema.nodata(by) is None else by.where(schema.valid(by))


# Checks


def _check(cube: Any, method: str, by: Any, feather: int) -> None:
    schema.check(cube, schema.CUBE, "cube")
    if method not in METHODS:
        raise BadInput(sentence("method", f"be one of {', '.join(METHODS)}", f"method={method!r}"))
    if not 0 < cube.sizes["time"] <= np.iinfo("int16").max:
        raise BadInput(sentence("cube", "have at least one time, and fewer than 32 768", f"{cube.sizes['time']}"))
    if feather and (method != "mean" or by is not None or feather < 0):
        rule = "be 0, or pixels to fade over with method='mean' and no by"
        raise BadInput(sentence("feather", rule, f"feather={feather} with method={method!r}"))
    _check_by(cube, method, by)


def _check_by(cube: xr.DataArray, method: str, by: Any) -> None:
    names = schema.bands(cube)
    if method == "best" and not (isinstance(by, xr.DataArray) or by in names):
        rule = f"be a score for method='best': a DataArray, or one of the bands {', '.join(names)}"
        raise BadInput(sentence("by", rule, f"by={by!r}"))
    if method == "mean" and by is not None and not isinstance(by, xr.DataArray):
        raise BadInput(sentence("by", "be a DataArray of weights for method='mean'", f"by={by!r}"))
    if method not in ("best", "mean") and by is not None:
        do = "Leave it out, or say method='best'"
        raise BadInput(sentence("by", "be given with method='best' or 'mean' only", f"method={method!r}", do))


def _checked_mask(mask: Any) -> Any:
    if isinstance(mask, xr.DataArray) and mask.dtype != bool:
        do = "Compare it first, as in mask == 1: True means valid"
        raise BadInput(sentence("mask", "be bool, True where a pixel is valid", f"dtype={mask.dtype}", do))
    return mask


def _aligned(array: Any, cube: xr.DataArray, name: str) -> Any:
    """Give the data of a mask or score (y, x) or (time, y, x) that fits a cube."""
    dims = ("time", "y", "x") if "time" in getattr(array, "dims", ()) else ("y", "x")
    schema.check(array, dims, name)
    schema.on_grid(array, cube, name, "cube")
    if "time" in dims and array.sizes["time"] != cube.sizes["time"]:
        raise BadInput(sentence(name, f"have the {cube.sizes['time']} times of cube", f"{array.sizes['time']}"))
    if {"time"} <= set(array.coords) & set(cube.coords) & set(dims) and (
        array["time"].values != cube["time"].values
    ).any():
        raise BadInput(sentence(name, "have the times of cube", "others", f"Use {name}.sel(time=cube.time)"))
    return array.data
