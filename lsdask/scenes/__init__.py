"""Scenes become one lazy cube (time, band, y, x) on one grid: from files, or from the items of a STAC catalogue."""

from lsdask.scenes.areas import around
from lsdask.scenes.calibration import harmonize, harmonize_block, reflectance, reflectance_block
from lsdask.scenes.catalogue import search
from lsdask.scenes.files import open
from lsdask.scenes.items import groups, latest
from lsdask.scenes.keeping import read, save
from lsdask.scenes.stac import load

__all__ = [
    "around",
    "groups",
    "harmonize",
    "harmonize_block",
    "latest",
    "load",
    "open",
    "read",
    "reflectance",
    "reflectance_block",
    "save",
    "search",
]
