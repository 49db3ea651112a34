"""Encoders that learn from clusters, which cost nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsdask import models
from lsdask.errors import BadInput, sentence
from lsdask.models.architectures import CLASSIFIER
from lsdask.training.fitting import fit
from lsdask.training.keeping import Trained
from lsdask.training.streams import Tiles


def pretrain(
    encoder: str,
    train: Tiles,
    valid: Tiles | None = None,
    *,
    classes: int,
    folder: str | Path,
    epochs: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> Trained:
    """Teach an encoder to tell the cluster of a tile, so that a network can begin with it.

    Cluster labels cost nothing, and so any number of tiles can be learnt from. The folder's encoder goes into any
    decoder: ``models.build("unet", bands=..., encoder=encoder, weights=folder)``.

    Parameters
    ----------
    encoder : str
        As in ``models.build``.
    train, valid : TileStream
        With cluster labels (``kmeans.assign``) as their masks, and ``classes`` of them. A tile's class is the most
        frequent label of its known pixels, the lowest of those that tie.
    classes : int
        Clusters, at least 2.
    folder : path
        The model folder to write.
    epochs : int
    mean, std : sequence of float, optional
        Normalisation of each band in raw units.
    seed : int
        Of the first weights, augmentation and dropout.
    **arguments
        As of ``fit``; the loss is cross-entropy.

    Returns
    -------
    Trained

    Raises
    ------
    BadInput
        As ``fit`` does, and if there is only one class.

    Source: Garcia et al. 2022, pre-training of a DenseNet121 on the clusters of tiles.
    """
    if not isinstance(classes, int) or classes < 2:
        raise BadInput(sentence("classes", "be at least 2 clusters", f"classes={classes!r}"))
    model = models.build(CLASSIFIER, bands=train.bands, classes=classes, encoder=encoder, mean=mean, std=std, seed=seed)
    return fit(model, train, valid, epochs=epochs, folder=folder, seed=seed, **{"loss": "bce", **arguments})
