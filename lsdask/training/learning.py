"""How weights are learnt: the settings of a run, its optimiser and its learning rates."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from lsdask import losses
from lsdask.augment import Augment
from lsdask.errors import BadInput, sentence
from lsdask.models.precision import check_precision

Schedule = Literal["constant", "cosine", "one_cycle", "plateau"]
"""How the learning rate goes on."""

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
"""Optimisers by name."""

STALE = 3
"""Epochs that are not better, after which ``plateau`` lowers the rate. Source: Prakash et al. 2021, training."""


@dataclass(frozen=True)
class Settings:
    """What ``fit`` was asked to do, as its parameters of these names say; checked."""

    epochs: int
    loss: str | losses.Loss
    lr: float
    optimizer: str
    weight_decay: float
    schedule: str
    monitor: str
    patience: int | None
    augment: Augment | None
    accumulate: int
    clip: float | None
    precision: str
    seed: int

    def __post_init__(self) -> None:
        losses.find(self.loss)
        check_precision(self.precision)
        for name in ("epochs", "patience", "accumulate"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1) and not (name == "patience" and value is None):
                raise BadInput(sentence(name, "be a whole number, at least 1", f"{name}={value!r}"))
        for name in ("lr", "clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadInput(sentence(name, "be above 0", f"{name}={value!r}"))
        if not self.weight_decay >= 0:
            raise BadInput(sentence("weight_decay", "be at least 0", f"weight_decay={self.weight_decay!r}"))
        if not isinstance(self.seed, int) or self.seed < 0:
            raise BadInput(sentence("seed", "be a whole number, at least 0", f"seed={self.seed!r}"))
        for name, known in (
            ("schedule", get_args(Schedule)),
            ("monitor", ("loss", "f1")),
            ("optimizer", tuple(OPTIMIZERS)),
        ):
            if getattr(self, name) not in known:
                raise BadInput(sentence(name, f"be one of {', '.join(known)}", f"{name}={getattr(self, name)!r}"))

    @property
    def loss_name(self) -> str:
        """The name of the loss, also of one that is a callable."""
        loss: Any = self.loss
        return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)

    def plan(self) -> dict[str, Any]:
        """Give the settings as plain values."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**plain, "loss": self.loss_name, "augment": repr(self.augment)}


def make_optimizer(model: nn.Module, settings: Settings) -> Optimizer:
    """Make the optimiser of what is not frozen; SGD with a momentum of 0.9."""
    momentum = {"momentum": 0.9} if settings.optimizer == "sgd" else {}
    moving = [each for each in model.parameters() if each.requires_grad]
    make = OPTIMIZERS[settings.optimizer]
    return make(moving, lr=settings.lr, weight_decay=settings.weight_decay, **momentum)


def make_schedule(optimizer: Optimizer, settings: Settings, steps: int) -> LRScheduler | None:
    """Make what changes the learning rate, over so many steps of the optimiser; plateau counts epochs instead."""
    if settings.schedule == "plateau":
        # It counts epochs beyond ``patience``. A threshold is a share of the best, and of F1, which is negative here,
        # it would lie on the wrong side: what is equal to the best would be better.
        return ReduceLROnPlateau(optimizer, factor=0.1, patience=STALE - 1, threshold=0)
    if settings.schedule == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    if settings.schedule == "one_cycle" and steps > 1:  # one step alone would be the cycle's last, and learn nothing
        return OneCycleLR(optimizer, settings.lr, total_steps=steps)
    return None
