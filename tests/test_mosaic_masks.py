"""Masks against the tables of those who made them, and against a loop over pixels."""

import dask.array as da
import numpy as np
import pytest
from cubes import GRID, cube_of, random_cube
from hypothesis import given
from hypothesis import strategies as st

from lsdask import mosaic, schema
from lsdask.errors import BadInput


def quality(values, *, chunks=None):
    values = np.asarray(values)
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    return schema.wrap(data, GRID[: values.shape[-2], : values.shape[-1]], ("time", "y", "x"), name="quality")


@pytest.mark.parametrize("chunks", [None, 2])
def test_scl_hides_clouds_shadows_and_what_is_asked(chunks):
    scl = quality(np.arange(12, dtype="uint8").reshape(1, 3, 4), chunks=chunks)
    mask = mosaic.mask_scl(scl)
    assert mask.dtype == bool
    assert isinstance(mask.data, da.Array) == (chunks is not None)
    np.testing.assert_array_equal(np.flatnonzero(mask.values), [2, 4, 5, 6, 7, 11])
    snow = mosaic.mask_scl(scl, hide=["snow", "water"])
    np.testing.assert_array_equal(np.flatnonzero(~snow.values), [6, 11])


def test_qa_reads_bits_of_both_collections():
    # Values and their meaning from the USGS tables of QA_PIXEL (2: Landsat 8-9) and BQA (1: Landsat 8).
    second = {
        1: "fill",
        21824: "clear",
        21826: "dilated",
        22280: "cloud",
        23888: "shadow",
        30048: "snow",
        54596: "cirrus",
    }
    qa = quality(np.array([[list(second)]], "uint16"), chunks=2)
    clear = [name in ("clear", "snow") for name in second.values()]
    np.testing.assert_array_equal(mosaic.mask_qa(qa).values[0, 0], clear)
    snowless = mosaic.mask_qa(qa, hide=["snow"]).values[0, 0]
    np.testing.assert_array_equal(snowless, [name != "snow" for name in second.values()])
    first = {1: "fill", 2720: "clear", 2800: "cloud", 2976: "shadow", 3744: "snow", 6816: "cirrus"}
    qa = quality(np.array([[list(first)]], "uint16"))
    hide = ["fill", "cloud", "cloud_shadow", "cirrus", "snow"]
    mask = mosaic.mask_qa(qa, hide=hide, bits=mosaic.BQA)
    np.testing.assert_array_equal(mask.values[0, 0], [name == "clear" for name in first.values()])


def test_a_quality_band_of_a_cube_masks_that_cube():
    cube = cube_of(random_cube(1, (3, 2, 6, 6), "uint8", void=0), nodata=0, chunks=(1, 2, 3, 3))
    scl = cube_of(np.full((3, 1, 6, 6), 4, "uint8"), nodata=None, chunks=(1, 1, 3, 3)).copy()
    scl[0] = 9
    image = mosaic.composite(cube, mask=mosaic.mask_scl(scl))
    np.testing.assert_array_equal(image.values, cube.values[1])


@given(
    pixels=st.sampled_from([0, 1, 3, 5, 20]),
    chunks=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.0, 0.03, 0.3, 1.0]),
)
def test_growing_hides_all_within_the_distance_at_any_chunk(pixels, chunks, seed, share):
    hidden = np.random.default_rng(seed).random((2, 9, 11)) < share
    near = np.zeros_like(hidden)
    for time, y, x in np.argwhere(hidden):
        dy, dx = np.ogrid[-y : 9 - y, -x : 11 - x]
        near[time] |= dy**2 + dx**2 <= pixels**2
    for data in (~hidden, da.from_array(~hidden, chunks=chunks)):
        mask = quality(np.zeros((2, 9, 11), "uint8")).copy(data=data)
        grown = mosaic.grow(mask, pixels)
        np.testing.assert_array_equal(grown.compute(scheduler="synchronous").values, ~near)
        assert grown.chunks == mask.chunks


def test_masks_say_what_is_wrong():
    scl = quality(np.zeros((1, 2, 2), "uint8"))
    for call, rule in (
        (lambda: mosaic.mask_scl(scl, hide=["clouds"]), "hide must hold some of no_data, defective"),
        (lambda: mosaic.mask_qa(scl, bits=mosaic.BQA), "hide must hold some of fill, cloud, cloud_shadow"),
        (lambda: mosaic.mask_scl(scl.astype("float32")), "scl must be a DataArray of integers"),
        (lambda: mosaic.mask_scl(scl.expand_dims(band=2, axis=1)), "scl must have one band. Got 2"),
        (lambda: mosaic.grow(scl, 1), "mask must be a DataArray of bool"),
        (lambda: mosaic.grow(scl > 0, -1), "pixels must not be negative"),
    ):
        with pytest.raises(BadInput, match=rule):
            call()
