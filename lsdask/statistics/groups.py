"""Exact sums of pixels by group, for k-means."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lsdask.compiling import njit
from lsdask.statistics.counting import is_small
from lsdask.statistics.exactly import EXPONENTS, add_exactly, exact


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
        self._small, self._squared = is_small(dtype), squared
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
                add_exactly(sums[group, band], value * value if squared else value)
