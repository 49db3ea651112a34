"""On the GPUs of this machine, by dask-cuda: one worker a GPU. Not run by the tests, which have none.

    pip install dask-cuda
    python examples/clusters/gpus.py --out on-a-cluster --workers 2

Workers say that they have a GPU, and tasks that they need half of one: while one tile is computed, the next is read and
the last one written. In a cluster of many machines start workers with ``--resources "GPU=1"`` and keep the annotation;
then workers without a GPU take part in what needs none.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dask
from dask_cuda import LocalCUDACluster
from distributed import Client
from work import main


@contextmanager
def cluster(workers: int) -> Iterator[Client]:
    """Start a worker on each of so many GPUs; it sees no other."""
    with (
        LocalCUDACluster(n_workers=workers, threads_per_worker=4, resources={"GPU": 1}) as made,
        Client(made) as client,
        dask.annotate(resources={"GPU": 0.5}),
    ):
        yield client


if __name__ == "__main__":
    main(cluster, __doc__)
