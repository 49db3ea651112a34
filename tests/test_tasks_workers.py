"""Workers that are not like this process are named and refused, before a run and in it."""

import os
import re
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from images import random_mosaic
from test_tasks import Numbers, expected, run

import lsdask as ls
from lsdask import tasks
from lsdask.errors import BadInput
from lsdask.recipes import grid
from lsdask.recipes.steps import Step
from lsdask.tasks import workers

PACKAGE = Path(ls.__file__).parent
OTHER = f"""
from pathlib import Path
exec(Path({str(PACKAGE / "__init__.py")!r}).read_text())
__path__ = [{str(PACKAGE)!r}]
__version__ = "9.9.9"
"""


def environment(kind: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """A Python, with its variables, that has another lsdask, none, or another torch."""
    if kind == "none":  # without site, where nothing finds the clone that is installed to be edited
        return [sys.executable, "-S"], {"PYTHONPATH": sysconfig.get_paths()["purelib"]}
    if kind == "other":
        (folder / "lsdask").mkdir()
        (folder / "lsdask" / "__init__.py").write_text(OTHER)
    else:
        (folder / "torch-99.0.dist-info").mkdir()
        (folder / "torch-99.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 99.0\n")
    return [sys.executable], {"PYTHONPATH": str(folder)}


SAID = {
    "none": f"no lsdask (here {ls.__version__})",
    "other": f"lsdask 9.9.9 (here {ls.__version__})",
    "torch": f"torch 99.0 (here {version('torch')})",
}


@contextmanager
def process(kind: str, folder: Path, module: str, *arguments: str) -> Iterator[None]:
    """A scheduler or worker of a strange environment."""
    folder = folder / kind
    folder.mkdir()
    python, variables = environment(kind, folder)
    command = [*python, "-m", f"distributed.cli.{module}", *arguments]
    env = {**os.environ, **variables}
    with open(folder / "log", "w") as log, subprocess.Popen(command, cwd=folder, env=env, stderr=log) as started:
        try:
            yield
        finally:
            started.terminate()


@contextmanager
def strange(kind: str, folder: Path, address: str) -> Iterator[None]:
    with process(kind, folder, "dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"):
        yield


@pytest.fixture
def client() -> Iterator[Client]:
    """A client of a cluster of one worker, in this process."""
    with (
        LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=":0", host="tcp://127.0.0.1") as made,
        Client(made) as client,
    ):
        yield client


@pytest.mark.cluster
@pytest.mark.parametrize("kind", SAID)
def test_a_strange_worker_is_named_before_a_run(kind: str, client: Client, tmp_path: Path) -> None:
    tasks.check_workers(client)
    (ours,) = client.nthreads()
    with strange(kind, tmp_path, client.scheduler.address):
        client.wait_for_workers(2, timeout=60)
        (theirs,) = set(client.nthreads()) - {ours}
        with pytest.raises(BadInput) as error:
            run(tmp_path / "out.zarr", client=client)
    assert str(error.value) == (
        "client must have the versions of this process in its scheduler and in each worker. "
        f"Got worker {theirs} with {SAID[kind]}. Give all of them one environment or image."
    )
    assert not (tmp_path / "out.zarr").exists()


def everything(folder: Path) -> dict[str, Callable[[Client], Any]]:
    """Each call that takes a client."""
    image = random_mosaic((2, 64, 64), void=0.0)
    ls.store.write(image, folder / "mosaic.zarr", chunk=32, shard=64)
    image = ls.store.open(folder / "mosaic.zarr")
    centers = ls.kmeans.fit(image, [2], n_samples=500)
    scores = ls.predict.apply(image, half, classes=["half"], tile=64, halo=0)
    areas = ls.inventory.vectorize(scores)
    tiles = ls.sampling.grid(image, 16)
    network = ls.models.build("soares_unet", bands=["b0", "b1"], filters=2)
    return {
        "mosaic.write": lambda client: ls.mosaic.write(image, folder / "a.zarr", client=client),
        "kmeans.write": lambda client: ls.kmeans.write(image, centers, folder / "b.zarr", client=client),
        "predict.run": lambda client: ls.predict.run(image, folder / "c.zarr", network, tile=64, client=client),
        "predict.plan": lambda client: ls.predict.plan(
            image, folder / "c.zarr", network, tile=64, probe=True, client=client
        ),
        "streaming": lambda client: next(iter(ls.streaming.TileStream(image, tiles, batch_size=2, client=client))),
        "grid.run": lambda client: grid.run([Step("runs/one", half, {})], folder / "d", client=client),
        "inventory.vectorize": lambda client: ls.inventory.vectorize(scores, client=client),
        "inventory.summarize": lambda client: ls.inventory.summarize(areas, image, client=client),
    }


def half(blocks: np.ndarray) -> np.ndarray:
    return np.full((len(blocks), 1, *blocks.shape[2:]), 0.75, "float32")


@pytest.mark.cluster
def test_every_call_with_a_client_asks_first(client: Client, tmp_path: Path) -> None:
    calls = everything(tmp_path)
    before = set(tmp_path.iterdir())
    with strange("other", tmp_path, client.scheduler.address):
        client.wait_for_workers(2, timeout=60)
        log = client.cluster.scheduler.transition_log
        begun = len(log)
        for name, call in calls.items():
            with pytest.raises(BadInput, match=r"worker tcp://.* with lsdask 9\.9\.9 "):
                pytest.fail(f"{name} gave {call(client)}")
        assert list(log)[begun:] == []  # no task has been told of
    left = {path.name for path in set(tmp_path.iterdir()) - before}
    assert left <= {"other", "d"}  # "d": the folder of an experiment, which holds its lock


@pytest.mark.cluster
@pytest.mark.parametrize("kind", ["none", "other"])
def test_a_strange_scheduler_is_told(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    ports = ["--port", "0", "--dashboard-address", ":0"]
    with process(kind, tmp_path, "dask_scheduler", "--scheduler-file", str(file), *ports):
        until = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < until
            time.sleep(0.1)
        with (
            Client(scheduler_file=str(file)) as client,
            pytest.raises(BadInput, match=re.escape(f"Got the scheduler with {SAID[kind]}.")),
        ):
            tasks.check_workers(client)


@pytest.mark.cluster
@pytest.mark.parametrize("kind", ["none", "other"])
def test_a_strange_worker_that_joins_later_computes_nothing(kind: str, client: Client, tmp_path: Path) -> None:
    target, log = tmp_path / "out.zarr", tmp_path / "log"
    raised: list[BaseException] = []

    def begin() -> None:
        try:
            run(target, kernel=Numbers(str(target), seconds=1.0, log=str(log)), client=client)
        except Exception as error:
            raised.append(error)

    begun = threading.Thread(target=begin)
    begun.start()
    while not log.exists():
        time.sleep(0.05)
    with strange(kind, tmp_path, client.scheduler.address):
        begun.join(60)
        assert not begun.is_alive()
    (error,) = raised
    assert isinstance(error, workers.Stranger)
    told = SAID[kind].replace("no lsdask", "out lsdask")  # with ..., without
    assert re.match(rf"Worker tcp://127\.0\.0\.1:\d+ has joined with ?{re.escape(told)}\. Give all of them", str(error))
    assert str(error).endswith("It was given nothing to compute, and what is done stays done: run again.")

    until = time.monotonic() + 60
    while len(client.nthreads()) > 1:
        assert time.monotonic() < until
        time.sleep(0.1)
    status = tasks.status(target)
    assert (status.tiles, status.void, status.failed) == (20, 0, ())
    report = run(target, client=client)
    assert (report.skipped, report.done, report.failed) == (status.done, 20 - status.done, ())
    np.testing.assert_array_equal(ls.store.open(target)[0].values, expected((50, 70), 16))


@pytest.mark.cluster
def test_a_task_on_a_strange_worker_is_not_done(client: Client, tmp_path: Path) -> None:
    (ours,) = client.nthreads()
    with tasks.carried(client, "thing") as cargo, strange("other", tmp_path, client.scheduler.address):
        client.wait_for_workers(2, timeout=60)
        (theirs,) = set(client.nthreads()) - {ours}
        for call in ((tasks.held, cargo.name), (tasks.do, tasks.versions(), str, "thing")):
            assert client.submit(*call, workers=[ours], pure=False).result(60) == "thing"
            with pytest.raises(workers.Stranger, match=f"Worker {theirs} has joined with lsdask 9.9.9"):
                client.submit(*call, workers=[theirs], pure=False).result(60)
        with pytest.raises(workers.Stranger, match=f"Worker {theirs} has joined"):
            cargo.check()


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"lsdask": "0.1.0", "numpy": "2.1.9", "python": "3.12.9"}, []),
        ({"lsdask": "0.1.1"}, ["lsdask 0.1.1 (here 0.1.0)"]),
        ({"numpy": "2.10.0"}, ["numpy 2.10.0 (here 2.1.0)"]),
        ({"torch": "2.9.0+cpu"}, []),
        ({"torch": None, "lsdask": None}, ["no torch (here 2.9.0+cu128)", "no lsdask (here 0.1.0)"]),
        ({"python": "3.13.0"}, ["python 3.13.0 (here 3.12.1)"]),
    ],
)
def test_which_versions_count(theirs: dict[str, str | None], said: list[str]) -> None:
    ours = {"lsdask": "0.1.0", "python": "3.12.1", "numpy": "2.1.0", "torch": "2.9.0+cu128"}
    assert workers.differences(theirs, ours) == said


@pytest.mark.cluster
@pytest.mark.slow
def test_workers_in_other_folders_find_what_is_named_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ls.store.write(random_mosaic((2, 64, 64), void=0.0), "mosaic.zarr", chunk=32, shard=64)
    image = ls.store.open("mosaic.zarr")
    network = ls.models.build("soares_unet", bands=["b0", "b1"], filters=2)
    centers = ls.kmeans.fit(image, [2], n_samples=500)
    made = LocalCluster(1, threads_per_worker=1, dashboard_address=":0")
    with made, Client(made) as client:
        client.run(os.chdir, "/")
        for name, where in (("here", None), ("there", client)):
            ls.mosaic.write(image, f"copy-{name}.zarr", client=where, progress=False).check()
            ls.kmeans.write(image, centers, f"labels-{name}.zarr", client=where, progress=False).check()
            ls.predict.run("mosaic.zarr", f"scores-{name}.zarr", network, tile=64, client=where, progress=False).check()
    for name in ("copy", "labels", "scores"):
        here, there = (ls.store.open(f"{name}-{where}.zarr") for where in ("here", "there"))
        np.testing.assert_array_equal(here.values, there.values)
