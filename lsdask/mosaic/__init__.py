"""Mosaics: the dates of a cube become one value per pixel and band, and lazy mosaics become stores."""

from lsdask.mosaic.composites import METHODS, Composite, composite, composite_parts
from lsdask.mosaic.feathering import feather
from lsdask.mosaic.masks import BQA, QA_PIXEL, SCL, grow, grow_block, mask_qa, mask_scl, qa_block
from lsdask.mosaic.pairs import pair, pair_of
from lsdask.mosaic.seasons import PERIODS, seasons
from lsdask.mosaic.shifts import shift, shift_text
from lsdask.mosaic.stacking import stack
from lsdask.mosaic.writing import WriteTile, write

__all__ = [
    "BQA",
    "METHODS",
    "PERIODS",
    "QA_PIXEL",
    "SCL",
    "Composite",
    "WriteTile",
    "composite",
    "composite_parts",
    "feather",
    "grow",
    "grow_block",
    "mask_qa",
    "mask_scl",
    "pair",
    "pair_of",
    "qa_block",
    "seasons",
    "shift",
    "shift_text",
    "stack",
    "write",
]
