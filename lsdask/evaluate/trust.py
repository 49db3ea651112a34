"""How far to trust a score: counts by blocks of ground and by region, and intervals by drawing blocks anew."""

from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from lsdask.errors import BadInput, sentence
from lsdask.evaluate.agreeing import FN, FP, TN, TP, agreement

COLUMNS = {"tp": TP, "fp": FP, "fn": FN, "tn": TN}


def blocks(
    scores: xr.DataArray,
    mask: xr.DataArray,
    *,
    size: int,
    threshold: float = 0.5,
    valid: xr.DataArray | None = None,
    class_: Any = None,
) -> pd.DataFrame:
    """Count in each square block of ground, in one pass.

    Parameters
    ----------
    scores, mask, threshold, valid, class_
        As in :func:`count`.
    size : int
        Side of a block, in pixels: larger than what lies together, such as a landslide or a valley.

    Returns
    -------
    DataFrame, one row a block in which anything was counted
        Columns y, x (upper left pixel), size, tp, fp, fn, tn (int64).

    Raises
    ------
    BadInput
        As :func:`count`; and if ``size`` is not a positive whole number.
    """
    if not isinstance(size, int | np.integer) or size < 1:
        raise BadInput(sentence("size", "be a positive whole number of pixels", f"size={size!r}"))
    codes = da.asarray(agreement(scores, mask, threshold=threshold, valid=valid, class_=class_).data)
    whole = codes.rechunk(size * max(2048 // size, 1))
    cells = tuple(tuple(-(-n // size) for n in sizes) for sizes in whole.chunks)
    counted = da.map_blocks(
        squares_block,
        whole,
        size=size,
        new_axis=0,
        chunks=((4,), *cells),
        dtype="int64",
        meta=np.empty((0, 0, 0), "int64"),
    )
    tally = np.asarray(counted.compute())
    rows, columns = np.nonzero(tally.sum(axis=0))
    places = {"y": rows * size, "x": columns * size, "size": size}
    return pd.DataFrame({**places, **{name: tally[code, rows, columns] for name, code in COLUMNS.items()}})


def squares_block(codes: np.ndarray, *, size: int) -> np.ndarray:
    """Count each code 0..3 in squares: (y, x) uint8 to (4, rows, columns) int64; edge squares may be cut short."""
    height, width = codes.shape
    full = np.pad(codes, ((0, -height % size), (0, -width % size)), constant_values=255)
    cut = full.reshape(full.shape[0] // size, size, full.shape[1] // size, size)
    return np.stack([(cut == code).sum(axis=(1, 3)) for code in range(4)])


def bootstrap(table: pd.DataFrame, *, n: int = 2000, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Give each score a confidence interval, by drawing blocks of ground anew.

    Neighbouring pixels are alike, so an interval that took pixels for independent would be far too narrow; blocks
    that are larger than what is alike are nearly independent.

    Parameters
    ----------
    table : DataFrame
        From :func:`blocks`.
    n : int
        How many times to draw as many blocks as there are, with replacement.
    level : float
        Coverage of the interval.
    seed : int

    Returns
    -------
    DataFrame, one row a score (precision, recall, f1, iou, mcc, accuracy)
        Columns value (of all blocks), low, high.

    Raises
    ------
    BadInput
        If there are fewer than two blocks, or n or level make no interval.

    Source
    ------
    Percentile interval: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    if len(table) < 2:
        raise BadInput(sentence("table", "hold two or more blocks", str(len(table)), "Count in smaller blocks"))
    if n < 1 or not 0 < level < 1:
        raise BadInput(sentence("n and level", "be at least 1 and between 0 and 1", f"n={n}, level={level}"))
    counts = table[list(COLUMNS)].to_numpy(dtype="float64")
    draws = np.random.default_rng([seed, 6]).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=n)
    tail = (1 - level) / 2
    value, drawn = _scores(counts.sum(axis=0)), _scores(draws @ counts)
    limits = {name: np.quantile(drawn[name], [tail, 1 - tail]) for name in drawn}
    rows = {name: (float(value[name]), *map(float, limits[name])) for name in drawn}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])


def _scores(counts: np.ndarray) -> dict[str, Any]:
    """Score many confusion tables at once: (..., 4) of tp, fp, fn, tn; see :func:`score`."""
    tp, fp, fn, tn = np.moveaxis(counts, -1, 0)
    # Roots one by one: the product of four marginals of a continent is still a float, but needs no thought so.
    root = np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn)
    return {
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "iou": _ratio(tp, tp + fp + fn),
        "mcc": _ratio(tp * tn - fp * fn, root),
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
    }


def _ratio(above: Any, below: Any) -> Any:
    return np.divide(above, below, out=np.zeros_like(np.asarray(above)), where=np.asarray(below) > 0)
