"""The STAC item beside an inventory: valid, readable by pystac, true."""

import json
from datetime import UTC, datetime

import jsonschema
import numpy as np
import pystac
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pystac.extensions import mlm
from pystac.extensions.projection import ProjectionExtension
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from lsdask import inventory, models, mosaic, schema, store
from lsdask.errors import BadInput, NotFound

GRID = GeoBox((60, 80), Affine(8, 0, 450_000, 0, -8, 7_390_000), "EPSG:32723")

STRUCTURE = {
    "required": ["shape", "dim_order", "data_type"],
    "properties": {
        "shape": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": -1}},
        "dim_order": {"type": "array", "uniqueItems": True, "items": {"type": "string", "pattern": "^[a-z-_]+$"}},
        "data_type": {"enum": ["uint8", "uint16", "float16", "float32", "float64"]},
    },
}
SCALING = {"required": ["type", "mean", "stddev"], "properties": {"type": {"const": "z-score"}}}
MLM = {
    "required": ["stac_extensions", "properties", "assets"],
    "properties": {
        "stac_extensions": {"contains": {"const": "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"}},
        "properties": {
            "required": ["mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"],
            "properties": {
                "mlm:name": {"type": "string", "pattern": "^[a-zA-Z][a-zA-Z0-9_.-]+[a-zA-Z0-9]$"},
                "mlm:tasks": {"type": "array", "items": {"enum": ["semantic-segmentation"]}},
                "mlm:input": {
                    "items": {
                        "required": ["name", "bands", "input"],
                        "properties": {"input": STRUCTURE, "value_scaling": {"type": "array", "items": SCALING}},
                    }
                },
                "mlm:output": {
                    "items": {"required": ["name", "tasks", "result"], "properties": {"result": STRUCTURE}},
                },
                "mlm:hyperparameters": {"type": "object", "minProperties": 1},
            },
        },
        "assets": {
            "required": ["model"],
            "properties": {
                "model": {"required": ["mlm:artifact_type"], "properties": {"roles": {"const": ["mlm:model"]}}}
            },
        },
    },
}
"""What version 1.4 of the extension asks of an item like ours, without the parts it takes from other schemas."""


def valid(path):
    """Read an item, validated by the schema of STAC itself, which pystac holds."""
    text = json.loads(path.read_text())
    validator = JsonSchemaSTACValidator()
    validator.validate_core(text, pystac.STACObjectType.ITEM, text["stac_version"])
    return pystac.Item.from_file(path), text


@pytest.fixture
def scores(tmp_path):
    values = np.zeros((1, 60, 80), "uint8")
    values[0, 10:20, 10:30] = values[0, 40:44, 50:52] = 200
    attrs = schema.score_attrs("uint8")
    image = schema.wrap(values, GRID, schema.SCORES, name="scores", coords={"class": ["landslide"]}, attrs=attrs)
    store.write(image, tmp_path / "scores.zarr", chunk=64, shard=64)
    return store.open(tmp_path / "scores.zarr")


@pytest.mark.parametrize("suffix", [".parquet", ".gpkg", ".fgb", ".geojson"])
def test_an_item_says_where_what_and_how_many(tmp_path, scores, suffix):
    path = inventory.write(inventory.vectorize(scores), tmp_path / f"slides{suffix}")
    item, text = valid(inventory.describe(path, scores, threshold=0.4))
    assert item.id == "slides"
    assert item.properties["landslides"] == 2
    assert item.properties["threshold"] == 0.4
    assert abs((datetime.now(UTC) - item.datetime).total_seconds()) < 60
    place = ProjectionExtension.ext(item)
    assert place.code == "EPSG:32723"
    assert (place.shape, place.transform) == ([60, 80], [8, 0, 450_000, 0, -8, 7_390_000])
    corner = GRID.extent.to_crs("EPSG:4326").boundingbox
    np.testing.assert_allclose(item.bbox, corner.bbox, atol=1e-5)
    assert shapely.geometry.shape(item.geometry).is_valid
    for name, asset in text["assets"].items():
        assert (tmp_path / asset["href"]).exists(), name
    assert text["assets"]["scores"]["href"] == "scores.zarr"
    assert text["assets"]["scores"]["nodata"] == 255
    assert text["assets"]["scores"]["raster:scale"] == 1 / 250
    assert text["assets"]["scores"]["bands"] == [{"name": "landslide"}]
    assert "mlm:name" not in item.properties


def test_a_model_is_described_by_the_extension_for_models(tmp_path, scores):
    mean, std = [410.0, 390.0, 350.0, 2100.0], [80.0, 90.0, 110.0, 400.0]
    model = models.build("unet", encoder="resnet18", bands=["blue", "green", "red", "nir"], mean=mean, std=std)
    models.save(model, tmp_path / "model", tile=64, halo=32, threshold=0.35)
    path = inventory.write(inventory.vectorize(scores), tmp_path / "slides.parquet")
    mosaic.to_cog(scores, tmp_path / "scores.tif")
    when = datetime(2018, 9, 6, tzinfo=UTC), datetime(2018, 10, 1, tzinfo=UTC)
    item, text = valid(
        inventory.describe(path, scores, model=tmp_path / "model", cog=tmp_path / "scores.tif", when=when)
    )
    jsonschema.validate(text, MLM)
    said = mlm.MLMExtension.ext(item)
    assert (said.mlm_name, said.architecture, said.framework) == ("unet-resnet18", "unet", "PyTorch")
    assert said.input[0].bands == ["blue", "green", "red", "nir"]
    assert said.input[0].input.shape == [-1, 4, 64, 64]
    assert said.output[0].result.shape == [-1, 1, 64, 64]
    scaling = text["properties"]["mlm:input"][0]["value_scaling"]
    assert [one["mean"] for one in scaling] == mean
    assert [one["stddev"] for one in scaling] == std
    settings = text["properties"]["mlm:hyperparameters"]
    assert (settings["encoder"], settings["halo"], settings["threshold"]) == ("resnet18", 32, 0.35)
    assert (tmp_path / text["assets"]["model"]["href"]).name == "model.safetensors"
    assert (tmp_path / text["assets"]["model"]["href"]).exists()
    assert text["assets"]["model"]["bands"][3] == {"name": "nir"}
    assert text["assets"]["scores_cog"]["href"] == "scores.tif"
    assert item.datetime is None
    assert item.common_metadata.start_datetime == when[0]


def test_a_grid_without_a_code_is_described_in_full(tmp_path):
    mars = "+proj=eqc +R=3396190 +units=m +no_defs"
    scores = schema.wrap(np.full((9, 9), 0.9, "float32"), GeoBox((9, 9), GRID.transform, mars), schema.MASK, name="s")
    path = inventory.write(inventory.vectorize(scores), tmp_path / "slides.gpkg")
    _, text = valid(inventory.describe(path, scores))
    assert "PROJCRS" in text["properties"]["proj:wkt2"] or "PROJCS" in text["properties"]["proj:wkt2"]
    assert set(text["assets"]) == {"inventory"}


def test_what_cannot_be_described_says_so(tmp_path, scores):
    with pytest.raises(NotFound, match="path must name a file"):
        inventory.describe(tmp_path / "none.gpkg", scores)
    with pytest.raises(BadInput, match="path must end in one of"):
        inventory.describe(tmp_path / "none.shp", scores)
    path = inventory.write(inventory.vectorize(scores), tmp_path / "slides.gpkg")
    with pytest.raises(NotFound, match="cog must name a file"):
        inventory.describe(path, scores, cog=tmp_path / "none.tif")
    with pytest.raises(BadInput, match="when must begin before it ends"):
        inventory.describe(path, scores, when=(datetime(2019, 1, 1, tzinfo=UTC), datetime(2018, 1, 1, tzinfo=UTC)))
    with pytest.raises(NotFound):
        inventory.describe(path, scores, model=tmp_path / "no-model")
    assert not (tmp_path / "slides.json").exists()
