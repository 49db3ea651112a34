"""The command that cuts a mosaic into a table of tiles."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

import lsdask as ls
from lsdask.cli.app import Store, app, console, floats
from lsdask.cli.inputs import labels_of, mask_of


@app.command()
def tiles(
    mosaic: Store,
    out: Annotated[Path, typer.Argument(help="The table to write, a .parquet file.", show_default=False)],
    mask: Annotated[Path | None, typer.Option(help="Store of the mask, or polygons of the landslides.")] = None,
    size: Annotated[int, typer.Option(help="Side of a tile, in pixels.", min=1)] = 128,
    overlap: Annotated[float, typer.Option(help="Share of a tile that its neighbour repeats.", min=0, max=0.99)] = 0.0,
    min_valid: Annotated[float, typer.Option(help="Least share of valid pixels.", min=0, max=1)] = 0.5,
    test: Annotated[str | None, typer.Option(help="Side of the image held out: east, west, north or south.")] = "east",
    fractions: Annotated[str, typer.Option(help="Shares of train, valid and test.")] = "0.6,0.15,0.25",
    block: Annotated[int | None, typer.Option(help="Side of the squares dealt to a split, in pixels.", min=1)] = None,
    clusters: Annotated[Path | None, typer.Option(help="Store of cluster labels: count them too.")] = None,
    k: Annotated[int | None, typer.Option(help="Which k of the clusters; default its last.")] = None,
    balance: Annotated[Literal["positive", "cluster"] | None, typer.Option(help="Make groups weigh alike.")] = None,
    how: Annotated[
        Literal["smallest", "mean", "oversample"], typer.Option(help="Draw down to these, or repeat up.")
    ] = "smallest",
    seed: Annotated[int, typer.Option(help="Of the split and the balance.")] = 0,
) -> None:
    """Cut a mosaic into tiles, count what is in each, and split them into train, valid and test."""
    image = ls.store.open(mosaic)
    truth = None if mask is None else mask_of(mask, image)
    labels = None if clusters is None else labels_of(str(clusters), k)
    table = ls.sampling.describe(
        ls.sampling.grid(image, size, overlap=overlap), mask=truth, valid=ls.schema.valid(image), labels=labels
    )
    table = ls.sampling.select(table, min_valid=min_valid)
    if balance is not None:
        table = ls.sampling.balance(table, by=balance, how=how, seed=seed)
    train, valid, held_out = floats("fractions", fractions, 3)
    table = ls.sampling.split(table, fractions=(train, valid, held_out), block=block, test=test, seed=seed)
    table.to_parquet(out, index=False)
    _show_splits(table)


def _show_splits(table: Any) -> None:
    shown = Table("split", "tiles", "positive tiles")
    for split, part in table.groupby("split"):
        positive = f"{(part.positive > 0).sum():,}" if "positive" in part else "-"
        shown.add_row(str(split), f"{len(part):,}", positive)
    console.print(shown)
