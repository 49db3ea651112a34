"""Prakash et al. 2021: one network for landslides of many places, trained on four areas and tried on three others.

17 trainings: one area each at 6, 10 and 30 m, all areas at each, and all but one at 6 m.
"""

from lsdask.recipes.prakash2021.plan import NOTES, SCALES, TITLE, loads, steps
from lsdask.recipes.prakash2021.results import ABOUT, cards, lead, tables

__all__ = ["ABOUT", "NOTES", "SCALES", "TITLE", "cards", "lead", "loads", "steps", "tables"]
