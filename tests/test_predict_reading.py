"""What a run reads: each chunk about once, nothing of tiles that hold no score, and enough to warn of a short halo."""

import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from images import grid as grid_of
from images import random_mosaic
from zarr.codecs import BloscCodec

from lsdask import models, predict, schema, store, tiling
from lsdask.errors import BadInput, OtherPlan, Unreadable
from lsdask.predict import sharing, skipping


def sums(blocks: np.ndarray) -> np.ndarray:
    return (blocks.sum(axis=1, dtype="int64") % 251 / 250).astype("float32")[:, None]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every stored chunk that is decoded."""
    seen: list[int] = []
    decode = BloscCodec._decode_sync

    def counted(self: BloscCodec, chunk: Any, spec: Any) -> Any:
        seen.append(1)
        return decode(self, chunk, spec)

    monkeypatch.setattr(BloscCodec, "_decode_sync", counted)
    return seen


def write_big(folder: Path, shape: tuple[int, int], chunk: int, *, void: bool = False) -> xr.DataArray:
    image = random_mosaic((1, *shape), void=0)
    if void:
        image[:, : shape[0] // 2] = 0
    store.write(image, folder / "image.zarr", chunk=chunk, shard=2 * chunk)
    return image


def test_neighbouring_tiles_share_chunks(tmp_path: Path, decoded: list[int]) -> None:
    """The shape of the work of B1 in small: a tile is four chunks wide, its halo a quarter of a chunk."""
    image = write_big(tmp_path, (8 * 64, 3 * 64), 16)
    decoded.clear()
    report = predict.run(tmp_path / "image.zarr", tmp_path / "s.zarr", sums, tile=64, halo=4, workers=2, progress=False)
    assert report.failed == ()
    read = len(decoded) / (32 * 12)
    # The source and nothing else is decoded: the ledger is one chunk, read and written a few times.
    bound = sharing.amplification(tiling.grid((512, 192), 64, halo=4), (16, 16))
    assert bound == 1.0625
    assert 1.0 <= read <= bound + 0.02
    expected = np.rint(sums(image.values[None])[0] * 250)
    np.testing.assert_array_equal(store.open(tmp_path / "s.zarr").values, expected)


def test_the_targets_shape_of_work_decodes_each_chunk_at_most_one_and_a_quarter_times() -> None:
    assert sharing.amplification(tiling.grid((262144, 262144), 2048, halo=128), (512, 512)) <= 1.25


@settings(max_examples=15)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    chunk=st.integers(5, 30),
    tile=st.integers(8, 60),
    halo=st.integers(0, 40),
    threads=st.integers(1, 3),
)
def test_shared_windows_are_those_of_the_image(
    shape: tuple[int, int], chunk: int, tile: int, halo: int, threads: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shared")
    image = write_big(folder, shape, chunk)
    grid = tiling.grid(shape, tile, halo=halo)
    reader = sharing.shared(store.open(folder / "image.zarr"), grid)
    wrong: list[tuple[int, int]] = []
    places = list(grid.walk())

    def read(mine: list[tuple[int, int]]) -> None:
        for place in mine:
            window = grid[place].read
            if not np.array_equal(reader.read(*window), image.values[(slice(None), *window)]):
                wrong.append(place)

    workers = [threading.Thread(target=read, args=(places[i::threads],)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    if isinstance(reader, sharing.SharedReader) and threads == 1:
        chunks = -(-shape[0] // chunk) * -(-shape[1] // chunk)
        assert chunks <= reader.decoded() <= chunks * sharing.amplification(grid, (chunk, chunk)) + 1e-6


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20))
def test_rectangles_hold_each_place_once(places: set[tuple[int, int]]) -> None:
    seen: list[tuple[int, int]] = []
    for top, bottom, left, right in sharing.rectangles(sorted(places)):
        seen += [(row, column) for row in range(top, bottom) for column in range(left, right)]
    assert sorted(seen) == sorted(places)


def test_a_torn_chunk_fails_those_who_read_it_and_is_read_again(tmp_path: Path) -> None:
    image = write_big(tmp_path, (64, 64), 16)
    shard = tmp_path / "image.zarr" / "mosaic" / "c" / "0" / "0" / "1"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    reader = sharing.shared(store.open(tmp_path / "image.zarr"), tiling.grid((64, 64), 16, halo=8))
    with pytest.raises(Unreadable, match=r"rows 0 to 32, columns 0 to 48 of .*image\.zarr"):
        reader.read(slice(0, 24), slice(8, 40))
    np.testing.assert_array_equal(reader.read(slice(0, 24), slice(0, 24)), image.values[:, :24, :24])
    shard.write_bytes(whole)
    np.testing.assert_array_equal(reader.read(slice(0, 24), slice(8, 40)), image.values[:, :24, 8:40])


def test_tiles_of_which_nothing_is_stored_are_void(tmp_path: Path, decoded: list[int]) -> None:
    write_big(tmp_path, (256, 128), 16, void=True)
    opened = store.open(tmp_path / "image.zarr")
    void = skipping.unstored(opened, tiling.grid((256, 128), 64, halo=8))
    assert void is not None
    np.testing.assert_array_equal(void, [[True, True], [True, True], [False, False], [False, False]])
    assert skipping.unstored(opened + 1, tiling.grid((256, 128), 64)) is None
    no_nodata = random_mosaic((1, 64, 64), void=1)
    no_nodata.attrs.pop("_FillValue")
    store.write(no_nodata, tmp_path / "zeros.zarr", chunk=16, shard=32)
    assert skipping.unstored(store.open(tmp_path / "zeros.zarr"), tiling.grid((64, 64), 32)) is None
    decoded.clear()
    report = predict.run(tmp_path / "image.zarr", tmp_path / "s.zarr", sums, tile=64, halo=0, progress=False)
    assert (report.done, report.void) == (4, 4)
    assert len(decoded) <= 64 + 8
    scores = store.open(tmp_path / "s.zarr")
    assert (scores.values[:, :128] == 255).all()
    assert (scores.values[:, 128:] != 255).all()


def test_a_band_that_is_not_stored_makes_a_tile_void(tmp_path: Path) -> None:
    import zarr

    image = random_mosaic((2, 64, 64), void=0)
    store.write(image, tmp_path / "image.zarr", chunk=16, shard=32)
    root = zarr.open_group(tmp_path / "image.zarr")
    held = root.create_array("other", shape=(2, 64, 64), chunks=(1, 32, 32), dtype="uint16", fill_value=0)
    held[0] = 5
    held[1, :32] = 5
    present = skipping.present_objects(held)
    assert present.shape == (2, 2, 2)
    np.testing.assert_array_equal(present.all(axis=0), [[True, True], [False, False]])


@pytest.mark.parametrize("lazy", [False, True])
def test_scores_only_where_they_are_wanted(tmp_path: Path, lazy: bool, decoded: list[int]) -> None:
    image = write_big(tmp_path, (192, 192), 16)
    opened = store.open(tmp_path / "image.zarr")
    wanted = np.zeros((192, 192), bool)
    wanted[10:30, 70:80] = True
    where = schema.wrap(wanted, schema.geobox(opened), schema.MASK, name="where")
    where = where.chunk({"y": 50, "x": 50}) if lazy else where
    decoded.clear()
    options = {"tile": 64, "halo": 8, "workers": 1, "progress": False}
    report = predict.run(opened, tmp_path / "s.zarr", sums, where=where, **options)
    assert report.failed == ()
    assert report.void == (0 if lazy else 8)
    assert len(decoded) <= 5 * 6 + 8
    expected = np.where(wanted, np.rint(sums(image.values[None])[0] * 250), 255)
    np.testing.assert_array_equal(store.open(tmp_path / "s.zarr").values, expected)
    with pytest.raises(OtherPlan, match="where: "):
        predict.run(opened, tmp_path / "s.zarr", sums, where=~where, **options)
    with pytest.raises(BadInput, match=r"where must be bool.*mask == 1"):
        predict.run(opened, tmp_path / "t.zarr", sums, where=where.astype("uint8"), **options)
    with pytest.raises(BadInput, match="where must lie on the grid of image"):
        predict.run(opened, tmp_path / "t.zarr", sums, where=where[:100], **options)


@pytest.mark.parametrize("crs", ["EPSG:32723", "EPSG:4326"])
def test_scores_only_in_an_area_of_interest(tmp_path: Path, crs: str) -> None:
    image = write_big(tmp_path, (512, 512), 32)
    box = grid_of((512, 512))
    corner = box.transform @ (100.5, 120.5)
    area = gpd.GeoDataFrame(geometry=[shapely.Point(corner).buffer(300)], crs=box.crs.to_wkt())
    expected = np.asarray(
        [[shapely.Point(box.transform @ (x + 0.5, y + 0.5)).distance(area.geometry[0]) == 0 for x in range(70, 132)]
         for y in range(90, 152)]
    )  # fmt: skip
    area = area.to_crs(crs)
    area.to_file(tmp_path / "area.gpkg")
    options = {"tile": 64, "halo": 0, "progress": False}
    report = predict.run(tmp_path / "image.zarr", tmp_path / "s.zarr", sums, where=tmp_path / "area.gpkg", **options)
    assert report.failed == ()
    assert report.void > 40
    known = store.open(tmp_path / "s.zarr").values[0] != 255
    assert (known[90:152, 70:132] == expected).mean() > (0.999 if crs == "EPSG:32723" else 0.995)
    assert known.sum() == known[90:152, 70:132].sum()
    again = predict.run(tmp_path / "image.zarr", tmp_path / "s.zarr", sums, where=area, **options)
    assert (again.done, again.skipped) == (0, 64 - report.void)
    np.testing.assert_array_equal(
        store.open(tmp_path / "s.zarr").values[0][known], np.rint(sums(image.values[None])[0, 0] * 250)[known]
    )


@pytest.fixture
def far_looking(tmp_path: Path) -> Path:
    """A network whose scores depend strongly on what is 20 px away."""
    torch.manual_seed(0)
    model = models.build("soares_unet", bands=["b0"], mean=[500.0], std=[290.0], filters=4)
    models.save(model, tmp_path / "model")
    return tmp_path / "model"


def test_a_short_halo_warns_by_how_much(tmp_path: Path, far_looking: Path) -> None:
    image = random_mosaic((1, 400, 400), void=0)
    options = {"tile": 512, "precision": "float32", "progress": False, "dtype": "float32"}
    far = -(-(models.reach(far_looking) or 0) // 16) * 16
    with pytest.warns(
        UserWarning, match=rf"halo=0 is less than the network looks: .* by 0\.\d+ .* halo={far}\)"
    ) as told:
        predict.run(image, tmp_path / "short.zarr", far_looking, halo=0, **options)
    assert told[0].filename == __file__
    said = float(str(told[0].message).split("change by ")[1].split(" ")[0])
    # By hand: the same square, once in the whole image and once alone.
    whole = predict.apply(image, far_looking, **{k: v for k, v in options.items() if k != "progress"}).values
    y = x = (0 + 400) // 2 // 64 * 64
    square = image[:, y : y + 64, x : x + 64]
    alone = predict.apply(square, far_looking, tile=64, halo=0, precision="float32", dtype="float32").values
    assert said == pytest.approx(np.abs(alone - whole[:, y : y + 64, x : x + 64]).max(), abs=2e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict.run(image, tmp_path / "exact.zarr", far_looking, **options)


def test_a_network_that_looks_at_everything_needs_a_number(tmp_path: Path) -> None:
    model = models.build("pspnet", bands=["b0"], encoder="resnet18", mean=[500.0], std=[290.0])
    with pytest.raises(BadInput, match=r"halo must be given for pspnet, whose scores depend on the whole input"):
        predict.job(random_mosaic((1, 100, 100)), tmp_path / "s.zarr", model)


@pytest.mark.cluster
def test_a_cluster_scores_the_same(tmp_path: Path, far_looking: Path) -> None:
    from distributed import Client

    image = random_mosaic((1, 200, 200))
    store.write(image, tmp_path / "image.zarr", chunk=32, shard=64)
    where = schema.wrap(image.values[0] > 300, schema.geobox(image), schema.MASK, name="where").chunk(50)
    options = {"tile": 64, "where": where, "tta": "flips", "precision": "float32", "progress": False}
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        predict.run(tmp_path / "image.zarr", tmp_path / "s.zarr", [far_looking] * 2, client=client, **options).check()
    predict.run(tmp_path / "image.zarr", tmp_path / "t.zarr", [far_looking] * 2, **options).check()
    scores = store.open(tmp_path / "s.zarr").values
    np.testing.assert_array_equal(scores, store.open(tmp_path / "t.zarr").values)
    assert ((scores[0] != 255) == (image.values[0] > 300)).all()


def test_another_model_put_into_the_folder_is_noticed(tmp_path: Path, far_looking: Path) -> None:
    image = random_mosaic((1, 64, 64), void=0)
    folder = Path(shutil.copytree(far_looking, tmp_path / "copied"))
    options = {"tile": 64, "halo": 0, "precision": "float32"}
    sent = pickle.dumps(predict.job(image, tmp_path / "s.zarr", folder, **options).kernel)
    other = models.load(folder)
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    models.save(other, folder)
    kernel, tile = pickle.loads(sent), tiling.grid((64, 64), 64)[0, 0]
    with pytest.raises(BadInput, match=r"must be of the model that the run began with.*another one's weights"):
        kernel(tile)
    shutil.copytree(far_looking, folder, dirs_exist_ok=True)
    assert kernel.scorer.tile(kernel.reader.read(*tile.read), tile).shape == (1, 64, 64)


def test_chunks_that_all_tiles_have_read_are_let_go(tmp_path: Path) -> None:
    write_big(tmp_path, (160, 96), 16)
    grid = tiling.grid((160, 96), 32, halo=8)
    reader = sharing.shared(store.open(tmp_path / "image.zarr"), grid)
    assert isinstance(reader, sharing.SharedReader)
    most = 0
    for place in grid.walk():
        reader.read(*grid[place].read)
        most = max(most, len(reader._kept()._held))
    assert len(reader._kept()._held) == 0
    assert 0 < most <= reader._most()


def test_a_chunk_that_failed_in_another_thread_is_read_by_oneself(tmp_path: Path) -> None:
    image = write_big(tmp_path, (64, 64), 16)
    reader = sharing.shared(store.open(tmp_path / "image.zarr"), tiling.grid((64, 64), 32, halo=8))
    assert isinstance(reader, sharing.SharedReader)
    mine, _ = reader._kept().claim({(1, 1): 4, (1, 2): 2})
    found: list[np.ndarray] = []
    waits = threading.Thread(target=lambda: found.append(reader.read(slice(0, 40), slice(0, 40))))
    waits.start()
    waits.join(0.2)
    assert waits.is_alive()  # it waits for what another thread reads
    reader._kept().fail(mine, OSError("torn beside it"))
    waits.join(20)
    np.testing.assert_array_equal(found[0], image.values[:, :40, :40])


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    part=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    at=st.tuples(st.integers(-5, 9), st.integers(-5, 9)),
)
def test_what_two_windows_share_is_pasted(size: tuple[int, int], part: tuple[int, int], at: tuple[int, int]) -> None:
    world = np.arange(40 * 40).reshape(1, 40, 40)
    starts = 15 + at[0], 15 + at[1]
    if any(a + n <= 15 or a >= 15 + m for a, n, m in zip(starts, part, size)):
        return  # they share nothing, which a reader never asks for
    out = np.full((1, *size), -1)
    cut = world[:, starts[0] : starts[0] + part[0], starts[1] : starts[1] + part[1]]
    sharing.paste_block(out, (15, 15), cut, starts)
    inside = np.full_like(world, -1)
    inside[:, starts[0] : starts[0] + part[0], starts[1] : starts[1] + part[1]] = cut
    np.testing.assert_array_equal(out, inside[:, 15 : 15 + size[0], 15 : 15 + size[1]])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps what was freed")
def test_freed_memory_is_given_back() -> None:
    script = """
import numpy as np
from lsdask.predict.memory import give_back
def held(): return int(open("/proc/self/statm").read().split()[1]) * 4096
parts = [np.ones(60_000, "uint8") for _ in range(2000)]  # too small to be mapped one by one
last = np.ones(60_000, "uint8")
full = held()
del parts
kept = held()
give_back()
print(full - kept, full - held())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < 60e6 < 100e6 < after


def test_a_tile_is_void_only_if_some_band_has_no_object_in_it(tmp_path: Path) -> None:
    import zarr

    image = random_mosaic((2, 64, 64), void=0)
    store.write(image, tmp_path / "image.zarr", chunk=16, shard=32)
    root = zarr.open_group(tmp_path / "image.zarr")
    like = root["mosaic"]
    bands = root.create_array(
        "bands", shape=(2, 64, 64), chunks=(1, 32, 32), dtype="uint16", fill_value=0, dimension_names=("band", "y", "x")
    )
    bands.attrs.update(dict(like.attrs))
    bands[0] = 5  # of the first band everything, of the second the upper half
    bands[1, :32] = 5
    opened = store.open(tmp_path / "image.zarr", name="bands")
    void = skipping.unstored(opened, tiling.grid((64, 64), 32))
    np.testing.assert_array_equal(void, [[False, False], [True, True]])
    void = skipping.unstored(opened, tiling.grid((64, 64), 48))
    np.testing.assert_array_equal(void, [[False, False], [True, True]])


@pytest.mark.parametrize(("halo", "window", "expected"), [(1, None, 16), (16, None, 16), (17, None, 32), (17, 66, 17)])
def test_a_halo_is_whole_strides(halo: int, window: int | None, expected: int, far_looking: Path) -> None:
    image = random_mosaic((1, 100, 100))
    made = predict.job(image, "nowhere.zarr", far_looking, tile=64, halo=halo, window=window, precision="float32")
    assert made.scorer.lattice.halo == made.grid.halo == expected
