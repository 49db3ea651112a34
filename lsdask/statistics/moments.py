"""What counts and exact sums say: mean, deviation and percentiles, rounded once each."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np


def moments(count: int, low: float, high: float, total: Fraction, squares: Fraction) -> dict[str, float]:
    """Give min, max, mean and population standard deviation from exact sums, rounded once each."""
    if count == 0:
        return {"min": np.nan, "max": np.nan, "mean": np.nan, "std": np.nan}
    variance = max(squares / count - (total / count) ** 2, Fraction(0))
    return {"min": float(low), "max": float(high), "mean": float(total / count), "std": float(variance) ** 0.5}


def percentile(counts: np.ndarray, percent: float, value: Callable[[int, float], float]) -> float:
    """Interpolate between the two order statistics that a percentile lies between (numpy's "linear")."""
    above = np.cumsum(counts)
    if above[-1] == 0:
        return np.nan
    rank, share = divmod(percent / 100 * (int(above[-1]) - 1), 1)
    ends = [_order_statistic(above, min(int(rank) + step, int(above[-1]) - 1), value) for step in (0, 1)]
    return ends[0] + (ends[1] - ends[0]) * share


def _order_statistic(above: np.ndarray, rank: int, value: Callable[[int, float], float]) -> float:
    """Give the value of a rank (from 0): its place among the counts, and how far through that place it comes."""
    place = int(np.searchsorted(above, rank, side="right"))
    before = int(above[place - 1]) if place else 0
    return value(place, (rank - before + 0.5) / (int(above[place]) - before))
