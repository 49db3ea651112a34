"""How far a network looks: the context that a score depends on, and so the halo that makes tiles seamless."""

import json
from copy import deepcopy
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from lsdask.models.architectures import NAMES, assemble
from lsdask.models.segmenter import Segmenter
from lsdask.models.spec import Spec, constants

LONGEST = 4096
"""Side of the longest strip tried, pixels."""


def measure(model: Segmenter) -> int | None:
    """Measure how many pixels away an input can still change a score.

    It is the reach of what the network could learn; a trained one mostly looks less far. It follows from the
    architecture alone, and is measured once a process for each: seconds.

    Parameters
    ----------
    model : Segmenter

    Returns
    -------
    int, pixels, or None if a score depends on the whole input (global pooling), or on more than 2048 pixels

    Examples
    --------
    >>> from lsdask import models
    >>> measure(models.build("soares_unet", bands=4, filters=4))
    123
    """
    spec = model.spec
    options = json.dumps(spec.options, sort_keys=True)
    far = (
        _of_architecture(spec.name, spec.encoder, spec.channels, options)
        if spec.name in NAMES
        else _of_net(model.net, spec.channels, model.stride)
    )
    # What is derived of heights looks at the pixels next to it.
    return far if far is None or not spec.terrain else far + 1


@lru_cache(maxsize=64)
def _of_architecture(name: str, encoder: str, bands: int, options: str) -> int | None:
    names = tuple(map(str, range(bands)))
    zeros, ones = constants(None, 0.0, names), constants(None, 1.0, names)
    model = assemble(Spec(name, encoder, names, 1, zeros, ones, options=json.loads(options)))
    return _of_net(model.net, bands, model.stride)


@torch.inference_mode()
def _of_net(net: nn.Module, bands: int, stride: int) -> int | None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # strips are so small that threads would mostly wait for each other
    try:
        net = _narrowed(deepcopy(net).eval().cpu(), bands, stride)
        found = [_along(net, bands, stride, axis) for axis in (2, 3)]
    finally:
        torch.set_num_threads(threads)
    return None if None in found else max(far for far in found if far is not None)


def _along(net: nn.Module, bands: int, stride: int, axis: int) -> int | None:
    """Measure along one axis: roughly on the longest strip, then from every place of a cell of the coarsest level."""
    longest = LONGEST // stride * stride
    rough = _furthest(net, (bands, stride, longest), axis, longest // 2)
    if rough is None:
        return None
    side = 2 * (-(-rough // stride) + 2) * stride
    places = range(side // 2, side // 2 + stride)
    return max(_furthest(net, (bands, stride, side), axis, place) or 0 for place in places)


def _furthest(net: nn.Module, size: tuple[int, int, int], axis: int, place: int) -> int | None:
    """Say how far from one line of a strip scores change; None if up to an end of it."""
    touched = torch.nonzero(_touched(net, size, axis, place)).flatten().tolist()
    if not touched:
        return 0
    first, last = touched[0], touched[-1]
    return None if first == 0 or last == size[2] - 1 else max(place - first, last - place)


def _touched(net: nn.Module, size: tuple[int, int, int], axis: int, place: int) -> Tensor:
    """Say which lines of a strip (bands, thickness, length) one line changes the scores of, (length,) bool.

    The line is NaN, which nothing hides: whatever is computed of it is NaN too, also by a weight of 0.
    """
    strip = torch.zeros(1, *size) if axis == 3 else torch.zeros(1, *size).mT.contiguous()
    strip.select(axis, place).fill_(float("nan"))
    found = net(strip)
    logits: Tensor = found if isinstance(found, Tensor) else found[0]
    if logits.shape[2:] != strip.shape[2:]:
        return torch.ones(size[2], dtype=torch.bool)  # one score for a whole tile
    return logits.isnan().any(0).any(0).any(3 - axis)


def _narrowed(net: nn.Module, bands: int, stride: int) -> nn.Module:
    """Give a network of one channel that looks as far, in far less time; ``net`` where layers need their channels.

    Both must agree on a strip, line for line.
    """
    narrow = deepcopy(net)
    for layer in list(narrow.modules()):
        if isinstance(layer, nn.Conv2d):
            layer._conv_forward = partial(_one_channel, layer)  # type: ignore[method-assign]
        elif isinstance(layer, nn.ConvTranspose2d):
            layer.forward = partial(_one_channel_up, layer)  # type: ignore[method-assign]
        for name, child in layer.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(layer, name, nn.Identity())
    size = (bands, stride, 16 * stride)
    try:
        same = all(torch.equal(*(_touched(each, size, axis, 8 * stride) for each in (narrow, net))) for axis in (2, 3))
    except (RuntimeError, ValueError):
        return net
    return narrow if same else net


def _one_channel(layer: nn.Conv2d, x: Tensor, _weight: Tensor, _bias: Tensor | None) -> Tensor:
    """Convolve the sum of the channels, into one channel."""
    kernel = x.new_ones((1, 1, *layer.kernel_size))
    return nn.functional.conv2d(x.sum(1, keepdim=True), kernel, None, layer.stride, layer.padding, layer.dilation)


def _one_channel_up(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Do the same for a transposed convolution."""
    kernel, more = x.new_ones((1, 1, *layer.kernel_size)), layer.output_padding
    x = x.sum(1, keepdim=True)
    padding: Any = layer.padding
    return nn.functional.conv_transpose2d(x, kernel, None, layer.stride, padding, more, 1, layer.dilation)
