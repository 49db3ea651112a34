# %% [markdown]
# # Predict over a continent
#
# A network is trained; the mosaic is larger than any memory. This notebook asks what the run will take, starts it,
# stops it in the middle, goes on, damages the result, finds the damage and mends it. All of it on a small scene,
# with the lines that serve for a continent.

# %%
# %matplotlib inline
import _thread
import shutil
import threading
import time
from pathlib import Path

import costs
import numpy as np
from dask.distributed import Client

import lsdask as ls

begun = time.perf_counter()
out = Path("out/continent")  # all that is written, made anew at each run
shutil.rmtree(out, ignore_errors=True)
client = Client(processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0")
client.dashboard_link

# %% [markdown]
# A mosaic and a model, as earlier notebooks make them. To be quick, the network is a small one that learns for some
# seconds only; look at how it runs, not at what it finds.

# %%
land = ls.synthetic.landscape((1024, 1024), seed=4)
ls.mosaic.write(land.scene, out / "mosaic.zarr", chunk=256, shard=512, client=client).check()
image = ls.store.open(out / "mosaic.zarr")

tiles = ls.sampling.describe(ls.sampling.grid(image, 64), mask=land.mask, valid=ls.schema.valid(image))
train = ls.streaming.TileStream(image, ls.sampling.select(tiles, min_positive=0.05), mask=land.mask, batch_size=8)
stats = ls.statistics.bands(image)
model = ls.models.build(
    "soares_unet", bands=ls.schema.bands(image), mean=stats["mean"].values, std=stats["std"].values, filters=8
)
ls.training.fit(model, train, epochs=4, lr=3e-3, folder=out / "model", device="cpu", progress=False)
ls.models.read_spec(out / "model")

# %% [markdown]
# ## What will it take?
#
# **What is lazy.** Here is a scene of 262,144 pixels a side, 2,000 km of ground at 8 m. It is lazy, so it costs
# nothing to have, and the plan of its run is made from whole numbers alone: no pixel is read.

# %%
continent = ls.synthetic.scene((262_144, 262_144), seed=4, chunks=2048)
ls.predict.plan(continent, out / "continent.zarr", out / "model", tile=2048, client=client)

# %% [markdown]
# **What a task is.** One tile: read it with its halo, score it, write it as one file. The halo is as far as the
# network looks, so that no score depends on where tiles meet. Its price is in the line "reads". This scene comes in
# chunks as large as the tiles, so each chunk is decoded again for every neighbour. That is the worst case; the small
# chunks of a store, as in the next plan, cost far less.
#
# Now the small mosaic. With `probe=True` one block is read and scored, to guess the time.

# %%
source, target, options = out / "mosaic.zarr", out / "scores.zarr", {"tile": 128, "halo": 32}
ls.predict.plan(source, target, out / "model", probe=True, client=client, **options)

# %% [markdown]
# A halo of 32 pixels is less than the network looks. That is quicker, and `run` will measure on one block what it
# changes, and warn if it can be seen in the scores.
#
# ## Run, and stop in the middle
#
# You would press the stop button. Here a thread presses it when ten tiles are done.


# %%
def press_stop(after: int) -> None:
    while not ls.store.exists(target) or ls.predict.status(target).done < after:
        time.sleep(0.02)
    _thread.interrupt_main()


threading.Thread(target=press_stop, args=[10], daemon=True).start()
try:
    ls.predict.run(source, target, out / "model", client=client, **options)
except KeyboardInterrupt:
    print("stopped:", ls.predict.status(target))

# %% [markdown]
# The scores so far are a store that can be opened. What is not done is *unknown*, and never zero.

# %%
ls.report.figure_scores(ls.store.open(target))

# %% [markdown]
# ## Go on
#
# The same call does the rest. After a power cut, a full disk, a lost node it is the same. With other arguments it
# would refuse, and say what differs.

# %%
report = ls.predict.run(source, target, out / "model", client=client, **options)
report

# %%
scores = ls.store.open(target)
ls.report.figure_scores(scores)

# %% [markdown]
# Is it the map that an undisturbed run makes? To the bit:

# %%
ls.predict.run(source, out / "again.zarr", out / "model", client=client, **options).check()
bool((ls.store.open(out / "again.zarr").values == scores.values).all())

# %% [markdown]
# ## Verify
#
# Disks fail later, too. The ledger holds a checksum of every tile. We cut one file short, as a torn copy would be;
# `verify` finds it, and running again makes that tile alone.

# %%
before = scores.values
torn = max((path for path in target.rglob("c/0/*/*")), key=lambda path: path.stat().st_size)
torn.write_bytes(torn.read_bytes()[:-40])
print(ls.predict.verify(target, progress=False))

# %%
report = ls.predict.run(source, target, out / "model", client=client, **options).check()
np.testing.assert_array_equal(ls.store.open(target).values, before)
report

# %% [markdown]
# ## On a cluster
#
# Only `client` differs: `Client("tcp://scheduler:8786")`, a Dask Gateway of a Pangeo hub, SLURM through
# dask-jobqueue. Mosaic, model folder and scores lie where all machines see them, or in an object store:
# `"s3://bucket/scores.zarr"`.
#
# ## What it cost

# %%
client.close()
costs.table(out, begun)

# %% [markdown]
# **Next:** [before and after an event](06_before_and_after_hokkaido.ipynb), or [reading the
# results](07_reading_the_results.ipynb).
