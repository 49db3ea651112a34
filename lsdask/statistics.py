"""Per-band statistics of an image of any size: one pass over it, and the same numbers whatever its chunks.

Chunks are summed in an order that nobody controls, so every sum here is exact and order is of no account: integers of
up to 16 bit are counted value by value, floats are summed in fixed point, wide enough for every float there is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed
from numba import njit

from lsdask import schema
from lsdask.errors import BadInput, sentence

EXPONENTS = 2048
"""Exponents of a float64: an exact sum holds one integer (in two halves) for each."""

LARGEST = 1e150
"""Values beyond this have squares that float64 cannot hold; they count as infinite."""

_HALF = 26  # bits of the lower half of a float64's 53-bit mantissa
_UNIT = 1074  # the smallest float64 is 2**-1074
_SKETCH_BITS = 20
_IN_MEMORY_CHUNK = 2048


def bands(image: xr.DataArray, *, percentiles: Sequence[float] = (2, 50, 98)) -> xr.Dataset:
    """Measure each band over the pixels that have data in every band. Reads the image once, now.

    The result is the same, bit for bit, for any chunking, scheduler and number of workers.

    Parameters
    ----------
    image : DataArray (band, y, x)
        Any integer or float dtype; lazy or in memory. No chunk is held longer than its own sums take.
    percentiles : sequence of float
        0 to 100, with linear interpolation as ``numpy.percentile``. Exact for integers of up to 16 bit; for other
        dtypes within 2**-11 (0.05 %) of the value itself, from counts of values rounded to 12 significant bits.

    Returns
    -------
    Dataset over ``band``
        ``count`` (int64, valid pixels), ``min``, ``max``, ``mean``, ``std`` (population) and one variable a
        percentile, named ``p02``, ``p50``, ``p98``, ``p99_9`` (float64, in the image's units; NaN where no pixel is
        valid).

    Raises
    ------
    BadInput
        If the dims are not (band, y, x), a percentile is out of range, or a value is infinite.
    """
    schema.check(image, schema.MOSAIC)
    names = [_percentile_name(percentile) for percentile in percentiles]
    measured = _measure(image)
    columns = {"count": np.full(image.sizes["band"], measured.count, dtype="int64"), **measured.moments()}
    for name, percentile in zip(names, percentiles):
        columns[name] = measured.percentile(percentile)
    band = ("band", np.asarray(schema.bands(image)))
    data = {name: ("band", values) for name, values in columns.items()}
    return xr.Dataset(data, coords={"band": band}, attrs={"pixels": image.sizes["y"] * image.sizes["x"]})


def _percentile_name(percentile: float) -> str:
    if not 0 <= percentile <= 100:
        raise BadInput(sentence("percentiles", "lie from 0 to 100", f"percentiles={percentile}"))
    return f"p{percentile:02g}".replace(".", "_")


def _measure(image: xr.DataArray) -> "_Counted | _Summed":
    nodata = schema.nodata(image)
    if _is_small(image.dtype):
        counts = fold(image, lambda block, *_: count_block(block, nodata), _add)
        return _Counted(counts, int(np.iinfo(image.dtype).min))
    sums: _Summed = fold(image, lambda block, *_: sum_block(block, nodata), lambda parts: reduce(_merge_sums, parts))
    if sums.beyond:
        do = f"Make them NaN with image.where(abs(image) <= {LARGEST:g})"
        raise BadInput(sentence("image", "hold finite values", f"{sums.beyond} pixels that are infinite or huge", do))
    return sums


def _is_small(dtype: Any) -> bool:
    return np.dtype(dtype).kind in "iu" and np.dtype(dtype).itemsize <= 2


def _add(parts: list[np.ndarray]) -> np.ndarray:
    return np.sum(parts, axis=0)


# Reductions over chunks


def fold(
    image: xr.DataArray,
    partial: Callable[[np.ndarray, int, int], Any],
    merge: Callable[[list[Any]], Any],
    *,
    width: int = 8,
) -> Any:
    """Reduce an image to one small thing, reading each chunk once and holding none after its turn.

    Parameters
    ----------
    image : DataArray (band, y, x)
        Lazy or in memory.
    partial : callable of (block, y, x)
        Reduces one chunk, a (band, y, x) array with all bands, whose first pixel lies at row ``y``, column ``x``.
    merge : callable of a list
        Joins up to ``width`` of what ``partial`` or ``merge`` gave; must not depend on their order.
    width : int
        How many are joined at a time.

    Returns
    -------
    what ``merge`` gives
    """
    data = image.data
    if not isinstance(data, da.Array):
        data = da.from_array(data, chunks=(-1, _IN_MEMORY_CHUNK, _IN_MEMORY_CHUNK), name=False)
    data = data.rechunk({0: -1})
    corners = [np.cumsum((0, *sizes))[:-1] for sizes in data.chunks[1:]]
    step, join = dask.delayed(partial, pure=False), dask.delayed(merge, pure=False)
    blocks = data.to_delayed()[0]
    parts: list[Delayed] = [
        step(blocks[row, column], int(y), int(x))
        for row, y in enumerate(corners[0])
        for column, x in enumerate(corners[1])
    ]
    while len(parts) > 1:
        parts = [join(parts[i : i + width]) for i in range(0, len(parts), width)]
    return parts[0].compute()


# Integers of up to 16 bit: count every value


def count_block(data: np.ndarray, nodata: float | int | None) -> np.ndarray:
    """Count how often each value occurs in each band, over pixels with data in every band.

    Parameters
    ----------
    data : (band, y, x) array of an integer dtype of up to 16 bit
    nodata : int or None

    Returns
    -------
    (band, 2 ** bits) int64 array; the first column is for the dtype's least value
    """
    limits = np.iinfo(data.dtype)
    counts = np.zeros((len(data), int(limits.max) - int(limits.min) + 1), dtype="int64")
    missing = data.dtype.type(0 if nodata is None else nodata)
    _count(np.ascontiguousarray(data).reshape(len(data), -1), missing, nodata is not None, int(limits.min), counts)
    return counts


@njit(nogil=True, cache=True)
def _count(data, missing, declared, low, counts):  # type: ignore[no-untyped-def]
    for i in range(data.shape[1]):
        known = True
        if declared:
            for band in range(data.shape[0]):
                known &= data[band, i] != missing
        if known:
            for band in range(data.shape[0]):
                counts[band, np.int64(data[band, i]) - low] += 1


@dataclass(frozen=True)
class _Counted:
    """How often each value occurs: (band, value) counts, the first for ``low``."""

    counts: np.ndarray
    low: int

    @property
    def count(self) -> int:
        return int(self.counts[0].sum())

    def moments(self) -> dict[str, np.ndarray]:
        columns = [_moments(*self._sums(band)) for band in self.counts]
        return {name: np.array([column[name] for column in columns]) for name in columns[0]}

    def _sums(self, band: np.ndarray) -> tuple[int, float, float, Fraction, Fraction]:
        values = np.flatnonzero(band).tolist()
        pairs = [(value + self.low, int(band[value])) for value in values]
        total = sum(value * times for value, times in pairs)
        squares = sum(value * value * times for value, times in pairs)
        low, high = (pairs[0][0], pairs[-1][0]) if pairs else (np.nan, np.nan)
        return self.count, low, high, Fraction(total), Fraction(squares)

    def percentile(self, percentile: float) -> np.ndarray:
        return np.array([_percentile(band, percentile, self._value) for band in self.counts])

    def _value(self, place: int, share: float) -> float:
        return float(place + self.low)


def _moments(count: int, low: float, high: float, total: Fraction, squares: Fraction) -> dict[str, float]:
    """Give min, max, mean and population standard deviation from exact sums, rounded once each."""
    if count == 0:
        return {"min": np.nan, "max": np.nan, "mean": np.nan, "std": np.nan}
    variance = max(squares / count - (total / count) ** 2, Fraction(0))
    return {"min": float(low), "max": float(high), "mean": float(total / count), "std": float(variance) ** 0.5}


def _percentile(counts: np.ndarray, percentile: float, value: Callable[[int, float], float]) -> float:
    """Interpolate between the two order statistics that a percentile lies between (numpy's "linear")."""
    above = np.cumsum(counts)
    if above[-1] == 0:
        return np.nan
    rank, share = divmod(percentile / 100 * (int(above[-1]) - 1), 1)
    ends = [_order_statistic(above, min(int(rank) + step, int(above[-1]) - 1), value) for step in (0, 1)]
    return ends[0] + (ends[1] - ends[0]) * share


def _order_statistic(above: np.ndarray, rank: int, value: Callable[[int, float], float]) -> float:
    """Give the value of a rank (from 0): its place among the counts, and how far through that place it comes."""
    place = int(np.searchsorted(above, rank, side="right"))
    before = int(above[place - 1]) if place else 0
    return value(place, (rank - before + 0.5) / (int(above[place]) - before))


# Everything else: exact sums of floats, and counts of rounded values


@dataclass(frozen=True)
class _Summed:
    """Exact sums of one part of an image; ``places`` and ``counts`` are one pair of arrays a band."""

    count: int
    beyond: int
    low: np.ndarray
    high: np.ndarray
    sums: np.ndarray
    places: list[np.ndarray]
    counts: list[np.ndarray]

    def moments(self) -> dict[str, np.ndarray]:
        totals = exact(self.sums)
        ends = zip(self.low.tolist(), self.high.tolist())
        columns = [_moments(self.count, *ends_, *total) for ends_, total in zip(ends, totals)]
        return {name: np.array([column[name] for column in columns]) for name in columns[0]}

    def percentile(self, percentile: float) -> np.ndarray:
        found = []
        for places, counts, low, high in zip(self.places, self.counts, self.low, self.high):
            estimate = _percentile(counts, percentile, _inside(places)) if self.count else np.nan
            found.append(min(max(estimate, low), high))
        return np.array(found)


def sum_block(data: np.ndarray, nodata: float | int | None) -> _Summed:
    """Sum a block for ``bands``, over pixels with data in every band.

    Parameters
    ----------
    data : (band, y, x) array
        Floats, or integers of 32 or 64 bit (exact up to 2**53).
    nodata : float, int or None

    Returns
    -------
    Sums to be merged
    """
    known = schema.valid_block(data, nodata)
    usable = known & _finite(data)
    data = data if data.dtype.kind == "f" else data.astype("float64")
    sums = np.zeros((len(data), 2, EXPONENTS, 2), dtype="int64")
    sketch = np.zeros((len(data), 1 << _SKETCH_BITS), dtype="uint32")
    low, high = np.full(len(data), np.inf), np.full(len(data), -np.inf)
    _sum(np.ascontiguousarray(data).reshape(len(data), -1), usable.ravel(), sums, sketch, low, high)
    places = [np.flatnonzero(band) for band in sketch]
    counts = [band[place].astype("int64") for band, place in zip(sketch, places)]
    count = int(np.count_nonzero(usable))
    return _Summed(count, int(np.count_nonzero(known)) - count, low, high, sums, places, counts)


def _finite(data: np.ndarray) -> Any:
    if data.dtype.kind != "f":
        return True
    return (np.abs(data) <= min(LARGEST, float(np.finfo(data.dtype).max))).all(axis=0)


def _merge_sums(one: _Summed, other: _Summed) -> _Summed:
    pairs = [_merge_counts(*band) for band in zip(one.places, one.counts, other.places, other.counts)]
    return _Summed(
        one.count + other.count,
        one.beyond + other.beyond,
        np.minimum(one.low, other.low),
        np.maximum(one.high, other.high),
        one.sums + other.sums,
        [places for places, _ in pairs],
        [counts for _, counts in pairs],
    )


def _merge_counts(
    places: np.ndarray, counts: np.ndarray, more: np.ndarray, more_counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    union = np.union1d(places, more)
    total = np.zeros(len(union), dtype="int64")
    total[np.searchsorted(union, places)] += counts
    total[np.searchsorted(union, more)] += more_counts
    return union, total


@njit(nogil=True, cache=True)
def _sum(data, usable, sums, sketch, low, high):  # type: ignore[no-untyped-def]
    for band in range(data.shape[0]):
        for i in range(data.shape[1]):
            if not usable[i]:
                continue
            value = np.float64(data[band, i])
            low[band] = min(low[band], value)
            high[band] = max(high[band], value)
            _add_exactly(sums[band, 0], value)
            _add_exactly(sums[band, 1], value * value)  # exact for float32 values: 2 x 24 bits fit in 53
            sketch[band, _place(value)] += 1


@njit(nogil=True, cache=True)
def _add_exactly(total, value):  # type: ignore[no-untyped-def]
    """Add a finite float64 to a (EXPONENTS, 2) int64 sum: its mantissa's halves, at its exponent."""
    bits = np.float64(value).view(np.int64)
    exponent = (bits >> 52) & 0x7FF
    mantissa = bits & 0xFFFFFFFFFFFFF
    if exponent:
        mantissa |= 1 << 52
    else:
        exponent |= 1
    sign = np.int64(-1) if bits < 0 else np.int64(1)
    total[exponent, 0] += sign * (mantissa & 0x3FFFFFF)
    total[exponent, 1] += sign * (mantissa >> 26)


@njit(nogil=True, cache=True)
def _place(value):  # type: ignore[no-untyped-def]
    """Number a value by its sign, exponent and 11 bits as a float32, so that larger values have larger numbers."""
    bits = np.float32(value).view(np.uint32)
    ordered = ~bits if bits >> np.uint32(31) else bits | np.uint32(0x80000000)
    return np.int64(np.uint32(ordered) >> np.uint32(12))


def _inside(places: np.ndarray) -> Callable[[int, float], float]:
    """Give the function from (index into ``places``, share of the way through it) to a value: ``_place`` undone."""

    def value(index: int, share: float) -> float:
        edges = _edge(places[index]), _edge(places[index] + 1)
        return edges[0] + (edges[1] - edges[0]) * share

    return value


def _edge(place: int) -> float:
    ordered = min(int(place) << (32 - _SKETCH_BITS), 2**32 - 1)
    bits = ordered & 0x7FFFFFFF if ordered >> 31 else ~ordered & 0xFFFFFFFF
    edge = float(np.array(bits, dtype="uint32").view("float32"))
    return edge if np.isfinite(edge) else float(np.copysign(np.finfo("float32").max, 1 if ordered >> 31 else -1))


def exact(sums: np.ndarray) -> Any:
    """Turn exact sums of floats into fractions.

    Parameters
    ----------
    sums : (..., EXPONENTS, 2) int64 array
        The lower and upper halves of the mantissas summed at each exponent.

    Returns
    -------
    (...) object array of Fraction
    """
    lead = sums.shape[:-2]
    totals = np.empty(lead, dtype=object)
    for index in np.ndindex(lead):
        total: int = 0
        for exponent in np.flatnonzero(sums[index].any(axis=1)).tolist():
            low, high = sums[index][exponent].tolist()
            total += (low + (high << _HALF)) << (exponent - 1)
        totals[index] = Fraction(total, 1 << _UNIT)
    return totals


# Exact sums by group, for k-means


@dataclass(frozen=True)
class Totals:
    """How many pixels each group has and, exactly, what their values add up to.

    Attributes
    ----------
    count : (group,) int64 array
    sums : (group, band) object array of Fraction or int
    """

    count: np.ndarray
    sums: np.ndarray

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.count + other.count, self.sums + other.sums)


class Adder:
    """Adds up pixels by group, exactly, one strip after another.

    Parameters
    ----------
    dtype : dtype
        Of the pixels: integers of up to 16 bit, or anything that float64 holds.
    bands, groups : int
        How many there are.
    squared : bool
        Add the squares of the values (each rounded to float64 where it is not an integer of up to 16 bit).
    """

    def __init__(self, dtype: Any, bands: int, groups: int, *, squared: bool = False) -> None:
        self._small, self._squared = _is_small(dtype), squared
        self._count = np.zeros(groups, dtype="int64")
        shape = (groups, bands) if self._small else (groups, bands, EXPONENTS, 2)
        self._sums = np.zeros(shape, dtype="int64")

    def add(self, values: np.ndarray, groups: np.ndarray) -> None:
        """Add (band, n) values, each pixel to its group ((n,) uint8); a group that does not exist is left out."""
        if self._small:
            _group_integers(values, groups, self._squared, self._count, self._sums)
        else:
            values = values if values.dtype.kind == "f" else values.astype("float64")
            _group_floats(values, groups, self._squared, self._count, self._sums)

    def totals(self) -> Totals:
        """Give what has been added."""
        sums = self._sums.astype(object) if self._small else exact(self._sums)
        return Totals(self._count.copy(), sums)


@njit(nogil=True, cache=True)
def _group_integers(values, groups, squared, count, sums):  # type: ignore[no-untyped-def]
    for i in range(values.shape[1]):
        group = groups[i]
        if group < count.shape[0]:
            count[group] += 1
            for band in range(values.shape[0]):
                value = np.int64(values[band, i])
                sums[group, band] += value * value if squared else value


@njit(nogil=True, cache=True)
def _group_floats(values, groups, squared, count, sums):  # type: ignore[no-untyped-def]
    for i in range(values.shape[1]):
        group = groups[i]
        if group < count.shape[0]:
            count[group] += 1
            for band in range(values.shape[0]):
                value = np.float64(values[band, i])
                _add_exactly(sums[group, band], value * value if squared else value)
