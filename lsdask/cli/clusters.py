"""Clusters of pixels, and an encoder that has learnt them."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import lsdask as ls
from lsdask.cli.app import Out, Store, app, console, finish, numbers, say, table_of
from lsdask.cli.inputs import labels_of, streams_of
from lsdask.cli.running import Cluster, Scheduler, Workers, client_of
from lsdask.errors import BadInput, NotFound, sentence

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


@app.command()
def cluster(
    mosaic: Store,
    out: Out,
    k: Annotated[str, typer.Option(help="Numbers of clusters, 1 to 254, comma between.")] = "2,4,6,8,10,12",
    samples: Annotated[int, typer.Option(help="Pixels to fit on, drawn from all valid ones.", min=1)] = 1_000_000,
    standardise: Annotated[bool, typer.Option("--standardise", help="Let all bands weigh alike.")] = False,
    refine: Annotated[int, typer.Option(help="Exact steps over all pixels, each a reading of the mosaic.", min=0)] = 0,
    centers: Annotated[
        Path | None, typer.Option(help="Centres to label by, a .json file; fitted and written here if there is none.")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(help="Also count the commonest cluster of tiles of this side, in pixels.", min=1)
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for charts to choose k by, spectra and the map.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample and the starts.")] = 0,
    workers: Workers = 0,
    cluster: Cluster = None,
    scheduler: Scheduler = None,
) -> None:
    """Cluster the pixels of a mosaic by k-means, all k in one reading, and write the labels."""
    image, ks = ls.store.open(mosaic), _counts(k)
    with suppress(NotFound):
        ls.ledger.plan_of(out)  # before the work: a store that holds something else is no target
    if centers is not None and centers.exists():
        found = ls.kmeans.open(centers)
    else:
        found = ls.kmeans.fit(image, ks, n_samples=samples, seed=seed, standardise=standardise, refine=refine)
        if centers is not None:
            ls.kmeans.save(found, centers)
    if found.attrs["n_samples"] < samples and found.attrs["n_samples"] == found.attrs["n_valid"]:
        say(f"Fitted on all {found.attrs['n_valid']:,} valid pixels.")
    with client_of(workers, cluster, scheduler) as client:
        report = ls.kmeans.write(image, found, out, tile=tile, client=client)
    measures = ls.kmeans.describe(image, found)
    console.print(table_of(measures.reset_index(), {"k": "{:.0f}"}))
    if plots is not None:
        _plot(plots, measures, found, ls.store.open(out))
    finish(report)


def _counts(k: str) -> list[int]:
    """Read the numbers of clusters."""
    found = numbers("k", k)
    if not all(1 <= number < ls.schema.UNKNOWN for number in found):
        raise BadInput(sentence("k", f"lie from 1 to {ls.schema.UNKNOWN - 1}, as labels are uint8", f"k={k}"))
    return found


def _plot(folder: Path, measures: "pd.DataFrame", centers: "xr.DataArray", labels: "xr.DataArray") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ls.report.figure_k(measures).savefig(folder / "k.png", dpi=150)
    for i, k in enumerate(int(value) for value in centers["k"].values):
        ls.report.figure_spectra(centers, k=k).savefig(folder / f"spectra-{k}.png", dpi=150)
        ls.report.figure_clusters(labels.isel(k=i)).savefig(folder / f"map-{k}.png", dpi=150, bbox_inches="tight")
    say(f"Drew {folder}")


@app.command()
def pretrain(
    mosaic: Store,
    tiles: Annotated[Path, typer.Argument(help="The table that `lsdask tiles` wrote.", show_default=False)],
    clusters: Annotated[str, typer.Argument(help="The store that `lsdask cluster` wrote.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The model folder to write.", show_default=False)],
    k: Annotated[int | None, typer.Option(help="Which k of the clusters; default: the last.")] = None,
    encoder: Annotated[str, typer.Option(help="Encoder that learns: densenet121, resnet18 ...")] = "densenet121",
    epochs: Annotated[int, typer.Option(help="Epochs at most.", min=1)] = 30,
    batch: Annotated[int, typer.Option(help="Tiles a batch.", min=1)] = 64,
    lr: Annotated[float, typer.Option(help="Learning rate.", min=0)] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
) -> None:
    """Teach an encoder to tell the cluster of a tile; `lsdask train --weights` begins with it."""
    image, labels = ls.store.open(mosaic), labels_of(clusters, k)
    classes = int(labels["k"])
    if classes < 2:
        raise BadInput(sentence("k", "be at least 2, to be told apart", f"k={classes}"))
    train, valid = streams_of({mosaic: image}, [labels.drop_vars("k")], tiles, batch, seed, classes=classes)
    stats = ls.statistics.bands(image)
    result = ls.training.pretrain(
        encoder,
        train,
        valid,
        classes=classes,
        folder=out,
        epochs=epochs,
        mean=stats["mean"].values,
        std=stats["std"].values,
        lr=lr,
        seed=seed,
    )
    say(f"Wrote {result.folder}")
