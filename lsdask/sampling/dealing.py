"""Square blocks of ground, dealt out so that what lies in one belongs together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lsdask.sampling.counting import touched

FAR = 2**30
"""Rows and columns of blocks lie within plus and minus this."""


@dataclass(frozen=True)
class Held:
    """The blocks that tiles touch, and what begins in each.

    Attributes
    ----------
    blocks : (block,) int64 array
        Their numbers, rising.
    held : (block, kind) float64 array
        The weight, of each kind, of the tiles whose top-left corner is there.
    """

    blocks: np.ndarray
    held: np.ndarray


def touching(boxes: np.ndarray, block: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair boxes (box, 4) with the numbers of the blocks they share ground with."""
    first = np.floor(boxes[:, :2] / block).astype("int64") + FAR
    last = np.ceil(boxes[:, 2:] / block).astype("int64") - 1 + FAR
    return touched(list(first.T), list(last.T), 2 * FAR)


def hold_block(boxes: np.ndarray, weights: np.ndarray, block: float) -> Held:
    """Sum the weights of some tiles by block (the partial of ``deal``).

    Parameters
    ----------
    boxes : (tile, 4) array
        y0, x0, y1, x1 of what each sees; at least one.
    weights : (tile, kind) array
    block : float
        Side of a block, in the boxes' pixels.
    """
    tile, cell = touching(boxes, block)
    blocks = np.unique(cell)
    home = np.full(len(boxes), -1)
    home[tile[::-1]] = cell[::-1]  # the first of a tile's blocks, as they are sorted
    place = np.searchsorted(blocks, home)
    return Held(blocks, np.stack([np.bincount(place, kind, len(blocks)) for kind in weights.T], axis=1))


def merge(parts: Iterable[Held], kinds: int) -> Held:
    """Sum what parts of the tiles hold."""
    total = Held(np.zeros(0, dtype="int64"), np.zeros((0, kinds)))
    for part in parts:
        blocks = np.union1d(total.blocks, part.blocks)
        held = np.zeros((len(blocks), kinds))
        held[np.searchsorted(blocks, total.blocks)] += total.held
        held[np.searchsorted(blocks, part.blocks)] += part.held
        total = Held(blocks, held)
    return total


def deal(held: np.ndarray, shares: Sequence[float], draw: np.random.Generator) -> np.ndarray:
    """Deal blocks in a random order, each to the side that lacks most of its share.

    Parameters
    ----------
    held : (block, kind) array
        Weights of each kind.
    shares : sequence of float
        One a side; not all 0.

    Returns
    -------
    (block,) int64 array
        Sides.
    """
    part = held / np.maximum(held.sum(axis=0), 1)
    wanted = np.asarray(shares, dtype="float64") / sum(shares)
    got = np.zeros(len(wanted))
    side = np.zeros(len(held), dtype="int64")
    share = np.where(wanted > 0, wanted, 1.0)
    for block in draw.permutation(len(held)):
        side[block] = int(np.argmin(np.where(wanted > 0, got / share, np.inf)))
        got[side[block]] += part[block].sum()
    return side


def sides_of(boxes: np.ndarray, block: float, blocks: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Give each box the side of the blocks it shares ground with, -1 where they differ.

    Parameters
    ----------
    boxes : (tile, 4) array
    block : float
    blocks, side : (block,) arrays
        All numbers that occur, rising, and the side of each.

    Returns
    -------
    (tile,) int64 array
    """
    tile, cell = touching(boxes, block)
    found = side[np.searchsorted(blocks, cell)]
    low, high = np.full(len(boxes), np.iinfo("int64").max), np.full(len(boxes), -1)
    np.minimum.at(low, tile, found)
    np.maximum.at(high, tile, found)
    return np.where(low == high, low, -1)
