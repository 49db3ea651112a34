"""What is done to each tile: blocks in, encoded scores out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import models, schema, tiling
from lsdask.errors import BadInput, sentence

NAME = "scores"
"""The variable of a store of scores."""

Model = Any
"""A model folder (str or Path), a torch module (``models.wrap`` says how it is seen), or a callable on numpy blocks."""


@dataclass(frozen=True)
class Filled:
    """Any callable on blocks, which sees ``fill`` where there is no data.

    Attributes
    ----------
    function : callable
        Blocks (n, band, y, x) as stored to scores (n, class, y, x), probabilities.
    nodata : float, int or None
        What stands for no data in the blocks.
    fill : float
        What the callable sees there.
    """

    function: Callable[[np.ndarray], np.ndarray]
    nodata: float | int | None
    fill: float = 0.0

    def __call__(self, blocks: np.ndarray) -> np.ndarray:
        known = schema.known_block(blocks, self.nodata)
        return self.function(np.where(known, blocks, blocks.dtype.type(self.fill)))


@dataclass(frozen=True)
class Scorer:
    """What is done to each tile: the same in ``apply`` and in ``run``.

    Attributes
    ----------
    runner : callable
        Blocks (n, band, y, x) as stored to probabilities (n, class, y, x).
    nodata : float, int or None
        What stands for no data in the blocks.
    classes : tuple of str
        The classes of the scores.
    dtype : str
        ``uint8`` or ``float32``.
    edge : {"reflect", "nearest"}
        What stands outside the image.
    """

    runner: Callable[[np.ndarray], np.ndarray]
    nodata: float | int | None
    classes: tuple[str, ...]
    dtype: str
    edge: tiling.Edge

    def tile(self, data: np.ndarray, tile: tiling.Tile) -> np.ndarray:
        """Score a tile from the pixels of ``tile.read``.

        Parameters
        ----------
        data : (band, y, x) array
            As stored.
        tile : Tile
            The tile they were read for.

        Returns
        -------
        (class, y, x) array of ``dtype``, the size of ``tile.write``; unknown where a band has no data
        """
        valid = schema.valid_block(data, self.nodata)
        inside = tuple(slice(w.start - r.start, w.stop - r.start) for w, r in zip(tile.write, tile.read))
        valid = valid[inside]
        if not valid.any():
            return np.full((len(self.classes), *valid.shape), self._unknown())
        scores = self._score(tiling.extend_block(data, tile, self.edge))
        encoded = schema.encode_scores_block(scores[(slice(None), *tile.keep)], self.dtype)
        return np.where(valid, encoded, self._unknown())

    def _score(self, block: np.ndarray) -> np.ndarray:
        scores = np.asarray(self.runner(block[None]))
        expected = (1, len(self.classes), *block.shape[1:])
        if scores.shape != expected:
            rule = f"give scores (n, class, y, x), here {expected} for the classes {self.classes}"
            raise BadInput(sentence("model", rule, str(scores.shape), "Pass classes=, one name a class"))
        return scores[0]

    def _unknown(self) -> Any:
        return np.dtype(self.dtype).type(np.nan if np.dtype(self.dtype).kind == "f" else schema.UNKNOWN)


def scorer_of(
    image: xr.DataArray,
    model: Model,
    classes: Sequence[str] | None,
    dtype: str,
    edge: tiling.Edge,
    fill: float,
    device: str,
    precision: str,
) -> Scorer:
    schema.check(image, schema.MOSAIC)
    if dtype not in ("uint8", "float32"):
        raise BadInput(sentence("dtype", "be 'uint8' or 'float32'", f"dtype={dtype!r}"))
    nodata = schema.nodata(image)
    if models.is_module(model):
        model = models.wrap(model, bands=schema.bands(image), classes=len(classes or _class_names(1)))
    spec = _spec(model)
    if spec is not None:
        models.check_bands(spec, schema.bands(image))
        runner: models.Runner | Filled = models.runner(model, nodata=nodata, device=device, precision=precision)
        classes = classes or _class_names(spec.classes)
    elif callable(model):
        runner = Filled(model, nodata, fill)
    else:
        rule = "be a model folder, a network of models.build or models.load, or a callable on numpy blocks"
        raise BadInput(sentence("model", rule, f"a {type(model).__name__}"))
    return Scorer(runner, nodata, tuple(classes or _class_names(1)), dtype, edge)


def _spec(model: Model) -> models.Spec | None:
    """Give the spec of a network, None for any other callable."""
    if isinstance(model, str | Path):
        return models.read_spec(model)
    return model.spec if isinstance(model, models.Segmenter) else None


def _class_names(count: int) -> tuple[str, ...]:
    return ("landslide",) if count == 1 else tuple(f"class_{i}" for i in range(count))


def shape_of(image: xr.DataArray, scorer: Scorer) -> tuple[int, int, int]:
    return len(scorer.classes), image.sizes["y"], image.sizes["x"]


def scores_like(data: da.Array, image: xr.DataArray, scorer: Scorer) -> xr.DataArray:
    coords = {"class": list(scorer.classes)}
    attrs = schema.score_attrs(scorer.dtype)
    return schema.wrap(data, schema.geobox(image), schema.SCORES, name=NAME, coords=coords, attrs=attrs)
