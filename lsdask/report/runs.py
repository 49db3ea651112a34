"""A finished run, put together or opened: what it made, what its numbers say, which of its landslides to look at."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from scipy import ndimage

from lsdask import evaluate, inventory, schema, store
from lsdask.errors import BadInput, NotFound, Unreadable, sentence
from lsdask.report import figures
from lsdask.report.maps import Window, bounds, picture, pixel_m, whole
from lsdask.report.overviews import step_of

SCORES = {
    "f1": ("F1", "balance of precision and recall"),
    "precision": ("Precision", "of what is marked, truly landslide"),
    "recall": ("Recall", "of the landslides, found"),
    "iou": ("IoU", "overlap of map and truth"),
    "mcc": ("MCC", "correlation of map and truth"),
    "accuracy": ("Accuracy", "of all pixels, right"),
}
"""Name and meaning of each score, in the order of the page."""

FEWEST_BLOCKS = 8
"""Of held-out ground, from which an interval says something."""


@dataclass(frozen=True)
class Run:
    """A finished run, opened lazily.

    Attributes
    ----------
    scene : DataArray (band, y, x)
    mask : DataArray (y, x)
        The truth.
    scores : DataArray (class, y, x) or (y, x)
    tiles : DataFrame
        y, x, size, valid, positive, split.
    polygons : GeoDataFrame
        The landslides that were mapped.
    model, metrics : dict
        What ``model.json`` and ``metrics.json`` hold.
    clusters : DataArray (k, y, x) or (y, x), optional
    """

    scene: xr.DataArray
    mask: xr.DataArray
    scores: xr.DataArray
    tiles: pd.DataFrame
    polygons: gpd.GeoDataFrame
    model: dict[str, Any]
    metrics: dict[str, Any]
    clusters: xr.DataArray | None = None

    @property
    def name(self) -> str:
        """What the scene is called."""
        return str(self.metrics.get("scene") or "the scene")

    @property
    def threshold(self) -> float:
        """The score from which a pixel is a landslide."""
        return float(self.metrics.get("threshold", 0.5))

    @cached_property
    def held_out(self) -> xr.DataArray | None:
        """Which pixels lie in held-out tiles; None if no tile was held out."""
        test = self.tiles[self.tiles["split"] == "test"]
        return evaluate.within(test, self.mask) if len(test) else None

    @property
    def window(self) -> Window:
        """What holds all held-out tiles; the whole scene if there is none."""
        test = self.tiles[self.tiles["split"] == "test"]
        return bounds(test, self.mask.shape) if len(test) else whole(self.mask)

    @cached_property
    def picture(self) -> np.ndarray:
        """The whole scene in colour, (y, x, 4), read once."""
        return picture(self.scene, whole(self.scene))

    @cached_property
    def errors(self) -> np.ndarray:
        """What :func:`figures.errors` counts in the held-out window."""
        return figures.errors(self.scores, self.mask, threshold=self.threshold, valid=self.held_out, window=self.window)

    @cached_property
    def sweep(self) -> pd.DataFrame:
        """Scores of the held-out ground at every threshold that uint8 scores tell apart."""
        return evaluate.sweep(**self._held_out_parts(), thresholds=schema.SCORE_STEPS + 1)

    @cached_property
    def intervals(self) -> pd.DataFrame | None:
        """Each score's 95 % interval, by blocks of two tiles' side; None if the held-out ground has too few."""
        size = 2 * int(self.tiles["size"].max())
        counted = evaluate.blocks(**self._held_out_parts(), size=size, threshold=self.threshold)
        return evaluate.bootstrap(counted) if len(counted) >= FEWEST_BLOCKS else None

    def _held_out_parts(self) -> dict[str, Any]:
        part = self.window.of
        valid = None if self.held_out is None else part(self.held_out)
        return {"scores": part(self.scores), "mask": part(self.mask), "valid": valid}

    @cached_property
    def sizes(self) -> pd.DataFrame:
        """How well the held-out landslides of each size were found."""
        parts = self._held_out_parts()
        true = parts["mask"] == 1 if parts["valid"] is None else (parts["mask"] == 1) & parts["valid"]
        outlines = inventory.vectorize(true.assign_coords(spatial_ref=self.mask["spatial_ref"]))
        found = evaluate.landslides(parts["scores"], outlines, threshold=self.threshold)
        return evaluate.by_size(found)

    @property
    def area_m2(self) -> float:
        """Area of the scene that has data, as its picture shows it."""
        dy, dx = pixel_m(schema.geobox(self.scene))
        return float((self.picture[..., 3] > 0).mean() * np.prod(self.scene.shape[-2:]) * dy * dx)

    @property
    def mapped_m2(self) -> float:
        """Area of the mapped landslides."""
        return float(self.polygons["area_m2"].sum())


def collect(
    scene: xr.DataArray,
    scores: xr.DataArray,
    mask: xr.DataArray,
    *,
    tiles: pd.DataFrame,
    model: str | Path,
    polygons: gpd.GeoDataFrame | None = None,
    clusters: xr.DataArray | None = None,
    threshold: float = 0.5,
    class_: Any = None,
    name: str = "the scene",
) -> Run:
    """Put the parts of one's own map together, and count how good it is in its test tiles.

    Parameters
    ----------
    scene : DataArray (band, y, x)
        The mosaic that was mapped.
    scores : DataArray (class, y, x) or (y, x)
    mask : DataArray (y, x)
        The truth: 1 landslide, 0 not, 255 unknown.
    tiles : DataFrame
        Of this scene, as ``sampling.split`` gives it. Scores are counted in its test tiles; everywhere if it has none.
    model : str or Path
        The model folder.
    polygons : GeoDataFrame, optional
        The landslides that were mapped, as ``inventory.vectorize`` gives them; default those of the scores at the
        threshold, traced anew.
    clusters : DataArray (k, y, x) or (y, x), optional
        Labels to show.
    threshold : float
        Score from which a pixel is a landslide.
    class_ : optional
        Which class of the scores; needed where there are several.
    name : str
        What the scene is called in the heading.

    Returns
    -------
    Run
        For :func:`lsdask.report.write`.

    Raises
    ------
    NotFound, Unreadable
        If the model folder is none.
    BadInput
        If the parts do not lie on one grid, or the polygons have no ``area_m2``.
    """
    described = _read(Path(model) / "model.json", _read_json)
    one = schema.one_class(scores, class_)
    schema.on_grid(scene, one, "scene", "scores")
    test = tiles[tiles["split"] == "test"]
    counts = evaluate.count(one, mask, threshold=threshold, valid=evaluate.within(test, one) if len(test) else None)
    metrics = {
        **evaluate.score(counts),
        "counts": {key: int(getattr(counts, key)) for key in ("tp", "fp", "fn", "tn")},
        "threshold": threshold,
        "scene": name,
    }
    found = inventory.vectorize(one, threshold=threshold) if polygons is None else _measured(polygons)
    return Run(scene, mask, one, tiles, found, described, metrics, clusters)


def load(folder: str | Path) -> Run:
    """Open what a run wrote to its folder, reading no pixels.

    Parameters
    ----------
    folder : str or Path
        As ``lsdask demo`` fills it: it holds ``mosaic.zarr``, ``mask.zarr``, ``scores.zarr``, ``tiles.parquet``,
        ``landslides.parquet``, ``model/model.json``, ``metrics.json``, and ``clusters.zarr``. For a map of one's own
        see :func:`collect`.

    Returns
    -------
    Run

    Raises
    ------
    NotFound
        If one of them is not there; it is named.
    Unreadable
        If one of them cannot be read.
    """
    folder = Path(folder)
    return Run(
        scene=store.open(folder / "mosaic.zarr"),
        clusters=store.open(folder / "clusters.zarr"),
        mask=store.open(folder / "mask.zarr"),
        scores=store.open(folder / "scores.zarr"),
        tiles=_read(folder / "tiles.parquet", pd.read_parquet),
        polygons=_measured(_read(folder / "landslides.parquet", gpd.read_parquet)),
        model=_read(folder / "model" / "model.json", _read_json),
        metrics=_check(_read(folder / "metrics.json", _read_json)),
    )


def _measured(polygons: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    if "area_m2" not in polygons:
        got = ", ".join(map(str, polygons.columns))
        raise BadInput(sentence("polygons", "have the column area_m2, as inventory.vectorize writes it", got))
    return polygons


def _check(metrics: dict[str, Any]) -> dict[str, Any]:
    lacking = [name for name in SCORES if not isinstance(metrics.get(name), int | float)]
    if lacking:
        raise BadInput(sentence("metrics.json", f"hold a number for {', '.join(SCORES)}", f"none for {lacking}"))
    return metrics


def _read(path: Path, how: Any) -> Any:
    if not path.is_file():
        raise NotFound(sentence("folder", f"hold {path.name}", f"no {path}", "Let the run end first"))
    try:
        return how(path)
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


class Place(NamedTuple):
    """A landslide of the truth: its window, area in pixels and the share of it that was found."""

    window: Window
    area: int
    found: float


def places(counts: np.ndarray, window: Window, shape: Sequence[int], *, number: int = 4) -> list[Place]:
    """Choose among the larger half of the landslides, from the best found to the worst.

    Parameters
    ----------
    counts : (4, y, x) array
        From ``figures.errors``.
    window : Window
        What they are counts of.
    shape : (int, int)
        Of the whole image.
    number : int
        How many at most.

    Returns
    -------
    list of Place, from best found to worst
    """
    truth = counts[evaluate.TP] + counts[evaluate.FN]
    labels, n = ndimage.label(truth > 0, structure=np.ones((3, 3)))
    if n == 0:
        return []
    area = ndimage.sum_labels(truth, labels, np.arange(1, n + 1))
    found = ndimage.sum_labels(counts[evaluate.TP], labels, np.arange(1, n + 1)) / area
    large = np.argsort(-area, kind="stable")[: max(n // 2, number)]
    ordered = large[np.argsort(-found[large], kind="stable")]
    chosen = ordered[np.unique(np.linspace(0, len(ordered) - 1, number).round().astype(int))]
    step = step_of((window.y1 - window.y0, window.x1 - window.x0))
    boxes = ndimage.find_objects(labels)
    return [Place(_around(boxes[i], window, step, shape), int(area[i]), float(found[i])) for i in chosen]


def _around(box: tuple[slice, ...], window: Window, step: int, shape: Sequence[int]) -> Window:
    """Give a square around a box of overview cells, 64 to 768 pixels, inside the image."""
    y, x = (slice(part.start * step + start, part.stop * step + start) for part, start in zip(box, window))
    side = int(np.clip(1.6 * max(y.stop - y.start, x.stop - x.start), 64, 768))
    y0, x0 = (int(np.clip((s.start + s.stop - side) // 2, 0, max(n - side, 0))) for s, n in zip((y, x), shape[-2:]))
    return Window(y0, x0, min(y0 + side, shape[-2]), min(x0 + side, shape[-1]))


def history(record: Mapping[str, Any]) -> pd.DataFrame | None:
    """Give the losses of a training record as columns epoch, train, valid; None if it holds none.

    Parameters
    ----------
    record : mapping
        ``history`` in it is a list with a mapping an epoch, or a mapping of lists.
    """
    table = pd.DataFrame(record.get("history") or [])
    losses = {}
    for name, sign in (("train", "train"), ("valid", "val")):
        columns = [key for key in table if sign in str(key) and ("loss" in str(key) or key == name)]
        if columns:
            losses[name] = table[columns[0]].astype("float64")
    if "train" not in losses:
        return None
    epoch = table["epoch"] if "epoch" in table else np.arange(len(table))
    return pd.DataFrame({"epoch": epoch, **losses})
