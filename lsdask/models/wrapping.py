"""A user's own torch module as a model of lsdask."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from lsdask.models.segmenter import Segmenter
from lsdask.models.spec import Spec, band_names, constants

CUSTOM = "custom"
"""Name of a network that lsdask did not build: it can be run and trained, but not saved to a model folder."""


def wrap(
    net: nn.Module,
    *,
    bands: int | Sequence[str],
    classes: int = 1,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    stride: int = 1,
) -> Segmenter:
    """Make a model of your own torch module.

    Parameters
    ----------
    net : Module
        Takes a normalised float (n, band, y, x) tensor, void as 0, sides divisible by ``stride``; gives logits
        (n, class, y, x) of the same sides.
    bands : int or sequence of str
        Band names, or how many bands there are.
    classes : int
        Outputs; 1 is a sigmoid for "landslide", more are a softmax.
    mean, std : sequence of float, optional
        Normalisation of each band; default 0 and 1, so that the module sees raw units.
    stride : int
        What its input's sides must be divisible by, pixels.

    Returns
    -------
    Segmenter
    """
    names = band_names(bands)
    spec = Spec(CUSTOM, "", names, classes, constants(mean, 0.0, names), constants(std, 1.0, names))
    return Segmenter(net, spec, stride)


def is_module(model: Any) -> bool:
    """Say whether a model is a torch module that lsdask knows nothing of."""
    return isinstance(model, nn.Module) and not isinstance(model, Segmenter)
