"""A cluster writes an Icechunk repository: still one commit a run, whatever becomes of workers and client."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import s3
import xarray as xr
import zarr
from distributed import Client, LocalCluster
from images import random_mosaic

import lsdask as ls
from lsdask import ledger, mosaic, store, tasks, tiling
from lsdask.errors import BadInput, OtherPlan, Unfinished

pytestmark = pytest.mark.cluster

OPTIONS: dict[str, Any] = {"chunk": 8, "shard": 16, "progress": False}
SHAPE = (2, 50, 40)
TILES = 12


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.run(sys.path.insert, 0, str(Path(__file__).parent))
        yield client


@pytest.fixture(scope="module")
def server(client: Client) -> Iterator[s3.Server]:
    with pytest.MonkeyPatch.context() as environment, s3.serving(environment) as server:
        client.run(_know, server.environment())
        yield server


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a repository may be made: a path that means another folder to the workers, and one in a bucket."""
    if request.param == "local":
        monkeypatch.chdir(tmp_path)
        return "icechunk:repo"
    request.getfixturevalue("server")
    return f"icechunk:s3://{s3.BUCKET}/{tmp_path.name}"


@pytest.fixture
def local(tmp_path: Path) -> str:
    return f"icechunk:{tmp_path / 'repo'}"


def _know(environment: dict[str, str]) -> None:
    os.environ.update(environment)


def repository(place: str) -> icechunk.Repository:
    """Open a repository by Icechunk's own interface."""
    where = place.removeprefix("icechunk:")
    if not where.startswith("s3://"):
        return icechunk.Repository.open(icechunk.local_filesystem_storage(os.path.abspath(where)))
    bucket, _, prefix = where.removeprefix("s3://").partition("/")
    url, region = os.environ["AWS_ENDPOINT_URL"], os.environ["AWS_REGION"]
    options = {"endpoint_url": url, "region": region, "allow_http": True, "force_path_style": True}
    return icechunk.Repository.open(icechunk.s3_storage(bucket=bucket, prefix=prefix, from_env=True, **options))


def commits(place: str) -> list[str]:
    """Give what the commits of the only branch say, the latest first."""
    assert repository(place).list_branches() == {"main"}
    return [commit.message for commit in repository(place).ancestry(branch="main")][:-1]


def pixels(place: str, **version: str) -> np.ndarray:
    """Read a repository without lsdask."""
    held = repository(place).readonly_session(**version or {"branch": "main"}).store
    dataset = xr.open_zarr(held, consolidated=False, chunks=None, mask_and_scale=False)
    return np.asarray(dataset["mosaic"].values)


def test_a_cluster_writes_the_pixels_of_a_local_store_in_one_commit(place: str, tmp_path: Path, client: Client) -> None:
    image = random_mosaic(SHAPE, chunks=16)
    report = mosaic.write(image, place, client=client, **OPTIONS).check()
    mosaic.write(image, tmp_path / "plain.zarr", **OPTIONS).check()
    assert (report.done, commits(place)) == (TILES, ["lsdask mosaic"])
    np.testing.assert_array_equal(pixels(place), image.values)
    np.testing.assert_array_equal(pixels(place), store.open(tmp_path / "plain.zarr").values)
    np.testing.assert_array_equal(ledger.entries(place), ledger.entries(tmp_path / "plain.zarr"))
    assert tasks.verify(place, progress=False).check().sound == TILES
    assert mosaic.write(image, place, client=client, **OPTIONS).done == 0
    assert len(commits(place)) == 1  # nothing written, nothing committed


def test_a_worker_with_another_icechunk_is_named_before_anything_is_made(
    local: str, tmp_path: Path, client: Client
) -> None:
    told = tmp_path / "icechunk-9.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: icechunk\nVersion: 9.0\n")
    command = [sys.executable, "-m", "distributed.cli.dask_worker", client.scheduler.address, "--no-nanny"]
    worker = subprocess.Popen([*command, "--no-dashboard"], env={**os.environ, "PYTHONPATH": str(tmp_path)})
    client.wait_for_workers(3, timeout=60)
    with pytest.raises(BadInput, match=rf"with icechunk 9\.0 \(here {icechunk.__version__}\)"):
        mosaic.write(random_mosaic(SHAPE), local, client=client, **OPTIONS)
    worker.terminate()
    worker.wait()
    assert not store.exists(local)


def test_from_one_repository_to_another(place: str, client: Client) -> None:
    image = random_mosaic(SHAPE, chunks=16)
    mosaic.write(image, place, workers=2, **OPTIONS).check()
    mosaic.write(store.open(f"{place}@main"), f"{place}-again", client=client, **OPTIONS).check()
    np.testing.assert_array_equal(pixels(f"{place}-again"), image.values)


@pytest.mark.slow
def test_labels_with_votes_and_scores(tmp_path: Path, client: Client) -> None:
    image = random_mosaic((2, 64, 48))
    centers = ls.kmeans.fit(image, [2, 3], n_samples=500)
    labels, scores = (f"icechunk:{tmp_path / name}" for name in ("labels", "scores"))
    ls.kmeans.write(image, centers, labels, shard=32, tile=16, client=client, progress=False).check()
    ls.kmeans.write(image, centers, tmp_path / "labels.zarr", shard=32, tile=16, progress=False).check()
    options: dict[str, Any] = {"classes": ["c"], "tile": 32, "halo": 0, "progress": False}
    ls.predict.run(image, scores, brightness, client=client, **options).check()
    ls.predict.run(image, tmp_path / "scores.zarr", brightness, **options).check()
    for shared, plain in ((labels, "labels.zarr"), (scores, "scores.zarr")):
        np.testing.assert_array_equal(store.open(shared).values, store.open(tmp_path / plain).values)
        assert len(commits(shared)) == 1
    np.testing.assert_array_equal(ls.kmeans.read_majority(labels), ls.kmeans.read_majority(tmp_path / "labels.zarr"))


def brightness(blocks: np.ndarray) -> np.ndarray:
    """A model."""
    return np.asarray(blocks[:, :1] / 1000, "float32")


@dataclass(frozen=True)
class Flagged:
    """A block function that does something the first time it meets the tile at (1, 1), and then says so by a file."""

    flag: str

    def __call__(self, block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        if block_id[1:] == (1, 1) and not Path(self.flag).exists():
            Path(self.flag).touch()
            self.act()
        return block

    def act(self) -> None:
        """Do it."""
        raise NotImplementedError

    def on(self, image: xr.DataArray) -> xr.DataArray:
        """Make it part of a lazy image."""
        name = type(self).__name__
        return image.copy(data=image.data.map_blocks(self, dtype=image.dtype, name=name, meta=image.data._meta))


class Fails(Flagged):
    """A read that fails."""

    def act(self) -> None:
        raise OSError("torn")


def test_failed_tiles_are_a_second_commit(local: str, tmp_path: Path, client: Client) -> None:
    image = random_mosaic(SHAPE, chunks=16)
    lazy = Fails(str(tmp_path / "failed")).on(image)
    report = mosaic.write(lazy, local, client=client, retries=0, **OPTIONS)
    assert [failure.place for failure in report.failed] == [(1, 1)]
    held = image.values
    held[:, 16:32, 16:32] = 0
    np.testing.assert_array_equal(pixels(local), held)
    report = mosaic.write(lazy, local, client=client, **OPTIONS).check()
    assert (report.done, report.skipped, len(commits(local))) == (1, TILES - 1, 2)
    np.testing.assert_array_equal(pixels(local), image.values)


@dataclass(frozen=True)
class Torn:
    """A kernel whose first attempt at the tile at (1, 1) writes into another tile, and then fails or is killed."""

    target: str
    flag: str
    killed: bool

    def __call__(self, tile: tiling.Tile) -> dict[str, float]:
        if tile.place == (1, 1) and not Path(self.flag).exists():
            Path(self.flag).touch()
            self._put(np.s_[0:16], np.s_[0:16], 9)
            if self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("torn")
        self._put(*tile.write, 1 + tile.place[0])
        return {}

    def _put(self, y: slice, x: slice, value: int) -> None:
        size = (1, y.stop - y.start, x.stop - x.start)
        store.put(self.target, np.full(size, value, "uint16"), y, x, name="mosaic")


@pytest.mark.parametrize("way", ["a thread fails", "a worker fails", "a worker is killed"])
def test_nothing_of_an_attempt_that_did_not_end_is_committed(
    local: str, tmp_path: Path, client: Client, way: str
) -> None:
    void = np.zeros((3, 2), bool)
    void[0, 0] = True
    report = tasks.run(
        Torn(local, str(tmp_path / "begun"), killed=way.endswith("killed")),
        target=local,
        template=random_mosaic((1, 48, 32)),
        tile=16,
        chunk=8,
        client=None if "thread" in way else client,
        progress=False,
        void=void,
    ).check()
    assert (tmp_path / "begun").exists()
    assert (report.done, report.void, commits(local)) == (5, 1, ["lsdask tiles"])
    expected = np.repeat(np.arange(1, 4, dtype="uint16"), 16)[:, None].repeat(32, axis=1)
    expected[:16, :16] = 0
    np.testing.assert_array_equal(pixels(local)[0], expected)
    assert tasks.verify(local, progress=False).check().sound == 6


def test_a_worker_that_is_killed(local: str, tmp_path: Path, client: Client) -> None:
    image = random_mosaic(SHAPE, chunks=16)
    lazy = Slow(str(tmp_path / "tiles")).on(image)
    victims = [worker.pid for worker in client.cluster.workers.values()]

    def kill() -> None:
        _wait(tmp_path / "tiles", 5)
        os.kill(victims[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    report = mosaic.write(lazy, local, client=client, **OPTIONS).check()
    killer.join()
    assert (report.done, commits(local)) == (TILES, ["lsdask mosaic"])
    np.testing.assert_array_equal(pixels(local), image.values)
    assert tasks.verify(local, progress=False).check().sound == TILES
    client.wait_for_workers(2, timeout=60)


@dataclass(frozen=True)
class Slow(Flagged):
    """Takes a moment for each block, and adds a letter to a file."""

    def __call__(self, block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        time.sleep(0.1)
        with open(self.flag, "a") as log:
            log.write("x")
        return block


def _wait(log: Path, tiles: int) -> None:
    until = time.monotonic() + 60
    while not log.exists() or log.stat().st_size < tiles:
        assert time.monotonic() < until, "no tile is computed"
        time.sleep(0.01)


def test_a_cluster_that_ends_meanwhile_leaves_a_commit_to_go_on_from(local: str, tmp_path: Path) -> None:
    image = random_mosaic(SHAPE, chunks=16)
    lazy = Slow(str(tmp_path / "tiles")).on(image)
    cluster = LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=":0")
    with Client(cluster, set_as_default=False) as client:

        def close() -> None:
            _wait(tmp_path / "tiles", 5)
            cluster.close()

        closer = threading.Thread(target=close)
        closer.start()
        with pytest.raises(Unfinished, match="What is done stays done"):
            mosaic.write(lazy, local, client=client, **OPTIONS)
        closer.join()
    done = int(ledger.done(local).sum())
    assert 3 <= done < TILES
    assert mosaic.write(lazy, local, workers=2, **OPTIONS).check().skipped == done
    assert len(commits(local)) == 2
    np.testing.assert_array_equal(pixels(local), image.values)


def test_no_secret_travels_with_a_fork(server: s3.Server) -> None:
    place = f"icechunk:s3://{s3.BUCKET}/forked"
    with store.session(place, "nothing"):
        sent = pickle.dumps(store.fork(place))
    assert server.environment()["AWS_SECRET_ACCESS_KEY"].encode() not in sent
    assert server.url.encode() in sent


@dataclass(frozen=True)
class Meddles(Flagged):
    """Another writer, who commits to the branch while the run is on."""

    place: str

    def act(self) -> None:
        writing = repository(self.place).writable_session("main")
        zarr.open_group(writing.store, mode="a").attrs["whose"] = "another's"
        writing.commit("another's")


def test_a_branch_that_another_moves_meanwhile(place: str, tmp_path: Path, client: Client) -> None:
    image = random_mosaic(SHAPE, chunks=16)
    lazy = Meddles(str(tmp_path / "meddled"), store.absolute(place)).on(image)
    with pytest.raises(OtherPlan, match="written by another run meanwhile, so nothing was committed") as caught:
        mosaic.write(lazy, place, client=client, **OPTIONS).check()
    assert commits(place) == ["another's"]
    assert dict(zarr.open_group(repository(place).readonly_session("main").store, mode="r").attrs) == {
        "whose": "another's"
    }
    kept = str(caught.value).rsplit("@", 1)[1].rstrip(".")
    np.testing.assert_array_equal(pixels(place, snapshot_id=kept), image.values)
    np.testing.assert_array_equal(store.open(f"{place}@{kept}").values, image.values)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from distributed import Client
from images import random_mosaic
from test_store_versions_cluster import OPTIONS, SHAPE, Slow
from lsdask import mosaic
with Client({address!r}) as client:
    mosaic.write(Slow({log!r}).on(random_mosaic(SHAPE, chunks=16)), {place!r}, client=client, **OPTIONS)
"""


def test_a_client_that_is_killed_leaves_the_repository_as_it_was(local: str, tmp_path: Path, client: Client) -> None:
    log, scheduler = tmp_path / "tiles", client.scheduler
    script = SCRIPT.format(tests=str(Path(__file__).parent), address=scheduler.address, log=str(log), place=local)
    process = subprocess.Popen([sys.executable, "-c", script])
    _wait(log, 4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert commits(local) == []
    assert not store.exists(local)
    image = random_mosaic(SHAPE, chunks=16)
    assert mosaic.write(image, local, client=client, **OPTIONS).check().done == TILES
    assert commits(local) == ["lsdask mosaic"]
    np.testing.assert_array_equal(pixels(local), image.values)
