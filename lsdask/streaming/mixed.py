"""Several streams as one."""

from collections.abc import Sequence
from contextlib import closing
from copy import copy
from itertools import islice
from math import gcd, inf
from typing import Any, Self

import numpy as np

from lsdask.errors import BadInput, sentence
from lsdask.streaming.epochs import Stream
from lsdask.streaming.holding import Batches
from lsdask.streaming.ordering import check_counts


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
    lanes : int
        The greatest number that divides the lanes of each stream, so that loader workers can share all of them.

    Raises
    ------
    BadInput
        If the streams differ, or the weights do not fit them.
    """

    def __init__(self, streams: Sequence[Stream], *, weights: Sequence[float] | None = None, seed: int = 0) -> None:
        super().__init__()
        weights = [1.0] * len(streams) if weights is None else [float(weight) for weight in weights]
        if not streams or len(weights) != len(streams) or not all(0 <= weight < inf for weight in weights):
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
        check_counts(0, seed=seed)
        self.streams, self.weights, self.seed = list(streams), weights, seed
        self.bands, self.nodata, self.dtype = streams[0].bands, streams[0].nodata, streams[0].dtype
        self.masked, self.lanes = streams[0].masked, gcd(*(stream.lanes for stream in streams))

    def __len__(self) -> int:
        return sum(self._counts)

    def batches(self, epoch: int, begin: int = 0, *, worker: int = 0, workers: int = 1) -> Batches:
        self.check_workers(workers)
        order = self._order(epoch)
        mine = np.arange(begin + worker, len(order), workers)
        flow = mine % self.lanes * len(self.streams) + order[mine, 0]
        flows = {each: self._flow(order[mine[flow == each]]) for each in np.unique(flow).tolist()}
        try:
            for each in flow.tolist():
                yield next(flows[each])
        finally:
            for batches in flows.values():
                batches.close()

    def where(self, batch: int, epoch: int | None = None) -> str:
        i, own, place = self._order(self.epoch if epoch is None else epoch)[batch].tolist()
        return f"{self.streams[i].where(place, own)} of stream {i}"

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

    def _order(self, epoch: int) -> np.ndarray:
        """Give each batch's stream, the stream's own epoch, and the place in that: (batch, 3) int64.

        Batches listed stream by stream are dealt to the lanes in turn, so that a lane has every so-many-th of each
        epoch of a stream, in its order: what one loader worker can read. In a lane streams take turns at random.
        """
        listed = self._listed(epoch)
        order = np.empty_like(listed)
        for lane in range(self.lanes):
            part = listed[lane :: self.lanes]
            turns = np.random.default_rng([self.seed, epoch, lane]).permutation(part[:, 0])
            mixed = np.empty_like(part)
            mixed[np.argsort(turns, kind="stable")] = part
            order[lane :: self.lanes] = mixed
        return order

    def _listed(self, epoch: int) -> np.ndarray:
        """Give an epoch's batches as ``_order`` does, but stream by stream."""
        parts = []
        for i, (stream, count) in enumerate(zip(self.streams, self._counts)):
            each = max(len(stream), 1)
            own, place = np.divmod(np.arange(count), each)
            parts.append(np.stack([np.full(count, i), epoch * -(-count // each) + own, place], axis=1))
        return np.concatenate(parts)

    def _flow(self, order: np.ndarray) -> Batches:
        """Give these batches, which are of one stream and lane: rows of ``_order``."""
        for own in np.unique(order[:, 1]).tolist():
            rows = order[order[:, 1] == own]
            i, _, first = rows[0].tolist()
            with closing(self.streams[i].batches(own, first, workers=self.lanes)) as coming:
                yield from islice(coming, len(rows))
