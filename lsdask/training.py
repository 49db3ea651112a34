"""Training: a model, a stream of tiles, and at the end a model folder that prediction takes."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Protocol, get_args

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, RichProgressBar
from rich.console import Console
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

from lsdask import __version__, losses, models
from lsdask.augment import Augment
from lsdask.errors import BadInput, sentence
from lsdask.models.architectures import CLASSIFIER
from lsdask.models.folder import check_savable
from lsdask.models.precision import Precision, candidates, check_precision
from lsdask.models.running import find_device, float_block
from lsdask.models.segmenter import TileClassifier
from lsdask.schema import UNKNOWN

Schedule = Literal["constant", "cosine", "one_cycle", "plateau"]
"""How the learning rate goes on."""

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
"""Optimisers by name."""

LOSS_DIFFERENCE = 0.02
"""Training runs in a reduced precision only if the first batch's loss changes by less than this share of it."""

COLLAPSED = 1e-3
"""A model whose scores of a whole epoch lie within this of each other has learnt nothing."""


class Tiles(Protocol):
    """What ``fit`` takes: ``streaming.TileStream``, or anything like it.

    Iterated once an epoch, each time from the start, it gives (image, mask) pairs of numpy arrays: image
    (n, band, y, x) as stored, mask (n, y, x) uint8.
    """

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""

    @property
    def nodata(self) -> float | int | None:
        """What stands for no data in the images."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Trained:
    """What training gives.

    Attributes
    ----------
    model : Segmenter
        With the best weights, in evaluation mode, on the CPU.
    history : tuple of dict
        One an epoch: ``epoch`` from 0, ``train`` and ``valid`` (losses; valid None if there is none), ``f1`` (of
        valid, or else of train as augmented), ``rate`` (learning rate), ``seconds``.
    folder : Path or None
        Where the model was written.
    """

    model: models.Segmenter
    history: tuple[dict[str, Any], ...]
    folder: Path | None


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
    seed: int = 0,
    progress: bool = True,
) -> Trained:
    """Train a model, keep its best weights, and write its folder.

    The folder is written whenever an epoch is the best so far, so that an interrupted run leaves what it reached.
    The same arguments and streams give the same history on one machine.

    Parameters
    ----------
    model : Segmenter
        From ``models.build``, or from ``models.load`` to go on with one. Trained in place.
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
        ``one_cycle`` (up, then down to 0), ``cosine`` (down to 0), ``plateau`` (to a tenth after 3 epochs that
        are not better) or ``constant``.
    monitor : str
        What the best epoch is judged by.
    patience : int, optional
        Stop after this many epochs that are not better.
    augment : bool or Augment
        True for ``Augment()``, False for tiles as they are.
    accumulate : int
        Batches whose gradients are summed before a step.
    clip : float, optional
        Largest norm of the gradient.
    precision : str
        ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``: a reduced one that the hardware computes, if
        the first batch's loss agrees with float32's.
    device : str
        ``"auto"`` (a GPU if there is one) or as torch writes it.
    seed : int
        Of augmentation and dropout; the order of tiles is the stream's.
    progress : bool
        Show a bar, in a terminal or notebook.

    Returns
    -------
    Trained

    Raises
    ------
    BadInput
        If an argument breaks its rule, a stream's bands are not the model's or it is empty or has no masks, a mask
        holds other values than classes and 255, or the loss is not finite (it names the batch).
    """
    _check_arguments(model, epochs, schedule, monitor, optimizer, patience)
    check_precision(precision)
    if folder is not None:
        check_savable(model)  # now, and not after the first epoch
    device = find_device(device)
    first = _first_batch(model.spec, train, valid)
    model.train().describe(tile=int(first[0].shape[-1]))  # Lightning leaves a loaded model as it is: evaluating
    chosen = augment if isinstance(augment, Augment) else Augment() if augment else None
    task = _Task(model, losses.find(loss), chosen, train, valid, seed)
    task.learn_by(optimizer, lr, weight_decay, schedule)
    settled = _settle_precision(task, first, device) if precision == "auto" else precision
    task.keeper = _Keeper(monitor, None if folder is None else Path(folder))
    task.keeper.record.update(
        lsdask=__version__,
        seed=seed,
        loss=loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__),
        optimizer=optimizer,
        lr=lr,
        schedule=schedule,
        monitor=monitor,
        precision=settled,
        device=device,
    )
    console = Console(stderr=True)
    shown = progress and (console.is_terminal or console.is_jupyter)
    with _quietly(), _seeded(seed, device):
        pl.Trainer(
            **_place(device),
            precision=_LIGHTNING[settled],
            max_epochs=epochs,
            accumulate_grad_batches=accumulate,
            gradient_clip_val=clip,
            callbacks=_callbacks(patience, shown),
            enable_progress_bar=shown,
            **_NO_LITTER,
        ).fit(task, train, valid)
    return task.keeper.finish(model)


def pretrain(
    encoder: str,
    train: Tiles,
    valid: Tiles | None = None,
    *,
    classes: int,
    folder: str | Path,
    epochs: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> Trained:
    """Teach an encoder to tell the cluster of a tile, so that a network can begin with it.

    Cluster labels cost nothing, and so any number of tiles can be learnt from. The folder's encoder goes into any
    decoder: ``models.build("unet", bands=..., encoder=encoder, weights=folder)``.

    Parameters
    ----------
    encoder : str
        As in ``models.build``.
    train, valid : TileStream
        With cluster labels (``kmeans.assign``) as their masks, and ``classes`` of them. A tile's class is the most
        frequent label of its known pixels, the lowest of those that tie.
    classes : int
        Clusters, at least 2.
    folder : path
        The model folder to write.
    epochs : int
    mean, std : sequence of float, optional
        Normalisation of each band in raw units.
    seed : int
        Of the first weights, augmentation and dropout.
    **arguments
        As of ``fit``; the loss is cross-entropy.

    Returns
    -------
    Trained

    Raises
    ------
    BadInput
        As ``fit`` does, and if there is only one class.

    Source: Garcia et al. 2022, pre-training of a DenseNet121 on the clusters of tiles.
    """
    if not isinstance(classes, int) or classes < 2:
        raise BadInput(sentence("classes", "be at least 2 clusters", f"classes={classes!r}"))
    model = models.build(CLASSIFIER, bands=train.bands, classes=classes, encoder=encoder, mean=mean, std=std, seed=seed)
    return fit(model, train, valid, epochs=epochs, folder=folder, seed=seed, **{"loss": "bce", **arguments})


def majority_block(labels: np.ndarray) -> np.ndarray:
    """Give the most frequent label of each tile, the lowest of those that tie.

    Parameters
    ----------
    labels : (n, y, x) uint8 array
        255 where unknown.

    Returns
    -------
    (n, 1, 1) uint8 array, 255 where nothing is known
    """
    counts = np.stack([np.bincount(tile.ravel(), minlength=UNKNOWN + 1) for tile in labels])[:, :UNKNOWN]
    found = np.where(counts.any(axis=1), counts.argmax(axis=1), UNKNOWN)
    return found.astype("uint8")[:, None, None]


_LIGHTNING: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}

_NO_LITTER: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
}


class _Task(pl.LightningModule):
    """What Lightning runs: a step, an epoch's sums, and whom to tell of them."""

    def __init__(
        self,
        model: models.Segmenter,
        loss: losses.Loss,
        augment: Augment | None,
        train: Tiles,
        valid: Tiles | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.augment = model, loss, augment
        self.streams, self.seed = {True: train, False: valid}, seed
        self.sums = {True: _Sums(), False: _Sums()}
        self.keeper: _Keeper
        self.begun = perf_counter()
        self.generator: torch.Generator | None = None

    def learn_by(self, optimizer: str, lr: float, weight_decay: float, schedule: Schedule) -> None:
        momentum = {"momentum": 0.9} if optimizer == "sgd" else {}
        self._learn = (OPTIMIZERS[optimizer], {"lr": lr, "weight_decay": weight_decay, **momentum}, schedule)

    def configure_optimizers(self) -> Any:
        make, arguments, schedule = self._learn
        optimizer = make([each for each in self.model.parameters() if each.requires_grad], **arguments)
        if schedule == "constant":
            return optimizer
        if schedule == "plateau":
            plateau = ReduceLROnPlateau(optimizer, factor=0.1, patience=3)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "judged"}}
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler: Any = (
            CosineAnnealingLR(optimizer, steps)
            if schedule == "cosine"
            else OneCycleLR(optimizer, arguments["lr"], total_steps=steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        return self.put(batch, device, train=self.trainer.training)

    def put(self, batch: Any, device: torch.device, *, train: bool) -> tuple[Tensor, Tensor]:
        """Bring a batch as stored to the device: image float32 with NaN where void, and mask."""
        stream = self.streams[train]
        image, mask = batch
        _check_mask(mask, self.model.spec.classes, "train" if train else "valid")
        if isinstance(self.model, TileClassifier):
            mask = majority_block(mask)
        tensors = torch.from_numpy(float_block(image, stream.nodata if stream else None)), torch.from_numpy(mask)
        if device.type == "cuda":
            tensors = tensors[0].pin_memory(), tensors[1].pin_memory()
        return tensors[0].to(device, non_blocking=True), tensors[1].to(device, non_blocking=True)

    def score(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Give the loss of a batch and its logits."""
        outputs = self.model.outputs(image.contiguous(memory_format=torch.channels_last))
        return losses.supervise(self.loss, outputs, mask), outputs[0]

    def on_train_epoch_start(self) -> None:
        self.sums = {True: _Sums(), False: _Sums()}
        self.begun = perf_counter()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        image, mask = batch
        if self.augment is not None:
            generator, model = self._generator(), self.model
            whole = isinstance(model, TileClassifier)
            moved = mask.expand(-1, *image.shape[-2:]) if whole else mask
            image, moved = self.augment(image, moved, generator=generator, mean=model.mean, std=model.std)
            mask = mask if whole else moved
        loss, logits = self.score(image, mask)
        if not torch.isfinite(loss):
            raise BadInput(self._not_finite(loss.item(), batch[0], index))
        self.sums[True].add(loss, logits, mask, self.model.spec.threshold)
        self.log("loss", loss.detach(), prog_bar=True, batch_size=len(image))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        loss, logits = self.score(*batch)
        self.sums[False].add(loss, logits, batch[1], self.model.spec.threshold)

    def on_train_epoch_end(self) -> None:
        train, valid = self.sums[True], self.sums[False]
        judge = train if self.streams[False] is None else valid
        row = {
            "epoch": self.current_epoch,
            "train": train.loss,
            "valid": valid.loss if valid.tiles else None,
            "f1": judge.f1,
            "rate": self.optimizers().param_groups[0]["lr"],  # type: ignore[union-attr]  # one optimiser
            "seconds": perf_counter() - self.begun,
        }
        tiles = {"train_tiles": train.tiles, "valid_tiles": valid.tiles}
        judged = self.keeper.see(row, self.model, judge.spread, tiles)
        self.log("judged", judged)
        self.log_dict({"f1": row["f1"], "valid": row["valid"] or float("nan")}, prog_bar=True)

    def _generator(self) -> torch.Generator:
        """Give the augmentation's own generator, on the device, begun on first use."""
        if self.generator is None:
            self.generator = torch.Generator(self.device).manual_seed(self.seed)
        return self.generator

    def _not_finite(self, loss: float, image: Tensor, index: int) -> str:
        values = image[~torch.isnan(image)]
        reach = f"values from {values.min():.3g} to {values.max():.3g}" if len(values) else "no values"
        where = f"{loss} in epoch {self.current_epoch}, batch {index}{_tiles(self.streams[True], index)}, with {reach}"
        do = "Declare a nodata value that is not declared, normalise with mean and std, or lower lr"
        return sentence("the training loss", "be finite", where, do)


@dataclass
class _Sums:
    """An epoch's sums over known pixels, on the device until asked for."""

    tiles: int = 0
    weighted: Tensor | float = 0.0
    counts: Tensor | None = None
    low: Tensor | None = None
    high: Tensor | None = None

    def add(self, loss: Tensor, logits: Tensor, mask: Tensor, threshold: float) -> None:
        self.tiles += len(mask)
        self.weighted = self.weighted + loss.detach() * len(mask)
        counts, low, high = tally_block(logits.detach(), mask, threshold)
        self.counts = counts if self.counts is None else self.counts + counts
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)

    @property
    def loss(self) -> float:
        return float(self.weighted) / max(self.tiles, 1)

    @property
    def f1(self) -> float:
        """F1 of the landslide class, or the mean over the classes but the first; 0 if there are none."""
        if self.counts is None:
            return 0.0
        hit, alarm, miss = self.counts.double()
        return float((2 * hit / (2 * hit + alarm + miss).clamp(min=1)).mean())

    @property
    def spread(self) -> float:
        return 1.0 if self.low is None or self.high is None else float(self.high - self.low)


def tally_block(logits: Tensor, mask: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Count hits, false alarms and misses over known pixels, and give the lowest and highest score.

    Parameters
    ----------
    logits : (n, class, y, x) tensor
    mask : (n, y, x) uint8 tensor
    threshold : float
        For one class; of several, the highest score is taken.

    Returns
    -------
    counts : (3, class) int64 tensor
        Of the landslide class, or of all classes but the first.
    low, high : scalar tensors
    """
    known = (mask != UNKNOWN).unsqueeze(1)
    if logits.shape[1] == 1:
        scores = torch.sigmoid(logits.float())
        said, true = scores >= threshold, (mask == 1).unsqueeze(1)
    else:
        scores = torch.softmax(logits.float(), dim=1)[:, 1:]
        numbers = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, 1, 1)
        said, true = logits.argmax(1, keepdim=True) == numbers, mask.unsqueeze(1) == numbers
    parts = (said & true & known, said & ~true & known, ~said & true & known)
    low = torch.where(known, scores, scores.new_ones(())).min()
    high = torch.where(known, scores, scores.new_zeros(())).max()
    return torch.stack([part.sum((0, 2, 3)) for part in parts]), low, high


@dataclass
class _Keeper:
    """Keeps the best epoch's weights and the record, and writes them."""

    monitor: str
    folder: Path | None
    record: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = float("inf")
    state: dict[str, Tensor] = field(default_factory=dict)
    spread: float = 1.0

    def see(self, row: dict[str, Any], model: models.Segmenter, spread: float, tiles: dict[str, int]) -> float:
        """Take note of an epoch; give the number it is judged by, less is better."""
        self.history.append(row)
        judged = -row["f1"] if self.monitor == "f1" else row["train"] if row["valid"] is None else row["valid"]
        if judged < self.best or not self.state:
            self.best, self.spread = judged, spread
            self.state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            self.record["best_epoch"] = row["epoch"]
            self.record.update(tiles)
            self._write(model)
        return judged

    def _write(self, model: models.Segmenter) -> None:
        seconds = sum(row["seconds"] for row in self.history)
        model.describe(record={**self.record, "seconds": seconds, "history": list(self.history)})
        if self.folder is not None:
            models.save(model, self.folder)

    def finish(self, model: models.Segmenter) -> Trained:
        """Put the best weights back, and say so if they have learnt nothing."""
        model.cpu().load_state_dict(self.state)
        if self.spread < COLLAPSED:
            told = f"The model has collapsed: its scores differ by {self.spread:.1g} over a whole epoch."
            self.record["warnings"] = [told]
            warnings.warn(f"{told} Train again with another seed, a lower lr or another loss.", stacklevel=3)
        self._write(model)
        return Trained(model.eval(), tuple(self.history), self.folder)


def _check_arguments(
    model: Any, epochs: int, schedule: str, monitor: str, optimizer: str, patience: int | None
) -> None:
    if not isinstance(model, models.Segmenter):
        raise BadInput(sentence("model", "be made by lsdask.models.build or load", f"a {type(model).__name__}"))
    for name, value in (("epochs", epochs), ("patience", 1 if patience is None else patience)):
        if not isinstance(value, int) or value < 1:
            raise BadInput(sentence(name, "be a whole number, at least 1", f"{name}={value!r}"))
    for name, given, known in (
        ("schedule", schedule, get_args(Schedule)),
        ("monitor", monitor, ("loss", "f1")),
        ("optimizer", optimizer, tuple(OPTIMIZERS)),
    ):
        if given not in known:
            raise BadInput(sentence(name, f"be one of {', '.join(known)}", f"{name}={given!r}"))


def _first_batch(spec: models.Spec, train: Tiles, valid: Tiles | None) -> Any:
    """Check the streams against the model, and give the first batch of ``train``."""
    for name, stream in (("train", train), ("valid", valid)):
        if stream is not None:
            models.check_bands(spec, stream.bands, name=name)
            if len(stream) == 0:
                raise BadInput(sentence(name, "give at least one batch", "none", "Look at its tile index"))
    return next(iter(train))


def _check_mask(mask: Any, classes: int, name: str) -> None:
    if mask is None:
        raise BadInput(sentence(name, "give masks", "a stream of images alone", "Pass mask= to the stream"))
    held = np.flatnonzero(np.bincount(mask.ravel(), minlength=UNKNOWN + 1))
    most = max(classes, 2) - 1
    if ((held > most) & (held != UNKNOWN)).any():
        raise BadInput(sentence(f"{name}'s masks", f"hold 0 to {most}, or {UNKNOWN} where unknown", f"{held.tolist()}"))


def _tiles(stream: Any, index: int) -> str:
    """Name the rows of the tile index in a batch, where the stream can tell them."""
    if not hasattr(stream, "plan"):
        return ""
    plan = stream.plan()
    rows = plan.order[plan.bounds[index] : plan.bounds[index + 1]].tolist()
    return f" (tiles {', '.join(map(str, rows[:8]))}{' ...' if len(rows) > 8 else ''})"


def _settle_precision(task: _Task, batch: Any, device: str) -> Precision:
    """Choose a reduced precision if the hardware computes it and the first batch's loss stays what it is."""
    place = torch.device(device)
    # Of the two that a GPU offers, bfloat16 has float32's range: no gradient has to be scaled.
    for precision in sorted(candidates(place)):
        exact, reduced = (_loss_in(each, task, batch, place) for each in ("float32", precision))
        if abs(exact - reduced) <= LOSS_DIFFERENCE * abs(exact):
            return precision
    return "float32"


def _loss_in(precision: str, task: _Task, batch: Any, device: torch.device) -> float:
    reduced = precision != "float32"
    image, mask = task.put(batch, device, train=True)
    model = deepcopy(task.model).to(device).eval()
    with torch.inference_mode(), torch.autocast(device.type, getattr(torch, precision), enabled=reduced):
        return float(task.loss(model(image), mask))


def _place(device: str) -> dict[str, Any]:
    """Say a device as Lightning wants it."""
    kind, _, number = device.partition(":")
    accelerator = "gpu" if kind == "cuda" else kind
    return {"accelerator": accelerator, "devices": [int(number)] if number and kind == "cuda" else 1}


def _callbacks(patience: int | None, progress: bool) -> list[Callback]:
    bar: list[Callback] = [RichProgressBar(leave=False)] if progress else []
    if patience is None:
        return bar
    return [*bar, EarlyStopping("judged", patience=patience, check_on_train_epoch_end=True, check_finite=False)]


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep Lightning's advice about loggers and workers to itself, for this run only."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning|torch\.optim")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """Seed torch's global generator, which dropout draws from, and leave it as it was."""
    kind = torch.device(device)
    devices = [kind.index or 0] if kind.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
