"""The door of training: everything checked and put together before the first step."""

from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import Progress

from lsdask import __version__, losses, models, telling
from lsdask.augment import Augment
from lsdask.errors import BadInput, sentence
from lsdask.models.folder import check_savable
from lsdask.models.running import find_device
from lsdask.training import checkpoints, ranks, streams
from lsdask.training.keeping import Keeper, Trained, check_board, make_board
from lsdask.training.learning import Schedule, Settings
from lsdask.training.loop import Run, Saving
from lsdask.training.settling import settle
from lsdask.training.streams import Tiles


def fit(
    model: models.Segmenter,
    train: Tiles,
    valid: Tiles | None = None,
    *,
    epochs: int,
    folder: str | Path | None = None,
    loss: str | losses.Loss = "bce_dice",
    lr: float = 1e-3,
    optimizer: str = "adam",
    weight_decay: float = 0.0,
    schedule: Schedule = "one_cycle",
    monitor: Literal["loss", "f1"] = "loss",
    patience: int | None = None,
    augment: bool | Augment = True,
    accumulate: int = 1,
    clip: float | None = None,
    precision: str = "auto",
    device: str = "auto",
    devices: int = 1,
    seed: int = 0,
    resume: bool = False,
    save_seconds: float = 60.0,
    tensorboard: bool = False,
    progress: bool = True,
) -> Trained:
    """Train a model, keep its best weights, and write its folder.

    The folder is written whenever an epoch is the best so far, and its ``last.ckpt`` at the end of each epoch and at
    times in between: an interrupted run leaves what it reached, and with ``resume`` goes on from there, in
    mid-epoch too, to the history and weights that it would have had. The same arguments and streams give the same
    history on one machine.

    Parameters
    ----------
    model : Segmenter
        From ``models.build``, or from ``models.load`` to go on with one. Trained in place. Tiles whose sides its
        stride does not divide are extended by it, mirrored, and its output is cut back.
    train, valid : TileStream
        Tiles to learn from, and to judge by; without ``valid`` the training tiles judge.
    epochs : int
        Passes over ``train``, at most.
    folder : path, optional
        The model folder to write.
    loss : str or callable
        One of ``losses.NAMES``, or a function of logits and mask.
    lr : float
        Learning rate, the highest of the schedule.
    optimizer : str
        ``adam``, ``adamw`` or ``sgd`` (with momentum 0.9).
    weight_decay : float
    schedule : str
        ``one_cycle`` (up, then down to 0; momentum and Adam's first beta from 0.95 down to 0.85 and up again),
        ``cosine`` (down to 0), ``plateau`` (to a tenth after 3 epochs that are not better) or ``constant``.
    monitor : str
        What the best epoch is judged by.
    patience : int, optional
        Stop after this many epochs that are not better.
    augment : bool or Augment
        True for ``Augment.for_bands`` of the model's bands, False for tiles as they are.
    accumulate : int
        Batches whose gradients are averaged for a step.
    clip : float, optional
        Largest norm of the gradient.
    precision : str
        ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``: a reduced one that the hardware computes, if
        the first batch's loss agrees with float32's.
    device : str
        ``"auto"`` (a GPU if there is one) or as torch writes it.
    devices : int
        Processes that learn as one, each on its own device and from its own share of the tiles (the streams' rank
        and world are set): the script is started again for each, or ``torchrun`` has started them. A step is of
        ``devices`` batches; batch normalisation sees one. All end with the same weights; the first writes.
    seed : int
        Of augmentation and dropout; the order of tiles is the stream's.
    resume : bool
        Go on with the run that ``folder`` holds; start it where there is none. Pass the same arguments and a model
        and streams made in the same way.
    save_seconds : float
        At least so long between two states of one epoch; 0 writes one after every step.
    tensorboard : bool
        Write events to ``folder/tensorboard`` too.
    progress : bool
        Show a bar, in a terminal or notebook.

    Returns
    -------
    Trained

    Raises
    ------
    BadInput
        If an argument breaks its rule, a stream's bands are not the model's or it is empty or has no masks, a mask
        holds other values than classes and 255, nothing is known in an epoch of what judges, or the loss is not
        finite (it names the batch).
    OtherPlan
        If ``folder`` holds another run to go on with; it names what differs.
    Unreadable
        If a stream cannot read, or the folder cannot be written. What ``last.ckpt`` holds stays.
    """
    folder = None if folder is None else Path(folder)
    _check_model(model, folder, resume=resume, tensorboard=tensorboard)
    if not isinstance(augment, bool | Augment):
        raise BadInput(sentence("augment", "be True, False or an Augment", f"augment={augment!r}"))
    settings = Settings(
        epochs=epochs, loss=loss, lr=lr, optimizer=optimizer, weight_decay=weight_decay, schedule=schedule,
        monitor=monitor, patience=patience, accumulate=accumulate, clip=clip, precision=precision, seed=seed,
        augment=augment if isinstance(augment, Augment) else Augment.for_bands(model.spec.bands) if augment else None,
    )  # fmt: skip
    device = find_device(device)
    ranks.check_devices(device, devices)
    streams.check_streams(model.spec, train, valid, devices)
    held = checkpoints.read(folder) if resume and folder is not None else None
    own = {"train": streams.epoch_of(train), "valid": streams.epoch_of(valid)}
    begun = own if held is None else held["begun"]
    with ranks.quietly(), closing(streams.Flow(train, begun["train"])) as look:
        first = look.first()
        alone = held is None and devices == 1  # then the run begins with what is looked at here
        if not alone:
            look.close()
        plan = {**settings.plan(), **_plan(model, train, valid, first), "device": device, "devices": devices}
        if held is not None and folder is not None:
            checkpoints.check(folder, held["plan"], plan)
        settled = _settled(model, settings, train, first, device) if held is None else held["settled"]
        fabric = ranks.launch(device, devices, settled)
        rank = fabric.global_rank
        mine, judging = (
            streams.part(stream, name, rank, devices) for name, stream in (("train", train), ("valid", valid))
        )
        keeper = Keeper(monitor, folder if rank == 0 else None)
        keeper.record.update(_record(settings, settled, device, devices))
        # Lightning leaves a loaded model as it is: evaluating.
        model.train().describe(tile=int(first[0].shape[-1]))
        saving = Saving(folder, save_seconds, {"plan": plan, "begun": begun, "settled": settled})
        with ranks.seeded(ranks.seed_of(seed, rank), fabric.device), _bar(progress and rank == 0) as bar:
            run = Run(fabric, model, settings, mine, judging, keeper, saving, bar, look if alone else None)
            if held is not None:
                run.load(held)
            if tensorboard and keeper.folder is not None:
                keeper.board = make_board(keeper.folder, run.epoch)
            run.go()
            streams.set_epochs(train, valid, begun, run.epoch)
    keeper.finish(model)
    return Trained(model, tuple(keeper.history), folder)


def _check_model(model: Any, folder: Path | None, *, resume: bool, tensorboard: bool) -> None:
    if not isinstance(model, models.Segmenter):
        raise BadInput(sentence("model", "be made by lsdask.models.build or load", f"a {type(model).__name__}"))
    for name, asked in (("resume", resume), ("tensorboard", tensorboard)):
        if asked and folder is None:
            raise BadInput(sentence(name, "be False without a folder", f"{name}=True", "Pass folder="))
    if folder is not None:
        check_savable(model)  # now, and not after the first epoch
    if tensorboard:
        check_board()


def _plan(model: models.Segmenter, train: Tiles, valid: Tiles | None, first: Any) -> dict[str, Any]:
    """Say what else a run is, besides its settings, one plain value a name."""
    spec = model.spec
    described = {name: getattr(spec, name) for name in ("name", "encoder", "bands", "classes", "options")}
    return {
        **{f"model.{name}": value for name, value in described.items()},
        "model.first weights": models.digest(model),
        "model.frozen": model.frozen,
        "train.first batch": streams.fingerprint(first),
        **streams.identity(train, "train"),
        **streams.identity(valid, "valid"),
    }


def _record(settings: Settings, settled: str, device: str, devices: int) -> dict[str, Any]:
    """Give what is written into the model folder about how it was trained."""
    told = {name: getattr(settings, name) for name in ("seed", "optimizer", "lr", "schedule", "monitor")}
    place = {"precision": settled, "device": device, "devices": devices}
    return {"lsdask": __version__, "loss": settings.loss_name, **told, **place}


def _settled(model: models.Segmenter, settings: Settings, train: Tiles, first: Any, device: str) -> str:
    """Settle the precision by the first batch."""
    if settings.precision != "auto":
        return settings.precision
    image, mask = streams.put(first, train, "train", model, torch.device(device))
    return settle(model, losses.find(settings.loss), image, mask)


def _bar(asked: bool) -> Progress:
    """Give a bar that is shown where it was asked for and somebody looks."""
    console = telling.console(stderr=True)
    looked_at = console.is_terminal or console.is_jupyter
    return Progress(console=console, transient=True, disable=not (asked and looked_at))
