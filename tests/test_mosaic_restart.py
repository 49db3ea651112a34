"""Runs of ``mosaic.write`` that are killed, starved of disk or refused by their server, locally and in an S3 store."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3
import xarray as xr
from images import random_mosaic

from lsdask import ledger, mosaic, store
from lsdask.errors import OtherPlan, Unfinished
from lsdask.store import leases, places

OPTIONS: dict[str, Any] = {"chunk": 16, "shard": 32, "workers": 2, "progress": False}
TILES = 16


def image(seconds: float = 0.0, *, log: str | None = None, shape: tuple[int, int] = (120, 101)) -> xr.DataArray:
    """A lazy image of 4 x 4 shards, the last of which are cut by the edge; the same for all who ask."""

    def slow(block: np.ndarray) -> np.ndarray:
        time.sleep(seconds)
        if log is not None:
            with open(log, "a") as lines:
                lines.write("block\n")
        return block

    whole = random_mosaic((2, *shape), chunks=32)
    return whole.copy(data=whole.data.map_blocks(slow, name="slow", dtype=whole.dtype, meta=whole.data._meta))


def stored(target: str) -> dict[str, bytes]:
    """Every object of the image and of the ledger of a target."""
    if store.is_local(target):
        files = [path for path in Path(target).rglob("*") if path.is_file() and path.name != ".lock"]
        found = {str(path.relative_to(target)): path.read_bytes() for path in files}
    else:
        objects = places.objects(target)
        keys = [one["path"] for page in objects.list() for one in page]
        found = {key: bytes(objects.get(key).bytes()) for key in keys}
    # But for the root, which holds a random name, and the metrics, which hold times.
    return {key: value for key, value in found.items() if key != "zarr.json" and "ledger/metrics" not in key}


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A place for targets."""
    if request.param == "local":
        yield str(tmp_path)
        return
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 2.0)
    with s3.serving(monkeypatch):
        yield f"s3://{s3.BUCKET}/runs"


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import test_mosaic_restart as test
test.mosaic.write(test.image(0.15, log={log!r}), {target!r}, **test.OPTIONS)
"""


def start(target: str, log: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(tests=str(Path(__file__).parent), target=target, log=str(log))]
    )


@pytest.mark.parametrize("blocks", [7, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 13))])
def test_a_killed_run_ends_as_if_nothing_had_happened(folder: str, tmp_path: Path, blocks: int) -> None:
    log = tmp_path / "log"
    process = start(f"{folder}/killed.zarr", log)
    while not log.exists() or len(log.read_text().splitlines()) < blocks:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    report = mosaic.write(image(), f"{folder}/killed.zarr", **OPTIONS).check()
    assert report.done + report.skipped == TILES
    assert max(blocks - 6, 0) <= report.skipped <= blocks + 2
    mosaic.write(image(), f"{folder}/whole.zarr", **OPTIONS).check()
    assert stored(f"{folder}/killed.zarr") == stored(f"{folder}/whole.zarr")
    np.testing.assert_array_equal(store.open(f"{folder}/killed.zarr").values, image().values)


def test_what_a_killed_run_left_half_written_is_written_again(folder: str) -> None:
    target = f"{folder}/a.zarr"
    mosaic.write(image(), target, **OPTIONS).check()
    whole = stored(target)
    book = ledger.read(target)
    for place in ((0, 0), (3, 3), (1, 3)):  # of which two are cut by the edge
        book.clear(place)
        key = f"mosaic/c/0/{place[0]}/{place[1]}"
        if store.is_local(target):
            (Path(target) / key).write_bytes(whole[key][:77])
            for rest in (key, "ledger/c/0/0"):  # what Zarr was writing when the run was killed
                (Path(target) / f"{rest}.a58b5fab.partial").write_bytes(b"torn")
        else:
            places.objects(target).put(key, whole[key][:77])
    book.flush()
    assert mosaic.write(image(), target, **OPTIONS).check().done == 3
    assert stored(target) == whole


def test_a_store_that_was_never_finished_being_made(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = f"{folder}/a.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "start", lambda *parts, **options: (_ for _ in ()).throw(MemoryError("killed here")))
        with pytest.raises(MemoryError):
            mosaic.write(image(), target, **OPTIONS)
    assert not store.exists(target)
    mosaic.write(image(), target, **OPTIONS).check()
    np.testing.assert_array_equal(store.open(target).values, image().values)


FULL = """
import resource, sys
sys.path.insert(0, {tests!r})
import test_mosaic_restart as test
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
report = test.mosaic.write(test.image(shape=(240, 202)), {target!r}, chunk=64, shard=128, retries=0, progress=False)
print(report.done, len(report.failed), report.failed[0].why)
"""


def test_a_full_disk_is_named_and_the_rest_is_done(tmp_path: Path) -> None:
    target, whole = str(tmp_path / "a.zarr"), str(tmp_path / "whole.zarr")
    options, large = {**OPTIONS, "chunk": 64, "shard": 128}, image(shape=(240, 202))
    mosaic.write(large, whole, **options).check()
    sizes = sorted(len(value) for key, value in stored(whole).items() if "mosaic/c/" in key)
    script = FULL.format(tests=str(Path(__file__).parent), target=target, limit=sizes[1])
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    done, failed, why = printed.split(maxsplit=2)
    assert (int(done), int(failed)) == (2, 2)
    assert "File too large" in why
    assert mosaic.write(large, target, **options).check().done == 2
    assert stored(target) == stored(whole)


def test_a_server_in_trouble_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3.serving(monkeypatch) as server, s3.Troubled(server) as troubled:
        monkeypatch.setenv("AWS_ENDPOINT_URL", troubled.url)
        target = f"s3://{s3.BUCKET}/a.zarr"
        trouble = threading.Timer(0.6, setattr, (troubled, "broken", True))
        end = threading.Timer(2.6, setattr, (troubled, "broken", False))
        trouble.start()
        end.start()
        mosaic.write(image(0.2), target, **OPTIONS).check()
        assert troubled.refused > 0
        np.testing.assert_array_equal(store.open(target).values, image().values)
        troubled.shutdown()


def test_a_server_that_stays_in_trouble_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3.serving(monkeypatch) as server, s3.Troubled(server) as troubled:
        monkeypatch.setenv("AWS_ENDPOINT_URL", troubled.url)
        target = f"s3://{s3.BUCKET}/a.zarr"
        mosaic.write(image(), target, **OPTIONS).check()
        book = ledger.read(target)
        book.clear((1, 1))
        book.flush()
        monkeypatch.setattr(places, "RETRY", {"max_retries": 0})
        monkeypatch.setattr(leases, "EXPIRY_SECONDS", 0.5)  # its lease cannot be given back
        read = store.Reader.read

        def break_then_read(self: store.Reader, y: slice, x: slice) -> np.ndarray:
            troubled.broken = True
            threading.Timer(1.0, setattr, (troubled, "broken", False)).start()
            return read(self, y, x)

        with monkeypatch.context() as patch:
            patch.setattr(store.Reader, "read", break_then_read)
            report = mosaic.write(image(), target, retries=0, **OPTIONS)
        while troubled.broken:
            time.sleep(0.05)
        with pytest.raises(Unfinished, match=r"tile \(1, 1\): .*503"):
            report.check()
        assert mosaic.write(image(), target, **OPTIONS).check().done == 1
        troubled.shutdown()


def test_two_runs_on_one_object_store_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 3.0)
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.2)
    with s3.serving(monkeypatch):
        target = f"s3://{s3.BUCKET}/a.zarr"
        reports = []
        first = threading.Thread(target=lambda: reports.append(mosaic.write(image(0.15), target, **OPTIONS)))
        first.start()
        while not store.exists(target):
            time.sleep(0.02)
        with pytest.raises(OtherPlan, match=r"is being written by another run \(process"):
            mosaic.write(image(), target, **OPTIONS)
        first.join()
        assert reports[0].check().done == TILES


def test_a_run_that_loses_its_lease_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.1)
    with s3.serving(monkeypatch):
        target = f"s3://{s3.BUCKET}/a.zarr"
        lease = b'{"run": "another", "machine": "m", "process": 1}'
        steal = threading.Timer(0.5, lambda: places.objects(f"s3://{s3.BUCKET}").put("a.zarr.lock", lease))
        steal.start()
        with pytest.raises(OtherPlan, match="was taken over by another run"):
            mosaic.write(image(0.3), target, **OPTIONS)
        assert bytes(places.objects(f"s3://{s3.BUCKET}").get("a.zarr.lock").bytes()) == lease


@pytest.mark.cluster
@pytest.mark.slow
def test_a_cluster_writes_to_an_object_store_in_one_task_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client, LocalCluster
    from distributed.diagnostics.plugin import SchedulerPlugin

    class Count(SchedulerPlugin):
        """Counts the tasks that a scheduler is given."""

        tasks = 0

        def update_graph(self, *parts: object, tasks: list[object], **options: object) -> None:
            self.tasks += len(tasks)

    with (
        s3.serving(monkeypatch),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        count = Count()
        cluster.scheduler.add_plugin(count)
        target = f"s3://{s3.BUCKET}/a.zarr"
        first = mosaic.write(image(), target, client=client, chunk=16, shard=32, progress=False).check()
        assert (first.done, count.tasks) == (TILES, TILES)
        assert mosaic.write(image(), target, client=client, chunk=16, shard=32, progress=False).skipped == TILES
        np.testing.assert_array_equal(store.open(target).values, image().values)
