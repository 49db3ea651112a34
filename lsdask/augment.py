"""Random changes of training batches, on the device they are on.

Geometry is shared by the image and its mask, so pixels keep their labels; what comes in from outside a tile is
void, and its mask 255. Radiometry is drawn for each group of bands alone (before and after an event, say) and
leaves the mask, void, and bands of no group (a DEM) as they are. Every draw comes from one torch.Generator.
"""

from dataclasses import dataclass
from math import radians

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from lsdask.errors import BadInput, sentence
from lsdask.schema import UNKNOWN

SYMMETRIES = 8
"""Of a square: turns by 0, 90, 180, 270 degrees, each as is or mirrored."""


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
        Enlarge or shrink by up to this factor, at least 1.
    brightness : float
        Shift by up to this many standard deviations of a band.
    contrast : float
        Stretch about the band's mean by ``exp(u)``, u up to this either way.
    noise : float
        Add noise of this many standard deviations of a band to each pixel.
    drop : float
        Probability that a band is void in a tile.
    groups : tuple of tuples of int, optional
        Bands that share a draw of brightness and contrast; bands in none keep their values. All bands are one
        group if not given.

    Raises
    ------
    BadInput
        If a magnitude is out of its range.
    """

    flips: bool = True
    turns: bool = True
    rotate: float = 0.0
    zoom: float = 1.0
    brightness: float = 0.1
    contrast: float = 0.1
    noise: float = 0.0
    drop: float = 0.0
    groups: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        for name, least, most in (
            ("rotate", 0.0, 180.0),
            ("zoom", 1.0, 10.0),
            ("brightness", 0.0, 10.0),
            ("contrast", 0.0, 3.0),
            ("noise", 0.0, 10.0),
            ("drop", 0.0, 0.9),
        ):
            if not least <= getattr(self, name) <= most:
                rule = f"be from {least:g} to {most:g}"
                raise BadInput(sentence(name, rule, f"{name}={getattr(self, name)}"))

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
        if self.rotate or self.zoom > 1:
            angle = radians(self.rotate) * _uniform(n, generator)
            scale = self.zoom ** _uniform(n, generator)
            image, mask = affine_block(image, mask, angle, scale)
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
        every = tuple(range(bands))
        groups = (every,) if self.groups is None else self.groups
        if self.brightness or self.contrast:
            shift, stretch = torch.zeros(2, n, bands, 1, 1, device=image.device)
            for group in groups:
                shift[:, list(group)] = self.brightness * _uniform(n, generator).view(n, 1, 1, 1)
                stretch[:, list(group)] = self.contrast * _uniform(n, generator).view(n, 1, 1, 1)
            image = radiometry_block(image, shift, stretch, mean, std)
        touched = torch.zeros(bands, 1, 1, dtype=torch.bool, device=image.device)
        touched[[band for group in groups for band in group]] = True
        if self.noise:
            drawn = torch.randn(image.shape, generator=generator, device=image.device)
            image = torch.where(touched, image + self.noise * std * drawn, image)
        if self.drop:
            gone = torch.rand((n, bands, 1, 1), generator=generator, device=image.device) < self.drop
            image = image.masked_fill(gone & touched, float("nan"))
        return image


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


def affine_block(image: Tensor, mask: Tensor, angle: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Turn and enlarge each tile about its centre.

    Parameters
    ----------
    image : (n, band, y, x) float32 tensor
        NaN where void. Bilinear; a pixel that void or the outside has a part in is void.
    mask : (n, y, x) uint8 tensor
        By the nearest pixel; 255 outside.
    angle : (n,) tensor
        Radians.
    scale : (n,) tensor
        Above 1 enlarges.

    Returns
    -------
    image, mask of the same shapes
    """
    y, x = image.shape[-2:]
    sine, cosine, none = torch.sin(angle) / scale, torch.cos(angle) / scale, torch.zeros_like(angle)
    # The grid runs from -1 to 1 on both axes, so a turn of an oblong tile needs the ratio of its sides.
    theta = torch.stack([cosine, -sine * y / x, none, sine * x / y, cosine, none], dim=1).view(-1, 2, 3).to(image)
    places = affine_grid(theta, [len(image), 1, y, x], align_corners=False)
    void = torch.isnan(image)
    filled = torch.where(void, image.new_zeros(()), image)
    known = grid_sample((~void).float(), places, align_corners=False)
    values = grid_sample(filled, places, align_corners=False)
    values = torch.where(known > 1 - 1e-4, values, values.new_full((), float("nan")))
    # Outside is 0 to grid_sample, so every label moves up by one on the way there and down on the way back.
    labels = grid_sample(mask.unsqueeze(1).float() + 1, places, mode="nearest", align_corners=False).squeeze(1)
    return values, torch.where(labels == 0, labels.new_full((), UNKNOWN), labels - 1).to(mask.dtype)


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


def _uniform(n: int, generator: torch.Generator) -> Tensor:
    """Draw n numbers from -1 to 1."""
    return 2 * torch.rand(n, generator=generator, device=generator.device) - 1
