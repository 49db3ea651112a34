"""On machines that ssh reaches.

    python examples/clusters/ssh.py --out /shared/on-a-cluster --workers 2

The first of HOSTS has the scheduler, each other one a worker. Users, ports and keys are those of ~/.ssh/config, hosts
those of ~/.ssh/known_hosts. Every host has this Python at the same path, or ``remote_python`` says where.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice

from distributed import Client, SSHCluster
from work import main

HOSTS = ["localhost"]


@contextmanager
def cluster(workers: int) -> Iterator[Client]:
    """Start workers on the hosts in turn; they end with the block."""
    hosts = [HOSTS[0], *islice(cycle(HOSTS), workers)]
    options = {"nthreads": 1, "memory_limit": "4GB"}
    with SSHCluster(hosts, worker_options=options, scheduler_options={"port": 0}) as made, Client(made) as client:
        yield client


if __name__ == "__main__":
    main(cluster, __doc__)
