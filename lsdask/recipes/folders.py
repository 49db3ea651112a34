"""What the papers' recipes find in a user's folder: scenes, landslides, void, areas for the test."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from lsdask import inventory, mosaic, sampling, scenes, schema, statistics, store, synthetic, terrain
from lsdask.errors import BadInput, NotFound, sentence

RESOLUTION = 8.0
"""Of synthetic ground, in metres a pixel."""

SUFFIXES = (".gpkg", ".geojson", ".json", ".parquet", ".shp", ".fgb")

Window = list[int]
"""y0, x0, y1, x1 in pixels."""


def scene(folder: Path, spec: dict[str, Any], inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Write the mosaic, void where polygons say so, its mask, and what is known of its bands: a step.

    Its spec: ``data``, the user's folder; ``dem``, whether heights are the last band; ``synthetic``, the side of a
    made-up landscape with its own landslides where the folder holds no scenes, None to show the folder's inventory;
    ``seed``.
    """
    data = Path(spec["data"])
    image, truth = _scene(data, spec)
    void = polygons(data, "void")
    if void is not None:
        shown = mosaic.mask_vector(void, image, inside=False)
        image = mosaic.composite(image.expand_dims("time"), mask=shown)
    mosaic.write(image, folder / "mosaic.zarr", progress=False).check()
    held = store.open(folder / "mosaic.zarr")
    known = truth.where(schema.valid(held), schema.UNKNOWN).astype("uint8").data
    mask = schema.wrap(known, schema.geobox(held), schema.MASK, name="mask", nodata=schema.UNKNOWN)
    mosaic.write(mask, folder / "mask.zarr", progress=False).check()
    stats = statistics.bands(held)
    facts = {name: stats[name].values.tolist() for name in ("mean", "std", "max")}
    (folder / "statistics.json").write_text(json.dumps({"bands": list(schema.bands(held)), **facts}))
    return {"height": held.sizes["y"], "width": held.sizes["x"], "synthetic": not _has_scenes(data)}


def _scene(data: Path, spec: Mapping[str, Any]) -> tuple[xr.DataArray, xr.DataArray]:
    """Open or make the scene and its mask."""
    if _has_scenes(data):
        held = data / "mosaic.zarr"
        image = store.open(held) if held.exists() else mosaic.composite(scenes.open(data / "scenes"))
        heights = data / "dem.tif"
        if spec.get("dem") and "dem" not in schema.bands(image):
            if not heights.exists():
                raise NotFound(sentence("data", "hold a band dem or the file dem.tif", f"data={data}, without them"))
            dem = terrain.resample(scenes.open(heights, bands=["dem"]).isel(time=0), image)
            image = mosaic.stack([image, dem])
        return image, _truth(data, image)
    scars = polygons(data, "inventory")
    if scars is not None and spec["synthetic"] is None:
        return _made(spec, *_round(scars))
    side = spec["synthetic"] or 2048
    return _made(spec, (side, side), {})


def _truth(data: Path, image: xr.DataArray) -> xr.DataArray:
    """Open the mask, or burn the inventory."""
    if (data / "mask.zarr").exists():
        mask = store.open(data / "mask.zarr")
        schema.on_grid(mask, image, "mask", "mosaic")
        return mask
    scars = polygons(data, "inventory")
    if scars is None:
        raise NotFound(sentence("data", "hold mask.zarr, or polygons named inventory", f"data={data}, without them"))
    return inventory.rasterize(scars, image)


def _made(spec: Mapping[str, Any], shape: tuple[int, int], ground: dict[str, Any]) -> tuple[xr.DataArray, xr.DataArray]:
    """Make a synthetic Serra do Mar."""
    image, truth = (make(shape, spec["seed"], **ground) for make in (synthetic.scene, synthetic.mask))
    if spec.get("dem"):
        heights = synthetic.elevation(shape, spec["seed"], **{k: v for k, v in ground.items() if k != "scars"})
        image = mosaic.stack([image, heights.rename("dem")])
    return image, truth


def _round(scars: gpd.GeoDataFrame) -> tuple[tuple[int, int], dict[str, Any]]:
    """Give shape and ground of a landscape that shows an inventory, with room for its sea in the south-east."""
    left, low, right, top = scars.to_crs(synthetic.CRS).total_bounds
    margin = 250 * RESOLUTION
    origin = float(left - margin) // RESOLUTION * RESOLUTION, float(top + margin) // RESOLUTION * RESOLUTION
    spread = 1.5  # a quarter of a synthetic landscape is sea
    shape = int((top - low + 2 * margin) / RESOLUTION * spread), int((right - left + 2 * margin) / RESOLUTION * spread)
    return shape, {"origin": origin, "scars": scars, "resolution": RESOLUTION}


def _has_scenes(data: Path) -> bool:
    return (data / "mosaic.zarr").exists() or (data / "scenes").is_dir()


def polygons(data: Path, name: str) -> gpd.GeoDataFrame | None:
    """Read the polygons of a name in the folder, in any format; None if there are none."""
    found = sorted(path for path in data.glob(f"{name}.*") if path.suffix in SUFFIXES)
    return inventory.load(found[0]) if found else None


def window_of(test: gpd.GeoDataFrame, image: xr.DataArray) -> Window:
    """Give the upright box of polygons as y0, x0, y1, x1, cut to the image."""
    box = box_of(mosaic.mask_vector(test, image))
    if box is None:
        raise BadInput(sentence("test", "lie in the scenes", "polygons outside them"))
    return box


def box_of(where: xr.DataArray) -> Window | None:
    """Give the upright box of the true pixels of a map (y, x); None if there is none."""
    y, x = (np.flatnonzero(where.any(dim).values) for dim in ("x", "y"))
    return [int(y[0]), int(x[0]), int(y[-1]) + 1, int(x[-1]) + 1] if len(y) else None


def middling(image: xr.DataArray, mask: xr.DataArray, side: int, *, count: int = 1) -> list[Window]:
    """Choose squares for the test: apart from each other, with about the middling share of landslides.

    Parameters
    ----------
    image, mask : DataArray
    side : int
        Of a square, in pixels; at most half of the image.
    count : int

    Returns
    -------
    list of windows

    Raises
    ------
    BadInput
        If there are not so many squares that have data and landslides.
    """
    side = min(side, *(size // 2 for size in mask.shape))
    squares = sampling.describe(sampling.grid(image, side, overlap=0.5), mask=mask, valid=image)
    good = squares[(squares["positive"] > 0) & (squares["valid"] >= squares["valid"].max() / 2)]
    order = (good["positive"] - good["positive"].median()).abs().sort_values(kind="stable").index
    chosen: list[Window] = []
    for row in order:
        y, x = (int(good.at[row, name]) for name in ("y", "x"))
        if not any(abs(y - other[0]) < side and abs(x - other[1]) < side for other in chosen):
            chosen.append([y, x, y + side, x + side])
        if len(chosen) == count:
            return chosen
    raise BadInput(sentence("data", f"have {count} squares of {side} px with data and landslides", f"{len(chosen)}"))


def meets(table: pd.DataFrame, window: Window) -> np.ndarray:
    """Say which tiles share pixels with a window."""
    y0, x0, y1, x1 = window
    y, x, size = (table[name].to_numpy() for name in ("y", "x", "size"))
    return (y < y1) & (y + size > y0) & (x < x1) & (x + size > x0)


def inside(table: pd.DataFrame, window: Window) -> np.ndarray:
    """Say which tiles lie in a window with all of their pixels."""
    y0, x0, y1, x1 = window
    y, x, size = (table[name].to_numpy() for name in ("y", "x", "size"))
    return (y >= y0) & (y + size <= y1) & (x >= x0) & (x + size <= x1)


def opened(folder: Path) -> tuple[xr.DataArray, xr.DataArray]:
    """Open the mosaic and the mask that ``scene`` wrote."""
    return store.open(folder / "mosaic.zarr"), store.open(folder / "mask.zarr")


def constants(folder: Path) -> dict[str, Any]:
    """Give what ``scene`` wrote of the bands: ``bands``, ``mean``, ``std``, ``max``."""
    held: dict[str, Any] = json.loads((folder / "statistics.json").read_text())
    return held
