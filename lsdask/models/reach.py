"""How far a network looks: the context that a score depends on, and so the halo that makes tiles seamless."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from lsdask.models.segmenter import Segmenter

LONGEST = 4096
"""Side of the longest strip tried, pixels."""


def reach(model: Segmenter) -> int | None:
    """Measure how many pixels away an input can still change a score.

    The gradient of single scores is followed back to the input of a copy of the network in which nothing can hide
    it: positive weights, averages for maxima. It is the reach of what the network could learn; a trained one
    mostly looks less far.

    Parameters
    ----------
    model : Segmenter

    Returns
    -------
    int, pixels, or None if a score depends on the whole input, as with global pooling

    Examples
    --------
    >>> from lsdask import models
    >>> reach(models.build("soares_unet", bands=4, filters=4))
    95
    """
    net = _transparent(model.net)
    bands, side = len(model.spec.bands), 16 * model.stride
    while side <= LONGEST:
        found = max(_strip(net, bands, model.stride, side, axis) for axis in (2, 3))
        if found < side // 2 - model.stride:
            return found
        side *= 2
    return None


def _transparent(net: nn.Module) -> nn.Module:
    """Copy a network so that every dependence shows in its gradient: no dead unit, no maximum."""
    copy = deepcopy(net).eval().requires_grad_(False)
    for layer in list(copy.modules()):
        for name, child in layer.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(layer, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
    for parameter in copy.parameters():
        # Averages keep values in range over any depth; positive ones keep every unit alive.
        parameter.fill_(1 / parameter[0].numel() if parameter.ndim > 1 else 0.5)
    return copy


def _strip(net: nn.Module, bands: int, stride: int, side: int, axis: int) -> int:
    """Measure along one axis, on a strip as thin as the network allows."""
    shape = [1, bands, stride, stride]
    shape[axis] = side
    strip = torch.ones(shape, requires_grad=True)
    found = net(strip)
    logits: Tensor = found if isinstance(found, Tensor) else found[0]
    centre = side // 2 // stride * stride
    # The first and the last pixel of a cell of the coarsest level look furthest ahead and back.
    return max(_furthest(strip, logits, axis, place) for place in (centre, centre + stride - 1))


def _furthest(strip: Tensor, logits: Tensor, axis: int, place: int) -> int:
    # A gradient of NaN makes all that it reaches NaN: nothing cancels it and it does not fade with depth.
    seed = torch.zeros_like(logits)
    seed.select(axis, place).fill_(float("nan"))
    (gradient,) = torch.autograd.grad(logits, strip, seed, retain_graph=True)
    touched = torch.nonzero(gradient.isnan().any(0).any(0).any(3 - axis)).flatten()
    return int((touched - place).abs().max()) if len(touched) else 0
