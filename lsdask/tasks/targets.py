"""The target of a run: made, whole before it gets its name, or taken to go on with."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from lsdask import ledger, store, tiling


@dataclass(frozen=True)
class Target:
    """A target as a run wants it: see the arguments of ``tasks.run``."""

    path: str
    template: xr.DataArray
    grid: tiling.Grid
    chunk: int
    plan: dict[str, Any]
    beside: Callable[[store.Place], None] | None
    void: np.ndarray | None
    call: Mapping[str, Any] | None

    @contextmanager
    def taken(self) -> Iterator[ledger.Lock]:
        """Take the target for this run, made if there is nothing: locally the lock lies in it, else beside it."""
        if store.is_local(self.path):
            self._prepare()
        with ledger.held(self.path) as lock:
            if not store.is_local(self.path):
                self._prepare()
            sweep(self.path, self.grid.count)
            yield lock

    def _prepare(self) -> None:
        """Make the target, or check that it holds this run."""
        if store.exists(self.path):
            return ledger.check(self.path, self.plan)
        with store.making(self.path) as made:
            store.create(made, self.template, chunk=self.chunk, shard=self.grid.tile[0])
            if self.beside is not None:
                self.beside(made)
            ledger.start(made, self.grid.count, self.plan, void=self.void, call=self.call)
        return None

    def open(self) -> ledger.Ledger:
        """Open its ledger; void tiles that are to do are emptied, as after ``verify`` found something in them."""
        book = ledger.read(self.path)
        if self.void is not None:
            for row, column in np.argwhere(self.void & ~book.done):
                book.skip((int(row), int(column)))
        return book


def sweep(path: str, count: tuple[int, int]) -> None:
    """Remove what a killed run has left of parts of the ledger that it was writing."""
    for row, column in product(*(range(-(-tiles // ledger.CHUNK)) for tiles in count)):
        store.sweep(path, f"{ledger.NAME}/c/{row}/{column}")


@contextmanager
def transaction(path: str, label: str) -> Iterator[None]:
    """Open the transaction that a repository needs; nothing elsewhere."""
    if not store.is_repository(path):
        yield
        return
    with store.told(path), store.session(path, f"lsdask {label}"):
        yield
