"""How many windows go through a model at once: by a rule, on a GPU by a trial, and fewer where memory is full.

A network sums windows of another number in another order: scores of one batch differ from those of another, by
about 1e-5 in float32 (measured; 96-px windows of a U-Net). The batch of a network is settled once for a run, as its
precision is, and kept in the run's plan; only a worker whose memory is full departs from it.
"""

import time
from collections.abc import Callable
from math import inf

import numpy as np

from lsdask.errors import BadInput, sentence
from lsdask.predict.windows import Lattice, Run

BATCH_PIXELS = 1 << 19
"""Windows go through a model together up to so many pixels, larger ones alone: the rule of processors, which no trial
need find. Of 2^18, 2^19, 2^20 and 2^21 pixels it was the fastest for windows of 96 and 224 pixels in float32 and
bfloat16 (U-Net ResNet-18); 2^20 pixels took up to a quarter more time, single windows of 96 pixels twice as much."""

GAIN = 1.05
"""A trial doubles the batch while that makes windows so many times faster."""


def check_batch(batch: int | None) -> None:
    """Raise BadInput unless a batch is None or a whole number of windows."""
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1):
        raise BadInput(sentence("batch", "be a whole number of windows, 1 or more", f"batch={batch!r}"))


def ruled(side: tuple[int, int]) -> int:
    """Give the batch of windows of these sides, pixels (y, x), by the rule.

    Examples
    --------
    >>> ruled((224, 224)), ruled((1152, 2176))
    (10, 1)
    """
    return max(BATCH_PIXELS // (side[0] * side[1]), 1)


def most(laid: Lattice, tile: tuple[int, int]) -> int:
    """Count the windows of a tile, which are the most that can go through a model at once."""
    return sum(1 for _ in laid.starts(tile))


def found(seconds: Callable[[int], float], limit: int) -> int:
    """Find the batch at which windows are fastest: 1, 2, 4 ... as long as that gains or until memory is full.

    Parameters
    ----------
    seconds : callable
        Gives what so many windows take together, or raises MemoryError.
    limit : int
        The most windows.

    Examples
    --------
    >>> found(lambda windows: 1.0 if windows <= 4 else windows / 4, limit=64)
    4
    """
    batch, each = 1, inf
    while batch <= limit:
        try:
            now = seconds(batch) / batch
        except MemoryError:
            break
        if now * GAIN > each:
            break
        batch, each = 2 * batch, now
    return max(batch // 2, 1)


def tried(run: Run, window: np.ndarray, limit: int) -> int:
    """Find the batch for a model on this device.

    Parameters
    ----------
    run : callable
        Blocks (n, band, y, x) to scores, back in the memory of this process.
    window : (band, y, x) array
        As the windows of the run are.
    limit : int
        The most windows.
    """

    def seconds(windows: int) -> float:
        blocks = np.repeat(window[None], windows, axis=0)
        run(blocks)  # the first of a shape also makes ready
        begun = time.perf_counter()
        run(blocks)
        return time.perf_counter() - begun

    return found(seconds, limit)


class Batched:
    """A runner whose batches are halved, from then on in this process, when they do not fit into memory.

    Attributes
    ----------
    run : callable
    most : int
        Blocks that go through it at once.
    """

    def __init__(self, run: Run, most: int) -> None:
        self.run = run
        self.most = most

    def __call__(self, blocks: np.ndarray) -> np.ndarray:
        while True:
            size = min(self.most, len(blocks))
            try:
                parts = [self.run(blocks[i : i + size]) for i in range(0, len(blocks), size)]
            except MemoryError:
                if size == 1:
                    raise
                self.most = size // 2
            else:
                return parts[0] if len(parts) == 1 else np.concatenate(parts)
