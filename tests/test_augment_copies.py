"""Fixed lists of changes: how many, which, and that mask and image move alike."""

import numpy as np
import pytest
import torch
import xarray as xr

from lsdask import sampling
from lsdask.augment import SOARES, Change, Copies, fixed_block, garcia
from lsdask.errors import BadInput


def test_the_lists_are_those_of_the_papers():
    assert (365 * len(garcia(30)), 365 * len(garcia(50))) == (10_950, 18_250)
    assert len({change.degrees for change in garcia(30)}) == 8
    assert len({change.degrees for change in garcia(50)}) == 13
    assert len(set(garcia(50))) == 50
    assert garcia(4) == (
        Change(0, False, False),
        Change(0, True, False),
        Change(0, False, True),
        Change(0, True, True),
    )
    # Soares et al., table 2: four copies of what is left when 30 % are held out.
    for n, augmented in zip((3541, 2264, 1565, 1740, 2368, 3653), (9912, 6336, 4380, 4872, 6628, 10228)):
        assert len(SOARES) * (n - int(np.ceil(0.3 * n))) == augmented


def numpy_change(tile, change):
    """Change a tile by quarter turns and flips, with numpy alone."""
    tile = np.rot90(tile, int(change.degrees // 90), (-2, -1))
    tile = np.flip(tile, -2) if change.down else tile
    return np.flip(tile, -1) if change.across else tile


EXACT = [Change(degrees, v, h) for degrees in (0, 90, 180, 270) for v in (False, True) for h in (False, True)]


def test_quarter_turns_and_flips_are_numpys():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(len(EXACT), 2, 6, 6)).astype("float32")
    mask = rng.integers(0, 2, (len(EXACT), 6, 6)).astype("uint8")
    got, moved = fixed_block(torch.from_numpy(image), torch.from_numpy(mask), EXACT)
    for i, change in enumerate(EXACT):
        np.testing.assert_array_equal(got[i], numpy_change(image[i], change))
        np.testing.assert_array_equal(moved[i], numpy_change(mask[i], change))


def test_mask_moves_as_the_image_and_the_outside_is_unknown():
    mask = torch.zeros((50, 32, 32), dtype=torch.uint8)
    mask[:, 6:20, 9:27] = 1
    image = mask[:, None].float()
    got, moved = fixed_block(image, mask, garcia(50))
    known = moved != 255
    assert bool((torch.isnan(got[:, 0]) | known).all())  # a pixel with data has a label
    sure = known & ~torch.isnan(got[:, 0]) & ((got[:, 0] < 0.01) | (got[:, 0] > 0.99))
    assert bool((moved[sure] == got[:, 0][sure].round().byte()).all())
    corners = [change.degrees % 90 != 0 for change in garcia(50)]
    assert torch.equal(torch.isnan(got[:, 0, 0, 0]), torch.tensor(corners))


def image_and_mask():
    rng = np.random.default_rng(1)
    image = xr.DataArray(rng.integers(1, 1000, (3, 96, 96)).astype("uint16"), dims=("band", "y", "x"))
    mask = xr.DataArray((image.values[0] > 500).astype("uint8"), dims=("y", "x"))
    return image, mask


@pytest.mark.parametrize("batch_size", [5, 32])
def test_every_tile_comes_once_in_every_way(batch_size):
    image, mask = image_and_mask()
    tiles = sampling.grid(image, 32)
    changes = [EXACT[i] for i in (0, 5, 10)]
    stream = Copies(image, tiles, changes, mask=mask, batch_size=batch_size, seed=3)
    given = [(tile, label) for batch in stream for tile, label in zip(batch.image, batch.mask)]
    assert len(given) == 3 * len(tiles)
    windows = [(slice(y, y + 32), slice(x, x + 32)) for y, x in zip(tiles["y"], tiles["x"])]
    expected = {
        (numpy_change(image.values[:, *window], c).tobytes(), numpy_change(mask.values[window], c).tobytes())
        for window in windows
        for c in changes
    }
    assert {(tile.astype("uint16").tobytes(), label.tobytes()) for tile, label in given} == expected
    assert stream.epoch == 1


def test_any_number_of_workers_that_divides_the_lanes_makes_the_same_copies():
    image, mask = image_and_mask()
    stream = Copies(image, sampling.grid(image, 32), SOARES, mask=mask, batch_size=5, seed=3, lanes=4)
    whole = list(stream.batches(1))
    for workers in (2, 4):
        parts = [stream.batches(1, 3, worker=worker, workers=workers) for worker in range(workers)]
        for number, expected in enumerate(whole[3:]):
            got = next(parts[number % workers])
            np.testing.assert_array_equal(got.image, expected.image)
            np.testing.assert_array_equal(got.mask, expected.mask)
        assert all(next(part, None) is None for part in parts)


def test_it_goes_on_and_is_shared_as_other_streams():
    image, mask = image_and_mask()
    tiles = sampling.grid(image, 32)

    def make():
        return Copies(image, tiles, garcia(5), mask=mask, batch_size=4, seed=3)

    whole = list(make())
    first = make()
    begun = iter(first)
    for _ in range(5):
        next(begun)
    state = first.state_dict()
    begun.close()
    second = make()
    second.load_state_dict(state)
    for got, expected in zip(list(second), whole[5:], strict=True):
        np.testing.assert_array_equal(got.image, expected.image)
    parts = [sum(len(batch.image) for batch in make().part(rank, 3)) for rank in range(3)]
    assert sum(parts) == 5 * len(tiles)
    with pytest.raises(BadInput, match="state must be of a stream with changes"):
        Copies(image, tiles, garcia(6)[1:], mask=mask, batch_size=4, seed=3).load_state_dict(state)
    with pytest.raises(BadInput, match="changes must be one or more"):
        Copies(image, tiles, ())
