"""Images of before and after an event, and heights: of Hokkaido if there are any, else made up."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

import lsdask as ls

EVENT = "2018-09-06"
"""The day of the Hokkaido Eastern Iburi earthquake."""

DATES = ("2018-04-01", "2018-10-01")
BANDS = {"blue": "B2", "green": "B3", "red": "B4"}


def load(data: Path) -> tuple[xr.DataArray, xr.DataArray]:
    """Open the pair of Hokkaido that lies in a folder of real data, or make one up.

    Returns
    -------
    cube : DataArray (time, band, y, x) uint16
        One date before and one after, 0 where void.
    heights : DataArray (y, x)
        On its grid, m.
    """
    folder = data / "hokkaido-2018"
    if not folder.is_dir():
        return _made_up()
    files = {band: [folder / side / f"{file}.tif" for side in ("pre", "post")] for band, file in BANDS.items()}
    cube = ls.scenes.open(files, times=DATES)
    heights = ls.scenes.open(folder / "dsm.tif", grid=cube, resampling="cubic_spline")
    return cube, heights.isel(time=0, band=0, drop=True)


def _made_up() -> tuple[xr.DataArray, xr.DataArray]:
    """A coast before its landslides, and with every one of them bare."""
    shape, seed = (640, 960), 4
    none = gpd.GeoDataFrame(geometry=[], crs=ls.synthetic.CRS)
    land = ls.synthetic.landscape(shape, seed, density=40.0)
    before = ls.synthetic.scene(shape, seed, scars=none).sel(band=list(BANDS)) * np.uint16(5)
    soil = xr.DataArray([1400, 1500, 1900], dims="band", coords={"band": before.band}).astype("uint16")
    after = xr.where((land.mask == 1) & (before > 0), soil, before).transpose("band", "y", "x")
    cube = xr.concat([before, after], pd.DatetimeIndex(DATES, name="time"), coords="minimal", compat="override")
    cube.attrs["_FillValue"] = np.uint16(0)
    return cube.rename("cube"), ls.synthetic.elevation(shape, seed)
