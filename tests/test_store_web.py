"""Stores on a web server that speaks WebDAV: a real one on loopback, whose folder is looked into."""

import base64
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import webdav
import xarray as xr
from images import random_mosaic
from test_mosaic_restart import OPTIONS, TILES, image

from lsdask import kmeans, ledger, models, mosaic, predict, store, tasks, tiling
from lsdask.errors import BadInput, NotFound, OtherPlan, Unfinished, Unreadable
from lsdask.store import leases, places, web

TESTS = str(Path(__file__).parent)
SIGNED = base64.b64encode(f"{webdav.USER}:{webdav.PASSWORD}".encode()).decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdav.Server]:
    with pytest.MonkeyPatch.context() as patch, webdav.serving(tmp_path_factory.mktemp("web"), patch) as server:
        yield server


@pytest.fixture
def url(server: webdav.Server, request: pytest.FixtureRequest) -> str:
    """A place whose folders are not there yet, one with a blank in its name."""
    return f"{server.url}/maps of {request.node.name}/2026/a.zarr"


@pytest.fixture
def troubled(server: webdav.Server) -> Iterator[webdav.Troubled]:
    with webdav.Troubled(server) as troubled:
        yield troubled
        troubled.shutdown()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 0.6)
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(places, "RETRY", {"max_retries": 1})
    monkeypatch.setattr(web, "TRIES", 1)
    web._session.cache_clear()
    yield
    web._session.cache_clear()


def folder(server: webdav.Server, url: str) -> Path:
    return server.folder / url.split("/", 3)[3]


def stored(path: Path) -> dict[str, bytes]:
    """Every object of a store but the root, which holds a random name, the metrics, which hold times, and the lock."""
    files = [found for found in path.rglob("*") if found.is_file()]
    held = {str(found.relative_to(path)): found.read_bytes() for found in files}
    return {
        key: value for key, value in held.items() if key not in ("zarr.json", "ledger/.lock") and "metrics" not in key
    }


def test_a_mosaic_is_written_as_to_a_folder_goes_on_and_is_verified(
    server: webdav.Server, url: str, tmp_path: Path
) -> None:
    local = str(tmp_path / "a.zarr")
    mosaic.write(image(), local, **OPTIONS).check()
    mosaic.write(image(), url, **OPTIONS).check()
    assert stored(folder(server, url)) == stored(Path(local))
    assert {key.split("/")[0] for key in server.keys(url)} == {"a.zarr"}  # the lease is given back

    book = ledger.read(url)
    for place in ((0, 0), (3, 3), (1, 3)):
        book.clear(place)
    book.flush()
    (folder(server, url) / "mosaic/c/0/3/3").write_bytes(b"torn")
    assert mosaic.write(image(), url, **OPTIONS).check().done == 3
    assert stored(folder(server, url)) == stored(Path(local))
    with pytest.raises(OtherPlan, match="holds another run"):
        mosaic.write(image() + 1, url, **OPTIONS)

    assert tasks.verify(url, progress=False).sound == TILES
    (folder(server, url) / "mosaic/c/0/2/1").write_bytes(b"torn")
    assert [failure.place for failure in tasks.verify(url, progress=False).damaged] == [(2, 1)]
    assert mosaic.write(image(), url, **OPTIONS).check().done == 1
    state = tasks.status(url)
    assert (state.done, state.to_do) == (TILES, 0)
    assert len(list(tasks.metrics(url))) == TILES + 3 + 1


def test_plain_xarray_reads_it_by_http(server: webdav.Server, url: str) -> None:
    """By fsspec and aiohttp, which share nothing with how it was written."""
    mosaic.write(image(), url, **OPTIONS).check()
    mosaic.overviews(url, progress=False)[-1].check()
    options = {"headers": {"Authorization": f"Basic {SIGNED}"}}
    options = {"storage_options": options, "consolidated": True, "mask_and_scale": False}
    plain = xr.open_zarr(url.replace(" ", "%20"), **options)
    np.testing.assert_array_equal(plain["mosaic"].values, image().values)
    assert list(plain["band"].values) == list(image()["band"].values)
    half = xr.open_zarr(url.replace(" ", "%20"), group="overviews/1", **options)
    np.testing.assert_array_equal(half["mosaic"].values, store.open(folder(server, url), level=1).values)
    assert {"/", "/overviews/1", "/overviews/2"} <= set(
        xr.open_groups(url.replace(" ", "%20"), engine="zarr", **options)
    )


def test_overviews_are_as_in_a_folder(server: webdav.Server, url: str, tmp_path: Path) -> None:
    for place in (url, str(tmp_path / "a.zarr")):
        store.write(image(), place, chunk=16, shard=32)
        for report in mosaic.overviews(place, workers=2, progress=False):
            report.check()
    there, here = stored(folder(server, url)), stored(tmp_path / "a.zarr")
    pixels = {key for key in here if "mosaic/c/" in key}
    assert {key for key in there if "mosaic/c/" in key} == pixels
    assert all(there[key] == here[key] for key in pixels)
    assert (folder(server, url) / "overviews/3/zarr.json").exists()


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_what_is_longer_than_obstore_sends_at_once(url: str, dtype: str) -> None:
    data = np.random.default_rng(0).integers(0, 2**16, (2, 1700, 1700)).astype(dtype)  # 11 MB that do not get shorter
    large = random_mosaic((2, 1700, 1700), dtype=dtype).copy(data=data)
    store.write(large, url, chunk=1700, shard=1700)
    np.testing.assert_array_equal(store.open(url).values, data)


def test_a_store_is_replaced_whole(server: webdav.Server, url: str) -> None:
    store.write(random_mosaic((2, 70, 50)), url, chunk=8, shard=16)
    with pytest.raises(BadInput, match="path must name nothing yet"):
        store.write(random_mosaic((2, 70, 50)), url)
    small = random_mosaic((1, 20, 20), seed=1)
    store.write(small, url, chunk=32, shard=32, overwrite=True)
    np.testing.assert_array_equal(store.open(url).values, small.values)
    assert {key for key in server.keys(url) if "/mosaic/c/" in key} == {"a.zarr/mosaic/c/0/0/0"}


# Runs that end, wait and take over

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from lsdask.store import leases
leases.BEAT_SECONDS = 0.2
import test_mosaic_restart as test
test.mosaic.write(test.image({seconds}, log={log!r}), {target!r}, **test.OPTIONS)
"""


def begun(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_of_two_runs_the_second_waits_until_the_first_is_killed(
    server: webdav.Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 2.0)
    log = tmp_path / "log"
    script = SCRIPT.format(tests=TESTS, target=url, log=str(log), seconds=0.3)
    first = subprocess.Popen([sys.executable, "-c", script])
    while begun(log) < 3:
        time.sleep(0.02)
        assert first.poll() is None
    with pytest.raises(OtherPlan, match=rf"{re.escape(url)} is being written by another run \(process {first.pid} on "):
        mosaic.write(image(), url, **OPTIONS)
    while begun(log) < 8:
        time.sleep(0.02)
        assert first.poll() is None
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    killed = time.monotonic()
    report = mosaic.write(image(), url, **OPTIONS).check()
    assert time.monotonic() - killed >= 2.0
    assert report.done + report.skipped == TILES
    assert 2 <= report.skipped <= begun(log)
    mosaic.write(image(), str(tmp_path / "whole.zarr"), **OPTIONS).check()
    assert stored(folder(server, url)) == stored(tmp_path / "whole.zarr")
    assert {key.split("/")[0] for key in server.keys(url)} == {"a.zarr"}


@pytest.mark.usefixtures("quick")
def test_what_a_run_leaves_that_is_killed_as_it_takes_its_lease(server: webdav.Server, url: str) -> None:
    lock = folder(server, url).with_name("a.zarr.lock")
    (lock / "heir").mkdir(parents=True)  # of two runs, neither of which came to put its name
    begun = time.monotonic()
    lease = leases.Lease(url).acquire()
    assert time.monotonic() - begun >= 1.2  # both have been watched
    assert (lock / "heir/heir/owner.json").exists()
    with pytest.raises(OtherPlan, match="is being written by another run"):
        leases.Lease(url).acquire()
    lease.release()
    assert not lock.exists()


@pytest.mark.usefixtures("quick")
def test_what_such_a_run_leaves_is_removed_meanwhile(server: webdav.Server, url: str) -> None:
    lock = folder(server, url).with_name("a.zarr.lock")
    lock.mkdir(parents=True)
    lease = leases.Lease(url)
    waiting = threading.Thread(target=lease.acquire, daemon=True)
    waiting.start()
    while not lease._held._there:  # type: ignore[union-attr]
        time.sleep(0.01)
    lock.rmdir()
    waiting.join(timeout=5)
    assert not waiting.is_alive()
    lease.release()


@pytest.mark.usefixtures("quick")
def test_a_lease_that_is_given_back_while_another_waits_is_taken(url: str) -> None:
    lease = leases.Lease(url).acquire()
    lease._ended.set()  # it beats no more, as if busy
    lease._beating.join()
    threading.Timer(0.2, lease.release).start()
    leases.Lease(url).acquire().release()


@pytest.mark.usefixtures("quick")
def test_a_run_whose_lease_somebody_removes_stops(server: webdav.Server, url: str) -> None:
    lease = leases.Lease(url).acquire()
    web.remove(f"{url}.lock")
    time.sleep(0.4)
    with pytest.raises(OtherPlan, match="was taken over"):
        lease.check()
    lease.release()


# Who may write


@pytest.fixture(params=["wrong", "none"])
def stranger(server: webdav.Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", os.devnull)
    if request.param == "wrong":
        monkeypatch.setenv("GDAL_HTTP_USERPWD", f"{webdav.USER}:secret")
    else:
        monkeypatch.delenv("GDAL_HTTP_USERPWD")


@pytest.mark.usefixtures("stranger")
def test_a_stranger_is_told_so_before_anything_is_computed(url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    acts = (
        lambda: mosaic.write(image(log=str(log)), url, **OPTIONS),
        lambda: store.write(image(log=str(log)), url),
        lambda: store.open(url),
        lambda: tasks.status(url),
        lambda: leases.Lease(url).acquire(),
    )
    for act in acts:
        with pytest.raises(
            BadInput, match=rf"must be open to these credentials. Got path={re.escape(url)}, .*\(401\). Set "
        ) as told:
            act()
        assert "secret" not in str(told.value)
    assert not log.exists()


def test_a_netrc_says_who_asks(
    server: webdav.Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GDAL_HTTP_USERPWD")
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {webdav.USER} password {webdav.PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    mosaic.write(image(), url, **OPTIONS).check()
    np.testing.assert_array_equal(store.open(url).values, image().values)
    monkeypatch.setenv("GDAL_HTTP_USERPWD", "bob:no")  # which comes first
    with pytest.raises(BadInput, match="credentials"):
        store.open(url)


def test_a_password_is_nowhere(server: webdav.Server, url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    report = mosaic.write(image(), url, **OPTIONS).check()
    back = store.open(url)
    held = [*stored(folder(server, url)).values(), (folder(server, url) / "zarr.json").read_bytes()]
    held += [path.read_bytes() for path in folder(server, url).rglob("*.jsonl")]
    held += [
        text.encode() for text in (caplog.text, str(report), repr(back), repr(store.array(url)), str(back.encoding))
    ]
    held += [pickle.dumps(dict(back.__dask_graph__())), pickle.dumps(places.node(url))]
    for one in held:
        assert webdav.PASSWORD.encode() not in one
        assert SIGNED.encode() not in one
    assert any(url.encode() in one for one in held)
    node = pickle.loads(pickle.dumps(places.node(url, write=True)))
    assert (node, node.read_only) == (places.node(url, write=True), False)


@pytest.mark.parametrize(
    "act", [store.open, store.exists, tasks.status, ledger.lock, lambda url: store.write(image(), url)]
)
def test_a_password_is_no_part_of_a_name(server: webdav.Server, act, caplog: pytest.LogCaptureFixture) -> None:
    named = server.url.replace("http://", "http://ann:secret@") + "/a.zarr"
    with pytest.raises(
        BadInput, match=r"path must hold no user and password. Got them in http://127.* Set GDAL_"
    ) as told:
        act(named)
    assert "secret" not in str(told.value) + caplog.text


# Servers that do not take what they get


def test_a_server_that_only_reads_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    with webdav.serving(tmp_path / "web", monkeypatch, readonly=True) as server:
        target = f"{server.url}/a.zarr"
        for act in (mosaic.write, store.write):
            with pytest.raises(BadInput, match=r"path must be open to these credentials.*\(403\)"):
                act(image(log=str(log)), target, chunk=16, shard=32)
    assert not log.exists()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            405,
            r"be on a web server that takes PUT, DELETE and MKCOL, .* to be written.*\(405\). For a server that",
        ),
        (501, r"be on a web server that takes PUT"),
        (301, r"be the server's own address, to be written.* sends on to another \(301\). Pass that"),
        (302, r"be the server's own address"),
        (409, r"lie in a folder of its server that is there or can be made"),
    ],
)
def test_a_server_that_is_none_for_writing(troubled: webdav.Troubled, tmp_path: Path, status: int, said: str) -> None:
    log = tmp_path / "log"
    troubled.answers = {(method, ""): repeat(status) for method in ("MKCOL", "PUT", "DELETE")}
    for act in (mosaic.write, store.write):
        with pytest.raises(BadInput, match=f"path must {said}"):
            act(image(log=str(log)), f"{troubled.url}/{status}/a.zarr", chunk=16, shard=32)
    assert not log.exists()


def test_a_server_that_takes_files_and_makes_no_folders_is_refused(troubled: webdav.Troubled) -> None:
    troubled.answers = {("MKCOL", ""): repeat(405)}
    begun = time.monotonic()
    with pytest.raises(BadInput, match="takes PUT, DELETE and MKCOL"):
        mosaic.write(image(), f"{troubled.url}/a.zarr", **OPTIONS)
    assert time.monotonic() - begun < 2


def test_a_folder_that_another_makes_at_the_same_moment(
    troubled: webdav.Troubled, caplog: pytest.LogCaptureFixture
) -> None:
    """Apache then says once that it is forbidden, others that it is locked, and from then on that it is there."""
    target = f"{troubled.url}/at once/a.zarr"
    troubled.answers = {("MKCOL", "mosaic/c/0"): iter([403, 423]), ("MKCOL", ".lock"): iter([503, 423, 403])}
    mosaic.write(image(), target, retries=0, **OPTIONS).check()
    assert troubled.refused == 5
    assert "leased to another run" not in caplog.text
    np.testing.assert_array_equal(store.open(target).values, image().values)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (413, r"be on a server that takes objects of this size.*\(413\). Pass a smaller shard"),
        (507, r"be on a server with room left.*\(507\). Make room, then run again"),
        (423, r"name a store that can be reached.*423 Locked"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_shard_that_the_server_refuses_is_named_and_the_rest_is_done(
    server: webdav.Server, troubled: webdav.Troubled, status: int, said: str
) -> None:
    target = f"{troubled.url}/{status}/b.zarr"
    troubled.answers = {("PUT", "mosaic/c/0/1/2"): repeat(status)}
    report = mosaic.write(image(), target, retries=0, **OPTIONS)
    with pytest.raises(Unfinished, match=rf"tile \(1, 2\): .*path must {said}"):
        report.check()
    assert report.done == TILES - 1
    assert [failure.place for failure in tasks.status(target).failed] == [(1, 2)]
    troubled.answers = {}
    assert mosaic.write(image(), target, **OPTIONS).check().done == 1
    np.testing.assert_array_equal(store.open(target).values, image().values)


def test_a_store_whose_metadata_is_not_all_there_is_none(troubled: webdav.Troubled) -> None:
    target = f"{troubled.url}/part/a.zarr"
    troubled.answers = {("PUT", "mosaic/zarr.json"): iter([403])}
    with pytest.raises(BadInput, match="credentials"):
        store.write(image(), target, chunk=16, shard=32)
    assert not store.exists(target)
    store.write(image(), target, chunk=16, shard=32)
    np.testing.assert_array_equal(store.open(target).values, image().values)


def test_a_folder_that_is_not_removed_whole_is_not_written_over(troubled: webdav.Troubled) -> None:
    target = f"{troubled.url}/kept/a.zarr"
    store.write(image(), target, chunk=16, shard=32)
    troubled.answers = {("DELETE", ""): iter([207])}
    with pytest.raises(Unreadable, match=r"be a folder that its server removes whole.*\(207\). Remove that there"):
        store.write(image() + 1, target, chunk=16, shard=32, overwrite=True)
    np.testing.assert_array_equal(store.open(target).values, image().values)


def test_a_server_in_trouble_is_waited_for(troubled: webdav.Troubled) -> None:
    target = f"{troubled.url}/trouble/a.zarr"
    for seconds, broken in ((0.6, True), (2.6, False)):
        threading.Timer(seconds, setattr, (troubled, "broken", broken)).start()
    mosaic.write(image(0.2), target, **OPTIONS).check()
    assert troubled.refused > 0
    np.testing.assert_array_equal(store.open(target).values, image().values)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_gone() -> None:
    for act in (store.open, lambda url: leases.Lease(url).acquire()):
        with pytest.raises(
            Unreadable, match=r"path must name a server that answers. Got path=http://127.0.0.1:1/a.zarr, which"
        ):
            act("http://127.0.0.1:1/a.zarr")


def test_a_server_that_lists_nothing_is_written_too(server: webdav.Server, troubled: webdav.Troubled) -> None:
    """As nginx does not."""
    target = f"{troubled.url}/unlisted/a.zarr"
    troubled.answers = {("PROPFIND", ""): repeat(405)}
    mosaic.write(image(), target, **OPTIONS).check()
    mosaic.overviews(target, progress=False)[-1].check()
    assert tasks.status(target).to_do == 0
    assert list(tasks.metrics(target)) == []
    assert tasks.verify(target, progress=False).sound == TILES
    grid = tiling.grid((120, 101), 32)
    assert predict.skipping.unstored(store.open(target), grid) is None
    troubled.answers = {}
    assert len(list(tasks.metrics(target))) == TILES
    assert {asked.split()[0] for asked in troubled.asked} == {"GET", "HEAD", "PUT", "DELETE", "MKCOL", "PROPFIND"}


def test_what_is_not_there(url: str) -> None:
    assert not store.exists(url)
    with pytest.raises(NotFound, match="path must name a Zarr group"):
        store.open(url)


# Clusters, and other rooms


@pytest.mark.cluster
@pytest.mark.slow
def test_a_cluster_of_processes_writes_it(server: webdav.Server, url: str, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    options = {"chunk": 16, "shard": 32, "progress": False}
    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster, Client(cluster) as client:
        assert mosaic.write(image(), url, client=client, **options).check().done == TILES
        assert mosaic.write(image(), url, client=client, **options).skipped == TILES
    mosaic.write(image(), str(tmp_path / "a.zarr"), **OPTIONS).check()
    assert stored(folder(server, url)) == stored(tmp_path / "a.zarr")


@pytest.mark.slow
def test_clusters_and_scores_are_as_in_folders(server: webdav.Server, url: str, tmp_path: Path) -> None:
    """Everything that is written goes the same way: from the server, to the server."""
    import torch

    network = torch.nn.Conv2d(2, 1, 3, padding=1)
    model = models.wrap(network, bands=["b0", "b1"], mean=[500.0] * 2, std=[290.0] * 2)
    where = (url, str(tmp_path / "a.zarr"))
    for place in where:
        store.write(image(), place, chunk=16, shard=32)
        scenes = store.open(place)
        kmeans.write(scenes, kmeans.fit(scenes, [2, 3]), f"{place}.k", shard=32, progress=False).check()
        options = {"tile": 32, "halo": 3, "batch": 1, "precision": "float32", "device": "cpu", "progress": False}
        predict.run(place, f"{place}.scores", model, **options).check()
    for made in (".k", ".scores"):
        there, here = (store.open(f"{place}{made}").values for place in where)
        np.testing.assert_array_equal(there, here)
    assert len(np.unique(here)) > 50
    assert predict.verify(f"{url}.scores", progress=False).sound == TILES
