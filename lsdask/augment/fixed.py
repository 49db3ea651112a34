"""Fixed lists of changes, as two of the papers made their tiles more: each tile by each change, exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import radians

import torch
from torch import Tensor

from lsdask.augment.geometry import affine_block, symmetry_block
from lsdask.errors import BadInput, sentence


@dataclass(frozen=True)
class Change:
    """A turn about the centre, then mirroring.

    Attributes
    ----------
    degrees : float
        Counterclockwise. By multiples of 90 exact; else the image bilinear, the mask by its nearest pixel, what
        comes from outside void and unknown.
    down, across : bool
        Mirror upside down (vertical flip), left to right (horizontal flip).
    """

    degrees: float = 0.0
    down: bool = False
    across: bool = False

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Change every tile of a batch: image (n, band, y, x) float32, NaN where void, and mask (n, y, x) uint8."""
        if self.degrees % 90 == 0:
            which = torch.full((len(image),), int(self.degrees // 90) % 4, device=image.device)
            image, mask = symmetry_block(image, which), symmetry_block(mask, which)
        else:
            turn = torch.full((len(image),), radians(self.degrees), device=image.device)
            image, mask = affine_block(image, mask, turn, torch.ones_like(turn), torch.zeros_like(turn))
        axes = [axis for axis, mirrored in ((-2, self.down), (-1, self.across)) if mirrored]
        return image.flip(axes), mask.flip(axes)


FLIPS = ((False, False), (True, False), (False, True), (True, True))
"""As is, vertical, horizontal, both: down and across."""

SOARES = (Change(), Change(across=True), Change(down=True), Change(degrees=90.0))
"""As is, mirrored on each axis, turned once: four of every tile.

Source: Soares et al. 2020. Their notebook changed the whole array as if it were one image; this is what they meant.
"""


def garcia(count: int) -> tuple[Change, ...]:
    """Give the first changes of a list: turns by 0, 10, 20 ... degrees, each as is, V, H and both.

    Parameters
    ----------
    count : int
        30 and 50 in the paper: of 365 tiles, 10 950 and 18 250. At most 144, a whole circle.

    Returns
    -------
    tuple of Change

    Raises
    ------
    BadInput
        If there are not so many.

    Source: Garcia et al. 2022, section 3, and their published scripts. There masks are turned bilinearly, and edge
    pixels lost; here by the nearest pixel, and what comes from outside is void.
    """
    every = [Change(float(degrees), *flips) for degrees in range(0, 360, 10) for flips in FLIPS]
    if not 1 <= count <= len(every):
        raise BadInput(sentence("count", f"be from 1 to {len(every)}", f"count={count}"))
    return tuple(every[:count])


def fixed_block(image: Tensor, mask: Tensor, changes: Sequence[Change]) -> tuple[Tensor, Tensor]:
    """Change each tile of a batch by its own change.

    Parameters
    ----------
    image : (n, band, y, x) float32 tensor
        NaN where void.
    mask : (n, y, x) uint8 tensor
        255 where unknown.
    changes : sequence of Change
        One a tile.

    Returns
    -------
    image, mask of the same shapes
    """
    image, mask = image.clone(), mask.clone()
    for change in set(changes):
        some = torch.tensor([each == change for each in changes], device=image.device)
        image[some], mask[some] = change(image[some], mask[some])
    return image, mask
