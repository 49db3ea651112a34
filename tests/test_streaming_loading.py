"""Streams as torch, Lightning, other processes and other machines take them: the same batches in the same order."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from images import random_mosaic

from lsdask import sampling, schema, store, streaming, tasks
from lsdask.errors import BadInput, Unreadable
from lsdask.streaming import MixedStream, TileStream, loading


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Stores of an image, whose tiles differ everywhere, and of a mask."""
    folder = tmp_path_factory.mktemp("stores")
    image = random_mosaic((2, 90, 130))
    truth = np.random.default_rng(1).choice(np.array([0, 1, 255], "uint8"), (90, 130))
    mask = schema.wrap(truth, schema.geobox(image), schema.MASK, name="mask")
    store.write(image, folder / "image.zarr", chunk=16, shard=32)
    store.write(mask, folder / "mask.zarr", chunk=16, shard=32)
    return str(folder / "image.zarr"), str(folder / "mask.zarr")


def stream_of(places, *, masked=True, **options):
    image = store.open(places[0])
    mask = store.open(places[1]) if masked else None
    tiles = sampling.grid(image, 12, overlap=0.5)
    return TileStream(image, tiles, mask=mask, **{"batch_size": 10, "buffer": 40_000, **options})


def same(mine, theirs):
    mine, theirs = list(mine), list(theirs)
    assert len(mine) == len(theirs) > 0
    for a, b in zip(mine, theirs):
        np.testing.assert_array_equal(a.image, b.image)
        assert (a.mask is None) == (b.mask is None)
        if a.mask is not None:
            np.testing.assert_array_equal(a.mask, b.mask)


# Shares of an epoch


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("begin", [0, 5, 11])
def test_any_number_of_workers_that_divides_the_lanes_gives_the_same_batches(places, shuffle, begin):
    stream = stream_of(places, lanes=4, shuffle=shuffle, buffer=10**6)
    whole = list(stream.batches(3))
    assert len(whole) == len(stream)
    if not shuffle:
        same(whole, stream_of(places, shuffle=False, buffer=10**6))
    for workers in (1, 2, 4):
        same(in_turns(stream, workers, 3, begin), whole[begin:])


def in_turns(stream, workers, epoch, begin):
    """Take the batches of loader workers in turns, and past those that have ended, as a DataLoader does."""
    parts = [stream.batches(epoch, begin, worker=i, workers=workers) for i in range(workers)]
    while parts:
        for part in list(parts):
            batch = next(part, None)
            if batch is None:
                parts.remove(part)
            else:
                yield batch


def mix_of(places, *, weights=None, lanes=(6, 12), shuffle=True):
    """Two streams of one store: the tiles of its upper rows, in batches of 10, and those of its lower, of 7."""
    image, mask = store.open(places[0]), store.open(places[1])
    tiles = sampling.grid(image, 12, overlap=0.5)
    halves = tiles[tiles.y < 40], tiles[tiles.y >= 40]
    options = {"mask": mask, "buffer": 10**6, "shuffle": shuffle}
    streams = [
        TileStream(image, half, batch_size=size, lanes=of, seed=size, **options)
        for half, size, of in zip(halves, (10, 7), lanes)
    ]
    return MixedStream(streams, weights=weights, seed=3)


@pytest.mark.parametrize("weights", [(1, 1), (2.5, 0.4), (0, 1)])
@pytest.mark.parametrize("begin", [0, 7])
def test_any_number_of_workers_gives_the_batches_of_a_mix_in_the_same_order(places, weights, begin):
    mix = mix_of(places, weights=weights)
    assert mix.lanes == 6
    whole = list(mix.batches(3))
    assert len(whole) == len(mix)
    for workers in (1, 2, 3, 6):
        same(in_turns(mix, workers, 3, begin), whole[begin:])
    with pytest.raises(BadInput, match="4 workers for lanes=6"):
        next(mix.batches(3, workers=4))


def test_a_mix_of_mixes_has_every_tile_once_whoever_reads_it(places):
    mix = MixedStream([mix_of(places), stream_of(places, lanes=9, batch_size=3, seed=5)])
    assert mix.lanes == 3
    tiles = [tile.tobytes() for batch in in_turns(mix, 3, 1, 0) for tile in batch.image]
    once = [tile.tobytes() for batch in stream_of(places) for tile in batch.image]
    assert sorted(tiles) == sorted(2 * once)
    assert len(set(once)) == len(once)


def test_a_mix_says_which_tiles_are_in_a_batch(places):
    mix = mix_of(places, weights=(1.5, 1))
    image = store.open(places[0]).values
    for number, batch in enumerate(mix.batches(2)):
        found = re.findall(r"\(y=(\d+), x=(\d+)\)", mix.where(number, 2))
        assert len(found) == min(8, len(batch.image))
        for (y, x), tile in zip(found, batch.image):
            window = slice(int(y), int(y) + 12), slice(int(x), int(x) + 12)
            np.testing.assert_array_equal(tile, image[:, *window])


def test_leaving_a_mix_stops_its_threads(places):
    before = threading.active_count()
    coming = mix_of(places).batches(0)
    next(coming)
    assert threading.active_count() > before
    coming.close()
    assert threading.active_count() == before


def test_lanes_share_the_reading_and_the_buffer():
    image = random_mosaic((2, 1024, 1024), chunks=32)
    tiles = sampling.grid(image, 16, overlap=0.5)
    facts = [TileStream(image, tiles, buffer=2 * streaming.MIB, lanes=lanes).explain() for lanes in (1, 4)]
    assert facts[1]["tiles"] == facts[0]["tiles"] == len(tiles)
    assert facts[1]["decodes_per_chunk"] <= 1.25
    assert facts[1]["bytes"] < 2.2 * streaming.MIB


@pytest.mark.parametrize("lanes", [1, 4, 12])
def test_lanes_together_read_ahead_what_the_plan_says(lanes, monkeypatch):
    image = random_mosaic((2, 256, 256), chunks=16)
    waiting, most = [], []

    @contextmanager
    def counted(source, threads, client):
        def begin(window):
            waiting.append(tuple(window))
            most.append(len(waiting))
            return SimpleNamespace(result=lambda: (waiting.remove(tuple(window)), source.read(window))[1])

        yield begin

    monkeypatch.setattr("lsdask.streaming.tiles.reads", counted)
    stream = TileStream(image, sampling.grid(image, 16), lanes=lanes, threads=6, prefetch=0)
    assert sum(len(batch.image) for batch in stream) == 256
    assert max(most) <= max(6, lanes)
    assert lanes > 1 or max(most) == 6


def test_workers_that_do_not_divide_the_lanes_are_refused(places):
    with pytest.raises(BadInput, match=r"Got 2 workers for lanes=1. Pass lanes=2 to TileStream"):
        stream_of(places).in_processes(2)
    with pytest.raises(BadInput, match="2 workers for lanes=1"):
        MixedStream([stream_of(places)]).in_processes(2)


def test_a_part_is_a_rank_s_share(places):
    whole = stream_of(places)
    parts = [whole.part(rank, 3) for rank in range(3)]
    same(parts[1], stream_of(places, rank=1, world=3))
    assert sorted(row for part in parts for row in part.plan(0).order) == list(range(len(whole.plan(0).order)))
    assert len({len(whole.part(rank, 3, drop_last=True)) for rank in range(3)}) == 1
    with pytest.raises(BadInput, match="stream must be whole to be shared"):
        parts[0].part(0, 2)


# torch


def floats(batch):
    return np.where(batch.image == 0, np.nan, batch.image.astype("float32"))


def test_the_torch_face_gives_floats_with_nan_where_there_is_no_data(places):
    dataset = stream_of(places).torch()
    loader = torch.utils.data.DataLoader(dataset, batch_size=None)
    assert len(loader) == len(dataset)
    for (image, mask), batch in zip(loader, stream_of(places), strict=True):
        assert (image.dtype, mask.dtype) == (torch.float32, torch.uint8)
        np.testing.assert_array_equal(image.numpy(), floats(batch))
        np.testing.assert_array_equal(mask.numpy(), batch.mask)


@pytest.mark.parametrize("masked", [True, False])
def test_batches_on_a_device_are_floats_with_nan_and_the_place_is_that_of_what_was_given(places, masked):
    stream = stream_of(places, masked=masked)
    given = stream.on("cpu")
    for i, batch in enumerate(stream_of(places, masked=masked)):
        image, mask = next(given)
        np.testing.assert_array_equal(image.numpy(), floats(batch))
        assert mask is None if not masked else (mask.numpy() == batch.mask).all()
        place = stream.state_dict()
        assert (place["epoch"], place["batch"]) == ((0, i + 1) if i + 1 < len(stream) else (1, 0))
    assert list(given) == []
    assert stream.epoch == 1


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_values_become_floats_on_the_device_as_they_would_in_numpy(dtype, monkeypatch):
    image = np.random.default_rng(0).integers(0, 100, (3, 2, 5, 5)).astype(dtype)
    nodata = None if np.dtype(dtype).kind == "f" else 7
    expected = streaming.floats_block(image, nodata)
    copied = []
    monkeypatch.setattr(
        loading, "_copied", lambda array, device: copied.append(array) or torch.from_numpy(array.copy())
    )
    elsewhere = type("Device", (), {"type": "elsewhere"})()  # the way that values take to any device but the CPU
    got = loading.put(streaming.Batch(image, None), nodata, elsewhere)
    np.testing.assert_array_equal(got.image.numpy(), expected)
    assert got.image.dtype == torch.float32
    assert max(array.itemsize for array in copied) <= 4


@pytest.mark.gpu
def test_batches_on_a_gpu_are_those_on_the_cpu(places):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    seen = []
    for image, mask in stream_of(places).on("cuda"):
        assert image.is_cuda
        seen.append((image * 2, mask))  # work in the model's stream, while the next is copied
    for (image, mask), (other, truth) in zip(seen, stream_of(places).on("cpu"), strict=True):
        np.testing.assert_array_equal(image.cpu().numpy(), 2 * other.numpy())
        np.testing.assert_array_equal(mask.cpu().numpy(), truth.numpy())


def test_a_loader_worker_begins_where_it_is_told(places, monkeypatch):
    stream = stream_of(places, lanes=2)
    dataset = loading.TileDataset(stream, floats=False)
    monkeypatch.setattr(loading, "get_worker_info", lambda: SimpleNamespace(id=1, num_workers=2))

    def given():
        return [streaming.Batch(image.numpy(), mask.numpy()) for image, mask in dataset]

    same(given(), stream.batches(0, worker=1, workers=2))
    dataset.set_epoch(4)
    same(given(), stream.batches(4, worker=1, workers=2))
    dataset.load_state_dict({**stream.state_dict(), "epoch": 3, "batch": 5})
    same(given(), stream.batches(3, 5, worker=1, workers=2))


@pytest.mark.slow
def test_loader_workers_take_the_same_batches_in_the_same_order_and_the_epoch_they_are_told(places):
    stream = stream_of(places, lanes=2)
    dataset = stream.torch()
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=None,
        num_workers=2,
        multiprocessing_context="spawn",
        persistent_workers=True,
        timeout=120,
    )
    for epoch in (0, 4):
        dataset.set_epoch(epoch)
        expected = list(stream.batches(epoch))
        got = [streaming.Batch(image.numpy(), mask.numpy()) for image, mask in loader]
        same(got, [streaming.Batch(floats(batch), batch.mask) for batch in expected])


@pytest.mark.slow
def test_other_processes_make_the_same_batches_and_go_on_in_the_middle(places):
    makers = (lambda: mix_of(places, lanes=(2, 4)), 2), (lambda: stream_of(places, masked=False), 1)
    for make, workers in makers:
        stream = make()
        processes = stream.in_processes(workers)
        assert (len(processes), processes.bands, processes.nodata) == (len(stream), stream.bands, stream.nodata)
        next(iter(processes))  # leaving an epoch
        same(processes, stream.batches(0))
        assert processes.epoch == 1
        begun = iter(processes)
        for _ in range(7):
            next(begun)
        state = processes.state_dict()
        rest = list(begun)
        again = make()
        again.load_state_dict(state)
        same(rest, again)
        processes.load_state_dict(state)
        same(processes, rest)
        assert processes.where(3, 1) == stream.where(3, 1)


@pytest.mark.slow
def test_what_another_process_cannot_read_is_named_and_once_it_is_back_it_goes_on(places, tmp_path):
    path = shutil.copytree(places[0], tmp_path / "image.zarr")
    processes = stream_of((str(path), places[1]), lanes=2).in_processes(2)
    shard = next(path.glob("*/c/0/1/1"))
    aside = shard.rename(tmp_path / "aside")
    with pytest.raises(Unreadable, match=r"object \(0, 1, 1\) was there and is gone"):
        list(processes)
    aside.rename(shard)
    processes.set_epoch(0)
    same(processes, stream_of(places, lanes=2))


# Ranks, each with workers: real processes that talk to each other

RANK = """
    import sys
    import numpy as np
    import torch
    import torch.distributed as dist
    from lsdask import sampling, store
    from lsdask.streaming import TileStream

    def main(rank, world, port, path, out):
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
        image = store.open(path)
        tiles = sampling.grid(image, 12, overlap=0.5)
        stream = TileStream(image, tiles, batch_size=10, buffer=40_000, lanes=2)
        part = stream.part(dist.get_rank(), dist.get_world_size())
        mine = [tile.tobytes() for batch in part.in_processes(2) for tile in batch.image]
        everyone = [None] * world
        dist.all_gather_object(everyone, mine)
        if rank == 0:
            expected = sorted(tile.tobytes() for batch in stream.batches(0) for tile in batch.image)
            assert sorted(sum(everyone, [])) == expected, "not every tile once"
            assert min(map(len, everyone)) > 0.4 * len(tiles)
            open(out, "w").write(str(len(expected)))
        dist.destroy_process_group()

    if __name__ == "__main__":
        torch.set_num_threads(1)
        main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5])
"""


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.mark.slow
def test_two_ranks_of_torch_distributed_with_two_workers_each_see_every_tile_once(places, tmp_path):
    script, port = tmp_path / "rank.py", str(free_port())
    script.write_text(textwrap.dedent(RANK))
    command = [sys.executable, str(script)]
    ranks = [
        subprocess.Popen([*command, str(rank), "2", port, places[0], str(tmp_path / "out")], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for rank in ranks:
        _, told = rank.communicate(timeout=300)
        assert rank.returncode == 0, told.decode()[-2000:]
    assert (tmp_path / "out").read_text() == str(len(stream_of(places)._order.windows.places))


# Lightning


def model():
    import lightning.pytorch as pl

    class Seeing(pl.LightningModule):
        """Learns nothing, remembers all."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen = []

        def training_step(self, batch, index):
            self.seen.append((batch[0].numpy().copy(), batch[1].numpy().copy()))
            return self.weight.sum()

        def validation_step(self, batch, index):
            assert batch[0].dtype == torch.float32

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Seeing()


def fit(module, folder, *, save=-1, resume=None):
    """Two epochs; give what the model saw. A checkpoint is written after so many steps."""
    import lightning.pytorch as pl

    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == save:
                trainer.save_checkpoint(folder / "last.ckpt")

    quiet = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
    seeing = model()
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", num_sanity_val_steps=0, callbacks=[Saves()], **quiet)
    trainer.fit(seeing, module, ckpt_path=resume)
    return seeing.seen


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lightning_sees_each_batch_and_goes_on_in_the_middle_of_an_epoch(places, tmp_path):
    streams = stream_of(places), stream_of(places, shuffle=False, buffer=10**6)
    save = len(streams[0]) + 5
    whole = fit(streaming.data_module(*streams), tmp_path, save=save)
    expected = [batch for epoch in range(2) for batch in stream_of(places).batches(epoch)]
    for (image, mask), batch in zip(whole, expected, strict=True):
        np.testing.assert_array_equal(image, floats(batch))
        np.testing.assert_array_equal(mask, batch.mask)
    rest = fit(streaming.data_module(stream_of(places)), tmp_path, resume=tmp_path / "last.ckpt")
    for (image, _), (theirs, _) in zip(rest, whole[save:], strict=True):
        np.testing.assert_array_equal(image, theirs)


def test_streams_to_train_and_to_judge_must_be_alike(places):
    other = random_mosaic((2, 90, 130), dtype="float32")
    with pytest.raises(BadInput, match=r"valid must have the nodata of train, 0\. Got nan"):
        streaming.data_module(stream_of(places), TileStream(other, sampling.grid(other, 12)))


# Dask workers


@pytest.fixture
def cluster():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as workers,
        Client(workers) as client,
    ):
        yield client


def pids(client):
    return list(client.run(os.getpid).values())


@pytest.mark.cluster
def test_dask_workers_read_the_same_batches_and_one_that_is_killed_loses_nothing(places, cluster):
    expected = list(stream_of(places).batches(0))
    stream = stream_of(places, client=cluster, threads=3, prefetch=0)
    held = []

    def counted():
        for batch in stream:
            held.append(len(cluster.futures))
            yield batch

    same(counted(), expected)
    assert max(held) <= 2 * 3 < stream.explain()["reads"]  # what was read is let go of
    assert stream.epoch == 1
    stream.set_epoch(0)
    given = iter(stream)
    begun = [next(given) for _ in range(3)]
    os.kill(pids(cluster)[0], signal.SIGKILL)
    same([*begun, *given], expected)
    assert not cluster.futures
    with pytest.raises(BadInput, match="client must be None for a stream that other processes take"):
        list(stream.in_processes())


@pytest.mark.cluster
def test_a_worker_of_another_version_that_joins_ends_the_epoch(places, cluster, monkeypatch):
    stream = stream_of(places, client=cluster)

    def stranger(self):
        raise BadInput("worker must have the lsdask of this process.")

    given = iter(stream)
    next(given)
    monkeypatch.setattr(tasks.Cargo, "check", stranger)
    with pytest.raises(BadInput, match="worker must have"):
        list(given)


@pytest.mark.cluster
def test_an_image_in_memory_is_read_by_dask_workers_too(cluster):
    image = random_mosaic((2, 90, 130))
    tiles = sampling.grid(image, 12)
    same(TileStream(image, tiles, client=cluster), TileStream(image, tiles))
