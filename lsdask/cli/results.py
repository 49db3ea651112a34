"""The commands that score a map and make an inventory of it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import lsdask as ls
from lsdask.cli.app import Store, app, console, there
from lsdask.cli.inputs import mask_of


@app.command()
def evaluate(
    scores: Store,
    mask: Annotated[Path, typer.Argument(help="Store of the mask, or polygons.", show_default=False)],
    threshold: Annotated[float, typer.Option(help="Score from which a pixel is a landslide.", min=0, max=1)] = 0.5,
    tiles: Annotated[Path | None, typer.Option(help="Tile table: count only inside its test tiles.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers here, as JSON.")] = None,
) -> None:
    """Score a map against a mask: precision, recall, F1, IoU, MCC, accuracy over all known pixels."""
    import json

    import pandas as pd

    image = ls.store.open(scores)
    inside = None
    if tiles is not None:
        table = pd.read_parquet(there(tiles, "tiles"))
        inside = ls.evaluate.within(table[table.split == "test"], image)
    counts = ls.evaluate.count(image, mask_of(mask, image), threshold=threshold, valid=inside)
    scored = ls.evaluate.score(counts)
    shown = Table("score", "value")
    for name, value in scored.items():
        shown.add_row(name, f"{value:.4f}")
    for name in ("tp", "fp", "fn", "tn"):
        shown.add_row(f"{name} pixels", f"{getattr(counts, name):,}")
    console.print(shown)
    if out is not None:
        out.write_text(json.dumps({**scored, "threshold": threshold}, indent=1))


@app.command()
def polygons(
    scores: Store,
    out: Annotated[Path, typer.Argument(help=".parquet, .gpkg, .fgb or .geojson.", show_default=False)],
    threshold: Annotated[float, typer.Option(help="Score from which a pixel is a landslide.", min=0, max=1)] = 0.5,
    min_area: Annotated[float, typer.Option(help="Smallest landslide, in square metres.", min=0)] = 0.0,
) -> None:
    """Turn scores into an inventory of polygons."""
    frame = ls.inventory.vectorize(ls.store.open(scores), threshold=threshold, min_area_m2=min_area)
    ls.inventory.write(frame, out)
    console.print(f"Wrote {len(frame):,} landslides to {out}", highlight=False)
