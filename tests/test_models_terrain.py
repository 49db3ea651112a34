"""Terrain inside a network: equal to the room of terrain, derived of what the augmentation made of the heights."""

import json

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from lsdask import models, mosaic, predict, sampling, schema, store, streaming, synthetic, terrain, training
from lsdask.augment import affine_block, symmetry_block
from lsdask.errors import BadInput
from lsdask.models.relief import DERIVED, horn_block, terrain_block

NAMES = tuple(sorted(DERIVED))
PIXEL = 8.0


def oracle(heights: np.ndarray, name: str, **options: float) -> np.ndarray:
    """What the room of terrain makes of heights (y, x), heights going on straight beyond the border."""
    block = terrain.pad_block(heights, [(True, True), (True, True)], "extrapolate")
    gradient = terrain.horn_block(block, np.full((2, len(heights)), PIXEL))
    return getattr(terrain, f"{name}_block")(gradient, **options)


def derive(heights: np.ndarray | torch.Tensor, name: str) -> np.ndarray:
    """What a network sees of heights (y, x), in the units of terrain; void is the centre."""
    planes = torch.as_tensor(heights, dtype=torch.float32)[None]
    _, centre, scale = DERIVED[name]
    return terrain_block(planes, planes, (name,), PIXEL)[0, 0].numpy() * scale + centre


def hills(side: int) -> np.ndarray:
    """Smooth ground: waves of 30 px and more, slopes up to some 30 degrees."""
    y, x = np.mgrid[:side, :side].astype("float64")
    return (500 + 12 * np.sin(x / 5 + y / 9) + 25 * np.cos(y / 8 - x / 13)).astype("float32")


def build(names: tuple[str, ...] = ("hillshade", "slope"), **options: object) -> models.Segmenter:
    bands = ["red", "dem", "nir"]
    given = {"filters": 2, "terrain": names, "pixel_m": PIXEL, "mean": [100, 500, 200], "std": [50, 20, 60], **options}
    return models.build("soares_unet", bands=bands, **given).eval()


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    rough=st.sampled_from([0.0, 0.1, 30.0, 3000.0]),
    void=st.sampled_from([0.0, 0.05]),
    name=st.sampled_from(NAMES),
)
def test_terrain_in_the_network_is_that_of_the_room(seed, size, rough, void, name):
    rng = np.random.default_rng(seed)
    heights = (2000 + rough * rng.normal(size=size)).astype("float32")
    heights[rng.random(size) < void] = np.nan
    expected = oracle(heights, name)
    centre = DERIVED[name][1]
    scale = max(abs(np.nanmax(expected, initial=1)), 1)
    np.testing.assert_allclose(derive(heights, name), np.nan_to_num(expected, nan=centre), atol=1e-4 * scale)


def test_float32_keeps_the_slope_of_high_and_nearly_level_ground():
    plane = (8000 + 0.0625 * np.arange(40, dtype="float32")) * np.ones((40, 1), "float32")
    np.testing.assert_allclose(derive(plane, "slope"), np.degrees(np.arctan(0.0625 / PIXEL)), rtol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(0, 7), st.sampled_from([0, 1000]))
def test_turned_tiles_have_the_terrain_of_the_turned_heights(seed, which, level):
    heights = torch.from_numpy(np.random.default_rng(seed).normal(level, 40, (1, 9, 9)).astype("float32"))
    turned = symmetry_block(heights, torch.tensor([which]))
    slope = torch.from_numpy(derive(turned[0], "slope"))
    expected = symmetry_block(torch.from_numpy(derive(heights[0], "slope"))[None], torch.tensor([which]))[0]
    assert torch.equal(slope[1:-1, 1:-1], expected[1:-1, 1:-1])  # slopes turn with the tile, bit for bit
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-4)
    shade = derive(turned[0], "hillshade")  # and light stays where it is
    np.testing.assert_allclose(shade, oracle(turned[0].numpy(), "hillshade"), atol=1e-2)
    if which not in (0, 5):  # mirrored about the line that light follows, ground is lit as before
        unturned = torch.from_numpy(derive(heights[0], "hillshade"))[None]
        assert (symmetry_block(unturned, torch.tensor([which]))[0] - torch.from_numpy(shade)).abs().max() > 5


@pytest.mark.parametrize("degrees", [10.0, 45.0, -100.0])
def test_freely_turned_tiles_have_it_but_for_interpolation(degrees):
    ground, turn = hills(96), torch.tensor([np.radians(degrees)], dtype=torch.float32)

    def turned(plane: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(plane.astype("float32"))[None, None]
        mask = torch.zeros(1, 96, 96, dtype=torch.uint8)
        return affine_block(image, mask, turn, torch.ones(1), torch.zeros(1))[0][0, 0].numpy()

    moved = turned(ground)
    inside = (slice(24, -24), slice(24, -24))
    assert not np.isnan(moved[inside]).any()
    error = np.abs(derive(moved, "slope") - turned(oracle(ground, "slope")))[inside]
    assert error.max() < 3  # degrees, where ground is level and its slope has a kink
    assert error.mean() < 0.2
    # The sun of the tile as it was must turn against the tile, one way round or the other.
    shades = [turned(oracle(ground, "hillshade", azimuth=315 + sign * degrees))[inside] for sign in (1, -1)]
    errors = [np.abs(derive(moved, "hillshade")[inside] - shade).max() for shade in shades]
    assert min(errors) < 4
    assert max(errors) > 12


def test_a_void_height_is_void_in_what_needs_it_and_nowhere_else():
    made = build(("elevation", "hillshade", "slope", "eastness", "northness"))
    image = torch.from_numpy(np.stack([hills(16)] * 3))[None]
    spoilt = image.clone()
    spoilt[0, 1, 5, 6] = float("nan")
    whole, holed = made.seen(image)[0], made.seen(spoilt)[0]
    assert torch.equal(whole[[0, 6]], holed[[0, 6]])
    changed = whole != holed
    assert changed[1].nonzero().tolist() == [[5, 6]]
    around = [[y, x] for y in (4, 5, 6) for x in (5, 6, 7)]
    assert all(changed[plane].nonzero().tolist() == around for plane in (2, 3, 4, 5))
    assert not holed[changed].any()
    assert holed.isfinite().all()


def test_the_network_sees_terrain_in_the_place_of_heights():
    made, ground = build(("slope", "elevation")), hills(16)
    image = torch.stack([torch.full((16, 16), 150.0), torch.from_numpy(ground), torch.full((16, 16), 80.0)])[None]
    seen = made.seen(image)[0]
    assert (made.spec.channels, len(seen)) == (4, 4)
    assert (seen[0] == 1).all()
    assert (seen[3] == -2).all()
    np.testing.assert_allclose(seen[1], oracle(ground, "slope") / 45 - 1, atol=1e-5)
    np.testing.assert_allclose(seen[2], (ground - 500) / 20, atol=1e-5)


def test_prakash_s_input_is_before_after_and_terrain():
    bands = [f"{when}_{band}" for when in ("pre", "post") for band in ("red", "green", "blue")] + ["dem"]
    made = models.build("prakash_resunet", bands=bands, terrain=("hillshade", "slope"), pixel_m=10.0)
    assert sum(each.numel() for each in made.parameters()) == 20_753_365
    with torch.no_grad():
        assert made.eval()(torch.zeros(1, 7, 40, 40)).shape == (1, 1, 40, 40)


def test_a_folder_keeps_the_terrain_and_the_reach_of_it(tmp_path):
    made = build()
    folder = models.save(made, tmp_path / "model")
    again = models.load(folder)
    assert again.spec == made.spec
    image = torch.from_numpy(np.stack([hills(32)] * 3))[None]
    with torch.no_grad():
        assert torch.equal(again(image), made(image))
    assert models.reach(folder) == models.reach(build(())) + 1
    run = models.runner(folder, nodata=None, device="cpu", precision="float32")
    with torch.no_grad():
        np.testing.assert_allclose(run(image.numpy()), torch.sigmoid(made(image)).numpy(), atol=1e-5)


def test_a_folder_without_a_word_of_terrain_is_of_a_model_without(tmp_path):
    made = build((), pixel_m=None)
    folder = models.save(made, tmp_path / "model")
    text = json.loads((folder / "model.json").read_text())
    for key in ("terrain", "pixel_m", "reach"):
        del text[key]
    (folder / "model.json").write_text(json.dumps(text))
    assert models.load(folder).spec == made.spec
    assert models.reach(folder) == models.reach(made)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"terrain": ("gloom",)}, r"terrain must hold some of elevation, slope.*\. Got terrain=\('gloom',\)"),
        ({"terrain": ("slope", "slope")}, "each once"),
        ({"bands": ["red", "height"]}, "bands must hold 'dem', of which terrain is derived"),
        ({"pixel_m": None}, "pixel_m must be a positive number of metres where there is terrain. Got pixel_m=None"),
        ({"pixel_m": -3.0}, "pixel_m=-3.0"),
    ],
)
def test_terrain_that_cannot_be_derived_is_named(arguments, told):
    with pytest.raises(BadInput, match=told):
        models.build("unet", **{"bands": ["red", "dem"], "terrain": ("slope",), "pixel_m": 8.0, **arguments})


def test_an_encoder_that_saw_other_terrain_is_refused(tmp_path):
    arguments = {"bands": ["red", "dem"], "pixel_m": 8.0}
    folder = models.save(models.build("unet", terrain=("slope",), **arguments), tmp_path / "model")
    with pytest.raises(BadInput, match=r"of the terrain \('hillshade',\)"):
        models.build("fpn", terrain=("hillshade",), weights=folder, **arguments)


def test_pixels_of_another_size_are_refused():
    made = build()
    models.check_pixel(made.spec, GeoBox((10, 10), Affine(8, 0, 4e5, 0, -8, 7e6), "EPSG:32723"))
    models.check_pixel(build(()).spec, GeoBox((10, 10), Affine(30, 0, 4e5, 0, -30, 7e6), "EPSG:32723"))
    for transform, crs, told in (
        (Affine(10, 0, 4e5, 0, -10, 7e6), "EPSG:32723", "Got 10 x 10 m"),
        (Affine(8, 0, 4e5, 0, -9, 7e6), "EPSG:32723", "Got 8 x 9 m"),
        (Affine(8 / 111320, 0, -45, 0, -8 / 111320, -60), "EPSG:4326", "Got 4.0.* x 8.0.* m"),
    ):
        with pytest.raises(BadInput, match=f"image must have square pixels of 8 m.*{told}"):
            models.check_pixel(made.spec, GeoBox((10, 10), transform, crs))


def test_a_single_row_has_no_terrain():
    with pytest.raises(BadInput, match=r"two or more rows and columns.*Got 1 x 5 px"):
        horn_block(torch.zeros(1, 1, 5), PIXEL)


def test_a_model_that_derives_terrain_is_trained_and_predicts_on_its_own_pixels_only(tmp_path):
    land = synthetic.landscape((128, 128), 3)
    heights = synthetic.elevation((128, 128), 3).rename("dem")
    image = mosaic.stack([land.scene, heights])
    store.write(image, tmp_path / "mosaic.zarr")
    held = store.open(tmp_path / "mosaic.zarr")
    names = schema.bands(held)
    model = models.build(
        "soares_unet", bands=names, filters=2, terrain=("hillshade", "slope"), pixel_m=8.0,
        mean=[300.0] * len(names), std=[100.0] * len(names),
    )  # fmt: skip
    stream = streaming.TileStream(held, sampling.grid(held, 32), mask=land.mask, batch_size=8)
    training.fit(model, stream, epochs=1, folder=tmp_path / "model", progress=False)
    report = predict.run(held, tmp_path / "scores.zarr", tmp_path / "model", halo=0, progress=False).check()
    assert report.done == report.tiles
    scores = store.open(tmp_path / "scores.zarr").values[0]
    np.testing.assert_array_equal(scores != schema.UNKNOWN, schema.valid(held).values)
    coarse = synthetic.scene((64, 64), 3, resolution=30.0)
    other = mosaic.stack([coarse, synthetic.elevation((64, 64), 3, resolution=30.0).rename("dem")])
    with pytest.raises(BadInput, match="image must have square pixels of 8 m on the ground"):
        predict.apply(other, tmp_path / "model", halo=0)
