"""Scenes become one lazy cube (time, band, y, x) on one grid: from files, or from the items of a STAC catalogue."""

from lsdask.scenes.files import open
from lsdask.scenes.stac import load, read, save, search

__all__ = ["load", "open", "read", "save", "search"]
