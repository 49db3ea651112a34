"""How much memory a task of a run takes, told before it runs; and what it took, given back."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lsdask import models

SCRATCH = 1.5
"""What a forward pass takes of what its tensors take: oneDNN's convolutions need room to work in. Measured on a
U-Net in float32: 1.3."""


def task_bytes(shape: tuple[int, int, int], itemsize: int, classes: int, *, network: bool) -> int:
    """Count what one thread holds at the same time of a block, without the model's own.

    Parameters
    ----------
    shape : (band, y, x)
        Of the block.
    itemsize : int
        Bytes of a value as stored.
    classes : int
        Of the scores.
    network : bool
        Whether the block is made float32 for a network.

    Returns
    -------
    int
        Bytes: what is read and the chunks it is cut from, the block completed and filled, what is known of it;
        scores as float32 and four temporaries of their encoding.
    """
    bands, rows, columns = shape
    a_value = 4 * itemsize + 2 + (8 if network else 0)
    return rows * columns * (bands * a_value + classes * 4 * 5)


def forward_bytes(network: models.Runner, windows: tuple[int, int, int]) -> int:
    """Find what the forward pass of a network takes at its peak, without computing it.

    The pass is run on tensors that have shapes and no values; those alive at once are counted.

    Parameters
    ----------
    network : models.Runner
        Of precision "auto", it counts as float32, which takes most.
    windows : (n, y, x)
        What goes through it at once.

    Returns
    -------
    int
        Bytes.
    """
    model = network.source if isinstance(network.source, models.Segmenter) else models.load(network.source)
    reduced = network.precision in ("bfloat16", "float16")
    dtype = getattr(torch, network.precision) if reduced else None
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), torch.autocast("cpu", dtype, enabled=reduced):
        blocks = torch.empty(windows[0], len(model.spec.bands), *windows[1:])
        with _evaluated(model), _Alive() as alive:
            torch.sigmoid(model(blocks.contiguous(memory_format=torch.channels_last)))
    return int(SCRATCH * alive.peak)


@contextmanager
def _evaluated(model: torch.nn.Module) -> Iterator[None]:
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


class _Alive(TorchDispatchMode):
    """Counts the bytes of the tensors alive after every operation.

    Attributes
    ----------
    peak : int
        The most so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                held = tensor.untyped_storage()
                self._alive[held._cdata] = (StorageWeakRef(held), held.nbytes())
        self._alive = {key: one for key, one in self._alive.items() if not one[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return out


def give_back() -> None:
    """Give memory that was freed back to the system, where the allocator keeps it for the thread that freed it.

    Threads read, decode and compute by turns: what one keeps is of no use to the others. Without this a run over a
    U-Net took 0.3 GB more, measured. Only glibc keeps so much, and only it is asked.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
