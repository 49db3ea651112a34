"""What an experiment costs, before it is run: what its steps train, and how long that takes on this machine.

The time of a tile is measured: each network takes a few real training steps on noise, of each size of tile and batch,
and nothing is stored. All else is counting.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lsdask import models, training
from lsdask.recipes import grid
from lsdask.recipes.steps import Step, in_order, record

PIXELS = 2**15
"""Of a batch on which a network is timed; a larger one takes proportionally longer."""

TIMED = 3
"""Batches that a network is timed on; the first only makes it ready."""

JUDGING = 1 / 3
"""Time of a tile to judge by, in that of one to learn from: forward, without backward twice as long."""

HOW = (
    "Measured by a few training steps of each network here, on noise. Reading, clusters, tiles and maps are not in it; "
    "training may end early. Until tiles are cut, the paper's numbers of them count."
)


@dataclass(frozen=True)
class Load:
    """What a step trains.

    Attributes
    ----------
    network : mapping
        Arguments of ``models.build``.
    loss : str
    side, batch : int
        Of a tile in pixels, and tiles of a batch.
    tiles, judged : int
        To learn from and to judge by, in an epoch.
    epochs : int
        At most.
    """

    network: Mapping[str, Any]
    loss: str
    side: int
    batch: int
    tiles: int
    judged: int
    epochs: int

    @property
    def timed(self) -> int:
        """Tiles of the batch that is timed."""
        return min(self.batch, max(PIXELS // self.side**2, 4))

    @property
    def kind(self) -> str:
        """The same for loads whose tiles take the same time."""
        return json.dumps([dict(self.network), self.loss, self.side, self.timed], sort_keys=True)

    def seconds(self, per_tile: float) -> float:
        """Say how long all epochs take."""
        return self.epochs * (self.tiles + JUDGING * self.judged) * per_tile


Loads = Callable[[Sequence[Step], Mapping[str, Mapping[str, Any]]], dict[str, Load]]
"""From the steps of an experiment, and the results of those that are done, to what steps train, by name."""


def plan(steps: Sequence[Step], out: str | Path, loads: Loads, *, threads: int | None = None) -> pd.DataFrame:
    """Say of each step how far it is, what it trains, and how long that takes; write nothing.

    Parameters
    ----------
    steps : sequence of Step
    out : path
        The experiment, begun or not.
    loads : callable
        The recipe's.
    threads : int, optional
        With which networks are timed; default those that torch takes.

    Returns
    -------
    DataFrame
        One row a step: ``name``, ``state``, ``tiles`` an epoch, ``epochs`` at most, ``hours`` of training at most,
        ``took`` in hours of those done. Steps that train nothing have no tiles.

    Raises
    ------
    BadInput, OtherPlan
        As ``grid.status`` does.
    """
    states = grid.status(steps, out)
    done = states.loc[states["state"] == "done", "name"]
    planned = loads(steps, {name: record(out, name)["result"] for name in done})
    with _threads(threads):
        per_tile = {kind: tile_seconds(load) for kind, load in {load.kind: load for load in planned.values()}.items()}
    rows = {name: (x.tiles, x.epochs, x.seconds(per_tile[x.kind]) / 3600) for name, x in planned.items()}
    none = (None, None, None)
    columns = pd.DataFrame([rows.get(name, none) for name in states["name"]], columns=["tiles", "epochs", "hours"])
    return states[["name", "state"]].join(columns.astype("float64")).assign(took=states["seconds"] / 3600)


def tile_seconds(load: Load) -> float:
    """Measure the time of a tile in training, s: in the quickest of a few batches of noise, one an epoch."""
    model = models.build(**load.network)
    noise = _Noise(model.spec.bands, load.timed, load.side, max(model.spec.classes, 2))
    done = training.fit(
        model, noise, epochs=TIMED, loss=load.loss, schedule="constant", augment=False, progress=False
    )  # fmt: skip
    return min(row["seconds"] for row in done.history[1:]) / load.timed


def makespan(steps: Sequence[Step], spent: Mapping[str, float], workers: int) -> float:
    """Say when the last step ends, if workers take steps in turn and each waits for what it needs.

    Parameters
    ----------
    steps : sequence of Step
    spent : mapping
        From names to the time a step takes; those missing take none.
    workers : int

    Examples
    --------
    >>> runs = [Step(name, print) for name in "abc"]
    >>> makespan(runs, {"a": 1.0, "b": 2.0, "c": 2.0}, 2)
    3.0
    """
    free, ends = [0.0] * workers, {"": 0.0}
    for step in in_order(steps):
        begin = max([heappop(free), *(ends[name] for name in step.needs.values())])
        ends[step.name] = begin + spent.get(step.name, 0.0)
        heappush(free, ends[step.name])
    return max(ends.values())


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Let torch take so many threads, then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Noise:
    """One batch of tiles of noise, as ``training.fit`` takes it."""

    nodata = None

    def __init__(self, bands: tuple[str, ...], tiles: int, side: int, classes: int) -> None:
        draw = np.random.default_rng(0)
        self.bands = bands
        self._image = draw.normal(size=(tiles, len(bands), side, side)).astype("float32")
        self._mask = draw.integers(0, classes, (tiles, side, side), dtype="uint8")

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield self._image, self._mask
