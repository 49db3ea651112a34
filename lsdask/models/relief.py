"""Terrain inside a network: what it sees of heights is derived in it, after tiles were turned and mirrored.

Light then always falls from where a map's light falls, however a tile was turned, and prediction cannot differ from
training. The formulas are those of ``lsdask.terrain``, to float32.
"""

from collections.abc import Callable, Sequence
from math import cos, radians, sin

import torch
from torch import Tensor

from lsdask.errors import BadInput, sentence

DEM = "dem"
"""The band of heights, m, in whose place stands what is derived of it."""

SUN = (315.0, 45.0)
"""Where the sun of a hillshade stands: degrees clockwise from north, degrees above the horizon."""


def slope_block(gradient: Tensor) -> Tensor:
    """Give the angle from level, degrees, as ``terrain.slope_block`` does: (..., 2, y, x) to (..., y, x)."""
    return torch.rad2deg(torch.atan(torch.sqrt(_squared(gradient))))


def hillshade_block(gradient: Tensor) -> Tensor:
    """Give how brightly the sun lights the ground, 1 to 255, as ``terrain.hillshade_block`` does."""
    around, above = map(radians, SUN)
    east, north = gradient.unbind(-3)
    facing = sin(above) - sin(around) * cos(above) * east - cos(around) * cos(above) * north
    return 1 + 254 * (facing / torch.sqrt(1 + _squared(gradient))).clamp(min=0)


def eastness_block(gradient: Tensor) -> Tensor:
    """Give how much the ground faces east, -1 to 1, as ``terrain.eastness_block`` does."""
    return -gradient[..., 0, :, :] / torch.sqrt(1 + _squared(gradient))


def northness_block(gradient: Tensor) -> Tensor:
    """Give how much the ground faces north, -1 to 1, as ``terrain.northness_block`` does."""
    return -gradient[..., 1, :, :] / torch.sqrt(1 + _squared(gradient))


def _squared(gradient: Tensor) -> Tensor:
    return gradient.square().sum(-3)


ELEVATION = "elevation"
"""The heights themselves, normalised as the band ``dem``."""

DERIVED: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "slope": (slope_block, 45.0, 45.0),
    "hillshade": (hillshade_block, 127.5, 127.5),
    "eastness": (eastness_block, 0.0, 1.0),
    "northness": (northness_block, 0.0, 1.0),
}
"""By name: the function of a gradient, and what its values are centred and scaled by, which makes them -1 to 1.

Source of the constants of slope and hillshade: the published code of Prakash et al. 2021.
"""


def terrain_block(elevation: Tensor, heights: Tensor, names: Sequence[str], pixel_m: float) -> Tensor:
    """Give what a network sees in the place of heights.

    Parameters
    ----------
    elevation : (n, y, x) float32 tensor
        The heights, normalised: what ``elevation`` gives.
    heights : (n, y, x) float32 tensor
        m, NaN where void. Two or more pixels on each side.
    names : sequence of str
        ``elevation``, or of ``DERIVED``.
    pixel_m : float
        Side of a pixel, m.

    Returns
    -------
    (n, name, y, x) float32 tensor
        About -1 to 1; 0 where one of the 3 x 3 pixels is void.
    """
    gradient = horn_block(heights, pixel_m)
    planes = []
    for name in names:
        if name == ELEVATION:
            planes.append(elevation)
        else:
            function, centre, scale = DERIVED[name]
            plane = (function(gradient) - centre) / scale
            planes.append(torch.where(plane.isnan(), plane.new_zeros(()), plane))
    return torch.stack(planes, dim=1)


def horn_block(heights: Tensor, pixel_m: float) -> Tensor:
    """Give the gradient of each pixel, as ``terrain.horn_block`` does.

    Beyond the border heights go on straight, so that a tile's outermost pixels are known too.

    Parameters
    ----------
    heights : (n, y, x) float32 tensor
        m, NaN where void. Two or more pixels on each side.
    pixel_m : float
        Side of a pixel, m.

    Returns
    -------
    (n, 2, y, x) float32 tensor
        Rise to the east and to the north, m a metre. Source: Horn 1981, Hill shading and the reflectance map.
    """
    if min(heights.shape[-2:]) < 2:
        got = f"{heights.shape[-2]} x {heights.shape[-1]} px"
        raise BadInput(sentence("image", "have two or more rows and columns for terrain to be derived", got))
    ring = _extend(_extend(heights.float(), -1), -2)
    a, b, c = _row(ring, 0)
    d, e, f = _row(ring, 1)
    g, h, i = _row(ring, 2)
    hole = 0 * (a + b + c + d + e + f + g + h + i)
    # Differences first: they are exact, where sums of thousands of metres would lose millimetres. Corners before the
    # middle: sums that are the same however a tile is turned.
    east = ((c - a) + (i - g)) + 2 * (f - d)
    north = ((a - g) + (c - i)) + 2 * (b - h)
    return torch.stack([east + hole, north + hole], dim=-3) / (8 * pixel_m)


def _extend(heights: Tensor, axis: int) -> Tensor:
    """Add a line on both sides, straight on from the two nearest."""
    size = heights.shape[axis]
    first, second, last_but_one, last = (heights.narrow(axis, i, 1) for i in (0, 1, size - 2, size - 1))
    return torch.cat([2 * first - second, heights, 2 * last - last_but_one], dim=axis)


def _row(ring: Tensor, down: int) -> tuple[Tensor, Tensor, Tensor]:
    """Give the neighbours in one row of the 3 x 3, from west to east."""
    y, x = ring.shape[-2] - 2, ring.shape[-1] - 2
    west, middle, east = (ring[..., down : down + y, across : across + x] for across in range(3))
    return west, middle, east
