"""Streams of tiles: the right pixels, each tile once, in one order whatever the threads, each chunk read once."""

import importlib.util
import json
import multiprocessing
import os
import threading
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import xbatcher
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from lsdask import sampling, schema, store, streaming
from lsdask.errors import BadInput, Unreadable
from lsdask.streaming import TileStream, holding, planning

GRID = GeoBox((90, 130), Affine(10, 0, 4e5, 0, -10, 7e6), "EPSG:32723")


def values(height=90, width=130, bands=2, dtype="uint16", seed=0):
    return np.random.default_rng(seed).integers(0, 200, (bands, height, width)).astype(dtype)


def wrapped(array, chunks=None):
    dims = ("band", "y", "x")[-array.ndim :]
    return xr.DataArray(array if chunks is None else da.from_array(array, chunks=chunks), dims=dims)


def cut(array, tiles, rows):
    """The oracle: plain slices."""
    return np.stack([array[..., y : y + n, x : x + n] for y, x, n in tiles[["y", "x", "size"]].to_numpy()[rows]])


def joined(batches):
    batches = list(batches)
    return np.concatenate([batch.image for batch in batches]), [len(batch.image) for batch in batches]


images = st.fixed_dictionaries(
    {
        "height": st.integers(1, 90),
        "width": st.integers(1, 90),
        "bands": st.integers(1, 3),
        "dtype": st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    }
)


@given(
    images,
    st.integers(1, 40),
    st.sampled_from([None, (1, 16, 16), (3, 7, 30), (2, 90, 5)]),
    st.sampled_from([1, 1000, 20_000, 10**7]),
    st.booleans(),
    st.integers(0, 3),
    st.data(),
)
def test_every_tile_comes_once_with_its_own_pixels(image, size, chunks, buffer, shuffle, epoch, data):
    array = values(**image)
    size = min(size, *array.shape[1:])
    lazy = wrapped(array, chunks)
    index = data.draw(st.sampled_from(["grid", "dense", "random"]))
    tiles = {
        "grid": lambda: sampling.grid(lazy, size),
        "dense": lambda: sampling.grid(lazy, size, overlap=0.7),
        "random": lambda: sampling.random(lazy, size, 17, seed=1),
    }[index]().head(300)
    batch_size = data.draw(st.integers(1, 40))
    stream = TileStream(
        lazy, tiles, batch_size=batch_size, shuffle=shuffle, seed=5, buffer=buffer if shuffle else 10**9
    )
    stream.set_epoch(epoch)
    order = stream.plan().order
    assert sorted(order) == list(range(len(tiles)))
    assert shuffle or (order == np.arange(len(tiles))).all()
    got, sizes = joined(stream)
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, cut(array, tiles, order))
    assert len(sizes) == len(stream) == -(-len(tiles) // batch_size)
    assert set(sizes[:-1]) <= {batch_size}
    assert stream.epoch == epoch + 1


@given(st.integers(0, 2**32 - 1), st.sampled_from([None, (2, 16, 16)]), st.booleans(), st.booleans())
def test_masks_are_cut_with_the_image_and_void_pixels_are_unknown(seed, chunks, floats, shuffle):
    draw = np.random.default_rng(seed)
    array = values(dtype="float32" if floats else "uint16", seed=seed)
    void = np.nan if floats else 9
    array[0][draw.random(array.shape[1:]) < 0.1] = void
    image = wrapped(array, chunks)
    if not floats:
        image.attrs["_FillValue"] = np.uint16(9)
    mask = draw.choice([0, 1, 255], array.shape[1:]).astype("uint8")
    expected = np.where(schema.valid_block(array, void), mask, 255)
    tiles = sampling.grid(image, 20, overlap=0.4)
    stream = TileStream(image, tiles, mask=wrapped(mask), shuffle=shuffle)
    rows = stream.plan().order
    batches = list(stream)
    got = np.concatenate([batch.mask for batch in batches])
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, cut(expected, tiles, rows))
    np.testing.assert_array_equal(np.concatenate([batch.image for batch in batches]), cut(array, tiles, rows))


def stream_of(**options):
    image = wrapped(values(), (2, 16, 16))
    return TileStream(image, sampling.grid(image, 12, overlap=0.5), **{"batch_size": 10, "buffer": 20_000, **options})


def test_the_order_is_the_same_for_any_number_of_threads_and_differs_by_epoch_and_seed():
    first, second = (joined(stream_of(threads=threads, prefetch=threads - 1))[0] for threads in (1, 5))
    np.testing.assert_array_equal(first, second)
    stream = stream_of()
    orders = [stream.plan(epoch).order.tolist() for epoch in (0, 1)] + [stream_of(seed=1).plan().order.tolist()]
    assert len(set(map(tuple, orders))) == 3
    np.testing.assert_array_equal(joined(stream)[0], first)
    np.testing.assert_array_equal(stream.plan().order, orders[1])


@settings(max_examples=10)
@given(st.integers(0, 40), st.booleans(), st.integers(0, 2))
def test_a_stream_goes_on_in_the_middle_of_an_epoch(stop, shuffle, epoch):
    stream = stream_of(shuffle=shuffle, buffer=10**6)
    stream.set_epoch(epoch)
    iterator = iter(stream)
    stop = min(stop, len(stream) - 1)
    for _ in range(stop):
        next(iterator)
    state = stream.state_dict()
    rest = list(iterator)
    again = stream_of(shuffle=shuffle, buffer=10**6, threads=1)
    again.load_state_dict(state)
    resumed = list(again)
    assert len(resumed) == len(rest) == len(stream) - stop
    for mine, theirs in zip(resumed, rest):
        np.testing.assert_array_equal(mine.image, theirs.image)
    assert again.epoch == stream.epoch == epoch + 1
    np.testing.assert_array_equal(again.plan().order, stream.plan().order)


def test_epochs_of_an_image_of_one_cell_have_other_orders_too():
    image = wrapped(values())
    stream = TileStream(image, sampling.grid(image, 12))
    assert len(stream.plan().reads) == 1
    orders = {tuple(stream.plan(epoch).order.tolist()) for epoch in range(3)}
    assert len(orders) == 3


def test_with_the_last_batch_comes_the_next_epoch_also_for_who_asks_for_no_more():
    stream = stream_of()
    given = iter(stream)
    for _ in range(len(stream)):
        next(given)
    assert (stream.epoch, stream.state_dict()["batch"]) == (1, 0)
    again = stream_of()
    again.load_state_dict(stream.state_dict())
    np.testing.assert_array_equal(next(iter(again)).image, next(iter(stream)).image)
    np.testing.assert_array_equal(again.plan().order, stream_of().plan(1).order)


def test_a_state_of_another_stream_is_refused():
    state = stream_of().state_dict()
    options = {"batch_size": np.int64(3), "seed": np.uint8(2)}
    numbered = TileStream(wrapped(values()), sampling.table([0], [0], 8), **options)
    assert json.loads(json.dumps(numbered.state_dict())) == numbered.state_dict()
    with pytest.raises(BadInput, match=r"state must be of a stream with batch_size=11. Got batch_size=10"):
        stream_of(batch_size=11).load_state_dict(state)
    image = wrapped(values(), (2, 16, 16))
    with pytest.raises(BadInput, match="with tiles="):
        TileStream(image, sampling.grid(image, 12), batch_size=10, buffer=20_000).load_state_dict(state)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 60), st.booleans(), st.booleans(), st.integers(1, 400))
def test_ranks_and_lanes_share_an_epoch(world, lanes, batch_size, shuffle, drop_last, n):
    image = wrapped(values(), (2, 16, 16))
    tiles = sampling.grid(image, 12, overlap=0.5).head(n)
    seen, lengths = [], []
    for rank in range(world):
        options = {"shuffle": shuffle, "drop_last": drop_last, "rank": rank, "world": world, "lanes": lanes}
        stream = TileStream(image, tiles, batch_size=batch_size, **options)
        whole = len(stream)
        plans = [stream.plan(lane=lane) for lane in range(lanes)]
        assert sum(len(plan.bounds) - 1 for plan in plans) == whole
        seen.extend(row for plan in plans for row in plan.order)
        lengths.append(whole)
    assert len(set(seen)) == len(seen)
    assert max(lengths) - min(lengths) <= (0 if drop_last else 1)
    if drop_last:
        assert len(seen) == world * (len(tiles) // world // batch_size * batch_size)
    else:
        assert len(seen) == len(tiles)


@given(
    st.integers(1, 4),
    st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 2), (6, 3), (6, 6)]),
    st.integers(1, 40),
    st.booleans(),
    st.integers(0, 30),
    st.integers(1, 400),
)
def test_from_any_batch_on_ranks_and_workers_have_every_tile_left_once(world, shared, batch_size, shuffle, begin, n):
    image = wrapped(values(), (2, 16, 16))
    tiles = sampling.grid(image, 12, overlap=0.5).head(n)
    lanes, workers = shared
    seen, expected = [], []
    for rank in range(world):
        options = {"shuffle": shuffle, "rank": rank, "world": world, "lanes": lanes, "buffer": 10**6}
        stream = TileStream(image, tiles, batch_size=batch_size, **options)
        skip = min(begin, len(stream))
        expected += [row for rows in stream.rows()[skip:] for row in rows]
        for worker in range(workers):
            for lane, done in stream._order.turns(skip, worker, workers).items():
                plan = stream._order.plan(0, lane, done)
                seen.extend(plan.order)
                # and what is read for them covers them
                area = np.zeros(image.shape[1:], dtype=bool)
                for y0, x0, y1, x1 in plan.reads:
                    area[y0:y1, x0:x1] = True
                assert all(area[y0:y1, x0:x1].all() for y0, x0, y1, x1 in stream._order.windows.places[plan.order])
    assert len(set(seen)) == len(seen)
    assert sorted(seen) == sorted(expected)
    if begin == 0:
        assert len(seen) == len(tiles)


def test_an_empty_share_gives_no_batches():
    image = wrapped(values(), (2, 16, 16))
    stream = TileStream(image, sampling.grid(image, 80), rank=4, world=5, shuffle=True)
    assert (len(stream), list(stream), stream.epoch) == (0, [], 1)


def counted(array, chunk):
    """An image that counts the loads of each of its chunks."""
    loads = {}

    def load(block_info=None):
        (_, _), (y0, y1), (x0, x1) = block_info[None]["array-location"]
        loads[y0, x0] = loads.get((y0, x0), 0) + 1
        return array[:, y0:y1, x0:x1]

    chunks = [(array.shape[0],), *((chunk,) * (n // chunk) for n in array.shape[1:])]
    lazy = da.map_blocks(load, chunks=chunks, dtype=array.dtype, meta=array[:0, :0, :0])
    return wrapped(lazy), loads


@pytest.mark.parametrize("buffer", [60_000, 250_000, 10**7])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_chunks_are_decoded_as_often_as_planned_and_memory_stays_within_the_plan(buffer, overlap):
    array = values(256, 320)
    image, loads = counted(array, 32)
    tiles = sampling.grid(image, 10, overlap=overlap)
    stream = TileStream(image, tiles, buffer=buffer, batch_size=4, threads=1)
    plan, facts = stream.plan(), stream.explain()
    held = []
    pool = holding.Held(plan, stream._order.windows.places)
    for batch, reads in enumerate(np.searchsorted(plan.first, np.arange(len(stream)), "right").tolist()):
        while len(pool) < reads:
            pool.add(stream._source.read(plan.reads[len(pool)].tolist()))
        kept = [*pool._reads.values(), *pool._waiting.values()]
        held.append(sum(block.image.nbytes for block in kept))
        pool.cut(batch)
    assert sum(loads.values()) / len(loads) == facts["decodes_per_chunk"]
    assert len(loads) == facts["chunks"] == 80
    assert max(held) <= stream._peak(plan)
    if buffer >= 250_000:
        assert facts["decodes_per_chunk"] <= 1.1
        assert max(held) <= buffer
    assert not pool._reads
    assert not pool._waiting


def test_only_chunks_that_tiles_touch_are_read():
    image, loads = counted(values(256, 320), 32)
    joined(TileStream(image, sampling.table([0, 96, 250], [3, 60, 300], 6)))
    assert loads == {(0, 0): 1, (96, 32): 1, (96, 64): 1, (224, 288): 1}


@pytest.mark.parametrize(
    ("size", "overlap", "mib"), [(64, 0.5, 40), (64, 0.5, 128), (128, 0.5, 96), (128, 0.0, 32), (32, 0.7, 64)]
)
def test_the_layout_chosen_keeps_an_epoch_within_the_buffer_and_chunks_read_once(size, overlap, mib):
    image = wrapped(da.zeros((4, 4096, 4096), chunks=(4, 256, 256), dtype="uint16"))
    stream = TileStream(image, sampling.grid(image, size, overlap=overlap), buffer=mib * streaming.MIB)
    plan = stream.plan()
    decoded, chunks = plan.decodes((256, 256))
    assert 0.4 < plan.peak(8, 8 * size**2) / stream.buffer < 1.05
    assert (chunks, decoded) <= (256, 1.1 * 256)


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 30), st.integers(0, 99))
def test_spreading_never_needs_more_reads_than_the_buffer_keeps(reads, keep, tiles, seed):
    complete = np.sort(np.random.default_rng(seed).integers(0, reads, tiles * reads))
    order = planning.spread(complete, reads, keep, [seed])
    assert sorted(order) == list(range(len(complete)))
    place = np.argsort(order)
    first = [place[complete == read].min() for read in np.unique(complete)]
    needed_by = np.minimum.accumulate(first[::-1])[::-1]  # a read is there before any later one is needed
    last = np.array([place[complete == read].max() for read in np.unique(complete)])
    for time in range(len(order)):
        assert ((needed_by <= time) & (last >= time)).sum() <= keep


def test_regions_come_whole_and_in_another_order_each_epoch():
    y, x = np.divmod(np.arange(64), 8) * np.array([[10], [10]])
    windows = np.stack([y, x, y + 10, x + 10], axis=1)  # a tile a cell, none across two
    layout = planning.Layout((80, 80), (10, 10), 2, 2)
    orders = set()
    for epoch in range(5):
        _, homes = planning.reads_shuffled(windows, layout, [0, epoch, 0])
        region = homes // 8 // 2 * 4 + homes % 8 // 2
        assert (region.reshape(16, 4) == region[::4, None]).all()
        orders.add(tuple(region[::4].tolist()))
    assert len(orders) == 5
    assert tuple(range(16)) not in orders


def test_batches_are_made_so_many_ahead_and_what_makes_them_is_closed():
    made, more, closed = [], threading.Semaphore(0), threading.Event()

    def make():
        try:
            for i in range(9):
                made.append(i)
                more.release()
                yield i
        finally:
            closed.set()

    source = make()
    coming = holding.prepared(source, 3)
    assert [next(coming), next(coming)] == [0, 1]
    for _ in range(5):  # two were given, and three are ahead
        assert more.acquire(timeout=20)
    assert not more.acquire(timeout=0.2)
    coming.close()
    assert closed.is_set()
    assert made == [0, 1, 2, 3, 4]


def test_no_tile_comes_before_the_buffer_is_full():
    complete = np.repeat([0, 1], 1000)
    first = complete[planning.spread(complete, 10, 2, [1])][:200]
    assert 0.2 < first.mean() < 0.5  # a third: of read 0 in one read's time, of read 1 in two


def test_a_buffer_that_holds_everything_shuffles_as_well_as_a_permutation():
    order = planning.spread(np.repeat(np.arange(20), 100), 20, 50, [1])
    neighbours = np.corrcoef(order[:-1], order[1:])[0, 1]
    assert abs(neighbours) < 0.1
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.1


def test_batches_mix_tiles_of_all_cells_in_the_buffer():
    image = wrapped(values(320, 320), (2, 32, 32))
    stream = TileStream(image, sampling.grid(image, 8), batch_size=32, buffer=10 * 32 * 32 * 4 * 3 // 2)
    rows = stream.plan().order[: 32 * (len(stream) // 2)].reshape(-1, 32)
    cells = stream._order.windows.places[rows, 0] // 32 * 10 + stream._order.windows.places[rows, 1] // 32
    assert np.mean([len(np.unique(batch)) for batch in cells]) > 8  # 9.7 of 10 for an even draw


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "image.zarr"
    array = values()
    image = schema.wrap(array, GRID, schema.MOSAIC, name="image", coords={"band": ["red", "nir"]}, nodata=7)
    store.write(image, path, chunk=16, shard=32)
    return path, array


def test_a_store_is_read_directly_in_its_own_chunks(stored):
    path, array = stored
    image = store.open(path)
    tiles = sampling.grid(image, 12, overlap=0.5)
    stream = TileStream(image, tiles, batch_size=7)
    layer = stream._source.layers[0]
    assert (layer.reader.reader.path, layer.chunk) == (str(path), (16, 16))
    assert (stream.bands, stream.nodata) == (("red", "nir"), 7)
    np.testing.assert_array_equal(joined(stream)[0], cut(array, tiles, stream.plan(0).order))
    assert stream.explain()["decodes_per_chunk"] == 1


def test_a_window_or_other_bands_of_a_store_are_not_mistaken_for_it(stored):
    path, array = stored
    image = store.open(path).isel(band=[1, 0], y=slice(5, 80), x=slice(3, 100))
    tiles = sampling.grid(image, 12)
    stream = TileStream(image, tiles)
    np.testing.assert_array_equal(joined(stream)[0], cut(array[::-1, 5:80, 3:100], tiles, stream.plan(0).order))


def sources():
    """Two images whose pixels tell them apart."""
    images = [wrapped(values() % 100, (2, 32, 32)), wrapped(values(seed=1) % 100 + 100)]
    return [TileStream(image, sampling.grid(image, 12 + 6 * i), batch_size=7) for i, image in enumerate(images)]


@settings(max_examples=10)
@given(st.sampled_from([(1, 1), (2, 0.5), (0.3, 1.6), (0, 1)]), st.integers(0, 12), st.integers(0, 2))
def test_streams_mix_by_weight_and_go_on_in_the_middle(weights, stop, epoch):
    mixed = streaming.MixedStream(sources(), weights=weights, seed=3)
    mixed.set_epoch(epoch)
    iterator, expected = iter(mixed), [round(w * len(stream)) for w, stream in zip(weights, sources())]
    assert len(mixed) == sum(expected)
    begun = [next(iterator) for _ in range(min(stop, len(mixed) - 1))]
    again = streaming.MixedStream(sources(), weights=weights, seed=3)
    again.load_state_dict(mixed.state_dict())
    rest = list(iterator)
    for mine, theirs in zip(again, rest, strict=True):
        np.testing.assert_array_equal(mine.image, theirs.image)
    of = [int(batch.image.min() >= 100) for batch in [*begun, *rest]]
    assert np.bincount(of, minlength=2).tolist() == expected
    assert again.epoch == mixed.epoch == epoch + 1


def test_a_mix_gives_every_tile_of_its_streams_once_in_turns_that_differ_by_epoch():
    mixed = streaming.MixedStream(sources())
    first, second = ([batch.image for batch in mixed] for _ in range(2))
    for images in (first, second):
        for stream in sources():
            mine = np.concatenate([image for image in images if image.shape[2] == stream._order.windows.side[0]])
            theirs = joined(stream)[0]
            key = lambda array: sorted(tile.tobytes() for tile in array)  # noqa: E731
            assert key(mine) == key(theirs)
    turns = [[image.shape[2] for image in images] for images in (first, second)]
    assert turns[0] != turns[1]
    assert turns[0] != sorted(turns[0])


def test_a_mix_takes_each_stream_through_its_own_epochs():
    mixed = streaming.MixedStream(sources(), weights=[2, 0.5])
    one, other = sources()
    for epoch in (0, 1):
        got = [batch.image for batch in mixed.batches(epoch)]
        ones = [image for image in got if image.min() < 100]
        theirs = [*one.batches(2 * epoch), *one.batches(2 * epoch + 1)]
        for mine, batch in zip(ones, theirs, strict=True):
            np.testing.assert_array_equal(mine, batch.image)
        rest = [image for image in got if image.min() >= 100]
        for mine, batch in zip(rest, other.batches(epoch)):
            np.testing.assert_array_equal(mine, batch.image)
        assert len(rest) == round(len(other) / 2)
        assert mixed.where(0, epoch).endswith(("of stream 0", "of stream 1"))


def test_streams_that_differ_are_not_mixed():
    image = wrapped(values())
    tiles = sampling.grid(image, 12)
    stream = TileStream(image, tiles)
    with pytest.raises(BadInput, match=r"streams must have the same bands. Got .*band_2.* and .*'b'"):
        streaming.MixedStream([stream, TileStream(image.assign_coords(band=["a", "b"]), tiles)])
    with pytest.raises(BadInput, match=r"same nodata. Got None and 7"):
        streaming.MixedStream([stream, TileStream(image.assign_attrs(_FillValue=np.uint16(7)), tiles)])
    with pytest.raises(BadInput, match="all have a mask or none"):
        streaming.MixedStream([stream, TileStream(image, tiles, mask=wrapped(np.zeros((90, 130), "uint8")))])
    with pytest.raises(BadInput, match="streams must all be different"):
        streaming.MixedStream([stream, stream])
    with pytest.raises(BadInput, match="weights must be one for each"):
        streaming.MixedStream([stream], weights=[1, 2])
    for weight in (-1, np.nan, np.inf):
        with pytest.raises(BadInput, match="weights must be one for each"):
            streaming.MixedStream([stream], weights=[weight])


class Failing:
    """A reader whose reads of one pixel fail a number of times."""

    def __init__(self, array, times):
        self.array, self.times = array, times

    def read(self, y, x):
        if y.start <= 40 < y.stop and x.start <= 70 < x.stop and self.times:
            self.times -= 1
            raise Unreadable(f"rows {y.start} to {y.stop} cannot be read")
        return self.array[:, y, x]


def fail(stream, times):
    layer = replace(stream._source.layers[0], reader=Failing(values(), times))
    stream._source = replace(stream._source, layers=(layer,))


def test_a_read_that_fails_once_is_tried_again():
    stream = stream_of()
    expected = joined(stream_of())[0]
    fail(stream, 1)
    np.testing.assert_array_equal(joined(stream)[0], expected)


def test_a_read_that_fails_twice_ends_the_epoch_and_names_window_and_chunk():
    stream = stream_of()
    fail(stream, 99)
    with pytest.raises(Unreadable, match=r"rows \d+ to \d+ cannot be read \(first in chunk \(2, 4\); tried twice\)"):
        list(stream)


def test_a_torn_shard_is_named(tmp_path):
    image = schema.wrap(values(), GRID, schema.MOSAIC, name="image", coords={"band": ["red", "nir"]})
    store.write(image, tmp_path / "image.zarr", chunk=16, shard=32)
    shard = tmp_path / "image.zarr" / "image" / "c" / "0" / "1" / "2"
    shard.write_bytes(shard.read_bytes()[:-50])
    lazy = store.open(tmp_path / "image.zarr")
    with pytest.raises(Unreadable, match=r"image.zarr cannot be read.*first in chunk \([23], [45]\)"):
        list(TileStream(lazy, sampling.grid(lazy, 12)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tiles": sampling.table([], [], 8)}, "tiles must hold at least one tile"),
        (
            {"tiles": sampling.table([0], [0], 91)},
            r"lie inside the image of 90 x 130 px. Got tile 0 \(y=0, x=0, size=91\)",
        ),
        ({"tiles": sampling.table([-1], [0], 8)}, "lie inside the image"),
        (
            {"tiles": pd.concat([sampling.table([0], [0], s) for s in (8, 9)])},
            r"tiles must have one size. Got sizes \[8, 9\]",
        ),
        ({"tiles": pd.DataFrame({"y": [0]})}, "have the column 'x'"),
        ({"mask": wrapped(np.zeros((90, 131), "uint8"))}, r"mask must have the image's shape \(90, 130\)"),
        ({"mask": wrapped(np.zeros((90, 130), "int16"))}, "mask must be uint8. Got int16"),
        ({"mask": wrapped(np.zeros((90, 130), "float32"))}, r"mask must be uint8. Got float32. Use mask.astype"),
        ({"mask": wrapped(np.zeros((1, 90, 130), "uint8"))}, r"mask must have dims \('y', 'x'\)"),
        ({"batch_size": 2.5}, r"batch_size must be a whole number, at least 1. Got batch_size=2.5"),
        ({"seed": -1}, "seed must be a whole number, at least 0"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1"),
        ({"prefetch": -1}, "prefetch must be a whole number, at least 0"),
        ({"threads": 0}, "threads must be a whole number, at least 1"),
        ({"rank": 2, "world": 2}, "rank must be from 0 to 1, below world. Got rank=2"),
    ],
)
def test_bad_input_is_refused_at_once(options, words):
    with pytest.raises(BadInput, match=words):
        TileStream(wrapped(values()), **{"tiles": sampling.table([0], [0], 8), **options})


def test_a_mask_on_another_grid_is_refused(stored):
    image = store.open(stored[0])
    moved = GeoBox(GRID.shape, GRID.transform @ Affine.translation(1, 0), GRID.crs)
    mask = schema.wrap(np.zeros((90, 130), "uint8"), moved, schema.MASK, name="mask")
    with pytest.raises(BadInput, match="mask must lie on the grid of image"):
        TileStream(image, sampling.grid(image, 8), mask=mask)


def test_a_mask_value_that_means_nothing_is_named_with_its_tile_if_a_tile_has_it():
    mask = np.zeros((90, 130), "uint8")
    mask[50, 60] = 3
    tiles = sampling.table([0, 48, 70], [0, 55, 90], 8)
    with pytest.raises(BadInput, match=r"mask must hold 0 to 1 and 255 \(unknown\). Got 3 in tile 1 \(y=48, x=55\)"):
        list(TileStream(wrapped(values()), tiles, mask=wrapped(mask)))
    assert list(TileStream(wrapped(values()), tiles.drop(index=1), mask=wrapped(mask)))
    assert list(TileStream(wrapped(values()), tiles, mask=wrapped(mask), classes=4))


def test_a_table_order_that_does_not_fit_is_refused_with_the_memory_it_needs():
    image = wrapped(values(), (2, 16, 16))
    tiles = sampling.random(image, 12, 200, seed=1)
    stream = TileStream(image, tiles, shuffle=False, buffer=20_000)
    with pytest.raises(
        BadInput, match=r"buffer must hold what the table's order needs. Got buffer=20000. Pass buffer=\d+"
    ):
        list(stream)
    assert list(TileStream(image, tiles, shuffle=True, buffer=20_000))


def test_leaving_in_the_middle_stops_the_threads():
    import threading

    stream = stream_of()
    for _ in stream:
        break
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("lsdask-stream")]
    assert (stream.epoch, stream.state_dict()["batch"]) == (0, 1)


@settings(max_examples=15)
@given(
    st.integers(5, 20),
    st.integers(5, 20),
    st.integers(0, 4),
    st.sampled_from([{}, {"concat_input_dims": True}, {"concat_input_dims": True, "batch_dims": {"y": 40, "x": 60}}]),
)
def test_the_patches_of_an_xbatcher_generator_stream_with_the_same_values(height, width, overlap, how):
    array = values(100, 120)
    generator = xbatcher.BatchGenerator(
        wrapped(array),
        input_dims={"band": 2, "y": height, "x": width},
        input_overlap={"y": overlap, "x": overlap},
        **how,
    )
    lazy = xbatcher.BatchGenerator(
        wrapped(array, (2, 16, 16)),
        input_dims={"band": 2, "y": height, "x": width},
        input_overlap={"y": overlap, "x": overlap},
        **how,
    )
    stream = TileStream.from_xbatcher(lazy)
    theirs = [batch.values.reshape(-1, 2, height, width) for batch in generator]
    mine = [batch.image for batch in stream]
    assert len(stream) == len(mine) == len(theirs)
    for a, b in zip(mine, theirs):
        np.testing.assert_array_equal(a, b)


def test_xbatcher_patches_can_be_cut_into_other_batches_shuffled_and_completed_at_the_edges():
    array = values(50, 70)
    generator = xbatcher.BatchGenerator(wrapped(array, (2, 16, 16)), input_dims={"y": 16, "x": 20})
    plain = TileStream.from_xbatcher(generator, batch_size=4)
    assert [len(batch.image) for batch in plain] == [4, 4, 1]
    shuffled = TileStream.from_xbatcher(generator, batch_size=4, shuffle=True)
    assert sorted(shuffled.plan().order) == list(range(9))
    whole = TileStream.from_xbatcher(generator, batch_size=4, edges=True)
    seen = np.zeros((50, 70), dtype=int)
    for y0, x0, y1, x1 in whole._order.windows.places:
        seen[y0:y1, x0:x1] += 1
    assert seen.all()
    assert len(np.unique(whole._order.windows.places, axis=0)) == len(whole._order.windows.places) == 16
    np.testing.assert_array_equal(whole._order.windows.places[:9], plain._order.windows.places)
    with pytest.raises(BadInput, match="batch_size must be given with edges or shuffle"):
        TileStream.from_xbatcher(generator, edges=True)
    rows = xbatcher.BatchGenerator(
        generator.ds, input_dims={"y": 16, "x": 20}, batch_dims={"y": 16, "x": 60}, concat_input_dims=True
    )
    one, other = (TileStream.from_xbatcher(each) for each in (generator, rows))
    assert np.array_equal(one._order.windows.places, other._order.windows.places)
    with pytest.raises(BadInput, match="state must be of a stream with tiles="):  # the same tiles in other batches
        one.load_state_dict(other.state_dict())


def test_an_xbatcher_grid_is_the_sampling_grid_where_tiles_fit():
    image = wrapped(values(64, 96), (2, 16, 16))
    generator = xbatcher.BatchGenerator(image, input_dims={"y": 32, "x": 32}, input_overlap={"y": 16, "x": 16})
    ours = TileStream(image, sampling.grid(image, 32, overlap=0.5), shuffle=False, batch_size=1)
    for mine, theirs in zip(ours, generator, strict=True):
        np.testing.assert_array_equal(mine.image[0], theirs.values)


def test_xbatcher_generators_of_other_things_are_refused():
    image = wrapped(values())
    with pytest.raises(BadInput, match=r"generator.ds must be an xarray.DataArray"):
        TileStream.from_xbatcher(xbatcher.BatchGenerator(image.to_dataset(name="a"), input_dims={"y": 8, "x": 8}))
    with pytest.raises(BadInput, match=r"take all bands in a patch. Got bands 0 to 1"):
        TileStream.from_xbatcher(xbatcher.BatchGenerator(image, input_dims={"band": 1, "y": 8, "x": 8}))


def in_fork(stream, queue):
    try:
        list(stream)
    except BadInput as error:
        queue.put(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_is_told_to_spawn_instead_of_hanging():
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=in_fork, args=(stream_of(), queue))
    process.start()
    process.join(30)
    assert not process.is_alive()
    assert "Pass multiprocessing_context='spawn' or 'forkserver'" in queue.get()


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[1] / "benchmarks" / "streaming.py"
    spec = importlib.util.spec_from_file_location("benchmark_streaming", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_runs(benchmark):
    line = benchmark.run(256, chunk=64, limit=32, processes=False)
    assert line["decodes_per_chunk"] == 1
    assert line["runs"]["zarr_windows"]["decoded"] > line["runs"]["stream"]["decoded"]
    assert min(run["tiles_per_second"] for run in line["runs"].values()) > 0


def test_mixing_tells_order_from_disorder(benchmark):
    cells = np.repeat(np.arange(64), 100)
    rows = benchmark.mixing(np.arange(6400), cells, 8)
    assert (rows["autocorrelation"] > 0.99, rows["distinct"] < 1.5) == (True, True)
    full = benchmark.mixing(np.random.default_rng(0).permutation(6400), cells, 8)
    assert full["autocorrelation"] < 0.05
    assert abs(full["distinct"] - 64 * (1 - (1 - 1 / 64) ** 32)) < 0.5


def test_the_default_buffer_shuffles_nearly_as_well_as_a_full_shuffle(benchmark):
    line = benchmark.quality(8192, 512, buffers=(256,))  # MiB, as TileStream's default; half of that image
    ours, full = line["buffers"][256], line["full"]
    assert ours["autocorrelation"] < 0.05
    assert ours["distinct"] > 0.7 * full["distinct"]
    assert ours["decodes_per_chunk"] == 1
