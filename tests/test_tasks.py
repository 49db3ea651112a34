"""The engine: every tile once, failures named, runs that go on where they stopped."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from images import grid, random_mosaic

from lsdask import ledger, mosaic, schema, store, tasks, tiling
from lsdask.errors import BadInput, OtherPlan, Unfinished, Unreadable


def template(shape: tuple[int, int] = (50, 70)) -> xr.DataArray:
    data = da.zeros((1, *shape), chunks=-1, dtype="uint16")
    return schema.wrap(data, grid(shape), schema.MOSAIC, name="out", coords={"band": ["b"]}, nodata=0)


def number(place: tuple[int, int]) -> int:
    return 100 * place[0] + place[1] + 1


@dataclass(frozen=True)
class Numbers:
    """Writes each tile's number; fails, sleeps and keeps a list of what it did as told."""

    target: str
    fail: tuple[tuple[int, int], ...] = ()
    seconds: float = 0.0
    log: str | None = None

    def __call__(self, tile: tiling.Tile) -> dict[str, float]:
        if self.log is not None:
            with open(self.log, "a") as lines:
                lines.write(f"{tile.place[0]} {tile.place[1]}\n")
        time.sleep(self.seconds)
        if tile.place in self.fail:
            raise Unreadable(f"tile {tile.place} is torn")
        out = store.array(self.target, mode="r+", name="out")
        out[(slice(None), *tile.write)] = np.full((1, *(s.stop - s.start for s in tile.write)), number(tile.place))
        return {"tiles": 1.0}


def expected(shape: tuple[int, int], tile: int) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return 100 * (rows // tile) + columns // tile + 1


def run(target: Path, *, tile: int = 16, **options: object) -> tasks.Report:
    kernel = options.pop("kernel", Numbers(str(target)))
    return tasks.run(kernel, target=target, template=template(), tile=tile, progress=False, **options)  # type: ignore[arg-type]


def test_every_tile_is_written_once(tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    report = run(target, kernel=Numbers(str(target), log=str(tmp_path / "log")))
    assert (store.open(target)[0].values == expected((50, 70), 16)).all()
    assert (report.tiles, report.done, report.skipped, report.failed) == (20, 20, 0, ())
    assert report.metrics == {"tiles": 20.0, "stored_bytes": 0.0}
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 20
    again = run(target)
    assert (again.done, again.skipped) == (0, 20)


def test_a_failed_tile_never_stops_the_others(tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    report = run(target, kernel=Numbers(str(target), fail=((1, 2), (3, 4))), retries=0)
    assert [failure.place for failure in report.failed] == [(1, 2), (3, 4)]
    assert report.failed[0].why == "tile (1, 2) is torn"
    with pytest.raises(Unfinished, match=r"18 of 20 tiles .* 2 not done \(tile \(1, 2\): tile \(1, 2\) is torn"):
        report.check()
    hole = store.open(target)[0].values[16:32, 32:48]
    assert (hole == 0).all()
    mended = run(target)
    assert (mended.done, mended.skipped, mended.failed) == (2, 18, ())
    assert (store.open(target)[0].values == expected((50, 70), 16)).all()


def test_a_failed_read_is_tried_again(tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    tried: list[int] = []

    def sometimes(tile: tiling.Tile) -> dict[str, float]:
        if tile.place == (0, 0):
            tried.append(1)
            if len(tried) < 3:
                raise OSError("503")
        return Numbers(str(target))(tile)

    assert run(target, kernel=sometimes, retries=2).failed == ()
    assert len(tried) == 3


def test_another_plan_is_refused_and_named(tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    run(target, plan={"model": "a", "halo_m": 3})
    with pytest.raises(
        OtherPlan, match=r"holds another run \(chunk: 16 -> 8, model: a -> b, tile: 16 -> 8\). Pass the"
    ):
        run(target, tile=8, plan={"model": "b", "halo_m": 3})
    store.write(template(), tmp_path / "other.zarr", chunk=16, shard=16)
    with pytest.raises(BadInput, match="target must be new or hold a run"):
        run(tmp_path / "other.zarr")
    with pytest.raises(BadInput, match="tile must be a multiple of the target's chunk, 7"):
        run(tmp_path / "new.zarr", chunk=7)


def test_a_second_run_at_once_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    first = threading.Thread(target=lambda: run(target, kernel=Numbers(str(target), seconds=0.1), workers=1))
    first.start()
    while not (target / "ledger").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    with pytest.raises(OtherPlan, match="is being written by another run"):
        run(target)
    first.join()
    assert (run(target).skipped, run(target).done) == (20, 0)


def test_xarray_opens_a_target_without_its_ledger(tmp_path: Path) -> None:
    run(tmp_path / "out.zarr")
    assert list(xr.open_zarr(tmp_path / "out.zarr").data_vars) == ["out"]


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_tasks import Numbers, run
target = Path({target!r})
run(target, kernel=Numbers(str(target), seconds=0.3, log={log!r}), workers=2)
"""


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    target, log = tmp_path / "out.zarr", tmp_path / "log"
    script = SCRIPT.format(tests=str(Path(__file__).parent), target=str(target), log=str(log))
    process = subprocess.Popen([sys.executable, "-c", script])
    while not log.exists() or len(log.read_text().splitlines()) < 9:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    started = len(log.read_text().splitlines())
    report = run(target)
    # Two tiles were in flight, and up to two had ended within the last FLUSH_SECONDS.
    assert started - 4 <= report.skipped <= started
    assert report.done + report.skipped == 20
    assert (store.open(target)[0].values == expected((50, 70), 16)).all()


def test_the_ledger_outlives_its_process(tmp_path: Path) -> None:
    store.create(tmp_path / "a.zarr", template((3000, 3000)), chunk=16, shard=16)
    ledger.start(tmp_path / "a.zarr", (188, 188), {"a": 1})
    book = ledger.read(tmp_path / "a.zarr")
    places = [(0, 0), (63, 64), (187, 187), (100, 3)]
    for place in places:
        book.mark(place)
    assert ledger.read(tmp_path / "a.zarr").done.sum() == 0
    book.flush()
    book.clear((63, 64))
    book.flush()
    found = ledger.read(tmp_path / "a.zarr").done
    assert sorted(zip(*np.nonzero(found))) == sorted([(0, 0), (187, 187), (100, 3)])
    assert ledger.plan_of(tmp_path / "a.zarr") == {"a": 1}


@pytest.mark.cluster
def test_a_cluster_of_processes_writes_the_same(tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    target = tmp_path / "out.zarr"
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        client.run(sys.path.insert, 0, str(Path(__file__).parent))
        report = run(target, kernel=Numbers(str(target), fail=((0, 1),)), client=client, retries=0)
        assert [failure.place for failure in report.failed] == [(0, 1)]
        assert run(target, client=client).done == 1
    assert (store.open(target)[0].values == expected((50, 70), 16)).all()


@pytest.mark.cluster
def test_a_killed_worker_loses_no_tile(tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    target, log = tmp_path / "out.zarr", tmp_path / "log"
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        client.run(sys.path.insert, 0, str(Path(__file__).parent))
        victim = next(iter(cluster.workers.values()))

        def kill() -> None:
            while not log.exists() or len(log.read_text().splitlines()) < 7:
                time.sleep(0.05)
            os.kill(victim.pid, signal.SIGKILL)

        threading.Thread(target=kill).start()
        report = run(target, kernel=Numbers(str(target), seconds=0.2, log=str(log)), client=client)
    assert report.failed == ()
    assert (store.open(target)[0].values == expected((50, 70), 16)).all()
    # What was in flight or queued on the dead worker is done again, nothing else.
    assert 20 <= len(log.read_text().splitlines()) <= 20 + 4


def test_void_tiles_need_no_task(tmp_path: Path) -> None:
    target, log = tmp_path / "out.zarr", tmp_path / "log"
    void = np.zeros((4, 5), bool)
    void[1, 2:] = void[3] = True
    kernel = Numbers(str(target), fail=((0, 0),), log=str(log))
    report = run(target, kernel=kernel, void=void, retries=0)
    assert (report.tiles, report.done, report.void, report.skipped) == (20, 11, 8, 0)
    assert "11 of 20 tiles" in str(report)
    assert "8 void" in str(report)
    done = {tuple(map(int, line.split())) for line in log.read_text().splitlines()}
    assert done == {(int(row), int(column)) for row, column in np.argwhere(~void)}
    pixels = void.repeat(16, axis=0).repeat(16, axis=1)[:50, :70]
    expected_now = np.where(pixels, 0, expected((50, 70), 16))
    expected_now[:16, :16] = 0
    np.testing.assert_array_equal(store.open(target)[0].values, expected_now)
    again = run(target, void=void)
    assert (again.done, again.void, again.skipped) == (1, 8, 11)
    with pytest.raises(BadInput, match=r"void must be one bool a tile, \(4, 5\)\. Got uint8 \(4, 5\)"):
        run(target, void=void.astype("uint8"))
    with pytest.raises(BadInput, match=r"Got bool \(4, 4\)"):
        run(target, void=void[:, :4])


def test_a_torn_ledger_is_named_and_costs_the_tiles_of_which_it_tells(tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    image = random_mosaic((1, 66, 2), chunks=2)
    mosaic.write(image, target, chunk=1, shard=1, progress=False).check()
    torn = target / "ledger" / "c" / "1" / "0"
    torn.write_bytes(torn.read_bytes()[:-3])
    for ask in (ledger.done, tasks.status, lambda path: mosaic.write(image, path, chunk=1, shard=1, progress=False)):
        with pytest.raises(Unreadable, match=r"whole\. Got .*out\.zarr, ledger/c/1/0 torn\. Remove ledger/c"):
            ask(target)
    torn.unlink()
    assert mosaic.write(image, target, chunk=1, shard=1, progress=False).check().done == 2 * 2
    np.testing.assert_array_equal(store.open(target).values, image.values)


def test_a_ledger_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    run(target, kernel=Numbers(str(target), fail=((1, 2),)), retries=0)
    group = store.group(target, write=True)
    plan, entries = dict(group["ledger"].attrs), group["ledger"][:]
    group.create_array("ledger", data=(entries != 0).astype("uint8"), chunks=(64, 64), fill_value=0, overwrite=True,
                       dimension_names=("tile_y", "tile_x"), attributes=plan)  # fmt: skip
    report = run(target, void=np.zeros((4, 5), bool))
    assert (report.done, report.skipped) == (1, 19)
    assert (store.group(target)["ledger"][:] == 1).all()


@pytest.mark.parametrize("times", [3, 10**9])
def test_a_ledger_that_cannot_be_written(times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, left = tmp_path / "out.zarr", [times]
    flush = ledger.Ledger.flush

    def full(self: ledger.Ledger) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(28, "No space left on device")
        flush(self)

    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "flush", full)
        if times == 3:
            assert run(target, kernel=Numbers(str(target), seconds=0.1), workers=2).check().done == 20
        else:
            with pytest.raises(Unfinished, match=r"ledger cannot be written: .*No space left.* Make room, then run"):
                run(target)
    assert run(target).skipped == (20 if times == 3 else 0)
    assert (store.open(target)[0].values == expected((50, 70), 16)).all()
