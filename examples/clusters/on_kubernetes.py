"""On Kubernetes, by the Dask operator and kubernetes.yaml. Not run by the tests, which have no Kubernetes.

    pip install dask-kubernetes
    python examples/clusters/on_kubernetes.py --out /shared/on-a-cluster --workers 4

The image has lsdask, as this repository's Dockerfile makes it. A volume that all pods see is at /shared; without one,
stores are s3:// or gs:// and their credentials those of the pods.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dask_kubernetes.operator import KubeCluster
from distributed import Client
from work import main


@contextmanager
def cluster(workers: int) -> Iterator[Client]:
    """Ask the operator for the cluster of the manifest; it ends with the block."""
    manifest = Path(__file__).with_name("kubernetes.yaml")
    with KubeCluster(custom_cluster_spec=str(manifest)) as made, Client(made) as client:
        made.scale(workers)
        yield client


if __name__ == "__main__":
    main(cluster, __doc__)
