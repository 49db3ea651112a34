"""Mosaics: the dates of a cube become one value per pixel and band, and lazy mosaics become stores."""

from lsdask.mosaic.composites import METHODS, Composite, composite, composite_parts
from lsdask.mosaic.masks import BQA, QA_PIXEL, SCL, grow, grow_block, mask_qa, mask_scl, qa_block
from lsdask.mosaic.writing import WriteTile, write

__all__ = [
    "BQA",
    "METHODS",
    "QA_PIXEL",
    "SCL",
    "Composite",
    "WriteTile",
    "composite",
    "composite_parts",
    "grow",
    "grow_block",
    "mask_qa",
    "mask_scl",
    "qa_block",
    "write",
]
