"""Apply a model to images of any size: lazily in a notebook, or store to store as a run that survives.

A model is anything that turns blocks (n, band, y, x) into scores (n, class, y, x). Each tile is computed from its
block, the tile and its halo; at the border of the image the halo is mirrored. If the model looks no further than the
halo, the scores are those of the whole image in one pass, however it was cut.

Void pixels (no data in some band) are unknown in the scores. A network fills them with the mean of its training
bands; any other callable sees ``fill`` there.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr

from lsdask import __version__, ledger, models, schema, store, tasks, tiling
from lsdask.errors import BadInput, sentence

if TYPE_CHECKING:
    from distributed import Client

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


def apply(
    image: xr.DataArray,
    model: Model,
    *,
    tile: int = 2048,
    halo: int = 64,
    classes: Sequence[str] | None = None,
    dtype: str = "uint8",
    edge: tiling.Edge = "reflect",
    fill: float = 0.0,
    device: str = "auto",
    precision: str = "auto",
) -> xr.DataArray:
    """Give the scores of an image, lazily: for a notebook, and images of up to some thousand tiles.

    Parameters
    ----------
    image : DataArray (band, y, x)
        For a network, with the bands it was trained on.
    model : path, torch module or callable
        A model folder, a network of ``models``, any other torch module (it sees raw units, void as 0, and gives
        logits; see ``models.wrap``), or any callable from numpy blocks (n, band, y, x), as stored, to probabilities
        (n, class, y, x).
    tile : int
        Side of a chunk of the scores, in pixels.
    halo : int
        Context on each side of a tile, in pixels.
    classes : sequence of str, optional
        Names of the classes; a callable that gives more than one needs them.
    dtype : {"uint8", "float32"}
        ``uint8`` holds ``round(p * 250)``, and 255 where unknown; ``float32`` holds p, and NaN.
    edge : {"reflect", "nearest"}
        What stands outside the image.
    fill : float
        What a callable sees where there is no data.
    device, precision : str
        For a network: see ``models.runner``.

    Returns
    -------
    DataArray (class, y, x) of ``dtype``

    Raises
    ------
    BadInput
        If the image is no mosaic, or its bands are not the model's.
    """
    scorer = _scorer(image, model, classes, dtype, edge, fill, device, precision)
    grid = tiling.grid((image.sizes["y"], image.sizes["x"]), tile, halo=halo)
    data = da.asarray(image.data)
    rows, columns = grid.count
    tiles = [[_lazy_tile(data, grid[row, column], scorer) for column in range(columns)] for row in range(rows)]
    return _scores(da.block(tiles), image, scorer)


def _lazy_tile(data: da.Array, tile: tiling.Tile, scorer: Scorer) -> da.Array:
    # What map_overlap does, without its trimming by the chunk sizes it was given, its re-chunking of what is smaller
    # than the halo, and its mirroring that doubles the edge pixel. As many tasks a tile.
    window = data[(slice(None), *tile.read)].rechunk(-1)
    chunks = ((len(scorer.classes),), *((side.stop - side.start,) for side in tile.write))
    meta = np.empty((0, 0, 0), scorer.dtype)
    return da.map_blocks(scorer.tile, window, tile, dtype=scorer.dtype, chunks=chunks, meta=meta, name=None)


def run(
    source: str | Path | xr.DataArray,
    target: str | Path,
    model: Model,
    *,
    tile: int = 2048,
    halo: int = 64,
    client: "Client | None" = None,
    workers: int | None = None,
    classes: Sequence[str] | None = None,
    dtype: str = "uint8",
    edge: tiling.Edge = "reflect",
    fill: float = 0.0,
    device: str = "auto",
    precision: str = "auto",
    retries: int = 2,
    progress: bool = True,
) -> tasks.Report:
    """Write the scores of an image to a store, tile by tile; a run that was stopped goes on when called again.

    Parameters
    ----------
    source : path or DataArray (band, y, x)
        A store, one that ``store.open`` opened, or any other image, which then travels with the work.
    target : str or Path
        The store of scores: new, or one that holds this very run.
    model : path, torch module or callable
        As for ``apply``. Workers of a cluster on other machines must see the folder or can be given the network.
    tile : int
        Side of a tile and of the target's shards, in pixels; lowered to fit a small image.
    halo : int
        Context on each side of a tile, in pixels.
    client : distributed.Client, optional
        Where to run; default threads of this process.
    workers : int, optional
        Those threads; default two for a network, which itself uses all cores: one computes while the other reads
        and writes.
    classes, dtype, edge, fill, device, precision
        As for ``apply``.
    retries : int
        How often a tile is tried again after a failed read or write.
    progress : bool
        Show a bar once the run has taken two seconds.

    Returns
    -------
    tasks.Report
        With the tiles that failed and why; ``metrics`` sums pixels, void tiles, and seconds of reading, computing
        and writing over the threads.

    Raises
    ------
    BadInput, NotFound, Unreadable
        If source or model cannot be used.
    OtherPlan
        If the target holds another run.
    """
    image = source if isinstance(source, xr.DataArray) else store.open(source)
    scorer = _scorer(image, model, classes, dtype, edge, fill, device, precision)
    tile = min(tile, _whole(max(image.sizes["y"], image.sizes["x"])))
    if isinstance(scorer.runner, models.Runner):
        scorer.runner.precision = _precision(scorer.runner, image, target, client)
    template = _scores(da.zeros(_shape(image, scorer), chunks=-1, dtype=dtype), image, scorer)
    return tasks.run(
        Kernel(store.reader(image), str(target), scorer),
        target=target,
        template=template,
        tile=tile,
        halo=halo,
        plan=_plan(image, model, scorer, fill),
        client=client,
        workers=workers or (2 if isinstance(scorer.runner, models.Runner) else None),
        retries=retries,
        progress=progress,
        label="predict",
    )


@dataclass(frozen=True)
class Kernel:
    """Reads a tile's block, scores it and writes the tile: one task of ``run``."""

    reader: store.Reader
    target: str
    scorer: Scorer

    def __call__(self, tile: tiling.Tile) -> dict[str, float]:
        begun = time.perf_counter()
        data = self.reader.read(*tile.read)
        read = time.perf_counter()
        scores = self.scorer.tile(data, tile)
        computed = time.perf_counter()
        store.array(self.target, mode="r+", name=NAME)[(slice(None), *tile.write)] = scores
        return {
            "pixels": float(scores[0].size),
            "read_s": read - begun,
            "compute_s": computed - read,
            "write_s": time.perf_counter() - computed,
        }


def _whole(side: int) -> int:
    """Round a side up to whole 64 pixels: a small image's tile, so that its block is not mostly padding."""
    return -(-side // 64) * 64


def _precision(runner: models.Runner, image: xr.DataArray, target: str | Path, client: "Client | None") -> str:
    """Settle what "auto" means once for the whole run, so that no worker decides for itself.

    A run that goes on keeps the precision it began with.
    """
    if runner.precision != "auto":
        return runner.precision
    held = ledger.plan_of(target).get("precision") if store.exists(target) else None
    if held is not None:
        return str(held)
    block = _probe(image, runner.nodata)
    if block is None:
        return "float32"
    return runner.settle(block) if client is None else client.submit(_settle, runner, block, pure=False).result()


def _settle(runner: models.Runner, block: np.ndarray) -> str:
    return runner.settle(block)


def _probe(image: xr.DataArray, nodata: float | int | None) -> np.ndarray | None:
    """Find a block (1, band, y, x) with data: windows spread over the image, at most 64; None if all are void."""
    grid = tiling.grid((image.sizes["y"], image.sizes["x"]), models.CHECKED)
    reader = store.reader(image)
    places = list(grid.places()) if len(grid) <= 64 else _spread(grid)
    for place in places:
        block = reader.read(*grid[place].write)
        if schema.valid_block(block, nodata).mean() > 0.5:
            return block[None]
    return None


def _spread(grid: tiling.Grid) -> list[tuple[int, int]]:
    rows, columns = (np.linspace(0, count - 1, 8).astype(int) for count in grid.count)
    places = [(int(row), int(column)) for row in rows for column in columns]
    return [places[i] for i in np.random.default_rng(0).permutation(len(places))]


def _scorer(
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
    """Give the spec of a network, None for any other callable; a folder is read whole, so that damage shows now."""
    if isinstance(model, str | Path):
        return models.load(model).spec
    return model.spec if isinstance(model, models.Segmenter) else None


def _class_names(count: int) -> tuple[str, ...]:
    return ("landslide",) if count == 1 else tuple(f"class_{i}" for i in range(count))


def _shape(image: xr.DataArray, scorer: Scorer) -> tuple[int, int, int]:
    return len(scorer.classes), image.sizes["y"], image.sizes["x"]


def _scores(data: da.Array, image: xr.DataArray, scorer: Scorer) -> xr.DataArray:
    coords = {"class": list(scorer.classes)}
    attrs = schema.score_attrs(scorer.dtype)
    return schema.wrap(data, schema.geobox(image), schema.SCORES, name=NAME, coords=coords, attrs=attrs)


def _plan(image: xr.DataArray, model: Model, scorer: Scorer, fill: float) -> dict[str, Any]:
    return {
        "what": "predict",
        "version": __version__,
        "source": store.fingerprint(image),
        "bands": list(schema.bands(image)),
        "model": _digest(model),
        "classes": list(scorer.classes),
        "dtype": scorer.dtype,
        "edge": scorer.edge,
        "fill": fill if isinstance(scorer.runner, Filled) else None,
        "precision": scorer.runner.precision if isinstance(scorer.runner, models.Runner) else None,
    }


def _digest(model: Model) -> str:
    """Name a model by its weights and spec; any other callable by its own name."""
    if isinstance(model, str | Path | models.Segmenter):
        return models.digest(model)
    named = model if hasattr(model, "__qualname__") else type(model)
    return f"{named.__module__}.{named.__qualname__}"
