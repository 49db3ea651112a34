"""A small catalogue on this machine: cloudy dates of a made-up coast as GeoTIFFs, and the STAC API that lists them.

Run as a program it is the catalogue of a notebook: ``python catalogue.py FOLDER``.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pystac
import rasterio
from scipy.ndimage import gaussian_filter

import lsdask as ls

CLEAR, CLOUD, SHADOW, VOID = 4, 9, 3, 0
"""Codes of Sentinel-2's scene classification."""


def write(folder: Path, dates: int = 6, side: int = 512) -> Path:
    """Write cloudy dates as Sentinel-2 would deliver them, and a file of their STAC items.

    Returns
    -------
    Path of the items, a GeoJSON of features
    """
    folder.mkdir(parents=True, exist_ok=True)
    land = ls.synthetic.landscape((side, side), seed=3, resolution=10.0)
    ground = land.scene.values
    items = [_item(folder, land.scene, ground, date) for date in range(dates)]
    listed = folder / "items.json"
    listed.write_text(json.dumps({"type": "FeatureCollection", "features": [item.to_dict() for item in items]}))
    return listed


def _item(folder: Path, scene, ground: np.ndarray, date: int) -> pystac.Item:
    """Write one date, three in ten of it under clouds, and describe it."""
    random = np.random.default_rng([7, date])
    thick = gaussian_filter(random.normal(size=ground.shape[1:]), 28)
    cloud = thick > np.quantile(thick, 0.7)
    shadow = np.roll(cloud, (18, -14), (0, 1)) & ~cloud
    light = 1 + 0.05 * random.normal()
    pixels = np.where(cloud, 2600 + 300 * random.random(ground.shape), ground * light * np.where(shadow, 0.45, 1))
    pixels = np.where(ground == 0, 0, pixels).astype("uint16")
    classes = np.select([(ground == 0).all(0), cloud, shadow], [VOID, CLOUD, SHADOW], CLEAR).astype("uint8")

    grid, when = ls.schema.geobox(scene), datetime(2020, 5, 3, 13, 10) + timedelta(days=15 * date)
    name = f"S2A_23KMQ_{when:%Y%m%d}_0_L2A"
    box = grid.footprint("EPSG:4326").geom
    item = pystac.Item(name, box.__geo_interface__, list(box.bounds), when, {"platform": "sentinel-2a"})
    item.collection_id = "sentinel-2-l2a"
    item.properties |= {"eo:cloud_cover": round(100 * float(cloud.mean())), "proj:code": "EPSG:32723"}
    place = {"proj:shape": list(grid.shape), "proj:transform": list(grid.transform)[:6]}
    layers = {**dict(zip(ls.schema.bands(scene), pixels)), "scl": classes}
    for key, values in layers.items():
        path = folder / f"{name}_{key}.tif"
        options = {"dtype": values.dtype, "crs": "EPSG:32723", "transform": grid.transform, "nodata": 0}
        with rasterio.open(
            path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1, tiled=True,
            compress="deflate", **options,
        ) as file:  # fmt: skip
            file.write(values, 1)
        item.add_asset(key, pystac.Asset(str(path.absolute()), roles=["data"], extra_fields=place))
    return item


@contextmanager
def served(items: Path) -> Iterator[str]:
    """Serve a file of items by a STAC API on this machine, rustac's, and give its address."""
    program = shutil.which("rustac", path=str(Path(sys.executable).parent)) or shutil.which("rustac")
    if program is None:
        raise RuntimeError("The catalogue needs rustac. Install it: pip install rustac")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
    command = [program, "serve", "--addr", where, "--create-collections", str(items)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(f"http://{where}", server)
        yield f"http://{where}"
    finally:
        server.terminate()
        server.wait(timeout=10)


def _wait(address: str, server: subprocess.Popen) -> None:
    """Wait until it answers, twenty seconds at most."""
    until = time.monotonic() + 20
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"The catalogue at {address} did not answer.")
