"""The command that trains."""

import json
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import lsdask as ls
from lsdask.cli.app import Store, app, console, there
from lsdask.cli.inputs import masks_of, mosaics_of, streams_of
from lsdask.errors import BadInput, LsdaskError, sentence

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

CONFIG = "train.toml"
"""In the model folder: what every option was."""

LAST = "last.ckpt"
"""In the model folder: the state of a run that has begun, as ``training`` writes it."""


def configure(context: typer.Context, path: Path | None) -> Path | None:
    """Let a TOML file say what the command line does not."""
    if path is not None and not context.resilient_parsing:
        context.default_map = _read_config(path, {str(each.name) for each in context.command.params} - {"config"})
    return path


@app.command()
def train(
    context: typer.Context,
    mosaic: Store,
    tiles: Annotated[Path, typer.Argument(help="The table that `lsdask tiles` wrote.", show_default=False)],
    mask: Annotated[Path, typer.Argument(help="Store of the mask, or polygons.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The model folder to write.", show_default=False)],
    also: Annotated[
        list[str] | None, typer.Option(help="A further mosaic of the table, by the path that names its tiles' scene.")
    ] = None,
    also_mask: Annotated[
        list[str] | None, typer.Option(help="Its mask, in the same order; none where MASK is polygons.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file of these options by name; flags win.", callback=configure, is_eager=True),
    ] = None,
    network: Annotated[str, typer.Option(help="unet, fpn, linknet, pspnet ...")] = "unet",
    encoder: Annotated[str, typer.Option(help="Encoder of the network.")] = "resnet18",
    weights: Annotated[
        str | None, typer.Option(help="First weights of the encoder: a folder of `lsdask pretrain`, or a name.")
    ] = None,
    freeze: Annotated[bool, typer.Option(help="Leave the encoder as it begins.")] = False,
    model: Annotated[Path | None, typer.Option(help="Go on with this model folder, no new network.")] = None,
    epochs: Annotated[int, typer.Option(help="At most.", min=1)] = 30,
    batch: Annotated[int, typer.Option(help="Tiles a batch.", min=1)] = 16,
    loss: Annotated[str, typer.Option(help="bce_dice, focal_tversky ...")] = "bce_dice",
    lr: Annotated[float, typer.Option(help="Learning rate, the highest of the schedule.", min=0)] = 1e-3,
    optimizer: Annotated[str, typer.Option(help="adam, adamw or sgd.")] = "adam",
    weight_decay: Annotated[float, typer.Option(help="Of the optimiser.", min=0)] = 0.0,
    schedule: Annotated[str, typer.Option(help="one_cycle, cosine, plateau or constant.")] = "one_cycle",
    monitor: Annotated[str, typer.Option(help="What the best epoch is judged by: loss or f1.")] = "loss",
    patience: Annotated[int | None, typer.Option(help="Stop after so many epochs that are not better.", min=1)] = None,
    augment: Annotated[str, typer.Option(help="yes, no, or changes such as rotate=20,noise=0.1.")] = "yes",
    accumulate: Annotated[int, typer.Option(help="Batches a step.", min=1)] = 1,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient.")] = None,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes that learn as one.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, if there is one.")
    ] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write events for TensorBoard too.")] = False,
) -> None:
    """Train a network on the train tiles, keep the epoch that is best on the valid tiles.

    The folder holds the model, history.csv, the curves as PNG, last.ckpt to go on from, and train.toml, which
    `--config` reads.
    """
    images = mosaics_of(mosaic, also)
    masks = masks_of([mask, *map(Path, also_mask or [])], list(images.values()))
    learn, judge = streams_of(images, masks, tiles, batch, seed)
    begun = _model(list(images.values()), network, encoder, weights, model, seed)
    if freeze:
        begun.freeze_encoder()
    changes = augment_of(augment, begun.spec.bands)
    with _told(out, _config_of(context.params)):
        done = ls.training.fit(
            begun, learn, judge, epochs=epochs, folder=out, loss=loss, lr=lr, optimizer=optimizer,
            weight_decay=weight_decay, schedule=schedule, monitor=monitor, patience=patience, augment=changes,
            accumulate=accumulate, clip=clip, precision=precision, device=device, devices=devices, seed=seed,
            resume=resume, tensorboard=tensorboard,
        )  # fmt: skip
    _draw(done, out)
    console.print(f"Wrote {done.folder}", highlight=False)


@contextmanager
def _told(out: Path, options: str) -> Iterator[None]:
    """Write the options of a run into its folder; of one that is refused before it leaves a state, take them back."""
    if out.exists() and not out.is_dir():
        raise BadInput(sentence("out", "name a folder", f"out={out}"))
    path, state = out / CONFIG, out / LAST
    before, at = path.read_text() if path.exists() else None, _time(state)
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(options)
    try:
        yield
    except LsdaskError:
        if _time(state) == at:
            _put_back(path, before)
        raise


def _time(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _put_back(path: Path, before: str | None) -> None:
    """Give a file the text that it had; remove one that was not there, and its folder if that is now empty."""
    if before is not None:
        path.write_text(before)
        return
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()


def _model(
    images: "Sequence[xr.DataArray]", network: str, encoder: str, weights: str | None, folder: Path | None, seed: int
) -> Any:
    """Load a whole model, or build a network for images of the same bands."""
    if folder is not None:
        return ls.models.load(folder)
    if network == ls.models.architectures.CLASSIFIER:
        do = "Pass unet, or use lsdask pretrain"
        raise BadInput(sentence("network", "give a score a pixel", f"network={network}, of one a tile", do))
    mean, std = pooled([ls.statistics.bands(image) for image in images])
    bands = ls.schema.bands(images[0])
    return ls.models.build(network, bands=bands, encoder=encoder, weights=weights, mean=mean, std=std, seed=seed)


def pooled(images: "Sequence[xr.Dataset]") -> "tuple[np.ndarray, np.ndarray]":
    """Give the mean and standard deviation of each band over all pixels of images measured one by one."""
    import numpy as np

    count, mean, std = (np.stack([each[name].values for each in images]) for name in ("count", "mean", "std"))
    if not count.sum(axis=0).all():
        raise BadInput(sentence("mosaic", "have pixels with data in all bands", "none"))
    mean, std = np.where(count, mean, 0.0), np.where(count, std, 0.0)  # NaN where one of several has no pixel
    whole = np.average(mean, axis=0, weights=count)
    return whole, np.sqrt(np.average(std**2 + (mean - whole) ** 2, axis=0, weights=count))


def augment_of(text: str, bands: Sequence[str]) -> Any:
    """Read what ``--augment`` says of a model's bands: yes, no, or fields of ``augment.Augment`` with their values."""
    if text in ("yes", "no"):
        return text == "yes"
    changes = dict(part.partition("=")[::2] for part in text.replace(" ", "").split(","))
    fields = {
        name: type(value) for name, value in vars(ls.augment.Augment()).items() if isinstance(value, bool | float)
    }
    try:
        return ls.augment.Augment.for_bands(
            bands, **{name: _value(fields[name], value) for name, value in changes.items()}
        )
    except (KeyError, ValueError) as why:
        if isinstance(why, BadInput):
            raise
        rule = f"be yes, no, or name=value with commas between, of {', '.join(fields)}"
        raise BadInput(sentence("augment", rule, f"augment={text}")) from why


def _value(kind: type, text: str) -> Any:
    """Read one value: numbers, or yes and no."""
    return {"yes": True, "no": False}[text] if kind is bool else float(text)


def _draw(done: Any, out: Path) -> None:
    import pandas as pd

    history = pd.DataFrame(done.history)
    ls.report.figure_history(history).savefig(out / "losses.png", dpi=150)
    ls.report.figure_learning(history).savefig(out / "scores.png", dpi=150)


def _read_config(path: Path, known: set[str]) -> dict[str, Any]:
    try:
        told = tomllib.loads(there(path, "config").read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as why:
        raise BadInput(sentence("config", "be a TOML file", f"{path}: {why}")) from why
    named = {name.replace("-", "_"): value for name, value in told.items()}
    unknown = sorted(set(named) - known)
    if unknown:
        raise BadInput(sentence("config", f"hold {', '.join(sorted(known))}", f"{', '.join(unknown)} in {path}"))
    return named


def _config_of(values: dict[str, Any]) -> str:
    """Write options as TOML; those without a value, and where they came from, are left out."""
    kept = {name: value for name, value in values.items() if value is not None and name not in ("config", "resume")}
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in kept.items()}
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in plain.items())
