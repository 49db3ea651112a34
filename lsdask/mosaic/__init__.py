"""Mosaics: the dates of a cube become one value per pixel and band, and lazy mosaics become stores."""

from lsdask.mosaic.cog import to_cog
from lsdask.mosaic.composites import METHODS, Composite, composite, composite_parts
from lsdask.mosaic.feathering import feather
from lsdask.mosaic.masks import (
    grow,
    grow_block,
    mask,
    mask_cmask,
    mask_qa,
    mask_scl,
    mask_snow,
    qa_block,
)
from lsdask.mosaic.overviews import halve_block, overviews
from lsdask.mosaic.pairs import pair, pair_of
from lsdask.mosaic.qualities import BQA, CLOUDS, CMASK, NO_DATA, QA_PIXEL, SCL, UDM, UDM2
from lsdask.mosaic.seasons import PERIODS, seasons
from lsdask.mosaic.shapes import mask_vector
from lsdask.mosaic.shifts import shift, shift_text
from lsdask.mosaic.stacking import stack
from lsdask.mosaic.writing import WriteTile, write

__all__ = [
    "BQA",
    "CLOUDS",
    "CMASK",
    "METHODS",
    "NO_DATA",
    "PERIODS",
    "QA_PIXEL",
    "SCL",
    "UDM",
    "UDM2",
    "Composite",
    "WriteTile",
    "composite",
    "composite_parts",
    "feather",
    "grow",
    "grow_block",
    "halve_block",
    "mask",
    "mask_cmask",
    "mask_qa",
    "mask_scl",
    "mask_snow",
    "mask_vector",
    "overviews",
    "pair",
    "pair_of",
    "qa_block",
    "seasons",
    "shift",
    "shift_text",
    "stack",
    "to_cog",
    "write",
]
