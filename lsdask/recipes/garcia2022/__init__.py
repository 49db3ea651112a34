"""Garcia et al. 2022: relict landslides of the Serra do Mar, from encoders that have learnt k-means clusters.

Six encoders learn to tell the cluster of a tile, one for each k. Three networks begin with each of them, or with
random weights, and learn two sets of landslide tiles: 36 runs as the paper proposes, and 6 of the standard kind.
"""

from lsdask.recipes.garcia2022.plan import NOTES, SCALES, TITLE, loads, steps
from lsdask.recipes.garcia2022.results import ABOUT, cards, lead, tables

__all__ = ["ABOUT", "NOTES", "SCALES", "TITLE", "cards", "lead", "loads", "steps", "tables"]
