"""Tile indices: coverage, counts against numpy, splits that share no pixel."""

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st

from lsdask import sampling
from lsdask.errors import BadInput
from lsdask.sampling import dealing

SIDES = st.integers(1, 60)


def layer(values, *, chunks=None, name="layer"):
    dims = ("y", "x") if values.ndim == 2 else ("band", "y", "x")
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    return xr.DataArray(data, dims=dims, name=name)


def blank(height, width):
    return layer(np.zeros((height, width), dtype="uint8"))


@given(SIDES, SIDES, st.integers(1, 20), st.sampled_from([0.0, 0.2, 0.5, 0.9]))
def test_grid_covers_every_pixel_with_whole_tiles_at_even_steps(height, width, size, overlap):
    size = min(size, height, width)
    tiles = sampling.grid(blank(height, width), size, overlap=overlap)
    seen = np.zeros((height, width), dtype=int)
    for y, x, side in tiles.itertuples(index=False):
        assert seen[y : y + side, x : x + side].shape == (size, size)
        seen[y : y + side, x : x + side] += 1
    assert seen.all()
    step = max(1, round(size * (1 - overlap)))
    for starts in (np.unique(tiles["y"]), np.unique(tiles["x"])):
        assert (np.diff(starts)[:-1] == step).all()
        assert len(starts) < 2 or np.diff(starts)[-1] <= step
    assert list(tiles.dtypes) == ["int64"] * 3
    assert not tiles.duplicated().any()


def test_grid_without_overlap_cuts_a_fitting_image_once():
    assert len(sampling.grid(blank(64, 96), 32)) == 6


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda image: sampling.grid(image, 65), "size must not exceed the image. Got size=65"),
        (lambda image: sampling.random(image, 65, 3, seed=0), "Pass at most 64"),
        (lambda image: sampling.grid(image, 0), "at least 1 pixel"),
        (lambda image: sampling.grid(image, 8, overlap=1.0), "overlap must be a share"),
        (lambda image: sampling.random(image, 8, 0, seed=0), "n must be at least 1"),
        (lambda image: sampling.random(image, 8, 3, seed=-1), "seed must be a whole number, at least 0. Got seed=-1"),
        (lambda image: sampling.split(sampling.grid(image, 8), seed=0.5), "seed must be a whole number"),
        (lambda image: sampling.grid(image.values, 8), "image must be an xarray.DataArray"),
    ],
)
def test_bad_sizes_are_refused(call, words):
    with pytest.raises(BadInput, match=words.replace("(", r"\(")):
        call(blank(64, 80))


def test_random_tiles_lie_inside_reach_the_edges_and_repeat_by_seed():
    tiles = sampling.random(blank(20, 30), 8, 3000, seed=4)
    assert (tiles["y"].min(), tiles["y"].max()) == (0, 12)
    assert (tiles["x"].min(), tiles["x"].max()) == (0, 22)
    pd.testing.assert_frame_equal(tiles, sampling.random(blank(20, 30), 8, 3000, seed=4))
    assert not tiles.equals(sampling.random(blank(20, 30), 8, 3000, seed=5))


def oracle(tiles, mask, valid, labels):
    rows = []
    for y, x, size in tiles[["y", "x", "size"]].itertuples(index=False):
        window = np.s_[y : y + size, x : x + size]
        known = (mask[window] != 255) & valid[window]
        share = np.sum((mask[window] == 1) & known) / known.sum() if known.any() else np.nan
        counts = np.bincount(labels[window].ravel(), minlength=256)[:255]
        rows.append((valid[window].mean(), share, np.argmax(counts) if counts.any() else 255))
    return pd.DataFrame(rows, columns=["valid", "positive", "cluster"]).astype({"cluster": "uint8"})


@given(
    SIDES,
    SIDES,
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(6, 60), st.integers(6, 60)),
    st.tuples(st.integers(6, 60), st.integers(6, 60)),
)
def test_describe_counts_as_numpy_does_under_any_chunks(height, width, seed, chunks, others):
    draw = np.random.default_rng(seed)
    mask = draw.choice([0, 1, 255], (height, width), p=[0.2, 0.2, 0.6]).astype("uint8")
    valid = draw.random((height, width)) < 0.5
    labels = draw.choice([0, 3, 7, 255], (height, width), p=[0.1, 0.1, 0.1, 0.7]).astype("uint8")
    parts = [
        sampling.random(blank(height, width), size, 20, seed=seed)
        for size in draw.integers(1, min(height, width) + 1, 2)
    ]
    tiles = pd.concat(parts, ignore_index=True)
    with dask.config.set(scheduler="synchronous"):
        got = sampling.describe(
            tiles,
            mask=layer(mask, chunks=chunks),
            valid=layer(valid, chunks=others),
            labels=layer(labels),
        )
    pd.testing.assert_frame_equal(got[["valid", "positive", "cluster"]], oracle(tiles, mask, valid, labels))


def test_describe_reads_each_chunk_once_and_only_where_tiles_are():
    read = []

    def load(block_info=None):
        read.append(tuple(block_info[None]["chunk-location"]))
        return np.ones(block_info[None]["chunk-shape"], dtype="uint8")

    mask = xr.DataArray(
        da.map_blocks(load, chunks=((16,) * 4, (16,) * 4), dtype="uint8", meta=np.ones((0, 0), "uint8")),
        dims=("y", "x"),
    )
    tiles = sampling.table([0, 10, 10], [0, 10, 20], 12)
    with dask.config.set(scheduler="synchronous"):
        sampling.describe(tiles, mask=mask)
    assert sorted(read) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_describe_takes_the_image_itself_for_validity():
    image = np.ones((3, 8, 8), dtype="uint16")
    image[1, :4] = 0
    mosaic = layer(image).assign_attrs(_FillValue=np.uint16(0))
    assert sampling.describe(sampling.table([0], [0], 8), valid=mosaic)["valid"].tolist() == [0.5]


def test_describe_refuses_what_it_cannot_count():
    tiles = sampling.table([0], [0], 8)
    with pytest.raises(BadInput, match=r"mask must hold 1 .landslide., 0 .not. and 255 .unknown.. Got 2"):
        sampling.describe(tiles, mask=layer(np.full((8, 8), 2, dtype="uint8")))
    with pytest.raises(BadInput, match=r"lie inside the image of 6 x 9 px. Got tile 0 .y=0, x=0, size=8."):
        sampling.describe(tiles, mask=blank(6, 9))
    with pytest.raises(BadInput, match="at least one of valid, mask, labels"):
        sampling.describe(tiles)
    with pytest.raises(BadInput, match=r"labels must be uint8. Got int64"):
        sampling.describe(tiles, labels=blank(8, 8).astype("int64"))
    with pytest.raises(BadInput, match="have one shape"):
        sampling.describe(tiles, mask=blank(8, 8), labels=blank(9, 9))
    with pytest.raises(BadInput, match="hold at least one tile"):
        sampling.describe(tiles[:0], mask=blank(8, 8))
    with pytest.raises(BadInput, match="have the column 'size'"):
        sampling.describe(tiles[["y", "x"]], mask=blank(8, 8))


def test_select_keeps_tiles_within_limits_and_drops_unknown_ones():
    tiles = sampling.table([0, 1, 2, 3], [0] * 4, 8).assign(valid=[1.0, 0.4, 1, 1], positive=[0.1, 0.5, 0, np.nan])
    assert sampling.select(tiles, min_valid=0.5)["y"].tolist() == [0, 2, 3]
    assert sampling.select(tiles, min_positive=0)["y"].tolist() == [0, 1, 2]
    assert sampling.select(tiles, max_positive=0.2, min_valid=0.5)["y"].tolist() == [0, 2]
    with pytest.raises(BadInput, match=r"have the column 'valid'.*Make it with sampling.describe"):
        sampling.select(tiles.drop(columns="valid"), min_valid=0.5)


@given(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=4, max_size=80), st.integers(0, 9))
def test_balance_draws_clusters_down_to_the_smallest_or_the_mean(clusters, seed):
    tiles = sampling.table(np.arange(len(clusters)), np.zeros(len(clusters)), 8)
    tiles["cluster"] = np.array(clusters, dtype="uint8")
    sizes = tiles["cluster"][tiles["cluster"] != 255].value_counts()
    if len(sizes) < 2:
        with pytest.raises(BadInput, match="two or more groups"):
            sampling.balance(tiles, by="cluster", seed=seed)
        return
    for how, most in (("smallest", sizes.min()), ("mean", int(sizes.mean()))):
        got = sampling.balance(tiles, by="cluster", how=how, seed=seed)
        assert got["cluster"].value_counts().to_dict() == np.minimum(sizes, most).to_dict()
        assert got["y"].is_monotonic_increasing
        assert got["y"].is_unique
        pd.testing.assert_frame_equal(got, sampling.balance(tiles, by="cluster", how=how, seed=seed))


@given(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=4, max_size=80), st.integers(0, 9))
def test_balance_repeats_the_tiles_of_rarer_clusters_evenly(clusters, seed):
    tiles = sampling.table(np.arange(len(clusters)), np.zeros(len(clusters)), 8)
    tiles["cluster"] = np.array(clusters, dtype="uint8")
    known = tiles[tiles["cluster"] != 255]
    sizes = known["cluster"].value_counts()
    assume(len(sizes) > 1)
    got = sampling.balance(tiles, by="cluster", how="oversample", seed=seed)
    assert got["cluster"].value_counts().to_dict() == dict.fromkeys(sizes.index, sizes.max())
    times = got["y"].value_counts()
    assert set(times.index) == set(known["y"])
    for _, of_cluster in known.groupby("cluster"):
        often = times[of_cluster["y"]]
        assert often.max() - often.min() <= 1
    assert got["y"].is_monotonic_increasing
    # Tables put together by hand have an index that repeats.
    again = sampling.balance(tiles.set_axis(np.arange(len(tiles)) % 3), by="cluster", how="oversample", seed=seed)
    pd.testing.assert_frame_equal(got, again)


def test_balance_knows_three_ways():
    with pytest.raises(BadInput, match="how must be one of smallest, mean, oversample"):
        sampling.balance(sampling.table([0], [0], 8).assign(positive=0.0), how="largest")


def test_balance_by_positive_leaves_as_many_without_as_with():
    tiles = sampling.table(np.arange(100), np.zeros(100), 8).assign(positive=[0.2] * 9 + [0.0] * 90 + [np.nan])
    got = sampling.balance(tiles)
    assert ((got["positive"] > 0).sum(), len(got)) == (9, 18)


def painted(tiles, buffer, shape):
    """Which splits see each pixel: bits 1, 2, 4."""
    seen = np.zeros(shape, dtype=int)
    for y, x, size, side in tiles[["y", "x", "size", "split"]].itertuples(index=False):
        if side != "none":
            window = np.s_[max(y - buffer, 0) : y + size + buffer, max(x - buffer, 0) : x + size + buffer]
            seen[window] |= 1 << sampling.SPLITS.index(side)
    return seen


@given(
    st.integers(30, 90),
    st.integers(30, 90),
    st.integers(2, 8),
    st.integers(0, 5),
    st.sampled_from([None, "east", "west", "north", "south", (5, 5, 22, 27)]),
    st.integers(0, 99),
)
def test_no_pixel_is_seen_by_two_splits(height, width, size, buffer, test, seed):
    image = blank(height, width)
    tiles = pd.concat([sampling.grid(image, size, overlap=0.5), sampling.random(image, size + 2, 9, seed=seed)])
    tiles = tiles.reset_index(drop=True)
    try:
        got = sampling.split(tiles, fractions=(0.5, 0.2, 0.3), block=16, buffer=buffer, test=test, seed=seed)
    except BadInput as error:
        assert "be enough, and far enough apart, for every side" in str(error)  # noqa: PT017
        return
    assert set(np.unique(painted(got, buffer, (height + 9, width + 9)))) <= {0, 1, 2, 4}
    sampling.check_split(got, buffer=buffer)
    pd.testing.assert_frame_equal(got.drop(columns="split"), tiles)


@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_check_split_agrees_with_painting_the_pixels(seed, buffer):
    draw = np.random.default_rng(seed)
    tiles = sampling.table(draw.integers(0, 40, 8), draw.integers(0, 40, 8), 6)
    tiles["split"] = draw.choice(["train", "valid", "test", "none"], 8)
    bits = painted(tiles.assign(y=tiles["y"] + buffer, x=tiles["x"] + buffer), buffer, (60, 60))
    if set(np.unique(bits)) <= {0, 1, 2, 4}:
        sampling.check_split(tiles, buffer=buffer)
    else:
        with pytest.raises(
            BadInput, match=r"not be seen by two splits. Got (train|valid) tile .* and (valid|test) tile"
        ):
            sampling.check_split(tiles, buffer=buffer)


def test_split_gives_each_side_its_share_of_tiles_and_of_landslides():
    image = blank(2048, 2048)
    tiles = sampling.grid(image, 32).assign(positive=0.0)
    tiles.loc[(tiles["y"] < 1024) & (tiles["x"] < 1024), "positive"] = 0.1
    got = sampling.split(tiles, fractions=(0.6, 0.2, 0.2), block=128, seed=3)
    share = got["split"].value_counts(normalize=True)
    assert np.allclose(share[["train", "valid", "test"]], [0.6, 0.2, 0.2], atol=0.06)
    share = got.loc[got["positive"] > 0, "split"].value_counts(normalize=True)
    assert np.allclose(share[["train", "valid", "test"]], [0.6, 0.2, 0.2], atol=0.12)


def test_split_by_seed_is_the_same_and_another_by_another():
    tiles = sampling.grid(blank(512, 512), 16)
    first = sampling.split(tiles, block=64, seed=1)
    pd.testing.assert_frame_equal(first, sampling.split(tiles, block=64, seed=1))
    assert not first.equals(sampling.split(tiles, block=64, seed=2))


def test_split_holds_out_the_east():
    tiles = sampling.grid(blank(256, 512), 16)
    got = sampling.split(tiles, fractions=(0.5, 0.25, 0.25), test="east", block=32, seed=1)
    assert (got["x"][got["split"] == "test"].min(), (got["split"] == "test").mean()) == (384, 0.25)
    assert (got["x"] + 16)[got["split"].isin(["train", "valid"])].max() <= 384


@given(st.integers(2, 6), st.integers(0, 6), st.integers(0, 99))
def test_folds_share_no_pixel_and_each_is_the_test_once(k, buffer, seed):
    tiles = sampling.grid(blank(300, 300), 10, overlap=0.3)
    got = sampling.folds(tiles, k, block=50, buffer=buffer, seed=seed)
    sizes = got["fold"][got["fold"] >= 0].value_counts()
    assert sorted(sizes.index) == list(range(k))
    assert sizes.max() < 2 * sizes.min() + 40
    tested = np.zeros(len(tiles), dtype=int)
    for fold in range(k):
        sides = sampling.as_split(got, fold)
        sampling.check_split(sides, buffer=buffer)
        assert set(np.unique(painted(sides, buffer, (320, 320)))) <= {0, 1, 2, 4}
        assert ((sides["split"] == "none") == (got["fold"] < 0)).all()
        assert ("valid" in set(sides["split"])) == (k > 2)
        tested += sides["split"] == "test"
    assert (tested == (got["fold"] >= 0)).all()


def test_folds_refuse_what_they_cannot_deal():
    tiles = sampling.grid(blank(64, 64), 16)
    with pytest.raises(BadInput, match=r"no tile for 1, 2. Pass a smaller block"):
        sampling.folds(tiles, 3, block=64)
    with pytest.raises(BadInput, match="k must be at least 2"):
        sampling.folds(tiles, 1)
    with pytest.raises(BadInput, match=r"Make it with sampling.folds"):
        sampling.as_split(tiles, 0)
    with pytest.raises(BadInput, match="fold must be from 0 to 1"):
        sampling.as_split(sampling.folds(tiles, 2, block=16), 2)


def test_split_refuses_what_it_cannot_divide():
    tiles = sampling.grid(blank(64, 64), 16)
    with pytest.raises(BadInput, match=r"no tile for valid, test. Pass a smaller block"):
        sampling.split(tiles, block=64)
    with pytest.raises(BadInput, match="sum to 1"):
        sampling.split(tiles, fractions=(0.7, 0.2, 0.2))
    with pytest.raises(BadInput, match="test must be one of"):
        sampling.split(tiles, test="up")
    with pytest.raises(BadInput, match="give the test a share"):
        sampling.split(tiles, fractions=(0.7, 0.3, 0.0), test="east")
    with pytest.raises(BadInput, match=r"Make it with sampling.split"):
        sampling.check_split(tiles)


def test_a_table_goes_through_parquet_unchanged(tmp_path):
    tiles = sampling.grid(blank(64, 64), 16)
    tiles = sampling.split(sampling.describe(tiles, mask=blank(64, 64), labels=blank(64, 64)), block=16, seed=1)
    tiles.to_parquet(tmp_path / "tiles.parquet", index=False)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "tiles.parquet"), tiles)


def test_blocks_are_dealt_by_what_they_hold():
    """A few blocks hold most landslides: dealt by number alone, a split has its share of them only by luck."""
    wanted = np.array([0.6, 0.2, 0.2])
    off = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        landslides = draw.lognormal(sigma=1.5, size=300)
        side = dealing.deal(np.stack([np.ones(300), landslides], axis=1), wanted, draw)
        got = np.bincount(side, landslides, 3) / landslides.sum() + np.bincount(side, minlength=3) / 300
        off.append(np.abs(got / 2 - wanted).max())
    assert np.mean(off) < 0.012
