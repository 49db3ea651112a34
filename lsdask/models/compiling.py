"""A network through ``torch.compile``, if that leaves its scores as they are."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lsdask.models.precision import LARGEST_DIFFERENCE, Precision

LARGEST_CHANGE = 1e-3
"""Compiled, no checked float32 score may change by more than this, a quarter of a step of uint8 scores."""

ROOM = str(Path(__file__).parents[1])


def compiled(model: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Compile a network, on a GPU into CUDA graphs; its first call of a shape does the work."""
    return torch.compile(model, mode="reduce-overhead" if device.type == "cuda" else "default")


def objection(plain: Tensor, score: Callable[[], Tensor], precision: Precision) -> str:
    """Say why a network should not run compiled.

    Parameters
    ----------
    plain : Tensor
        Scores of some blocks, not compiled.
    score : callable
        Gives their scores compiled.
    precision : str
        In which both are computed: compiled code rounds less often to a reduced one.

    Returns
    -------
    str, empty if nothing speaks against it

    Raises
    ------
    torch.OutOfMemoryError
        If that is what ``score`` failed of: fewer blocks may fit.
    """
    try:
        # Twice: CUDA graphs are recorded after the first call.
        change = max((score() - plain).abs().nan_to_num(nan=1.0).max().item() for _ in range(2))
    except torch.OutOfMemoryError:
        raise
    except Exception as why:  # whatever is missing or fails on this machine: a compiler, its headers, an operation
        return f"{type(why).__name__}: {(str(why).strip() or 'no more is said').splitlines()[0]}"
    allowed = LARGEST_CHANGE if precision == "float32" else LARGEST_DIFFERENCE
    return "" if change <= allowed else f"scores change by up to {change:.3g} in {precision}"


def warn(why: str) -> None:
    """Warn the caller outside lsdask that a network does not run compiled."""
    text = f"The network does not run compiled, but as it is: {why}. Pass compile=False."
    warnings.warn(text, UserWarning, skip_file_prefixes=(ROOM,))
