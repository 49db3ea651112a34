"""The command that cuts mosaics into a table of tiles."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

import lsdask as ls
from lsdask.cli.app import Store, app, console, floats
from lsdask.cli.inputs import labels_of, masks_of, mosaics_of
from lsdask.errors import BadInput, sentence

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

ORDER = ("train", "valid", "test", "none")
MUCH = 0.3
"""A share of tiles in no split that is worth a word."""

PLACES, CHOICE, DIVISION = "Places", "Choice among the train tiles", "Train, valid and test"


@app.command()
def tiles(
    mosaic: Store,
    out: Annotated[Path, typer.Argument(help="The table to write, a .parquet file.", show_default=False)],
    also: Annotated[
        list[str] | None, typer.Option(help="A further mosaic, which may overlap; its path names its tiles' scene.")
    ] = None,
    mask: Annotated[
        list[Path] | None,
        typer.Option(help="Store of the mask, one for each mosaic, or polygons of the landslides."),
    ] = None,
    method: Annotated[
        Literal["grid", "even", "random"],
        typer.Option(help="A grid, evenly from edge to edge, or random places.", rich_help_panel=PLACES),
    ] = "grid",
    size: Annotated[int, typer.Option(help="Side of a tile, in pixels.", min=1, rich_help_panel=PLACES)] = 128,
    overlap: Annotated[
        float,
        typer.Option(help="Share of a tile that its neighbour repeats.", min=0, max=0.99, rich_help_panel=PLACES),
    ] = 0.0,
    n: Annotated[int, typer.Option(help="How many random places a mosaic.", min=1, rich_help_panel=PLACES)] = 5000,
    min_valid: Annotated[
        float, typer.Option(help="Least share of valid pixels.", min=0, max=1, rich_help_panel=PLACES)
    ] = 0.5,
    positive: Annotated[
        bool, typer.Option("--positive", help="Only tiles with a landslide.", rich_help_panel=PLACES)
    ] = False,
    clusters: Annotated[
        list[Path] | None,
        typer.Option(help="Store of cluster labels, one for each mosaic: count them too.", rich_help_panel=CHOICE),
    ] = None,
    k: Annotated[
        int | None, typer.Option(help="Which k of the clusters; default its last.", rich_help_panel=CHOICE)
    ] = None,
    balance: Annotated[
        Literal["positive", "cluster"] | None, typer.Option(help="Make groups weigh alike.", rich_help_panel=CHOICE)
    ] = None,
    how: Annotated[
        Literal["smallest", "mean", "oversample"],
        typer.Option(help="Draw down to these, or repeat up.", rich_help_panel=CHOICE),
    ] = "smallest",
    draw: Annotated[
        int | None,
        typer.Option(
            help="Draw so many instead, with repeats, so that groups weigh alike.", min=1, rich_help_panel=CHOICE
        ),
    ] = None,
    scores: Annotated[
        list[str] | None,
        typer.Option(
            help="Store of scores, one for each mosaic: count what they get wrong too.", rich_help_panel=CHOICE
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Of the scores.", min=0, max=1, rich_help_panel=CHOICE)] = 0.5,
    hard: Annotated[
        float | None,
        typer.Option(
            help="Keep tiles with landslides, and so many a piece that the scores take for such.",
            min=0,
            rich_help_panel=CHOICE,
        ),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(
            help="Held out: east, west, north, south, or a file of polygons; 'none' deals blocks.",
            rich_help_panel=DIVISION,
        ),
    ] = "east",
    fractions: Annotated[
        str, typer.Option(help="Shares of train, valid and test.", rich_help_panel=DIVISION)
    ] = "0.6,0.15,0.25",
    block: Annotated[
        int | None,
        typer.Option(help="Side of the squares dealt to a split, in pixels.", min=1, rich_help_panel=DIVISION),
    ] = None,
    buffer: Annotated[
        int,
        typer.Option(
            help="Pixels round a tile that no other split may see; 0, as training sees tiles only.",
            min=0,
            rich_help_panel=DIVISION,
        ),
    ] = 0,
    folds: Annotated[
        int | None, typer.Option(help="Deal tiles into so many folds instead.", min=2, rich_help_panel=DIVISION)
    ] = None,
    fold: Annotated[
        int, typer.Option(help="The fold that is the test; the next is valid.", min=0, rich_help_panel=DIVISION)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
) -> None:
    """Cut mosaics into tiles, count what is in each, and split them into train, valid and test.

    No ground is seen by two splits, also where mosaics overlap. A grid of any size is written a band at a time.
    """
    _check_out(out)
    _check_needs(
        mask={"positive": positive, "scores": scores, "balance": balance == "positive", "hard": hard is not None,
              "draw": draw is not None and balance is None},
        scores={"hard": hard is not None},
        clusters={"k": k is not None, "balance": balance == "cluster"},
        folds={"fold": fold},
        given={"mask": mask, "scores": scores, "clusters": clusters, "folds": folds},
    )  # fmt: skip
    images = mosaics_of(mosaic, also)
    layers = _layers(images, mask, clusters, k, scores, threshold)
    places = {"method": method, "size": size, "overlap": overlap, "n": n, "seed": seed}
    described = _described(images, layers, places, min_valid)
    options: dict[str, Any] = {"block": block, "buffer": buffer, "scenes": _scenes(images), "seed": seed}
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        table = Path(folder) / out.name
        ls.sampling.write(described if mask is None else _with_landslides(described, only=positive), table)
        if folds is None:
            shares = tuple(floats("fractions", fractions, 3))
            ls.sampling.split_file(table, table, fractions=shares, test=None if test == "none" else test, **options)
        else:
            ls.sampling.folds_file(table, table, folds, **options)
            ls.sampling.write((ls.sampling.as_split(part, fold, k=folds) for part in ls.sampling.parts(table)), table)
        if hard is not None or balance is not None or draw is not None:
            chosen = _chosen(ls.sampling.read(table), hard=hard, balance=balance, how=how, draw=draw, seed=seed)
            ls.sampling.write(chosen, table)
        table.replace(out)
    _show(out)


def _check_out(out: Path) -> None:
    """Raise BadInput, before anything is read, where no table can be written."""
    if out.suffix != ".parquet" or out.is_dir():
        raise BadInput(sentence("out", "name a .parquet file", f"out={out}"))
    if not out.parent.is_dir():
        raise BadInput(sentence("out", "lie in a folder that is there", f"out={out}", f"Make {out.parent}"))


def _check_needs(given: dict[str, Any], **needs: dict[str, Any]) -> None:
    """Raise BadInput if an option is asked for that does nothing without another, which is not given."""
    for needed, options in needs.items():
        for option, asked in options.items():
            if asked and not given[needed]:
                raise BadInput(sentence(needed, f"be given with {option}", "none", f"Pass --{needed}"))


def _scenes(images: "dict[str, xr.DataArray]") -> Any:
    return images if len(images) > 1 else next(iter(images.values()))


def _layers(
    images: "dict[str, xr.DataArray]",
    masks: list[Path] | None,
    clusters: list[Path] | None,
    k: int | None,
    scores: list[str] | None,
    threshold: float,
) -> "list[dict[str, xr.DataArray]]":
    """Open what is counted in each mosaic."""
    given = zip(
        images.values(),
        masks_of(masks, list(images.values())) if masks else [None] * len(images),
        _each("clusters", clusters, images),
        _each("scores", scores, images),
    )
    return [_layers_of(image, mask, cluster, k, score, threshold) for image, mask, cluster, score in given]


def _each(name: str, paths: Sequence[Any] | None, images: "dict[str, xr.DataArray]") -> Sequence[Any]:
    """Give one path a mosaic, or None for each."""
    if paths and len(paths) != len(images):
        raise BadInput(sentence(name, f"be one for each of the {len(images)} mosaics", f"{len(paths)}"))
    return paths or [None] * len(images)


def _layers_of(
    image: "xr.DataArray",
    mask: "xr.DataArray | None",
    clusters: Path | None,
    k: int | None,
    scores: str | None,
    threshold: float,
) -> "dict[str, xr.DataArray]":
    layers = {"valid": ls.schema.valid(image)}
    if mask is not None:
        layers["mask"] = mask
    if clusters is not None:
        layers["labels"] = labels_of(str(clusters), k)
    if scores is not None:
        layers["agreement"] = ls.evaluate.agreement(ls.store.open(scores), layers["mask"], threshold=threshold)
    return layers


def _described(
    images: "dict[str, xr.DataArray]", layers: "list[dict[str, xr.DataArray]]", places: dict[str, Any], min_valid: float
) -> "Iterator[pd.DataFrame]":
    """Give the tiles of mosaic after mosaic, in parts."""
    for (name, image), given in zip(images.items(), layers):
        for part in _cut(image, given, **places):
            kept = ls.sampling.select(part, min_valid=min_valid)
            yield kept.assign(scene=name) if len(images) > 1 else kept


def _cut(
    image: "xr.DataArray",
    layers: "dict[str, xr.DataArray]",
    *,
    method: str,
    size: int,
    overlap: float,
    n: int,
    seed: int,
) -> "Iterator[pd.DataFrame]":
    """Place tiles in one mosaic, and count what they hold."""
    if method == "grid":
        yield from ls.sampling.survey(image, size, overlap=overlap, **layers)
    elif method == "even":
        yield ls.sampling.describe(ls.sampling.even(image, size, overlap=overlap), **layers)
    else:
        yield ls.sampling.describe(ls.sampling.random(image, size, n, seed=seed), **layers)


def _with_landslides(parts: "Iterator[pd.DataFrame]", *, only: bool) -> "Iterator[pd.DataFrame]":
    """Give the parts, or only their tiles with landslides; BadInput at the end if there was none."""
    found = False
    for part in parts:
        positive = part["positive"] > 0
        found |= bool(positive.any())
        yield part[positive] if only else part
    if not found:
        do = "Look at its CRS, or lower --min-valid"
        raise BadInput(sentence("mask", "hold a landslide in a tile", "none in any tile", do))


def _chosen(
    table: "pd.DataFrame", *, hard: float | None, balance: Any, how: Any, draw: int | None, seed: int
) -> "pd.DataFrame":
    """Choose among the train tiles; the others stay, so that scores on them are of the ground as it is."""
    import pandas as pd

    learning = table["split"] == "train"
    train = table[learning]
    if hard is not None:
        train = ls.sampling.hard_negatives(train, ratio=hard, seed=seed)
    if draw is not None:
        train = ls.sampling.draw(ls.sampling.weigh(train, by=balance or "positive"), draw, seed=seed)
    elif balance is not None:
        train = ls.sampling.balance(train, by=balance, how=how, seed=seed)
    return pd.concat([train.drop(columns="weight", errors="ignore"), table[~learning]], ignore_index=True)


def _show(out: Path) -> None:
    """Print how many tiles each split has, and each fold where there are folds."""
    counts = _counted(out, "split")
    console.print(_table_of("split", counts.loc[[name for name in ORDER if name in counts.index]]))
    if "fold" in next(ls.sampling.parts(out)):
        console.print(_table_of("fold", _counted(out, "fold").rename({-1: ls.sampling.NONE})))
    lost = counts["size"].get(ls.sampling.NONE, 0) / counts["size"].sum()
    if lost > MUCH:
        console.print(f"{lost:.0%} of the tiles see two splits and are in none; a larger --block loses fewer.")


def _counted(out: Path, column: str) -> "pd.DataFrame":
    """Count tiles, and those with landslides where that is known, by the values of a column."""
    import pandas as pd

    counts = []
    for part in ls.sampling.parts(out):
        positive = part["positive"] > 0 if "positive" in part else pd.Series(False, index=part.index)
        counts.append(positive.groupby(part[column]).agg(["size", "sum"]))
    total = pd.concat(counts).groupby(level=0).sum()
    return total if "positive" in part else total.drop(columns="sum")


def _table_of(column: str, counts: "pd.DataFrame") -> Table:
    shown = Table(column, "tiles", "share", "with landslides", "share")
    for name, size, *positive in counts.itertuples():
        told = (f"{positive[0]:,}", f"{positive[0] / size:.1%}") if positive else ("-", "-")
        shown.add_row(str(name), f"{size:,}", f"{size / counts['size'].sum():.1%}", *told)
    return shown
