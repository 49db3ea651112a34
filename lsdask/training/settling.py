"""Which precision a training runs in, settled once, by the hardware and the first batch."""

from copy import deepcopy

import torch
from torch import Tensor

from lsdask import losses, models
from lsdask.models.precision import Precision, candidates

LOSS_DIFFERENCE = 0.02
"""Training runs in a reduced precision only if the first batch's loss changes by less than this share of it."""


def settle(model: models.Segmenter, loss: losses.Loss, image: Tensor, mask: Tensor) -> Precision:
    """Choose a reduced precision if the hardware computes it and the first batch's loss stays what it is.

    Parameters
    ----------
    model : Segmenter
        Left as it is.
    loss : callable
    image : (n, band, y, x) float32 tensor
        On the device to train on.
    mask : (n, y, x) uint8 tensor
    """
    still = deepcopy(model).to(image.device).eval()
    # Of the two that a GPU offers, bfloat16 has float32's range: no gradient has to be scaled.
    for precision in sorted(candidates(image.device)):
        exact, reduced = (_loss_in(each, still, loss, image, mask) for each in ("float32", precision))
        if abs(exact - reduced) <= LOSS_DIFFERENCE * abs(exact):
            return precision
    return "float32"


def _loss_in(precision: str, model: models.Segmenter, loss: losses.Loss, image: Tensor, mask: Tensor) -> float:
    reduced = precision != "float32"
    with torch.inference_mode(), torch.autocast(image.device.type, getattr(torch, precision), enabled=reduced):
        return float(loss(model(image), mask))
