"""Augmentation: the mask moves exactly as the image does, void stays void, and every draw is seeded."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torchvision.transforms import functional as tv

from lsdask.augment import (
    SOARES,
    Augment,
    Change,
    affine_block,
    fixed_block,
    gamma_block,
    garcia,
    radiometry_block,
    sharpness_block,
    symmetry_block,
)
from lsdask.errors import BadInput

NONE = Augment(flips=False, turns=False, brightness=0, contrast=0)
MEAN, STD = torch.tensor([10.0, 50.0, 200.0]).view(3, 1, 1), torch.tensor([2.0, 5.0, 40.0]).view(3, 1, 1)


def batch(seed: int, n: int = 6, side: int = 12, void: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 1, (n, 3, side, side)).astype("float32") * STD.numpy() + MEAN.numpy()
    mask = rng.integers(0, 2, (n, side, side)).astype("uint8")
    mask[rng.random(mask.shape) < void] = 255
    image[:, 0][mask == 255] = np.nan
    return torch.from_numpy(image), torch.from_numpy(mask)


def change(how: Augment, image: torch.Tensor, mask: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return how(image, mask, generator=torch.Generator().manual_seed(seed), mean=MEAN, std=STD)


@given(st.integers(0, 7), st.integers(0, 99))
def test_a_symmetry_is_numpy_s(which, seed):
    image, mask = batch(seed, n=2)
    for tiles in (image, mask):
        expected = tiles.numpy()[..., ::-1] if which >= 4 else tiles.numpy()
        expected = np.rot90(expected, which % 4, (-2, -1))
        np.testing.assert_array_equal(symmetry_block(tiles, torch.tensor([which, which])).numpy(), expected)


@given(st.integers(0, 2**31 - 1), st.booleans(), st.booleans())
def test_flips_and_turns_move_pixels_and_labels_alike(seed, flips, turns):
    image, mask = batch(seed % 100)
    image[:, 1] = mask  # a band that is the mask
    moved, labels = change(Augment(flips=flips, turns=turns, brightness=0, contrast=0), image, mask, seed)
    assert torch.equal(moved[:, 1], labels.float())
    assert torch.equal(torch.isnan(moved[:, 0]), labels == 255)
    for before, after in zip(image, moved):
        assert sorted(before.flatten().nan_to_num().tolist()) == sorted(after.flatten().nan_to_num().tolist())


def test_all_eight_symmetries_come_about_equally_often():
    image = torch.arange(9.0).view(1, 1, 3, 3).expand(800, 3, 3, 3)
    moved, _ = change(Augment(brightness=0, contrast=0), image, image[:, 0].to(torch.uint8))
    _, times = np.unique(moved[:, 0].reshape(800, 9).numpy(), axis=0, return_counts=True)
    assert len(times) == 8
    assert times.min() > 60
    oblong, _ = change(
        Augment(turns=False, brightness=0, contrast=0), image[..., :2], image[:, 0, :, :2].to(torch.uint8)
    )
    assert len(np.unique(oblong[:, 0].reshape(800, 6).numpy(), axis=0)) == 4


def affine(image, mask, degrees, scale, lean):
    """Change a tile as ``affine_block`` does, by numbers."""
    angle, factor, shear = (torch.tensor([float(value)]) for value in (np.radians(degrees), scale, np.radians(lean)))
    return affine_block(image, mask, angle, factor, shear)


@given(st.integers(0, 99), st.floats(-180, 180), st.floats(0.5, 2), st.floats(-45, 45))
def test_a_free_turn_takes_the_label_of_the_pixel_it_takes(seed, degrees, scale, lean):
    image, mask = batch(seed, n=1)
    mask = mask[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2)
    image[:, 0] = torch.where(mask == 255, torch.tensor(float("nan")), torch.tensor(1.0))
    image[:, 1] = mask
    moved, labels = affine(image, mask, degrees, scale, lean)
    pure = ~torch.isnan(moved[:, 1]) & ((moved[:, 1] - moved[:, 1].round()).abs() < 1e-6)
    # Where all four neighbours have one label, the nearest has it too.
    agree = (moved[:, 1].round() == labels.float()) | ~torch.isin(moved[:, 1].round(), torch.tensor([0.0, 1.0]))
    assert agree[pure].all()
    assert torch.isin(labels, torch.tensor([0, 1, 255], dtype=torch.uint8)).all()
    void = torch.isnan(moved).any(1)
    assert torch.equal(void, labels == 255)  # as a stream's masks are


@given(st.sampled_from([(21, 21), (15, 27), (26, 14)]), st.floats(-180, 180), st.floats(0.6, 1.6), st.floats(-45, 45))
def test_a_free_change_of_image_and_mask_is_scipy_s(shape, degrees, scale, lean):
    rng = np.random.default_rng(0)
    field, truth = rng.normal(size=shape).astype("float32"), rng.integers(0, 3, shape).astype("uint8")
    # Counterclockwise as one looks at it, y down: where a pixel of the result comes from, as (y, x).
    turn, slide = np.radians(degrees), np.tan(np.radians(lean))
    turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) / scale
    matrix = turned @ np.array([[1, 0], [slide, 1]])
    centre = (np.array(shape) - 1) / 2
    places = np.einsum("ij,jyx->iyx", matrix, np.indices(shape) - centre[:, None, None]) + centre[:, None, None]
    expected, nearest = (ndimage.map_coordinates(plane, places, order=order, cval=-9, mode="constant")
                         for plane, order in ((field, 1), (truth.astype("int16"), 0)))  # fmt: skip
    got, labels = affine(torch.from_numpy(field)[None, None], torch.from_numpy(truth)[None], degrees, scale, lean)
    within = ((places > 1e-3) & (places < np.array(shape)[:, None, None] - 1 - 1e-3)).all(axis=0)
    np.testing.assert_allclose(got[0, 0].numpy()[within], expected[within], atol=2e-4)
    assert within.sum() > 0.2 * field.size
    sure = within & (np.abs(places % 1 - 0.5) > 1e-3).all(axis=0)  # not half-way between two pixels
    np.testing.assert_array_equal(labels[0].numpy()[sure], nearest[sure])
    outside = ((places < -0.51) | (places > np.array(shape)[:, None, None] - 0.49)).any(axis=0)
    assert np.isnan(got[0, 0].numpy()[outside]).all()
    assert (labels[0].numpy()[outside] == 255).all()


def test_turn_zoom_and_lean_are_drawn_apart_and_evenly_up_to_what_is_asked_for():
    y, x = np.indices((15, 15)) - 7.0
    image = torch.from_numpy(np.stack([x, y, x]).astype("float32")).expand(400, 3, 15, 15)
    how = Augment(flips=False, turns=False, brightness=0, contrast=0, rotate=30, zoom=1.5, shear=20)
    moved, _ = change(how, image, torch.zeros(400, 15, 15, dtype=torch.uint8))
    # Where the pixels to the right of the middle and below it come from: the columns of the matrix back.
    to_x, to_y = ((moved[:, :2, 7 + down, 7 + right]).numpy() for down, right in ((0, 1), (1, 0)))
    angle, scale = np.degrees(np.arctan2(to_x[:, 1], to_x[:, 0])), 1 / np.hypot(*to_x.T)
    upright = np.stack([-to_x[:, 1], to_x[:, 0]], axis=1)
    lean = np.degrees(np.arctan(((to_y - upright) * to_x).sum(1) * scale**2))
    drawn = np.stack([angle / 30, np.log(scale) / np.log(1.5), lean / 20])
    assert np.abs(drawn).max() <= 1 + 1e-3
    np.testing.assert_allclose(
        np.quantile(drawn, [0.05, 0.5, 0.95], axis=1), [[-0.9] * 3, [0] * 3, [0.9] * 3], atol=0.2
    )
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 0.2


def test_a_free_turn_goes_round_as_a_symmetry_does_and_leaning_goes_to_the_right():
    image, mask = batch(8, n=1, void=0.0)
    turned, labels = affine(image, mask, 90, 1, 0)
    torch.testing.assert_close(turned, symmetry_block(image, torch.tensor([1])))
    assert torch.equal(labels, symmetry_block(mask, torch.tensor([1])))
    column = torch.zeros(1, 9, 9, dtype=torch.uint8)
    column[:, :, 4] = 1
    _, leaning = affine(image[..., :9, :9], column, 0, 1, 45)
    np.testing.assert_array_equal(leaning[0].numpy() == 1, np.eye(9, dtype=bool)[:, ::-1])


@given(st.integers(0, 2**31 - 1))
def test_radiometry_leaves_void_and_mask_alone_and_is_linear_in_each_band(seed):
    image, mask = batch(3)
    moved, labels = change(Augment(flips=False, turns=False, brightness=0.3, contrast=0.3), image, mask, seed)
    assert torch.equal(labels, mask)
    assert torch.equal(torch.isnan(moved), torch.isnan(image))
    for tile in range(len(image)):
        before, after = ((each[tile] - MEAN) / STD for each in (image, moved))
        known = ~torch.isnan(before)
        slope, shift = np.polyfit(before[known].numpy(), after[known].numpy(), 1)
        np.testing.assert_allclose(after[known], slope * before[known] + shift, atol=1e-3)
        assert abs(np.log(slope)) <= 0.3 + 1e-3
        assert abs(shift) <= 0.3 + 1e-3


def test_groups_are_drawn_apart_and_bands_of_no_group_keep_their_values():
    image, mask = batch(5, void=0.0)
    how = Augment(flips=False, turns=False, brightness=0.5, contrast=0, noise=0.2, groups=((0,), (2,)))
    moved, _ = change(how, image, mask)
    assert torch.equal(moved[:, 1], image[:, 1])
    shifts = ((moved - image) / STD).mean((2, 3))
    assert (shifts[:, 0] - shifts[:, 2]).abs().min() > 1e-3
    assert min(len(shifts[:, band].round(decimals=2).unique()) for band in (0, 2)) == len(image)  # a draw a tile
    assert 0.35 < shifts.abs().max() < 0.55
    noise = ((moved - image) / STD)[:, 0]
    assert noise.std((1, 2)).mean().item() == pytest.approx(0.2, rel=0.1)


def test_a_dropped_band_is_void_in_its_tile_only():
    image, mask = batch(5, n=200, side=4, void=0.0)
    how = Augment(flips=False, turns=False, brightness=0, contrast=0, drop=0.3, groups=((0, 1),))
    moved, labels = change(how, image, mask)
    gone = torch.isnan(moved)
    assert torch.equal(gone.all((2, 3)), gone.any((2, 3)))
    assert not gone[:, 2].any()
    assert 0.2 < gone[:, :2].float().mean() < 0.4
    assert torch.equal(labels, mask)


def test_the_same_generator_gives_the_same_batch_and_nothing_asked_for_changes_nothing():
    image, mask = batch(1)
    how = Augment(rotate=20, zoom=1.2, noise=0.1, drop=0.1)
    one, same, other = (change(how, image, mask, seed) for seed in (1, 1, 2))
    assert torch.equal(one[0].nan_to_num(), same[0].nan_to_num())
    assert torch.equal(one[1], same[1])
    assert not torch.equal(one[0].nan_to_num(), other[0].nan_to_num())
    same = change(NONE, image, mask)
    assert torch.equal(same[0].nan_to_num(), image.nan_to_num())
    assert torch.equal(same[1], mask)


def test_no_shift_and_no_stretch_keep_every_bit():
    image, _ = batch(2)
    none = torch.zeros(len(image), 3, 1, 1)
    assert torch.equal(radiometry_block(image, none, none, MEAN, STD).nan_to_num(), image.nan_to_num())


ALL = {"brightness": 0.4, "contrast": 0.4, "gamma": 0.4, "sharpness": 0.9, "noise": 0.2, "drop": 0.2}


@given(
    seed=st.integers(0, 2**31 - 1),
    rotate=st.sampled_from([0.0, 25.0, 180.0]),
    zoom=st.sampled_from([1.0, 1.5]),
    shear=st.sampled_from([0.0, 20.0]),
    flips=st.booleans(),
    turns=st.booleans(),
)
def test_the_mask_goes_where_the_image_goes_whatever_is_asked_for(seed, rotate, zoom, shear, flips, turns):
    image, _ = batch(seed % 100, side=16, void=0.0)
    # A dem that is the mask, in squares of 8 px, whose middles keep their value when turned.
    mask = torch.randint(0, 2, (6, 2, 2), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    mask = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)
    image[:, 1] = mask
    how = Augment(flips=flips, turns=turns, rotate=rotate, zoom=zoom, shear=shear, groups=((0,), (2,)), **ALL)
    moved, labels = change(how, image, mask, seed)
    heights = moved[:, 1]
    pure = (heights - heights.round()).abs() < 1e-6
    assert torch.equal(heights[pure].round(), labels[pure].float())
    assert ((labels == 255) <= torch.isnan(heights)).all()  # what is unknown came from outside, and is void
    assert pure.float().mean() > 0.15
    if not rotate and zoom == 1 and not shear:
        assert pure.all()


@given(st.integers(0, 2**31 - 1))
def test_light_is_drawn_for_each_date_and_heights_have_none(seed):
    bands = ["pre_red", "dem", "post_red"]
    how = Augment.for_bands(bands, flips=False, turns=False, **{**ALL, "noise": 0.0, "drop": 0.0})
    assert how.groups == ((0,), (2,))
    image, mask = batch(7, side=16)
    image[:, 2] = (image[:, 0] - MEAN[0]) / STD[0] * STD[2] + MEAN[2]  # the same picture twice
    moved, labels = change(how, image, mask, seed)
    assert torch.equal(moved[:, 1], image[:, 1])
    assert torch.equal(labels, mask)
    assert torch.equal(torch.isnan(moved), torch.isnan(image))
    before, after = ((moved[:, place] - MEAN[place]) / STD[place] for place in (0, 2))
    for tile in range(len(image)):
        assert (before[tile] - after[tile]).nan_to_num().abs().max() > 1e-3


def test_heights_keep_every_bit_whatever_is_asked_for_and_a_model_of_heights_alone_too():
    image, mask = batch(2)
    for bands in (["pre_x", "dem", "slope"], ["pre_elevation", "dem", "hillshade"]):
        how = Augment.for_bands(bands, flips=False, turns=False, **ALL)
        moved, _ = change(how, image, mask)
        kept = [place for place in range(3) if place not in [band for group in how.groups for band in group]]
        assert kept == ([1, 2] if bands[0] == "pre_x" else [0, 1, 2])
        assert torch.equal(moved[:, kept].nan_to_num(), image[:, kept].nan_to_num())
        assert torch.equal(torch.isnan(moved[:, kept]), torch.isnan(image[:, kept]))
    assert Augment.for_bands(["red", "post_red", "nir", "pre_red"]).groups == ((0, 2), (1,), (3,))


@given(st.integers(0, 99), st.floats(-1, 1))
def test_gamma_is_torchvision_s_within_the_span(seed, bend):
    image, _ = batch(seed)
    got = gamma_block(image, torch.full((6, 3, 1, 1), bend), MEAN, STD)
    low, span = MEAN - 3 * STD, 6 * STD
    share = (image - low) / span
    expected = tv.adjust_gamma(share.clamp(0, 1), float(np.exp(bend))) * span + low
    inside = (share > 0) & (share < 1)
    torch.testing.assert_close(got[inside], expected[inside], rtol=1e-4, atol=1e-3)
    assert torch.equal(got[~inside].nan_to_num(), image[~inside].nan_to_num())


@given(st.integers(0, 99), st.floats(-1, 1))
def test_sharpness_is_torchvision_s_where_all_is_known(seed, amount):
    shares = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(seed)) * 0.2 + 0.4
    got = sharpness_block(shares, torch.full((2, 3, 1, 1), amount))
    expected = tv.adjust_sharpness(shares, 1 + amount)
    torch.testing.assert_close(got[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=1e-5, atol=1e-5)


def test_void_neither_spreads_nor_takes_part_in_a_blur():
    image = torch.full((1, 1, 5, 5), 7.0)
    image[..., 2, 2] = float("nan")
    for amount in (-1.0, 0.5):
        got = sharpness_block(image, torch.full((1, 1, 1, 1), amount))
        assert torch.equal(torch.isnan(got), torch.isnan(image))
        torch.testing.assert_close(got.nan_to_num(7.0), torch.full((1, 1, 5, 5), 7.0))


def test_garcia_s_list_is_the_paper_s():
    assert len(garcia(30)) * 365 == 10_950
    assert len(garcia(50)) * 365 == 18_250
    assert len(set(garcia(144))) == 144
    assert [change.degrees for change in garcia(30)[::4]] == [0, 10, 20, 30, 40, 50, 60, 70]
    assert garcia(50)[-1] == Change(120.0, down=True)
    assert [(each.down, each.across) for each in garcia(4)] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    with pytest.raises(BadInput, match=r"count must be from 1 to 144\. Got count=145"):
        garcia(145)


def test_soares_s_four_are_each_tile_s_own():
    image, mask = batch(4, void=0.0)
    made = [change(image, mask) for change in SOARES]
    for tiles, which in ((image.numpy(), 0), (mask.numpy(), 1)):
        expected = [tiles, tiles[..., ::-1], tiles[..., ::-1, :], np.rot90(tiles, 1, (-2, -1))]
        for each, wanted in zip(made, expected):
            np.testing.assert_array_equal(each[which].numpy(), wanted)


def test_a_change_turns_then_mirrors_and_leaves_void_outside():
    image, mask = batch(4, side=16, void=0.0)
    turned, labels = Change(20.0)(image, mask)
    both, moved = Change(20.0, down=True, across=True)(image, mask)
    torch.testing.assert_close(both, turned.flip(-1, -2), equal_nan=True)
    assert torch.equal(moved, labels.flip(-1, -2))
    assert (labels[:, 0, 0] == 255).all()
    assert torch.isnan(turned[:, :, 0, 0]).all()
    image[:, 1] = mask
    turned, labels = Change(180.0)(image, mask)
    assert torch.equal(turned[:, 1], labels.float())
    torch.testing.assert_close(turned, image.flip(-1, -2))


def test_each_tile_of_a_batch_is_changed_by_its_own():
    image, mask = batch(6, n=5)
    changes = [*garcia(4), Change(30.0)]
    got, labels = fixed_block(image, mask, changes)
    for i, each in enumerate(changes):
        one, known = each(image[i : i + 1], mask[i : i + 1])
        torch.testing.assert_close(got[i : i + 1], one, equal_nan=True)
        assert torch.equal(labels[i : i + 1], known)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rotate": 270},
        {"zoom": 0.5},
        {"shear": 50},
        {"noise": -1},
        {"gamma": -1},
        {"sharpness": 2.0},
        {"drop": 1.0},
        {"contrast": 5},
    ],
)
def test_bad_magnitudes_are_named(wrong):
    (name,) = wrong
    with pytest.raises(BadInput, match=f"{name} must be from"):
        Augment(**wrong)


def test_oblong_tiles_cannot_be_turned():
    image, mask = batch(0)
    with pytest.raises(BadInput, match=r"be square.*Got 12 x 6 px\. Pass turns=False"):
        change(Augment(), image[..., :6], mask[..., :6])
