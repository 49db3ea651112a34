"""The command ``lsdask``: the steps from scenes to an inventory, one command each."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

import lsdask as ls
from lsdask.errors import BadInput, LsdaskError, sentence

if TYPE_CHECKING:
    from distributed import Client

app = typer.Typer(
    name="lsdask",
    help="Landslide maps from satellite scenes over whole mountain ranges.\n\n"
    "A map is made in steps, each of which reads and writes stores that xarray opens: "
    "mosaic, cluster, tiles, train, predict, evaluate, polygons. `lsdask demo` runs them all.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

Store = Annotated[Path, typer.Argument(help="A Zarr store of lsdask, or any with one image.", show_default=False)]
Out = Annotated[Path, typer.Argument(help="The new store or file.", show_default=False)]
Workers = Annotated[int, typer.Option(help="Processes of a local Dask cluster; 0: threads of this process.", min=0)]
Method = Literal["first", "last", "mean", "median", "max", "min"]
Scheduler = Annotated[str | None, typer.Option(help="Address of a Dask scheduler to run on instead.")]

console = Console()


def main() -> None:
    """Run the command; what lsdask raises on purpose becomes one line and exit code 2."""
    try:
        app()
    except LsdaskError as error:
        Console(stderr=True).print(f"[red]lsdask:[/red] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if show:
        console.print(ls.__version__, highlight=False)
        raise typer.Exit


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
    cube = ls.scenes.open(paths, bands=_names(bands), nodata=nodata)
    image = ls.mosaic.composite(cube, method=method)
    with _client(workers, scheduler) as client:
        _finish(ls.mosaic.write(image, out, client=client))


@app.command()
def cluster(
    mosaic: Store,
    out: Out,
    k: Annotated[str, typer.Option(help="Numbers of clusters, comma between.")] = "2,4,6,8,10,12",
    samples: Annotated[int, typer.Option(help="Pixels to fit on.", min=1)] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Of the sample and the starts.")] = 0,
    workers: Workers = 0,
    scheduler: Scheduler = None,
) -> None:
    """Cluster the pixels of a mosaic by k-means, all k in one reading, and write the labels."""
    image = ls.store.open(mosaic)
    centers = ls.kmeans.fit(image, _numbers("k", k), n_samples=samples, seed=seed)
    with _client(workers, scheduler) as client:
        _finish(ls.kmeans.write(image, centers, out, client=client))


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
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
) -> None:
    """Cut a mosaic into tiles, count what is in each, and split them into train, valid and test."""
    image = ls.store.open(mosaic)
    truth = None if mask is None else _mask(mask, image)
    table = ls.sampling.describe(
        ls.sampling.grid(image, size, overlap=overlap), mask=truth, valid=ls.schema.valid(image)
    )
    table = ls.sampling.select(table, min_valid=min_valid)
    train, valid, held_out = _floats("fractions", fractions, 3)
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
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
) -> None:
    """Train a network on the train tiles, keep the epoch that is best on the valid tiles."""
    import pandas as pd

    image = ls.store.open(mosaic)
    table, truth = pd.read_parquet(_there(tiles, "tiles")), _mask(mask, image)
    train, valid = (
        ls.streaming.TileStream(
            image, table[table.split == split], mask=truth, batch_size=batch, shuffle=split == "train", seed=seed
        )
        for split in ("train", "valid")
    )
    stats = ls.statistics.bands(image)
    model = ls.models.build(
        network, bands=ls.schema.bands(image), encoder=encoder, mean=stats["mean"].values, std=stats["std"].values
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
    with _client(workers, scheduler) as client:
        _finish(ls.predict.run(mosaic, out, model, tile=tile, halo=64 if chosen is None else chosen, client=client))


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
        table = pd.read_parquet(_there(tiles, "tiles"))
        inside = ls.evaluate.within(table[table.split == "test"], image)
    counts = ls.evaluate.count(image, _mask(mask, image), threshold=threshold, valid=inside)
    numbers = ls.evaluate.score(counts)
    shown = Table("score", "value")
    for name, value in numbers.items():
        shown.add_row(name, f"{value:.4f}")
    for name in ("tp", "fp", "fn", "tn"):
        shown.add_row(f"{name} pixels", f"{getattr(counts, name):,}")
    console.print(shown)
    if out is not None:
        out.write_text(json.dumps({**numbers, "threshold": threshold}, indent=1))


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


@app.command()
def info(path: Store) -> None:
    """Say what a store or a model folder holds."""
    if (path / "model.json").exists():
        _show("model", vars(ls.models.read_spec(path)).items())
        return
    image = ls.store.open(path)
    grid = ls.schema.geobox(image)
    rows: dict[str, Any] = {
        "variable": image.name,
        "dims": ", ".join(f"{dim} {size:,}" for dim, size in image.sizes.items()),
        "dtype": image.dtype,
        "nodata": ls.schema.nodata(image),
        "CRS": f"EPSG:{grid.crs.epsg}" if grid.crs and grid.crs.epsg else grid.crs,
        "pixel": f"{abs(grid.resolution.x):g} x {abs(grid.resolution.y):g}",
        "bounds": ", ".join(f"{value:.10g}" for value in grid.boundingbox.bbox),
        "chunks": ls.store.array(path).chunks,
        "shards": ls.store.array(path).shards,
    }
    rows |= {str(dim): ", ".join(map(str, image[dim].values)) for dim in image.dims[:-2] if dim in image.coords}
    rows |= _ledger(path)
    _show(str(path), rows.items())


def _ledger(path: Path) -> dict[str, str]:
    """Say how far a run has come, if the store is one's target."""
    if not (path / ls.ledger.NAME).exists():
        return {}
    done = ls.ledger.read(path).done
    plan = ls.ledger.plan_of(path)
    return {
        "tiles done": f"{done.sum():,} of {done.size:,}",
        **{f"plan: {key}": str(plan[key]) for key in sorted(plan)},
    }


def _show(title: str, rows: Any) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(str(name), str(value))
    console.print(table)


def _show_splits(table: Any) -> None:
    shown = Table("split", "tiles", "positive tiles")
    for split, part in table.groupby("split"):
        positive = f"{(part.positive > 0).sum():,}" if "positive" in part else "-"
        shown.add_row(str(split), f"{len(part):,}", positive)
    console.print(shown)


def _finish(report: Any) -> None:
    """Print what a run did; exit with 1 if tiles are not done."""
    console.print(str(report), highlight=False)
    if report.failed:
        raise typer.Exit(1)


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator["Client | None"]:
    """A client of the scheduler named, of a local cluster, or none."""
    if scheduler is None and workers == 0:
        yield None
        return
    from distributed import Client

    try:
        with Client(scheduler, timeout=10) if scheduler else _local(workers) as client:
            yield client
    except (OSError, TimeoutError) as error:
        if scheduler is None:
            raise
        raise BadInput(sentence("scheduler", "be the address of a running Dask scheduler", scheduler)) from error


def _local(workers: int) -> "Client":
    from distributed import Client

    return Client(n_workers=workers, threads_per_worker=1, dashboard_address=None)


def _mask(path: Path, like: Any) -> Any:
    """Open a mask store, or burn polygons on the grid of an image."""
    if path.suffix.lower() in (".geojson", ".json", ".gpkg", ".parquet", ".shp", ".fgb"):
        return ls.inventory.rasterize(_there(path, "mask"), like)
    return ls.store.open(path)


def _there(path: Path, name: str) -> Path:
    if not path.exists():
        from lsdask.errors import NotFound

        raise NotFound(sentence(name, "name a file", f"{name}={path}, where there is none"))
    return path


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]


def _parse(name: str, text: str, kind: Callable[[str], Any], rule: str) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise BadInput(sentence(name, rule, f"{name}={text}")) from error


def _numbers(name: str, text: str) -> list[int]:
    return _parse(name, text, int, "be whole numbers with commas between")


def _floats(name: str, text: str, count: int) -> list[float]:
    rule = f"be {count} numbers with commas between"
    found = _parse(name, text, float, rule)
    if len(found) != count:
        raise BadInput(sentence(name, rule, f"{name}={text}"))
    return found
