"""What a run finds out from one block of its image: precision, batch, and what a short halo costs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from lsdask import ledger, models, schema, store, tasks, tiling
from lsdask.predict.batching import most, tried
from lsdask.predict.jobs import Job
from lsdask.predict.reaching import TRIED, change_block, missing, warn

if TYPE_CHECKING:
    from distributed import Client


def settle(described: Job, target: str | Path, client: "Client | None" = None) -> None:
    """Settle precision, batch and whether to compile once for a whole job, in its networks and its plan.

    No worker decides for itself, and a run that goes on keeps what it began with: scores depend on all three.
    """
    networks = described.scorer.networks
    if not networks:
        return
    held = ledger.plan_of(target) if store.exists(target) else {}
    if "precision" in held:
        block, chosen = None, list(zip(str(held["precision"]).split("+"), held.get("compile", ())))
    else:
        block = probe(described.image, networks[0].nodata)
        chosen = [_settled(*pair, client) for pair in zip(networks, _bands(described, block))]
    for network, (precision, compiled) in zip(networks, chosen):
        network.precision = precision if network.precision == "auto" else network.precision
        network.compiled = compiled if network.compiled is None else network.compiled
    described.plan["precision"] = "+".join(network.precision for network in networks)
    described.plan["compile"] = [network.compiled for network in networks]
    batch = described.plan["batch"] or held.get("batch") or _batch(described, block, client)
    described.plan["batch"] = described.scorer.runner.most = batch


def is_tried(described: Job) -> bool:
    """Say whether the batch is still to be found by a trial: of a network on a GPU, if none was given."""
    on_gpu = any(network.device.startswith("cuda") for network in described.scorer.networks)
    return on_gpu and described.plan["batch"] is None


def _batch(described: Job, block: np.ndarray | None, client: "Client | None") -> int:
    """Find how many windows of this job go through its networks at once."""
    scorer, limit = described.scorer, most(described.scorer.lattice, described.grid.tile)
    if block is None or limit == 1 or not is_tried(described):
        return scorer.runner.most
    return int(_there(client, tried, scorer.runner.run, sized_block(block[0], scorer.lattice.side), limit))


def sized_block(block: np.ndarray, side: tuple[int, int]) -> np.ndarray:
    """Cut a block (band, y, x) to some size, or repeat it up to it."""
    for axis, size in enumerate(side, start=1):
        block = np.take(block, np.arange(size), axis=axis, mode="wrap")
    return block


def _bands(described: Job, block: np.ndarray | None) -> list[np.ndarray | None]:
    """Give each network's bands of a block; what is to be compiled sees blocks of the run's own shape."""
    scorer, here = described.scorer, schema.bands(described.image)
    if block is not None and any(network.compiled is None for network in scorer.networks):
        many = min(scorer.runner.most, most(scorer.lattice, described.grid.tile))
        block = np.repeat(sized_block(block[0], scorer.lattice.side)[None], many, axis=0)
    places = [[here.index(band) for band in network.spec.bands] for network in scorer.networks]
    return [None if block is None else block[:, place] for place in places]


def _settled(network: models.Runner, block: np.ndarray | None, client: "Client | None") -> tuple[str, bool | None]:
    """Choose a network's precision, and whether it runs compiled, by a block with data if there is one."""
    if network.precision != "auto" and network.compiled is not None:
        return network.precision, network.compiled
    if block is None:
        return "float32", network.compiled
    precision, compiled, refused = _there(client, _settle, network, block)
    if refused and client is not None:
        network.refuse(refused)  # a worker's own warning stays there
    return precision, compiled


def _settle(network: models.Runner, block: np.ndarray) -> tuple[str, bool | None, str]:
    return network.settle(block), network.compiled, network.refused


def _there(client: "Client | None", function: Any, *arguments: Any) -> Any:
    """Call a function where the run will compute."""
    if client is None:
        return function(*arguments)
    tasks.check_workers(client)
    return client.submit(function, *arguments, pure=False).result()


def look(described: Job, client: "Client | None" = None) -> None:
    """Warn if the halo is smaller than the networks look, and scores show it on a block of the image."""
    scorer, image = described.scorer, described.image
    halo = scorer.lattice.halo
    stride = max((network.stride for network in scorer.networks), default=1)
    wide = missing(scorer.networks, halo, stride)
    place = None if wide is None else probe_place(image, scorer.nodata)
    if wide is None or place is None:
        return
    grid = tiling.grid((image.sizes["y"], image.sizes["x"]), TRIED, halo=wide)
    tile = grid[_middle(place[0]) // TRIED, _middle(place[1]) // TRIED]
    block = tiling.extend_block(store.reader(image).read(*tile.read), tile, scorer.edge, scorer.outside)
    warn(_there(client, change_block, scorer.runner, block[None], halo), halo, wide)


def _middle(part: slice) -> int:
    return (part.start + part.stop) // 2


def probe(image: xr.DataArray, nodata: float | int | None) -> np.ndarray | None:
    """Read a block (1, band, y, x) with data; None if none was found."""
    place = probe_place(image, nodata)
    return None if place is None else store.reader(image).read(*place)[None]


def probe_place(image: xr.DataArray, nodata: float | int | None) -> tuple[slice, slice] | None:
    """Find a window that is half data or more: of those spread over the image, at most 64; None if none is."""
    grid = tiling.grid((image.sizes["y"], image.sizes["x"]), models.CHECKED)
    reader = store.reader(image)
    for place in list(grid.places()) if len(grid) <= 64 else _spread(grid):
        window = grid[place].write
        if schema.valid_block(reader.read(*window), nodata).mean() > 0.5:
            return window
    return None


def _spread(grid: tiling.Grid) -> list[tuple[int, int]]:
    rows, columns = (np.linspace(0, count - 1, 8).astype(int) for count in grid.count)
    places = [(int(row), int(column)) for row in rows for column in columns]
    return [places[i] for i in np.random.default_rng(0).permutation(len(places))]
