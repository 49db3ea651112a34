"""Streams as training takes them: checked at the door, shared among ranks, brought to the device, named in errors."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lsdask import models
from lsdask.errors import BadInput, sentence
from lsdask.models.segmenter import TileClassifier
from lsdask.schema import UNKNOWN
from lsdask.streaming import Stream
from lsdask.streaming.loading import on_device
from lsdask.streaming.loading import put as put_tensors


class Tiles(Protocol):
    """What ``fit`` takes: ``streaming.TileStream``, or anything like it.

    Iterated once an epoch, each time from the start, it gives (image, mask) pairs of numpy arrays: image
    (n, band, y, x) as stored, mask (n, y, x) uint8.

    lsdask's own (``streaming.Stream``) can also be shared by ranks, begin in mid-epoch without reading what came
    before, and say which tiles are in a batch. Of any other, batches that were given before are read and passed over.
    """

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""

    @property
    def nodata(self) -> float | int | None:
        """What stands for no data in the images."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


def check_streams(spec: models.Spec, train: Tiles, valid: Tiles | None, devices: int) -> None:
    """Raise BadInput unless the streams have the model's bands, give something, and can be shared by the devices."""
    for name, stream in (("train", train), ("valid", valid)):
        if stream is None:
            continue
        models.check_bands(spec, stream.bands, name=name)
        if len(stream) == 0:
            raise BadInput(sentence(name, "give at least one batch", "none", "Look at its tile index"))
        if devices > 1 and not isinstance(stream, Stream):
            rule = f"be a stream of lsdask.streaming, to be shared by {devices} devices"
            raise BadInput(sentence(name, rule, f"a {type(stream).__name__}"))


def part(stream: Any, name: str, rank: int, world: int) -> Any:
    """Give a rank's share; of train, all are of one length, as who has more would wait for the others for ever.

    Raises
    ------
    BadInput
        On all ranks, if one of them has nothing.
    """
    if world == 1 or stream is None:
        return stream
    shares = [stream.part(each, world, drop_last=name == "train") for each in range(world)]
    if not all(map(len, shares)):
        got = f"{len(stream)} batches for {world} devices"
        raise BadInput(sentence(name, "give each device a batch", got, "Pass a smaller batch_size to the stream"))
    return shares[rank]


def epoch_of(stream: Any) -> int:
    """Give the epoch that a stream is at; 0 for one that counts none."""
    return stream.epoch if isinstance(stream, Stream) else 0


def set_epochs(train: Any, valid: Any, begun: dict[str, int], epochs: int) -> None:
    """Let streams count the epochs that were taken of them, so that further training has further orders."""
    for name, stream in (("train", train), ("valid", valid)):
        if isinstance(stream, Stream):
            stream.set_epoch(begun[name] + epochs)


def batches_of(stream: Tiles, epoch: int, begin: int) -> Iterator[Any]:
    """Give an epoch's batches as stored, from the ``begin``-th on."""
    return stream.batches(epoch, begin) if isinstance(stream, Stream) else islice(iter(stream), begin, None)


class Flow:
    """The batches of an epoch as stored, of which a thread makes the first before it is asked for.

    Parameters
    ----------
    stream : Tiles
    epoch, begin : int
        Of the first batch.
    """

    def __init__(self, stream: Tiles, epoch: int, begin: int = 0) -> None:
        self._coming = batches_of(stream, epoch, begin)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lsdask-first")
        self._first = self._pool.submit(next, self._coming, None)

    def first(self) -> Any:
        """Give the first batch, which iterating gives again; None if there is none."""
        return self._first.result()

    def __iter__(self) -> Iterator[Any]:
        first = self.first()
        if first is not None:
            yield first
            yield from self._coming

    def close(self) -> None:
        """Stop what reads ahead."""
        self._pool.shutdown(wait=True)
        if hasattr(self._coming, "close"):
            self._coming.close()


def ready(
    flow: Flow, stream: Tiles, name: str, model: models.Segmenter, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Bring the batches of a flow to a device.

    Parameters
    ----------
    flow : Flow
    stream : Tiles
        Whose flow it is.
    name : str
        Of the stream, for messages.
    model : Segmenter
        Whom it is for: a classifier gets a class a tile.
    device : torch.device

    Yields
    ------
    image : (n, band, y, x) float32 tensor
        NaN where void.
    mask : (n, y, x) uint8 tensor
        (n, 1, 1) for a classifier.

    Raises
    ------
    BadInput
        If there is no mask, or one holds something else than classes and 255.
    """
    checked: Any = ((image, _checked(mask, name, model)) for image, mask in flow)
    return on_device(checked, stream.nodata, device)  # type: ignore[return-value]  # with masks, always


def put(batch: Any, stream: Tiles, name: str, model: models.Segmenter, device: torch.device) -> tuple[Tensor, Tensor]:
    """Bring one batch to a device; as ``ready`` does."""
    image, mask = batch
    return put_tensors((image, _checked(mask, name, model)), stream.nodata, device)  # type: ignore[return-value]


def _checked(mask: Any, name: str, model: models.Segmenter) -> np.ndarray:
    """Give a batch's mask as the model learns it."""
    if mask is None:
        raise BadInput(sentence(name, "give masks", "a stream of images alone", "Pass mask= to the stream"))
    held = np.flatnonzero(np.bincount(mask.ravel(), minlength=UNKNOWN + 1))
    most = max(model.spec.classes, 2) - 1
    if ((held > most) & (held != UNKNOWN)).any():
        raise BadInput(sentence(f"{name}'s masks", f"hold 0 to {most}, or {UNKNOWN} where unknown", f"{held.tolist()}"))
    return majority_block(mask) if isinstance(model, TileClassifier) else mask


def majority_block(labels: np.ndarray) -> np.ndarray:
    """Give the most frequent label of each tile, the lowest of those that tie.

    Parameters
    ----------
    labels : (n, y, x) uint8 array
        255 where unknown.

    Returns
    -------
    (n, 1, 1) uint8 array, 255 where nothing is known
    """
    counts = np.stack([np.bincount(tile.ravel(), minlength=UNKNOWN + 1) for tile in labels])[:, :UNKNOWN]
    found = np.where(counts.any(axis=1), counts.argmax(axis=1), UNKNOWN)
    return found.astype("uint8")[:, None, None]


def identity(stream: Any, name: str) -> dict[str, Any]:
    """Say what a stream's order depends on, one plain value a name."""
    return _flat(stream.identity, name) if isinstance(stream, Stream) else {}


def _flat(value: Any, name: str) -> dict[str, Any]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    if parts is None:
        return {name: value}
    return {key: leaf for part, inner in parts for key, leaf in _flat(inner, f"{name}.{part}").items()}


def fingerprint(batch: Any) -> str:
    """Give what tells a batch from others: 16 hexadecimal digits of a hash of its pixels."""
    found = hashlib.sha256()
    for array in batch:
        if array is not None:
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def tiles_of(stream: Any, epoch: int, index: int) -> str:
    """Say which tiles are in a batch, where the stream can tell."""
    return f" ({stream.where(index, epoch)})" if isinstance(stream, Stream) else ""
