"""Experiments: many runs that share their preparation, each made once, in its own folder, by any number of workers.

An experiment is a list of steps (``Step``). A step is a function with its arguments; what it needs from others it finds
in their folders. Steps that no other needs are the *runs*: what they give becomes the experiment's table.

A step works in ``NAME.partial``, which gets its name when all is in it; so a run that is killed costs what was in
flight, and a step that goes on with what it finds there loses less. Running again does what is not done.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pandas as pd
from filelock import FileLock, Timeout

from lsdask import telling
from lsdask.errors import BadInput, OtherPlan, Unfinished, sentence
from lsdask.recipes.pools import Here, Pool, Shown, There
from lsdask.recipes.steps import Step, failures, fingerprints, in_order, is_done, partial_of, record

if TYPE_CHECKING:
    from distributed import Client


NAMED = 5
"""Of many steps that failed, how many are named."""


@dataclass(frozen=True)
class Report:
    """What ``run`` did.

    Attributes
    ----------
    out : Path
        The experiment.
    steps : int
        Those asked for, with what they need.
    done, skipped : int
        Those done now, and those done before.
    failed : dict
        From the names of steps that failed, now or before, to why.
    waiting : tuple of str
        Steps that could not begin, as one that they need has failed.
    seconds : float
    """

    out: Path
    steps: int
    done: int
    skipped: int
    failed: dict[str, str]
    waiting: tuple[str, ...]
    seconds: float

    def check(self) -> Self:
        """Give the report back, or raise Unfinished naming the failed steps."""
        if self.failed or self.waiting:
            raise Unfinished(str(self))
        return self

    def _repr_html_(self) -> str:
        counts = {"done now": self.done, "done before": self.skipped}
        counts |= {"failed": len(self.failed), "waiting for them": len(self.waiting)}
        counted = ", ".join(f"{number:,} {name}" for name, number in counts.items() if number)
        rows = [("steps", f"{self.steps:,}: {counted}"), ("time", telling.span(self.seconds))]
        rows += list(self.failed.items())[:NAMED]
        if self.failed:
            rows.append(("to do", "Run again with retry to do those that failed."))
        return telling.table(str(self.out), rows)

    def __str__(self) -> str:
        text = f"{self.out}: {self.done} of {self.steps} steps in {self.seconds:.1f} s"
        text += f", {self.skipped} done before" if self.skipped else ""
        if not self.failed:
            return text + "."
        named = "; ".join(f"{name}: {why}" for name, why in list(self.failed.items())[:NAMED])
        more = f"; and {len(self.failed) - NAMED} more" if len(self.failed) > NAMED else ""
        waiting = f", {len(self.waiting)} wait for them" if self.waiting else ""
        return f"{text}. {len(self.failed)} failed{waiting} ({named}{more}). Run again with retry to do them."


def run(
    steps: Sequence[Step],
    out: str | Path,
    *,
    client: "Client | None" = None,
    only: str | Sequence[str] | None = None,
    retry: bool = False,
    resources: Mapping[str, float] | None = None,
    progress: bool = True,
) -> Report:
    """Do the steps of an experiment that are not done yet.

    Parameters
    ----------
    steps : sequence of Step
    out : path
        The folder of the experiment, on a disk that all workers see.
    client : distributed.Client, optional
        Where steps run, as many at once as there is room; default one after the other in this process.
    only : str or sequence of str, optional
        Patterns of names, such as ``"runs/unet-*"``: do those, and what they need.
    retry : bool
        Also do those that failed before.
    resources : mapping, optional
        What each step takes of a worker, such as ``{"GPU": 1}``, where workers declare it.
    progress : bool
        Show what runs, in a terminal.

    Returns
    -------
    Report

    Raises
    ------
    BadInput
        If two steps share a name, need each other or what is no step, ``only`` fits none, or a process of the
        cluster has no lsdask or other versions.
    OtherPlan
        If ``out`` holds a step of that name that was something else, or another process runs this experiment.
    Unfinished
        If a worker of other versions joins.
    """
    begun, out = time.perf_counter(), Path(out)
    prints = fingerprints(steps)
    asked = wanted(steps, only)
    out.mkdir(parents=True, exist_ok=True)
    with _taken(out):
        finished = {step.name for step in asked if is_done(out, step, prints[step.name])}
        skipped, failed = len(finished), {} if retry else failures(out, asked)
        to_do = [step for step in asked if step.name not in finished and step.name not in failed]
        with Shown(len(asked), skipped, shown=progress) as shown:
            pool = Here(out, prints, shown) if client is None else There(client, resources, out, prints, shown)
            for name, why in _in_turn(to_do, finished, pool):
                if why is None:
                    finished.add(name)
                else:
                    failed[name] = why
                shown.end(name, len(failed))
    waiting = tuple(step.name for step in asked if step.name not in finished and step.name not in failed)
    return Report(out, len(asked), len(finished) - skipped, skipped, failed, waiting, time.perf_counter() - begun)


def status(steps: Sequence[Step], out: str | Path) -> pd.DataFrame:
    """Say how far an experiment is.

    Returns
    -------
    DataFrame
        One row a step: ``name``; ``state``: done, failed, begun or waiting; ``seconds`` of those done; ``why`` of
        those failed.

    Raises
    ------
    BadInput, OtherPlan
        As ``run`` does.
    """
    out, prints = Path(out), fingerprints(steps)
    failed = failures(out, steps)
    rows = []
    for step in steps:
        done = is_done(out, step, prints[step.name])
        begun = "begun" if partial_of(out, step.name).exists() else "waiting"
        state = "done" if done else "failed" if step.name in failed else begun
        seconds = record(out, step.name)["seconds"] if done else None
        rows.append((step.name, state, seconds, failed.get(step.name) if state == "failed" else None))
    return pd.DataFrame(rows, columns=["name", "state", "seconds", "why"])


def results(steps: Sequence[Step], out: str | Path) -> pd.DataFrame:
    """Give what the finished runs gave: the steps that no other needs.

    Returns
    -------
    DataFrame
        One row a run, in the order of ``steps``: ``name``, its spec, its result, ``seconds``. A result replaces a
        part of the spec of the same name.

    Raises
    ------
    BadInput, OtherPlan
        As ``run`` does.
    """
    prints, out = fingerprints(steps), Path(out)
    done = [step for step in runs(steps) if is_done(out, step, prints[step.name])]
    rows = []
    for step in done:
        held = record(out, step.name)
        rows.append({"name": step.name, **held["spec"], **held["result"], "seconds": held["seconds"]})
    return pd.DataFrame(rows)


def runs(steps: Sequence[Step]) -> list[Step]:
    """Give the steps that no other needs."""
    needed = {name for step in steps for name in step.needs.values()}
    return [step for step in steps if step.name not in needed]


def wanted(steps: Sequence[Step], only: str | Sequence[str] | None) -> list[Step]:
    """Give the steps whose names fit patterns, and all that they need, in an order in which they can be done.

    Raises
    ------
    BadInput
        As ``run`` does.
    """
    ordered = in_order(steps)
    if only is None:
        return ordered
    patterns = [only] if isinstance(only, str) else list(only)
    names = {step.name for step in steps if any(fnmatchcase(step.name, pattern) for pattern in patterns)}
    if not names:
        raise BadInput(sentence("only", "fit the name of a step", f"only={patterns}", f"One is {steps[0].name}"))
    for step in reversed(ordered):
        if step.name in names:
            names.update(step.needs.values())
    return [step for step in ordered if step.name in names]


@contextmanager
def _taken(out: Path) -> Iterator[None]:
    """Keep other processes from running the same experiment."""
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        do = "Wait for it to end, or pass another folder."
        raise OtherPlan(f"{out} is being run by another process. {do}") from error
    try:
        yield
    finally:
        lock.release()


def _in_turn(to_do: list[Step], finished: set[str], pool: Pool) -> Iterator[tuple[str, str | None]]:
    """Begin each step as soon as what it needs is finished; give the names of those that end, and why they failed."""
    waiting, running = list(to_do), 0
    while True:
        for step in list(waiting):
            if pool.room(running) and finished.issuperset(step.needs.values()):
                waiting.remove(step)
                pool.submit(step)
                running += 1
        if not running:
            return
        yield pool.next()
        running -= 1
