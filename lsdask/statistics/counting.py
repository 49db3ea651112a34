"""Integers of up to 16 bit: how often each value occurs says everything else."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from lsdask.compiling import njit
from lsdask.statistics.moments import moments, percentile


def is_small(dtype: Any) -> bool:
    """Say whether values of a dtype are few enough to be counted one by one."""
    return np.dtype(dtype).kind in "iu" and np.dtype(dtype).itemsize <= 2


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
class Counted:
    """How often each value occurs: (band, value) counts, the first for ``low``."""

    counts: np.ndarray
    low: int

    @property
    def count(self) -> int:
        return int(self.counts[0].sum())

    def moments(self) -> dict[str, np.ndarray]:
        columns = [moments(*self._sums(band)) for band in self.counts]
        return {name: np.array([column[name] for column in columns]) for name in columns[0]}

    def _sums(self, band: np.ndarray) -> tuple[int, float, float, Fraction, Fraction]:
        values = np.flatnonzero(band).tolist()
        pairs = [(value + self.low, int(band[value])) for value in values]
        total = sum(value * times for value, times in pairs)
        squares = sum(value * value * times for value, times in pairs)
        low, high = (pairs[0][0], pairs[-1][0]) if pairs else (np.nan, np.nan)
        return self.count, low, high, Fraction(total), Fraction(squares)

    def percentile(self, percent: float) -> np.ndarray:
        return np.array([percentile(band, percent, self._value) for band in self.counts])

    def _value(self, place: int, share: float) -> float:
        return float(place + self.low)
