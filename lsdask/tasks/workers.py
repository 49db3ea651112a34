"""The workers of a cluster: that they compute what this process would, and that each has what a run needs.

The processes of a run have the same lsdask, and the same Python, NumPy, torch and Zarr up to the second number of
their versions: code travels between them, scores do not depend on who computed them, and later numbers mend faults.
Of the scheduler, which unpickles and does not compute, lsdask and Python are asked.

They are asked when a run begins. A worker that joins later tells what it has; if that is not ours, the run ends.
"""

import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import lsdask
from lsdask.errors import BadInput, Unfinished, sentence

if TYPE_CHECKING:
    from distributed import Client

ALIKE = ("numpy", "torch", "zarr")
"""What decides results besides lsdask and Python."""

SCHEDULER = "the scheduler"
ADVICE = "Give all of them one environment or image"
AGAIN = "It was given nothing to compute, and what is done stays done: run again."

Versions = Mapping[str, str | None]
"""From names to versions; None for what is not there."""


class Stranger(Unfinished):
    """A worker of other versions has joined a run, and computes nothing."""


def check_workers(client: "Client | None", *also: str) -> None:
    """Refuse a cluster of which some process would compute something else than this one, or cannot.

    Parameters
    ----------
    client : distributed.Client or None
        Its scheduler and the workers that it has now are asked; None is this process.
    *also : str
        Packages that workers need besides, for what they are given to open.

    Raises
    ------
    BadInput
        If one has no lsdask, or other versions; it is named, with its versions and ours.
    """
    if client is None:
        return
    told: Any = client.get_versions(packages=[*ALIKE, *also])  # moves no code, which another Python could not run
    held = {SCHEDULER: told["scheduler"]["packages"]}
    held |= {_worker(address): one["packages"] for address, one in told["workers"].items()}
    refuse({name: {"python": packages["python"].rsplit(".", 2)[0]} for name, packages in held.items()})
    refuse({SCHEDULER: {"lsdask": client.run_on_scheduler(_probe())}})
    own = client.run(_probe(), on_error="ignore")  # a worker that ends just now is not asked
    asked = {_worker(address): found for address, found in own.items() if _worker(address) in held}
    packages = {name: {one: held[name][one] for one in (*ALIKE, *also)} for name in asked}
    refuse({name: {"lsdask": found, **packages[name]} for name, found in asked.items()}, *also)


def _worker(address: str) -> str:
    return f"worker {address}"


def _probe() -> Callable[[], str | None]:
    """Make what says which lsdask a process has; it travels whole, as there may be none to find it in."""

    def own() -> str | None:
        try:
            import lsdask
        except ImportError:
            return None
        return getattr(lsdask, "__version__", None)

    return own


def refuse(told: Mapping[str, Versions], *also: str) -> None:
    """Raise BadInput, naming the first, if processes have other versions than this one."""
    ours = versions(*also)
    found = {name: differences(theirs, ours) for name, theirs in told.items()}
    strange = [name for name, differ in found.items() if differ]
    if strange:
        rule = "have the versions of this process in its scheduler and in each worker"
        more = f", and {len(strange) - 1} more differ" if strange[1:] else ""
        got = f"{strange[0]} with {', '.join(found[strange[0]])}{more}"
        raise BadInput(sentence("client", rule, got, ADVICE))


# Versions


def versions(*also: str) -> Versions:
    """Give the versions that all processes of a run share, and those of further packages."""
    return {
        "lsdask": lsdask.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        **{name: _installed(name) for name in (*ALIKE, *also)},
    }


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def differences(theirs: Versions, ours: Versions) -> list[str]:
    """Say what of their versions is not ours: lsdask as a whole, others up to their second number.

    Examples
    --------
    >>> differences({"lsdask": "0.1.0", "torch": "2.9.1+cpu"}, {"lsdask": "0.1.0", "torch": "2.9.0", "zarr": "3.1.0"})
    []
    >>> differences({"lsdask": None, "torch": "2.10.0"}, {"lsdask": "0.1.0", "torch": "2.9.0"})
    ['no lsdask (here 0.1.0)', 'torch 2.10.0 (here 2.9.0)']
    """
    return [
        f"{f'{name} {their}' if their else f'no {name}'} (here {ours[name]})"
        for name, their in theirs.items()
        if _counts(name, their) != _counts(name, ours[name])
    ]


def _counts(name: str, told: str | None) -> str | None:
    """Give the part of a version that has to be the same."""
    return told if told is None or name == "lsdask" else ".".join(told.split(".")[:2])


# What workers carry


@dataclass(frozen=True)
class Cargo:
    """What each worker of a run carries.

    Attributes
    ----------
    name : str
        What a task calls it: ``held(name)``.
    strangers : list of str
        Workers that have joined with other versions, and these.
    """

    name: str
    strangers: list[str]

    def check(self) -> None:
        """Raise Stranger if one has joined."""
        if self.strangers:
            raise Stranger(f"{self.strangers[0]} {ADVICE}. {AGAIN}")


@contextmanager
def carried(client: "Client", thing: Any) -> Iterator[Cargo]:
    """Send a thing to each worker once, also to one that joins or restarts later, until the block ends.

    Parameters
    ----------
    client : distributed.Client
    thing : object
        Picklable; only workers with the versions of this process open it.

    Yields
    ------
    Cargo
    """
    cargo = Cargo(f"lsdask-{uuid.uuid4().hex}", [])
    client.subscribe_topic(cargo.name, lambda event: cargo.strangers.append(event[1]))
    client.register_plugin(_carrier(cargo.name, thing))
    try:
        yield cargo
    finally:
        if client.status == "running":
            client.unsubscribe_topic(cargo.name)
            with suppress(OSError):  # a worker that ends just now takes the thing with it
                client.unregister_worker_plugin(cargo.name)


def _carrier(name: str, thing: Any) -> Any:
    """Make what holds a thing on a worker. It travels whole, to arrive also where lsdask is another or is not there."""
    from distributed import WorkerPlugin
    from distributed.protocol import pickle

    class Carrier(WorkerPlugin):
        def __init__(self, name: str, ours: Any, sent: bytes) -> None:
            self.name, self.ours, self.sent = name, ours, sent

        async def setup(self, worker: Any) -> None:
            from asyncio import sleep

            from distributed.protocol import pickle

            try:
                from lsdask.tasks.workers import differences, versions
            except ImportError:
                self.strange = f"Worker {worker.address} has joined without lsdask (here {self.ours['lsdask']})."
            else:
                differ = differences(versions(), self.ours)
                self.strange = f"Worker {worker.address} has joined with {', '.join(differ)}." if differ else ""
            if not self.strange:
                self.thing = pickle.loads(self.sent)
                return
            worker.log_event(self.name, self.strange)
            await sleep(1.0)  # to be heard: a worker without lsdask ends by its first task, which it cannot open

    return Carrier(name, versions(), pickle.dumps(thing))


def held(name: str) -> Any:
    """Give the thing of that name, in a task.

    Raises
    ------
    Stranger
        If this worker has other versions than the run's.
    """
    from distributed import get_worker

    found: Any = get_worker().plugins[name]
    if found.strange:
        raise Stranger(f"{found.strange} {ADVICE}. {AGAIN}")
    return found.thing


def do(ours: Versions, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, in a task, for a process of these versions.

    Raises
    ------
    Stranger
        If this worker has others.
    """
    from distributed import get_worker

    differ = differences(versions(), ours)
    if differ:
        raise Stranger(f"Worker {get_worker().address} has joined with {', '.join(differ)}. {ADVICE}. {AGAIN}")
    return function(*arguments)
