"""What a run wrote is told from what has been torn, altered or lost since, and is done again."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import s3
import xarray as xr
from images import random_mosaic
from test_tasks import expected, template

from lsdask import kmeans, ledger, mosaic, store, tasks, tiling
from lsdask.errors import BadInput, OtherPlan, Unfinished, Unreadable
from lsdask.store import leases, places

VOID = np.zeros((4, 5), bool)
VOID[2, 1:3] = True


@dataclass(frozen=True)
class Put:
    """Writes each tile's number by ``store.put``, but where it shall fail."""

    target: str
    fail: tuple[tuple[int, int], ...] = ()

    def __call__(self, tile: tiling.Tile) -> dict[str, float]:
        if tile.place in self.fail:
            raise Unreadable(f"tile {tile.place} is torn")
        shape = tuple(part.stop - part.start for part in tile.write)
        values = np.full((1, *shape), 100 * tile.place[0] + tile.place[1] + 1, "uint16")
        store.put(self.target, values, *tile.write, name="out")
        return {"pixels": float(values.size), "read_s": 1.0, "write_s": 3.0}


def run(target: str | Path, **options: object) -> tasks.Report:
    kernel = options.pop("kernel", Put(str(target)))
    return tasks.run(kernel, target=target, template=template(), tile=16, void=VOID, progress=False, **options)  # type: ignore[arg-type]


def damage(target: str) -> dict[tuple[int, int], str]:
    """Tear one object, alter one, remove one, put one where none belongs; say what must be found."""
    objects = store.objects(target) if not store.is_local(target) else None

    def read(key: str) -> bytes:
        return bytes(objects.get(key).bytes()) if objects else (Path(target) / key).read_bytes()

    def write(key: str, data: bytes) -> None:
        if objects:
            objects.put(key, data)
        else:
            (Path(target) / key).write_bytes(data)

    whole = read("out/c/0/0/1")
    write("out/c/0/0/1", whole[: len(whole) // 2])
    altered = bytearray(read("out/c/0/3/4"))
    altered[len(altered) // 2] ^= 1
    write("out/c/0/3/4", bytes(altered))
    store.remove(target, "out/c/0/1/2")
    write("out/c/0/2/1", whole)
    return {
        (0, 1): "out/c/0/0/1: torn or altered",
        (3, 4): "out/c/0/3/4: torn or altered",
        (1, 2): "out/c/0/1/2 is gone",
        (2, 1): "out/c/0/2/1 is stored, and the tile is void",
    }


def image() -> np.ndarray:
    values = expected((50, 70), 16)
    return np.where(VOID.repeat(16, axis=0).repeat(16, axis=1)[:50, :70], 0, values)


@pytest.mark.parametrize("place", ["local", "s3"])
def test_damage_is_found_and_mended(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if place == "s3":
        monkeypatch.setattr(leases, "EXPIRY_SECONDS", 1.0)
        with s3.serving(monkeypatch):
            find_and_mend(f"s3://{s3.BUCKET}/out.zarr")
    else:
        find_and_mend(str(tmp_path / "out.zarr"))


def find_and_mend(target: str) -> None:
    run(target).check()
    sound = tasks.verify(target, progress=False).check()
    assert (sound.tiles, sound.sound, sound.unchecked) == (20, 20, 0)
    wrong = damage(target)
    found = tasks.verify(target, progress=False)
    assert {failure.place: failure.why for failure in found.damaged} == wrong
    assert (found.tiles, found.sound) == (20, 16)
    with pytest.raises(Unfinished, match=r"16 of 20 tiles .* Damaged: 4 \(tile \(0, 1\): .* Run again"):
        found.check()
    now = tasks.status(target)
    assert (now.to_do, now.done, now.void) == (4, 15, 1)
    mended = run(target).check()
    assert (mended.done, mended.skipped, mended.void) == (3, 15, 2)
    assert tasks.verify(target, progress=False).damaged == ()
    np.testing.assert_array_equal(store.open(target)[0].values, image())


def test_a_checksum_is_of_the_bytes_that_lie_there(tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    run(target).check()
    entries = ledger.entries(target)
    for place in np.ndindex(entries.shape):
        key = target / "out" / "c" / "0" / str(place[0]) / str(place[1])
        if VOID[place]:
            assert entries[place] == ledger.VOID
            assert not key.exists()
        else:
            crc = zlib.crc32(key.read_bytes())
            assert int(entries[place]) == 2**32 + zlib.crc32(crc.to_bytes(4, "big"))


def test_tiles_without_pixels_store_nothing_and_are_sound(tmp_path: Path) -> None:
    empty = random_mosaic((1, 40, 40), void=1.0, chunks=16)
    mosaic.write(empty, tmp_path / "m.zarr", chunk=16, shard=16, progress=False).check()
    assert not (tmp_path / "m.zarr" / "mosaic" / "c").exists() or not list((tmp_path / "m.zarr").glob("mosaic/c/**/0"))
    assert tasks.verify(tmp_path / "m.zarr", progress=False).check().sound == 9
    (tmp_path / "m.zarr" / "mosaic" / "c" / "0" / "1").mkdir(parents=True)
    (tmp_path / "m.zarr" / "mosaic" / "c" / "0" / "1" / "1").write_bytes(b"something")
    assert [one.place for one in tasks.verify(tmp_path / "m.zarr", progress=False).damaged] == [(1, 1)]


def test_votes_beside_labels_are_checked_too(tmp_path: Path) -> None:
    scene = random_mosaic((2, 60, 60), void=0.1)
    centers = kmeans.fit(scene, [2, 3], n_samples=500)
    path = tmp_path / "labels.zarr"
    kmeans.write(scene, centers, path, shard=32, tile=8, progress=False).check()
    assert tasks.verify(path, progress=False).check().sound == 4
    vote = path / "majority" / "c" / "0" / "1" / "0"
    vote.write_bytes(vote.read_bytes()[:-1])
    assert [one.place for one in tasks.verify(path, progress=False).damaged] == [(1, 0)]
    kmeans.write(scene, centers, path, shard=32, tile=8, progress=False).check()
    assert tasks.verify(path, progress=False).check().sound == 4


def test_a_repository_is_checked(tmp_path: Path) -> None:
    pytest.importorskip("icechunk", reason="needs the extra icechunk")
    target = f"icechunk:{tmp_path / 'repo'}"
    mosaic.write(random_mosaic((1, 40, 40), chunks=16), target, chunk=16, shard=16, workers=2, progress=False).check()
    assert tasks.status(target).done == 9
    assert tasks.verify(target, progress=False).check().sound == 9


def test_status_names_what_failed(tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    run(target, kernel=Put(str(target), fail=((1, 2), (3, 3))), retries=0)
    now = tasks.status(target)
    assert (now.tiles, now.done, now.void, now.to_do, now.unchecked, now.running) == (20, 16, 2, 2, 0, False)
    assert [(one.place, one.why) for one in now.failed] == [
        ((1, 2), "tile (1, 2) is torn"),
        ((3, 3), "tile (3, 3) is torn"),
    ]
    assert "not finished" in str(now)
    assert "Failed: 2 (tile (1, 2): tile (1, 2) is torn" in str(now)
    run(target).check()
    now = tasks.status(target)
    assert (now.to_do, now.failed) == (0, ())
    assert "finished" in str(now)
    with pytest.raises(BadInput, match="target must be new or hold a run"):
        tasks.status(xarray_store(tmp_path))


def xarray_store(folder: Path) -> Path:
    store.write(random_mosaic((1, 8, 8)), folder / "plain.zarr", chunk=8, shard=8)
    return folder / "plain.zarr"


def test_nothing_is_verified_while_a_run_writes(tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    run(target).check()
    held = ledger.lock(target)
    assert tasks.status(target).running
    with pytest.raises(OtherPlan, match="is being written by another run"):
        tasks.verify(target, progress=False)
    held.release()
    assert not tasks.status(target).running


def test_old_ledgers_open_and_say_that_they_cannot_tell(tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    run(target).check()
    group = store.group(target, write=True)
    plan = {"lsdask_plan": group["ledger"].attrs["lsdask_plan"]}
    group.create_array("ledger", data=np.ones((4, 5), "uint8"), chunks=(64, 64), overwrite=True, attributes=plan)
    damage(str(target))
    now, checked = tasks.status(target), tasks.verify(target, progress=False)
    assert (now.done, now.unchecked, now.to_do) == (20, 20, 0)
    assert (checked.sound, checked.unchecked, checked.damaged) == (0, 20, ())
    assert "20 have no checksum" in str(now)
    assert "20 have no checksum to tell by" in str(checked)
    assert run(target).skipped == 20


def test_each_tile_is_written_down(tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    report = run(target, kernel=Put(str(target), fail=((0, 0),)), retries=0, workers=2)
    with open(target / "ledger" / "metrics.jsonl", "a") as lines:
        lines.write('{"tile": [9, 9], "at": 17')  # what a killed run leaves
    run(target).check()
    lines = list(tasks.metrics(target))
    assert [line["failed"] for line in lines if "failed" in line] == ["tile (0, 0) is torn"]
    done = [tuple(line["tile"]) for line in lines if "failed" not in line]
    assert sorted(done) == [(int(row), int(column)) for row, column in np.argwhere(~VOID)]
    for line in lines:
        if "failed" not in line:
            stored = (target / "out" / "c" / "0" / str(line["tile"][0]) / str(line["tile"][1])).stat().st_size
            assert (line["stored_bytes"], line["tried"], line["read_s"]) == (stored, 1, 1.0)
            assert line["worker"].startswith("lsdask_")
    assert report.shares() == {"read": 0.25, "write": 0.75}
    assert "Of the time of the tiles: read 25%, write 75%; the bottleneck was write." in str(report)
    assert list(xr.open_zarr(target).data_vars) == ["out"]


def test_an_object_store_gets_its_lines_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from lsdask.tasks import journal

    monkeypatch.setattr(journal, "PART_SECONDS", 0.0)
    with s3.serving(monkeypatch):
        target = f"s3://{s3.BUCKET}/out.zarr"
        run(target).check()
        assert {tuple(line["tile"]) for line in tasks.metrics(target)} == {
            (int(row), int(column)) for row, column in np.argwhere(~VOID)
        }
        keys = [one["path"] for page in places.objects(target).list("ledger/metrics") for one in page]
        assert keys
        assert list(store.open(target).dims) == ["band", "y", "x"]
