"""On a cluster that SLURM shares out; PBSCluster, LSFCluster, SGECluster ... of dask-jobqueue are used alike.

    python examples/clusters/slurm.py --out /shared/on-a-cluster --workers 2

Run it on a login node in tmux, or as a small job of its own: it only hands out tiles. Queue, account and network
interface are best written once in ~/.config/dask/jobqueue.yaml, under ``jobqueue: slurm:``.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from dask_jobqueue.slurm import SLURMCluster
from distributed import Client
from work import main


@contextmanager
def cluster(workers: int) -> Iterator[Client]:
    """Ask for a job a worker. Jobs may end and others begin: what was in flight is computed again."""
    # processes=1: all threads of a job are those of one worker, whose network uses them all
    with (
        SLURMCluster(cores=1, processes=1, memory="2GB", walltime="00:30:00", log_directory="logs") as made,
        Client(made) as client,
    ):
        # Unlike made.scale(jobs=workers), this lets another job follow one that ends
        made.adapt(minimum_jobs=workers, maximum_jobs=workers)
        yield client


if __name__ == "__main__":
    main(cluster, __doc__)
