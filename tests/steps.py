"""What the steps of a test's experiment do: at the top of a module, so that workers find it."""

import os
import signal
import time
from pathlib import Path


def count(folder, spec, inputs):
    """Write a number, and a line into a log that all steps share."""
    _log(folder, spec)
    (folder / "number.txt").write_text(str(spec.get("number", 0)))
    return {"number": spec.get("number", 0)}


def add(folder, spec, inputs):
    """Add the numbers of the steps needed to one's own."""
    _log(folder, spec)
    total = spec["plus"] + sum(int((path / "number.txt").read_text()) for path in inputs.values())
    return {"total": total}


def _log(folder, spec):
    with Path(spec["log"]).open("a") as log:
        log.write(f"{folder.name}\n")


def fail_once(folder, spec, inputs):
    """Fail the first time."""
    flag = Path(spec["flag"])
    if not flag.exists():
        flag.touch()
        raise ValueError("the first time")
    return {"total": 0}


def die(folder, spec, inputs):
    """Kill the process."""
    os.kill(os.getpid(), signal.SIGKILL)


def wait(folder, spec, inputs):
    """Say that it began, then take long."""
    (folder / "begun").touch()
    time.sleep(60 if not Path(spec["quick"]).exists() else 0)
    return {"slept": 1}


def sleep(folder, spec, inputs):
    """Say that it began, and take a moment."""
    _log(folder, spec)
    time.sleep(spec["seconds"])
    return {"pid": os.getpid()}


RUNNING = []
"""Steps that compute in this process just now."""


def compute(folder, spec, inputs):
    """Compute with Dask; say how many steps did so in this process at once."""
    import dask

    RUNNING.append(spec["number"])
    dask.compute(*(dask.delayed(time.sleep)(0.1) for _ in range(4)))
    together = len(RUNNING)
    RUNNING.remove(spec["number"])
    return {"together": together}
