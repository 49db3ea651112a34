"""How far a run has come, and whether what it wrote is still what it wrote."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any, Self

import numpy as np

from lsdask import ledger, store
from lsdask.errors import Unfinished
from lsdask.tasks.journal import metrics
from lsdask.tasks.progress import Bar
from lsdask.tasks.reports import Failure
from lsdask.tasks.targets import sweep, transaction

READERS = 8
"""Tiles that are read at the same time."""


@dataclass(frozen=True)
class Status:
    """How far the run of a target has come.

    Attributes
    ----------
    target : str
    tiles, done, void : int
        All tiles; those computed; those that need no computing. The others are to do.
    unchecked : int
        Tiles computed whose checksum is not known, as an earlier version of lsdask kept none: ``verify`` can only
        pass over them.
    running : bool
        Whether a run writes the target now; False for an object store, which cannot be asked without waiting.
    failed : tuple of Failure
        Tiles to do that the runs so far have tried in vain, with why, as far as they have written it down.
    plan : dict
        What the run is.
    """

    target: str
    tiles: int
    done: int
    void: int
    unchecked: int
    running: bool
    failed: tuple[Failure, ...]
    plan: dict[str, Any]

    @property
    def to_do(self) -> int:
        """Tiles neither computed nor void."""
        return self.tiles - self.done - self.void

    def __str__(self) -> str:
        now = "being written now" if self.running else "finished" if not self.to_do else "not finished"
        text = f"{self.target}: {now}. {self.done:,} of {self.tiles:,} tiles done, {self.void:,} void, "
        text += f"{self.to_do:,} to do."
        text += f" {self.unchecked:,} have no checksum." if self.unchecked else ""
        return text + _named(" Failed", self.failed)


def status(target: str | Path) -> Status:
    """Say how far the run of a target has come, without the right to write it.

    Parameters
    ----------
    target : str or Path
        A store that a run writes or wrote.

    Returns
    -------
    Status

    Raises
    ------
    BadInput, NotFound, Unreadable
        If there is no such target, or it cannot be read.
    """
    target = store.text(target)
    plan, entries = ledger.plan_of(target), ledger.entries(target)
    whys = {tuple(line["tile"]): line.get("failed") for line in metrics(target)}
    to_do = {(int(row), int(column)) for row, column in np.argwhere(entries == ledger.TO_DO)}
    failed = tuple(Failure(place, str(whys[place])) for place in sorted(to_do) if whys.get(place))
    void = int((entries == ledger.VOID).sum())
    return Status(
        target=target,
        tiles=entries.size,
        done=entries.size - len(to_do) - void,
        void=void,
        unchecked=int((entries == ledger.DONE).sum()),
        running=ledger.is_locked(target),
        failed=failed,
        plan=plan,
    )


@dataclass(frozen=True)
class Checked:
    """What ``verify`` found.

    Attributes
    ----------
    target : str
    tiles : int
        All tiles that were done or void.
    sound, unchecked : int
        Those whose objects are as they were written; those without a checksum to tell by.
    damaged : tuple of Failure
        The others and what is wrong: the ledger has them as to do now.
    """

    target: str
    tiles: int
    sound: int
    unchecked: int
    damaged: tuple[Failure, ...]

    @property
    def failed(self) -> tuple[Failure, ...]:
        """The damaged tiles, as in the report of a run."""
        return self.damaged

    def check(self) -> Self:
        """Give this back, or raise Unfinished naming the damaged tiles."""
        if self.damaged:
            raise Unfinished(str(self))
        return self

    def __str__(self) -> str:
        text = f"{self.target}: {self.sound:,} of {self.tiles:,} tiles are as they were written."
        text += f" {self.unchecked:,} have no checksum to tell by." if self.unchecked else ""
        return text + _named(" Damaged", self.damaged) + (" Run again to do these." if self.damaged else "")


def verify(target: str | Path, *, progress: bool = True) -> Checked:
    """Read what a run has written and compare checksums; tiles that are torn, altered or gone are to do again.

    Objects are read as they are stored and not decoded. Nothing but the ledger is written.

    Parameters
    ----------
    target : str or Path
        A store that a run wrote.
    progress : bool
        Show a bar once it has taken two seconds.

    Returns
    -------
    Checked

    Raises
    ------
    OtherPlan
        If a run writes the target now.
    BadInput, NotFound, Unreadable
        If there is no such target, or it does not answer.
    """
    target = store.text(target)
    ledger.plan_of(target)
    with transaction(target, "verify"), ledger.held(target):
        book = ledger.read(target)
        sweep(target, book.entries.shape)
        known = np.argwhere(book.void | (book.entries >= ledger.CHECKED))
        damaged = _damaged(book, known, progress)
        for failure in damaged:
            book.clear(failure.place)
        book.flush()
    unchecked = int((book.entries == ledger.DONE).sum())
    return Checked(target, len(known) + unchecked, len(known) - len(damaged), unchecked, tuple(damaged))


def _damaged(book: ledger.Ledger, known: np.ndarray, progress: bool) -> list[Failure]:
    """Check tiles, a few at a time."""
    found: list[Failure] = []
    places = [(int(row), int(column)) for row, column in known]
    with Bar("verify", len(places), 0, shown=progress) as bar, ThreadPoolExecutor(READERS) as threads:
        for some in batched(places, 64 * READERS):  # so that a million tiles are not a million futures
            for failure in threads.map(lambda place: _check(book, place), some):
                found += [] if failure is None else [failure]
                bar.step(len(found), {})
    return found


def _check(book: ledger.Ledger, place: tuple[int, int]) -> Failure | None:
    """Compare a tile with its entry."""
    objects = {key: store.examine(book.target, key) for key in book.keys(place)}
    entry = int(book.entries[place])
    if entry == ledger.VOID:
        stored = [key for key, one in objects.items() if one.size]
        return Failure(place, f"{stored[0]} is stored, and the tile is void") if stored else None
    if ledger.CHECKED + store.fold(objects) == entry:
        return None
    gone = [key for key, one in objects.items() if not one.size]
    return Failure(place, f"{gone[0]} is gone" if gone else f"{', '.join(objects)}: torn or altered")


def _named(what: str, failures: Iterable[Failure]) -> str:
    """Name the first five tiles and why."""
    failures = list(failures)
    if not failures:
        return ""
    named = "; ".join(f"tile {failure.place}: {failure.why}" for failure in failures[:5])
    more = f"; and {len(failures) - 5:,} more" if len(failures) > 5 else ""
    return f"{what}: {len(failures):,} ({named}{more})."
