"""Workers, clients and schedulers are killed, servers fail: no tile is lost, none is wrong, and it is said."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path

import dask
import numpy as np
import pytest
import s3
import slowly
from distributed import Client, LocalCluster
from scoring_slowly import Prediction
from slowly import TILES

from lsdask import mosaic, predict, store, tasks
from lsdask.errors import OtherPlan, Unfinished
from lsdask.store import places

TESTS = Path(__file__).parent


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> slowly.Place:
    """A run of a sum, or of what the test asks for instead."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))  # of workers, also of those that start later
    found = getattr(request, "param", slowly.Place)(tmp_path)
    found.prepare()
    return found


def both(test: Callable[..., None]) -> Callable[..., None]:
    """Give a test a run of a sum, and a prediction by a network."""
    return pytest.mark.parametrize("place", [slowly.Place, Prediction], indirect=True, ids=["sum", "network"])(test)


@pytest.fixture(scope="module")
def ready() -> None:
    """A process with all imports, from which workers are forked: they start in a moment, and start often here."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["distributed", "slowly", "scoring_slowly"])
    forkserver.ensure_running()


@pytest.fixture
def cluster(ready: None, place: slowly.Place) -> Iterator[LocalCluster]:
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        yield cluster


@contextmanager
def started(*command: object, **options: object) -> Iterator[subprocess.Popen[str]]:
    """A process group that is gone when the block ends, whatever happens in it."""
    arguments = [sys.executable, *map(str, command)]
    with subprocess.Popen(arguments, text=True, start_new_session=True, **options) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.cluster
@pytest.mark.slow
@both
def test_ten_killed_workers(place: slowly.Place, cluster: LocalCluster) -> None:
    rng, kills = random.Random(0), []

    def kill() -> None:
        while len(kills) < 10:
            place.wait(5 * (len(kills) + 1))
            living = [worker for worker in cluster.workers.values() if worker.pid is not None]
            os.kill(rng.choice(living).pid, signal.SIGKILL)
            kills.append(place.begun())
            while any(worker.pid in (None, 0) or not alive(worker.pid) for worker in cluster.workers.values()):
                time.sleep(0.05)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with Client(cluster) as client:
        report = place.run(client=client)
    killer.join()
    assert len(kills) == 10
    again = place.run()  # those that four workers in a row died of are given up, and named
    assert all("KilledWorker" in failure.why for failure in report.failed)
    assert (report.done + len(report.failed), again.done, again.failed) == (TILES, len(report.failed), ())
    # Of each killed worker, what it computed and what it had computed but not yet handed over is done again.
    assert TILES <= place.begun() <= TILES + 2 * len(kills) + len(report.failed)
    place.check()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.cluster
@pytest.mark.slow
@both
def test_a_killed_client(place: slowly.Place, cluster: LocalCluster) -> None:
    with started(place.script, place.folder, cluster.scheduler_address) as process:
        place.wait(20)
        process.send_signal(signal.SIGKILL)
        process.wait()
    begun = place.begun()
    status = tasks.status(place.target)
    assert not status.running
    # In flight were up to two tiles a thread, and as many had ended within the last moment.
    assert begun - 8 <= status.done <= begun
    with Client(cluster) as client:
        report = place.run(client=client).check()
    assert report.skipped == status.done
    assert report.done + report.skipped == TILES
    assert TILES <= place.begun() <= TILES + 8
    place.check()


CLUSTER = """
import time
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        time.sleep(3600)
"""


@pytest.mark.cluster
@pytest.mark.slow
def test_a_lost_scheduler(place: slowly.Place) -> None:
    with started("-c", CLUSTER, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()

        def kill() -> None:
            place.wait(15)
            os.killpg(process.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
            Client(address, timeout=120) as client,
            pytest.raises(Unfinished, match=r"The Dask scheduler is lost .* What is done stays done"),
        ):
            place.run(client=client)
        killer.join()
    status = tasks.status(place.target)
    assert not status.running
    assert 15 - 8 <= status.done <= place.begun()
    report = place.run(workers=4, seconds=0.0).check()
    assert (report.skipped, report.done) == (status.done, TILES - status.done)
    place.check()


@pytest.mark.cluster
@pytest.mark.slow
def test_two_clients_on_one_target(place: slowly.Place, cluster: LocalCluster) -> None:
    with started(TESTS / "slowly.py", place.folder, cluster.scheduler_address) as process:
        place.wait(4)
        assert tasks.status(place.target).running
        with pytest.raises(OtherPlan, match="is being written by another run"):
            place.run()
        assert process.wait() == 0
    place.check()


# A prediction whose source fails

OPTIONS = {"tile": 32, "halo": 1, "dtype": "float32", "progress": False}


def around(blocks: np.ndarray) -> np.ndarray:
    return (slowly.sum_block(blocks.astype("float32")) / 9000).mean(axis=1, keepdims=True)


def test_a_source_that_answers_503_for_a_while(place: slowly.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    target = place.folder / "scores.zarr"
    expected = predict.apply(store.open(place.source), around, tile=256, halo=1, dtype="float32").values
    monkeypatch.setattr(places, "RETRY", {"max_retries": 0})
    with s3.serving(monkeypatch) as server, s3.Troubled(server) as troubled:
        monkeypatch.setenv("AWS_ENDPOINT_URL", troubled.url)
        source = f"s3://{s3.BUCKET}/image.zarr"
        store.write(store.open(place.source), source, chunk=32, shard=64)
        read = store.Reader.read
        broken: list[int] = []

        def break_once(self: store.Reader, y: slice, x: slice) -> np.ndarray:
            if y.start >= 100 and not broken:
                broken.append(y.start)
                troubled.broken = True
                threading.Timer(0.2, setattr, (troubled, "broken", False)).start()
            return read(self, y, x)

        with monkeypatch.context() as patch:
            patch.setattr(store.Reader, "read", break_once)
            predict.run(source, target, around, workers=2, retries=5, **OPTIONS).check()
        assert troubled.refused > 0
        assert max(line["tried"] for line in tasks.metrics(target)) > 1
        np.testing.assert_array_equal(store.open(target).values, expected)

        # One that stays away fails its tiles, which are named, and the run ends.
        for row in range(8):
            (target / f"scores/c/0/{row}/0").unlink()
        assert len(predict.verify(target, progress=False).damaged) == 8

        def break_for_good(self: store.Reader, y: slice, x: slice) -> np.ndarray:
            troubled.broken = y.stop > 128
            return read(self, y, x)

        with monkeypatch.context() as patch:
            patch.setattr(store.Reader, "read", break_for_good)
            report = predict.run(source, target, around, workers=1, retries=0, **OPTIONS)
        troubled.broken = False
        lost = [(row, 0) for row in range(3, 8)]
        assert [failure.place for failure in report.failed] == lost
        assert all("503" in failure.why for failure in report.failed)
        assert [failure.place for failure in predict.status(target).failed] == lost
        assert predict.run(source, target, around, workers=2, **OPTIONS).check().done == 5
        np.testing.assert_array_equal(store.open(target).values, expected)
        troubled.shutdown()


def test_an_altered_source_is_found_where_it_has_checksums(place: slowly.Place, tmp_path: Path) -> None:
    """A decoder does not notice every altered byte; a source that a run wrote can be verified."""
    mosaic.write(store.open(place.source), tmp_path / "m.zarr", chunk=16, shard=64, progress=False).check()
    shard = tmp_path / "m.zarr" / "mosaic" / "c" / "0" / "2" / "1"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    assert [one.place for one in tasks.verify(tmp_path / "m.zarr", progress=False).damaged] == [(2, 1)]
