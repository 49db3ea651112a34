"""What goes through a model at once: windows on a lattice that is fixed to the image and not to its tiles.

Windows begin every ``step`` pixels and look ``halo`` pixels beyond their step on each side. A tile is whole steps, so
a window given by its side gives the same scores in tiles of any size, also from a model that looks beyond the halo.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

import numpy as np

from lsdask.errors import BadInput, sentence

Blend = Literal["none", "cosine"]
"""How windows are put together: each within its step, or faded into its neighbours across the halo."""

LEAST = 512
"""A tile is not cut on its own account into windows of smaller steps than this, pixels."""

EXTRA = 1.08
"""... nor if that takes more than so many times the pixels of the uncut block,"""

LITTLE = 1 << 20
"""but for windows of at most so many pixels, which a processor computes a quarter faster (measured: their tensors are
used again, where those of larger ones are given back and cleared anew at every step) ..."""

EXTRA_OF_LITTLE = 1.25
"""... and which may take so many times."""

Run = Callable[[np.ndarray], np.ndarray]
"""Blocks (n, band, y, x) to scores (n, class, y, x)."""


@dataclass(frozen=True)
class Lattice:
    """Where the windows of a model lie.

    Attributes
    ----------
    step : (int, int)
        From one window to the next, pixels (y, x).
    halo : int
        Context on each side of a step, pixels.
    blend : {"none", "cosine"}
    """

    step: tuple[int, int]
    halo: int
    blend: Blend = "none"

    @property
    def side(self) -> tuple[int, int]:
        """Sides of a window, pixels (y, x)."""
        return self.step[0] + 2 * self.halo, self.step[1] + 2 * self.halo

    @property
    def margin(self) -> int:
        """Pixels that must be read around a tile: the halo of its windows, and of those that fade into them."""
        return max(self._ring(axis) * self.step[axis] for axis in (0, 1)) + self.halo

    def starts(self, tile: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """Give the first pixel of every window that a tile needs, counted from the tile's, row by row."""
        rings = [(self._ring(axis), tile[axis] // self.step[axis]) for axis in (0, 1)]
        axes = (range(-ring, count + ring) for ring, count in rings)
        return ((i * self.step[0] - self.halo, j * self.step[1] - self.halo) for i, j in product(*axes))

    def weights(self) -> np.ndarray:
        """Give the weight of each pixel of a window: (y, x) float32; over all windows, those of a pixel add to one."""
        rows, columns = (weights_block(step, self.halo, self.blend) for step in self.step)
        return rows[:, None] * columns

    def _ring(self, axis: int) -> int:
        return -(-self.halo // self.step[axis]) if self.blend == "cosine" else 0


def weights_block(step: int, halo: int, blend: Blend) -> np.ndarray:
    """Give the weights of a window on one axis.

    Parameters
    ----------
    step, halo : int
        Pixels.
    blend : {"none", "cosine"}
        One within the step and zero in the halo; or ``sin(pi r / 2) ** 2``, where r rises from 0 at the window's
        border to 1 two halos inside, divided by the sum over all windows.

    Returns
    -------
    (step + 2 * halo,) float32 array
    """
    position = np.arange(step + 2 * halo)
    if blend == "none" or halo == 0:
        return ((position >= halo) & (position < halo + step)).astype("float32")
    inside = np.minimum(position, position[::-1]) + 0.5
    weights = np.sin(np.pi / 2 * np.minimum(inside / (2 * halo), 1)) ** 2
    total = np.bincount(position % step, weights)
    return (weights / total[position % step]).astype("float32")


def lattice(tile: int, halo: int, *, window: int | None, blend: Blend) -> Lattice:
    """Lay windows of a given side, or of the size of a tile's block.

    Raises
    ------
    BadInput
        If a tile is not whole steps of the windows.
    """
    if blend not in get_args(Blend):
        raise BadInput(sentence("blend", f"be one of {', '.join(get_args(Blend))}", f"blend={blend!r}"))
    if window is None:
        return Lattice((tile, tile), halo, blend)
    step = window - 2 * halo
    if step < 1:
        raise BadInput(sentence("window", f"be larger than twice the halo, {halo}", f"window={window}"))
    if tile % step:
        do = f"Pass tile={max(tile // step, 1) * step}"
        raise BadInput(sentence("tile", f"be a multiple of window - 2 * halo = {step}", f"tile={tile}", do))
    return Lattice((step, step), halo, blend)


def cut(whole: Lattice, stride: int) -> Lattice:
    """Cut a lattice's windows into smaller ones where that takes little more work, as they need less memory.

    The smallest is taken of those whose steps are at least ``LEAST``, keep to the network's ``stride``, and which
    together hold at most ``EXTRA`` times the pixels of the uncut window, little ones ``EXTRA_OF_LITTLE`` times.

    Examples
    --------
    >>> cut(Lattice((2048, 2048), 64), 32).step
    (512, 1024)
    """
    steps = [(y, x) for y in _parts(whole.step[0], stride) for x in _parts(whole.step[1], stride)]
    found = [Lattice(step, whole.halo, whole.blend) for step in steps]
    uncut = whole.side[0] * whole.side[1]
    small = [one for one in found if _work(one, whole.step) <= _most(one) * uncut]
    return min(small, key=lambda one: (one.side[0] * one.side[1], one.side[0]))


def _most(one: Lattice) -> float:
    return EXTRA_OF_LITTLE if one.side[0] * one.side[1] <= LITTLE else EXTRA


def _parts(side: int, stride: int) -> list[int]:
    parts = [side // n for n in range(1, side // LEAST + 1) if side % n == 0 and side // n % stride == 0]
    return parts or [side]


def _work(one: Lattice, tile: tuple[int, int]) -> int:
    """Count the pixels of the windows of a tile."""
    return (tile[0] // one.step[0]) * (tile[1] // one.step[1]) * one.side[0] * one.side[1]


def score_block(
    block: np.ndarray, wanted: np.ndarray, run: Run, classes: int, laid: Lattice, *, batch: int
) -> np.ndarray:
    """Score a tile window by window.

    Parameters
    ----------
    block : (band, y, x) array
        The tile and ``laid.margin`` pixels around it.
    wanted : (y, x) bool array
        Of the tile: windows without any are left out.
    run : callable
        Windows (n, band, y, x) to scores (n, class, y, x), which are given in the order of the windows.
    classes : int
        How many classes it gives.
    laid : Lattice
    batch : int
        How many windows it is given at once.

    Returns
    -------
    (class, y, x) float array of the tile; what no window covers is 0
    """
    starts = [start for start in laid.starts(wanted.shape) if _shared(wanted, start, laid)]
    if laid.side == block.shape[1:]:
        inside = slice(laid.halo, laid.halo + wanted.shape[0]), slice(laid.halo, laid.halo + wanted.shape[1])
        return run(block[None])[0][(slice(None), *inside)]
    out = np.zeros((classes, *wanted.shape), "float32")
    weights = laid.weights()
    for some in _batches(starts, batch):
        scores = run(np.stack([_window(block, start, laid) for start in some]))
        for start, one in zip(some, scores):
            to, of = _overlap(wanted.shape, start, laid)
            out[(slice(None), *to)] += one[(slice(None), *of)] * weights[of]
    return out


def _batches(starts: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    return (starts[i : i + size] for i in range(0, len(starts), size))


def _window(block: np.ndarray, start: tuple[int, int], laid: Lattice) -> np.ndarray:
    y, x = start[0] + laid.margin, start[1] + laid.margin
    return block[:, y : y + laid.side[0], x : x + laid.side[1]]


def _overlap(
    tile: tuple[int, ...], start: tuple[int, int], laid: Lattice
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Give the part of a tile that a window scores, in the tile and in the window."""
    edge = laid.halo if laid.blend == "none" else 0
    first = [max(begin + edge, 0) for begin in start]
    last = [min(begin + side - edge, size) for begin, side, size in zip(start, laid.side, tile)]
    to = tuple(slice(a, b) for a, b in zip(first, last))
    return to, tuple(slice(a - begin, b - begin) for a, b, begin in zip(first, last, start))


def _shared(wanted: np.ndarray, start: tuple[int, int], laid: Lattice) -> bool:
    return bool(wanted[_overlap(wanted.shape, start, laid)[0]].any())
