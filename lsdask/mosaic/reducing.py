"""Kernels of composites: many dates of a block become one.

Most methods take the dates in one by one and hold no more than one (``fold_block``); the median and the medoid need
all of them (``stack_block``), and work on a few rows at a time, so that what they hold beside them is small.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lsdask import schema
from lsdask.compiling import njit

FOLDED = ("first", "last", "mean", "max", "min", "best")
"""Methods that take the dates in one by one."""

STACKED = ("median", "medoid")
"""Methods that need all dates at once."""

PICKING = ("first", "last", "best", "medoid")
"""Methods that take all bands of a pixel from one date."""

NONE = -1
"""The scene of a pixel that no date shows."""

STRIP = 2**19
"""Values that the median and the medoid hold at a time."""


class Pixels(NamedTuple):
    """What is known of the pixels of a block after some dates.

    Attributes
    ----------
    image : (band, y, x) array
        The result so far, in the stored dtype; for the mean the (weighted) sum, float64.
    looks : (y, x) uint16
        On how many dates the pixel is valid.
    scene : (y, x) int16 or None
        The number of the date that was picked, ``NONE`` for none.
    score : (y, x) float64 or None
        For ``best`` the highest score, for a weighted mean the sum of the weights.
    """

    image: np.ndarray
    looks: np.ndarray
    scene: np.ndarray | None = None
    score: np.ndarray | None = None


@dataclass(frozen=True)
class Rule:
    """How to composite; travels with each task.

    Attributes
    ----------
    method : str
        One of ``FOLDED`` and ``STACKED``.
    nodata : float, int or None
        What stands for void in the cube and in the result.
    dtype : str
        Of the cube and of the result.
    score : int or None
        The number of the band that scores the date for ``best``, if it is one.
    """

    method: str
    nodata: float | int | None
    dtype: str
    score: int | None = None


def fold_block(
    so_far: Pixels | None,
    cube: np.ndarray,
    mask: np.ndarray | None = None,
    by: np.ndarray | None = None,
    *,
    rule: Rule,
    start: int = 0,
) -> Pixels:
    """Take some dates of a block in.

    Parameters
    ----------
    so_far : Pixels or None
        What this function gave for the dates before; left as it is.
    cube : (time, band, y, x) array
        The next dates.
    mask : (time, y, x) or (y, x) bool, optional
        ``True`` where a pixel is valid.
    by : (time, y, x) or (y, x) array, optional
        The score of ``best`` or the weight of ``mean``. A date whose score is NaN, or whose weight is not above 0,
        is no look.
    rule : Rule
    start : int
        The number of the first of these dates.

    Returns
    -------
    Pixels
    """
    if so_far is not None and schema.bare_block(cube, rule.nodata):
        return so_far
    pixels = _begin(cube, rule, by) if so_far is None else _copy(so_far)
    for date, values in enumerate(cube):
        seen = schema.valid_block(values, rule.nodata)
        if mask is not None:
            seen &= _at(mask, date)
        score = _at(by, date) if by is not None else None if rule.score is None else values[rule.score]
        if score is not None:
            seen &= score > 0 if rule.method == "mean" else schema.known_block(score, None)
        _take(pixels, values, seen, score, start + date, rule.method)
    return pixels


def _begin(cube: np.ndarray, rule: Rule, by: np.ndarray | None) -> Pixels:
    shape, dtype = cube.shape[1:], np.dtype("float64") if rule.method == "mean" else cube.dtype
    begin = {"max": lowest, "min": highest}.get(rule.method, lambda kind: kind.type(0))(dtype)
    scene = np.full(shape[1:], NONE, "int16") if rule.method in PICKING else None
    scored = rule.method == "best" or by is not None
    score = np.full(shape[1:], -np.inf if rule.method == "best" else 0.0) if scored else None
    return Pixels(np.full(shape, begin, dtype), np.zeros(shape[1:], "uint16"), scene, score)


def _copy(pixels: Pixels) -> Pixels:
    """Copy what is about to be changed: Dask may run a task again on what it was given."""
    return Pixels(*(None if part is None else part.copy() for part in pixels))  # type: ignore[arg-type]


def _at(array: np.ndarray, date: int) -> np.ndarray:
    return array[date] if array.ndim == 3 else array


def _take(
    pixels: Pixels, values: np.ndarray, seen: np.ndarray, score: np.ndarray | None, date: int, method: str
) -> None:
    """Take one date (band, y, x) in, in place."""
    image, looks, scene, _ = pixels
    if method == "mean":
        _add(pixels, values, seen, score)
    elif method in ("max", "min"):
        (np.maximum if method == "max" else np.minimum)(image, values, out=image, where=seen)
    else:
        put = seen if method == "last" else seen & (looks == 0)
        if method == "best":
            put |= seen & (score > pixels.score)  # type: ignore[operator]
            np.copyto(pixels.score, score, where=put)  # type: ignore[arg-type]
        np.copyto(image, values, where=put)
        np.copyto(scene, date, where=put)  # type: ignore[arg-type]
    looks += seen


def _add(pixels: Pixels, values: np.ndarray, seen: np.ndarray, weight: np.ndarray | None) -> None:
    if weight is not None:
        values = values * weight.astype("float64")
        np.add(pixels.score, weight, out=pixels.score, where=seen)  # type: ignore[arg-type]
    np.add(pixels.image, values, out=pixels.image, where=seen)


def stack_block(cube: Sequence[Any], mask: Any = None, *, rule: Rule) -> Pixels:
    """Reduce all dates of a block at once.

    Parameters
    ----------
    cube : list of [(time, band, y, x) array], or of such arrays
        The dates in order.
    mask : list of (time, y, x) bool, or (y, x) bool, optional
        ``True`` where a pixel is valid.
    rule : Rule

    Returns
    -------
    Pixels
    """
    blocks = [block[0] if isinstance(block, list) else block for block in cube]
    height, width = blocks[0].shape[2:]
    image = np.full(blocks[0].shape[1:], highest(blocks[0].dtype), blocks[0].dtype)
    looks = np.zeros((height, width), "uint16")
    scene = np.full((height, width), NONE, "int16") if rule.method in PICKING else None
    numbers, dates, mask = _touched(blocks, mask, rule)
    if not dates:
        return Pixels(image, looks, scene)
    rows = max(STRIP // (sum(map(len, dates)) * len(image) * width), 1)
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        values = np.concatenate([block[:, :, strip] for block in dates])
        seen = schema.valid_block(values, rule.nodata)
        if mask is not None:
            seen &= mask[strip] if isinstance(mask, np.ndarray) else np.concatenate([part[:, strip] for part in mask])
        looks[strip] = seen.sum(axis=0)
        if scene is None:
            image[:, strip] = as_stored(_medians(values, seen), image.dtype)
        else:
            date = _medoids(values, seen)
            scene[strip] = np.where(date < 0, NONE, numbers[date])
            image[:, strip] = np.take_along_axis(values, np.maximum(date, 0)[None, None], axis=0)[0]
    return Pixels(image, looks, scene)


def _touched(blocks: list[np.ndarray], mask: Any, rule: Rule) -> tuple[np.ndarray, list[np.ndarray], Any]:
    """Leave out the dates on which no file touches the block; give the numbers of the others, them and their masks."""
    kept = [not schema.bare_block(block, rule.nodata) for block in blocks]
    starts = np.cumsum([0, *map(len, blocks)])
    numbers = [np.arange(start, start + len(block)) for start, block, keep in zip(starts, blocks, kept) if keep]
    if mask is not None and not isinstance(mask, np.ndarray):
        mask = [part for part, keep in zip(mask, kept) if keep]
    return np.concatenate([[], *numbers]).astype("int16"), [b for b, keep in zip(blocks, kept) if keep], mask


def _medians(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Give the median of each band (band, y, x) float64."""
    series = np.where(seen[:, np.newaxis], values, highest(values.dtype)).transpose(1, 2, 3, 0)
    return median_block(np.ascontiguousarray(series), seen.sum(axis=0))


def median_block(series: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """Give the median of each pixel's dates.

    Parameters
    ----------
    series : (band, y, x, time) array
        The highest value of the dtype, or infinity, where a date is not seen. Sorted in place: dates lie side by
        side, as sorting along another axis takes four times as long.
    looks : (y, x) int
        How many dates are seen.

    Returns
    -------
    (band, y, x) float64
        The mean of the middle two of an even number; where nothing is seen, what stands for that in ``series``.
    """
    series.sort(axis=-1)
    middle = np.maximum((looks - 1) // 2, 0), np.minimum(looks // 2, series.shape[-1] - 1)
    low, high = (np.take_along_axis(series, at[np.newaxis, ..., np.newaxis], axis=-1)[..., 0] for at in middle)
    return (low.astype("float64") + high.astype("float64")) / 2


def _medoids(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Give the number of the medoid (y, x) int16."""
    series = np.ascontiguousarray(values.transpose(2, 3, 0, 1), "float64")
    times, bands = series.shape[2:]
    shown = np.ascontiguousarray(seen.transpose(1, 2, 0))
    return medoid_block(series.reshape(-1, times, bands), shown.reshape(-1, times)).reshape(seen.shape[1:])


@njit(cache=True, nogil=True)
def medoid_block(series: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Give the date of each pixel with the least sum of distances, over all bands, to the other dates seen.

    Parameters
    ----------
    series : (pixel, time, band) float64
    seen : (pixel, time) bool

    Returns
    -------
    (pixel,) int16
        The earliest of equals; -1 where no date is seen.

    Notes
    -----
    Source: N. Flood, Seasonal Composite Landsat TM/ETM+ Images Using the Medoid (a Multi-Dimensional Median), Remote
    Sensing 5(12), 2013: the medoid is the member of a set with the least sum of Euclidean distances to the others.
    """
    medoids = np.full(len(series), -1, np.int16)
    sums = np.empty(series.shape[1])
    for pixel in range(len(series)):
        sums[:] = 0
        for i in range(series.shape[1]):
            if seen[pixel, i]:
                for j in range(i):
                    if seen[pixel, j]:
                        square = 0.0
                        for band in range(series.shape[2]):
                            square += (series[pixel, i, band] - series[pixel, j, band]) ** 2
                        sums[i] += np.sqrt(square)
                        sums[j] += np.sqrt(square)
        for i in range(series.shape[1]):
            if seen[pixel, i] and (medoids[pixel] < 0 or sums[i] < sums[medoids[pixel]]):
                medoids[pixel] = i
    return medoids


# Results


def image_block(pixels: Pixels, *, rule: Rule) -> np.ndarray:
    """Finish the composite: (band, y, x) in the stored dtype, void where no date is seen."""
    image, looks, _, score = pixels
    if rule.method == "mean":
        image = as_stored(image / np.where(looks > 0, looks if score is None else score, 1), np.dtype(rule.dtype))
    if rule.nodata is not None:
        image = np.where(looks > 0, image, np.asarray(rule.nodata, image.dtype))
    return image


def looks_block(pixels: Pixels) -> np.ndarray:
    """Give the number of dates a pixel is seen: (y, x) uint16."""
    return pixels.looks


def scene_block(pixels: Pixels) -> np.ndarray:
    """Give the number of the date a pixel is from: (y, x) int16."""
    return pixels.scene  # type: ignore[return-value]


def as_stored(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Turn float64 into a stored dtype, rounding halves to even; where nothing is seen, integers are left to chance."""
    with np.errstate(invalid="ignore"):
        return (values if dtype.kind == "f" else np.rint(values)).astype(dtype)


def lowest(dtype: np.dtype) -> Any:
    """Give a value that none of a dtype is below."""
    return dtype.type(-np.inf) if dtype.kind == "f" else np.iinfo(dtype).min


def highest(dtype: np.dtype) -> Any:
    """Give a value that none of a dtype is above."""
    return dtype.type(np.inf) if dtype.kind == "f" else np.iinfo(dtype).max
