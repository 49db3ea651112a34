"""Batch normalisation folded into the convolution before it: the same scores with less memory traffic."""

from collections import Counter
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

FOLDED_DIFFERENCE = 1e-3
"""A folded model is not used if a logit of the probe changes by more than this share of the largest."""


def fold(model: nn.Module, probe: Tensor) -> nn.Module:
    """Fold every batch normalisation that directly follows a convolution.

    Which follow is seen by running ``probe``: a normalisation whose input is the very tensor a convolution gave.

    Parameters
    ----------
    model : Module
        In evaluation mode; left as it is.
    probe : tensor
        An input, small.

    Returns
    -------
    Module, a folded copy, or ``model`` itself if its output would have changed
    """
    folded = deepcopy(model)
    for conv, norm in _pairs(folded, probe):
        fused = fuse_conv_bn_eval(conv, norm)
        conv.weight, conv.bias = fused.weight, fused.bias
        _replace(folded, norm, nn.Identity())
    with torch.inference_mode():
        before, after = model(probe), folded(probe)
    same = (after - before).abs().max() <= FOLDED_DIFFERENCE * before.abs().max().clamp(min=1.0)
    return folded if same else model


def _pairs(model: nn.Module, probe: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Give the convolutions and the normalisations right after them, each used once in a pass."""
    given: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def convolved(conv: nn.Module, _: tuple[Tensor, ...], result: Tensor) -> None:
        given[id(result)] = (conv, result)  # type: ignore[assignment]  # hooked on Conv2d only

    def normalising(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in given:
            found.append((given[id(inputs[0])][0], norm))  # type: ignore[arg-type]  # hooked on BatchNorm2d only

    hooks = [each.register_forward_hook(convolved) for each in model.modules() if type(each) is nn.Conv2d]
    hooks += [each.register_forward_pre_hook(normalising) for each in model.modules() if type(each) is nn.BatchNorm2d]
    with torch.inference_mode():
        model(probe)
    for hook in hooks:
        hook.remove()
    uses = Counter(module for pair in found for module in pair)
    return [pair for pair in found if uses[pair[0]] == uses[pair[1]] == 1]


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)
