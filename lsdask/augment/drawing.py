"""Random changes of a batch of tiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import radians
from typing import Any, Self

import torch
from torch import Tensor

from lsdask.augment.geometry import affine_block, symmetry_block
from lsdask.augment.radiometry import gamma_block, radiometry_block, sharpness_block
from lsdask.errors import BadInput, sentence
from lsdask.terrain.derivatives import BANDS

HEIGHTS = frozenset({"dem", *BANDS})
"""Names of bands that light does not change."""

DATES = ("pre_", "post_")
"""How names of bands begin that are of one date, and so of one light."""


@dataclass(frozen=True)
class Augment:
    """How to change a batch.

    Attributes
    ----------
    flips : bool
        Mirror, or not, on each axis.
    turns : bool
        Turn by multiples of 90 degrees; needs square tiles.
    rotate : float
        Turn by up to this many degrees either way, bilinear, the mask by its nearest pixel.
    zoom : float
        Enlarge or shrink by up to this factor, at least 1. Heights stay, so that slopes derived of them change by it.
    shear : float
        Lean columns by up to this many degrees either way, at most 45, as ``rotate`` does; with ``turns`` rows too.
    brightness : float
        Shift by up to this many standard deviations of a band.
    contrast : float
        Stretch about the band's mean by ``exp(u)``, u up to this either way.
    gamma : float
        Brighten or darken the middle values: to the power of ``exp(u)``, u up to this either way (``gamma_block``).
    sharpness : float
        Blur or sharpen by up to this, at most 1 (``sharpness_block``).
    noise : float
        Add noise of this many standard deviations of a band to each pixel.
    drop : float
        Probability that a band is void in a tile.
    groups : tuple of tuples of int, optional
        Bands that share a draw of light (brightness, contrast, gamma, sharpness); bands in none keep their values,
        bit for bit. All bands are one group if not given; ``for_bands`` groups by name.

    Raises
    ------
    BadInput
        If a magnitude is out of its range.
    """

    flips: bool = True
    turns: bool = True
    rotate: float = 0.0
    zoom: float = 1.0
    shear: float = 0.0
    brightness: float = 0.1
    contrast: float = 0.1
    gamma: float = 0.0
    sharpness: float = 0.0
    noise: float = 0.0
    drop: float = 0.0
    groups: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        for name, least, most in (
            ("rotate", 0.0, 180.0),
            ("zoom", 1.0, 10.0),
            ("shear", 0.0, 45.0),
            ("brightness", 0.0, 10.0),
            ("contrast", 0.0, 3.0),
            ("gamma", 0.0, 3.0),
            ("sharpness", 0.0, 1.0),
            ("noise", 0.0, 10.0),
            ("drop", 0.0, 0.9),
        ):
            if not least <= getattr(self, name) <= most:
                rule = f"be from {least:g} to {most:g}"
                raise BadInput(sentence(name, rule, f"{name}={getattr(self, name)}"))

    @classmethod
    def for_bands(cls, bands: Sequence[str], **magnitudes: Any) -> Self:
        """Group bands by name: ``pre_...`` share one light, ``post_...`` another, all others a third; heights none.

        Parameters
        ----------
        bands : sequence of str
            Of the model. ``dem`` and the bands of ``terrain``, with ``pre_`` or ``post_`` too, keep their values.
        **magnitudes
            Of ``Augment``.

        Returns
        -------
        Augment

        Examples
        --------
        >>> Augment.for_bands(["pre_red", "pre_nir", "post_red", "post_nir", "dem"]).groups
        ((0, 1), (2, 3))
        """
        lit: dict[str, list[int]] = {}
        for place, band in enumerate(bands):
            date = next((each for each in DATES if band.startswith(each)), "")
            if band.removeprefix(date) not in HEIGHTS:
                lit.setdefault(date, []).append(place)
        return cls(groups=tuple(tuple(places) for places in lit.values()), **magnitudes)

    def __call__(
        self, image: Tensor, mask: Tensor, *, generator: torch.Generator, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Change a batch.

        Parameters
        ----------
        image : (n, band, y, x) float32 tensor
            Raw units, NaN where void.
        mask : (n, y, x) uint8 tensor
            255 where unknown.
        generator : torch.Generator
            On the batch's device.
        mean, std : (band, 1, 1) tensor
            Of the bands, in raw units: what the magnitudes of radiometry are measured by.

        Returns
        -------
        image, mask
            As given, changed.
        """
        image, mask = self.geometry(image, mask, generator)
        return self.radiometry(image, generator, mean, std), mask

    def geometry(self, image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Change where pixels are, of image and mask alike. Parameters as above."""
        n, square = len(image), image.shape[-1] == image.shape[-2]
        if self.turns and not square:
            got = f"{image.shape[-2]} x {image.shape[-1]} px"
            raise BadInput(sentence("tiles", "be square to be turned by 90 degrees", got, "Pass turns=False"))
        if self.flips or self.turns:
            which = self._symmetries(n, generator)
            image, mask = symmetry_block(image, which), symmetry_block(mask, which)
        if self.rotate or self.zoom > 1 or self.shear:
            angle, shear = (radians(most) * _uniform(n, generator) for most in (self.rotate, self.shear))
            image, mask = affine_block(image, mask, angle, self.zoom ** _uniform(n, generator), shear)
        return image, mask

    def _symmetries(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw one of the allowed symmetries for each tile: quarter turns, plus 4 if mirrored first."""
        quarter = torch.randint(0, 4, (n,), generator=generator, device=generator.device)
        mirror = torch.randint(0, 2, (n,), generator=generator, device=generator.device)
        if not self.turns:
            quarter = quarter // 2 * 2
        return quarter + 4 * mirror if self.flips else quarter

    def radiometry(self, image: Tensor, generator: torch.Generator, mean: Tensor, std: Tensor) -> Tensor:
        """Change the values of pixels. Parameters as above."""
        n, bands = image.shape[:2]
        groups = (tuple(range(bands)),) if self.groups is None else self.groups
        if self.brightness or self.contrast:
            shift, stretch = (_by_group(n, bands, groups, each, generator) for each in (self.brightness, self.contrast))
            image = radiometry_block(image, shift, stretch, mean, std)
        if self.gamma:
            image = gamma_block(image, _by_group(n, bands, groups, self.gamma, generator), mean, std)
        if self.sharpness:
            image = sharpness_block(image, _by_group(n, bands, groups, self.sharpness, generator))
        touched = torch.zeros(bands, 1, 1, dtype=torch.bool, device=image.device)
        touched[[band for group in groups for band in group]] = True
        if self.noise:
            drawn = torch.randn(image.shape, generator=generator, device=image.device)
            image = torch.where(touched, image + self.noise * std * drawn, image)
        if self.drop:
            gone = torch.rand((n, bands, 1, 1), generator=generator, device=image.device) < self.drop
            image = image.masked_fill(gone & touched, float("nan"))
        return image


def _by_group(n: int, bands: int, groups: Sequence[Sequence[int]], most: float, generator: torch.Generator) -> Tensor:
    """Draw, for each tile, a number up to ``most`` either way for each group: (n, band, 1, 1), 0 in no group."""
    drawn = torch.zeros(n, bands, 1, 1, device=generator.device)
    for group in groups:
        drawn[:, list(group)] = most * _uniform(n, generator).view(n, 1, 1, 1)
    return drawn


def _uniform(n: int, generator: torch.Generator) -> Tensor:
    """Draw n numbers from -1 to 1."""
    return 2 * torch.rand(n, generator=generator, device=generator.device) - 1
