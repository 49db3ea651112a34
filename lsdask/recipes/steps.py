"""Steps of an experiment: what each is, whether it is done, and how one is done."""

import hashlib
import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from lsdask import __version__
from lsdask.errors import BadInput, LsdaskError, NotFound, OtherPlan, sentence

Work = Callable[[Path, dict[str, Any], dict[str, Path]], Mapping[str, Any]]
"""What a step does: in a folder, with its spec, given the folders of what it needs. Gives numbers and words, JSON."""

RECORD = "run.json"
"""In each finished folder: the step's spec, fingerprint, result, seconds and the version of lsdask."""

FAILED = "failed"
"""The folder of what is known about steps that failed, one file a step."""

LOCKS = ".locks"


@dataclass(frozen=True)
class Step:
    """One run of an experiment, or a preparation that several runs share.

    Attributes
    ----------
    name : str
        Its folder in that of the experiment; may have slashes.
    work : callable
        At the top of a module, so that workers find it; see ``Work``.
    spec : mapping
        Its arguments, JSON. The same spec must give the same result.
    needs : mapping
        From what ``work`` calls a folder to the name of the step that makes it.
    """

    name: str
    work: Work
    spec: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)


def fingerprints(steps: Sequence[Step]) -> dict[str, str]:
    """Name each step by what it does, its spec, and the fingerprints of what it needs.

    Raises
    ------
    BadInput
        If two steps share a name, or need each other, or what is no step, or a spec is not JSON.
    """
    found: dict[str, str] = {}
    for step in in_order(steps):
        work = f"{step.work.__module__}.{step.work.__qualname__}"
        needs = {label: found[name] for label, name in step.needs.items()}
        try:
            text = json.dumps([work, dict(step.spec), needs], sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BadInput(sentence(f"spec of {step.name}", "be JSON", str(error))) from error
        found[step.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def in_order(steps: Sequence[Step]) -> list[Step]:
    """Put steps behind those they need, else in the order given.

    Raises
    ------
    BadInput
        If two steps share a name, or need each other, or what is no step.
    """
    by_name = {step.name: step for step in steps}
    if len(by_name) < len(steps):
        names = [step.name for step in steps]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise BadInput(sentence("steps", "each have a name of its own", f"two of {', '.join(twice)}"))
    ordered: dict[str, Step] = {}
    left = list(steps)
    while left:
        ready = [step for step in left if all(name in ordered for name in step.needs.values())]
        if not ready:
            missing = {name for step in left for name in step.needs.values()} - set(by_name)
            got = f"no step {', '.join(sorted(missing))}" if missing else f"a circle in {left[0].name}"
            raise BadInput(sentence("steps", "need other steps of the list, never in a circle", got))
        ordered.update((step.name, step) for step in ready)
        left = [step for step in left if step.name not in ordered]
    return list(ordered.values())


def perform(step: Step, out: Path, fingerprint: str) -> str | None:
    """Do one step, in this process; the others that it needs are done.

    Parameters
    ----------
    step : Step
    out : Path
        The experiment.
    fingerprint : str

    Returns
    -------
    str or None
        Why it failed; ``failed/`` then has the traceback.
    """
    lock = out / LOCKS / step.name.replace("/", "--")
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):  # a worker thought dead may still be at it
        if is_done(out, step, fingerprint):
            return None
        failure_of(out, step.name).unlink(missing_ok=True)
        try:
            _work(step, out, fingerprint)
        except Exception as error:
            return blame(step, out, error)
    return None


def blame(step: Step, out: Path, error: Exception) -> str:
    """Write down that a step has failed; give why."""
    why = str(error) if isinstance(error, LsdaskError) else f"{type(error).__name__}: {error}"
    told = {"name": step.name, "why": why, "traceback": "".join(traceback.format_exception(error))}
    path = failure_of(out, step.name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(told, indent=1))
    return why


def _work(step: Step, out: Path, fingerprint: str) -> None:
    """Let a step work in its partial folder, which gets its name when the record is in it."""
    partial = partial_of(out, step.name)
    partial.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    result = step.work(partial, dict(step.spec), {label: out / name for label, name in step.needs.items()})
    held = {
        "name": step.name,
        "spec": dict(step.spec),
        "needs": dict(step.needs),
        "fingerprint": fingerprint,
        "result": dict(result),
        "seconds": round(time.perf_counter() - begun, 3),
        "lsdask": __version__,
    }
    (partial / RECORD).write_text(json.dumps(held, indent=1))
    os.replace(partial, out / step.name)


def record(out: str | Path, name: str) -> dict[str, Any]:
    """Read what is recorded of a finished step: spec, result, seconds, fingerprint, lsdask.

    Raises
    ------
    NotFound
        If it is not finished.
    """
    path = Path(out) / name / RECORD
    if not path.exists():
        raise NotFound(sentence("name", "name a finished step", f"{name}, without {path}"))
    held: dict[str, Any] = json.loads(path.read_text())
    return held


def is_done(out: Path, step: Step, fingerprint: str) -> bool:
    """Say whether a step is done.

    Raises
    ------
    OtherPlan
        If what lies there is another step.
    """
    if not (out / step.name / RECORD).exists():
        return False
    held = record(out, step.name)
    if held["fingerprint"] == fingerprint:
        return True
    was, now = held["spec"], json.loads(json.dumps(dict(step.spec)))
    differs = [
        f"{key}: {was.get(key)} -> {now.get(key)}" for key in sorted({*was, *now}) if was.get(key) != now.get(key)
    ]
    told = ", ".join(differs) or "what it does, or what it needs"
    raise OtherPlan(f"{out / step.name} holds another step ({told}). Pass another folder, or remove that one.")


def failures(out: Path, steps: Iterable[Step]) -> dict[str, str]:
    """Give why steps have failed, by name."""
    paths = {step.name: failure_of(out, step.name) for step in steps}
    return {name: json.loads(path.read_text())["why"] for name, path in paths.items() if path.exists()}


def partial_of(out: Path, name: str) -> Path:
    """Give the folder in which a step works."""
    return out / f"{name}.partial"


def failure_of(out: Path, name: str) -> Path:
    """Give the file that says why a step has failed."""
    return out / FAILED / f"{name.replace('/', '--')}.json"
