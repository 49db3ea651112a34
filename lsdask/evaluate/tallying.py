"""Kernels that count pixels by truth and score, the partial sums of every evaluation: no xarray, no Dask."""

import numpy as np

from lsdask import schema
from lsdask.compiling import njit
from lsdask.errors import BadInput, sentence

CELLS = 1024
"""Cells of the table that guesses a float's bin; a power of two, so that scaling by it is exact."""

SLACK = 0.01
"""How far outside 0..1 a float score may lie, by rounding, before it is taken for no probability."""


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
    check_truth(table.sum(axis=1))
    return table[:2, :-1]


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


@njit(nogil=True, cache=True)
def _pair(scores: np.ndarray, mask: np.ndarray, table: np.ndarray) -> None:  # pragma: no cover - compiled
    for i in range(scores.size):
        table[mask[i], scores[i]] += 1


@njit(nogil=True, cache=True)
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


def check_truth(values: np.ndarray) -> None:
    """Raise BadInput if any mask value but 0, 1 and 255 was counted."""
    strange = np.flatnonzero(values[2 : schema.UNKNOWN]) + 2
    if strange.size:
        do = "Use (mask > 0).astype('uint8'), and 255 where it is unknown"
        raise BadInput(sentence("mask", "hold 1 landslide, 0 not, 255 unknown", f"also {strange[:5].tolist()}", do))
