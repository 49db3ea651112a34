"""The U-Net of Soares et al. 2020 (Nova Friburgo): plain convolutions, two channels before the last."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, pad, relu

from lsdask.errors import BadInput, sentence
from lsdask.models.spec import Spec

STRIDE = 16
"""Four poolings."""


class SoaresUnet(nn.Module):
    """Four levels of two 3 x 3 convolutions, without batch normalisation or dropout.

    Source: Soares et al. 2020, section 3, and the published notebook. With 5 bands and 16, 32, 64 filters it has
    1 941 669, 7 761 221 and 31 033 989 parameters. The two channels before the last are rectified, so that a run
    can die there and give one score everywhere: ``training.fit`` says so.

    Parameters
    ----------
    bands, classes : int
    filters : int
        Of the first level; each next level has twice as many.
    """

    def __init__(self, bands: int, classes: int, filters: int = 32) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(5)]
        self.down = nn.ModuleList(_pair(a, b) for a, b in zip([bands, *widths], widths))
        self.up = nn.ModuleList(nn.Conv2d(2 * width, width, 2) for width in reversed(widths[:-1]))
        self.join = nn.ModuleList(_pair(2 * width, width) for width in reversed(widths[:-1]))
        self.narrow = nn.Conv2d(filters, 2, 3, padding=1)
        self.last = nn.Conv2d(2, classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, down in enumerate(self.down):
            x = down(max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, join in zip(self.up, self.join):
            wide = interpolate(x, scale_factor=2.0, mode="nearest")
            # "Same" padding of an even kernel: one more pixel below and right.
            raised = relu(up(pad(wide, (0, 1, 0, 1))))
            x = join(torch.cat([skips.pop(), raised], dim=1))
        return self.last(relu(self.narrow(x)))


def build(spec: Spec, weights: str | None) -> tuple[nn.Module, int]:
    """Build it for a spec; ``filters`` is its one option."""
    _refuse(spec, weights, {"filters"})
    filters = spec.options.get("filters", 1)
    if not isinstance(filters, int) or filters < 1:
        raise BadInput(sentence("filters", "be a whole number, at least 1", f"filters={filters!r}"))
    return SoaresUnet(spec.channels, spec.classes, **spec.options), STRIDE


def _refuse(spec: Spec, weights: str | None, known: set[str]) -> None:
    """Raise BadInput for downloaded weights, which do not exist, and unknown options."""
    if weights is not None:
        raise BadInput(sentence("weights", f"be None: {spec.name} has no encoder to fill", f"weights={weights!r}"))
    unknown = sorted(set(spec.options) - known)
    if unknown:
        raise BadInput(sentence("options", f"be of {', '.join(sorted(known))}", ", ".join(unknown)))


def _pair(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.Conv2d(after, after, 3, padding=1), nn.ReLU()
    )
