"""Which precision a model may run in here: one that the hardware computes, if its scores agree with float32's.

Speed is decided by the hardware and not by a stopwatch: on a machine that others use, a stopwatch would choose
differently from worker to worker, and scores would depend on who computed them. Processors with bfloat16 units
ran a U-Net 2.1-2.4 times faster in it, those with tile matrix units 4 times; without either it is slower.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lsdask.errors import BadInput, sentence

Precision = Literal["float32", "bfloat16", "float16"]
"""What a network computes in; scores are float32 always."""

LARGEST_DIFFERENCE = 0.1
"""A reduced precision is taken only if no checked score differs from float32's by more than this."""

MEAN_DIFFERENCE = 0.01
"""... and the checked scores differ by no more than this on average."""


def check_precision(precision: str) -> None:
    """Raise BadInput unless ``precision`` is "auto" or one that exists."""
    known = ("auto", *get_args(Precision))
    if precision not in known:
        raise BadInput(sentence("precision", f"be one of {', '.join(known)}", f"precision={precision!r}"))


@dataclass(frozen=True)
class Check:
    """How a reduced precision compared with float32 on one block: score differences."""

    precision: Precision
    largest: float
    mean: float

    @property
    def passed(self) -> bool:
        """Whether it may be used."""
        return self.largest <= LARGEST_DIFFERENCE and self.mean <= MEAN_DIFFERENCE


def candidates(device: torch.device) -> tuple[Precision, ...]:
    """Give the reduced precisions that a device computes in hardware, the more exact first."""
    if device.type == "cuda":
        return ("float16", "bfloat16") if torch.cuda.is_bf16_supported() else ("float16",)
    # torch has no public question for these two yet.
    if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported():
        return ("bfloat16",)
    return ()


def compare(score: Callable[[Precision], Tensor], precision: Precision) -> Check:
    """Compare a precision with float32 on one block.

    Parameters
    ----------
    score : callable
        Gives the block's scores in a precision.
    precision : str

    Returns
    -------
    Check
    """
    difference = (score("float32") - score(precision)).abs()
    # A score that overflowed is NaN, and must not pass.
    difference = difference.nan_to_num(nan=1.0)
    return Check(precision, difference.max().item(), difference.mean().item())


def reduce(model: nn.Module, precision: Precision) -> nn.Module:
    """Copy a model with the weights of its convolutions and linear layers in a reduced precision.

    Autocast would make the same cast on every call: dear where blocks are small.

    Parameters
    ----------
    model : Module
        In float32; left as it is.
    precision : str

    Returns
    -------
    Module, to be run under autocast, which keeps in float32 what needs it
    """
    reduced = deepcopy(model)
    for layer in reduced.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            layer.to(getattr(torch, precision))
    return reduced
