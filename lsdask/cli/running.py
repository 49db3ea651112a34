"""Where a command runs: in this process, or on a cluster that it starts or finds."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle, islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lsdask.cli.app import say
from lsdask.errors import BadInput, sentence

if TYPE_CHECKING:
    from distributed import Client

Kind = Literal["local", "ssh", "slurm", "gateway"]

Workers = Annotated[
    int, typer.Option(help="Workers of a Dask cluster; 0: threads of this process.", min=0, rich_help_panel="Where")
]
Cluster = Annotated[
    Kind | None,
    typer.Option(
        help="Start the workers by this instead of on this machine, as Dask's configuration files describe it.",
        rich_help_panel="Where",
    ),
]
Scheduler = Annotated[
    str | None, typer.Option(help="Address of a Dask scheduler to run on instead.", rich_help_panel="Where")
]

SECONDS = 10
"""How long a scheduler may take to answer."""


@contextmanager
def client_of(workers: int, cluster: Kind | None, scheduler: str | None) -> Iterator["Client | None"]:
    """Give a client of the scheduler named, of a cluster that ends with the block, or None for this process.

    Parameters
    ----------
    workers : int
        Of a cluster that is started.
    cluster : "local", "ssh", "slurm", "gateway", optional
        What starts it; default this machine, if there are ``workers``.
    scheduler : str, optional
        An address instead.

    Raises
    ------
    BadInput
        If both are given, the scheduler does not answer, or the cluster cannot be started.
    """
    if scheduler is not None and (cluster is not None or workers):
        got = f"--scheduler and --{'cluster' if cluster else 'workers'}"
        raise BadInput(sentence("scheduler", "be the only place to run on", got, "A scheduler has its own workers"))
    if cluster is not None and not workers:
        got = f"--cluster {cluster} without --workers"
        raise BadInput(sentence("workers", "be at least 1 on a cluster", got, "Pass --workers"))
    if scheduler is None and not workers:
        yield None
        return
    with _found(scheduler) if scheduler is not None else _started(cluster or "local", workers) as client:
        yield client


def _found(scheduler: str) -> "Client":
    from distributed import Client

    try:
        # One that finds nobody would stay Dask's default: all that is computed later would ask for it.
        Client(scheduler, timeout=SECONDS, set_as_default=False).close()
        return Client(scheduler, timeout=SECONDS)
    except (OSError, ValueError) as error:  # nothing there, or no address
        do = "It is what `dask scheduler` prints, such as tcp://10.0.0.1:8786"
        raise BadInput(sentence("scheduler", "be the address of a running Dask scheduler", scheduler, do)) from error


@contextmanager
def _started(cluster: Kind, workers: int) -> Iterator["Client"]:
    """Start a cluster and so many workers, and wait for the first."""
    with _made(cluster, workers) as made, made.get_client() as client:
        if cluster != "local":
            say(f"Waiting for the first of {workers} workers.")
            client.wait_for_workers(1)
        yield client


def _made(cluster: Kind, workers: int) -> Any:
    """Make a cluster, or say what is wrong with its configuration."""
    try:
        return CLUSTERS[cluster](workers)
    except ImportError as error:
        do = "Install it: pip install 'lsdask[clusters]'"
        raise BadInput(sentence("cluster", "have its package here", f"{cluster} without {error.name}", do)) from error
    except Exception as error:  # of as many kinds as there are packages
        why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise BadInput(sentence("cluster", WANTED[cluster], why, WHERE[cluster])) from error


# What starts them


def _local(workers: int) -> Any:
    from distributed import LocalCluster

    return LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)


def _ssh(workers: int) -> Any:
    """The scheduler on the first host, workers on all hosts in turn."""
    import asyncssh  # noqa: F401 - which Dask asks for too late to say that it is missing
    import dask
    from distributed import SSHCluster

    options = dict(dask.config.get("lsdask.ssh", {}))
    hosts = options.pop("hosts", None)
    if not hosts:
        raise ValueError("no hosts")
    return SSHCluster([hosts[0], *islice(cycle(hosts), workers)], **options)


def _slurm(workers: int) -> Any:
    from dask_jobqueue.slurm import SLURMCluster

    if shutil.which("sbatch") is None:
        raise FileNotFoundError("no sbatch here")
    made = SLURMCluster()
    tried = subprocess.run(["sbatch", "--test-only"], input=made.job_script(), capture_output=True, text=True)
    if tried.returncode:
        made.close()
        raise ValueError(tried.stderr)
    made.adapt(minimum=workers, maximum=workers)  # a job that ends at its wall time is followed by another
    return made


def _gateway(workers: int) -> Any:
    from dask_gateway import GatewayCluster

    made = GatewayCluster(shutdown_on_close=True)
    made.scale(workers)
    return made


CLUSTERS: Mapping[Kind, Callable[[int], Any]] = {
    "local": _local,
    "ssh": _ssh,
    "slurm": _slurm,
    "gateway": _gateway,
}
WANTED = {
    "local": "be able to start processes",
    "ssh": "reach its hosts",
    "slurm": "be able to submit jobs",
    "gateway": "reach a Dask Gateway",
}
WHERE = {
    "local": "",
    "ssh": "Dask's configuration names them, under lsdask.ssh.hosts; users and keys are those of ~/.ssh/config",
    "slurm": "Run it where sbatch is; Dask's configuration says what a job is, under jobqueue.slurm",
    "gateway": "Dask's configuration says where it is, under gateway.address",
}
"""By cluster, what it must do, and what to look at if it does not."""
