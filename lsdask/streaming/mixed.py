"""Several streams as one."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lsdask.errors import BadInput, sentence
from lsdask.streaming.reading import Batch
from lsdask.streaming.tiles import TileStream


class MixedStream:
    """Batches of several streams (inventories, scenes) in one epoch; each batch is of one stream.

    Parameters
    ----------
    streams : sequence of TileStream
        With the same bands, dtype and nodata; all with a mask or none.
    weights : sequence of float, optional
        How often a stream's batches come in an epoch: 1 (by default) gives each once, 2 each twice, 0.5 half of
        them, drawn anew each epoch if the stream shuffles.
    seed : int
        Of the order in which the streams take turns.

    Attributes
    ----------
    epoch : int
    bands, nodata
        As of the streams.

    Raises
    ------
    BadInput
        If the streams differ, or the weights do not fit them.
    """

    def __init__(self, streams: Sequence[TileStream], *, weights: Sequence[float] | None = None, seed: int = 0) -> None:
        weights = [1.0] * len(streams) if weights is None else list(weights)
        if not streams or len(weights) != len(streams) or min(weights) < 0:
            raise BadInput(sentence("weights", "be one for each of one or more streams, at least 0", str(weights)))
        if len(set(map(id, streams))) < len(streams):
            raise BadInput(sentence("streams", "all be different", "one of them twice", "Give it a weight of 2"))
        for what in ("bands", "nodata", "dtype"):
            values = [str(getattr(stream, what)) for stream in streams]
            if len(set(values)) > 1:
                raise BadInput(sentence("streams", f"have the same {what}", " and ".join(values)))
        if len({stream._mask is None for stream in streams}) > 1:
            raise BadInput(sentence("streams", "all have a mask or none", "some with and some without"))
        self.streams, self.weights, self.seed, self.epoch = list(streams), weights, seed, 0
        self.bands, self.nodata, self.dtype = streams[0].bands, streams[0].nodata, streams[0].dtype
        self._given = self._skip = 0

    def __len__(self) -> int:
        """Batches an epoch."""
        return sum(self._counts)

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches of the current epoch, or those left of it after ``load_state_dict``."""
        self._given, self._skip = self._skip, 0
        turns = np.random.default_rng([self.seed, self.epoch]).permutation(
            np.repeat(np.arange(len(self.streams)), self._counts)
        )
        past = np.bincount(turns[: self._given], minlength=len(self.streams)).tolist()
        sources = [self._batches(i, begin) for i, begin in enumerate(past)]
        try:
            for turn in turns[self._given :].tolist():
                batch = next(sources[turn])
                self._given += 1
                yield batch
        finally:
            for source in sources:
                source.close()  # type: ignore[attr-defined]
        self.epoch, self._given = self.epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, and so the order, of the next iteration."""
        self.epoch, self._given, self._skip = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Say where the stream is, and what its order depends on."""
        return {"epoch": self.epoch, "batch": self._given, **self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; BadInput if that was of another mix."""
        for key, mine in self._identity.items():
            if state.get(key) != mine:
                raise BadInput(sentence("state", f"be of a stream with {key}={mine}", f"{key}={state.get(key)}"))
        self.epoch, self._given, self._skip = state["epoch"], state["batch"], state["batch"]

    @property
    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "weights": [float(weight) for weight in self.weights],
            "streams": [stream._identity for stream in self.streams],
        }

    @property
    def _counts(self) -> list[int]:
        """Batches of each stream in an epoch."""
        return [round(weight * len(stream)) for weight, stream in zip(self.weights, self.streams)]

    def _batches(self, i: int, begin: int) -> Iterator[Batch]:
        """Give a stream's batches from its ``begin``-th of this epoch on, for as many of its own as it takes."""
        stream = self.streams[i]
        own = self.epoch * -(-self._counts[i] // max(len(stream), 1)) + begin // max(len(stream), 1)
        stream.set_epoch(own)
        stream._skip = begin % max(len(stream), 1)
        while True:
            yield from stream
