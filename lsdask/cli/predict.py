"""The command that applies a model to a mosaic."""

from pathlib import Path
from typing import Annotated

import typer

import lsdask as ls
from lsdask.cli.app import Out, Scheduler, Store, Workers, app, client_of, finish


@app.command()
def predict(
    mosaic: Store,
    model: Annotated[Path, typer.Argument(help="A model folder.", show_default=False)],
    out: Out,
    tile: Annotated[int, typer.Option(help="Side of a tile and of the target's shards, in pixels.", min=1)] = 2048,
    halo: Annotated[int | None, typer.Option(help="Context round a tile, in pixels; default the model's.")] = None,
    workers: Workers = 0,
    scheduler: Scheduler = None,
) -> None:
    """Apply a model to a mosaic and write the scores. Run again to go on where it stopped."""
    chosen = halo if halo is not None else ls.models.read_spec(model).halo
    with client_of(workers, scheduler) as client:
        finish(ls.predict.run(mosaic, out, model, tile=tile, halo=64 if chosen is None else chosen, client=client))
