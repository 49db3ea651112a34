"""Windows of lazy images, and windows of stores, against slices of the whole."""

import pickle
import threading
from collections import Counter
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import mosaic, random_mosaic

from lsdask import store
from lsdask.errors import Unreadable


@st.composite
def cut(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """Sizes of blocks that make up an axis."""
    sizes: list[int] = []
    while sum(sizes) < size:
        sizes.append(draw(st.integers(1, size - sum(sizes))))
    return tuple(sizes)


@given(st.data(), st.integers(1, 30), st.integers(1, 30))
def test_a_window_is_a_slice_and_takes_its_blocks_once(data: st.DataObject, height: int, width: int) -> None:
    whole = np.random.default_rng(0).integers(1, 999, (3, height, width)).astype("uint16")
    chunks = (data.draw(cut(3)), data.draw(cut(height)), data.draw(cut(width)))
    taken: Counter[tuple[int, ...]] = Counter()

    def note(block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        taken[block_id] += 1
        return block

    lazy = da.from_array(whole, chunks=chunks).map_blocks(note, dtype="uint16", meta=np.empty((0, 0, 0), "uint16"))
    reader = store.reader(mosaic(lazy))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    y = slice(top, data.draw(st.integers(top + 1, height + 5)))
    x = slice(left, data.draw(st.integers(left + 1, width + 5)))
    np.testing.assert_array_equal(reader.read(y, x), whole[:, y, x])
    edges = [np.cumsum([0, *sizes]) for sizes in chunks]
    touched = {
        (band, row, column)
        for band, row, column in np.ndindex(*(len(sizes) for sizes in chunks))
        if edges[1][row] < y.stop and edges[1][row + 1] > y.start
        if edges[2][column] < x.stop and edges[2][column + 1] > x.start
    }
    assert taken == Counter(touched)


def test_a_window_that_is_a_block_is_not_copied_and_has_the_dtype_that_is_said() -> None:
    whole = np.arange(4 * 48, dtype="int64").reshape(2, 8, 12)
    made: list[np.ndarray] = []

    def keep(block: np.ndarray) -> np.ndarray:
        made.append(block.astype("uint16"))
        return made[-1]

    blocks = da.from_array(whole, chunks=(2, 4, 6)).map_blocks(keep, dtype="uint16", meta=np.empty((0,) * 3, "uint16"))
    found = store.reader(mosaic(blocks)).read(slice(4, 8), slice(6, 12))
    assert np.shares_memory(found, made[0])
    np.testing.assert_array_equal(found, whole[:, 4:, 6:])
    said = da.map_blocks(lambda block: block, da.from_array(whole, chunks=(2, 4, 6)), dtype="uint16", meta=made[0][:0])
    assert store.reader(mosaic(said)).read(slice(0, 4), slice(0, 6)).dtype == np.uint16


def test_blocks_that_windows_share_sources_with_are_not_computed_twice_in_a_window() -> None:
    loads: list[int] = []

    def load(block: np.ndarray) -> np.ndarray:
        loads.append(1)
        return block

    coarse = da.ones((1, 64, 64), chunks=64, dtype="uint16").map_blocks(load, dtype="uint16", meta=np.empty((0,) * 3))
    reader = store.reader(mosaic(coarse.rechunk((1, 16, 16)) + 1))
    assert (reader.read(slice(0, 64), slice(0, 64)) == 2).all()
    assert len(loads) == 1


def test_only_one_block_s_sources_are_held_at_once() -> None:
    alive, most = [0], [0]
    lock = threading.Lock()

    class Source(np.ndarray):
        """An array that is counted while it lives."""

        def __del__(self) -> None:
            with lock:
                alive[0] -= 1

    def load(block: np.ndarray) -> np.ndarray:
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        return block.copy().view(Source)

    dates = [
        da.ones((1, 80, 80), chunks=(1, 16, 16), dtype="uint16").map_blocks(
            load, name=f"load-{date}", dtype="uint16", meta=np.empty((0,) * 3, "uint16")
        )
        for date in range(6)
    ]
    total = da.map_blocks(lambda *blocks: np.asarray(sum(blocks)), *dates, dtype="uint16", meta=np.empty((0,) * 3))
    assert (store.reader(mosaic(total)).read(slice(0, 80), slice(0, 80)) == 6).all()
    assert most[0] <= 6  # of 150


def test_an_image_in_memory_and_one_that_travels() -> None:
    image = random_mosaic((2, 30, 30))
    for one in (image, image.chunk({"y": 7, "x": 11})):
        reader = store.reader(one)
        reader.read(slice(0, 1), slice(0, 1))
        again = pickle.loads(pickle.dumps(reader))
        np.testing.assert_array_equal(again.read(slice(4, 29), slice(6, 30)), image.values[:, 4:29, 6:30])


def test_threads_open_an_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from lsdask.store import windows

    opened: list[int] = []
    blocks = windows._Blocks.__init__

    def count(self: windows._Blocks, data: da.Array) -> None:
        opened.append(1)
        blocks(self, data)

    monkeypatch.setattr(windows._Blocks, "__init__", count)
    reader = store.reader(random_mosaic((1, 40, 40), chunks=8))
    threads = [threading.Thread(target=reader.read, args=(slice(i, i + 9), slice(0, 40))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1


def test_a_window_says_where_it_could_not_be_read() -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise ValueError("no such date")

    lazy = da.ones((1, 40, 40), chunks=20).map_blocks(fail, dtype=float, meta=np.empty((0,) * 3))
    with pytest.raises(Unreadable, match=r"rows 3 to 9, columns 0 to 5 of the image .* ValueError: no such date"):
        store.reader(mosaic(lazy)).read(slice(3, 9), slice(0, 5))


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([4, 8]), st.integers(1, 3))
def test_put_replaces_whole_shards_whatever_they_held(height: int, width: int, chunk: int, times: int) -> None:
    import tempfile

    shard = chunk * times
    image = random_mosaic((2, height, width))
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/a.zarr"
        store.create(path, image, chunk=chunk, shard=shard)
        for row in range(0, height, shard):
            for column in range(0, width, shard):
                torn = Path(path) / "mosaic" / "c" / "0" / str(row // shard) / str(column // shard)
                torn.parent.mkdir(parents=True, exist_ok=True)
                torn.write_bytes(b"torn")
                y, x = slice(row, min(row + shard, height)), slice(column, min(column + shard, width))
                store.put(path, image.values[:, y, x], y, x, name="mosaic")
        np.testing.assert_array_equal(store.open(path).values, image.values)
