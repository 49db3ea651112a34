"""Training as a step of an experiment does it."""

import warnings
from pathlib import Path
from typing import Any

from lsdask import models, training


def learnt(
    model: models.Segmenter, train: training.Tiles, valid: training.Tiles, folder: Path, **settings: Any
) -> tuple[training.Trained, bool]:
    """Train a model in a step's folder, going on with what an earlier try left there.

    Parameters
    ----------
    model, train, valid
        As of ``training.fit``.
    folder : Path
        Of the model.
    **settings
        Further arguments of ``training.fit``; the learning rate stays as it is and tiles are not changed at random,
        unless they say so.

    Returns
    -------
    Trained, and whether the model has collapsed: it gives one score everywhere, which is a result and no fault
    """
    options = {"schedule": "constant", "augment": False, "resume": True, "progress": False, **settings}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The model has collapsed")
        done = training.fit(model, train, valid, folder=folder, **options)
    return done, bool((done.model.spec.record or {}).get("warnings"))
