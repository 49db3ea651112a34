"""On a hub with Dask Gateway, as Pangeo's are.

    python examples/clusters/gateway.py --out /shared/on-a-cluster --workers 2

On a hub the address is known; elsewhere it is in ~/.config/dask/gateway.yaml, under ``gateway: address:``. The image of
the workers has lsdask, and sees what ``--out`` names; there, stores are best s3:// or gs://. dask_gateway_config.py
serves a gateway from one machine.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from dask_gateway import GatewayCluster
from distributed import Client
from work import main


@contextmanager
def cluster(workers: int) -> Iterator[Client]:
    """Ask for a scheduler and its workers; they end with the block."""
    with GatewayCluster(shutdown_on_close=True) as made, made.get_client() as client:
        made.scale(workers)
        yield client


if __name__ == "__main__":
    main(cluster, __doc__)
