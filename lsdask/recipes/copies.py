"""Tiles that come several times an epoch, each time turned or mirrored in another fixed way."""

from collections.abc import Iterator, Sequence
from copy import copy
from math import radians
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr

from lsdask import augment, streaming
from lsdask.errors import BadInput, sentence
from lsdask.streaming import Batch, Stream, TileStream, floats_block


class Change(NamedTuple):
    """A turn in degrees, then mirrored, or not, top to bottom and left to right."""

    degrees: float
    vertical: bool
    horizontal: bool


def turned(count: int, step: float = 10.0) -> tuple[Change, ...]:
    """Give the first changes of Garcia et al.: turned by 0, 10, 20 ... degrees, each as is, mirrored, and both ways.

    Source: Garcia et al. 2022, published scripts; 30 are the first 8 angles, 50 the first 13.

    Examples
    --------
    >>> turned(6)[-1]
    Change(degrees=10.0, vertical=True, horizontal=False)
    """
    ways = [(False, False), (True, False), (False, True), (True, True)]
    return tuple(Change(step * (i // 4), *ways[i % 4]) for i in range(count))


MIRRORED_AND_TURNED = (
    Change(0, False, False), Change(0, False, True), Change(0, True, False), Change(90, False, False),
)  # fmt: skip
"""The four of Soares et al. 2020: as is, mirrored left to right, mirrored top to bottom, a quarter turn."""


class Copies(Stream):
    """A stream whose tiles each come once for every change, in float32 with NaN for no data.

    Parameters
    ----------
    image : DataArray (band, y, x)
    tiles : DataFrame
        A tile index.
    changes : sequence of Change
    **options
        As of ``TileStream``.

    Raises
    ------
    BadInput
        If there are no changes, or as ``TileStream``.
    """

    def __init__(self, image: xr.DataArray, tiles: pd.DataFrame, changes: Sequence[Change], **options: Any) -> None:
        super().__init__()
        if not changes:
            raise BadInput(sentence("changes", "be one or more", "none", "Pass copies.turned(30)"))
        self.changes, self._tiles = tuple(changes), len(tiles)
        self._stream = TileStream(image, pd.concat([tiles] * len(changes), ignore_index=True), **options)
        self.bands, self.masked, self.dtype = self._stream.bands, self._stream.masked, np.dtype("float32")
        self.nodata = float("nan")

    def __len__(self) -> int:
        return len(self._stream)

    def batches(self, epoch: int, begin: int = 0, *, worker: int = 0, workers: int = 1) -> Iterator[Batch]:
        source = self._stream.batches(epoch, begin, worker=worker, workers=workers)
        try:
            for number, batch in enumerate(source):
                yield self._changed(batch, self._stream.rows(begin + worker + number * workers, epoch))
        finally:
            source.close()  # type: ignore[attr-defined]

    def where(self, batch: int, epoch: int | None = None) -> str:
        return self._stream.where(batch, self.epoch if epoch is None else epoch)

    def part(self, rank: int, world: int, *, drop_last: bool = False) -> Self:
        other = copy(self)
        other._stream = self._stream.part(rank, world, drop_last=drop_last)
        other.set_epoch(0)
        return other

    @property
    def identity(self) -> dict[str, Any]:
        return {**self._stream.identity, "changes": [list(change) for change in self.changes]}

    def _changed(self, batch: Batch, rows: np.ndarray) -> Batch:
        image = torch.from_numpy(floats_block(batch.image, self._stream.nodata))
        empty = torch.zeros((len(image), *image.shape[2:]), dtype=torch.uint8)
        mask = empty if batch.mask is None else torch.from_numpy(np.ascontiguousarray(batch.mask))
        image, mask = change_block(image, mask, [self.changes[row // self._tiles] for row in rows.tolist()])
        return streaming.Batch(image.numpy(), None if batch.mask is None else mask.numpy())


def change_block(
    image: torch.Tensor, mask: torch.Tensor, changes: Sequence[Change]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change each tile in its own way: quarter turns and mirroring exactly, other turns as ``augment.affine_block``.

    Parameters
    ----------
    image : (n, band, y, x) float32 tensor
        NaN where void.
    mask : (n, y, x) uint8 tensor
    changes : sequence of Change
        One a tile.

    Returns
    -------
    image, mask of the same shapes
        What comes in from outside a tile is void, and 255 in the mask.
    """
    degrees = torch.tensor([change.degrees for change in changes])
    free = degrees % 90 != 0
    if free.any():
        angles = torch.tensor([radians(float(each)) for each in degrees[free]])
        image, mask = image.clone(), mask.clone()
        image[free], mask[free] = augment.affine_block(image[free], mask[free], angles, torch.ones_like(angles))
    quarters = torch.where(free, 0, degrees // 90).long() % 4
    # Mirrored top to bottom is mirrored left to right and half turned; both ways is half turned.
    vertical = torch.tensor([change.vertical for change in changes])
    horizontal = torch.tensor([change.horizontal for change in changes])
    flips = 4 * (vertical ^ horizontal).long() + 2 * vertical.long()
    turns = [augment.symmetry_block(part, quarters) for part in (image, mask)]
    image, mask = (augment.symmetry_block(part, flips) for part in turns)
    return image, mask
