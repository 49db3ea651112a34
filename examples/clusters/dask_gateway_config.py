"""A gateway whose clusters are processes of this machine, to try gateway.py with. Anyone who reaches it may run code.

dask-gateway-server --config examples/clusters/dask_gateway_config.py
DASK_GATEWAY__ADDRESS=http://127.0.0.1:8000 python examples/clusters/gateway.py
"""

import sys

c = get_config()  # noqa: F821 - traitlets gives it
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.address = "127.0.0.1:0"
c.Proxy.address = "127.0.0.1:8000"
c.ClusterConfig.scheduler_cmd = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
c.ClusterConfig.worker_cmd = [sys.executable, "-m", "distributed.cli.dask_worker"]
c.ClusterConfig.worker_cores = 1
c.ClusterConfig.worker_memory = "2 G"
