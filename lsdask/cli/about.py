"""What the command says of itself and of stores."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import lsdask as ls
from lsdask.cli.app import Store, app, console, say, show
from lsdask.errors import BadInput

SHADES = {"·": 0.0, "░": 0.001, "▓": 0.75, "█": 0.999}
"""Letters of the coverage map, each with the least share of valid pixels it stands for. They need no colours."""


@app.callback(invoke_without_command=True)
def version(asked: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if asked:
        say(ls.__version__)
        raise typer.Exit


@app.command()
def info(
    path: Store,
    png: Annotated[
        Path | None, typer.Option(help="Also draw the image here: .png, .pdf or .svg.", show_default=False)
    ] = None,
    coverage: Annotated[bool, typer.Option(help="Draw where there is data.")] = True,
) -> None:
    """Say what a store, GeoTIFF or model folder holds: grid, bands, nodata, chunks, its run, where there is data."""
    if (Path(path) / "model.json").exists():
        show("model", vars(ls.models.read_spec(Path(path))).items())
        return
    is_file = Path(path).suffix.lower() in (".tif", ".tiff")
    image = ls.scenes.open(path, name="GeoTIFF").isel(time=0, drop=True) if is_file else ls.store.open(path)
    more = _in_file(path) if is_file else _in_store(path) | _run(path)
    show(path, (_grid(image) | _named(image) | more).items())
    if coverage:
        drawn = draw_coverage(ls.report.coverage(image, columns=min(console.width, 80)))
        say(f"\nWhere there is data (· none, ░ some, ▓ most, █ all):\n{drawn}")
    if png is not None:
        ls.report.figure(image).savefig(png, dpi=150, bbox_inches="tight")
        colours = f". {ls.report.colours_text(ls.schema.bands(image))}" if "band" in image.dims else ""
        say(f"Drew {png}{colours}")


def draw_coverage(share: np.ndarray) -> str:
    """Draw shares of valid pixels as a picture of letters, one for two cells, as letters are twice as high as wide.

    Parameters
    ----------
    share : (rows, columns) float array
        0 to 1.

    Returns
    -------
    str
    """
    pairs = [share[row : row + 2].mean(axis=0) for row in range(0, len(share), 2)]
    return "\n".join("".join(_letter(value) for value in row) for row in pairs)


def _letter(share: float) -> str:
    return next(letter for letter, least in reversed(SHADES.items()) if share >= least)


def _grid(image: Any) -> dict[str, Any]:
    grid = ls.schema.geobox(image)
    unit = grid.crs.units[0].partition("_")[0] if grid.crs else ""  # of degrees_north the degrees
    return {
        "variable": image.name,
        "dims": ", ".join(f"{dim} {size:,}" for dim, size in image.sizes.items()),
        "dtype": image.dtype,
        "nodata": ls.schema.nodata(image),
        "CRS": f"EPSG:{grid.crs.epsg}" if grid.crs and grid.crs.epsg else grid.crs,
        "pixel": f"{abs(grid.resolution.x):g} x {abs(grid.resolution.y):g} {unit}",
        "bounds": ", ".join(f"{value:.10g}" for value in grid.boundingbox.bbox),
    }


def _named(image: Any) -> dict[str, str]:
    return {str(dim): ", ".join(map(str, image[dim].values)) for dim in image.dims[:-2] if dim in image.coords}


def _in_store(path: str) -> dict[str, Any]:
    stored = ls.store.array(path)
    return {"chunks": stored.chunks, "shards": stored.shards}


def _in_file(path: str) -> dict[str, Any]:
    """Say how a raster file is laid out."""
    import rasterio

    from lsdask.scenes.headers import opened

    with opened(path, rasterio.open) as file:
        return {
            "blocks": file.block_shapes[0],
            "overviews": ", ".join(map(str, file.overviews(1))) or "none",
            "layout": file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT", "not cloud-optimised"),
            "compression": file.profile.get("compress", "none"),
        }


def _run(path: str) -> dict[str, str]:
    """Say how far a run has come, if the store is one's target."""
    try:
        plan = ls.ledger.plan_of(path)
    except BadInput:
        return {}
    done = ls.ledger.done(path)
    return {
        "tiles done": f"{done.sum():,} of {done.size:,}",
        **{f"plan: {key}": str(plan[key]) for key in sorted(plan)},
    }
