"""What values pixels of tiles have: void stays void, and has no part in any value."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

SPAN = 3.0
"""Gamma bends the values within this many standard deviations of a band's mean."""

BLUR = torch.tensor([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]) / 13
"""Weights of the 3 x 3 pixels in a blurred one. Source: Pillow's SMOOTH, as in torchvision's ``adjust_sharpness``."""


def radiometry_block(image: Tensor, shift: Tensor, stretch: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Change brightness and contrast: ``(value - mean) * exp(stretch) + mean + shift * std``.

    Parameters
    ----------
    image : (n, band, y, x) tensor
        NaN where void, which it stays.
    shift, stretch : (n, band, 1, 1) tensor
    mean, std : (band, 1, 1) tensor
        Of the bands, in raw units.

    Returns
    -------
    (n, band, y, x) tensor
    """
    changed = (image - mean) * torch.exp(stretch) + mean + shift * std
    return torch.where((shift == 0) & (stretch == 0), image, changed)


def gamma_block(image: Tensor, bend: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Brighten or darken the middle values: ``u ** exp(bend)``, u from 0 to 1 over mean - 3 std to mean + 3 std.

    Parameters
    ----------
    image : (n, band, y, x) tensor
        NaN where void, which it stays. Values outside the span are left.
    bend : (n, band, 1, 1) tensor
        Above 0 darkens.
    mean, std : (band, 1, 1) tensor
        Of the bands, in raw units.

    Returns
    -------
    (n, band, y, x) tensor
    """
    low, span = mean - SPAN * std, 2 * SPAN * std
    share = (image - low) / span
    bent = low + span * share.clamp(0, 1) ** torch.exp(bend)
    return torch.where((share > 0) & (share < 1) & (bend != 0), bent, image)


def sharpness_block(image: Tensor, amount: Tensor) -> Tensor:
    """Blur or sharpen: ``value + amount * (value - blurred)``, blurred from the known ones of 3 x 3 pixels.

    torchvision's ``adjust_sharpness`` is this on images from 0 to 1 without void.

    Parameters
    ----------
    image : (n, band, y, x) tensor
        NaN where void, which it stays and has no part in its neighbours.
    amount : (n, band, 1, 1) tensor
        -1 blurs, 1 sharpens as much.

    Returns
    -------
    (n, band, y, x) tensor
    """
    known = ~torch.isnan(image)
    filled = torch.where(known, image, image.new_zeros(()))
    blurred = _weigh(filled) / _weigh(known.to(image.dtype)).clamp(min=1e-6)
    return torch.where(amount == 0, image, image + amount * (image - blurred))


def _weigh(planes: Tensor) -> Tensor:
    """Sum 3 x 3 pixels by their weights; beyond the border there is nothing."""
    n, bands, y, x = planes.shape
    kernel = BLUR.to(planes)[None, None]
    return conv2d(pad(planes.reshape(n * bands, 1, y, x), (1, 1, 1, 1)), kernel).view(n, bands, y, x)
