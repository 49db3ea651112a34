"""Losses of landslide segmentation, each blind to pixels whose mask is 255.

Every loss takes logits (n, class, y, x) and a mask (n, y, x) uint8 and gives a scalar. One class is a landslide's
sigmoid and the mask holds 0 and 1; more are a softmax and the mask holds class numbers. A batch that knows nothing
has loss 0. Overlaps (Dice, Jaccard, Tversky) are of soft counts over the whole batch, averaged over classes.

segmentation_models_pytorch has losses of these names. They are not used here because they divide by ignored pixels
too (BCE), are NaN where all are ignored (focal), drop batches without a landslide (all overlaps), or have an endless
gradient where nothing is wrong (focal Tversky with an exponent below 1). Where those cases do not arise they agree.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, one_hot

from lsdask.errors import BadInput, sentence
from lsdask.schema import UNKNOWN

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (n, class, y, x) and mask (n, y, x) -> scalar."""

SMOOTH = 1.0
"""Pixels added to both sides of an overlap, so that it is defined where there are none."""

SUPERVISION = (5.0, 1.0, 1.0, 1.0, 1.0)
"""Weights of the outputs under deep supervision. Source: Prakash et al. 2021, w_0 = 5 and w_1..4 = 1."""


def bce(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy, averaged over known pixels."""
    logits, target, known = _prepare(logits, mask)
    return _mean(_cross_entropy(logits, target), known)


def focal(logits: Tensor, mask: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Cross-entropy weighted by ``(1 - p) ** gamma`` of the right class, averaged over known pixels.

    Source: Lin et al. 2017, eq. 4, with gamma 2.
    """
    logits, target, known = _prepare(logits, mask)
    entropy = _cross_entropy(logits, target)
    return _mean((1 - torch.exp(-entropy)).clamp(min=1e-7) ** gamma * entropy, known)


def dice(logits: Tensor, mask: Tensor) -> Tensor:
    """One minus the Dice overlap, ``2 TP / (2 TP + FP + FN)``."""
    return 1 - _overlap(logits, mask, 0.5, 0.5).mean()


def jaccard(logits: Tensor, mask: Tensor) -> Tensor:
    """One minus the Jaccard overlap, ``TP / (TP + FP + FN)``."""
    return 1 - _overlap(logits, mask, 1.0, 1.0).mean()


def tversky(logits: Tensor, mask: Tensor, *, alpha: float = 0.7) -> Tensor:
    """One minus the Tversky index, ``TP / (TP + alpha FN + (1 - alpha) FP)``.

    Source: Abraham and Khan 2019, eq. 3, with alpha 0.7: a missed pixel costs more than a false one.
    """
    return 1 - _overlap(logits, mask, alpha, 1 - alpha).mean()


def focal_tversky(logits: Tensor, mask: Tensor, *, alpha: float = 0.7, gamma: float = 4 / 3) -> Tensor:
    """One minus the Tversky index, to the power ``1 / gamma``.

    Source: Abraham and Khan 2019, eq. 4, with alpha 0.7 and gamma 4/3.
    """
    missing = 1 - _overlap(logits, mask, alpha, 1 - alpha)
    # At nothing missing the power's slope is endless, and endless times nothing is NaN.
    power = missing.clamp(min=1e-6) ** (1 / gamma)
    return torch.where(missing > 1e-6, power, missing).mean()


def bce_dice(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy plus Dice loss."""
    return bce(logits, mask) + dice(logits, mask)


def bce_jaccard(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy plus Jaccard loss. Source: the published notebooks of Garcia et al. 2022."""
    return bce(logits, mask) + jaccard(logits, mask)


def prakash(logits: Tensor, mask: Tensor) -> Tensor:
    """0.2 times cross-entropy plus 0.8 times focal Tversky loss. Source: Prakash et al. 2021, training."""
    return 0.2 * bce(logits, mask) + 0.8 * focal_tversky(logits, mask)


NAMES: dict[str, Loss] = {
    "bce": bce,
    "bce_dice": bce_dice,
    "bce_jaccard": bce_jaccard,
    "dice": dice,
    "focal": focal,
    "focal_tversky": focal_tversky,
    "jaccard": jaccard,
    "prakash": prakash,
    "tversky": tversky,
}
"""The losses by name."""


def find(loss: str | Loss) -> Loss:
    """Give a loss by its name, or the callable itself.

    Raises
    ------
    BadInput
        If no loss has that name.
    """
    if callable(loss):
        return loss
    if loss not in NAMES:
        raise BadInput(sentence("loss", f"be one of {', '.join(NAMES)}, or a callable", f"loss={loss!r}"))
    return NAMES[loss]


def supervise(loss: Loss, outputs: Sequence[Tensor], mask: Tensor, *, weights: Sequence[float] = SUPERVISION) -> Tensor:
    """Sum a loss over a network's outputs, each against the same mask.

    Parameters
    ----------
    loss : callable
    outputs : sequence of (n, class, y, x) tensors
        The first counts; a single one has weight 1.
    mask : (n, y, x) uint8 tensor
    weights : sequence of float
        One an output.

    Returns
    -------
    scalar tensor

    Raises
    ------
    BadInput
        If there are more outputs than weights.
    """
    if len(outputs) == 1:
        return loss(outputs[0], mask)
    if len(outputs) > len(weights):
        raise BadInput(sentence("weights", f"hold one number for each of {len(outputs)} outputs", f"{len(weights)}"))
    parts = [weight * loss(logits, mask) for weight, logits in zip(weights, outputs)]
    return torch.stack(parts).sum()


def _prepare(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give logits that are 0 where unknown, the target of each class, and where it is known: (n, 1, y, x)."""
    known = (mask != UNKNOWN).unsqueeze(1)
    # Taken out before anything is computed of them: no value there, NaN included, can reach a gradient.
    logits = torch.where(known, logits.float(), logits.new_zeros((), dtype=torch.float32))
    clean = torch.where(mask == UNKNOWN, torch.zeros_like(mask), mask).long()
    if logits.shape[1] == 1:
        return logits, clean.unsqueeze(1).float(), known
    return logits, one_hot(clean, logits.shape[1]).movedim(-1, 1).float(), known


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Give the cross-entropy of each pixel, (n, 1, y, x)."""
    if logits.shape[1] == 1:
        return binary_cross_entropy_with_logits(logits, target, reduction="none")
    return -(log_softmax(logits, dim=1) * target).sum(1, keepdim=True)


def _mean(value: Tensor, known: Tensor) -> Tensor:
    return (value * known).sum() / known.sum().clamp(min=1)


def _overlap(logits: Tensor, mask: Tensor, missed: float, false: float) -> Tensor:
    """Give ``TP / (TP + missed FN + false FP)`` of soft counts over known pixels, (class,)."""
    logits, target, known = _prepare(logits, mask)
    probability = torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)
    axes = (0, 2, 3)
    hit = (probability * target * known).sum(axes)
    miss = ((1 - probability) * target * known).sum(axes)
    alarm = (probability * (1 - target) * known).sum(axes)
    return (hit + SMOOTH) / (hit + missed * miss + false * alarm + SMOOTH)
