"""What is done to each tile: blocks in, encoded scores out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import models, schema, tiling
from lsdask.errors import BadInput, sentence
from lsdask.predict.batching import Batched, check_batch, ruled
from lsdask.predict.composing import TURNS, Averaged, Filled, Run, Turned, Turns
from lsdask.predict.reaching import halo_of
from lsdask.predict.windows import Blend, Lattice, cut, lattice, score_block

NAME = "scores"
"""The variable of a store of scores."""

SMALL = 64
"""The tile of an image smaller than a tile is lowered to whole multiples of this, pixels."""

Model = Any
"""A model folder (str or Path), a torch module (``models.wrap`` says how it is seen), a callable on numpy blocks, or a
list of folders and networks, whose scores are averaged."""

Edge = Literal["reflect", "nearest", "constant", "void"]
"""What stands outside the image: itself mirrored, its edge pixels, ``fill``, or no data."""


@dataclass(frozen=True)
class Scorer:
    """What is done to each tile: the same in ``apply`` and in ``run``.

    Attributes
    ----------
    runner : Batched
        Blocks (n, band, y, x) as stored to probabilities (n, class, y, x).
    networks : tuple of models.Runner
        The networks in it; none in any other callable.
    lattice : Lattice
        The windows that go through it.
    nodata : float, int or None
        What stands for no data in the blocks.
    classes : tuple of str
        The classes of the scores.
    dtype : str
        ``uint8`` or ``float32``.
    edge : {"reflect", "nearest", "constant"}
        What stands outside the image.
    outside : float
        That constant.
    """

    runner: Batched
    networks: tuple[models.Runner, ...]
    lattice: Lattice
    nodata: float | int | None
    classes: tuple[str, ...]
    dtype: str
    edge: tiling.Edge
    outside: float

    def tile(self, data: np.ndarray, tile: tiling.Tile, where: np.ndarray | None = None) -> np.ndarray:
        """Score a tile from the pixels of ``tile.read``.

        Parameters
        ----------
        data : (band, y, x) array
            As stored.
        tile : Tile
            The tile they were read for, of a grid whose halo is ``lattice.margin``.
        where : (y, x) bool array, optional
            Of ``tile.write``: where scores are wanted.

        Returns
        -------
        (class, y, x) array of ``dtype``, the size of ``tile.write``; unknown where a band has no data, and where no
        score is wanted
        """
        inside = tuple(slice(w.start - r.start, w.stop - r.start) for w, r in zip(tile.write, tile.read))
        valid = schema.valid_block(data[(slice(None), *inside)], self.nodata)
        if where is not None:
            valid &= where
        if not valid.any():
            return self.unknown(valid.shape)
        block = tiling.extend_block(data, tile, self.edge, self.outside)
        margin = 2 * self.lattice.margin
        wanted = np.zeros((block.shape[1] - margin, block.shape[2] - margin), bool)
        own = tuple(slice(0, size) for size in valid.shape)
        wanted[own] = valid
        batch = self.runner.most
        scores = score_block(block, wanted, self._score, len(self.classes), self.lattice, batch=batch)
        encoded = schema.encode_scores_block(scores[(slice(None), *own)], self.dtype)
        return np.where(valid, encoded, self._unknown())

    def unknown(self, shape: tuple[int, ...]) -> np.ndarray:
        """Give the scores of a window (y, x) of which nothing is known."""
        return np.full((len(self.classes), *shape), self._unknown())

    def _score(self, blocks: np.ndarray) -> np.ndarray:
        scores = self.runner(blocks)
        expected = (len(blocks), len(self.classes), *blocks.shape[2:])
        if scores.shape != expected:
            rule = f"give scores (n, class, y, x), here {expected} for the classes {self.classes}"
            raise BadInput(sentence("model", rule, str(scores.shape), "Pass classes=, one name a class"))
        return scores

    def _unknown(self) -> Any:
        return np.dtype(self.dtype).type(np.nan if np.dtype(self.dtype).kind == "f" else schema.UNKNOWN)


def scorer_of(
    image: xr.DataArray,
    model: Model,
    *,
    tile: int = 2048,
    halo: int | Literal["auto"] = "auto",
    window: int | None = None,
    blend: Blend = "none",
    tta: Turns = "none",
    classes: Sequence[str] | None = None,
    dtype: str = "uint8",
    edge: Edge = "reflect",
    fill: float = 0.0,
    batch: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
) -> tuple[Scorer, tiling.Grid]:
    """Make what is done to each tile, and the tiles; ``Options`` describes the arguments."""
    schema.check(image, schema.MOSAIC)
    if dtype not in ("uint8", "float32"):
        raise BadInput(sentence("dtype", "be 'uint8' or 'float32'", f"dtype={dtype!r}"))
    if tta not in TURNS:
        raise BadInput(sentence("tta", f"be one of {', '.join(TURNS)}", f"tta={tta!r}"))
    check_batch(batch)
    nodata = schema.nodata(image)
    members = _members(image, model, classes)
    networks = tuple(
        models.runner(one, nodata=nodata, device=device, precision=precision, compile=compile) for one in members
    )
    specs = [network.spec for network in networks]
    for spec in specs:
        if spec.terrain:
            models.check_pixel(spec, schema.geobox(image))
    run: Run = Filled(model, nodata, fill)
    if isinstance(model, list | tuple):
        run = Averaged(networks, _bands(image, specs))
    elif networks:
        models.check_bands(specs[0], schema.bands(image))
        run = networks[0]
    classes = classes or _class_names(_common_classes(specs))
    stride = max((network.stride for network in networks), default=1)
    halo = halo_of(halo, model, networks, stride if window is None else 1)
    shape = image.sizes["y"], image.sizes["x"]
    laid, tile = _laid(tile, max(shape), halo, window, blend, stride if networks else None)
    side, value = _outside(edge, fill, nodata, networks)
    turned = run if tta == "none" else Turned(run, tta)
    names = tuple(classes or _class_names(1))
    runner = Batched(turned, batch or ruled(laid.side))
    scorer = Scorer(runner, networks, laid, nodata, names, dtype, side, value)
    return scorer, tiling.grid(shape, tile, halo=laid.margin)


def _members(image: xr.DataArray, model: Model, classes: Sequence[str] | None) -> list[Any]:
    """Give the networks that a model is made of, as folders or ready; none if it is any other callable."""
    if isinstance(model, list | tuple):
        if not model:
            raise BadInput(sentence("model", "be a model or a list of one or more", "an empty list"))
        return [one for part in model for one in _members(image, part, classes) or [_no_network(part)]]
    if models.is_module(model):
        return [models.wrap(model, bands=schema.bands(image), classes=len(classes or _class_names(1)))]
    if isinstance(model, str | Path | models.Segmenter):
        return [model]
    if callable(model):
        return []
    rule = "be a model folder, a network of models.build or models.load, or a callable on numpy blocks"
    raise BadInput(sentence("model", rule, f"a {type(model).__name__}"))


def _no_network(part: Any) -> Any:
    do = "Average callables in one of your own"
    raise BadInput(sentence("model", "be a list of model folders and networks only", f"a {type(part).__name__}", do))


def _bands(image: xr.DataArray, specs: Sequence[models.Spec]) -> tuple[tuple[int, ...], ...]:
    """Give the places of each network's bands among the image's."""
    here = schema.bands(image)
    for spec in specs:
        missing = [band for band in spec.bands if band not in here]
        if missing:
            raise BadInput(sentence("image", f"have the bands of every model, {spec.bands}", f"no {missing}"))
    return tuple(tuple(here.index(band) for band in spec.bands) for spec in specs)


def _common_classes(specs: Sequence[models.Spec]) -> int:
    counts = {spec.classes for spec in specs} or {1}
    if len(counts) > 1:
        raise BadInput(sentence("model", "be networks of as many classes each", f"{sorted(counts)}"))
    return counts.pop()


def _fitted(tile: int, largest: int, unit: int) -> int:
    """Lower a tile to a small image, in whole units, so that its block is not mostly padding."""
    return min(tile, -(-largest // unit) * unit)


def _laid(
    tile: int, largest: int, halo: int, window: int | None, blend: Blend, stride: int | None
) -> tuple[Lattice, int]:
    """Lay the windows of a tile, and give the tile, lowered to a small image."""
    if window is not None:
        laid = lattice(tile, halo, window=window, blend=blend)
        return laid, _fitted(tile, largest, laid.step[0])
    if stride is not None and tile % stride:
        do = f"Pass tile={-(-tile // stride) * stride}"
        rule = f"be a multiple of the network's stride, {stride}, so that every tile lies alike in it"
        raise BadInput(sentence("tile", rule, f"tile={tile}", do))
    tile = _fitted(tile, largest, math.lcm(SMALL, stride or 1))
    whole = lattice(tile, halo, window=None, blend=blend)
    return (whole if stride is None else cut(whole, stride)), tile


def _outside(
    edge: Edge, fill: float, nodata: float | int | None, networks: Sequence[models.Runner]
) -> tuple[tiling.Edge, float]:
    """Give what stands outside as ``tiling`` knows it, and the constant."""
    if edge not in get_args(Edge):
        raise BadInput(sentence("edge", f"be one of {', '.join(get_args(Edge))}", f"edge={edge!r}"))
    if edge != "void":
        return edge, fill
    if not networks:
        return "constant", fill  # which is what it sees where there is no data
    if nodata is None:
        do = "Declare a nodata value, or pass edge='reflect'"
        raise BadInput(sentence("edge", "be other than 'void' where the image declares no nodata", "edge='void'", do))
    return "constant", nodata


def _class_names(count: int) -> tuple[str, ...]:
    return ("landslide",) if count == 1 else tuple(f"class_{i}" for i in range(count))


def shape_of(image: xr.DataArray, scorer: Scorer) -> tuple[int, int, int]:
    return len(scorer.classes), image.sizes["y"], image.sizes["x"]


def scores_like(data: da.Array, image: xr.DataArray, scorer: Scorer) -> xr.DataArray:
    coords = {"class": list(scorer.classes)}
    attrs = schema.score_attrs(scorer.dtype)
    return schema.wrap(data, schema.geobox(image), schema.SCORES, name=NAME, coords=coords, attrs=attrs)
