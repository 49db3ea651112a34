"""B12: a mosaic from a catalogue to Zarr, against odc-stac and stackstac with ``to_zarr``, and its memory by size.

Fifty items of four single-band COGs, which overlap on one grid, become one mosaic in Zarr: the first known look on
top, or (``--method median``) the median of all looks. Each contender runs in a process of its own; its memory is what
it peaks at above what its imports take. Prints one JSON line. ``--sizes`` measures instead the peak memory of
``mosaic.write`` on images of those sizes; ``--cog`` that of ``mosaic.to_cog`` and, where ``odc-geo[tiff]`` is
installed, of odc-geo's ``save_cog_with_dask`` on threads.
"""

import argparse
import datetime
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BANDS = ["blue", "green", "red", "nir"]
EPSG, RESOLUTION, LEFT, TOP = 32723, 10, 440000, 7400000
CHUNK, SHARD = 512, 2048


def prepare(folder: Path, count: int, size: int) -> None:
    """Write the COGs and their items: ``count`` scenes of ``size`` pixels a side, each a third apart, in five rows."""
    import pystac
    import rasterio
    from affine import Affine

    import lsdask as ls

    step = size * 2 // 3 // 16 * 16
    columns = -(-count // 5)
    ground = ls.synthetic.scene((size, size), seed=1, chunks=min(size, 1024)).values.astype("uint16")
    for number in range(count):
        row, column = step * (number // columns), step * (number % columns)
        data = np.roll(ground, number * 37, axis=(1, 2))  # the looks at a place differ
        data[:, : size // 8] = 0  # the void edge of a swath
        transform = Affine(RESOLUTION, 0, LEFT + column * RESOLUTION, 0, -RESOLUTION, TOP - row * RESOLUTION)
        item = _item(number, size, transform)
        for band, values in zip(BANDS, data):
            path = folder / f"{number:03d}-{band}.tif"
            profile = {"dtype": "uint16", "count": 1, "height": size, "width": size, "crs": EPSG, "nodata": 0}
            layout = {"driver": "COG", "compress": "deflate", "blocksize": 512, "overviews": "NONE"}
            with rasterio.open(path, "w", **profile, transform=transform, **layout) as target:
                target.write(values, 1)
            raster = {"raster:bands": [{"data_type": "uint16", "nodata": 0}], "eo:bands": [{"name": band}]}
            item.add_asset(band, pystac.Asset(str(path), media_type=pystac.MediaType.COG, extra_fields=raster))
        item.save_object(dest_href=str(folder / f"{number:03d}.json"), include_self_link=False)


def _item(number: int, size: int, transform: Any) -> Any:
    import pystac
    from pyproj import Transformer
    from shapely.geometry import box, mapping

    left, top = transform.c, transform.f
    right, bottom = left + size * RESOLUTION, top - size * RESOLUTION
    west, south, east, north = Transformer.from_crs(EPSG, 4326, always_xy=True).transform_bounds(
        left, bottom, right, top
    )
    return pystac.Item(
        id=f"scene-{number:03d}",
        geometry=mapping(box(west, south, east, north)),
        bbox=[west, south, east, north],
        datetime=datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(days=number),
        properties={
            "proj:code": f"EPSG:{EPSG}",
            "proj:epsg": EPSG,  # for stackstac, which does not know the new name
            "proj:transform": list(transform)[:6],
            "proj:shape": [size, size],
        },
        stac_extensions=[
            "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
    )


def items(folder: Path) -> list[Any]:
    """Read the items."""
    import pystac

    return [pystac.Item.from_file(str(path)) for path in sorted(folder.glob("*.json"))]


def run_lsdask(folder: Path, target: Path, method: str, shard: int) -> None:
    """What is measured: the first look on top while loading, or a median of all looks, then ``mosaic.write``."""
    import lsdask as ls

    grid: dict[str, Any] = {"crs": EPSG, "resolution": RESOLUTION, "nodata": 0, "chunks": CHUNK}
    if method == "first":
        image = ls.scenes.load(items(folder), bands=BANDS, groupby=lambda item: "all", **grid).isel(time=0, drop=True)
    else:
        image = ls.mosaic.composite(ls.scenes.load(items(folder), bands=BANDS, **grid), method="median")
    image = image.rename("mosaic")
    ls.mosaic.write(image, target, chunk=min(CHUNK, shard), shard=shard, progress=False).check()


def run_odc(folder: Path, target: Path, method: str, shard: int) -> None:
    """What a user writes with odc-stac: all items as one group, or a median by xarray, then ``to_zarr``."""
    import odc.stac

    grid: dict[str, Any] = {"crs": EPSG, "resolution": RESOLUTION, "nodata": 0}
    chunks: dict[str, Any] = {"x": CHUNK, "y": CHUNK}
    if method == "first":
        data = odc.stac.load(items(folder), bands=BANDS, chunks=chunks, groupby=lambda *of: 0, **grid)
        image = data.isel(time=0, drop=True)
    else:
        data = odc.stac.load(items(folder), bands=BANDS, chunks={"time": 1, **chunks}, **grid).chunk({"time": -1})
        image = _rounded(data.where(data != 0).median("time", skipna=True))
    image.to_zarr(target, mode="w", zarr_format=3, consolidated=False)


def run_stackstac(folder: Path, target: Path, method: str, shard: int) -> None:
    """What a user writes with stackstac: its own ``mosaic``, or a median by xarray, then ``to_zarr``."""
    import stackstac

    stored: dict[str, Any] = {"dtype": np.dtype("uint16"), "fill_value": np.uint16(0), "rescale": False}
    grid: dict[str, Any] = {"epsg": EPSG, "resolution": RESOLUTION, "xy_coords": "center"}
    stack = stackstac.stack(items(folder), assets=BANDS, chunksize=(-1, 1, CHUNK, CHUNK), **stored, **grid)
    if method == "first":
        image = stackstac.mosaic(stack, dim="time", nodata=0, reverse=True)
    else:
        image = _rounded(stack.where(stack != 0).median("time", skipna=True))
    plain = image.drop_vars([name for name in image.coords if name not in ("band", "y", "x")])
    plain.attrs = {}
    plain.to_dataset(name="mosaic").to_zarr(target, mode="w", zarr_format=3, consolidated=False)


def _rounded(median: Any) -> Any:
    """Put a median with NaN back into what the scenes are stored as."""
    return median.round().fillna(0).astype("uint16")


RUNS: dict[str, Callable[[Path, Path, str, int], None]] = {
    "lsdask": run_lsdask,
    "odc": run_odc,
    "stackstac": run_stackstac,
}

IMPORTS = {
    "lsdask": "import lsdask.scenes, lsdask.mosaic, odc.stac, distributed",
    "odc": "import odc.stac, xarray, zarr, dask.array",
    "stackstac": "import stackstac, xarray, zarr, dask.array",
    "memory": "import lsdask.mosaic, distributed",
    "cog": "import lsdask.mosaic, distributed",
    "cog_odc": "import lsdask.mosaic, distributed, odc.geo.cog, odc.geo.xr, tifffile, imagecodecs, dask.bag",
}


def run_memory(size: int, target: Path) -> None:
    """Write a lazy image to a store."""
    import lsdask as ls

    ls.mosaic.write(cheap(size), target, chunk=CHUNK, shard=SHARD, workers=2, progress=False).check()


def run_cog(size: int, target: Path) -> None:
    """Write a lazy image to a GeoTIFF."""
    import lsdask as ls

    ls.mosaic.to_cog(noisy(size), target, workers=2)


def run_cog_odc(size: int, target: Path) -> None:
    """What a user writes with odc-geo."""
    from odc.geo.cog import save_cog_with_dask

    save_cog_with_dask(
        noisy(size), target, compression="deflate", blocksize=512, overview_resampling="average", stats=False
    ).compute(num_workers=2)


def cheap(size: int) -> Any:
    """Make a lazy image of ``size`` pixels a side, four bands of uint16, whose blocks are cheap to compute."""
    import dask.array as da

    def block(rows: np.ndarray) -> np.ndarray:
        return np.broadcast_to((rows[:, None] % 251).astype("uint16"), (4, len(rows), CHUNK)).copy()

    rows = da.arange(size, chunks=CHUNK)
    shape: dict[str, Any] = {"chunks": ((4,), rows.chunks[0], (CHUNK,)), "new_axis": [0, 2]}
    column = rows.map_blocks(block, dtype="uint16", meta=np.empty((0, 0, 0), "uint16"), **shape)
    return placed(da.concatenate([column] * (size // CHUNK), axis=2))


def noisy(size: int) -> Any:
    """Make a lazy image that compresses as scenes do, to two thirds."""
    import dask.array as da

    def block(block_id: tuple[int, ...]) -> np.ndarray:
        noise = np.random.default_rng(block_id).normal(1000, 25, (4, CHUNK, CHUNK)).astype("uint16")
        noise[:, : CHUNK // 8] = 0  # void
        return noise

    sides = (CHUNK,) * (size // CHUNK)
    meta = np.empty((0, 0, 0), "uint16")
    return placed(da.map_blocks(block, chunks=((4,), sides, sides), dtype="uint16", meta=meta))


def placed(data: Any) -> Any:
    """Make a mosaic of an array."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    import lsdask as ls

    grid = GeoBox(data.shape[1:], Affine(RESOLUTION, 0, LEFT, 0, -RESOLUTION, TOP), f"EPSG:{EPSG}")
    return ls.schema.wrap(data, grid, ls.schema.MOSAIC, name="mosaic", coords={"band": BANDS}, nodata=0)


SIZED: dict[str, Callable[[int, Path], None]] = {"memory": run_memory, "cog": run_cog, "cog_odc": run_cog_odc}


def child(name: str, argument: str, target: str, method: str, shard: str) -> None:
    """Run one contender and print its seconds and memory."""
    exec(IMPORTS[name])
    before = peak()
    begun = time.perf_counter()
    if name in SIZED:
        SIZED[name](int(argument), Path(target))
    else:
        RUNS[name](Path(argument), Path(target), method, int(shard))
    print(json.dumps({"seconds": time.perf_counter() - begun, "peak": peak() - before, "imports": before}))


def peak() -> float:
    """The most memory that this process has held, in MB (``ru_maxrss`` would count its parent's as well)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(name: str, argument: str, target: Path, method: str = "first", shard: int = SHARD) -> dict[str, float]:
    """Run one contender in a process of its own."""
    arguments = [sys.executable, __file__, "--child", name, argument, str(target), method, str(shard)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": round(found["seconds"], 2), "MB": round(found["peak"]), "MB_of_imports": round(found["imports"])}


def agrees(folder: Path) -> bool:
    """Say whether all contenders wrote the same pixels."""
    import xarray as xr

    import lsdask as ls

    ours = ls.store.open(folder / "lsdask.zarr")
    odc = xr.open_zarr(folder / "odc.zarr", mask_and_scale=False, consolidated=False)[BANDS].to_array("band")
    theirs = xr.open_zarr(folder / "stackstac.zarr", mask_and_scale=False, consolidated=False)["mosaic"]
    overlap = theirs.sel(y=ours.y, x=ours.x, method="nearest", tolerance=1e-6)
    return bool((odc.values == ours.values).all() and (overlap.values == ours.values).all())


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="items")
    parser.add_argument("--size", type=int, default=4096, help="side of a COG, pixels")
    parser.add_argument("--method", choices=["first", "median"], default="first")
    parser.add_argument("--shard", type=int, default=CHUNK, help="of lsdask; the rivals write chunks of 512 pixels")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each, of which the fastest counts")
    parser.add_argument("--sizes", type=int, nargs="*", help="measure mosaic.write on images of these sizes instead")
    parser.add_argument("--cog", type=int, nargs="*", help="measure mosaic.to_cog on images of these sizes instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.cog:
            print(json.dumps(cogs(folder, options.cog)))
        else:
            print(json.dumps(memory(folder, options.sizes) if options.sizes else race(folder, options)))


def memory(folder: Path, sizes: list[int]) -> dict[str, Any]:
    """Measure the memory of ``mosaic.write`` by size."""
    found = {size: measure("memory", str(size), folder / f"{size}.zarr") for size in sizes}
    return {"benchmark": "B12 memory", "shard": SHARD, "sizes": found}


def cogs(folder: Path, sizes: list[int]) -> dict[str, Any]:
    """Measure memory and time of both writers of GeoTIFFs by size."""
    names = ["cog", "cog_odc"] if importlib.util.find_spec("imagecodecs") else ["cog"]
    found: dict[int, Any] = {}
    for size in sizes:
        found[size] = {name: measure(name, str(size), folder / f"{size}-{name}.tif") for name in names}
        for path in folder.glob("*.tif"):
            path.unlink()
    return {"benchmark": "B12 cog", "sizes": found}


def race(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run all contenders on the same scenes, one after the other."""
    prepare(folder, options.count, options.size)
    result: dict[str, Any] = {"benchmark": "B12 mosaic", **vars(options)}
    for name in RUNS:
        target = folder / f"{name}.zarr"
        runs = []
        for _ in range(options.repeats):
            shutil.rmtree(target, ignore_errors=True)
            runs.append(measure(name, str(folder), target, options.method, options.shard))
        result[name] = min(runs, key=lambda run: run["seconds"])
    for name in ("odc", "stackstac"):
        result[f"times_{name}"] = round(result[name]["seconds"] / result["lsdask"]["seconds"], 2)
        result[f"memory_of_{name}"] = round(result["lsdask"]["MB"] / max(result[name]["MB"], 1), 2)
    result["agrees"] = agrees(folder)
    return result


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        child(*sys.argv[2:7])
    else:
        main()
