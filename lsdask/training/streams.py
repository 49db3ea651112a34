"""Streams as training takes them: checked at the door, shared among ranks, brought to the device, named in errors."""

import hashlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lsdask import models
from lsdask.errors import BadInput, sentence
from lsdask.models.running import float_block
from lsdask.models.segmenter import TileClassifier
from lsdask.schema import UNKNOWN
from lsdask.training import ranks


class Tiles(Protocol):
    """What ``fit`` takes: ``streaming.TileStream``, or anything like it.

    Iterated once an epoch, each time from the start, it gives (image, mask) pairs of numpy arrays: image
    (n, band, y, x) as stored, mask (n, y, x) uint8.

    One that also has ``state_dict`` and ``load_state_dict``, as lsdask's have, is gone on with in mid-epoch without
    reading what was given before; of any other, those batches are read and passed over. Several ranks need ``rank``
    and ``world``.
    """

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""

    @property
    def nodata(self) -> float | int | None:
        """What stands for no data in the images."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


def check_streams(spec: models.Spec, train: Tiles, valid: Tiles | None) -> None:
    """Raise BadInput unless the streams have the model's bands and give something."""
    for name, stream in (("train", train), ("valid", valid)):
        if stream is not None:
            models.check_bands(spec, stream.bands, name=name)
            if len(stream) == 0:
                raise BadInput(sentence(name, "give at least one batch", "none", "Look at its tile index"))


def share(train: Tiles, valid: Tiles | None, rank: int, world: int, devices: int) -> None:
    """Let streams give one of several disjoint shares of their tiles, where there are several devices.

    Raises
    ------
    BadInput
        If one cannot, or the shares of ``train`` have different numbers of batches.
    """
    if devices == 1:
        return
    for name, stream in (("train", train), ("valid", valid)):
        for part in [] if stream is None else getattr(stream, "streams", [stream]):
            if not (hasattr(part, "rank") and hasattr(part, "world")):
                raise BadInput(sentence(name, f"have rank and world, to be shared by {devices} devices", "neither"))
            part.rank, part.world = rank, world
    counts = ranks.gather(len(train))
    if len(set(counts)) > 1:  # who has more would wait for the others for ever
        do = "Pass drop_last=True to the stream"
        raise BadInput(sentence("train", "have as many batches on every device", f"{counts}", do))


def put(batch: Any, stream: Tiles, model: models.Segmenter, name: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Bring a batch as stored to a device.

    Parameters
    ----------
    batch : (image, mask)
        Arrays as ``Tiles`` gives them.
    stream : Tiles
    model : Segmenter
        Whom it is for: a classifier gets a class a tile.
    name : str
        Of the stream.
    device : torch.device

    Returns
    -------
    image : (n, band, y, x) float32 tensor
        NaN where void.
    mask : (n, y, x) uint8 tensor
        (n, 1, 1) for a classifier.

    Raises
    ------
    BadInput
        If there is no mask, or it holds something else than classes and 255.
    """
    image, mask = batch
    _check_mask(mask, model.spec.classes, name)
    if isinstance(model, TileClassifier):
        mask = majority_block(mask)
    tensors = torch.from_numpy(float_block(image, stream.nodata)), torch.from_numpy(np.ascontiguousarray(mask))
    if device.type == "cuda":
        tensors = tensors[0].pin_memory(), tensors[1].pin_memory()
    return tensors[0].to(device, non_blocking=True), tensors[1].to(device, non_blocking=True)


def _check_mask(mask: Any, classes: int, name: str) -> None:
    if mask is None:
        raise BadInput(sentence(name, "give masks", "a stream of images alone", "Pass mask= to the stream"))
    held = np.flatnonzero(np.bincount(mask.ravel(), minlength=UNKNOWN + 1))
    most = max(classes, 2) - 1
    if ((held > most) & (held != UNKNOWN)).any():
        raise BadInput(sentence(f"{name}'s masks", f"hold 0 to {most}, or {UNKNOWN} where unknown", f"{held.tolist()}"))


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


def rest_of(stream: Any, batch: int, state: dict[str, Any] | None) -> Iterator[Any]:
    """Give an epoch's batches from the ``batch``-th on; ``state`` is where the stream was, if it could say."""
    if batch and state is not None:
        stream.load_state_dict({**state, "batch": batch})
        yield from stream
        return
    for i, each in enumerate(stream):
        if i >= batch:
            yield each


def state_of(stream: Any) -> dict[str, Any] | None:
    """Say where a stream is, if it can."""
    return stream.state_dict() if hasattr(stream, "state_dict") else None


def begin_at(stream: Any, state: dict[str, Any] | None) -> None:
    """Bring a stream to the start of the epoch it was in."""
    if state is not None:
        stream.set_epoch(state["epoch"])


def identity(stream: Any, name: str) -> dict[str, Any]:
    """Say what a stream's order depends on, one plain value a name."""
    state = state_of(stream) or {}
    found = _flat({key: value for key, value in state.items() if key not in ("epoch", "batch")}, name)
    return {key: value for key, value in found.items() if not key.endswith(".rank")}


def _flat(value: Any, name: str) -> dict[str, Any]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    if parts is None:
        return {name: value}
    return {key: leaf for part, inner in parts for key, leaf in _flat(inner, f"{name}.{part}").items()}


def fingerprint(batch: Any) -> str:
    """Give what tells a batch from others: 16 hexadecimal digits of a hash of its pixels."""
    found = hashlib.sha256()
    for part in batch:
        if part is not None:
            found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()[:16]


def tiles_of(stream: Any, index: int) -> str:
    """Name the rows of the tile index in a batch of the epoch, where the stream can tell them."""
    if not hasattr(stream, "plan"):
        return ""
    plan = stream.plan()
    rows = plan.order[plan.bounds[index] : plan.bounds[index + 1]].tolist()
    return f" (tiles {', '.join(map(str, rows[:8]))}{' ...' if len(rows) > 8 else ''})"
