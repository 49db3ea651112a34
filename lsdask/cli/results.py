"""The commands that score a map and make an inventory of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

import lsdask as ls
from lsdask.cli.app import (
    Class,
    Store,
    Threshold,
    app,
    cell,
    class_of,
    console,
    finish,
    names,
    say,
    scores_of,
    table_of,
    tell,
    there,
)
from lsdask.cli.inputs import POLYGONS, masks_of
from lsdask.cli.running import Cluster, Scheduler, Workers, client_of
from lsdask.cli.saving import check, save
from lsdask.errors import BadInput, NotFound, sentence

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr

WHOLE = dict.fromkeys(
    ("tp", "fp", "fn", "tn", "blocks", "landslides", "mapped", "true", "matched", "from_m2", "to_m2"), "{:,.0f}"
)
"""How counts are shown, by column."""

TEXT = dict.fromkeys(("score", "region"), "{}")

SHOWN = {"regions": ["region", "blocks", "f1", "f1_low", "f1_high", "precision", "recall"]}
"""Columns of wide tables that are printed; files hold all."""

TITLES = {
    "intervals": "95 % intervals, by drawing blocks anew",
    "regions": "Regions, with 95 % intervals",
    "near": "Edges forgiven",
    "sizes": "Landslides by area: share detected (half of it found), share of their area found",
    "objects": "Outlines that match (IoU of 0.5 or more)",
}
"""What is printed above a table, by its name in files."""

Score = Literal["f1", "iou", "mcc", "precision", "recall", "accuracy"]


@app.command()
def evaluate(
    scores: Store,
    mask: Annotated[Path, typer.Argument(help="Store of the mask, or polygons.", show_default=False)],
    threshold: Threshold = 0.5,
    tiles: Annotated[
        Path | None, typer.Option(help="Tile table: count only inside its test tiles; default: everywhere.")
    ] = None,
    scene: Annotated[str | None, typer.Option(help="Which scene of the table; needed if it has several.")] = None,
    best: Annotated[
        Score | None, typer.Option(help="Take the threshold with the best of this on the valid tiles of --tiles.")
    ] = None,
    also: Annotated[list[str] | None, typer.Option(help="Another store of scores to compare; repeatable.")] = None,
    class_: Class = None,
    block: Annotated[
        int | None, typer.Option(help="95 % intervals, by drawing blocks of this side, in pixels.", min=1)
    ] = None,
    regions: Annotated[Path | None, typer.Option(help="Polygons to score one by one; needs --block.")] = None,
    name: Annotated[str | None, typer.Option(help="Column that names the regions.")] = None,
    near: Annotated[
        float | None, typer.Option(help="Also scores that forgive edges up to so many pixels off.", min=0)
    ] = None,
    objects: Annotated[
        bool, typer.Option("--objects", help="Also by landslide: found by area, outlines matched.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write all numbers: .json, .md or .csv.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for figures, as .png and .pdf.")] = None,
    agreement: Annotated[str | None, typer.Option(help="New store for a map of true and false pixels.")] = None,
    workers: Workers = 0,
    cluster: Cluster = None,
    scheduler: Scheduler = None,
) -> None:
    """Score a map against a mask: precision, recall, F1, IoU, MCC, accuracy, AP, AUC over all known pixels."""
    if out is not None:
        check(out)
    if regions is not None and block is None:
        raise BadInput(sentence("regions", "come with --block, of which the intervals are made", "none"))
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
    image = scores_of(scores)
    (truth,) = masks_of([mask], [image])
    valid, choose = _ground(tiles, scene, best, image)
    given: dict[str, Any] = {"valid": valid, "class_": class_of(image, class_)}
    maps = {place: scores_of(place) for place in (scores, *(also or []))}
    with client_of(workers, cluster, scheduler) as client:
        table = ls.evaluate.compare(maps, truth, threshold=threshold, choose=choose, by=best or "f1", **given)
        _show(table)
        given["threshold"] = float(table["threshold"].iloc[0])
        tables = {"scores": table.reset_index()}
        if block is not None:
            counted = ls.evaluate.blocks(image, truth, size=block, **given)
            tables["intervals"] = ls.evaluate.bootstrap(counted).rename_axis("score").reset_index()
        if regions is not None:
            tables["regions"] = _by_region(image, truth, _regions(regions, name), block, given)
        if near is not None:
            tables["near"] = _row(pixels=near, **ls.evaluate.near(image, truth, pixels=near, **given))
        if objects:
            tables |= _objects(image, truth, mask, given)
        for title, part in list(tables.items())[1:]:
            console.print(table_of(part[SHOWN.get(title, list(part))], WHOLE | TEXT, TITLES[title]))
        if figures is not None:
            _draw(figures, image, truth, tables, given)
        if agreement is not None:
            finish(ls.mosaic.write(ls.evaluate.agreement(image, truth, **given), agreement, client=client))
    if out is not None:
        save(tables, out)
        say(f"Wrote {out}")


def _ground(tiles: Path | None, scene: str | None, best: str | None, image: "xr.DataArray") -> tuple[Any, Any]:
    """Give where to count, and where to choose the threshold, by the splits of a tile table."""
    if tiles is None:
        if best is not None:
            do = "A threshold chosen where it is judged looks better than it is"
            raise BadInput(sentence("best", "come with --tiles, on whose valid ones it is chosen", f"best={best}", do))
        return None, None
    test = _inside(tiles, scene, "test", image)
    return test, None if best is None else _inside(tiles, scene, "valid", image)


def _inside(tiles: Path, scene: str | None, split: str, image: "xr.DataArray") -> "xr.DataArray":
    rows = ls.sampling.read(tiles, split=split, scene=scene, columns=("y", "x", "size"))
    if not len(rows):
        raise BadInput(sentence("tiles", f"hold tiles of the split {split!r}", "none", "Divide them anew"))
    return ls.evaluate.within(rows, image)


def _show(table: "pd.DataFrame") -> None:
    """Print the scores of maps side by side."""
    shown = Table("score", *(Path(str(place)).name for place in table.index))
    for score in table:
        how = WHOLE.get(str(score), "{:.4f}")
        shown.add_row(str(score), *(cell(how, value) for value in table[score]))
    console.print(shown)


def _row(**values: Any) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame([values])


def _regions(path: Path, name: str | None) -> "gpd.GeoDataFrame":
    """Open regions, called by a column or by their row."""
    frame = ls.inventory.load(there(path, "regions"), name="regions")
    if name is not None and name not in frame:
        raise BadInput(sentence("name", f"be a column of the regions, {', '.join(map(str, frame))}", f"name={name}"))
    return frame if name is None else frame.set_index(name)


def _by_region(
    image: "xr.DataArray", truth: "xr.DataArray", frame: "gpd.GeoDataFrame", block: int | None, given: dict[str, Any]
) -> "pd.DataFrame":
    counted = ls.evaluate.regions(image, truth, frame, size=block, **given)
    return ls.evaluate.by_region(counted).reset_index()


def _objects(
    image: "xr.DataArray", truth: "xr.DataArray", mask: Path, given: dict[str, Any]
) -> dict[str, "pd.DataFrame"]:
    """Find the landslides of the truth, by size, and match their outlines, where they lie on the ground that counts."""
    valid, rest = given["valid"], {key: given[key] for key in ("threshold", "class_")}
    if valid is None and mask.suffix.lower() in POLYGONS:
        outlines = ls.inventory.load(mask)
    else:
        inside = (truth == 1) if valid is None else (truth == 1) & valid
        outlines = ls.inventory.vectorize(inside.assign_coords(spatial_ref=truth["spatial_ref"]))
    found = ls.evaluate.landslides(image, outlines, valid=valid, **rest)
    known = found[found["pixels"] > 0]
    unknown = ls.schema.UNKNOWN if image.dtype == "uint8" else float("nan")
    mapped = ls.inventory.vectorize(image if valid is None else image.where(valid, unknown), **rest)
    matched = ls.evaluate.match(mapped, known).counts
    scored = ls.evaluate.score(matched)
    numbers = {"true": len(known), "mapped": len(mapped), "matched": matched.tp}
    objects = _row(**numbers, **{key: scored[key] for key in ("precision", "recall", "f1")})
    return {"sizes": ls.evaluate.by_size(found), "objects": objects}


def _draw(
    folder: Path, image: "xr.DataArray", truth: "xr.DataArray", tables: dict[str, "pd.DataFrame"], given: dict[str, Any]
) -> None:
    """Draw what a paper shows of a map."""
    threshold, rest = given["threshold"], {key: given[key] for key in ("valid", "class_")}
    sweep = ls.evaluate.sweep(image, truth, thresholds=ls.schema.SCORE_STEPS + 1, **rest)
    drawn = {
        "curves": ls.report.figure_curves(sweep, threshold=threshold),
        "thresholds": ls.report.figure_thresholds(sweep, threshold=threshold),
        "reliability": ls.report.figure_reliability(sweep),
    }
    flat = image if image.ndim == 2 or given["class_"] is None else image.sel({"class": given["class_"]})
    drawn["agreement"] = ls.report.figure_agreement(flat, truth, threshold=threshold, valid=given["valid"])
    if "sizes" in tables:
        drawn["sizes"] = ls.report.figure_sizes(tables["sizes"])
    for name, figure in drawn.items():
        for suffix in (".png", ".pdf"):
            figure.savefig(folder / f"{name}{suffix}", dpi=300, bbox_inches="tight")
    say(f"Drew {', '.join(drawn)} in {folder}")


@app.command()
def polygons(
    scores: Store,
    out: Annotated[Path, typer.Argument(help=".parquet, .gpkg, .fgb or .geojson.", show_default=False)],
    threshold: Threshold = 0.5,
    min_area: Annotated[float, typer.Option(help="Smallest landslide, in square metres.", min=0)] = 0.0,
    class_: Class = None,
    corners: Annotated[bool, typer.Option("--corners", help="Pixels that meet at a corner are one landslide.")] = False,
    fill: Annotated[float, typer.Option(help="Fill holes up to this, in square metres.", min=0)] = 0.0,
    simplify: Annotated[
        float,
        typer.Option(
            help="Smooth outlines, moving them by so many metres at most; 0: leave the steps of pixels.", min=0
        ),
    ] = 0.0,
    image: Annotated[
        str | None, typer.Option(help="Store of a mosaic: each landslide's mean, least and greatest value a band.")
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            help="Two bands, whose normalised difference changed between before and after; default: nir,red if held."
        ),
    ] = None,
    dem: Annotated[
        Path | None, typer.Option(help="File of heights in metres: each landslide's slope, aspect, length ...")
    ] = None,
    cog: Annotated[
        Path | None, typer.Option(help="Also write the scores here, as a GeoTIFF with overviews, a .tif.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Model folder, to be named in the STAC item beside.")] = None,
    workers: Workers = 0,
    cluster: Cluster = None,
    scheduler: Scheduler = None,
) -> None:
    """Turn scores into an inventory of polygons, with a STAC item beside it; memory holds some rows of tiles."""
    if cog is not None and not cog.absolute().parent.is_dir():
        raise NotFound(sentence("cog", "lie in a folder that exists", f"cog={cog}"))
    if model is not None:
        there(model, "model")
    opened = scores_of(scores)
    options: dict[str, Any] = {
        "threshold": threshold,
        "min_area_m2": min_area,
        "class_": class_of(opened, class_),
        "connectivity": 8 if corners else 4,
    }
    mosaic = None if image is None else ls.store.open(image)
    heights = None if dem is None else _heights(dem, opened)
    with client_of(workers, cluster, scheduler) as client:
        total = 0

        def finish_batch(frame: "gpd.GeoDataFrame") -> "gpd.GeoDataFrame":
            nonlocal total
            shaped = _shaped(frame, fill, simplify)
            total += len(shaped)
            return _attributes(shaped, mosaic, names(index), heights, client)

        frames = ls.inventory.batches(opened, **options, apart=bool(fill or simplify), client=client)
        ls.inventory.write(map(finish_batch, frames), out)
    if not total:
        tell(f"note: no landslide of {min_area:g} m² or more has a score of {threshold:g} or more.", "yellow")
    if cog is not None:
        ls.mosaic.to_cog(opened, cog, overwrite=True)
    item = ls.inventory.describe(out, opened, threshold=threshold, model=model, cog=cog)
    say(f"Wrote {total:,} landslides to {out}, described in {item.name}")


def _shaped(frame: "gpd.GeoDataFrame", fill: float, simplify: float) -> "gpd.GeoDataFrame":
    filled = ls.inventory.fill_holes(frame, max_area_m2=fill) if fill else frame
    return ls.inventory.simplify(filled, tolerance_m=simplify) if simplify else filled


def _heights(dem: Path, like: "xr.DataArray") -> "xr.DataArray":
    """Open heights on the grid of the scores."""
    heights = ls.scenes.open(there(dem, "dem"), grid=like, resampling="cubic_spline")
    return heights.isel(time=0, band=0, drop=True)


def _attributes(frame: "gpd.GeoDataFrame", mosaic: Any, index: Any, heights: Any, client: Any) -> "gpd.GeoDataFrame":
    """Add what a mosaic and heights say of landslides."""
    if mosaic is not None:
        frame = ls.inventory.summarize(frame, mosaic, client=client)
        if index is not None:
            name = "ndvi" if index == ["nir", "red"] else "index"
            frame = ls.inventory.change(frame, mosaic, bands=tuple(index), name=name, client=client)
        elif {"pre_nir", "pre_red", "post_nir", "post_red"} <= set(ls.schema.bands(mosaic)):
            frame = ls.inventory.change(frame, mosaic, client=client)
    return frame if heights is None else ls.inventory.terrain(frame, heights, client=client)
