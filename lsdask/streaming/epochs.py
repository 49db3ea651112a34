"""What all streams have in common: epochs, places in them, and shares."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Self

import numpy as np

from lsdask.errors import BadInput, sentence
from lsdask.streaming.holding import Batch


class Stream(ABC):
    """Batches of tiles, an epoch at a time; what they are is said by those that derive from it.

    An iteration that comes to its end raises ``epoch`` by one, so that the next has another order. An epoch is a
    fixed sequence of batches: whatever gives them (threads, workers, a process that went on in its middle), the n-th
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
    def batches(self, epoch: int, begin: int = 0, *, worker: int = 0, workers: int = 1) -> Iterator[Batch]:
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
        if os.getpid() != self._process:
            do = "Pass multiprocessing_context='spawn' or 'forkserver' to the DataLoader"
            raise BadInput(sentence("a stream", "not be used in a forked process, where Zarr may hang", "a fork", do))
        self._given, self._skip = self._skip, 0
        with closing(self.batches(self.epoch, self._given)) as coming:  # type: ignore[type-var]  # a generator
            for batch in coming:
                self._given += 1
                yield batch
        self.epoch, self._given = self.epoch + 1, 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _process=os.getpid())

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
        ``DataLoader(..., batch_size=None)``, whose workers must be started with
        ``multiprocessing_context="spawn"`` or ``"forkserver"``, and divide the stream's ``lanes``. Workers begin at
        the dataset's own ``epoch`` and ``batch``: call its ``set_epoch`` before each epoch. ``streaming.Processes``
        does all that by itself.
        """
        from lsdask.streaming.loading import TileDataset

        return TileDataset(self)

    def on(self, device: Any) -> Iterator[Any]:
        """Give an epoch's batches as tensors on a device, the next one copied while the model works on this one.

        Parameters
        ----------
        device : str or torch.device

        Yields
        ------
        Batch of tensors
            image float32 (tile, band, y, x), NaN for no data; mask uint8 (tile, y, x) or None.
        """
        from lsdask.streaming.loading import on_device

        return on_device(self, device)
