"""Tiles that come several times an epoch, each time turned or mirrored in another fixed way."""

from collections.abc import Sequence
from contextlib import closing
from copy import copy
from dataclasses import astuple
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr

from lsdask.augment.fixed import Change, fixed_block
from lsdask.errors import BadInput, sentence
from lsdask.streaming import Batch, Batches, Stream, TileStream, floats_block


class Copies(Stream):
    """A stream whose tiles each come once for every change, in float32 with NaN for no data.

    Parameters
    ----------
    image : DataArray (band, y, x)
    tiles : DataFrame
        A tile index.
    changes : sequence of Change
        Such as ``garcia(30)`` or ``SOARES``.
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
            raise BadInput(sentence("changes", "be one or more", "none", "Pass augment.garcia(30)"))
        self.changes, self._tiles = tuple(changes), len(tiles)
        self._stream = TileStream(image, pd.concat([tiles] * len(changes), ignore_index=True), **options)
        self.bands, self.masked, self.dtype = self._stream.bands, self._stream.masked, np.dtype("float32")
        self.nodata, self.lanes = float("nan"), self._stream.lanes

    def __len__(self) -> int:
        return len(self._stream)

    def batches(self, epoch: int, begin: int = 0, *, worker: int = 0, workers: int = 1) -> Batches:
        rows = self._stream.rows(epoch)[begin + worker :: workers]
        with closing(self._stream.batches(epoch, begin, worker=worker, workers=workers)) as source:
            for batch, mine in zip(source, rows):
                yield self._changed(batch, mine)

    def where(self, batch: int, epoch: int | None = None) -> str:
        return self._stream.where(batch, self.epoch if epoch is None else epoch)

    def part(self, rank: int, world: int, *, drop_last: bool = False) -> Self:
        other = copy(self)
        other._stream = self._stream.part(rank, world, drop_last=drop_last)
        other.set_epoch(0)
        return other

    @property
    def identity(self) -> dict[str, Any]:
        return {**self._stream.identity, "changes": [list(astuple(change)) for change in self.changes]}

    def _changed(self, batch: Batch, rows: np.ndarray) -> Batch:
        image = torch.from_numpy(floats_block(batch.image, self._stream.nodata))
        empty = torch.zeros((len(image), *image.shape[2:]), dtype=torch.uint8)
        mask = empty if batch.mask is None else torch.from_numpy(np.ascontiguousarray(batch.mask))
        image, mask = fixed_block(image, mask, [self.changes[row // self._tiles] for row in rows.tolist()])
        return Batch(image.numpy(), None if batch.mask is None else mask.numpy())
