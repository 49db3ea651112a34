"""A run on a cluster without workers: it waits for those that may come, says so, and ends if none can."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster, Status
from images import random_mosaic

from lsdask import store, tasks, tiling
from lsdask.errors import Unfinished
from lsdask.tasks import pools


class Ones:
    """Writes ones."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __call__(self, tile: tiling.Tile) -> dict[str, float]:
        size = [side.stop - side.start for side in tile.write]
        store.put(self.target, np.ones((1, *size), "uint16"), *tile.write, name="image")
        return {}


def run(target: Path, client: Client) -> tasks.Report:
    template = random_mosaic((1, 32, 16), void=0).rename("image")
    return tasks.run(Ones(target), target=target, template=template, tile=16, client=client, progress=False)


def cluster(workers: int) -> LocalCluster:
    return LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)


def wait_for(what: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("states", "adaptive", "ended"),
    [
        ([Status.closed], None, True),
        ([Status.closed, Status.failed], None, True),
        (["closed"], None, True),
        ([Status.closed, Status.running], None, False),
        ([Status.closed, Status.init], None, False),  # it restarts
        ([Status.closed], "it makes others", False),
        ([], None, False),
    ],
)
def test_which_clusters_have_ended(states: list[Any], adaptive: str | None, ended: bool) -> None:
    workers = {number: SimpleNamespace(status=state) for number, state in enumerate(states)}
    assert pools.has_ended(SimpleNamespace(workers=workers, _adaptive=adaptive)) == ended


@pytest.mark.parametrize("cluster", [None, SimpleNamespace(), SimpleNamespace(workers={0: SimpleNamespace()})])
def test_what_says_nothing_has_not_ended(cluster: Any) -> None:
    assert not pools.has_ended(cluster)


@pytest.mark.cluster
def test_workers_that_were_interrupted_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "LOOKED_SECONDS", 0.2)
    target = tmp_path / "s.zarr"
    with cluster(1) as one, Client(one) as client:
        for process in client.run(os.getpid).values():
            os.kill(process, signal.SIGINT)
        wait_for(lambda: not client.nthreads() and all(w.status == Status.closed for w in one.workers.values()))
        with pytest.raises(Unfinished, match=r"No worker is left: each of this cluster has ended.*make another"):
            run(target, client)
    with cluster(1) as one, Client(one) as client:
        assert run(target, client).done == 2


@pytest.mark.cluster
def test_workers_that_come_later_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pools, "LOOKED_SECONDS", 0.1)
    monkeypatch.setattr(pools, "ALONE_SECONDS", 0.5)
    with cluster(0) as one, Client(one) as client, caplog.at_level(logging.WARNING, "lsdask.tasks.pools"):
        later = threading.Timer(2.0, one.scale, [1])
        later.start()
        assert run(tmp_path / "s.zarr", client).done == 2
        told = [record.getMessage() for record in caplog.records if record.name == "lsdask.tasks.pools"]
        assert 2 <= len(told) <= 40
        assert told[0].startswith("No worker has been there for ")
        caplog.clear()
        one.scale(0)
        one.adapt(minimum=0, maximum=1, interval="100ms")
        assert run(tmp_path / "t.zarr", client).done == 2
