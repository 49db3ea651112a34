"""Learning one inventory after another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsdask import models
from lsdask.errors import BadInput, sentence
from lsdask.streaming import MixedStream, Stream
from lsdask.training.fitting import fit
from lsdask.training.keeping import Trained
from lsdask.training.streams import Tiles


def progressive(
    model: models.Segmenter,
    inventories: Sequence[Stream],
    valid: Tiles | None = None,
    *,
    folder: str | Path,
    epochs: int,
    seed: int = 0,
    **arguments: Any,
) -> tuple[Trained, ...]:
    """Train on the first inventory, go on with the first two, and so on to all.

    Each stage begins with the best weights of the one before, with a new optimiser and schedule, and leaves a model
    folder of its own, ``folder/stage-1`` and so on. With ``resume=True`` stages that are done are not run again.

    Parameters
    ----------
    model : Segmenter
        Trained in place.
    inventories : sequence of streams
        With the same bands, dtype and nodata.
    valid : TileStream, optional
        Judges every stage.
    folder : path
        Of the stages' folders.
    epochs : int
        Of each stage, at most.
    seed : int
        Of augmentation, dropout and the order in which inventories take turns.
    **arguments
        As of ``fit``.

    Returns
    -------
    tuple of Trained
        One a stage; only the last one's model is as it was trained, as all are the same object.

    Raises
    ------
    BadInput, OtherPlan
        As ``fit`` does, and if the inventories do not go together.

    Examples
    --------
    >>> progressive(model, [hokkaido, nepal], valid, folder="model", epochs=20)  # doctest: +SKIP
    """
    if not inventories:
        raise BadInput(sentence("inventories", "be one stream or more", "none"))
    mixes = [MixedStream(inventories[:n], seed=seed) for n in range(2, len(inventories) + 1)]
    stages: list[Tiles] = [inventories[0], *mixes]
    return tuple(
        fit(model, train, valid, epochs=epochs, folder=Path(folder) / f"stage-{n}", seed=seed, **arguments)
        for n, train in enumerate(stages, start=1)
    )
