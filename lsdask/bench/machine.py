"""What a machine is, and the ceilings nothing on it can pass."""

import os
import platform
import re
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("numpy", "torch", "zarr", "dask", "xarray")
"""Whose versions move the figures most."""


def describe() -> dict[str, Any]:
    """Say what this machine is, without its name or its user.

    Returns
    -------
    dict
        cpu, cores (that this process may use), memory_GB, gpu (name or None), system, python, and the versions of
        lsdask and of ``PACKAGES``.
    """
    import torch

    import lsdask

    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_GB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "lsdask": lsdask.__version__,
        **{name: version(name) for name in PACKAGES},
    }


def slug(machine: dict[str, Any]) -> str:
    """Give a file name for a machine, the same for machines of one kind.

    Examples
    --------
    >>> slug({"cpu": "AMD EPYC 9B45", "cores": 2, "gpu": None})
    'amd-epyc-9b45-2-cores'
    """
    text = f"{machine['cpu']} {machine['cores']} cores {machine['gpu'] or ''}"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def ceilings(store: Path) -> dict[str, float]:
    """Measure what bounds all work here.

    Parameters
    ----------
    store : path
        A Zarr store of one image, to be read whole.

    Returns
    -------
    dict of str to float
        ``GFLOP_s``: products of float32 matrices, two operations a multiply-add. ``memory_GB_s``: bytes of a large
        array copied, read and written. ``store_GB_s``: bytes of pixels read and decoded from the store.
    """
    return {
        "GFLOP_s": _matrices(),
        "memory_GB_s": _copies(),
        "store_GB_s": _reading(store),
    }


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """Time the fastest of a few runs."""
    took = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return min(took)


def _matrices(side: int = 2048) -> float:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    matrix = torch.rand(side, side, device=device)

    def multiply() -> None:
        (matrix @ matrix).sum().item()

    multiply()
    return 2 * side**3 / seconds(multiply) / 1e9


def _copies(megabytes: int = 256) -> float:
    source = np.ones(megabytes * 2**20 // 8)
    target = np.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: np.copyto(target, source)) / 1e9


def _reading(path: Path) -> float:
    from lsdask import store
    from lsdask.bench.works import read_whole

    image = store.open(path)
    return image.nbytes / seconds(lambda: read_whole(store.array(path))) / 1e9


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
