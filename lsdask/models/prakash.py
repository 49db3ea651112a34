"""The residual U-Net of Prakash et al. 2021: three stems, a full-resolution skip, deep supervision.

Layer by layer as in Supplementary Fig. 2 of the paper: 20 775 893 parameters with 3 + 3 + 2 bands, of which
20 753 365 are trained and the rest are running means and variances.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from lsdask.errors import BadInput, sentence
from lsdask.models.soares import _refuse
from lsdask.models.spec import Spec

STRIDE = 32
"""Five halvings."""

STEMS = (3, 3, 2)
"""Bands of the image before, the image after, and the terrain (hillshade, slope)."""

WIDTHS = (24, 24, 16)
"""Channels of the three stems, 64 together."""

DOWN = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (256, 3, 2))
"""Channels, blocks and stride of stages 2 to 5."""

UP = (256, 128, 64, 64, 64)
"""Channels of stages 6 to 10; each begins with what comes up and the skip of its size."""

DROPOUT = 0.5
"""Before stage 5. The paper gives no rate; this is an assumption."""

LAST_DROPOUT = 0.2
"""Of whole channels before the last layer. The paper gives no rate; this is an assumption."""

NARROW = (1, 2, 4, 8)
"""How many times fewer channels a lighter network of the same layers may have."""


class PrakashResUnet(nn.Module):
    """See the module.

    Parameters
    ----------
    stems : three ints
        Bands of each stem, in the order of the input.
    classes : int
    narrow : int
        How many times fewer channels than the paper's it has everywhere.
    """

    def __init__(self, stems: tuple[int, ...], classes: int, narrow: int = 1) -> None:
        super().__init__()
        self.stems = list(stems)
        widths, up = ([width // narrow for width in full] for full in (WIDTHS, UP))
        down = [(width // narrow, blocks, stride) for width, blocks, stride in DOWN]
        self.begin = nn.ModuleList(_stem(bands, width) for bands, width in zip(stems, widths))
        self.skip = nn.ModuleList(_stage(bands, width, 3, 1) for bands, width in zip(stems, widths))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        before = [sum(widths), *(width for width, _, _ in down)]
        self.down = nn.ModuleList(_stage(a, *stage) for a, stage in zip(before, down))
        self.drop = nn.Dropout(DROPOUT)
        skips = [down[2][0], down[1][0], down[0][0], sum(widths), sum(widths)]
        self.up = nn.ModuleList(_stage(a + b, c, 3, 1) for a, b, c in zip([down[-1][0], *up], skips, up))
        self.heads = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in up[:-1])
        self.last_drop = nn.Dropout2d(LAST_DROPOUT)
        self.last = nn.Conv2d(up[-1], classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        parts = image.split(self.stems, dim=1)
        x = torch.cat([stem(part) for stem, part in zip(self.begin, parts)], dim=1)
        skips = [torch.cat([stage(part) for stage, part in zip(self.skip, parts)], dim=1), x]
        x = self.pool(x)
        for stage in self.down[:-1]:
            x = stage(x)
            skips.append(x)
        x = self.down[-1](self.drop(x))
        coarse = []
        for stage in self.up:
            x = stage(torch.cat([interpolate(x, scale_factor=2.0, mode="nearest"), skips.pop()], dim=1))
            coarse.append(x)
        logits = self.last(self.last_drop(x))
        if not self.training:
            return logits
        size = (image.shape[-2], image.shape[-1])
        return [logits, *(_enlarge(head(level), size) for head, level in zip(self.heads, coarse))]


class Block(nn.Module):
    """conv - norm - ReLU - conv - norm, plus the shortcut, ReLU; the first of a stage has a convolved shortcut."""

    def __init__(self, before: int, after: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.first = _conv(before, after, stride)
        self.second = _conv(after, after, 1)
        self.shortcut = _conv(before, after, stride) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class SameConv(nn.Conv2d):
    """A 3 x 3 convolution that halves an even size, with the missing pixel below and right, as Keras pads it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad(x, (0, 1, 0, 1)))


def build(spec: Spec, weights: str | None) -> tuple[nn.Module, int]:
    """Build it for a spec. Options: ``stems``, the bands of each of the three, if not 3, 3 and 2; ``narrow``."""
    _refuse(spec, weights, {"stems", "narrow"})
    stems = tuple(spec.options.get("stems", STEMS))
    if len(stems) != 3 or any(not isinstance(n, int) or n < 1 for n in stems) or sum(stems) != spec.channels:
        rule = f"be three counts (before, after, terrain) that make the {spec.channels} bands"
        raise BadInput(sentence("stems", rule, f"stems={stems}"))
    narrow = spec.options.get("narrow", 1)
    if narrow not in NARROW:
        raise BadInput(sentence("narrow", f"be one of {', '.join(map(str, NARROW))}", f"narrow={narrow!r}"))
    return PrakashResUnet(stems, spec.classes, narrow), STRIDE


def _stem(bands: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(bands, width, 7, stride=2, padding=3), _norm(width), nn.ReLU())


def _stage(before: int, after: int, blocks: int, stride: int) -> nn.Sequential:
    first = Block(before, after, stride, first=True)
    return nn.Sequential(first, *(Block(after, after, 1, first=False) for _ in range(blocks - 1)))


def _conv(before: int, after: int, stride: int) -> nn.Sequential:
    conv = SameConv(before, after, 3, stride=2) if stride == 2 else nn.Conv2d(before, after, 3, padding=1)
    return nn.Sequential(conv, _norm(after))


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


def _enlarge(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a coarse head to full size. The paper interpolates probabilities, so logits are taken there and back."""
    scores = interpolate(torch.sigmoid(logits.float()), size=size, mode="bilinear", align_corners=False)
    return torch.logit(scores, eps=1e-6)
