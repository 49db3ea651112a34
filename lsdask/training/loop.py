"""The loop: epochs of steps, each epoch judged, and the whole state laid down so that it can be gone on from."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from lightning.fabric import Fabric
from rich.progress import Progress
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lsdask import losses, models
from lsdask.errors import BadInput, sentence
from lsdask.models.segmenter import TileClassifier
from lsdask.streaming import Stream
from lsdask.training import checkpoints, ranks, streams
from lsdask.training.keeping import Keeper
from lsdask.training.learning import Settings, make_optimizer, make_schedule
from lsdask.training.streams import Flow, Tiles
from lsdask.training.tally import Sums


@dataclass
class Saving:
    """Where and how often the last state is written.

    Attributes
    ----------
    folder : Path or None
        None: nowhere.
    seconds : float
        At least so long between two states of one epoch; the end of an epoch is always written.
    facts : dict
        What is the same in every state: what the run is, and which epochs its streams began at.
    """

    folder: Path | None
    seconds: float
    facts: dict[str, Any]
    at: float = field(default_factory=perf_counter)


class Run:
    """One training: its parts, where it is, and the way on.

    Parameters
    ----------
    fabric : Fabric
        Launched.
    model : Segmenter
    settings : Settings
    train : Tiles
    valid : Tiles or None
    keeper : Keeper
    saving : Saving
    bar : Progress
    ahead : Flow, optional
        Of the first epoch's batches, if they are coming already.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: models.Segmenter,
        settings: Settings,
        train: Tiles,
        valid: Tiles | None,
        keeper: Keeper,
        saving: Saving,
        bar: Progress,
        ahead: Flow | None = None,
    ) -> None:
        self.fabric, self.model, self.settings, self.bar = fabric, model, settings, bar
        self.train, self.valid, self.keeper, self.saving, self.ahead = train, valid, keeper, saving, ahead
        self.loss = losses.find(settings.loss)
        self.optimizer = make_optimizer(model, settings)
        steps = -(-len(train) // settings.accumulate) * settings.epochs
        self.schedule = make_schedule(self.optimizer, settings, steps)
        self.network, self.stepper = fabric.setup(model, self.optimizer)
        self.network.mark_forward_method("outputs")
        seed = ranks.seed_of(settings.seed, fabric.global_rank)
        self.generator = torch.Generator(fabric.device).manual_seed(seed)
        self.epoch, self.batch, self.seconds, self.done, self.rate = 0, 0, 0.0, False, settings.lr
        self.sums, self.begun = Sums(), perf_counter()

    def go(self) -> None:
        """Train from where the run is to its end."""
        try:
            self._go()
        finally:
            if self.ahead is not None:
                self.ahead.close()

    def _go(self) -> None:
        while not self.done:
            self.begun = perf_counter() - self.seconds
            self._learn()
            if isinstance(self.train, Stream) and self.train is not self.valid:
                self.ahead = self._flow(self.epoch + 1) if self.epoch + 1 < self.settings.epochs else None
            ranks.even_out(self.model)
            judged = self._judge(self.sums.merged(ranks.reduce), self._validate().merged(ranks.reduce))
            if isinstance(self.schedule, ReduceLROnPlateau):
                self.schedule.step(judged)
            self.epoch, self.batch, self.seconds, self.sums = self.epoch + 1, 0, 0.0, Sums()
            stale = self.settings.patience is not None and self.keeper.stale >= self.settings.patience
            self.done = stale or self.epoch >= self.settings.epochs
            self._save()

    def _learn(self) -> None:
        """Take an epoch's steps, or those left of it."""
        self.model.train()
        total, every = len(self.train), self.settings.accumulate
        task = self.bar.add_task(self._title(), total=total, completed=self.batch)
        flow, self.ahead = self.ahead or self._flow(self.epoch, self.batch), None
        with closing(flow):
            coming = streams.ready(flow, self.train, "train", self.model, self.fabric.device)
            for index, (image, mask) in enumerate(coming, start=self.batch):
                last = index + 1 == total
                step = last or (index + 1) % every == 0
                group = min(every, total - index // every * every)
                with self.fabric.no_backward_sync(self.network, enabled=not step):
                    self.fabric.backward(self._loss(image, mask, index) / group)
                if step:
                    self._step()
                    self.batch = index + 1
                    if not last:
                        self._save_if_due()
                self.bar.advance(task)
        self.bar.remove_task(task)

    def _flow(self, epoch: int, begin: int = 0) -> Flow:
        """Let an epoch's batches come; a stream's own epochs go on where they were when training began."""
        return Flow(self.train, self.saving.facts["begun"]["train"] + epoch, begin)

    def _loss(self, image: Tensor, mask: Tensor, index: int) -> Tensor:
        """Score one batch, augmented."""
        changed = self._augment(image, mask)
        loss, logits = self._score(self.network, *changed)
        if not torch.isfinite(loss):
            raise BadInput(self._not_finite(loss.item(), image, "train", index))
        self.sums.add(loss, logits, changed[1], self.model.spec.threshold)
        return loss

    def _augment(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        augment, model = self.settings.augment, self.model
        if augment is None:
            return image, mask
        whole = isinstance(model, TileClassifier)
        moved = mask.expand(-1, *image.shape[-2:]) if whole else mask
        image, moved = augment(image, moved, generator=self.generator, mean=model.mean, std=model.std)
        return image, mask if whole else moved

    def _score(self, network: Any, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Give the loss of a batch and its logits."""
        # Fabric itself casts for ranks only, where a method is not ``forward``
        with self.fabric.autocast(), _enough(image):
            outputs = network.outputs(image.contiguous(memory_format=torch.channels_last))
        return losses.supervise(self.loss, outputs, mask), outputs[0]

    def _step(self) -> None:
        if self.settings.clip is not None:
            self.fabric.clip_gradients(self.network, self.stepper, max_norm=self.settings.clip)
        before, self.rate = self._scale(), self.optimizer.param_groups[0]["lr"]
        self.stepper.step()
        self.optimizer.zero_grad()
        taken = self._scale() >= before  # gradients that overflow float16 are thrown away, and scaled less from then on
        if taken and self.schedule is not None and not isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step()

    def _scale(self) -> float:
        """Say by what gradients are multiplied: more than 1 in float16."""
        return self.fabric.strategy.precision.state_dict().get("scale", 1.0)

    def _validate(self) -> Sums:
        """Sum the scores of the validation tiles; the bare model does, as ranks may have different numbers of them."""
        sums = Sums()
        if self.valid is None:
            return sums
        self.model.eval()
        task = self.bar.add_task(f"{self._title()}, judging", total=len(self.valid))
        flow = Flow(self.valid, self.saving.facts["begun"]["valid"] + self.epoch)
        with torch.inference_mode(), closing(flow):
            coming = streams.ready(flow, self.valid, "valid", self.model, self.fabric.device)
            for index, (image, mask) in enumerate(coming):
                loss, logits = self._score(self.model, image, mask)
                if not torch.isfinite(loss):  # which is neither better nor worse than any other
                    raise BadInput(self._not_finite(loss.item(), image, "valid", index))
                sums.add(loss, logits, mask, self.model.spec.threshold)
                self.bar.advance(task)
        self.bar.remove_task(task)
        return sums

    def _judge(self, train: Sums, valid: Sums) -> float:
        """Write the epoch down; give the number it is judged by."""
        judge = train if self.valid is None else valid
        if not judge.known:
            name = "train" if self.valid is None else "valid"
            raise BadInput(sentence(f"{name}'s masks", "know a pixel, to judge an epoch by", "nothing but 255"))
        row = {
            "epoch": self.epoch,
            "train": train.loss,
            "valid": valid.loss if valid.tiles else None,
            **judge.scores,
            "rate": self.rate,
            "seconds": perf_counter() - self.begun,
        }
        tiles = {"train_tiles": train.tiles, "valid_tiles": valid.tiles}
        return self.keeper.see(row, self.model, judge.spread, tiles)

    def _title(self) -> str:
        last = self.keeper.history[-1] if self.keeper.history else None
        told = f", f1 {last['f1']:.3f}" if last else ""
        return f"epoch {self.epoch} of {self.settings.epochs}{told}"

    def _not_finite(self, loss: float, image: Tensor, name: str, index: int) -> str:
        """Say which batch of ``train`` or ``valid`` it is, and what it holds."""
        values = image[~torch.isnan(image)]
        reach = f"values from {values.min():.3g} to {values.max():.3g}" if len(values) else "no values"
        stream = self.train if name == "train" else self.valid
        tiles = streams.tiles_of(stream, self.saving.facts["begun"][name] + self.epoch, index)
        where = f"{loss} in epoch {self.epoch}, batch {index}{tiles}, with {reach}"
        do = "Declare a nodata value that is not declared, normalise with mean and std, or lower lr"
        told = "the training loss" if name == "train" else "the validation loss"
        return sentence(told, "be finite", where, do)

    def _save_if_due(self) -> None:
        """Save if it is time; the first rank's clock says so for all."""
        if self.saving.folder is None:
            return
        if self.fabric.broadcast(perf_counter() - self.saving.at >= self.saving.seconds):
            self.seconds = perf_counter() - self.begun
            self._save()

    def _save(self) -> None:
        """Lay down the state, each rank's own part too."""
        if self.saving.folder is None:
            return
        every = ranks.gather(self._own_state())
        if self.fabric.is_global_zero:
            checkpoints.write(self.saving.folder, {**self.saving.facts, "run": self._state(), "ranks": every})
        self.saving.at = perf_counter()

    def _state(self) -> dict[str, Any]:
        """Give what is the same on all ranks."""
        return {
            **{name: getattr(self, name) for name in ("epoch", "batch", "seconds", "done")},
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule and self.schedule.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "keeper": self.keeper.state_dict(),
        }

    def _own_state(self) -> dict[str, Any]:
        """Give what is this rank's own."""
        return {
            "random": ranks.random_state(self.fabric.device),
            "generator": self.generator.get_state(),
            "sums": self.sums.state_dict(),
        }

    def load(self, held: dict[str, Any]) -> None:
        """Go back to a state that was laid down."""
        run, own = held["run"], held["ranks"][self.fabric.global_rank]
        for name in ("epoch", "batch", "seconds", "done"):
            setattr(self, name, run[name])
        self.model.load_state_dict(run["model"])
        self.optimizer.load_state_dict(run["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(run["schedule"])
        self.fabric.strategy.precision.load_state_dict(run["precision"])
        self.keeper.load_state_dict(run["keeper"])
        ranks.set_random_state(own["random"], self.fabric.device)
        self.generator.set_state(own["generator"])
        self.sums = Sums(**own["sums"]).to(self.fabric.device)


@contextmanager
def _enough(image: Tensor) -> Iterator[None]:
    """Say in one sentence what batch norms say of a batch too small to have a spread."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        rule = "hold 2 tiles or more, where the network shrinks a tile to one pixel"
        count, _, height, width = image.shape
        do = "Pass drop_last=True, or another batch_size"
        raise BadInput(sentence("a batch", rule, f"{count} of {height} x {width} px", do)) from error
