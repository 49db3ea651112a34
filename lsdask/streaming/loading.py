"""Streams as torch takes them: tensors, a data set, loader workers, a device. Loaded by those who ask for it."""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lsdask.schema import floats_block
from lsdask.streaming.epochs import Stream
from lsdask.streaming.holding import Batch, Batches

SMALL = ("uint8", "int8", "uint16", "int16", "float32")
"""Dtypes that go to a device as they are stored, and become float32 there without loss: half the bytes, or fewer."""


def put(batch: Any, nodata: float | int | None, device: torch.device) -> Batch:
    """Bring a batch to a device; to CUDA from pinned memory, in torch's current stream, not waiting for it.

    Parameters
    ----------
    batch : Batch
        image (tile, band, y, x) as stored; mask (tile, y, x) uint8 or None.
    nodata : float, int or None
        What stands for no data in the image.
    device : torch.device

    Returns
    -------
    Batch of tensors
        image float32, NaN for no data; mask uint8 or None.
    """
    image, mask = batch
    classes = None if mask is None else _copied(mask, device)
    if device.type == "cpu" or image.dtype.name not in SMALL:
        return Batch(_copied(floats_block(image, nodata), device), classes)  # type: ignore[arg-type]
    floats = _copied(image, device).to(torch.float32)
    if nodata is not None and not np.isnan(nodata):
        floats.masked_fill_(floats == nodata, torch.nan)
    return Batch(floats, classes)  # type: ignore[arg-type]


def _copied(array: np.ndarray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def on_device(batches: Iterator[Batch], nodata: float | int | None, device: torch.device) -> Iterator[Batch]:
    """Give batches on a device; on CUDA the next is copied, in a stream of its own, while the model works on this."""
    if device.type != "cuda":
        yield from (put(batch, nodata, device) for batch in batches)
        return
    side = torch.cuda.Stream(device)
    coming: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(side):
            following = put(batch, nodata, device), side.record_event()
        if coming is not None:
            yield _ready(*coming)
        coming = following
    if coming is not None:
        yield _ready(*coming)


def _ready(batch: Batch, copied: torch.cuda.Event) -> Batch:
    """Let the model's stream wait for the copy, and keep the memory until it has used it."""
    tensors: tuple[Any, ...] = batch
    for tensor in tensors:
        if tensor is not None:
            mine = torch.cuda.current_stream(tensor.device)
            mine.wait_event(copied)
            tensor.record_stream(mine)
    return batch


class TileDataset(IterableDataset):
    """A stream's batches, for ``DataLoader(dataset, batch_size=None)``; see ``Stream.torch``.

    Parameters
    ----------
    stream : Stream
    floats : bool
        Tensors of float32 with NaN for no data; else as stored.
    """

    def __init__(self, stream: Stream, *, floats: bool = True) -> None:
        self.stream, self.floats = stream, floats
        self._place = torch.zeros(2, dtype=torch.int64).share_memory_()  # workers that live on see it change
        self.begin(stream.epoch, 0)

    def __len__(self) -> int:
        return len(self.stream)

    def begin(self, epoch: int, batch: int) -> None:
        """Say where loader workers begin when the loader is iterated over next."""
        self._place.copy_(torch.tensor([epoch, batch]))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, with or without loader workers."""
        self.stream.set_epoch(epoch)
        self.begin(epoch, 0)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a stream's ``state_dict`` was taken, with or without loader workers."""
        self.stream.load_state_dict(state)
        self.begin(state["epoch"], state["batch"])

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker is None:
            batches = iter(self.stream)
        else:
            epoch, begin = self._place.tolist()
            batches = self.stream.batches(epoch, begin, worker=worker.id, workers=worker.num_workers)
        for image, mask in batches:
            values = torch.from_numpy(floats_block(image, self.stream.nodata) if self.floats else image)
            yield values if mask is None else Batch(values, torch.from_numpy(mask))  # type: ignore[arg-type]


class Processes(Stream):
    """A stream whose batches are made by other processes, so that reading never waits for the training process.

    It gives the same batches in the same order as the stream itself. Started at the first iteration, the processes
    live on for further epochs. They are spawned: a script that makes them needs ``if __name__ == "__main__":``.

    Parameters
    ----------
    stream : Stream
        Which is told no more than its batches: epochs are counted here.
    workers : int
        Processes. One is enough for most; more must divide the stream's ``lanes``.

    Raises
    ------
    BadInput
        If the workers do not divide the lanes.
    """

    def __init__(self, stream: Stream, *, workers: int = 1) -> None:
        super().__init__()
        stream.check_workers(workers)
        self.stream, self.workers = stream, workers
        self.bands, self.nodata, self.dtype, self.masked = stream.bands, stream.nodata, stream.dtype, stream.masked
        self._dataset = TileDataset(stream, floats=False)
        self._loader: DataLoader[Any] = DataLoader(
            self._dataset,
            batch_size=None,
            num_workers=workers,
            multiprocessing_context="spawn",
            persistent_workers=True,
        )

    def __len__(self) -> int:
        return len(self.stream)

    def batches(self, epoch: int, begin: int = 0, *, worker: int = 0, workers: int = 1) -> Batches:
        self.check_workers(workers)
        self._dataset.begin(epoch, begin)
        for item in self._loader:
            image, mask = item if self.masked else (item, None)
            yield Batch(image.numpy(), None if mask is None else mask.numpy())

    def where(self, batch: int, epoch: int | None = None) -> str:
        return self.stream.where(batch, self.epoch if epoch is None else epoch)

    def part(self, rank: int, world: int, *, drop_last: bool = False) -> Self:
        return type(self)(self.stream.part(rank, world, drop_last=drop_last), workers=self.workers)

    @property
    def identity(self) -> dict[str, Any]:
        return self.stream.identity
