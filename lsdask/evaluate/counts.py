"""Pixels counted in one confusion table, chunk by chunk, at one threshold or at many in the same pass.

Counts are pooled over every pixel that both the scores and the mask know; nothing is averaged over tiles.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from lsdask.evaluate.inputs import aligned, rising
from lsdask.evaluate.tallying import tally_block


@dataclass(frozen=True)
class Counts:
    """A confusion table in pixels; landslide is positive. Tables of disjoint areas add up.

    Attributes
    ----------
    tp, fp, fn, tn : int
        True positives, false positives, false negatives, true negatives: Python ints, which do not overflow.

    Examples
    --------
    >>> Counts(tp=1, fn=1) + Counts(tp=2, tn=5)
    Counts(tp=3, fp=0, fn=1, tn=5)
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        if not isinstance(other, Counts):
            return NotImplemented
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def total(self) -> int:
        """Pixels counted."""
        return self.tp + self.fp + self.fn + self.tn


def count(
    scores: xr.DataArray,
    mask: xr.DataArray,
    *,
    threshold: float = 0.5,
    valid: xr.DataArray | None = None,
    class_: Any = None,
) -> Counts:
    """Count how a score map agrees with a mask. Reads both once, chunk by chunk.

    Parameters
    ----------
    scores : DataArray (class, y, x) or (y, x), uint8 or float
        Probabilities as ``schema`` stores them; 255 (uint8) and NaN (float) are unknown.
    mask : DataArray (y, x), uint8 or bool, on the same grid
        1 landslide, 0 not, 255 unknown.
    threshold : float, 0 to 1
        A pixel is positive where its score >= threshold. uint8 scores are compared as the multiples of 1/250
        they are, so 25 is positive at 0.1.
    valid : DataArray (y, x) bool, on the same grid, optional
        Count where it is True only, such as in a held-out block.
    class_ : label or int, optional
        Which class, by its label in the ``class`` coordinate, or its position where there is none. May be
        left out if there is one.

    Returns
    -------
    Counts
        Pixels unknown in the mask or the scores are in none of the four.

    Raises
    ------
    BadInput
        If dims, dtypes or grids do not fit, the threshold is not in 0..1, the mask holds other values than
        0, 1 and 255, or float scores are no probabilities.
    """
    table = _table(scores, mask, rising([threshold]), valid, class_)
    return Counts(*(int(table[name][0]) for name in ("tp", "fp", "fn", "tn")))


def sweep(
    scores: xr.DataArray,
    mask: xr.DataArray,
    *,
    thresholds: int | Sequence[float] = 101,
    valid: xr.DataArray | None = None,
    class_: Any = None,
) -> pd.DataFrame:
    """Count and score at many thresholds, in the same one pass that :func:`count` makes for one.

    Parameters
    ----------
    scores, mask, valid, class_
        As in :func:`count`.
    thresholds : int or sequence of float
        How many from 0 to 1, both included, evenly spaced; or the thresholds themselves, rising.

    Returns
    -------
    DataFrame, one row a threshold
        Columns threshold, tp, fp, fn, tn (int64) and those of :func:`score` (float64).

    Raises
    ------
    BadInput
        As :func:`count`; and if the thresholds are fewer than two, or do not rise.
    """
    edges = rising(thresholds)
    return scored(edges, _table(scores, mask, edges, valid, class_))


def scored(edges: np.ndarray, counted: dict[str, np.ndarray]) -> pd.DataFrame:
    """Make the table of a sweep: thresholds, counts and what ``score`` makes of them, a row each."""
    table = pd.DataFrame({"threshold": edges, **counted})
    rows = [score(Counts(*map(int, row))) for row in table[["tp", "fp", "fn", "tn"]].to_numpy()]
    return pd.concat([table, pd.DataFrame(rows)], axis=1)


def score(counts: Counts) -> dict[str, float]:
    """Give the scores of a confusion table.

    Parameters
    ----------
    counts : Counts

    Returns
    -------
    dict of float
        ``precision`` TP/(TP+FP), ``recall`` TP/(TP+FN), ``f1`` 2TP/(2TP+FP+FN), ``iou`` TP/(TP+FP+FN) of the
        landslide class, ``mcc`` (TP·TN - FP·FN)/sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)), ``accuracy`` (TP+TN)/N.
        A score whose denominator is 0 is 0: precision if nothing was predicted, recall if there is no
        landslide, F1 and IoU if neither, MCC if the map or the mask is all one class. If no pixel was
        counted, all are NaN.

    Examples
    --------
    >>> score(Counts(tp=6, fp=2, fn=2, tn=10))["precision"]
    0.75

    Source
    ------
    Prakash et al. 2021, Scientific Reports 11:9722; MCC: Matthews 1975, Biochim. Biophys. Acta 405:442-451.
    The rules for 0/0 are scikit-learn's (``zero_division=0``).
    """
    tp, fp, fn, tn = counts.tp, counts.fp, counts.fn, counts.tn
    # Python ints: the product under MCC's root passes 2**63 in an image of 600 Mpx.
    marginals = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    ratios = {
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "iou": _ratio(tp, tp + fp + fn),
        "mcc": _ratio(tp * tn - fp * fn, math.sqrt(marginals)),
        "accuracy": _ratio(tp + tn, counts.total),
    }
    return ratios if counts.total else dict.fromkeys(ratios, math.nan)


def _ratio(above: int, below: float) -> float:
    return above / below if below else 0.0


def _table(
    scores: xr.DataArray, mask: xr.DataArray, thresholds: np.ndarray, valid: xr.DataArray | None, class_: Any
) -> dict[str, np.ndarray]:
    """Count over all chunks at all thresholds: tp, fp, fn, tn, each (n,) int64."""
    return finish(tally(scores, mask, thresholds, valid, class_).compute())


def tally(
    scores: xr.DataArray, mask: xr.DataArray, thresholds: np.ndarray, valid: xr.DataArray | None, class_: Any
) -> da.Array:
    """Sum the partial tallies of all chunks, lazily: see :func:`tally_block`."""
    arrays = aligned(scores, mask, valid, class_)
    partials = da.map_blocks(
        _partial,
        *arrays,
        thresholds=thresholds,
        new_axis=[2, 3],
        chunks=(*((1,) * len(sizes) for sizes in arrays[0].chunks), (2,), (len(thresholds) + 1,)),
        dtype="int64",
        meta=np.empty((0, 0, 0, 0), "int64"),
    )
    return partials.sum(axis=(0, 1))


def finish(tally: np.ndarray) -> dict[str, np.ndarray]:
    """Turn a whole tally into tp, fp, fn, tn at every threshold, each (n,) int64."""
    below = tally.cumsum(axis=1)[:, :-1]
    above = tally.sum(axis=1, keepdims=True) - below
    return {"tp": above[1], "fp": above[0], "fn": below[1], "tn": below[0]}


def _partial(*arrays: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    return tally_block(*arrays, thresholds=thresholds)[None, None]
