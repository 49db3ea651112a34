"""Streams as Lightning takes them. Loaded by those who ask for it."""

from typing import Any

import lightning.pytorch as pl
import torch

from lsdask.streaming.epochs import Stream
from lsdask.streaming.holding import Batch
from lsdask.streaming.loading import Processes, put


class TileModule(pl.LightningDataModule):
    """A stream to train with; see ``streaming.data_module``."""

    def __init__(self, train: Stream, workers: int) -> None:
        super().__init__()
        self._train, self._workers, self._nodata = train, workers, train.nodata
        self._loaders: dict[str, Stream] = {}

    def train_dataloader(self) -> Stream:
        return self._loader("train", self._train, drop_last=True)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Batch:
        return put(batch, self._nodata, device)

    def _loader(self, name: str, stream: Stream, *, drop_last: bool) -> Stream:
        """Give this rank's share of a stream, made by other processes if they are wanted; the same one each time."""
        if name not in self._loaders:
            if self.trainer is not None and self.trainer.world_size > 1:
                stream = stream.part(self.trainer.global_rank, self.trainer.world_size, drop_last=drop_last)
            self._loaders[name] = Processes(stream, workers=self._workers) if self._workers else stream
        return self._loaders[name]


class JudgedTileModule(TileModule):
    """A stream to train with, and one to judge by."""

    def __init__(self, train: Stream, valid: Stream, workers: int) -> None:
        super().__init__(train, workers)
        self._valid = valid

    def val_dataloader(self) -> Stream:
        return self._loader("valid", self._valid, drop_last=False)
