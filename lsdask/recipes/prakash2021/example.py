"""Seven made-up areas with their table, to try the recipe on, and to see how a folder of areas lies."""

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr

from lsdask import mosaic, synthetic
from lsdask.recipes.prakash2021.areas import COLUMNS, FILE, OPTIONAL, TRAINED, Row, inherited

STRETCH = "0 400"
"""Counts of a synthetic scene that become 0 and 255."""

DEM_M = 30.0
COARSEST_M = 30.0
"""The coarsest base resolution, in metres a pixel."""

DENSITY = 40.0
"""Candidates for a scar, per km2."""

SIDES = {"A": (2.0, 3.5), "B": (2.0, 3.5), "C": (2.0, 2.0), "D": (2.0, 2.0)}
"""Height and width of areas in tiles of the coarsest resolution; C and D as narrow as the paper's, whose test regions
hold no such tile."""

UNSEEN_SIDES = (1.25, 1.25)

REGIONS = ("0 0 0.55 1", "0.3 0 0.55 0.4", "0.55 0 1 1")
"""To train on, of which to validate on, and to test on."""


@dataclass(frozen=True)
class Sensor:
    """What takes an image set: metres a pixel, and whether it gives 8 bit."""

    pixel_m: float
    eight_bit: bool = False


SENSORS = {"RE": Sensor(5.0), "S2": Sensor(10.0), "Pl": Sensor(3.0, eight_bit=True)}

SETS = (("A", "RE"), ("A", "S2"), ("B", "S2"), ("C", "Pl"), ("C", "S2"), ("D", "S2"), ("E", "S2"), ("F", "S2"),
        ("G", "S2"))  # fmt: skip
"""Areas and their image sets, as the paper has them."""


def _rows() -> list[Row]:
    """Make the rows of the table."""
    rows, seen = [], set()
    for area, images in SETS:
        first = area not in seen
        seen.add(area)
        row = dict.fromkeys((*COLUMNS, *OPTIONAL), "")
        row |= {"area": area, "images": images, "pre": f"{area}/pre_{images}.tif", "post": f"{area}/post_{images}.tif"}
        if first:
            row |= {"dem": f"{area}/dem.tif", "inventory": f"{area}/inventory.geojson"}
        if first and area in TRAINED:
            row |= dict(zip(("train", "valid", "test"), REGIONS))
        if not SENSORS[images].eight_bit:
            row["stretch"] = STRETCH
        if area == "B":
            row["void"] = "B/cloud.geojson"
        rows.append(row)
    return rows


ROWS = _rows()
"""The table, as it is written."""

READ = inherited(ROWS)
"""The table, as it is read."""


def write(folder: Path, *, tile: int, seed: int) -> None:
    """Write seven areas of synthetic ground as GeoTIFFs, their inventories, and the table ``areas.csv``.

    Parameters
    ----------
    folder : Path
    tile : int
        Side of the tiles that the largest areas shall hold at the coarsest resolution, in pixels.
    seed : int
    """
    for number, area in enumerate(dict.fromkeys(area for area, _ in SETS)):
        images = [name for other, name in SETS if other == area]
        _write_area(folder / area, images, _extent(area, tile), seed + number)
    pd.DataFrame(ROWS).to_csv(folder / FILE, index=False)


def _extent(area: str, tile: int) -> tuple[float, float]:
    """Give height and width of an area in metres, whole pixels of every sensor and of the heights."""
    down, across = SIDES.get(area, UNSEEN_SIDES)
    return round(down * tile) * COARSEST_M, round(across * tile) * COARSEST_M


def _write_area(folder: Path, images: list[str], extent: tuple[float, float], seed: int) -> None:
    """Write an area: ground before and after its landslides, as each sensor sees it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in images:
        sensor = SENSORS[name]
        shape, pixel_m = _shape(extent, sensor.pixel_m), sensor.pixel_m
        for date, scars in (("pre", NONE), ("post", None)):
            scene = synthetic.scene(shape, seed, resolution=pixel_m, density=DENSITY, scars=scars)
            seen = scene.sel(band=["red", "green", "blue"])
            mosaic.to_cog(_of_8_bit(seen) if sensor.eight_bit else seen, folder / f"{date}_{name}.tif", overwrite=True)
    heights = synthetic.elevation(_shape(extent, DEM_M), seed, resolution=DEM_M)
    mosaic.to_cog(heights, folder / "dem.tif", overwrite=True)
    scars = synthetic.polygons(_shape(extent, 5.0), seed, resolution=5.0, density=DENSITY)
    scars.to_file(folder / "inventory.geojson")
    left, top = synthetic.ORIGIN
    cloud = shapely.Point(left + 0.2 * extent[1], top - 0.3 * extent[0]).buffer(0.08 * extent[0])
    gpd.GeoDataFrame(geometry=[cloud], crs=synthetic.CRS).to_file(folder / "cloud.geojson")


NONE = gpd.GeoDataFrame(geometry=[], crs=synthetic.CRS)
"""No scars."""


def _shape(extent: tuple[float, float], pixel_m: float) -> tuple[int, int]:
    return round(extent[0] / pixel_m), round(extent[1] / pixel_m)


def _of_8_bit(scene: xr.DataArray) -> xr.DataArray:
    """Give an image as programs for pictures store it: 1 to 255, 0 where void."""
    low, high = map(float, STRETCH.split())
    picture = (1 + 254 * (scene.astype("float32") - low) / (high - low)).clip(1, 255).astype("uint8")
    return picture.where(scene != synthetic.NODATA, np.uint8(0)).assign_attrs(_FillValue=np.uint8(0))
