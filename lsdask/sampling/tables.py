"""The table of tiles: made, checked, and turned into windows."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lsdask.errors import BadInput, sentence

MADE_BY = {
    **dict.fromkeys(["valid", "positive", "cluster"], "describe"),
    **dict.fromkeys(["false_alarm", "missed"], "describe(tiles, agreement=evaluate.agreement(scores, mask))"),
    "weight": "weigh",
    "split": "split",
    "fold": "folds",
}
"""How the columns come about."""


def table(y: Any, x: Any, size: int) -> pd.DataFrame:
    """Make a tile index of top-left pixels and one side."""
    y, x = np.asarray(y, dtype="int64"), np.asarray(x, dtype="int64")
    return pd.DataFrame({"y": y, "x": x, "size": np.full(len(y), size, dtype="int64")})


def check(tiles: pd.DataFrame, *columns: str, name: str = "tiles") -> None:
    """Raise BadInput unless a tile index has rows, the columns y, x and size, and those named."""
    if not isinstance(tiles, pd.DataFrame):
        raise BadInput(sentence(name, "be a DataFrame with columns y, x, size", f"a {type(tiles).__name__}"))
    missing = [column for column in ("y", "x", "size", *columns) if column not in tiles]
    if missing:
        how = MADE_BY.get(missing[0])
        do = f"Make it with sampling.{how}" if how else ""
        raise BadInput(sentence(name, f"have the column {missing[0]!r}", f"columns {list(tiles.columns)}", do))
    if tiles.empty:
        raise BadInput(sentence(name, "hold at least one tile", "an empty tile index", "Loosen what selected them"))


def check_inside(tiles: pd.DataFrame, shape: tuple[int, int]) -> None:
    """Raise BadInput unless every tile lies in one image of ``shape`` (y, x)."""
    if "scene" in tiles and tiles["scene"].nunique() > 1:
        names = ", ".join(map(str, tiles["scene"].unique()))
        raise BadInput(sentence("tiles", "be of one scene", names, "Take one: tiles[tiles['scene'] == name]"))
    y, x, size = (tiles[column].to_numpy() for column in ("y", "x", "size"))
    outside = (y < 0) | (x < 0) | (size < 1) | (y + size > shape[0]) | (x + size > shape[1])
    if outside.any():
        got = name_of(tiles, int(np.argmax(outside)))
        raise BadInput(sentence("tiles", f"lie inside the image of {shape[0]} x {shape[1]} px", got))


def draws(seed: int, use: int) -> np.random.Generator:
    """Give the generator for one use of a seed; each use has a number of its own.

    Raises
    ------
    BadInput
        If the seed is not a whole number, at least 0.
    """
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise BadInput(sentence("seed", "be a whole number, at least 0", f"seed={seed!r}"))
    return np.random.default_rng([seed, use])


def shape_of(image: xr.DataArray) -> tuple[int, int]:
    """Give an image's (height, width) in pixels."""
    return image.sizes["y"], image.sizes["x"]


def windows_of(tiles: pd.DataFrame) -> np.ndarray:
    """Give (tile, 4) int64: y0, x0, y1, x1."""
    y, x, size = (tiles[column].to_numpy(dtype="int64") for column in ("y", "x", "size"))
    return np.stack([y, x, y + size, x + size], axis=1)


def name_of(tiles: pd.DataFrame, row: int) -> str:
    """Name a tile in an error."""
    y, x, size = (int(tiles[column].iloc[row]) for column in ("y", "x", "size"))
    scene = f", scene={tiles['scene'].iloc[row]!r}" if "scene" in tiles else ""
    return f"tile {tiles.index[row]} (y={y}, x={x}, size={size}{scene})"
