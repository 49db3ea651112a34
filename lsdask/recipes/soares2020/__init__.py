"""Soares et al. 2020: a small U-Net by way of sampling, size of tile, filters and batch; with heights and without.

288 runs: four data sets, two samplings, three sizes, three first widths and four batches, judged on two areas.
"""

from lsdask.recipes.soares2020.plan import NOTES, SCALES, TITLE, loads, steps
from lsdask.recipes.soares2020.results import ABOUT, cards, lead, tables

__all__ = ["ABOUT", "NOTES", "SCALES", "TITLE", "cards", "lead", "loads", "steps", "tables"]
