"""Where windows are read: by threads of this process, or by the workers of a Dask cluster."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from lsdask import tasks
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
    """Send the source to each worker once; another does the read of one that dies."""
    tasks.check_workers(client)
    begun: list[Any] = []
    with tasks.carried(client, source) as cargo:

        def begin(window: Sequence[int]) -> Any:
            cargo.check()
            begun[:] = [future for future in begun if not future.done()]
            key = f"{cargo.name}-{uuid.uuid4().hex[:8]}"
            begun.append(client.submit(_on_worker, cargo.name, tuple(window), key=key, pure=False))
            return begun[-1]

        try:
            yield begin
        finally:
            if client.status == "running":
                with suppress(OSError):  # a worker that dies just now takes its reads with it
                    client.cancel(begun)


def _on_worker(name: str, window: tuple[int, int, int, int]) -> Batch:
    source: Source = tasks.held(name)
    return source.read(window)
