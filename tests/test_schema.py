"""What flows between the rooms is checked at the door."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from images import grid, mosaic, random_mosaic

from lsdask import schema
from lsdask.errors import BadInput


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_a_window_keeps_the_exact_grid(height: int, width: int, data: st.DataObject) -> None:
    whole = schema.wrap(
        np.zeros((height, width), "uint8"), grid((height, width), resolution=0.1), schema.MASK, name="m"
    )
    top = data.draw(st.integers(0, height - 1))
    left = data.draw(st.integers(0, width - 1))
    window = whole[top:, left:]
    assert schema.geobox(window) == grid((height, width), resolution=0.1)[top:, left:]


def test_every_second_pixel_is_another_grid() -> None:
    image = mosaic(np.zeros((1, 10, 10), "uint8"))
    assert schema.geobox(image[:, ::2, ::2]).transform.a == 20.0


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_valid_means_data_in_every_band(dtype: str) -> None:
    image = random_mosaic((3, 20, 30), dtype=dtype, chunks=7)
    image[1, 4, 5] = np.nan if dtype == "float32" else 0
    data = image.values
    expected = ~np.isnan(data).any(0) if dtype == "float32" else (data != 0).all(0)
    assert (schema.valid(image).values == expected).all()
    assert schema.valid(image).dims == ("y", "x")
    assert not expected[4, 5]


def test_integers_without_nodata_are_all_valid() -> None:
    assert schema.valid(mosaic(np.zeros((2, 3, 3), "uint8"))).values.all()


def test_dims_in_another_order_are_named() -> None:
    image = mosaic(np.zeros((2, 3, 3))).transpose("y", "x", "band")
    with pytest.raises(BadInput, match=r"mosaic must have dims \('band', 'y', 'x'\). Got \('y', 'x', 'band'\). Use"):
        schema.check(image, schema.MOSAIC, "mosaic")
    with pytest.raises(BadInput, match=r"be an xarray\.DataArray"):
        schema.check(np.zeros(3), schema.MOSAIC)


@pytest.mark.parametrize(
    ("value", "dtype"), [(-1, "uint16"), (65536, "uint16"), (0.5, "uint8"), (float("nan"), "int16")]
)
def test_nodata_out_of_range(value: float, dtype: str) -> None:
    with pytest.raises(BadInput, match="nodata must be a whole number"):
        schema.check_nodata(value, dtype)


def test_an_image_without_crs_or_coordinates() -> None:
    with pytest.raises(BadInput, match="have a CRS"):
        schema.geobox(xr.DataArray(np.zeros((1, 3, 3)), dims=schema.MOSAIC))
    image = mosaic(np.zeros((1, 3, 3)))
    with pytest.raises(BadInput, match="have a 'x' coordinate"):
        schema.geobox(image.drop_vars("x"))
    with pytest.raises(BadInput, match="evenly spaced 'y'"):
        schema.geobox(image.assign_coords(y=[0.0, 1.0, 5.0]))


def test_masks_off_the_grid_are_refused() -> None:
    image = mosaic(np.zeros((1, 6, 6), "uint8"))
    schema.on_grid(image, image, "mask", "image")
    with pytest.raises(BadInput, match=r"mask must lie on the grid of image, 6 x 6 px of 10 .* Got 5 x 6 px"):
        schema.on_grid(image[:, 1:], image, "mask", "image")
    shifted = image.assign_coords(x=image.x + 4)
    with pytest.raises(BadInput, match="mask must lie on the grid"):
        schema.on_grid(shifted, image, "mask", "image")


@given(st.lists(st.floats(0, 1, width=32) | st.just(float("nan")), min_size=1, max_size=50))
def test_scores_survive_their_storage(values: list[float]) -> None:
    probability = np.array(values, "float32")
    stored = schema.encode_scores_block(probability, "uint8")
    back = schema.decode_scores_block(stored)
    assert (np.isnan(back) == np.isnan(probability)).all()
    known = ~np.isnan(probability)
    assert np.abs(back[known] - probability[known]).max(initial=0) <= 0.5 / schema.SCORE_STEPS + 1e-6
    assert (schema.encode_scores_block(back, "uint8") == stored).all()
    assert schema.encode_scores_block(probability, "float32") is probability
