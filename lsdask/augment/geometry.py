"""Where pixels of tiles go: image and mask alike."""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from lsdask.schema import UNKNOWN

SYMMETRIES = 8
"""Of a square: turns by 0, 90, 180, 270 degrees, each as is or mirrored."""


def symmetry_block(tiles: Tensor, which: Tensor) -> Tensor:
    """Turn and mirror each tile, exactly.

    Parameters
    ----------
    tiles : (n, ..., y, x) tensor
        Images or masks.
    which : (n,) int tensor
        Quarter turns, 0 to 3, plus 4 if the tile is mirrored on x first.

    Returns
    -------
    tensor of the same shape
    """
    found = torch.empty_like(tiles)
    for symmetry in which.unique().tolist():
        some = which == symmetry
        tile = tiles[some].flip(-1) if symmetry >= 4 else tiles[some]
        found[some] = torch.rot90(tile, symmetry % 4, (-2, -1))
    return found


def affine_block(image: Tensor, mask: Tensor, angle: Tensor, scale: Tensor, shear: Tensor) -> tuple[Tensor, Tensor]:
    """Turn and enlarge each tile about its centre, then slant it.

    Parameters
    ----------
    image : (n, band, y, x) float32 tensor
        NaN where void. Bilinear; a pixel that void or the outside has a part in is void.
    mask : (n, y, x) uint8 tensor
        By the nearest pixel; 255 outside, and where a band of the image becomes void.
    angle : (n,) tensor
        Radians, counterclockwise.
    scale : (n,) tensor
        Above 1 enlarges.
    shear : (n,) tensor
        Radians by which columns lean, to the right above 0; rows stay rows.

    Returns
    -------
    image, mask of the same shapes
    """
    y, x = image.shape[-2:]
    sine, cosine, none = torch.sin(angle) / scale, torch.cos(angle) / scale, torch.zeros_like(angle)
    # From a pixel of the result back to its place in the tile: upright, then turned and shrunk.
    lean = torch.tan(shear)
    across, down = cosine * lean - sine, sine * lean + cosine
    # The grid runs from -1 to 1 on both axes, so a turn of an oblong tile needs the ratio of its sides.
    theta = torch.stack([cosine, across * y / x, none, sine * x / y, down, none], dim=1).view(-1, 2, 3).to(image)
    places = affine_grid(theta, [len(image), 1, y, x], align_corners=False)
    void = torch.isnan(image)
    filled = torch.where(void, image.new_zeros(()), image)
    known = grid_sample((~void).float(), places, align_corners=False) > 1 - 1e-4
    values = grid_sample(filled, places, align_corners=False).masked_fill(~known, float("nan"))
    labels = grid_sample(mask.unsqueeze(1).float(), places, mode="nearest", align_corners=False).squeeze(1)
    return values, labels.masked_fill(~known.all(1), UNKNOWN).to(mask.dtype)
