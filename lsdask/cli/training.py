"""The command that trains."""

from pathlib import Path
from typing import Annotated

import typer

import lsdask as ls
from lsdask.cli.app import Store, app, console
from lsdask.cli.inputs import mask_of, streams_of


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
