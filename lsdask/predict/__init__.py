"""Apply a model to images of any size: lazily in a notebook, or store to store as a run that survives.

A model is anything that turns blocks (n, band, y, x) into scores (n, class, y, x). Each tile is computed from its
block, the tile and its halo; at the border of the image the halo is mirrored. If the model looks no further than the
halo, the scores are those of the whole image in one pass, however it was cut.

Void pixels (no data in some band) are unknown in the scores. A network fills them with the mean of its training
bands; any other callable sees ``fill`` there.
"""

from lsdask.predict.jobs import Job, Options, job
from lsdask.predict.kernels import Kernel
from lsdask.predict.lazily import apply
from lsdask.predict.running import run, settle
from lsdask.predict.scoring import NAME, Filled, Model, Scorer

__all__ = ["NAME", "Filled", "Job", "Kernel", "Model", "Options", "Scorer", "apply", "job", "run", "settle"]
