"""Floats, and integers of 32 or 64 bit: exact sums, and counts of rounded values for percentiles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsdask import schema
from lsdask.compiling import njit
from lsdask.statistics.exactly import EXPONENTS, add_exactly, exact
from lsdask.statistics.moments import moments, percentile

LARGEST = 1e150
"""Values beyond this have squares that float64 cannot hold; they count as infinite."""

_SKETCH_BITS = 20


@dataclass(frozen=True)
class Summed:
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
        columns = [moments(self.count, *ends_, *total) for ends_, total in zip(ends, totals)]
        return {name: np.array([column[name] for column in columns]) for name in columns[0]}

    def percentile(self, percent: float) -> np.ndarray:
        found = []
        for places, counts, low, high in zip(self.places, self.counts, self.low, self.high):
            estimate = percentile(counts, percent, _inside(places)) if self.count else np.nan
            found.append(min(max(estimate, low), high))
        return np.array(found)


def sum_block(data: np.ndarray, nodata: float | int | None) -> Summed:
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
    return Summed(count, int(np.count_nonzero(known)) - count, low, high, sums, places, counts)


def _finite(data: np.ndarray) -> Any:
    if data.dtype.kind != "f":
        return True
    return (np.abs(data) <= min(LARGEST, float(np.finfo(data.dtype).max))).all(axis=0)


def merge(one: Summed, other: Summed) -> Summed:
    pairs = [_merge_counts(*band) for band in zip(one.places, one.counts, other.places, other.counts)]
    return Summed(
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
            add_exactly(sums[band, 0], value)
            add_exactly(sums[band, 1], value * value)  # exact for float32 values: 2 x 24 bits fit in 53
            sketch[band, _place(value)] += 1


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
