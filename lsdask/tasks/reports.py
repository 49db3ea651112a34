"""What a run did, and what it did not."""

from dataclasses import dataclass, field
from typing import Self

from lsdask import telling
from lsdask.errors import Unfinished
from lsdask.tasks.progress import rate

Place = tuple[int, int]
"""A tile's row and column."""

NAMED = 5
"""Of many tiles that are not done, how many are named."""


@dataclass(frozen=True)
class Failure:
    """A tile that is not done, and why."""

    place: Place
    why: str


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes
    ----------
    target : str
        The store.
    tiles, done, skipped : int
        All tiles, those computed in this run, those an earlier run had computed.
    failed : tuple of Failure
        Tiles not done; running again does only these.
    seconds : float
        Wall time of this run.
    metrics : dict
        Sums of what the kernel measured over the tiles of this run, and ``stored_bytes``. Names that end in ``_s``
        are seconds; ``bytes`` are those read, decoded, halo and all.
    void : int
        Tiles that need no computing.
    """

    target: str
    tiles: int
    done: int
    skipped: int
    failed: tuple[Failure, ...]
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    void: int = 0

    def check(self) -> Self:
        """Give the report back, or raise Unfinished naming the failed tiles."""
        if self.failed:
            raise Unfinished(str(self))
        return self

    def shares(self) -> dict[str, float]:
        """Say on what the tiles spent their time: shares of the seconds that the kernel measured.

        Returns
        -------
        dict
            From the name of a step, such as ``read``, ``compute`` or ``write``, to its share; they sum to 1.
        """
        seconds = {name[:-2]: value for name, value in self.metrics.items() if name.endswith("_s")}
        whole = sum(seconds.values())
        return {name: value / whole for name, value in seconds.items()} if whole else {}

    def bottleneck(self) -> str | None:
        """Name the step that the tiles spent most of their time on; None if the kernel measured none."""
        shares = self.shares()
        return max(shares, key=lambda name: shares[name]) if shares else None

    def __str__(self) -> str:
        return " ".join([self._what(), *self._time()])

    def _repr_html_(self) -> str:
        counts = {"done now": self.done, "done before": self.skipped, "void": self.void, "not done": len(self.failed)}
        counted = ", ".join(f"{number:,} {name}" for name, number in counts.items() if number)
        took = [telling.span(self.seconds), rate(self.metrics.get("pixels", 0.0), self.seconds), self._shares()]
        rows = [("tiles", f"{self.tiles:,}: {counted}"), ("time", "; ".join(filter(None, took)))]
        if "stored_bytes" in self.metrics:
            rows.append(("stored", telling.size(self.metrics["stored_bytes"])))
        rows += [(f"tile {failure.place}", failure.why) for failure in self.failed[:NAMED]]
        if self.failed:
            rows.append(("to do", "Run again to do only the tiles that are not done."))
        return telling.table(self.target, rows)

    def _time(self) -> list[str]:
        shares = self._shares()
        read = f" {self.metrics['bytes'] / 1e9:.3g} GB read." if "bytes" in self.metrics else ""
        return [f"Of the time of the tiles: {shares}; the bottleneck was {self.bottleneck()}.{read}"] if shares else []

    def _shares(self) -> str:
        return ", ".join(f"{name} {share:.0%}" for name, share in self.shares().items())

    def _what(self) -> str:
        text = f"{self.target}: {self.done} of {self.tiles} tiles in {self.seconds:.1f} s"
        text += f", {self.skipped} done before" if self.skipped else ""
        text += f", {self.void} void" if self.void else ""
        if not self.failed:
            return text + "."
        named = "; ".join(f"tile {failure.place}: {failure.why}" for failure in self.failed[:NAMED])
        more = f"; and {len(self.failed) - NAMED} more" if len(self.failed) > NAMED else ""
        return f"{text}. {len(self.failed)} not done ({named}{more}). Run again to do only these."
