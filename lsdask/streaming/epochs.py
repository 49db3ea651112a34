"""What all streams have in common: epochs, places in them, and shares."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Self

import numpy as np

from lsdask.errors import BadInput, sentence
from lsdask.streaming.holding import Batch, Batches


class Stream(ABC):
    """Batches of tiles, an epoch at a time; what they are is said by those that derive from it.

    With its last batch ``epoch`` rises by one, so that the next iteration has another order. An epoch is a fixed
    sequence of batches: whatever gives them (threads, workers, a process that went on in its middle), the n-th
    is the n-th.

    Attributes
    ----------
    epoch : int
    bands : tuple of str
    nodata : float, int or None
        What stands for no data in ``Batch.image``.
    dtype : numpy dtype
        Of ``Batch.image``.
    masked : bool
        Whether batches have masks.
    lanes : int
        What the number of loader workers must divide.
    """

    bands: tuple[str, ...]
    nodata: float | int | None
    dtype: np.dtype
    masked: bool
    lanes: int = 1
    epoch: int = 0
    _given = _skip = 0

    def __init__(self) -> None:
        self._process = os.getpid()

    @abstractmethod
    def __len__(self) -> int:
        """Batches an epoch."""

    @abstractmethod
    def batches(self, epoch: int, begin: int = 0, *, worker: int = 0, workers: int = 1) -> Batches:
        """Give an epoch's batches from the ``begin``-th on: every ``workers``-th, from its ``worker``-th.

        This changes nothing in the stream. Iterate over the stream itself for one epoch after the other.
        """

    @abstractmethod
    def where(self, batch: int, epoch: int | None = None) -> str:
        """Say which tiles are in a batch, for people; of the current epoch by default."""

    @abstractmethod
    def part(self, rank: int, world: int, *, drop_last: bool = False) -> Self:
        """Give a stream of the ``rank``-th of ``world`` disjoint shares of this one's tiles, at its first epoch.

        Parameters
        ----------
        rank, world : int
        drop_last : bool
            Leave out what would give ranks different lengths, at which distributed training hangs.
        """

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What the order depends on, the epoch apart; JSON."""

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches of the current epoch, or those left of it after ``load_state_dict``."""
        return self._counted(iter)

    def _counted(self, through: Callable[[Iterator[Batch]], Iterator[Any]]) -> Iterator[Any]:
        """Give what ``through`` makes of an epoch's batches, and count what was given."""
        if os.getpid() != self._process:
            do = "Pass multiprocessing_context='spawn' or 'forkserver' to the DataLoader"
            raise BadInput(sentence("a stream", "not be used in a forked process, where Zarr may hang", "a fork", do))
        self._given, self._skip, last = self._skip, 0, len(self)
        with closing(self.batches(self.epoch, self._given)) as coming:
            for item in through(coming):
                self._given += 1
                if self._given == last:  # now, as Lightning asks for no more than len() says
                    self.set_epoch(self.epoch + 1)
                yield item
        if last == 0:
            self.set_epoch(self.epoch + 1)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _process=os.getpid())

    def check_workers(self, workers: int) -> None:
        """Raise BadInput if so many loader workers cannot share this stream."""
        if workers < 1 or self.lanes % workers:
            do = f"Pass lanes={workers} to TileStream" if workers > 1 else ""
            got = f"{workers} workers for lanes={self.lanes}"
            raise BadInput(sentence("workers", "be at least 1 and divide the stream's lanes", got, do))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, and so the order, of the next iteration."""
        self.epoch, self._given, self._skip = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Say where the stream is: its epoch, how many batches of it were given, and what the order depends on."""
        return {"epoch": self.epoch, "batch": self._given, **self.identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken: the next iteration gives the batches left of that epoch.

        Raises
        ------
        BadInput
            If the state is of a stream with other tiles, order or shares.
        """
        for key, mine in self.identity.items():
            if state.get(key) != mine:
                raise BadInput(sentence("state", f"be of a stream with {key}={mine}", f"{key}={state.get(key)}"))
        self.epoch, self._given, self._skip = state["epoch"], state["batch"], state["batch"]

    def torch(self) -> Any:
        """Give a ``torch.utils.data.IterableDataset`` of the batches.

        Its items are whole batches: image float32 (tile, band, y, x) with NaN for no data, as the networks of
        ``models`` take it, and mask uint8 (tile, y, x); or the image alone where there is no mask. Pass it to
        ``DataLoader(..., batch_size=None)``. Loader workers, if any, must divide the stream's ``lanes`` and be started
        with ``multiprocessing_context="spawn"`` or ``"forkserver"``; call the dataset's ``set_epoch`` before each
        epoch, as with torch's DistributedSampler, or each has the same order. ``in_processes`` needs none of that.
        """
        from lsdask.streaming.loading import TileDataset

        return TileDataset(self)

    def in_processes(self, workers: int = 1) -> "Stream":
        """Give a stream of the same batches, made by other processes; see ``loading.Processes``.

        Parameters
        ----------
        workers : int
            Processes. One is enough for most; more must divide the stream's ``lanes``.

        Raises
        ------
        BadInput
            If they do not, or the stream reads by a Dask client.
        """
        from lsdask.streaming.loading import Processes

        return Processes(self, workers=workers)

    def on(self, device: Any) -> Iterator[Any]:
        """Give an epoch's batches as tensors on a device, the next one copied there while the model works on this one.

        Parameters
        ----------
        device : str or torch.device

        Yields
        ------
        Batch of tensors
            image float32 (tile, band, y, x), NaN for no data; mask uint8 (tile, y, x) or None.
        """
        import torch

        from lsdask.streaming.loading import on_device

        return self._counted(lambda batches: on_device(batches, self.nodata, torch.device(device)))


def data_module(train: Stream, valid: Stream | None = None, *, workers: int = 0) -> Any:
    """Give a ``LightningDataModule`` of streams, whose batches reach the model as ``Stream.on`` gives them.

    Under DDP each rank takes its own share (``Stream.part``), of equal lengths in training. The place in an epoch is
    kept in Lightning's checkpoints, and gone on from.

    Parameters
    ----------
    train, valid : Stream
        With the same nodata.
    workers : int
        Processes that make the batches of each stream, as ``Stream.in_processes``; 0 for none.

    Raises
    ------
    BadInput
        If the streams have other bands or nodata than each other.
    """
    for what in ("bands", "nodata"):
        mine, theirs = str(getattr(train, what)), str(getattr(valid or train, what))
        if mine != theirs:
            raise BadInput(sentence("valid", f"have the {what} of train, {mine}", theirs))
    from lsdask.streaming.modules import JudgedTileModule, TileModule

    return TileModule(train, workers) if valid is None else JudgedTileModule(train, valid, workers)
