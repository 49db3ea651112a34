"""Pixels counted in one confusion table, chunk by chunk, at one threshold or at many in the same pass.

Counts are pooled over every pixel that both the scores and the mask know; nothing is averaged over tiles.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import numba
import numpy as np
import pandas as pd
import xarray as xr

from lsdask import schema
from lsdask.errors import BadInput, sentence

TN, TP, FP, FN = 0, 1, 2, 3
"""What the map of :func:`agreement` holds, besides 255 where the mask or the scores are unknown."""

CHUNK = 2048
"""Pixels a side of the chunks in which images in memory are counted."""

CELLS = 1024
"""Cells of the table that guesses a float's bin; a power of two, so that scaling by it is exact."""

SLACK = 0.01
"""How far outside 0..1 a float score may lie, by rounding, before it is taken for no probability."""


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
    table = _table(scores, mask, _edges([threshold]), valid, class_)
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
    edges = _edges(thresholds)
    table = pd.DataFrame({"threshold": edges, **_table(scores, mask, edges, valid, class_)})
    rows = [score(Counts(*map(int, row))) for row in table[["tp", "fp", "fn", "tn"]].to_numpy()]
    return pd.concat([table, pd.DataFrame(rows)], axis=1)


def compare(
    scores: Mapping[str, xr.DataArray],
    mask: xr.DataArray,
    *,
    threshold: float | Mapping[str, float] = 0.5,
    valid: xr.DataArray | None = None,
    class_: Any = None,
) -> pd.DataFrame:
    """Count and score the maps of a whole experiment against one mask, which is read once for all.

    Parameters
    ----------
    scores : mapping of DataArray
        Each as in :func:`count`, by name.
    mask, valid, class_
        As in :func:`count`.
    threshold : float or mapping of float
        One for all, or each map's own by name.

    Returns
    -------
    DataFrame, one row a map, named by its index
        Columns threshold, tp, fp, fn, tn and those of :func:`score`.

    Raises
    ------
    BadInput
        As :func:`count`; and if a map lacks a threshold.
    """
    own = threshold if isinstance(threshold, Mapping) else dict.fromkeys(scores, threshold)
    lacking = [name for name in scores if name not in own]
    if lacking:
        raise BadInput(sentence("threshold", "be given for every map", f"none for {lacking}"))
    lazy = [_tally(image, mask, _edges([own[name]]), valid, class_) for name, image in scores.items()]
    rows = []
    for name, tally in zip(scores, dask.compute(*lazy)):
        counts = Counts(**{key: int(value[0]) for key, value in _finish(tally).items()})
        rows.append({"threshold": own[name], **asdict(counts), **score(counts)})
    return pd.DataFrame(rows, index=pd.Index(scores, name="scores"))


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


def agreement(
    scores: xr.DataArray,
    mask: xr.DataArray,
    *,
    threshold: float = 0.5,
    valid: xr.DataArray | None = None,
    class_: Any = None,
) -> xr.DataArray:
    """Map where scores and mask agree. Lazy if either is.

    Parameters
    ----------
    scores, mask, threshold, valid, class_
        As in :func:`count`.

    Returns
    -------
    DataArray (y, x) uint8
        0 true negative, 1 true positive, 2 false positive, 3 false negative, 255 unknown.

    Raises
    ------
    BadInput
        As :func:`count`.
    """
    (cut,) = _edges([threshold])
    arrays = _arrays(scores, mask, valid, class_)
    flags = {
        "flag_values": [TN, TP, FP, FN],
        "flag_meanings": "true_negative true_positive false_positive false_negative",
    }
    data = da.map_blocks(agreement_block, *arrays, threshold=cut, dtype="uint8", meta=np.empty((0, 0), "uint8"))
    lazy = any(image.chunks for image in (scores, mask, valid) if image is not None)
    return schema.wrap(
        data if lazy else data.compute(),
        schema.geobox(scores, "scores"),
        schema.MASK,
        name="agreement",
        nodata=schema.UNKNOWN,
        attrs=flags,
    )


def within(tiles: pd.DataFrame, like: xr.DataArray) -> xr.DataArray:
    """Say which pixels lie in any of some tiles, lazily: the ``valid`` of an evaluation on a held-out split.

    Parameters
    ----------
    tiles : DataFrame
        Columns y, x (upper left pixel) and size, in pixels of ``like``.
    like : DataArray (..., y, x)
        Gives grid and chunks.

    Returns
    -------
    DataArray (y, x) bool

    Examples
    --------
    ``count(scores, mask, valid=within(tiles[tiles["split"] == "test"], mask))``
    """
    sides = like.data.chunks[-2:] if like.chunks else CHUNK
    empty = da.zeros(like.shape[-2:], chunks=sides, dtype=bool)
    windows = tiles[["y", "x", "size"]].to_numpy()
    inside = da.map_blocks(_within, empty, windows=windows, dtype=bool, meta=np.empty((0, 0), bool))
    return schema.wrap(inside, schema.geobox(like, "like"), schema.MASK, name="within")


def _within(block: np.ndarray, *, windows: np.ndarray, block_info: Any = None) -> np.ndarray:
    (y0, y1), (x0, x1) = block_info[0]["array-location"]
    return within_block(windows, slice(y0, y1), slice(x0, x1))


def within_block(windows: np.ndarray, y: slice, x: slice) -> np.ndarray:
    """Say which pixels of a window of the image lie in any of some tiles.

    Parameters
    ----------
    windows : (n, 3) int array
        y, x, size of each tile.
    y, x : slice
        The window.

    Returns
    -------
    (y, x) bool array
    """
    inside = np.zeros((y.stop - y.start, x.stop - x.start), dtype=bool)
    top, left = windows[:, 0] - y.start, windows[:, 1] - x.start
    bottom, right = top + windows[:, 2], left + windows[:, 2]
    touching = (bottom > 0) & (right > 0) & (top < inside.shape[0]) & (left < inside.shape[1])
    for i in np.flatnonzero(touching):
        inside[max(top[i], 0) : bottom[i], max(left[i], 0) : right[i]] = True
    return inside


def tally_block(
    scores: np.ndarray, mask: np.ndarray, valid: np.ndarray | None = None, *, thresholds: np.ndarray
) -> np.ndarray:
    """Count the pixels of each truth that reach so many thresholds: the partial sum of every evaluation.

    Parameters
    ----------
    scores : (y, x) uint8 or float array
    mask : (y, x) uint8 or bool array
    valid : (y, x) bool array, optional
    thresholds : (n,) float64 array, rising

    Returns
    -------
    (2, n + 1) int64 array
        ``[t, i]``: pixels of truth ``t`` whose score reaches exactly the first ``i`` thresholds.

    Raises
    ------
    BadInput
        If the mask holds other values than 0, 1 and 255, or float scores are no probabilities.
    """
    truth = np.ascontiguousarray(mask).view("uint8")
    truth = truth if valid is None else np.where(valid, truth, np.uint8(schema.UNKNOWN))
    pixels = np.ascontiguousarray(scores)
    joint = _joint_steps if pixels.dtype == np.uint8 else _joint_floats
    table = joint(pixels.ravel(), truth.ravel(), thresholds)
    _check_truth(table.sum(axis=1))
    return table[:2, :-1]


def agreement_block(
    scores: np.ndarray, mask: np.ndarray, valid: np.ndarray | None = None, *, threshold: float
) -> np.ndarray:
    """Map where scores and mask agree, pixel by pixel: see :func:`agreement`."""
    truth = mask.view("uint8")
    known = schema.known_block(scores, schema.UNKNOWN if scores.dtype == np.uint8 else None)
    known &= truth != schema.UNKNOWN
    if valid is not None:
        known &= valid
    _check_truth(np.bincount(truth.ravel(), minlength=256))
    positive = scores >= (schema.first_step(threshold) if scores.dtype == np.uint8 else scores.dtype.type(threshold))
    codes = np.array([[TN, FP], [FN, TP]], dtype="uint8")
    return np.where(known, codes[(truth == 1).view("uint8"), positive.view("uint8")], np.uint8(schema.UNKNOWN))


def _ratio(above: int, below: float) -> float:
    return above / below if below else 0.0


def _joint_steps(scores: np.ndarray, mask: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Tabulate truth x thresholds reached, uint8 scores: (256, n + 2) int64, unknown scores in the last."""
    table = np.zeros((256, 256), dtype="int64")
    _pair(scores, mask, table)
    reached = np.searchsorted(schema.first_step(thresholds), np.arange(256), side="right")
    reached[schema.UNKNOWN] = len(thresholds) + 1
    joint = np.zeros((256, len(thresholds) + 2), dtype="int64")
    np.add.at(joint.T, reached, table.T)
    return joint


def _joint_floats(scores: np.ndarray, mask: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Tabulate truth x thresholds reached, float scores: (256, n + 2) int64, unknown scores in the last."""
    pixels = scores.astype("float32") if scores.dtype.itemsize < 4 else scores
    # A float32 score is compared with the float32 threshold, as numpy's own scores >= threshold does.
    edges = thresholds.astype(scores.dtype).astype(pixels.dtype)
    guess = np.searchsorted(edges, np.arange(CELLS + 1) / CELLS, side="right")
    joint = np.zeros((256, len(edges) + 2), dtype="int64")
    strange = _pair_floats(pixels, mask, edges, guess, joint)
    if strange:
        do = "Pass probabilities: apply a sigmoid or a softmax to logits, divide percents by 100"
        raise BadInput(sentence("scores", "lie in 0..1", f"{strange} pixels outside it", do))
    return joint


@numba.njit(nogil=True, cache=True)
def _pair(scores: np.ndarray, mask: np.ndarray, table: np.ndarray) -> None:  # pragma: no cover - compiled
    for i in range(scores.size):
        table[mask[i], scores[i]] += 1


@numba.njit(nogil=True, cache=True)
def _pair_floats(
    scores: np.ndarray, mask: np.ndarray, edges: np.ndarray, guess: np.ndarray, joint: np.ndarray
) -> int:  # pragma: no cover - compiled
    """Count each pixel in the bin of its score, from a guess never too high; give how many are no scores."""
    # Unsigned places spare the compiler the check for negative ones, and half the time.
    n, width, strange = np.uint64(edges.size), np.uint64(joint.shape[1]), 0
    table, one = joint.reshape(-1), np.uint64(1)
    for i in range(scores.size):
        p, row = scores[i], np.uint64(mask[i]) * width
        if 0 <= p <= 1:
            k = np.uint64(guess[np.uint64(p * CELLS)])
            while k < n and p >= edges[k]:
                k += one
            table[row + k] += 1
        elif np.isnan(p):
            table[row + n + one] += 1
        else:
            strange += p < -SLACK or p > 1 + SLACK
            table[row + (n if p > 1 else np.uint64(0))] += 1
    return strange


def _check_truth(values: np.ndarray) -> None:
    """Raise BadInput if any mask value but 0, 1 and 255 was counted."""
    strange = np.flatnonzero(values[2 : schema.UNKNOWN]) + 2
    if strange.size:
        do = "Use (mask > 0).astype('uint8'), and 255 where it is unknown"
        raise BadInput(sentence("mask", "hold 1 landslide, 0 not, 255 unknown", f"also {strange[:5].tolist()}", do))


def _table(
    scores: xr.DataArray, mask: xr.DataArray, thresholds: np.ndarray, valid: xr.DataArray | None, class_: Any
) -> dict[str, np.ndarray]:
    """Count over all chunks at all thresholds: tp, fp, fn, tn, each (n,) int64."""
    return _finish(_tally(scores, mask, thresholds, valid, class_).compute())


def _tally(
    scores: xr.DataArray, mask: xr.DataArray, thresholds: np.ndarray, valid: xr.DataArray | None, class_: Any
) -> da.Array:
    """Sum the partial tallies of all chunks, lazily: see :func:`tally_block`."""
    arrays = _arrays(scores, mask, valid, class_)
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


def _finish(tally: np.ndarray) -> dict[str, np.ndarray]:
    """Turn a whole tally into tp, fp, fn, tn at every threshold, each (n,) int64."""
    below = tally.cumsum(axis=1)[:, :-1]
    above = tally.sum(axis=1, keepdims=True) - below
    return {"tp": above[1], "fp": above[0], "fn": below[1], "tn": below[0]}


def _partial(*arrays: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    return tally_block(*arrays, thresholds=thresholds)[None, None]


def _edges(thresholds: int | Sequence[float] | np.ndarray) -> np.ndarray:
    """Check thresholds and give them as float64, evenly spaced if only their number is said."""
    if isinstance(thresholds, int | np.integer):
        if thresholds < 2:
            raise BadInput(sentence("thresholds", "be 2 or more", f"thresholds={thresholds}"))
        # k / 100 is the float a user writes as 0.35; numpy.linspace gives k * 0.01, which is not.
        return np.arange(thresholds) / (thresholds - 1)
    edges = np.asarray(thresholds, dtype="float64")
    rising = edges.ndim == 1 and edges.size and all(low < high for low, high in pairwise(edges))
    if not (rising and edges[0] >= 0 and edges[-1] <= 1):
        raise BadInput(sentence("threshold", "lie in 0..1, and several must rise", f"{thresholds}"))
    return edges


def _arrays(scores: xr.DataArray, mask: xr.DataArray, valid: xr.DataArray | None, class_: Any) -> list[da.Array]:
    """Check what is evaluated and give its arrays (y, x), in chunks that coincide."""
    _check(scores, mask, valid)
    flat = _one_class(scores, class_)
    images = [flat, mask] if valid is None else [flat, mask, valid]
    lazy = [image.data.chunks for image in images if image.chunks]
    return [da.asarray(image.data).rechunk(lazy[0] if lazy else CHUNK) for image in images]


def _check(scores: xr.DataArray, mask: xr.DataArray, valid: xr.DataArray | None) -> None:
    """Raise BadInput unless dims, dtypes, nodata and grids are what an evaluation needs."""
    schema.check(scores, schema.MASK if getattr(scores, "ndim", 3) == 2 else schema.SCORES, "scores")
    schema.check(mask, schema.MASK, "mask")
    if not (scores.dtype == np.uint8 or scores.dtype.kind == "f"):
        raise BadInput(sentence("scores", "be uint8 (p x 250) or float", str(scores.dtype)))
    if mask.dtype not in (np.dtype("uint8"), np.dtype("bool")):
        do = "Use mask.fillna(255).astype('uint8')"
        raise BadInput(sentence("mask", "be uint8 (1, 0, 255 unknown) or bool", str(mask.dtype), do))
    for name, image in (("scores", scores), ("mask", mask)):
        declared = schema.nodata(image) if image.dtype.kind == "u" else None
        if declared not in (None, schema.UNKNOWN):
            do = f"Delete {name}.attrs['_FillValue'] if that value is data"
            raise BadInput(sentence(name, "hold 255 where it is unknown", f"_FillValue={declared}", do))
    schema.on_grid(mask, scores, "mask", "scores")
    if valid is not None:
        schema.check(valid, schema.MASK, "valid")
        if valid.dtype != np.bool_:
            raise BadInput(sentence("valid", "be bool, True where to count", str(valid.dtype)))
        schema.on_grid(valid, scores, "valid", "scores")


def _one_class(scores: xr.DataArray, class_: Any) -> xr.DataArray:
    """Give the (y, x) scores of one class."""
    if scores.ndim == 2 or (class_ is None and scores.sizes["class"] == 1):
        return scores if scores.ndim == 2 else scores.isel({"class": 0})
    labels = scores["class"].values.tolist() if "class" in scores.coords else list(range(scores.sizes["class"]))
    if class_ not in labels:
        raise BadInput(sentence("class_", f"be one of {labels}", f"class_={class_!r}"))
    return scores.isel({"class": labels.index(class_)})
