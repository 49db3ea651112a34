"""K-means over mosaics of any size: centres from one fair sample, labels for every k in one read.

The centres come from a uniform sample of the valid pixels, not from the chunks: a mosaic's chunks differ from each
other, and centres fitted to them one after another follow the last ones. Nothing depends on chunks or workers.
"""

from lsdask.kmeans.book import CENTERS, LABELS, MOST_CLUSTERS, Book
from lsdask.kmeans.choosing import describe, separation_block
from lsdask.kmeans.drawing import draw_block, sample
from lsdask.kmeans.files import open, save
from lsdask.kmeans.fitting import fit
from lsdask.kmeans.labelling import NAME, Labeller, assign, write
from lsdask.kmeans.lloyd import totals_block
from lsdask.kmeans.nearest import assign_block
from lsdask.kmeans.votes import majority, majority_block, read_majority

__all__ = [
    "CENTERS",
    "LABELS",
    "MOST_CLUSTERS",
    "NAME",
    "Book",
    "Labeller",
    "assign",
    "assign_block",
    "describe",
    "draw_block",
    "fit",
    "majority",
    "majority_block",
    "open",
    "read_majority",
    "sample",
    "save",
    "separation_block",
    "totals_block",
    "write",
]
