"""The demonstration."""

from pathlib import Path
from typing import Annotated

import typer

from lsdask.cli.app import app, say


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled scenes: a folder with images/ and masks/, GeoTIFFs of the same names."),
    ] = None,
    out: Annotated[Path, typer.Option(help="New folder for all that is written.")] = Path("demo-out"),
    workers: Annotated[int, typer.Option(help="Processes of the Dask cluster that predicts.", min=1)] = 2,
    size: Annotated[int, typer.Option(help="Side of the synthetic scene, in pixels.", min=512)] = 2048,
    epochs: Annotated[int, typer.Option(help="Epochs of training.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
) -> None:
    """Scenes in, landslide map and inventory out: the whole job on a synthetic Serra do Mar, or on your scenes."""
    from lsdask.recipes import demo as recipe

    recipe.run(out, data=data, workers=workers, size=size, epochs=epochs, seed=seed, say=say)
