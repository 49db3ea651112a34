"""One self-contained page about a finished run: what it found, how good it is, how it was made."""

import base64
import html
import io
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template
from typing import Any, NamedTuple
from urllib.parse import quote

import geopandas as gpd
import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from lsdask import evaluate, inventory, schema, store
from lsdask.errors import BadInput, NotFound, Unreadable, sentence
from lsdask.report import charts, figures
from lsdask.report.maps import INK, WIDTH, Window, bounds, composite_bands, picture, pixel_m, plural, whole
from lsdask.report.overviews import step_of

DPI = 200
"""Of the pictures in a figure: 1080 pixels across, two for each of a page's."""

DARK_INK = "#e6eaef"

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

PACKAGES = ("lsdask", "torch", "segmentation-models-pytorch", "xarray", "dask", "zarr", "numpy", "scikit-learn")
"""Whose versions the page names."""


@dataclass(frozen=True)
class Run:
    """A finished run, opened lazily.

    Attributes
    ----------
    scene : DataArray (band, y, x)
    clusters : DataArray (k, y, x) or (y, x)
    mask : DataArray (y, x)
        The truth.
    scores : DataArray (class, y, x)
    tiles : DataFrame
        y, x, size, valid, positive, split.
    polygons : GeoDataFrame
        The landslides that were mapped.
    model, metrics : dict
        What ``model.json`` and ``metrics.json`` hold.
    """

    scene: xr.DataArray
    clusters: xr.DataArray
    mask: xr.DataArray
    scores: xr.DataArray
    tiles: pd.DataFrame
    polygons: gpd.GeoDataFrame
    model: dict[str, Any]
    metrics: dict[str, Any]

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
        return float(self.polygons.area.sum())


def load(folder: str | Path) -> Run:
    """Open what a run wrote to its folder, reading no pixels.

    Parameters
    ----------
    folder : str or Path
        Holds ``mosaic.zarr``, ``clusters.zarr``, ``mask.zarr``, ``scores.zarr``, ``tiles.parquet``,
        ``landslides.parquet``, ``model/model.json`` and ``metrics.json``.

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
        polygons=_read(folder / "landslides.parquet", gpd.read_parquet),
        model=_read(folder / "model" / "model.json", _read_json),
        metrics=_check(_read(folder / "metrics.json", _read_json)),
    )


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


# --- figures in a page ------------------------------------------------------------------------------------------------


def embed(figure: Figure) -> str:
    """Turn a figure into a data URI: SVG whose text follows light and dark, its pictures as WebP."""
    drawn = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lsdask"}):
        figure.savefig(
            drawn,
            format="svg",
            dpi=DPI,
            transparent=True,
            bbox_inches="tight",
            pad_inches=0.03,
            metadata={"Date": None},
        )
    svg = re.sub(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)", _recompress, drawn.getvalue().decode())
    svg = re.sub(r"^.*?(?=<svg )", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    ink = f"<style>:root{{--ink:{INK}}}@media(prefers-color-scheme:dark){{:root{{--ink:{DARK_INK}}}}}</style>"
    svg = re.sub(r"(<svg [^>]*>)", rf"\1{ink}", svg, count=1).replace(f": {INK}", ": var(--ink)")
    return "data:image/svg+xml," + quote(svg, safe=" /:;,=+()'!*&?@$[]{}|^~-_.")


def _recompress(match: re.Match[str]) -> str:
    """Turn an embedded PNG into WebP, without loss where it has few colours."""
    picture = Image.open(io.BytesIO(base64.b64decode(match[1])))
    packed = io.BytesIO()
    few = picture.getcolors(maxcolors=512) is not None
    picture.save(packed, "webp", lossless=few, quality=80 if few else 88, method=2)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()


def card(title: str, figure: Figure, caption: str) -> str:
    """Make a figure of the page: title, picture and caption (plain text); a wide one takes a whole row."""
    kind = "card wide" if figure.get_figwidth() > WIDTH else "card"
    alt = html.escape(f"{title}. {caption}", quote=True)
    return (
        f'<figure class="{kind}"><h3>{html.escape(title)}</h3>'
        f'<img alt="{alt}" src="{embed(figure)}"><figcaption>{html.escape(caption)}</figcaption></figure>'
    )


# --- places worth a closer look ---------------------------------------------------------------------------------------


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


# --- words and numbers ------------------------------------------------------------------------------------------------


def area_text(m2: float) -> str:
    """Say an area in the unit that suits it.

    Examples
    --------
    >>> area_text(5286), area_text(3.21e7)
    ('5,286 m²', '32.1 km²')
    """
    if m2 < 1e5:
        return f"{m2:,.0f} m²"
    km2 = m2 / 1e6
    return f"{km2:,.0f} km²" if km2 >= 100 else f"{km2:.3g} km²"


def share_text(share: float) -> str:
    """Say a share so that 0 and 100 % are only said when they are true.

    Examples
    --------
    >>> share_text(0.8449), share_text(0.9972), share_text(0.99999), share_text(1.0)
    ('84%', '99.7%', '> 99.9%', '100%')
    """
    if share in (0.0, 1.0) or 0.005 <= share < 0.995:
        return f"{share:.0%}"
    return f"{share:.1%}" if 0.0005 <= share < 0.9995 else ("> 99.9%" if share > 0.5 else "< 0.1%")


def seconds_text(seconds: float) -> str:
    """Say a duration.

    Examples
    --------
    >>> seconds_text(3.21), seconds_text(75), seconds_text(7300)
    ('3.2 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def table(rows: Sequence[Sequence[Any]], *, head: Sequence[str] = (), kind: str = "") -> str:
    """Make an HTML table; the first column names, the others are numbers or text."""
    line = "<tr>{}</tr>".format
    cells = "".join(
        line(f"<th scope=row>{html.escape(str(row[0]))}</th>" + "".join(f"<td>{_cell(c)}</td>" for c in row[1:]))
        for row in rows
    )
    names = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in head)
    top = f"<thead>{line(names)}</thead>" if head else ""
    return f'<div class="scroll"><table class="{kind}">{top}<tbody>{cells}</tbody></table></div>'


class Markup(str):
    """Text that is HTML already."""


def _cell(value: Any) -> str:
    return value if isinstance(value, Markup) else html.escape(str(value))


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


def versions() -> dict[str, str]:
    """Give the versions of Python and of the packages that made the run."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


# --- the page ---------------------------------------------------------------------------------------------------------


def write(folder: str | Path, *, path: str | Path | None = None) -> Path:
    """Write one self-contained page, ``report.html``, about the run in a folder.

    Parameters
    ----------
    folder : str or Path
        As for :func:`load`.
    path : str or Path, optional
        Where to write instead of ``folder/report.html``.

    Returns
    -------
    Path
        The page; it needs no network and no other file.

    Raises
    ------
    NotFound, Unreadable, BadInput
        If a part of the run is missing, cannot be read, or does not fit the others.
    """
    target = Path(path) if path else Path(folder) / "report.html"
    target.write_text(page(load(folder)), encoding="utf-8")
    return target


def page(run: Run) -> str:
    """Make the page of a run, as HTML."""
    return PAGE.substitute(
        title=html.escape(f"Landslides of {run.name}"),
        lead=html.escape(lead(run)),
        scores=_score_tiles(run),
        scene=_scene_cards(run),
        result=_result_cards(run),
        details=_detail_cards(run),
        training=_training_cards(run) + _block("Landslides by size", _sizes(run.sizes)),
        tables=_tables(run),
        made=_made(run),
        style=STYLE,
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=html.escape(versions().get("lsdask", "")),
    )


def lead(run: Run) -> str:
    """Say the result in one sentence."""
    scores, number = run.metrics, len(run.polygons)
    where = "in ground the model never saw" if run.held_out is not None else "in the whole scene"
    return (
        f"The map finds {share_text(scores['recall'])} of the landslide area {where}, and "
        f"{share_text(scores['precision'])} of what it marks is landslide (F1 {scores['f1']:.2f}): "
        f"{plural(number, 'landslide')}, {area_text(run.mapped_m2)}, over {area_text(run.area_m2)}."
    )


def _score_tiles(run: Run) -> str:
    return "".join(
        f'<div class="score"><b>{run.metrics[key]:.3f}</b><span>{name}</span><small>{meaning}</small>'
        f"<i>{interval_text(run.intervals, key)}</i></div>"
        for key, (name, meaning) in SCORES.items()
    )


def _scene_cards(run: Run) -> str:
    dx = pixel_m(schema.geobox(run.scene))[1]
    height, width = run.scene.shape[-2:]
    chosen = [schema.bands(run.scene)[i] for i in composite_bands(schema.bands(run.scene))]
    size = f"{width:,} x {height:,} pixels of {dx:.3g} m. Bands {', '.join(chosen)}, 2-98 % stretch."
    cuts = "The colours of tiles: what trained, what chose the best epoch, and what was held out."
    outlined = figures.figure_scene(run.scene, polygons=run.polygons, ready=run.picture)
    kinds = "Spectral clusters by k-means, with their shares of the area."
    return (
        card("The scene", figures.figure_scene(run.scene, ready=run.picture), size)
        + card("Landslides mapped", outlined, "What the model mapped, outlined.")
        + card("Clusters", figures.figure_clusters(run.clusters), kinds)
        + card(
            "Tiles and their use",
            figures.figure_splits(run.tiles, run.scene, ready=run.picture),
            run.metrics.get("split") or cuts,
        )
    )


def _result_cards(run: Run) -> str:
    step = step_of(run.scores.shape[-2:])
    highest = (
        f"Each cell shows the highest score of its {step} x {step} pixels." if step > 1 else "Each cell is a pixel."
    )
    where = "In the held-out tiles only." if run.held_out is not None else "In the whole scene."
    most = " Each cell shows the most frequent of the three among its pixels, so that small ones stay visible."
    right = figures.draw_errors(run.errors, run.mask, run.window, run.scene)
    return card("Scores", figures.figure_scores(run.scores), highest) + card("Right and wrong", right, where + most)


def _detail_cards(run: Run) -> str:
    dy, dx = pixel_m(schema.geobox(run.mask))
    cards = []
    for place in places(run.errors, run.window, run.mask.shape):
        figure = figures.figure_detail(run.scene, run.mask, run.scores, place.window, threshold=run.threshold)
        cards.append(
            card(f"{share_text(place.found)} found", figure, f"A landslide of {area_text(place.area * dy * dx)}.")
        )
    return "".join(cards)


def _training_cards(run: Run) -> str:
    losses = history(run.model.get("record") or {})
    best = run.sweep.loc[int(run.sweep["f1"].to_numpy().argmax())]
    where = "held-out tiles" if run.held_out is not None else "whole scene"
    note = f"On the {where}. F1 is greatest, {best['f1']:.3f}, at {best['threshold']:.3g}."
    cards = [
        card("Scores by threshold", charts.figure_thresholds(run.sweep, threshold=run.threshold), note),
        card("Curves", charts.figure_curves(run.sweep, threshold=run.threshold), f"On the {where}, all thresholds."),
    ]
    if losses is not None:
        told = f"Loss on the tiles trained on and on those kept to judge it, over {plural(len(losses), 'epoch')}."
        cards.insert(0, card("Training", charts.figure_history(losses), told))
    return "".join(cards)


def _tables(run: Run) -> str:
    counts, pixel = run.metrics.get("counts") or {}, np.prod(pixel_m(schema.geobox(run.mask)))
    names = {"tp": "Found (TP)", "fn": "Missed (FN)", "fp": "False alarm (FP)", "tn": "Rightly left out (TN)"}
    confusion = [(names[k], f"{counts[k]:,}", area_text(counts[k] * pixel)) for k in names if k in counts]
    scored = [(name, f"{run.metrics[key]:.4f}", interval_text(run.intervals, key)) for key, (name, _) in SCORES.items()]
    scored.append(("Average precision", f"{evaluate.average_precision(run.sweep):.4f}", ""))
    scored.append(("ROC AUC", f"{evaluate.roc_auc(run.sweep):.4f}", ""))
    pixels = table(confusion, head=("", "pixels", "area"), kind="next") if confusion else ""
    blocks = [_block("Scores", table(scored, head=("", "value", "95 % interval")) + _interval_note(run) + pixels)]
    if run.metrics.get("seconds"):
        blocks.append(_block("Time", _seconds(run.metrics["seconds"])))
    return "".join(blocks)


def interval_text(intervals: pd.DataFrame | None, key: str) -> str:
    """Say a score's interval, or nothing where there is none."""
    if intervals is None:
        return ""
    low, high = (intervals[name].to_dict()[key] for name in ("low", "high"))
    return f"{low:.3f} to {high:.3f}"


def _interval_note(run: Run) -> str:
    side = 2 * int(run.tiles["size"].max())
    told = f"Threshold {run.threshold:g}. Intervals by drawing the held-out blocks of {side} x {side} px anew."
    few = f"Threshold {run.threshold:g}. Fewer than {FEWEST_BLOCKS} blocks were held out: too few for intervals."
    return f"<p class=note>{few if run.intervals is None else told}</p>"


def _sizes(sizes: pd.DataFrame) -> str:
    """Make the table of landslides found by size."""
    rows = []
    for low, high, number, detected, recall in sizes.to_numpy().tolist():
        name = f"over {area_text(low)}" if np.isinf(high) else f"to {area_text(high)}"
        shares = (share_text(detected), share_text(recall)) if number else ("", "")
        rows.append((name, f"{number:,.0f}", *shares))
    note = "<p class=note>Held-out landslides of the truth; one is detected if half of it was found.</p>"
    return table(rows, head=("area", "landslides", "detected", "area found")) + note


def _block(title: str, content: str) -> str:
    return f'<div class="card"><h3>{html.escape(title)}</h3>{content}</div>'


def _seconds(seconds: Mapping[str, float]) -> str:
    """Make the table of seconds a stage, with bars."""
    longest = max(max(seconds.values()), 1e-9)
    rows = [
        (name, seconds_text(took), Markup(f'<i style="width:{100 * took / longest:.1f}%"></i>'))
        for name, took in seconds.items()
    ]
    if "total" not in seconds:
        rows.append(("total", seconds_text(sum(seconds.values())), Markup("")))
    return table(rows, kind="bars")


def _made(run: Run) -> str:
    model, grid = run.model, schema.geobox(run.scene)
    dy, dx = pixel_m(grid)
    crs = f"EPSG:{grid.crs.epsg}" if grid.crs and grid.crs.epsg else str(grid.crs and grid.crs.proj.name)
    facts = [
        (
            "Scene",
            f"{run.scene.shape[-1]:,} x {run.scene.shape[-2]:,} px, {dx:.4g} x {dy:.4g} m, {crs}, {run.scene.dtype}",
        ),
        ("Model", " · ".join(filter(None, (model.get("name", ""), model.get("encoder", ""))))),
        *((name.capitalize(), f"{model[name]} px") for name in ("tile", "halo") if model.get(name) is not None),
        ("Tiles", ", ".join(f"{n:,} {name}" for name, n in run.tiles["split"].value_counts().items())),
        ("Held out", run.metrics.get("split") or plural(int((run.tiles["split"] == "test").sum()), "tile")),
    ]
    facts += _told(model.get("record") or {})
    used = ", ".join(f"{name} {number}" for name, number in versions().items())
    bands = [
        (band, f"{mean:.5g}", f"{std:.5g}")
        for band, mean, std in zip(model.get("bands", ()), model.get("mean", ()), model.get("std", ()))
    ]
    return _block("The run", table([*facts, ("Software", used)], kind="facts")) + _block(
        "Bands and their normalisation", table(bands, head=("band", "mean", "std"))
    )


def _told(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Give what a training record says in single values."""
    simple = {key: value for key, value in record.items() if isinstance(value, str | int | float)}
    return [
        (key.replace("_", " ").capitalize(), f"{value:.4g}" if isinstance(value, float) else str(value))
        for key, value in simple.items()
        if key not in PACKAGES
    ]


STYLE = """
:root{--paper:#f5f6f8;--card:#fff;--ink:#1c2733;--soft:#5d6874;--line:#e1e5ea;--accent:#0b6e66;--tint:#e3f2f0}
@media(prefers-color-scheme:dark){:root{--paper:#0e1419;--card:#161e25;--ink:#e6eaef;--soft:#9ba7b3;--line:#28323c;
--accent:#5fd3c5;--tint:#12302d}}
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main,header,footer{max-width:1160px;margin:0 auto;padding:0 20px}
header{padding-top:44px}
.kicker{margin:0;color:var(--accent);font-weight:600;font-size:13px;letter-spacing:.06em;text-transform:uppercase}
h1{margin:6px 0 12px;font-size:clamp(27px,4.6vw,42px);line-height:1.15;letter-spacing:-.015em;text-wrap:balance}
.lead{margin:0;max-width:46em;font-size:clamp(17px,2vw,20px);color:var(--soft);text-wrap:pretty}
h2{margin:44px 0 14px;font-size:22px;letter-spacing:-.01em}
h3{margin:0 0 10px;font-size:15px;font-weight:600}
.row{display:grid;gap:18px;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));align-items:stretch}
.scores-row{display:grid;gap:12px;margin-top:28px;grid-template-columns:repeat(auto-fit,minmax(150px,1fr))}
.score,.card{background:var(--card);border:1px solid var(--line);border-radius:12px}
.score{padding:14px 16px;display:flex;flex-direction:column}
.score b{font-size:30px;line-height:1.15;font-weight:650;font-variant-numeric:tabular-nums;letter-spacing:-.02em}
.score span{font-weight:600;font-size:14px}
.score small{color:var(--soft);font-size:12.5px;line-height:1.35}
.score i{margin-top:auto;padding-top:6px;font:12px/1.4 system-ui,sans-serif;color:var(--soft);
font-variant-numeric:tabular-nums}
.next{margin-top:22px}
.note{margin:10px 0 0;color:var(--soft);font-size:13px}
.score:first-child{background:var(--tint);border-color:var(--accent)}
.score:first-child b{color:var(--accent)}
.card{margin:0;padding:16px 18px;min-width:0}
.wide{grid-column:1/-1}
.card img{display:block;width:100%;height:auto;max-height:600px;object-fit:contain}
figcaption{margin-top:10px;color:var(--soft);font-size:13.5px;line-height:1.45}
.scroll{overflow-x:auto}
table{width:100%;border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:500;padding:6px 14px 6px 0;vertical-align:top}
thead th{color:var(--soft);font-size:12.5px}
td{padding:6px 0 6px 14px;text-align:right;vertical-align:top}
thead th:not(:first-child){text-align:right;padding:6px 0 6px 14px}
tbody tr+tr>*,thead+tbody tr>*{border-top:1px solid var(--line)}
.facts td{text-align:left;color:var(--soft)}
.facts th{white-space:nowrap}
.facts td{overflow-wrap:anywhere;color:var(--ink)}
.bars td:nth-child(2){white-space:nowrap;width:1%}
.bars td:last-child{width:45%}
.bars i{display:block;height:10px;margin-top:6px;background:var(--accent);border-radius:3px;min-width:2px;opacity:.85}
footer{margin-top:44px;padding-bottom:40px;color:var(--soft);font-size:13px}
@media(max-width:560px){main,header,footer{padding-left:14px;padding-right:14px}header{padding-top:28px}
.scores-row{grid-template-columns:1fr 1fr}.card{padding:14px}.score b{font-size:26px}}
@media print{body{background:#fff}.card,.score{break-inside:avoid}}
"""

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<p class="kicker">lsdask report</p>
<h1>$title</h1>
<p class="lead">$lead</p>
<section class="scores-row" aria-label="Scores">$scores</section>
</header>
<main>
<h2>What it saw</h2>
<section class="row">$scene</section>
<h2>What it found</h2>
<section class="row">$result</section>
<h2>A closer look</h2>
<section class="row">$details</section>
<h2>Learning and deciding</h2>
<section class="row">$training</section>
<h2>Numbers</h2>
<section class="row">$tables</section>
<h2>How it was made</h2>
<section class="row">$made</section>
</main>
<footer>Made by lsdask $version, $date.</footer>
</body>
</html>
""")
