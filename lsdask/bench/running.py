"""Measure all steps, keep what was measured, and read what was kept."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from lsdask.bench.machine import ceilings, describe, slug
from lsdask.bench.works import TILE, WORKS, Work, prepare
from lsdask.errors import BadInput, NotFound, Unreadable, sentence


@dataclass(frozen=True)
class Benchmark:
    """What was measured on one machine at one time.

    Attributes
    ----------
    when : str
        UTC, ISO 8601.
    machine : dict
        See ``describe``.
    size : int
        Side of the scene, in pixels.
    ceilings : dict
        See ``ceilings``.
    rows : list of dict
        One a step: name, unit; limit, lsdask and usual, units a second; limit_is and usual_is; flops and bytes, a
        unit.
    """

    when: str
    machine: dict[str, Any]
    size: int
    ceilings: dict[str, float]
    rows: list[dict[str, Any]]

    @property
    def table(self) -> pd.DataFrame:
        """One row a step: step, unit, limit, lsdask, usual, of_limit, times_usual."""
        frame = pd.DataFrame(self.rows).rename(columns={"name": "step"})
        frame["of_limit"] = frame["lsdask"] / frame["limit"]
        frame["times_usual"] = frame["lsdask"] / frame["usual"]
        return frame[["step", "unit", "limit", "lsdask", "usual", "of_limit", "times_usual"]]

    def write(self, folder: str | Path) -> Path:
        """Keep it as ``MACHINE-TIME.json`` in a folder, made if need be; give the file."""
        stamp = self.when.replace(":", "").replace("-", "")[:15]
        path = Path(folder) / f"{slug(self.machine)}-{stamp}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return path


def run(
    *, size: int = 1024, only: Sequence[str] | None = None, say: Callable[[str], Any] = lambda text: None
) -> Benchmark:
    """Measure steps of the work on this machine, one after the other, in a folder that is removed.

    Parameters
    ----------
    size : int
        Side of the scene, in pixels. 1024 takes about a minute, and starting counts for much; 4096 some minutes.
    only : sequence of str, optional
        Names of steps, of ``WORKS``.
    say : callable
        Is told what is measured.

    Returns
    -------
    Benchmark

    Raises
    ------
    BadInput
        If there is no such step, or the scene is smaller than two tiles of 64 px.
    """
    if size < 2 * TILE:
        raise BadInput(sentence("size", f"be at least {2 * TILE}", f"size={size}"))
    names = list(WORKS) if only is None else list(only)
    if unknown := [name for name in names if name not in WORKS]:
        raise BadInput(sentence("only", f"name some of {', '.join(WORKS)}", f"only={', '.join(unknown)}"))
    with TemporaryDirectory(prefix="lsdask-bench-") as temporary:
        folder = Path(temporary)
        say("preparing a scene")
        prepare(folder, size)
        say("what bounds the machine")
        bounds = ceilings(folder / "scene.zarr")
        rows = []
        for name in names:
            say(name)
            rows.append(_measured(WORKS[name](folder)))
    return Benchmark(datetime.now(UTC).isoformat(timespec="seconds"), describe(), size, bounds, rows)


def _measured(work: Work) -> dict[str, Any]:
    """Measure the three ways; the limit and lsdask twice, as the first time pays for what is loaded and compiled."""
    told = {key: getattr(work, key) for key in ("name", "unit", "limit_is", "usual_is", "flops", "bytes")}
    rates = {"limit": _rate(work.limit, 2), "lsdask": _rate(work.lsdask, 2), "usual": _rate(work.usual, 1)}
    return told | rates


def _rate(way: Callable[[], float], repeats: int) -> float:
    rates = []
    for _ in range(repeats):
        begun = time.perf_counter()
        count = way()
        rates.append(count / (time.perf_counter() - begun))
    return max(rates)


def read(path: str | Path) -> Benchmark:
    """Read what ``Benchmark.write`` kept.

    Raises
    ------
    NotFound
        If there is no such file.
    Unreadable
        If it is not one of them.
    """
    path = Path(path)
    try:
        return Benchmark(**json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise NotFound(sentence("path", "name a file", f"path={path}, where there is none")) from error
    except (ValueError, TypeError) as error:
        raise Unreadable(sentence("path", "name a benchmark that was kept", f"path={path}: {error}")) from error


def history(folder: str | Path) -> pd.DataFrame:
    """Give what was measured in the course of time.

    Parameters
    ----------
    folder : path
        Where ``Benchmark.write`` kept it.

    Returns
    -------
    DataFrame
        One row a step and benchmark, the oldest first: machine, when, lsdask (its version), size, step, of_limit,
        times_usual. Compare rows of one machine and size.

    Raises
    ------
    NotFound
        If nothing was kept there.
    """
    kept = [read(path) for path in sorted(Path(folder).glob("*.json"))]
    if not kept:
        raise NotFound(sentence("folder", "hold benchmarks that were kept", f"folder={folder}, which holds none"))
    frames = [
        each.table[["step", "of_limit", "times_usual"]].assign(
            machine=slug(each.machine), when=each.when, lsdask=each.machine["lsdask"], size=each.size
        )
        for each in sorted(kept, key=lambda each: each.when)
    ]
    columns = ["machine", "when", "lsdask", "size", "step", "of_limit", "times_usual"]
    return pd.concat(frames, ignore_index=True)[columns]
