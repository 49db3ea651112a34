"""Training: a model, a stream of tiles, and at the end a model folder that prediction takes.

The loop is lsdask's own, on Lightning's Fabric, which brings precisions and ranks: a loop whose whole state lies open
can be gone on from at any batch. Beside the model, the folder holds ``history.csv`` (a row an epoch), ``last.ckpt``
(everything needed to go on) and, where asked for, ``tensorboard/``. ``report.figure_history`` and
``report.figure_learning`` draw the curves of ``pandas.DataFrame(trained.history)``.
"""

from lsdask.training.fitting import fit
from lsdask.training.keeping import COLLAPSED, Trained
from lsdask.training.learning import OPTIMIZERS, Schedule
from lsdask.training.pretraining import pretrain
from lsdask.training.settling import LOSS_DIFFERENCE
from lsdask.training.stages import progressive
from lsdask.training.streams import Tiles, majority_block
from lsdask.training.tally import tally_block

__all__ = [
    "COLLAPSED",
    "LOSS_DIFFERENCE",
    "OPTIMIZERS",
    "Schedule",
    "Tiles",
    "Trained",
    "fit",
    "majority_block",
    "pretrain",
    "progressive",
    "tally_block",
]
