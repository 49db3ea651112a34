"""How much context a model gets, and what it costs to give less than it looks at."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lsdask import models
from lsdask.errors import BadInput, sentence

TRIED = 64
"""Side of the square whose scores are compared with less and with all context, pixels."""

FURTHEST = 512
"""Context that stands for all of it where a network looks further, pixels."""

NOTICED = 1 / 250
"""Changes of scores below this, one step of uint8 scores, are not worth a warning."""

ROOM = str(Path(__file__).parents[1])


def halo_of(halo: int | Literal["auto"], model: Any, networks: Sequence[models.Runner], stride: int) -> int:
    """Give the halo in pixels.

    Parameters
    ----------
    halo : int or "auto"
        Auto is what the model says of itself: a network's halo as its folder states it, else its reach; the ``reach``
        of any other callable.
    model : callable
        Asked if there are no networks.
    networks : sequence of models.Runner
    stride : int
        The halo is rounded up to a multiple of it, which takes no room that the network would not pad.

    Raises
    ------
    BadInput
        If the model does not say, or the halo is no whole number.
    """
    if halo == "auto":
        halo = max(map(_said, networks)) if networks else _of_function(model)
    if isinstance(halo, bool) or not isinstance(halo, int | np.integer) or halo < 0:
        raise BadInput(sentence("halo", "be 'auto' or a whole number of pixels", f"halo={halo!r}"))
    return -(-int(halo) // stride) * stride


def _said(network: models.Runner) -> int:
    if network.spec.halo is not None:
        return network.spec.halo
    far = models.reach(network.source)
    if far is None:
        rule = f"be given for {network.spec.name}, whose scores depend on the whole input"
        raise BadInput(sentence("halo", rule, "halo='auto'", "Pass halo=64; scores then depend a little on the tile"))
    return far


def _of_function(model: Any) -> int:
    if hasattr(model, "reach"):
        return int(model.reach)
    rule = "be given for a function without a 'reach' of its own"
    raise BadInput(sentence("halo", rule, "halo='auto'", "Pass halo=0 if it looks at single pixels"))


def missing(networks: Sequence[models.Runner], halo: int, stride: int) -> int | None:
    """Give the context that networks would look at beyond a halo: a larger halo, or None if there is none.

    Networks of the user's own are not asked: it takes long, and they may be anything.
    """
    known = [network for network in networks if network.spec.name in models.NAMES]
    far = max((models.reach(network.source) or FURTHEST for network in known), default=0)
    wide = -(-min(far, max(FURTHEST, 2 * halo)) // stride) * stride
    return wide if wide > halo else None


def change_block(run: Any, block: np.ndarray, halo: int) -> float:
    """Measure how far scores change if a model sees only so much context.

    Parameters
    ----------
    run : callable
        Blocks (n, band, y, x) to scores (n, class, y, x).
    block : (1, band, y, x) array
        A square of ``TRIED`` pixels and all context around it.
    halo : int
        The lesser context, pixels.

    Returns
    -------
    float, the largest change in the square; scores are 0 to 1
    """
    wide = (block.shape[-1] - TRIED) // 2
    less = block[..., wide - halo : wide + TRIED + halo, wide - halo : wide + TRIED + halo]
    whole = run(block)[..., wide : wide + TRIED, wide : wide + TRIED]
    return float(np.abs(run(less)[..., halo : halo + TRIED, halo : halo + TRIED] - whole).max())


def warn(change: float, halo: int, wide: int) -> None:
    """Warn the caller outside lsdask that scores depend on the cut, if they do so noticeably."""
    if change >= NOTICED:
        warnings.warn(
            f"halo={halo} is less than the network looks: near the edges of tiles or windows scores can change by "
            f"{change:.3f} (the largest change in one block of this image, against halo={wide}). Pass a larger one.",
            UserWarning,
            skip_file_prefixes=(ROOM,),
        )
