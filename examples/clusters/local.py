"""On the processors of this machine.

    python examples/clusters/local.py --out on-a-cluster --workers 2

One thread a worker suits functions that hold the interpreter. A network wants few workers of many threads, or one
worker a GPU: see gpus.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client, LocalCluster
from work import main


@contextmanager
def cluster(workers: int) -> Iterator[Client]:
    """Start worker processes that end with the block."""
    with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as made, Client(made) as client:
        yield client


if __name__ == "__main__":  # workers import this file
    main(cluster, __doc__)
