"""Dask layers that make no task before it is asked for."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from lsdask import graphs


@st.composite
def cubes(draw):
    """A cube (time, y, x) in chunks of any sizes, and steps to take."""
    times = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    shape = (sum(times), sum(sizes), 5)
    values = np.arange(np.prod(shape)).reshape(shape)
    steps = draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=6))
    return da.from_array(values, chunks=(tuple(times), tuple(sizes), (2, 3))), values, steps


@given(cubes())
def test_take_is_what_numpy_takes(case):
    cube, values, steps = case
    taken = graphs.take(cube, steps)
    assert taken.chunks[0] == (1,) * len(steps)
    np.testing.assert_array_equal(taken.compute(scheduler="sync"), values[steps])
    np.testing.assert_array_equal(taken[:, 1:].compute(scheduler="sync"), values[steps][:, 1:])


@given(cubes(), st.integers(1, 3))
def test_stack_is_what_numpy_stacks(case, count):
    cube, values, _ = case
    made = graphs.stack([cube + i for i in range(count)])
    np.testing.assert_array_equal(made.compute(scheduler="sync"), np.stack([values + i for i in range(count)]))


def test_choosing_dates_of_a_continent_plans_nothing():
    cube = da.zeros((100, 1, 32768, 32768), chunks=(1, 1, 512, 512), dtype="uint8")
    taken = graphs.take(cube, range(0, 100, 2))
    layer = taken.dask.layers[taken.name]
    assert not layer.is_materialized()
    part, reads = layer.cull({(taken.name, 3, 0, 9, 9)}, ())
    assert len(part) == 1
    assert reads == {(taken.name, 3, 0, 9, 9): {(cube.name, 6, 0, 9, 9)}}


@pytest.mark.parametrize("lazy", [True, False])
def test_dates_keep_coordinates_and_attributes(lazy):
    cube = xr.DataArray(
        np.arange(24).reshape(4, 1, 2, 3),
        {"time": [10, 20, 30, 40], "band": ["red"], "cloud": ("time", [1, 2, 3, 4])},
        ("time", "band", "y", "x"),
        "cube",
        {"_FillValue": 0},
    )
    given = cube.chunk({"time": 2}) if lazy else cube
    taken = graphs.at_times(given, np.array([3, 1]))
    xr.testing.assert_identical(taken.compute(), cube.isel(time=[3, 1]))
