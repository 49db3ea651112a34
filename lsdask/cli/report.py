"""The command that writes the page about a map."""

from pathlib import Path
from typing import Annotated

import typer

import lsdask as ls
from lsdask.cli.app import Class, Store, Threshold, app, class_of, say, scores_of, there
from lsdask.cli.inputs import masks_of
from lsdask.errors import NotFound, sentence


@app.command()
def report(
    mosaic: Store,
    scores: Annotated[str, typer.Argument(help="The store that `lsdask predict` wrote.", show_default=False)],
    mask: Annotated[Path, typer.Argument(help="Store of the mask, or polygons of the landslides.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The page to write, an .html file.", show_default=False)],
    tiles: Annotated[Path, typer.Option(help="The table that `lsdask tiles` wrote: scored in its test tiles.")],
    model: Annotated[Path, typer.Option(help="The model folder.")],
    scene: Annotated[str | None, typer.Option(help="Which scene of the table; needed if it has several.")] = None,
    polygons: Annotated[
        Path | None, typer.Option(help="What `lsdask polygons` wrote; default: traced anew at the threshold.")
    ] = None,
    clusters: Annotated[str | None, typer.Option(help="What `lsdask cluster` wrote, to be shown too.")] = None,
    threshold: Threshold = 0.5,
    class_: Class = None,
    name: Annotated[str, typer.Option(help="What the mapped place is called, for the heading.")] = "the scene",
) -> None:
    """Write one page with pictures, scores, curves and tables about a map. It needs no network and no other file."""
    if not out.absolute().parent.is_dir():
        raise NotFound(sentence("out", "lie in a folder that exists", f"out={out}"))
    image = scores_of(scores)
    (truth,) = masks_of([mask], [image])
    run = ls.report.collect(
        ls.store.open(mosaic),
        image,
        truth,
        tiles=ls.sampling.read(tiles, scene=scene, columns=("y", "x", "size", "split")),
        model=model,
        polygons=None if polygons is None else ls.inventory.load(there(polygons, "polygons")),
        clusters=None if clusters is None else ls.store.open(clusters),
        threshold=threshold,
        class_=class_of(image, class_),
        name=name,
    )
    ls.report.write(run, path=out)
    say(f"Wrote {out}")
