"""The command that applies a model to a mosaic."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import lsdask as ls
from lsdask.cli.app import app, check_run, console, finish, tell, there
from lsdask.cli.running import Cluster, Scheduler, Workers, client_of
from lsdask.errors import BadInput, sentence


@app.command()
def predict(
    mosaic: Annotated[str | None, typer.Argument(help="A Zarr store: a path or URL.", show_default=False)] = None,
    model: Annotated[str | None, typer.Argument(help="A model folder.", show_default=False)] = None,
    out: Annotated[str | None, typer.Argument(help="The new store: a path or URL.", show_default=False)] = None,
    tile: Annotated[int, typer.Option(help="Side of a tile and of the target's shards, in pixels.", min=1)] = 2048,
    halo: Annotated[str, typer.Option(help="Context round a tile, in pixels; auto: as far as it looks.")] = "auto",
    window: Annotated[
        int | None,
        typer.Option(
            help="Side of what goes through the model at once, halo included, in pixels; default: by the tile."
        ),
    ] = None,
    where: Annotated[Path | None, typer.Option(help="Polygons inside which scores are wanted.")] = None,
    blend: Annotated[
        Literal["none", "cosine"], typer.Option(help="How windows meet: cut, or faded into each other.")
    ] = "none",
    tta: Annotated[
        Literal["none", "flips", "d4"],
        typer.Option(help="Mean over 4 flips, or 8 flips and turns, at 4 or 8 times the cost."),
    ] = "none",
    precision: Annotated[str, typer.Option(help="float32, bfloat16, float16; auto: half where scores agree.")] = "auto",
    batch: Annotated[
        int | None,
        typer.Option(help="Windows that go through the model at once; default: what suits the device.", min=1),
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Run through torch.compile, where that changes no score.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ..., or auto.")] = "auto",
    dtype: Annotated[
        Literal["uint8", "float32"], typer.Option(help="Of the scores: 0 to 250 with 255 unknown, or 0 to 1 with NaN.")
    ] = "uint8",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    resume: Annotated[
        str | None, typer.Option(help="A store of scores to go on with, as it was begun; without other arguments.")
    ] = None,
    workers: Workers = 0,
    cluster: Cluster = None,
    scheduler: Scheduler = None,
) -> None:
    """Apply a model to a mosaic and write the scores. Run again to go on where it stopped."""
    with client_of(workers, cluster, scheduler) as client:
        if resume is not None:
            check_run(resume, "resume")
            finish(ls.predict.resume(resume, client=client))
            return
        image, network, target = _given(mosaic=mosaic, model=model, out=out)
        if where is not None:
            there(where, "where")
        options: dict[str, Any] = {
            "tile": tile,
            "halo": _halo(halo),
            "window": window,
            "blend": blend,
            "tta": tta,
            "precision": precision,
            "batch": batch,
            "compile": compiled,
            "device": device,
            "dtype": dtype,
        }
        if dry_run:
            console.print(ls.predict.plan(image, target, network, where=where, client=client, probe=True, **options))
        else:
            report = ls.predict.run(image, target, network, where=where, client=client, **options)
            if report.void == report.tiles:
                tell("note: no pixel was scored. The mosaic has no data, or none inside --where.", "yellow")
            finish(report)


def _given(**places: str | None) -> list[str]:
    """Give the arguments that only ``--resume`` can do without."""
    for name, place in places.items():
        if place is None:
            raise BadInput(sentence(name, "be given", "none", "Pass MOSAIC MODEL OUT, or --resume OUT"))
    return [str(place) for place in places.values()]


def _halo(text: str) -> Any:
    if text != "auto" and not text.isdigit():
        raise BadInput(sentence("halo", "be whole pixels or auto", f"halo={text}"))
    return text if text == "auto" else int(text)
