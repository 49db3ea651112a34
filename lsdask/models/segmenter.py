"""The module round every network: normalisation, void and padding are the model's own, so they cannot differ."""

from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lsdask.errors import BadInput, sentence
from lsdask.models.relief import DEM, terrain_block
from lsdask.models.spec import Spec


class Segmenter(nn.Module):
    """A network that takes images as they are: raw units, NaN where void, any size.

    Parameters
    ----------
    net : Module
        Takes a normalised (n, band, y, x) tensor with sides divisible by ``stride``; gives logits
        (n, class, y, x), or in training a list of them, the first of full size and the one that counts.
    spec : Spec
        What it is.
    stride : int
        What its input's sides must be divisible by, pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, spec: Spec, stride: int) -> None:
        super().__init__()
        self.net = net
        self.spec = spec
        self.stride = stride
        self.frozen = False
        self.register_buffer("mean", torch.tensor(spec.mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Give the logits of an image.

        Parameters
        ----------
        image : (n, band, y, x) float tensor
            Raw units, NaN where void.

        Returns
        -------
        (n, class, y, x) float32 tensor
        """
        return self.outputs(image)[0]

    def outputs(self, image: Tensor) -> list[Tensor]:
        """Give every output of the network as logits of the image's size: more than one under deep supervision."""
        y, x = image.shape[-2:]
        padded = pad_to_stride_block(self.seen(image), self.stride)
        found = self.net(padded)
        every = [found] if isinstance(found, Tensor) else list(found)
        if every[0].shape[-2:] != padded.shape[-2:]:
            got = f"{tuple(every[0].shape[-2:])} for an input of {tuple(padded.shape[-2:])}"
            raise BadInput(sentence(self.spec.name, "give an output of its input's size", got, "Leave out its options"))
        return [logits[..., :y, :x].float() for logits in every]

    def seen(self, image: Tensor) -> Tensor:
        """Give what the network sees of an image: bands normalised, terrain in the place of heights, void as 0."""
        image, spec = image.float(), self.spec
        scaled = normalise_block(image, self.mean, self.std)
        if not (spec.terrain and spec.pixel_m):
            return scaled
        place = spec.bands.index(DEM)
        planes = terrain_block(scaled[:, place], image[:, place], spec.terrain, spec.pixel_m)
        return torch.cat([scaled[:, :place], planes, scaled[:, place + 1 :]], dim=1)

    def _repr_html_(self) -> str:
        return self.spec._repr_html_()

    def describe(self, **changes: Any) -> None:
        """Change what the spec says, such as its tile, halo or threshold."""
        self.spec = replace(self.spec, **changes)

    @property
    def encoder(self) -> nn.Module | None:
        """The network's encoder, if it has one."""
        encoder = getattr(self.net, "encoder", None)
        return encoder if isinstance(encoder, nn.Module) else None

    def freeze_encoder(self, frozen: bool = True) -> None:
        """Keep the encoder as it is in training, its batch normalisation too; or let it go again.

        Raises
        ------
        BadInput
            If the network has no encoder.
        """
        if self.encoder is None:
            raise BadInput(sentence("freeze_encoder", "be False where a network has no encoder", self.spec.name))
        self.frozen = frozen
        self.encoder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Go to training mode or back; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen and self.encoder is not None:
            self.encoder.eval()
        return self


class TileClassifier(Segmenter):
    """A Segmenter whose logits are one pixel for a whole tile: (n, class, 1, 1)."""

    def outputs(self, image: Tensor) -> list[Tensor]:
        """Give the logits of each tile."""
        padded = pad_to_stride_block(self.seen(image), self.stride)
        return [self.net(padded).float()]


def normalise_block(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Centre and scale each band; void becomes 0, the mean.

    Parameters
    ----------
    image : (..., band, y, x) tensor
        Raw units, NaN where void.
    mean, std : (band, 1, 1) float32 tensor

    Returns
    -------
    (..., band, y, x) float32 tensor without NaN
    """
    scaled = (image.float() - mean) / std
    return torch.where(torch.isnan(scaled), scaled.new_zeros(()), scaled)


def pad_to_stride_block(image: Tensor, stride: int) -> Tensor:
    """Extend an image at the bottom and right until ``stride`` divides its sides.

    At the bottom and right only, so that pixel (0, 0) stays on the network's lattice. Mirrored about the last
    pixel, or the last pixel repeated where the image is too small for that.

    Parameters
    ----------
    image : (n, band, y, x) tensor
    stride : int

    Returns
    -------
    (n, band, y, x) tensor; ``image`` itself where nothing is missing
    """
    y, x = image.shape[-2:]
    below, right = -y % stride, -x % stride
    if not (below or right):
        return image
    mode = "reflect" if below < y and right < x else "replicate"
    return pad(image, (0, right, 0, below), mode=mode)
