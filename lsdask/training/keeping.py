"""What a training leaves: the best weights in a model folder, its record, its history as a table."""

import csv
import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lsdask import models
from lsdask.errors import BadInput, sentence
from lsdask.training.checkpoints import replace

COLLAPSED = 1e-3
"""A model whose scores of a whole epoch lie within this of each other has learnt nothing."""

HISTORY = "history.csv"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class Trained:
    """What training gives.

    Attributes
    ----------
    model : Segmenter
        With the best weights, in evaluation mode, on the CPU.
    history : tuple of dict
        One an epoch: ``epoch`` from 0; ``train`` and ``valid`` (losses; valid None if there is none); ``f1``,
        ``precision``, ``recall`` and ``iou`` of known pixels (of valid, or else of train as augmented); ``rate``
        (learning rate of the epoch's last step); ``seconds``.
    folder : Path or None
        Where the model was written.
    """

    model: models.Segmenter
    history: tuple[dict[str, Any], ...]
    folder: Path | None


@dataclass
class Keeper:
    """Keeps the best epoch's weights and the record, and writes them where it is told to.

    Attributes
    ----------
    monitor : str
        ``loss`` or ``f1``.
    folder : Path or None
        Where to write; None on all ranks but the first.
    stale : int
        Epochs since the best.
    """

    monitor: str
    folder: Path | None
    board: Any = None
    record: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = float("inf")
    stale: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)
    spread: float = 1.0

    def see(self, row: dict[str, Any], model: models.Segmenter, spread: float, tiles: dict[str, int]) -> float:
        """Take note of an epoch; give the number it is judged by, less is better."""
        self.history.append(row)
        judged = -row["f1"] if self.monitor == "f1" else row["train"] if row["valid"] is None else row["valid"]
        self.stale += 1
        if judged < self.best or not self.state:
            self.best, self.spread, self.stale = judged, spread, 0
            self.state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            self.record["best_epoch"] = row["epoch"]
            self.record.update(tiles)
            self._write(model)
        self._log(row)
        return judged

    def _write(self, model: models.Segmenter) -> None:
        seconds = sum(row["seconds"] for row in self.history)
        model.describe(record={**self.record, "seconds": seconds, "history": list(self.history)})
        if self.folder is not None:
            models.save(model, self.folder)

    def _log(self, row: dict[str, Any]) -> None:
        if self.folder is not None:
            replace(self.folder / HISTORY, _table(self.history))
        if self.board is not None:
            for name, value in row.items():
                if name not in ("epoch", "seconds") and value is not None:
                    self.board.add_scalar(f"loss/{name}" if name in ("train", "valid") else name, value, row["epoch"])
            self.board.flush()

    def finish(self, model: models.Segmenter) -> None:
        """Put the best weights back, and say so if they have learnt nothing."""
        model.cpu().load_state_dict(self.state)
        if self.spread < COLLAPSED:
            told = f"The model has collapsed: its scores differ by {self.spread:.1g} over a whole epoch."
            self.record["warnings"] = [told]
            warnings.warn(f"{told} Train again with another seed, a lower lr or another loss.", stacklevel=3)
        self._write(model)
        model.eval()

    def state_dict(self) -> dict[str, Any]:
        """Give what is kept, plain values and tensors."""
        kept = ("record", "history", "best", "stale", "state", "spread")
        return {name: getattr(self, name) for name in kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep what was kept."""
        vars(self).update(state)


def _table(history: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()


def check_board() -> None:
    """Raise BadInput where tensorboard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as why:
        do = "Install it: pip install 'lsdask[tensorboard]'"
        raise BadInput(sentence("tensorboard", "be False where that package is missing", "True", do)) from why


def make_board(folder: Path, epoch: int) -> Any:
    """Open the folder of TensorBoard's events; those of ``epoch`` and later are another life's and are hidden."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / TENSORBOARD), purge_step=epoch)
