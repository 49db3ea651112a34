"""Mosaics: the dates of a cube become one value per pixel and band, and lazy mosaics become stores."""

from lsdask.mosaic.composites import METHODS, composite, composite_block
from lsdask.mosaic.masks import BQA, QA_PIXEL, SCL, grow, grow_block, mask_qa, mask_scl, qa_block
from lsdask.mosaic.writing import WriteTile, write

__all__ = [
    "BQA",
    "METHODS",
    "QA_PIXEL",
    "SCL",
    "WriteTile",
    "composite",
    "composite_block",
    "grow",
    "grow_block",
    "mask_qa",
    "mask_scl",
    "qa_block",
    "write",
]
