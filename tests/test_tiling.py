"""Tiles as integers: what they cover and what their blocks hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsdask import tiling
from lsdask.errors import BadInput

shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
tiles = st.integers(1, 50)
halos = st.integers(0, 60)


@given(shapes, tiles, halos)
def test_write_windows_cover_the_image_once(shape: tuple[int, int], tile: int, halo: int) -> None:
    grid = tiling.grid(shape, tile, halo=halo)
    seen = np.zeros(shape, int)
    for place in grid.places():
        seen[grid[place].write] += 1
    assert (seen == 1).all()
    assert len(list(grid.places())) == len(grid)
    assert sorted(grid.walk()) == list(grid.places())


@given(shapes, tiles, halos, st.sampled_from(["reflect", "edge", "constant"]))
def test_blocks_are_windows_of_the_padded_image(shape: tuple[int, int], tile: int, halo: int, mode: str) -> None:
    image = np.arange(2 * shape[0] * shape[1]).reshape(2, *shape)
    padded = np.pad(image, ((0, 0), (halo, halo), (halo, halo)), mode=mode)
    grid = tiling.grid(shape, tile, halo=halo)
    for place in grid.places():
        one = grid[place]
        edge = "nearest" if mode == "edge" else mode
        block = tiling.extend_block(image[(slice(None), *one.read)], one, edge)
        assert block.shape == (2, *one.block) == (2, tile + 2 * halo, tile + 2 * halo)
        height, width = (side.stop - side.start for side in one.write)
        top, left = one.write[0].start, one.write[1].start
        expected = padded[:, top : top + height + 2 * halo, left : left + width + 2 * halo]
        assert (block[:, : height + 2 * halo, : width + 2 * halo] == expected).all()
        assert (block[(slice(None), *one.keep)] == image[(slice(None), *one.write)]).all()


@given(st.integers(1, 30), st.integers(-200, 200))
def test_reflection_is_numpys(size: int, position: int) -> None:
    padded = np.pad(np.arange(size), 200, mode="reflect")
    inside = tiling.outside_to_inside(np.array([position]), size, "reflect")[0]
    assert inside == padded[position + 200]


def test_a_block_that_is_the_window_is_not_copied() -> None:
    image = np.zeros((1, 30, 30))
    tile = tiling.grid((30, 30), 10, halo=5)[1, 1]
    window = image[(slice(None), *tile.read)]
    assert tiling.extend_block(window, tile) is window


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(((0, 5), 4, 0), "shape"), (((5, 5), 0, 0), "tile"), (((5, 5), 4, -1), "halo"), (((5, 5), 2.5, 0), "tile")],
)
def test_sizes_that_are_none(arguments: tuple, named: str) -> None:
    shape, tile, halo = arguments
    with pytest.raises(BadInput, match=rf"^{named} must be whole"):
        tiling.grid(shape, (tile, tile), halo=halo)


def test_unknown_edge() -> None:
    with pytest.raises(BadInput, match="edge must be"):
        tiling.outside_to_inside(np.arange(3), 2, "wrap")  # type: ignore[arg-type]
