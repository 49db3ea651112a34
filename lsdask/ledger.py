"""Which tiles of a target are done, and what run they belong to.

The ledger is an array in the target's group, one entry a tile, set after the tile's data is written: a tile that was
being computed when the run died is computed again, which is harmless because a tile's shard is written whole.
Doneness is not inferred from stored chunks: Zarr does not store chunks that equal the fill value.

An entry is 0 for a tile to do, 1 for one done whose checksum is not known, 2 for one that is void and needs no
computing, and 2**32 and more for one done whose stored objects have the checksum ``entry - 2**32``. A ledger of
bytes, as earlier versions wrote, holds 0, 1 and 2.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from filelock import FileLock, Timeout

from lsdask import store
from lsdask.errors import BadInput, OtherPlan, Unreadable, sentence

NAME = "ledger"
PLAN = "lsdask_plan"
CALL = "lsdask_call"
VARIABLES = "lsdask_variables"
TO_DO, DONE, VOID, CHECKED = 0, 1, 2, 2**32
CHUNK = 64
"""Tiles of a chunk of the ledger, on each axis."""


class Ledger:
    """The ledger of one target, held in memory and written through by ``flush``.

    Attributes
    ----------
    target : str, Path or zarr Store
        Whose it is.
    entries : (rows, columns) uint64 array
        See the head of this module.
    """

    def __init__(self, target: store.Place, stored: zarr.Array) -> None:
        self.target, self._stored = target, stored
        self._changed: set[tuple[int, int]] = set()
        self.entries: np.ndarray = _entries(target, stored)
        group, names = store.group(target), stored.attrs.get(VARIABLES, [])
        self._variables: list[zarr.Array] = [group[name] for name in names]  # type: ignore

    @property
    def done(self) -> np.ndarray:
        """The tiles that need nothing more, (rows, columns) bool."""
        return self.entries != TO_DO

    @property
    def void(self) -> np.ndarray:
        """Those of them that needed no computing, (rows, columns) bool."""
        return self.entries == VOID

    def mark(self, place: tuple[int, int], checksum: int | None = None) -> None:
        """Remember that a tile's data is written, and its checksum; ``flush`` makes it last."""
        known = checksum is not None and self._stored.dtype.itemsize > 1
        self._set(place, CHECKED + int(checksum or 0) if known else DONE)

    def clear(self, place: tuple[int, int]) -> None:
        """Remember that a tile must be computed again; ``flush`` makes it last."""
        self._set(place, TO_DO)

    def skip(self, place: tuple[int, int]) -> None:
        """Remove what is stored of a void tile, so that it reads as no data; ``flush`` makes it last."""
        for key in self.keys(place):
            store.remove(self.target, key)
        self._set(place, VOID)

    def keys(self, place: tuple[int, int]) -> list[str]:
        """Give the keys of the objects of a tile; none if the ledger is of an earlier version."""
        leads = ((array, (0,) * (array.ndim - 2)) for array in self._variables)
        return [f"{array.path}/{array.metadata.encode_chunk_key((*lead, *place))}" for array, lead in leads]

    def flush(self) -> None:
        """Write what changed to the store: whole chunks, so one object a write."""
        while self._changed:
            row, column = min(self._changed)
            part = np.s_[row * CHUNK : (row + 1) * CHUNK, column * CHUNK : (column + 1) * CHUNK]
            with store.told(self.target):
                self._stored[part] = self.entries[part].astype(self._stored.dtype)
            self._changed.remove((row, column))

    def _set(self, place: tuple[int, int], entry: int) -> None:
        self.entries[place] = entry
        self._changed.add((place[0] // CHUNK, place[1] // CHUNK))


def start(
    target: store.Place,
    count: tuple[int, int],
    plan: dict[str, Any],
    *,
    void: np.ndarray | None = None,
    call: Mapping[str, Any] | None = None,
) -> None:
    """Write plan and ledger into a new target.

    Parameters
    ----------
    target : str, Path or zarr Store
        A store just created.
    count : (int, int)
        Tiles, (rows, columns).
    plan : dict
        What the run is; JSON.
    void : (rows, columns) bool array, optional
        Tiles that need no computing.
    call : mapping, optional
        How to call the run again, which is not part of what it is; JSON.
    """
    with store.told(target):
        group = store.group(target, write=True)
        variables = [name for name, array in group.arrays() if _shards(array) == count]
        entries = group.create_array(
            NAME,
            shape=count,
            dtype="uint64",
            chunks=(CHUNK, CHUNK),
            fill_value=TO_DO,
            dimension_names=("tile_y", "tile_x"),
            attributes={PLAN: plan, CALL: dict(call or {}), VARIABLES: sorted(variables)},
        )
        if void is not None and void.any():
            entries[:] = np.where(void, VOID, TO_DO).astype(entries.dtype)


def _shards(array: zarr.Array) -> tuple[int, ...]:
    """Count the stored objects on the last two axes of an array, on none if it has fewer."""
    sides = (array.shards or array.chunks)[-2:]
    return tuple(-(-size // side) for size, side in zip(array.shape[-2:], sides)) if array.ndim > 1 else ()


def check(target: str | Path, plan: dict[str, Any]) -> None:
    """Raise unless a target holds this very run.

    Raises
    ------
    BadInput
        If the target was not made by a run.
    OtherPlan
        If it holds another run; the message names what differs.
    """
    held = plan_of(target)
    keys = [key for key in sorted({*plan, *held}) if plan.get(key) != held.get(key)]
    if keys:
        differs = ", ".join(f"{key}: {_short(held.get(key))} -> {_short(plan.get(key))}" for key in keys)
        do = "Pass the same arguments to go on, or another target to start again."
        raise OtherPlan(f"{target} holds another run ({differs}). {do}")


def plan_of(target: str | Path) -> dict[str, Any]:
    """Give the plan of the run that a target holds.

    Raises
    ------
    BadInput
        If the target was not made by a run.
    """
    with store.told(target):
        group = store.group(target)
        if NAME not in group:
            do = "Pass another target"
            raise BadInput(sentence("target", "be new or hold a run to go on with", f"target={target}", do))
        return dict(group[NAME].attrs[PLAN])  # type: ignore[arg-type]


def call_of(target: str | Path) -> dict[str, Any]:
    """Give how to call the run of a target again: nothing if it did not say or is of an earlier version.

    Raises
    ------
    BadInput
        If the target was not made by a run.
    """
    plan_of(target)
    with store.told(target):
        return dict(store.group(target)[NAME].attrs.get(CALL, {}))  # type: ignore[arg-type]


def read(target: str | Path) -> Ledger:
    """Open the ledger of a target, whatever run it holds."""
    with store.told(target):
        return Ledger(target, store.group(target, write=True)[NAME])  # type: ignore[arg-type]


def entries(target: str | Path) -> np.ndarray:
    """Give the entries of the ledger of a target, without the right to write it.

    Returns
    -------
    (rows, columns) uint64 array
        See the head of this module.

    Raises
    ------
    BadInput
        If the target was not made by a run.
    Unreadable
        If an object of the ledger is torn; it is named.
    """
    plan_of(target)
    with store.told(target):
        return _entries(target, store.group(target)[NAME])  # type: ignore[arg-type]


def _entries(target: store.Place, stored: zarr.Array) -> np.ndarray:
    try:
        return np.asarray(stored[:]).astype("uint64")
    except (RuntimeError, ValueError) as error:  # what codecs say of bytes that are cut short or altered
        key = _torn(stored)
        do = f"Remove {key} from it, and run again: the tiles of which it tells are then computed again"
        raise Unreadable(sentence("target", "have a ledger that is whole", f"{target}, {key} torn", do)) from error


def _torn(stored: zarr.Array) -> str:
    """Find the first object of a ledger that cannot be read."""
    for row, column in np.ndindex(*(-(-side // CHUNK) for side in stored.shape)):
        try:
            stored[row * CHUNK, column * CHUNK]
        except (RuntimeError, ValueError):
            return f"{NAME}/{stored.metadata.encode_chunk_key((row, column))}"
    return NAME


def done(target: str | Path) -> np.ndarray:
    """Say which tiles of a target need nothing more, without the right to write it; as ``entries``.

    Returns
    -------
    (rows, columns) bool array
    """
    return entries(target) != TO_DO


class Lock(Protocol):
    """A target taken for one run."""

    def check(self) -> None:
        """Raise OtherPlan if it is another run's by now."""

    def release(self) -> None:
        """Give it back."""


def lock(target: str | Path) -> Lock:
    """Take a target for this run.

    The system gives a local target back even if the process is killed; one in an object store comes free when its
    lease expires (see ``store.leases``). A repository needs no lock: of two runs only one can commit.

    Raises
    ------
    OtherPlan
        If another run holds it.
    """
    if store.is_repository(target):
        return _NoLock()
    return _FileLock(target) if store.is_local(target) else store.Lease(str(target)).acquire()


@contextmanager
def held(target: str | Path) -> Iterator[Lock]:
    """Take a target for the time of a block: see ``lock``."""
    taken = lock(target)
    try:
        yield taken
    finally:
        taken.release()


def is_locked(target: str | Path) -> bool:
    """Say whether a run writes a local target now; False for one elsewhere, which tells only those who wait."""
    if not store.is_local(target):
        return False
    try:
        _FileLock(target, 0).release()
    except OtherPlan:
        return True
    except OSError:  # a folder that may not be written is not being written
        return False
    return False


class _NoLock:
    def check(self) -> None:
        pass

    def release(self) -> None:
        pass


class _FileLock(_NoLock):
    def __init__(self, target: str | Path, seconds: float = 0.5) -> None:
        # Who only asks whether it is taken holds it for a moment.
        self._held = FileLock(Path(target) / NAME / ".lock", timeout=seconds)
        try:
            self._held.acquire()
        except Timeout as error:
            do = "Wait for it to end, or pass another target."
            raise OtherPlan(f"{target} is being written by another run. {do}") from error

    def release(self) -> None:
        self._held.release()


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."
