"""Sums of floats that no order of adding can change: fixed point, wide enough for every float64.

The halves of each value's mantissa are added to the integers of its exponent; ``exact`` puts these together.
"""

from fractions import Fraction
from typing import Any

import numpy as np

from lsdask.compiling import njit

EXPONENTS = 2048
"""Exponents of a float64: an exact sum holds one integer (in two halves) for each."""

_HALF = 26  # bits of the lower half of a float64's 53-bit mantissa
_UNIT = 1074  # the smallest float64 is 2**-1074


@njit(nogil=True, cache=True)
def add_exactly(total, value):  # type: ignore[no-untyped-def]
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
