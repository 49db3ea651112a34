"""How good a map is: one confusion table, counted chunk by chunk and summed, and the scores made of it.

* ``count``, ``score``, ``sweep``, ``compare``, ``agreement``, ``within``: pixels;
* ``best``, ``average_precision``, ``roc_auc``, ``reliability``: what follows from a sweep;
* ``blocks``, ``regions``, ``by_region``, ``bootstrap``, ``area``, ``areas``: how far to trust the numbers;
* ``landslides``, ``by_size``, ``match``, ``near``: landslides rather than pixels.
"""

from lsdask.evaluate.agreeing import FN, FP, TN, TP, agreement, agreement_block, within
from lsdask.evaluate.areas import Estimate, area, areas
from lsdask.evaluate.counts import Counts, count, score, sweep
from lsdask.evaluate.curves import average_precision, best, reliability, roc_auc
from lsdask.evaluate.experiments import compare
from lsdask.evaluate.objects import Matches, by_size, landslides, match, near
from lsdask.evaluate.regions import by_region, regions
from lsdask.evaluate.tallying import tally_block
from lsdask.evaluate.trust import blocks, bootstrap

__all__ = [
    "FN",
    "FP",
    "TN",
    "TP",
    "Counts",
    "Estimate",
    "Matches",
    "agreement",
    "agreement_block",
    "area",
    "areas",
    "average_precision",
    "best",
    "blocks",
    "bootstrap",
    "by_region",
    "by_size",
    "compare",
    "count",
    "landslides",
    "match",
    "near",
    "regions",
    "reliability",
    "roc_auc",
    "score",
    "sweep",
    "tally_block",
    "within",
]
