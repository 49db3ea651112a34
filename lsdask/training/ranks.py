"""The processes of a training: one, or several that learn as one. Lightning's Fabric starts and joins them."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from lightning.fabric.strategies import DDPStrategy
from torch import Tensor, nn

from lsdask.errors import BadInput, sentence

_MIXED: dict[str, Any] = {"bfloat16": "bf16-mixed", "float16": "16-mixed"}


class _Autocast(MixedPrecision):
    """Mixed precision that leaves a network's input as it is: heights in metres do not fit bfloat16's 8 bits."""

    def convert_input(self, data: Any) -> Any:
        return data


def launch(device: str, devices: int, precision: str) -> Fabric:
    """Give what carries a training, on so many devices of a kind; several are one process each (DDP), started here."""
    kind, _, number = device.partition(":")
    place: Any = [int(number)] if number and kind == "cuda" else devices
    fabric = Fabric(
        accelerator="gpu" if kind == "cuda" else kind,
        devices=place,
        # Encoders that a decoder cuts off (PSPNet) have parameters that no output depends on.
        strategy=DDPStrategy(find_unused_parameters=True) if devices > 1 else "auto",
        plugins=None if precision == "float32" else _Autocast(_MIXED[precision], kind),
    )
    if devices > 1:
        fabric.launch()
    return fabric


def check_devices(device: str, devices: int) -> None:
    """Raise BadInput unless there can be so many ranks on a device."""
    if not isinstance(devices, int) or devices < 1:
        raise BadInput(sentence("devices", "be a whole number, at least 1", f"devices={devices!r}"))
    kind, _, number = device.partition(":")
    if devices > 1 and (number or (kind == "cuda" and torch.cuda.device_count() < devices)):
        got = f"devices={devices} on {device}, of {torch.cuda.device_count()} GPUs"
        raise BadInput(sentence("devices", "be 1 for a device with a number, and no more than are here", got))


def gather(value: Any) -> list[Any]:
    """Give every rank's value, in their order."""
    if not torch.distributed.is_initialized():
        return [value]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found


def reduce(value: Tensor, how: str) -> Tensor:
    """Give the sum (``sum``) or the greatest (``max``) over ranks."""
    if not torch.distributed.is_initialized():
        return value
    value = value.clone()
    torch.distributed.all_reduce(value, getattr(torch.distributed.ReduceOp, how.upper()))
    return value


def even_out(model: nn.Module) -> None:
    """Give all ranks the first's buffers: each has its own batch statistics."""
    if torch.distributed.is_initialized():
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


def seed_of(seed: int, rank: int) -> int:
    """Give the seed of a rank's own draws."""
    return int(np.random.default_rng([seed, rank]).integers(2**63))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generator, which dropout draws from, and leave it as it was."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def random_state(device: torch.device) -> list[Tensor]:
    """Give the states of torch's global generators that a device draws from."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_random_state(states: list[Tensor], device: torch.device) -> None:
    """Set what ``random_state`` gave."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep Lightning's advice to itself, for this run only."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning|torch\.optim")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
