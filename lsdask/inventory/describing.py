"""A STAC item beside an inventory: where and when it holds, of which scores it was made and by which model."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pystac
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from pystac.extensions import mlm
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import DataType

from lsdask import schema, store
from lsdask.errors import BadInput, NotFound, sentence
from lsdask.inventory.measuring import crs_of

if TYPE_CHECKING:
    from lsdask.models import Spec

MEDIA = {
    ".parquet": "application/vnd.apache.parquet",
    ".geoparquet": "application/vnd.apache.parquet",
    ".gpkg": str(pystac.MediaType.GEOPACKAGE),
    ".fgb": "application/vnd.flatgeobuf",
    ".geojson": str(pystac.MediaType.GEOJSON),
}
"""Media types of the files of ``write``, by suffix."""

EARTH_M = 6_378_137
"""Semi-major axis of the Earth, m."""

DIMS = ["batch", "channel", "height", "width"]


def describe(
    path: str | Path,
    scores: xr.DataArray,
    *,
    threshold: float = 0.5,
    model: str | Path | None = None,
    cog: str | Path | None = None,
    when: tuple[datetime, datetime] | None = None,
) -> Path:
    """Write a STAC item beside an inventory, which catalogues and their clients read.

    Parameters
    ----------
    path : path
        The inventory, written by ``write``.
    scores : DataArray (class, y, x) or (y, x)
        What it was made of; a store is linked to, and the item lies where they lie.
    threshold : float
        A pixel was a landslide from this score.
    model : path, optional
        The model folder: described by the extension for machine learning models (MLM 1.4).
    cog : path, optional
        The scores as a GeoTIFF, from ``mosaic.to_cog``.
    when : (datetime, datetime), optional
        First and last moment of the scenes that the scores were made of; the item has the moment of writing without.

    Returns
    -------
    Path
        That of the inventory with the suffix .json. Links are relative to it where they can be.

    Raises
    ------
    NotFound
        If one of the files is not there.
    BadInput
        If the inventory's suffix is none of ``write``, the scores have no grid, or ``when`` ends before it begins.
    """
    path = Path(path)
    if path.suffix not in MEDIA:
        raise BadInput(sentence("path", f"end in one of {', '.join(MEDIA)}", path.name))
    for name, place in (("path", path), ("cog", cog)):
        if place is not None and not Path(place).is_file():
            raise NotFound(sentence(name, "name a file", f"{place}, which is not there"))
    item = _item(path.stem, schema.geobox(scores, "scores"), when)
    item.properties["landslides"] = _rows(path)
    item.add_asset("inventory", pystac.Asset(path.name, "Landslides", media_type=MEDIA[path.suffix], roles=["data"]))
    _add_scores(item, scores, path.parent, cog, threshold)
    if model is not None:
        _add_model(item, Path(model), path.parent)
    return _save(item, path.with_suffix(".json"))


def _item(name: str, grid: GeoBox, when: tuple[datetime, datetime] | None) -> pystac.Item:
    """Make an item of a grid's place."""
    crs = crs_of(grid)
    shape = _outline(grid, crs)
    if when is not None and when[1] < when[0]:
        raise BadInput(sentence("when", "begin before it ends", f"{when[0]} to {when[1]}"))
    first, last = when or (None, None)
    moment = datetime.now(UTC) if when is None else None
    outline = json.loads(shapely.to_geojson(shape))
    item = pystac.Item(name, outline, list(shape.bounds), moment, {}, start_datetime=first, end_datetime=last)
    code = grid.crs.to_epsg() if grid.crs else None
    ProjectionExtension.ext(item, add_if_missing=True).apply(
        code=f"EPSG:{code}" if code else None,
        wkt2=None if code else crs.to_wkt(),
        shape=list(grid.shape),
        transform=list(grid.transform)[:6],
        bbox=list(grid.extent.boundingbox),
    )
    return item


def _outline(grid: GeoBox, crs: pyproj.CRS) -> shapely.Polygon:
    """Give the outline of a grid in longitude and latitude; on another planet, its own."""
    dense = shapely.segmentize(
        grid.extent.geom, max(grid.extent.boundingbox.span_x, grid.extent.boundingbox.span_y) / 16
    )
    earth = crs.ellipsoid is not None and abs(crs.ellipsoid.semi_major_metre / EARTH_M - 1) < 0.01
    return gpd.GeoSeries([dense], crs=crs).to_crs(4326 if earth else crs.geodetic_crs).iloc[0]


def _rows(path: Path) -> int:
    """Count the polygons of a file without reading them."""
    if MEDIA[path.suffix].endswith("parquet"):
        return pq.read_metadata(path).num_rows
    return int(pyogrio.read_info(path, force_feature_count=True)["features"])


def _add_scores(
    item: pystac.Item, scores: xr.DataArray, beside: Path, cog: str | Path | None, threshold: float
) -> None:
    """Link to the scores, and say what their numbers mean."""
    classes = scores["class"].values.tolist() if "class" in scores.coords else ["landslide"]
    fields: dict[str, Any] = {
        "bands": [{"name": str(name)} for name in np.atleast_1d(classes)],
        "data_type": scores.dtype.name,
        "nodata": schema.UNKNOWN if scores.dtype == np.uint8 else "nan",
        "description": f"Probability of a landslide; polygons hold the pixels of {threshold:g} and more.",
    }
    if scores.dtype == np.uint8:
        fields["raster:scale"] = 1 / schema.SCORE_STEPS
    places = {"scores": store.source(scores), "scores_cog": cog}
    media = {"scores": "application/vnd.zarr; version=3", "scores_cog": str(pystac.MediaType.COG)}
    for name, place in places.items():
        if place is not None:
            href = _href(str(place), beside)
            item.add_asset(
                name, pystac.Asset(href, "Scores", media_type=media[name], roles=["data"], extra_fields=fields)
            )
    if scores.dtype == np.uint8:
        item.stac_extensions.append("https://stac-extensions.github.io/raster/v2.0.0/schema.json")
    item.properties["threshold"] = threshold


def _href(place: str, beside: Path) -> str:
    """Give a link relative to a folder to what lies on this machine."""
    return os.path.relpath(place, beside) if store.is_local(place) else place


def _add_model(item: pystac.Item, folder: Path, beside: Path) -> None:
    """Describe a model by the MLM extension."""
    from lsdask.models.folder import WEIGHTS, read_spec  # which loads torch

    spec = read_spec(folder)
    side = spec.tile or -1
    shape = mlm.InputStructure.create([-1, len(spec.bands), side, side], DIMS, DataType.FLOAT32)
    result = mlm.ResultStructure.create([-1, spec.classes, side, side], DIMS, DataType.FLOAT32)
    said = mlm.ModelInput.create("mosaic", list(spec.bands), shape)
    # Written as a list, one entry a band, as version 1.4 asks; pystac's own setter takes a single one.
    said.properties["value_scaling"] = [
        mlm.ValueScaling.create(mlm.ValueScalingType.Z_SCORE, mean=mean, stddev=std).to_dict()
        for mean, std in zip(spec.mean, spec.std)
    ]
    task = [mlm.TaskType.SEMANTIC_SEGMENTATION]
    mlm.MLMExtension.ext(item, add_if_missing=True).apply(
        name="-".join(part for part in (spec.name, spec.encoder) if part),
        architecture=spec.name,
        tasks=task,
        input=[said],
        output=[mlm.ModelOutput.create("scores", task, result, classes=[])],
        framework="PyTorch",
        hyperparameters=mlm.Hyperparameters.create(**_settings(spec)),
    )
    bands = {"bands": [{"name": band} for band in spec.bands]}
    asset = pystac.Asset(_href(str(folder / WEIGHTS), beside), "Weights", roles=["mlm:model"], extra_fields=bands)
    asset.media_type = "application/octet-stream"
    item.add_asset("model", asset)
    mlm.AssetGeneralMLMExtension.ext(asset).apply(artifact_type="safetensors")


def _settings(spec: "Spec") -> dict[str, Any]:
    given = {"encoder": spec.encoder, "halo": spec.halo, "threshold": spec.threshold, **spec.options}
    return {name: value for name, value in given.items() if value not in (None, "")}


def _save(item: pystac.Item, path: Path) -> Path:
    """Write an item whole, or not at all."""
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    part.write_text(json.dumps(item.to_dict(include_self_link=False), indent=1))
    part.replace(path)
    return path
