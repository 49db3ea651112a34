"""What an epoch's scores come to, over known pixels: one pass a batch, on its device, nothing fetched before the end.

The same numbers as torchmetrics gives for valid pixels, which a test holds them to; for one class torchmetrics makes
a pass for each metric.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsdask.schema import UNKNOWN


@dataclass
class Sums:
    """An epoch's sums over known pixels, on the device until asked for."""

    tiles: int = 0
    weighted: Tensor | float = 0.0
    counts: Tensor | None = None
    low: Tensor | None = None
    high: Tensor | None = None

    def add(self, loss: Tensor, logits: Tensor, mask: Tensor, threshold: float) -> None:
        """Take note of a batch."""
        self.tiles += len(mask)
        self.weighted = self.weighted + loss.detach() * len(mask)
        counts, low, high = tally_block(logits.detach(), mask, threshold)
        self.counts = counts if self.counts is None else self.counts + counts
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)

    def merged(self, reduce: Callable[[Tensor, str], Tensor]) -> "Sums":
        """Give the sums over all ranks; ``reduce`` takes a tensor and ``sum`` or ``max``."""
        if self.counts is None or self.low is None or self.high is None:
            return self
        whole = reduce(torch.as_tensor(self.tiles, device=self.counts.device), "sum")
        weighted = reduce(torch.as_tensor(self.weighted, device=self.counts.device), "sum")
        low, high = -reduce(-self.low, "max"), reduce(self.high, "max")
        return Sums(int(whole), weighted, reduce(self.counts, "sum"), low, high)

    def to(self, device: torch.device) -> "Sums":
        """Bring the sums to a device."""
        there: dict[str, Any] = {}
        for name, value in vars(self).items():
            there[name] = value.to(device) if isinstance(value, Tensor) else value
        return Sums(**there)

    def state_dict(self) -> dict[str, Any]:
        """Give the sums by name, plain values and tensors."""
        return dict(vars(self))

    @property
    def loss(self) -> float:
        """The mean loss of a tile."""
        return float(self.weighted) / max(self.tiles, 1)

    @property
    def scores(self) -> dict[str, float]:
        """Precision, recall, F1 and IoU of landslides, or means over the classes but the first; 0 where undefined."""
        if self.counts is None:
            return dict.fromkeys(("precision", "recall", "f1", "iou"), 0.0)
        hit, alarm, miss = self.counts.double()
        shares = {
            "precision": hit / (hit + alarm).clamp(min=1),
            "recall": hit / (hit + miss).clamp(min=1),
            "f1": 2 * hit / (2 * hit + alarm + miss).clamp(min=1),
            "iou": hit / (hit + alarm + miss).clamp(min=1),
        }
        return {name: float(share.mean()) for name, share in shares.items()}

    @property
    def known(self) -> bool:
        """Whether the truth of any pixel was known."""
        return self.low is not None and self.high is not None and bool(self.low <= self.high)

    @property
    def spread(self) -> float:
        """How far apart the lowest and the highest score are."""
        return 1.0 if self.low is None or self.high is None else float(self.high - self.low)


def tally_block(logits: Tensor, mask: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Count hits, false alarms and misses over known pixels, and give the lowest and highest score.

    Parameters
    ----------
    logits : (n, class, y, x) tensor
    mask : (n, y, x) uint8 tensor
    threshold : float
        For one class; of several, the highest score is taken.

    Returns
    -------
    counts : (3, class) int64 tensor
        Of the landslide class, or of all classes but the first.
    low, high : scalar tensors
    """
    known = (mask != UNKNOWN).unsqueeze(1)
    if logits.shape[1] == 1:
        scores = torch.sigmoid(logits.float())
        said, true = scores >= threshold, (mask == 1).unsqueeze(1)
    else:
        scores = torch.softmax(logits.float(), dim=1)[:, 1:]
        numbers = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, 1, 1)
        said, true = logits.argmax(1, keepdim=True) == numbers, mask.unsqueeze(1) == numbers
    parts = (said & true, said & ~true & known, ~said & true)  # what is true is known
    low = torch.where(known, scores, scores.new_ones(())).min()
    high = torch.where(known, scores, scores.new_zeros(())).max()
    return torch.stack([part.sum((0, 2, 3)) for part in parts]), low, high
