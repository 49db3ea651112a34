"""Composites against a loop over pixels."""

import dask
import dask.array as da
import numpy as np
import pytest
from cubes import VOID, cube_of, open_tiles, random_cube
from dask._task_spec import Alias
from hypothesis import given
from hypothesis import strategies as st

from lsdask import mosaic, schema
from lsdask.errors import BadInput


def by_pixel(values, shown, method, nodata):
    """Composite pixel by pixel, as one would by hand."""
    image = np.full(values.shape[1:], nodata, values.dtype)
    for y, x in np.ndindex(values.shape[2:]):
        column = values[:, :, y, x]
        known = ~np.isnan(column) if np.isnan(nodata) else column != nodata
        dates = column[known.all(axis=1) & shown[:, y, x]].astype("float64")
        if len(dates):
            reduced = {
                "first": lambda d: d[0],
                "last": lambda d: d[-1],
                "mean": lambda d: d.mean(axis=0),
                "median": lambda d: np.median(d, axis=0),
                "max": lambda d: d.max(axis=0),
                "min": lambda d: d.min(axis=0),
            }[method](dates)
            image[:, y, x] = reduced if values.dtype.kind == "f" else np.rint(reduced)
    return image


@pytest.mark.parametrize("method", mosaic.METHODS)
@given(
    dtype=st.sampled_from(list(VOID)),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(2, 6), st.integers(2, 6)),
    chunks=st.tuples(*[st.integers(1, 7)] * 4),
    masked=st.sampled_from([None, "tyx", "yx"]),
    seed=st.integers(0, 99),
)
def test_composite_equals_a_loop_over_pixels(dtype, method, shape, chunks, masked, seed):
    values = random_cube(seed, shape, dtype)
    cube = cube_of(values, nodata=VOID[dtype], chunks=tuple(np.minimum(chunks, shape)))
    shown = np.random.default_rng(seed + 1).random((shape[0], *shape[2:])) < 0.7
    mask, hidden = None, np.ones_like(shown)
    if masked is not None:
        mask = cube[:, 0].copy(data=da.from_array(shown, chunks=2)).drop_vars("band")
        mask = mask if masked == "tyx" else mask[0]
        hidden = shown if masked == "tyx" else np.broadcast_to(shown[0], shown.shape)
    result = mosaic.composite(cube, method=method, mask=mask)
    expected = by_pixel(values, hidden, method, VOID[dtype])
    got = result.compute(scheduler="synchronous")
    assert isinstance(result.data, da.Array)
    assert (got.dtype, got.dims) == (values.dtype, schema.MOSAIC)
    np.testing.assert_allclose(got.values, expected, rtol=1e-6)
    eager = mosaic.composite(cube.compute(scheduler="synchronous"), method=method, mask=mask)
    np.testing.assert_array_equal(eager.values, got.values)


def test_a_composite_keeps_grid_bands_and_nodata():
    cube = cube_of(random_cube(1, (3, 2, 20, 30), "int16"), nodata=-7, chunks=(1, 1, 8, 8))
    image = mosaic.composite(cube)
    assert schema.geobox(image) == schema.geobox(cube)
    assert schema.bands(image) == ("b0", "b1")
    assert schema.nodata(image) == -7
    assert image.chunks == ((2,), (8, 8, 4), (8, 8, 8, 6))


def test_bands_of_a_pixel_come_from_one_date():
    values = np.array([[[[1]], [[0]]], [[[0]], [[2]]], [[[3]], [[4]]]], "uint8").repeat(2, 2).repeat(2, 3)
    cube = cube_of(values, nodata=0)
    for method in mosaic.METHODS:
        np.testing.assert_array_equal(mosaic.composite(cube, method=method).values[:, 0, 0], [3, 4])


@pytest.mark.parametrize(("dtype", "fill"), [("uint8", 0), ("int16", -32768)])
def test_integers_get_nodata_only_where_a_mask_makes_void(dtype, fill):
    cube = cube_of(np.full((2, 1, 2, 2), 9, dtype), nodata=None)
    assert schema.nodata(mosaic.composite(cube)) is None
    mask = cube[0, 0].drop_vars("band").copy(data=np.array([[True, False], [True, True]]))
    hidden = mosaic.composite(cube, mask=mask)
    assert schema.nodata(hidden) == fill
    np.testing.assert_array_equal(hidden.values[0], [[9, fill], [9, 9]])


def test_bad_cubes_masks_and_methods():
    cube = cube_of(random_cube(1, (3, 2, 8, 8), "uint8"), nodata=0)
    good = cube[:, 0].drop_vars("band") > 0
    with pytest.raises(BadInput, match=r"cube must have dims \('time', 'band', 'y', 'x'\)"):
        mosaic.composite(cube[0])
    with pytest.raises(BadInput, match=r"method must be one of first, last.* Got method='mode'"):
        mosaic.composite(cube, method="mode")
    with pytest.raises(BadInput, match="cube must have at least one time"):
        mosaic.composite(cube[:0])
    with pytest.raises(BadInput, match=r"mask must be bool, True where a pixel is valid. Got dtype=uint8"):
        mosaic.composite(cube, mask=good.astype("uint8"))
    with pytest.raises(BadInput, match=r"mask must have the 3 times of cube. Got 2"):
        mosaic.composite(cube, mask=good[:2])
    with pytest.raises(BadInput, match=r"mask must lie on the grid of cube"):
        mosaic.composite(cube, mask=good[:, 1:])
    with pytest.raises(BadInput, match=r"mask must be an xarray.DataArray"):
        mosaic.composite(cube, mask=good.values)


def test_one_task_a_chunk_once_fused(tmp_path):
    image = mosaic.composite(open_tiles(tmp_path, 4))
    (optimized,) = dask.optimize(image)
    tasks = [task for task in dict(optimized.__dask_graph__()).values() if not isinstance(task, Alias)]
    assert len(tasks) == image.data.npartitions
