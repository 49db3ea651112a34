"""Where windows are read: by threads of this process, or by the workers of a Dask cluster."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from lsdask.streaming.holding import Batch
from lsdask.streaming.reading import Source

if TYPE_CHECKING:
    from distributed import Client

Begin = Callable[[Sequence[int]], Any]
"""Begins to read a window y0, x0, y1, x1, and gives what has its ``result()``."""


@contextmanager
def reads(source: Source, threads: int, client: "Client | None") -> Iterator[Begin]:
    """Give a function that begins a read, by one of ``threads`` or by a worker of ``client``."""
    with _by_threads(source, threads) if client is None else _by_workers(source, client) as begin:
        yield begin


@contextmanager
def _by_threads(source: Source, threads: int) -> Iterator[Begin]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="lsdask-stream")
    try:
        yield lambda window: pool.submit(source.read, window)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _by_workers(source: Source, client: "Client") -> Iterator[Begin]:
    """Send the source to each worker once, also to one that joins later; another does the read of one that dies."""
    from distributed import WorkerPlugin

    class Sources(WorkerPlugin):
        """Holds the source of one stream on a worker."""

        def __init__(self, name: str, source: Source) -> None:
            self.name, self.source = name, source

    name = f"lsdask-stream-{uuid.uuid4().hex}"
    begun: list[Any] = []

    def begin(window: Sequence[int]) -> Any:
        begun[:] = [future for future in begun if not future.done()]
        begun.append(client.submit(_on_worker, name, tuple(window), key=f"{name}-{uuid.uuid4().hex[:8]}", pure=False))
        return begun[-1]

    client.register_plugin(Sources(name, source))
    try:
        yield begin
    finally:
        if client.status == "running":
            with suppress(OSError):  # a worker that dies just now takes its source with it
                client.cancel(begun)
                client.unregister_worker_plugin(name)


def _on_worker(name: str, window: tuple[int, int, int, int]) -> Batch:
    from distributed import get_worker

    source: Source = get_worker().plugins[name].source  # type: ignore[attr-defined]
    return source.read(window)
