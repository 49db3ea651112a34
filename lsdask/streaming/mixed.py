"""Several streams as one."""

from collections.abc import Iterator, Sequence
from copy import copy
from itertools import count
from typing import Any, Self

import numpy as np

from lsdask.errors import BadInput, sentence
from lsdask.streaming.epochs import Stream
from lsdask.streaming.holding import Batch


class MixedStream(Stream):
    """Batches of several streams (inventories, scenes) in one epoch; each batch is of one stream.

    Parameters
    ----------
    streams : sequence of Stream
        With the same bands in the same order, dtype and nodata; all with a mask or none.
    weights : sequence of float, optional
        How often a stream's batches come in an epoch: 1 (by default) gives each once, 2 each twice, 0.5 half of
        them, drawn anew each epoch if the stream shuffles.
    seed : int
        Of the order in which the streams take turns.

    Attributes
    ----------
    epoch : int
    bands, nodata, dtype
        As of the streams.

    Raises
    ------
    BadInput
        If the streams differ, or the weights do not fit them.
    """

    def __init__(self, streams: Sequence[Stream], *, weights: Sequence[float] | None = None, seed: int = 0) -> None:
        super().__init__()
        weights = [1.0] * len(streams) if weights is None else [float(weight) for weight in weights]
        if not streams or len(weights) != len(streams) or min(weights) < 0:
            raise BadInput(sentence("weights", "be one for each of one or more streams, at least 0", str(weights)))
        if len(set(map(id, streams))) < len(streams):
            raise BadInput(sentence("streams", "all be different", "one of them twice", "Give it a weight of 2"))
        for what in ("bands", "nodata", "dtype"):
            values = [str(getattr(stream, what)) for stream in streams]
            if len(set(values)) > 1:
                do = "Put them in one order: image.sel(band=[...])" if what == "bands" else ""
                raise BadInput(sentence("streams", f"have the same {what}", " and ".join(values), do))
        if len({stream.masked for stream in streams}) > 1:
            raise BadInput(sentence("streams", "all have a mask or none", "some with and some without"))
        self.streams, self.weights, self.seed = list(streams), weights, seed
        self.bands, self.nodata, self.dtype = streams[0].bands, streams[0].nodata, streams[0].dtype
        self.masked = streams[0].masked

    def __len__(self) -> int:
        return sum(self._counts)

    def batches(self, epoch: int, begin: int = 0, *, worker: int = 0, workers: int = 1) -> Iterator[Batch]:
        self.check_workers(workers)
        turns = self._turns(epoch)
        past = np.bincount(turns[:begin], minlength=len(self.streams)).tolist()
        sources = [self._of(i, epoch, done) for i, done in enumerate(past)]
        try:
            for turn in turns[begin:].tolist():
                yield next(sources[turn])
        finally:
            for source in sources:
                source.close()  # type: ignore[attr-defined]

    def where(self, batch: int, epoch: int | None = None) -> str:
        epoch = self.epoch if epoch is None else epoch
        turns = self._turns(epoch)
        i = int(turns[batch])
        own, begin = self._own(i, epoch, int((turns[:batch] == i).sum()))
        return f"{self.streams[i].where(begin, own)} of stream {i}"

    def part(self, rank: int, world: int, *, drop_last: bool = False) -> Self:
        other = copy(self)
        other.streams = [stream.part(rank, world, drop_last=drop_last) for stream in self.streams]
        other.set_epoch(0)
        return other

    @property
    def identity(self) -> dict[str, Any]:
        return {"seed": self.seed, "weights": self.weights, "streams": [stream.identity for stream in self.streams]}

    @property
    def _counts(self) -> list[int]:
        """Batches of each stream in an epoch."""
        return [round(weight * len(stream)) for weight, stream in zip(self.weights, self.streams)]

    def _turns(self, epoch: int) -> np.ndarray:
        """Say for each batch of an epoch which stream it is of."""
        turns = np.repeat(np.arange(len(self.streams)), self._counts)
        return np.random.default_rng([self.seed, epoch]).permutation(turns)

    def _own(self, i: int, epoch: int, begin: int) -> tuple[int, int]:
        """Give a stream's own epoch, and place in it, for its ``begin``-th batch in an epoch of the mix."""
        each = max(len(self.streams[i]), 1)
        return epoch * -(-self._counts[i] // each) + begin // each, begin % each

    def _of(self, i: int, epoch: int, begin: int) -> Iterator[Batch]:
        """Give a stream's batches from its ``begin``-th of this epoch on, for as many of its own as it takes."""
        own, begin = self._own(i, epoch, begin)
        for further in count(own):
            yield from self.streams[i].batches(further, begin if further == own else 0)
