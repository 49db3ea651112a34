"""gdaldem itself, from the GDAL that rasterio has loaded: what terrain is tested against."""

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile
from rasterio.shutil import delete

VOID = -9999.0


def _library():
    """The GDAL in this process, which shares its files in memory with rasterio."""
    maps = Path("/proc/self/maps")
    loaded = sorted(set(re.findall(r"/\S*libgdal\S*\.so\S*", maps.read_text()))) if maps.exists() else []
    # pyogrio's wheel brings a GDAL of its own, which knows nothing of rasterio's files in memory.
    found = next((path for path in loaded if "rasterio" in path), loaded[0] if len(loaded) == 1 else None)
    if found is None:
        pytest.skip("no gdaldem: the GDAL that rasterio has loaded was not found in /proc/self/maps")
    gdal = ctypes.CDLL(found)
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int)
    gdal.GDALOpen.argtypes, gdal.GDALOpen.restype = [text, ctypes.c_int], pointer
    gdal.GDALDEMProcessingOptionsNew.argtypes = [ctypes.POINTER(text), pointer]
    gdal.GDALDEMProcessingOptionsNew.restype = pointer
    gdal.GDALDEMProcessing.argtypes = [text, pointer, text, text, pointer, number]
    gdal.GDALDEMProcessing.restype = pointer
    gdal.GDALDEMProcessingOptionsFree.argtypes = gdal.GDALClose.argtypes = [pointer]
    return gdal


def gdaldem(heights, grid, mode, *options):
    """Run ``gdaldem MODE`` on heights (y, x) with NaN where void; give float64 with NaN where void."""
    gdal, out = _library(), f"/vsimem/gdaldem-{mode}.tif"
    filled = np.where(np.isnan(heights), VOID, heights).astype("float32")
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "nodata": VOID}
    place = {"transform": grid.transform, "crs": grid.crs.to_wkt(), "height": grid.shape[0], "width": grid.shape[1]}
    with rasterio.Env(), MemoryFile() as memory:
        with memory.open(**profile, **place) as file:
            file.write(filled, 1)
        words = [option.encode() for option in options]
        asked = gdal.GDALDEMProcessingOptionsNew((ctypes.c_char_p * (len(words) + 1))(*words, None), None)
        source, failed = gdal.GDALOpen(memory.name.encode(), 0), ctypes.c_int()
        made = gdal.GDALDEMProcessing(out.encode(), source, mode.encode(), None, asked, ctypes.byref(failed))
        assert made, f"gdaldem {mode} {options} failed"
        for opened in (made, source):
            gdal.GDALClose(opened)
        gdal.GDALDEMProcessingOptionsFree(asked)
        with rasterio.open(out) as file:
            values, void = file.read(1).astype("float64"), file.nodata
        delete(out)
    return np.where(values == void, np.nan, values)
