"""Icechunk repositories as targets: one commit a run, every commit readable."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import s3
import xarray as xr
from images import random_mosaic

from lsdask import ledger, mosaic, store, tiling
from lsdask.errors import BadInput, NotFound, OtherPlan
from lsdask.tasks import driving

OPTIONS: dict[str, Any] = {"chunk": 8, "shard": 16, "workers": 2, "progress": False}


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"icechunk:{tmp_path / 'repo'}"


def repository(place: str) -> icechunk.Repository:
    return icechunk.Repository.open(icechunk.local_filesystem_storage(place.removeprefix("icechunk:")))


def commits(place: str) -> list[str]:
    return [commit.message for commit in repository(place).ancestry(branch="main")][:-1]


def test_a_run_is_a_commit_and_every_commit_can_be_read(place: str) -> None:
    image, other = random_mosaic((2, 50, 40), chunks=20), random_mosaic((2, 50, 40), seed=1)
    mosaic.write(image, place, **OPTIONS).check()
    assert commits(place) == ["lsdask mosaic"]
    repository(place).create_tag("first", repository(place).lookup_branch("main"))
    snapshot = repository(place).lookup_tag("first")
    store.array(place)  # reading takes no transaction
    with pytest.raises(OtherPlan, match="source"):
        mosaic.write(other, place, **OPTIONS)
    assert commits(place) == ["lsdask mosaic"]
    with store.session(place, "other pixels"):
        store.array(place, mode="r+")[:] = other.values
        np.testing.assert_array_equal(store.open(place).values, other.values)
    for name, expected in (("", other), ("@main", other), ("@first", image), (f"@{snapshot}", image)):
        np.testing.assert_array_equal(store.open(place + name).values, expected.values)
    plain = xr.open_zarr(repository(place).readonly_session(tag="first").store, consolidated=False)
    assert plain["mosaic"].dims == ("band", "y", "x")
    with pytest.raises(NotFound, match=r"path must name a branch, tag or snapshot .* It holds first, main"):
        store.open(f"{place}@second")
    with pytest.raises(NotFound, match="path must name an Icechunk repository"):
        store.open(f"{place}-of-nobody")
    assert store.is_repository(place)
    assert not store.exists(f"{place}-of-nobody")


def test_failed_tiles_leave_a_commit_to_go_on_from(place: str) -> None:
    image = random_mosaic((2, 50, 40), chunks=16)
    broken = {"now": True}

    def fail(block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        if broken["now"] and block_id[1:] == (1, 1):
            raise OSError("torn")
        return block

    lazy = image.copy(data=image.data.map_blocks(fail, dtype=image.dtype, name="fail"))
    report = mosaic.write(lazy, place, retries=0, **OPTIONS)
    assert [failure.place for failure in report.failed] == [(1, 1)]
    assert ledger.done(place).sum() == report.done == 11
    broken["now"] = False
    report = mosaic.write(lazy, place, **OPTIONS).check()
    assert (report.done, report.skipped) == (1, 11)
    assert len(commits(place)) == 2
    np.testing.assert_array_equal(store.open(place).values, image.values)
    assert mosaic.write(lazy, place, **OPTIONS).done == 0
    assert len(commits(place)) == 2  # nothing written, nothing committed


def test_an_interrupted_run_commits_what_it_has_done(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_mosaic((2, 50, 40), chunks=16)
    write = mosaic.WriteTile.__call__

    def interrupted(self: mosaic.WriteTile, tile: tiling.Tile) -> dict[str, float]:
        if tile.place == (2, 1):
            raise KeyboardInterrupt
        return write(self, tile)

    with monkeypatch.context() as patch:
        patch.setattr(mosaic.WriteTile, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mosaic.write(image, place, **OPTIONS)
    report = mosaic.write(image, place, **OPTIONS).check()
    assert report.skipped >= 5
    np.testing.assert_array_equal(store.open(place).values, image.values)


def test_two_runs_at_once(place: str, tmp_path: Path) -> None:
    image = random_mosaic((2, 50, 40))
    with store.session(place, "the first"), pytest.raises(OtherPlan, match="is being written by another run"):
        mosaic.write(image, place, **OPTIONS)


def test_of_two_transactions_only_one_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_mosaic((2, 50, 40))
    with s3.serving(monkeypatch):
        place = f"icechunk:s3://{s3.BUCKET}/repo"
        mosaic.write(image, place, **OPTIONS).check()
        np.testing.assert_array_equal(store.open(place).values, image.values)
        with pytest.raises(OtherPlan, match="was written by another run meanwhile") as caught:
            _write_twice_at_once(place)
        assert (store.open(place).values == 2).all()
        kept = str(caught.value).rpartition("What this run wrote is ")[2].rstrip(".")
        assert (store.open(kept).values == 1).all()


def _write_twice_at_once(place: str) -> None:
    with store.session(place, "a"):
        store.array(place, mode="r+")[:] = 1
        with store.session(f"{place}@main", "b"):
            store.array(f"{place}@main", mode="r+")[:] = 2


SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
from images import random_mosaic
from lsdask import mosaic
image = random_mosaic((2, 50, 40), chunks=16)
def slow(block):
    time.sleep(0.2)
    print("block", flush=True)
    return block
lazy = image.copy(data=image.data.map_blocks(slow, dtype=image.dtype, name="slow", meta=image.data._meta))
mosaic.write(lazy, {place!r}, chunk=8, shard=16, workers=1, progress=False)
"""


def test_a_killed_run_leaves_the_repository_as_it_was(place: str) -> None:
    script = SCRIPT.format(tests=str(Path(__file__).parent), place=place)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(4):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert commits(place) == []
    image = random_mosaic((2, 50, 40), chunks=16)
    assert mosaic.write(image, place, **OPTIONS).check().done == 12
    np.testing.assert_array_equal(store.open(place).values, image.values)


def test_the_ledger_is_written_once(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    flush = ledger.Ledger.flush
    monkeypatch.setattr(driving, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(ledger.Ledger, "flush", lambda book: (flushed.append(int(book.done.sum())), flush(book)))
    mosaic.write(random_mosaic((2, 50, 40)), place, **OPTIONS).check()
    assert flushed == [12]  # what a repository is given stays there, committed or not
    assert ledger.done(place).all()


def test_a_relative_place_is_the_folder_it_was_named_in(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = random_mosaic((2, 50, 40))
    monkeypatch.chdir(tmp_path)
    mosaic.write(image, "icechunk:repo", **OPTIONS).check()
    read = store.reader(store.open("icechunk:repo@main"))
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(read.read(slice(0, 50), slice(0, 40)), image.values)
    np.testing.assert_array_equal(store.open(place).values, image.values)


def test_icechunk_that_is_not_installed(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "icechunk", None)
    with pytest.raises(BadInput, match=r"where icechunk is not installed.*lsdask\[icechunk\]"):
        mosaic.write(random_mosaic((2, 50, 40)), place, **OPTIONS)
    with pytest.raises(BadInput, match=r"where icechunk is not installed.*lsdask\[icechunk\]"):
        store.open(place)


def test_a_place_icechunk_cannot_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    with s3.serving(monkeypatch), pytest.raises(BadInput, match="path must name a bucket that exists"):
        mosaic.write(random_mosaic((2, 50, 40)), "icechunk:s3://nowhere/repo", **OPTIONS)
    assert time.monotonic() - begun < 20
    with pytest.raises(BadInput, match=r"path must be local, s3:// or gs:// for an Icechunk repository"):
        store.open("icechunk:https://a/b")
