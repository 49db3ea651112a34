"""Stores in an S3 service and on a web server, both real and on loopback."""

import functools
import http.server
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import s3
import webdav
import xarray as xr
import zarr
from images import random_mosaic
from RangeHTTPServer import RangeRequestHandler
from zarr.storage import ObjectStore

from lsdask import ledger, schema, store
from lsdask.errors import BadInput, NotFound, OtherPlan, Unreadable
from lsdask.store import leases, places


@pytest.fixture(scope="module")
def bucket() -> Iterator[s3.Server]:
    with pytest.MonkeyPatch.context() as patch, s3.serving(patch) as server:
        patch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", s3.Google(server).key())
        yield server


@pytest.fixture
def url(bucket: s3.Server, request: pytest.FixtureRequest) -> str:
    return f"s3://{s3.BUCKET}/{request.node.name}/a.zarr"


SERVICES = {
    "s3": "s3://scenes",
    "gs": "gs://scenes",
    "https-s3": "https://s3.us-east-1.amazonaws.com/scenes",
    "https-gs": "https://storage.googleapis.com/scenes",
}


@pytest.fixture(scope="module")
def dav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdav.Server]:
    with pytest.MonkeyPatch.context() as patch, webdav.serving(tmp_path_factory.mktemp("web"), patch) as server:
        yield server


@pytest.fixture(params=[*SERVICES, "webdav"])
def any_url(bucket: s3.Server, dav: webdav.Server, request: pytest.FixtureRequest) -> str:
    return f"{SERVICES.get(request.param, dav.url)}/{re.sub('[^a-z]', '', request.node.name)}/a.zarr"


@pytest.fixture
def keys(dav: webdav.Server) -> Callable[[str], set[str]]:
    """What lies below the folder of a URL."""

    def find(url: str) -> set[str]:
        if places.is_web(url):
            return dav.keys(url)
        return {found["path"] for page in places.objects(url.rpartition("/")[0]).list() for found in page}

    return find


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "RETRY", {"max_retries": 1})


def test_a_path_keeps_the_slashes_of_a_url() -> None:
    for place in ("s3://b/a.zarr", "gs://b/a", "https://h/a", "icechunk:s3://b/a", "icechunk:/b/a", "/b/a", "b"):
        assert places.text(Path(place)) == places.text(place) == place
    assert [places.is_local(p) for p in ("a.zarr", Path("/a"), "s3://b/a", "icechunk:a", Path("s3://b/a"))] == [
        *(True, True),
        *(False,) * 3,
    ]


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_what_is_written_is_read_by_us_and_by_plain_xarray(any_url: str, dtype: str) -> None:
    image = random_mosaic((3, 70, 50), dtype=dtype, chunks=16)
    store.write(image, any_url, chunk=16, shard=32)
    back = store.open(any_url)
    np.testing.assert_array_equal(back.values, image.values)
    assert schema.geobox(back) == schema.geobox(image)
    assert (back.dtype, schema.bands(back)) == (image.dtype, schema.bands(image))
    assert store.source(back) == any_url
    plain = xr.open_zarr(ObjectStore(places.objects(any_url), read_only=True), consolidated=True)["mosaic"]
    assert (np.isnan(plain.values[0]) == ~schema.valid(image).values).all()
    assert (store.reader(back).read(slice(3, 40), slice(2, 9)) == image.values[:, 3:40, 2:9])[
        ~np.isnan(image.values[:, 3:40, 2:9])
    ].all()


def test_a_store_appears_only_when_it_is_whole(any_url: str, keys: Callable[[str], set[str]]) -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise RuntimeError("no pixels")

    image = random_mosaic((1, 40, 40), chunks=20)
    broken = image.copy(data=image.data.map_blocks(fail, dtype=image.dtype, meta=np.empty((0, 0, 0), image.dtype)))
    with pytest.raises(RuntimeError, match="no pixels"):
        store.write(broken, any_url, chunk=10, shard=20)
    assert "a.zarr/x/c/0" in keys(any_url)
    assert not store.exists(any_url)
    with pytest.raises(NotFound, match=f"path must name a Zarr group. Got path={any_url}"):
        store.open(any_url)
    store.write(image, any_url, chunk=10, shard=20)
    np.testing.assert_array_equal(store.open(any_url).values, image.values)
    with pytest.raises(BadInput, match="path must name nothing yet"):
        store.write(image, any_url)
    first = store.fingerprint(store.open(any_url))
    store.write(image, any_url, chunk=20, shard=40, overwrite=True)
    assert store.fingerprint(store.open(any_url)) != first
    assert {key for key in keys(any_url) if "/mosaic/c/" in key} == {"a.zarr/mosaic/c/0/0/0"}


def test_a_torn_object_is_an_error_not_zeros(url: str) -> None:
    store.write(random_mosaic((2, 64, 64), void=0), url, chunk=32, shard=32)
    objects = places.objects(url)
    whole = bytes(objects.get("mosaic/c/0/1/0").bytes())
    reader = store.reader(store.open(url))
    objects.put("mosaic/c/0/1/0", whole[:100])
    assert reader.read(slice(0, 32), slice(0, 32)).any()
    with pytest.raises(Unreadable, match=r"rows 30 to 40, columns 0 to 10 of s3://.* cannot be read"):
        reader.read(slice(30, 40), slice(0, 10))


def test_a_bucket_that_is_not_there() -> None:
    place = "s3://nowhere/a.zarr"
    with pytest.raises(BadInput, match=f"path must name a bucket that exists. Got path={place}"):
        store.write(random_mosaic((1, 8, 8)), place, chunk=8, shard=8)


def test_credentials_that_are_refused(bucket: s3.Server, url: str) -> None:
    store.write(random_mosaic((1, 8, 8)), url, chunk=8, shard=8)
    bucket.ask("POST", "moto-api/reset-auth", b"0")  # from now on every request is checked, and nobody is known
    try:
        for act in (store.open, store.exists, ledger.read):
            with pytest.raises(BadInput, match=rf"path must be open to these credentials. Got path={url}.*Set AWS_"):
                act(url)
    finally:
        bucket.ask("POST", "moto-api/reset-auth", b"inf")
    assert store.exists(url)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unreadable, match=r"path must name a server that answers. Got path=s3://scenes/a.zarr, which"):
        store.open("s3://scenes/a.zarr")


@pytest.mark.usefixtures("bucket", "impatient")
def test_plain_http_must_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(BadInput, match=r"path must be reached over https.* Set AWS_ALLOW_HTTP=true"):
        store.exists("s3://scenes/a.zarr")


def test_obstore_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(BadInput, match=r"path must be local where obstore is not installed.*lsdask\[cloud\]"):
        store.open("s3://scenes/a.zarr")


def test_a_scheme_that_nobody_knows() -> None:
    with pytest.raises(BadInput, match=r"path must be a URL that obstore opens. Got path=gopher://a/b"):
        store.open("gopher://a/b")


class Suffixes(RangeRequestHandler):
    """Answers requests for the end of a file too, as web servers do."""

    def send_head(self) -> object:
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes=-"):
            size = Path(self.translate_path(self.path)).stat().st_size
            self.headers.replace_header("Range", f"bytes={max(size - int(wanted[7:]), 0)}-{size - 1}")
        return super().send_head()


@pytest.fixture
def web(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """A plain web server, which lists nothing and takes nothing, and its folder."""

    class Handler(request.param):  # type: ignore[name-defined,misc]
        def list_directory(self, path: object) -> None:
            self.send_error(403)

        def log_message(self, *parts: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path
        server.shutdown()


@pytest.mark.parametrize("web", [http.server.SimpleHTTPRequestHandler], indirect=True)
def test_a_web_server_must_give_parts_of_files(web: tuple[str, Path]) -> None:
    url, folder = web
    store.write(random_mosaic((2, 40, 40)), folder / "a.zarr", chunk=8, shard=16)
    with pytest.raises(BadInput, match="path must be on a server that answers requests for parts of a file"):
        store.reader(store.open(f"{url}/a.zarr")).read(slice(0, 4), slice(0, 4))


@pytest.mark.parametrize("web", [Suffixes], indirect=True)
def test_a_web_server_is_read_and_not_written(web: tuple[str, Path]) -> None:
    url, folder = web
    image = random_mosaic((2, 40, 40))
    store.write(image, folder / "a.zarr", chunk=8, shard=16)
    back = store.open(f"{url}/a.zarr")
    np.testing.assert_array_equal(back.values, image.values)
    assert store.fingerprint(back) == store.fingerprint(store.open(folder / "a.zarr"))
    with pytest.raises(NotFound, match="name a Zarr group"):
        store.open(f"{url}/b.zarr")
    with pytest.raises(
        BadInput,
        match=r"path must be on a web server that takes PUT, .*, to be written. Got path=http.* does not .*AWS_",
    ):
        store.write(image, f"{url}/b.zarr")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 0.6)
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.1)


@pytest.mark.usefixtures("quick")
def test_a_lease_is_one_run_s_and_is_renewed(any_url: str, keys: Callable[[str], set[str]]) -> None:
    lease = leases.Lease(any_url).acquire()
    begun = time.monotonic()
    with pytest.raises(OtherPlan, match=rf"{any_url} is being written by another run \(process \d+ on .*\)\. Wait"):
        leases.Lease(any_url).acquire()
    assert time.monotonic() - begun < 0.6
    time.sleep(1.0)
    lease.check()
    with pytest.raises(OtherPlan):
        leases.Lease(any_url).acquire()
    lease.release()
    assert keys(any_url) == set()
    leases.Lease(any_url).acquire().release()


@pytest.mark.usefixtures("quick")
def test_the_lease_of_a_dead_run_is_taken_over_once_it_expires(
    any_url: str, keys: Callable[[str], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(leases.Lease, "_beat", lambda self: None)
        dead = leases.Lease(any_url).acquire()
    begun = time.monotonic()
    living = leases.Lease(any_url).acquire()
    assert time.monotonic() - begun >= 0.6
    # It was not dead but slow: it must notice, and leave the lease to its new holder.
    dead._beat()
    with pytest.raises(OtherPlan, match="was taken over by another run"):
        dead.check()
    dead.release()
    living.check()
    assert {key.split("/")[0] for key in keys(any_url)} == {"a.zarr.lock"}
    living.release()
    assert keys(any_url) == set()


@pytest.mark.usefixtures("quick")
def test_of_many_that_want_a_lease_at_once_one_gets_it(any_url: str) -> None:
    got: list[leases.Lease] = []
    refused: list[str] = []

    def want() -> None:
        try:
            got.append(leases.Lease(any_url).acquire())
        except OtherPlan as error:
            refused.append(str(error))

    threads = [threading.Thread(target=want) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 5)
    got[0].release()


@pytest.mark.usefixtures("quick")
def test_a_put_that_is_sent_twice_is_not_another_run(any_url: str) -> None:
    lease = leases.Lease(any_url).acquire()
    held, version = lease._held.read()
    assert lease._held.put(json.dumps({**held, "beat": "again"}).encode(), version) is not None
    time.sleep(0.5)
    lease.check()
    lease.release()


def test_the_group_of_a_hidden_store_is_read_before_it_appears(url: str) -> None:
    with store.making(url) as made:
        store.create(made, random_mosaic((1, 8, 8)), chunk=8, shard=8)
        ledger.start(made, (1, 1), {"a": 1})
        assert sorted(zarr.open_group(made, mode="r", use_consolidated=False)) == [
            *("band", "ledger", "mosaic", "spatial_ref", "x", "y"),
        ]
        assert not store.exists(url)
    assert ledger.plan_of(url) == {"a": 1}


def test_what_fails_in_a_group_is_told_as_if_alone() -> None:
    """Zarr reads the parts of a shard in a task group, which wraps what fails in one or several groups."""
    from obstore.exceptions import GenericError

    with pytest.raises(Unreadable, match=r"path=s3://b/a: .*503"), places.told("s3://b/a"):
        raise ExceptionGroup("unhandled", [ExceptionGroup("again", [GenericError("503 Slow Down")])])
    with pytest.raises(OSError, match="torn"), places.told("a.zarr"):
        raise ExceptionGroup("unhandled", [OSError("torn")])
    with pytest.raises(GenericError), places.told(zarr.storage.MemoryStore()):
        raise ExceptionGroup("unhandled", [GenericError("503")])
