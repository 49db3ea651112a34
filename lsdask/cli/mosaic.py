"""From a catalogue, a place and a season, or from files, to a mosaic."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import lsdask as ls
from lsdask.cli.app import Scheduler, Workers, app, client_of, finish, names

Method = Literal["first", "last", "mean", "median", "max", "min"]


@app.command()
def mosaic(
    scenes: Annotated[list[str], typer.Argument(help="GeoTIFF files, folders or patterns.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The new store.", show_default=False)],
    method: Annotated[Method, typer.Option(help="What a pixel seen several times becomes.")] = "first",
    bands: Annotated[str | None, typer.Option(help="Names of the bands, comma between.")] = None,
    nodata: Annotated[float | None, typer.Option(help="Value of void pixels, where the files do not say.")] = None,
    workers: Workers = 0,
    scheduler: Scheduler = None,
) -> None:
    """Put scenes on one grid and write them as one mosaic. Run again to go on where it stopped."""
    paths: Any = scenes[0] if len(scenes) == 1 else scenes
    cube = ls.scenes.open(paths, bands=names(bands), nodata=nodata)
    image = ls.mosaic.composite(cube, method=method)
    with client_of(workers, scheduler) as client:
        finish(ls.mosaic.write(image, out, client=client))
