"""The commands between a mosaic and an inventory."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

import lsdask as ls
from lsdask.cli.app import Out, Scheduler, Store, Workers, app, client_of, console, finish, floats, there
from lsdask.cli.inputs import labels_of, mask_of, streams_of


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled scenes: a folder with images/ and masks/, GeoTIFFs of the same names."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo-out"),
    workers: Annotated[int, typer.Option(help="Processes of the Dask cluster that predicts.", min=1)] = 2,
    size: Annotated[int, typer.Option(help="Side of the synthetic scene, in pixels.", min=512)] = 2048,
    epochs: Annotated[int, typer.Option(help="Epochs of training.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
) -> None:
    """Scenes in, landslide map and inventory out: the whole job on a synthetic Serra do Mar, or on your scenes."""
    from lsdask.recipes import demo as recipe

    recipe.run(out, data=data, workers=workers, size=size, epochs=epochs, seed=seed, say=console.print)


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


@app.command()
def train(
    mosaic: Store,
    tiles: Annotated[Path, typer.Argument(help="The table that `lsdask tiles` wrote.", show_default=False)],
    mask: Annotated[Path, typer.Argument(help="Store of the mask, or polygons.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The model folder to write.", show_default=False)],
    network: Annotated[str, typer.Option(help="unet, fpn, linknet, pspnet ...")] = "unet",
    encoder: Annotated[str, typer.Option(help="Encoder of the network.")] = "resnet18",
    epochs: Annotated[int, typer.Option(help="At most.", min=1)] = 30,
    batch: Annotated[int, typer.Option(help="Tiles a step.", min=1)] = 16,
    loss: Annotated[str, typer.Option(help="bce_dice, focal_tversky ...")] = "bce_dice",
    lr: Annotated[float, typer.Option(help="Learning rate.", min=0)] = 1e-3,
    weights: Annotated[
        str | None, typer.Option(help="First weights of the encoder: a folder of `lsdask pretrain`, or a name.")
    ] = None,
    freeze: Annotated[bool, typer.Option(help="Leave the encoder as it begins.")] = False,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
) -> None:
    """Train a network on the train tiles, keep the epoch that is best on the valid tiles."""
    image = ls.store.open(mosaic)
    train, valid = streams_of(image, mask_of(mask, image), tiles, batch, seed)
    stats = ls.statistics.bands(image)
    model = ls.models.build(
        network,
        bands=ls.schema.bands(image),
        encoder=encoder,
        weights=weights,
        freeze_encoder=freeze,
        mean=stats["mean"].values,
        std=stats["std"].values,
        seed=seed,
    )
    result = ls.training.fit(model, train, valid, epochs=epochs, folder=out, loss=loss, lr=lr, seed=seed)
    console.print(f"Wrote {result.folder}", highlight=False)


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


def _show_splits(table: Any) -> None:
    shown = Table("split", "tiles", "positive tiles")
    for split, part in table.groupby("split"):
        positive = f"{(part.positive > 0).sum():,}" if "positive" in part else "-"
        shown.add_row(str(split), f"{len(part):,}", positive)
    console.print(shown)
