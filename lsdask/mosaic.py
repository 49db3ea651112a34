"""Mosaics: the dates of a cube become one value per pixel and band, and lazy mosaics become stores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from scipy import ndimage

from lsdask import schema, store, tasks, tiling
from lsdask.errors import BadInput, sentence

if TYPE_CHECKING:
    from distributed import Client

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


# Masks: True where a pixel is valid

SCL = {
    "no_data": 0,
    "defective": 1,
    "dark": 2,
    "cloud_shadow": 3,
    "vegetation": 4,
    "bare": 5,
    "water": 6,
    "unclassified": 7,
    "cloud_medium": 8,
    "cloud_high": 9,
    "cirrus": 10,
    "snow": 11,
}
"""Classes of the Sentinel-2 scene classification. Source: ESA, Level-2A Algorithm Theoretical Basis Document."""

QA_PIXEL = {
    "fill": (0, 1, 1),
    "dilated_cloud": (1, 1, 1),
    "cirrus": (2, 1, 1),
    "cloud": (3, 1, 1),
    "cloud_shadow": (4, 1, 1),
    "snow": (5, 1, 1),
    "water": (7, 1, 1),
}
"""Landsat 8-9 Collection 2: (first bit, bits, least value that says yes). Source: USGS LSDS-1619, table 6-3."""

BQA = {
    "fill": (0, 1, 1),
    "cloud": (4, 1, 1),
    "cloud_shadow": (7, 2, 3),
    "snow": (9, 2, 3),
    "cirrus": (11, 2, 3),
}
"""Landsat 8 Collection 1, of which confidence 3 is high. Source: USGS LSDS-1873, Quality Assessment band."""


def mask_scl(
    scl: xr.DataArray,
    *,
    hide: Sequence[str] = ("no_data", "defective", "cloud_shadow", "cloud_medium", "cloud_high", "cirrus"),
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
    _check_names("hide", hide, SCL)
    hidden = [SCL[name] for name in hide]
    return _mask(scl, "scl", lambda values: ~np.isin(values, hidden))


def mask_qa(
    qa: xr.DataArray,
    *,
    hide: Sequence[str] = ("fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow"),
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
    return _mask(qa, "qa", lambda values: qa_block(values, asked))


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
    depth = {axis: min(pixels, mask.shape[axis]) for axis in (mask.ndim - 2, mask.ndim - 1)}
    fitting = mask.data.rechunk({axis: _at_least(mask.data.chunks[axis], least) for axis, least in depth.items()})
    grown = da.map_overlap(grow_block, fitting, pixels=pixels, depth=depth, boundary="none", dtype=bool)
    return mask.copy(data=grown.rechunk(mask.data.chunks))


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


def _at_least(sizes: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Join neighbouring chunks until each is as long as the overlap, which Dask would else refuse."""
    joined: list[int] = []
    for size in sizes:
        if joined and min(joined[-1], size) < depth:
            joined[-1] += size
        else:
            joined.append(size)
    return tuple(joined)


def _mask(quality: Any, name: str, of: Callable[[np.ndarray], np.ndarray]) -> xr.DataArray:
    """Turn a quality band into a mask, block by block."""
    if not isinstance(quality, xr.DataArray) or quality.dims[-2:] != ("y", "x") or quality.dtype.kind not in "iu":
        got = f"{quality.dtype} on {quality.dims}" if isinstance(quality, xr.DataArray) else type(quality).__name__
        raise BadInput(sentence(name, "be a DataArray of integers on (..., y, x)", got))
    if "band" in quality.dims:
        if quality.sizes["band"] != 1:
            do = f"Pick it: {name}.sel(band=...)"
            raise BadInput(sentence(name, "have one band", f"{quality.sizes['band']}", do))
        quality = quality.isel(band=0)
    lazy = isinstance(quality.data, da.Array)
    data = quality.data.map_blocks(of, dtype=bool) if lazy else of(quality.values)
    mask = quality.drop_vars("band", errors="ignore").copy(data=data)
    mask.attrs, mask.encoding = {}, {}
    return mask.rename("valid")


def _check_names(name: str, asked: Sequence[str], known: Mapping[str, Any]) -> None:
    unknown = [one for one in asked if one not in known]
    if isinstance(asked, str) or unknown:
        raise BadInput(sentence(name, f"hold some of {', '.join(known)}", f"{name}={asked!r}"))


# Stores


def write(
    image: xr.DataArray,
    path: str | Path,
    *,
    chunk: int = 512,
    shard: int = 2048,
    client: "Client | None" = None,
    workers: int | None = None,
    retries: int = 2,
    progress: bool = True,
) -> tasks.Report:
    """Write a lazy image to a store, one shard a task, so that a run of hours may be killed and goes on.

    Run again with the same arguments it computes only what is not done; with another image it raises.

    Parameters
    ----------
    image : DataArray (..., y, x)
        A mosaic, or anything else on a grid, lazy or in memory. Lazy chunks that divide a shard are read once.
    path : str or Path
        The target store, made if there is nothing.
    chunk, shard : int
        Sides of a chunk and of a shard, in pixels; a shard is a task.
    client : distributed.Client, optional
        Where to run; default a pool of threads in this process.
    workers : int, optional
        Threads of that pool; default one a core.
    retries : int
        How often a shard is tried again after a failed read or write.
    progress : bool
        Show a bar once the run has taken two seconds.

    Returns
    -------
    tasks.Report
        Its ``failed`` names shards that could not be written and why; ``report.check()`` raises if there are any.

    Raises
    ------
    BadInput
        If ``image`` has no grid, or ``shard`` is not a multiple of ``chunk``.
    OtherPlan
        If ``path`` holds another run.

    Examples
    --------
    >>> write(composite(cube), "mosaic.zarr").check()  # doctest: +SKIP
    """
    if not isinstance(image, xr.DataArray) or image.dims[-2:] != ("y", "x"):
        raise BadInput(sentence("image", "be a DataArray with 'y' and 'x' as its last dims", f"{type(image).__name__}"))
    schema.geobox(image)
    return tasks.run(
        WriteTile(store.reader(image), str(path), str(image.name or "image")),
        target=path,
        template=image,
        tile=shard,
        chunk=chunk,
        plan=_plan(image),
        client=client,
        workers=workers,
        retries=retries,
        progress=progress,
        label="mosaic",
    )


def _plan(image: xr.DataArray) -> Mapping[str, Any]:
    return {"work": "mosaic.write", "image": str(image.name), "source": store.fingerprint(image)}


@dataclass(frozen=True)
class WriteTile:
    """The kernel of ``write``: computes a window of the image and writes it as one shard of the target."""

    source: store.Reader
    target: str
    name: str

    def __call__(self, tile: tiling.Tile) -> dict[str, float]:
        y, x = tile.write
        values = self.source.read(y, x)
        store.array(self.target, mode="r+", name=self.name)[..., y, x] = values
        return {"pixels": float(values.shape[-2] * values.shape[-1])}
