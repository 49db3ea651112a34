"""Training as a step of an experiment does it."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lsdask import models, streaming, training

SETTINGS: dict[str, Any] = {"schedule": "constant", "augment": False, "resume": True, "progress": False}
"""What steps ask of ``training.fit`` where they say nothing else: a plain rate, tiles as they are, going on."""


def learnt(
    model: models.Segmenter, train: training.Tiles, valid: training.Tiles | None, folder: Path, **settings: Any
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
    with _collapse_is_a_result():
        done = training.fit(model, train, valid, folder=folder, **SETTINGS | settings)
    return done, _collapsed(done)


def learnt_in_stages(
    model: models.Segmenter,
    inventories: Sequence[streaming.Stream],
    valid: training.Tiles | None,
    folder: Path,
    **settings: Any,
) -> tuple[tuple[training.Trained, ...], bool]:
    """Train a model on one inventory after another, as ``training.progressive`` does; else as ``learnt``."""
    with _collapse_is_a_result():
        done = training.progressive(model, inventories, valid, folder=folder, **SETTINGS | settings)
    return done, _collapsed(done[-1])


@contextmanager
def _collapse_is_a_result() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The model has collapsed")
        yield


def _collapsed(done: training.Trained) -> bool:
    return bool((done.model.spec.record or {}).get("warnings"))
