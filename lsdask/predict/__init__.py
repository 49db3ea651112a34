"""Apply a model to images of any size: lazily in a notebook, or store to store as a run that survives.

A model is anything that turns blocks (n, band, y, x) into scores (n, class, y, x). Each tile is computed from its
block, the tile and its halo; at the border of the image the halo is mirrored (or what ``edge`` says). If the model
looks no further than the halo, which is the default for networks, the scores are those of the whole image in one pass,
however it was cut. With ``window=`` given they do not depend on the tile in any case.

Void pixels (no data in some band) are unknown in the scores. A network fills them with the mean of its training
bands; any other callable sees ``fill`` there.
"""

from lsdask.predict.checking import resume
from lsdask.predict.composing import Filled
from lsdask.predict.jobs import Job, Options, job
from lsdask.predict.kernels import Kernel
from lsdask.predict.lazily import apply
from lsdask.predict.planning import Plan, plan
from lsdask.predict.probing import settle
from lsdask.predict.running import run
from lsdask.predict.scoring import NAME, Model, Scorer
from lsdask.tasks import status, verify

__all__ = [
    "NAME",
    "Filled",
    "Job",
    "Kernel",
    "Model",
    "Options",
    "Plan",
    "Scorer",
    "apply",
    "job",
    "plan",
    "resume",
    "run",
    "settle",
    "status",
    "verify",
]
