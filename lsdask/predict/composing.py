"""Runners made of runners: several models averaged, an image seen from all sides."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lsdask import schema

Run = Callable[[np.ndarray], np.ndarray]
"""Blocks (n, band, y, x) as stored to scores (n, class, y, x), probabilities."""

Turns = Literal["none", "flips", "d4"]
"""Test-time augmentation: as it is, its four flips, or all eight flips and quarter turns."""

TURNS: dict[str, tuple[tuple[int, bool], ...]] = {
    "none": ((0, False),),
    "flips": ((0, False), (0, True), (2, False), (2, True)),
    "d4": tuple((quarters, mirrored) for quarters in range(4) for mirrored in (False, True)),
}
"""Quarter turns, and whether the image is mirrored before."""


@dataclass(frozen=True)
class Filled:
    """Any callable on blocks, which sees ``fill`` where there is no data.

    Attributes
    ----------
    function : callable
        Blocks (n, band, y, x) as stored to scores (n, class, y, x), probabilities; or to several such outputs, which
        become one after the other.
    nodata : float, int or None
        What stands for no data in the blocks.
    fill : float
        What the callable sees there.
    """

    function: Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, ...]]
    nodata: float | int | None
    fill: float = 0.0

    def __call__(self, blocks: np.ndarray) -> np.ndarray:
        known = schema.known_block(blocks, self.nodata)
        found = self.function(np.where(known, blocks, blocks.dtype.type(self.fill)))
        return np.concatenate(found, axis=1) if isinstance(found, tuple | list) else np.asarray(found)


@dataclass(frozen=True)
class Averaged:
    """The mean of several models.

    Attributes
    ----------
    runs : tuple of callables
    bands : tuple of tuples of int
        Which bands of the blocks each sees.
    """

    runs: tuple[Run, ...]
    bands: tuple[tuple[int, ...], ...]

    def __call__(self, blocks: np.ndarray) -> np.ndarray:
        return _mean([run(blocks[:, list(bands)]) for run, bands in zip(self.runs, self.bands)])


@dataclass(frozen=True)
class Turned:
    """The mean of what a model says of an image from several sides.

    Attributes
    ----------
    run : callable
    turns : {"flips", "d4"}
    """

    run: Run
    turns: Turns

    def __call__(self, blocks: np.ndarray) -> np.ndarray:
        return _mean([turn_back_block(self.run(turn_block(blocks, *turn)), *turn) for turn in TURNS[self.turns]])


def turn_block(block: np.ndarray, quarters: int, mirrored: bool) -> np.ndarray:
    """Mirror an image left to right, or not, then turn it to the left.

    Parameters
    ----------
    block : (..., y, x) array
    quarters : int
        Quarter turns.
    mirrored : bool

    Returns
    -------
    (..., y, x) array, or (..., x, y) of odd turns
    """
    return np.ascontiguousarray(np.rot90(block[..., ::-1] if mirrored else block, quarters, axes=(-2, -1)))


def turn_back_block(block: np.ndarray, quarters: int, mirrored: bool) -> np.ndarray:
    """Undo ``turn_block``."""
    turned = np.rot90(block, -quarters, axes=(-2, -1))
    return turned[..., ::-1] if mirrored else turned


def _mean(found: list[np.ndarray]) -> np.ndarray:
    total = found[0].astype("float32")
    for one in found[1:]:
        total += one
    return total / np.float32(len(found))
