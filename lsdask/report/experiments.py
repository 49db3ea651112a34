"""One self-contained page about an experiment of many runs: its tables, beside a paper's, and its pictures."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lsdask import evaluate, schema
from lsdask.report import charts, figures
from lsdask.report.files import write_text
from lsdask.report.maps import INK, MUTED, QUALITATIVE, WIDTH
from lsdask.report.markup import card, document, section, table


def write_experiment(
    path: str | Path,
    *,
    title: str,
    lead: str,
    tables: Mapping[str, tuple[str, Sequence[Sequence[str]], Sequence[str]]],
    cards: Mapping[str, Sequence[tuple[str, Figure, str]]],
    notes: Sequence[str],
) -> Path:
    """Write a page about an experiment; it needs no network and no other file.

    Parameters
    ----------
    path : path
        The page.
    title, lead : str
        Heading, and what was found in a sentence or two.
    tables : mapping
        From a heading to (explanation, rows, names of the columns), text. A click on a name sorts by it.
    cards : mapping
        From the heading of a section to its figures: (title, figure, caption).
    notes : sequence of str
        What to know when reading the numbers.

    Returns
    -------
    Path
    """
    parts = [section(name, _table(*content)) for name, content in tables.items()]
    parts += [section(name, "".join(card(*one) for one in content)) for name, content in cards.items() if content]
    said = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    parts.append(section("What differs", f'<div class="card wide"><ul class="notes">{said}</ul></div>'))
    text = document(kicker="lsdask reproduce", title=title, lead=lead, sections=parts, style=MORE_STYLE, script=SORT)
    write_text(path, text)
    return Path(path)


def _table(explanation: str, rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    made = table(rows, head=head, kind="sortable")
    return f'<div class="card wide">{made}<p class="note">{html.escape(explanation)}</p></div>'


def figure_beside(frame: pd.DataFrame, label: str, values: Sequence[str]) -> Figure:
    """Show scores of runs as dots, a paper's as rings, one row a run.

    Parameters
    ----------
    frame : DataFrame
        One row a run: ``label``, and for each of ``values`` a column, and perhaps one ``value_paper``.
    label : str
    values : sequence of str
        At most four.

    Returns
    -------
    Figure
    """
    figure = Figure(figsize=(WIDTH, 1.1 + 0.34 * len(frame)), layout="constrained")
    axes = figure.subplots()
    charts.style_chart(axes, "", "")
    rows = np.arange(len(frame))[::-1]
    colours = (charts.BLUE, charts.RED, charts.GREEN, MUTED)
    for n, (value, colour) in enumerate(zip(values, colours)):
        y = rows + 0.14 * ((len(values) - 1) / 2 - n)
        paper = frame.get(f"{value}_paper")
        if paper is not None:
            axes.hlines(y, frame[value], paper, color=colour, lw=0.8, alpha=0.5)
            axes.plot(paper, y, "o", ms=6, mfc="none", mec=colour, mew=1.3)
        axes.plot(frame[value], y, "o", ms=6, color=colour, label=value)
    axes.set_yticks(rows, frame[label].astype(str), color=INK)
    axes.set_ylim(-0.6, len(frame) - 0.4)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=len(values), frameon=False, labelcolor=INK)
    return figure


def figure_axis(frame: pd.DataFrame, axis: str, value: str, *, title: str = "") -> Figure:
    """Show what one axis of an experiment does to a score: a dot a run, and the mean at each place of the axis.

    Parameters
    ----------
    frame : DataFrame
        One row a run, with the columns ``axis`` and ``value``.
    axis, value : str
    title : str
        What the score is called, if not by its column.

    Returns
    -------
    Figure
    """
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    charts.style_chart(axes, axis.replace("_", " "), title or value)
    draw = np.random.default_rng(0)  # dots beside each other, the same ones on every day
    places = list(frame[axis].unique())
    for place, name in enumerate(places):
        scores = frame.loc[frame[axis] == name, value]
        axes.plot(place + draw.uniform(-0.18, 0.18, len(scores)), scores, "o", ms=3.5, alpha=0.5, color=charts.BLUE)
        axes.hlines(scores.mean(), place - 0.28, place + 0.28, color=charts.RED, lw=2)
    axes.set_xticks(range(len(places)), [str(name) for name in places])
    axes.set_xlim(-0.6, len(places) - 0.4)
    axes.set_ylim(bottom=0)
    return figure


def figure_grid(frame: pd.DataFrame, columns: Sequence[str], series: str, values: Sequence[str]) -> Figure:
    """Show several scores of few runs, a panel each: columns side by side, a colour for each of a series.

    Parameters
    ----------
    frame : DataFrame
        One row a run, at most one a place and series. A column ``value_paper`` shows as rings.
    columns : sequence of str
        Whose values, joined, name the places.
    series : str
        Of at most seven values.
    values : sequence of str
        The scores.

    Returns
    -------
    Figure
    """
    figure = Figure(figsize=(2 * WIDTH, 2.5 * -(-len(values) // 2) + 0.4), layout="constrained")
    panels = figure.subplots(-(-len(values) // 2), 2, squeeze=False).ravel()
    places = frame[list(columns)].astype(str).agg(" ".join, axis=1)
    order = list(dict.fromkeys(places))
    names = list(dict.fromkeys(frame[series]))
    for axes, value in zip(panels, values):
        charts.style_chart(axes, "", "", title=value)
        for n, name in enumerate(names):
            mine = frame[series] == name
            x = [order.index(place) + 0.12 * (n - (len(names) - 1) / 2) for place in places[mine]]
            style = {"color": QUALITATIVE[n % len(QUALITATIVE)], "ms": 6}
            axes.plot(x, frame.loc[mine, value], "o", label=str(name), **style)
            if f"{value}_paper" in frame:
                axes.plot(x, frame.loc[mine, f"{value}_paper"], "o", **{**style, "mfc": "none", "ms": 9})
        axes.set_xticks(range(len(order)), order)
        axes.set_ylim(bottom=0)
    for axes in panels[len(values) :]:
        axes.set_axis_off()
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, labelcolor=INK
    )
    return figure


def figure_examples(pictures: np.ndarray, masks: np.ndarray, scores: Mapping[str, np.ndarray]) -> Figure:
    """Show pictures and, for each of several models, what it found, missed and took for landslide.

    Parameters
    ----------
    pictures : (n, y, x, 3) array, 0 to 1
    masks : (n, y, x) uint8 array
        1 landslide, 0 not, 255 unknown.
    scores : mapping
        From the name of a model to (n, y, x) probabilities.

    Returns
    -------
    Figure
        A row a picture, a column a model.
    """
    columns = ["picture", *scores]
    figure = Figure(figsize=(1.5 * len(columns), 1.55 * len(pictures) + 0.3), layout="constrained")
    grid = figure.subplots(len(pictures), len(columns), squeeze=False)
    for row, (picture, mask) in enumerate(zip(pictures, masks)):
        grey = np.repeat(0.35 + 0.6 * picture.mean(axis=-1, keepdims=True), 3, axis=-1)
        grid[row, 0].imshow(picture)
        for axes, (name, found) in zip(grid[row, 1:], scores.items()):
            axes.imshow(_painted(grey, evaluate.agreement_block(found[row], mask, threshold=0.5)))
            if row == 0:
                axes.set_title(name, fontsize=9, color=INK)
        for axes in grid[row]:
            axes.set_axis_off()
    return figure


def picture_of(image: xr.DataArray) -> np.ndarray:
    """Give an image (band, y, x) in colour, (y, x, 3) from 0 to 1: its bands red, green and blue, else its first.

    Each band is stretched from its 2nd to its 98th percentile; void is black.
    """
    names = [str(name) for name in image["band"].values]
    places = [names.index(name) if name in names else 0 for name in ("red", "green", "blue")]
    known = image.isel(band=places).where(schema.valid(image)).values.astype("float32")
    pixels = np.moveaxis(known, 0, -1)
    low, high = np.nanpercentile(pixels, (2, 98), axis=(0, 1))
    return np.nan_to_num(np.clip((pixels - low) / np.maximum(high - low, 1e-6), 0, 1))


def _painted(ground: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Paint what is found, missed and false over a grey picture."""
    out = np.clip(ground, 0, 1)
    for code in (evaluate.TP, evaluate.FN, evaluate.FP):
        out[codes == code] = to_rgb(figures.AGREEMENT[code])
    return out


MORE_STYLE = """
.sortable thead th{cursor:pointer;white-space:nowrap}
.sortable thead th[aria-sort]{color:var(--accent)}
.sortable thead th[aria-sort=ascending]::after{content:" \\2191"}
.sortable thead th[aria-sort=descending]::after{content:" \\2193"}
.notes{margin:0;padding-left:1.2em;font-size:14.5px}.notes li+li{margin-top:8px}
"""

SORT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const names = [...table.tHead.rows[0].cells];
  const value = (row, i) => {
    const text = row.cells[i].textContent.replaceAll(",", "");
    return text === "-" ? -Infinity : isNaN(text) ? text : Number(text);
  };
  names.forEach((name, i) => name.addEventListener("click", () => {
    const down = name.getAttribute("aria-sort") === "ascending";
    names.forEach(other => other.removeAttribute("aria-sort"));
    name.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a, i), value(b, i)];
      return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
    });
    table.tBodies[0].append(...rows);
  }));
}
"""
