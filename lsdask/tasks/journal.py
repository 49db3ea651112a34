"""What a run writes down of each tile, as it ends: one line of JSON, beside the ledger, added to and never changed.

A local target has one file, ``TARGET/ledger/metrics.jsonl``, which ``pandas.read_json(path, lines=True)`` reads. An
object store or a web server, which cannot add to an object, has one object for every half a minute,
``ledger/metrics/*.jsonl``. A repository, which holds one commit a run, has none.
"""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lsdask import ledger, store
from lsdask.tasks.pools import Outcome
from lsdask.tasks.reports import Place

PART_SECONDS = 30.0
"""How long lines wait before they become an object of an object store: what a killed run may lose."""

_log = logging.getLogger(__name__)


class Journal:
    """The lines of one run; of a target that takes none, nothing is written."""

    def __init__(self, target: str) -> None:
        self._target, self._begun = target, time.time()
        self._lines: list[str] = []
        self._parts, self._put = 0, time.monotonic()
        self._broken = store.is_repository(target)

    def done(self, place: Place, outcome: Outcome) -> None:
        """Write down a tile that is done."""
        told = {"seconds": outcome.seconds, "tried": outcome.tried, "stored_bytes": outcome.size}
        measured = {name: float(value) for name, value in outcome.measured.items()}
        self._add(place, {"worker": outcome.worker, **told, **measured})

    def failed(self, place: Place, why: str) -> None:
        """Write down a tile that is not."""
        self._add(place, {"failed": why})

    def flush(self, *, last: bool = False) -> None:
        """Make the lines last: in a file always, in an object store every half a minute and at the end."""
        waited = time.monotonic() - self._put
        if self._broken or not self._lines or (self._is_remote and not last and waited < PART_SECONDS):
            return
        try:
            self._write("".join(self._lines))
        except OSError as error:
            self._broken = True
            _log.warning("The metrics of %s cannot be written, the run goes on without: %s", self._target, error)
        self._lines.clear()
        self._put = time.monotonic()

    @property
    def _is_remote(self) -> bool:
        return not store.is_local(self._target)

    def _add(self, place: Place, told: dict[str, Any]) -> None:
        if not self._broken:
            line = {"tile": [int(side) for side in place], "at": round(time.time(), 3), **told}
            self._lines.append(json.dumps(line) + "\n")

    def _write(self, text: str) -> None:
        if not self._is_remote:
            with open(_file(self._target), "ab") as lines:
                lines.write((b"" if _whole(_file(self._target)) else b"\n") + text.encode())
            return
        self._parts += 1
        store.add(self._target, f"{ledger.NAME}/metrics/{self._begun:.3f}-{self._parts:06d}.jsonl", text.encode())


def metrics(target: str | Path) -> Iterator[dict[str, Any]]:
    """Read what the runs of a target have written down, oldest first.

    Parameters
    ----------
    target : str or Path
        A store that a run wrote.

    Yields
    ------
    dict
        ``tile`` (row, column), ``at`` (seconds since 1970), and ``failed`` (why) or: ``worker``, ``seconds``,
        ``tried``, ``stored_bytes`` and what the kernel measured.
    """
    for text in _texts(store.text(target)):
        # A run that was killed while it wrote leaves half a line.
        yield from (json.loads(line) for line in text.splitlines() if line.endswith("}"))


def _texts(target: str) -> Iterator[str]:
    if store.is_repository(target):
        return
    if store.is_local(target):
        if _file(target).exists():
            yield _file(target).read_text()
        return
    yield from (part.decode() for part in store.contents(target, f"{ledger.NAME}/metrics"))


def _whole(file: Path) -> bool:
    """Say whether a file ends with a whole line."""
    with open(file, "rb") as lines:
        end = lines.seek(0, 2)
        lines.seek(max(end - 1, 0))
        return lines.read() in (b"", b"\n")


def _file(target: str) -> Path:
    return Path(target) / ledger.NAME / "metrics.jsonl"
