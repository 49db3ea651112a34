# %% [markdown]
# # Tiles and training
#
# Which pieces of a mosaic a network learns from decides more than the network does. This notebook cuts tiles, looks
# at what is in them, keeps training and testing apart on the ground, trains, and reads the curves.

# %%
# %matplotlib inline
import shutil
import time
from pathlib import Path

import costs
import pandas as pd
from dask.distributed import Client

import lsdask as ls

begun = time.perf_counter()
out = Path("out/training")  # all that is written, made anew at each run
shutil.rmtree(out, ignore_errors=True)
client = Client(processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0")
client.dashboard_link

# %%
land = ls.synthetic.landscape((768, 768), seed=4)
ls.mosaic.write(land.scene, out / "mosaic.zarr", chunk=128, shard=384, client=client).check()
image = ls.store.open(out / "mosaic.zarr")
ls.report.figure_scene(image, polygons=land.polygons)

# %% [markdown]
# ## A table of tiles
#
# **What is lazy.** A tile is a row of a table: where it lies, how much of it has data, how much is landslide. No
# pixel is copied; the network's reader fetches them when it needs them.

# %%
tiles = ls.sampling.grid(image, 64, overlap=0.5)
tiles = ls.sampling.describe(tiles, mask=land.mask, valid=ls.schema.valid(image))
tiles = ls.sampling.select(tiles, min_valid=0.5)
tiles.describe().loc[["count", "mean", "min", "max"]].round(3)

# %%
axes = tiles.positive.plot.hist(bins=30, log=True, figsize=(6, 2.6), color="#0b6e66")
axes.set(xlabel="share of the tile that is landslide", ylabel="tiles")
axes.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# Most tiles hold no landslide, or next to none: that is what the ground is like, and why accuracy says nothing
# here. A map without a single landslide would be right for nearly every pixel.
#
# ## Train, choose, test
#
# Neighbouring tiles share pixels. Dealt at random, the network would be tested on what it has learnt by heart.
# `split` deals squares of *ground* instead, holds out the east, and leaves out tiles that would touch both sides.

# %%
tiles = ls.sampling.split(tiles, test="east", seed=0)
ls.sampling.check_split(tiles)  # raises if two sides share a pixel
ls.report.figure_splits(tiles, image)

# %% [markdown]
# ## Balance, in training only
#
# Let half of the tiles that are shown in training hold some landslide. Tiles that judge stay as the ground is.

# %%
shown = ls.sampling.balance(tiles[tiles.split == "train"], how="mean", seed=0)
pd.DataFrame(
    {name: {"tiles": len(part), "with landslide": (part.positive > 0).mean()} for name, part in
     {"as they lie": tiles[tiles.split == "train"], "balanced": shown}.items()}
).T.round(2)  # fmt: skip

# %% [markdown]
# ## Batches
#
# A stream reads each chunk of the store about once an epoch and shuffles what it has read. What comes is what is
# stored: whole numbers, void included. The network makes its own input of them.

# %%
train = ls.streaming.TileStream(image, shown, mask=land.mask, batch_size=16, seed=0)
valid = ls.streaming.TileStream(image, tiles[tiles.split == "valid"], mask=land.mask, shuffle=False)
batch = next(iter(train))
batch.image.shape, batch.image.dtype, batch.mask.shape

# %% [markdown]
# ## Train
#
# Tiles are turned and mirrored on their way, so that no direction is learnt by heart. The weights kept are those of
# the epoch that did best on the validation tiles. **What a task is** here: a step on one batch. Stop it, and
# `resume=True` goes on in the middle of the epoch.

# %%
stats = ls.statistics.bands(image)
model = ls.models.build("unet", bands=ls.schema.bands(image), mean=stats["mean"].values, std=stats["std"].values)
trained = ls.training.fit(
    model, train, valid, epochs=4, lr=2e-3, monitor="f1", folder=out / "model", device="cpu", progress=False
)
history = pd.DataFrame(trained.history)
history[["epoch", "train", "valid", "precision", "recall", "f1", "seconds"]].round(3)

# %%
ls.report.figure_history(history)

# %% [markdown]
# Four epochs show the way and no more; `lsdask demo` takes eight on seven times the ground. Where the training loss
# falls and that of validation rises, the network learns by heart.
#
# ## The model is a folder
#
# Two files: the weights, and what is needed to use them rightly. It can be copied, and reading it runs no foreign
# code.

# %%
ls.models.read_spec(out / "model")

# %% [markdown]
# ## A threshold, then the test
#
# The threshold is chosen on the *validation* tiles. The test tiles are looked at once, at the end.

# %%
scores = ls.predict.apply(image, out / "model", tile=384).compute()
sides = {name: ls.evaluate.within(tiles[tiles.split == name], scores) for name in ("valid", "test")}
threshold = ls.evaluate.best(ls.evaluate.sweep(scores, land.mask, valid=sides["valid"]), by="f1")
counts = ls.evaluate.count(scores, land.mask, threshold=threshold, valid=sides["test"])
{"threshold": threshold} | {name: round(value, 2) for name, value in ls.evaluate.score(counts).items()}

# %%
ls.report.figure_curves(ls.evaluate.sweep(scores, land.mask, valid=sides["test"]), threshold=threshold)

# %% [markdown]
# ## What it cost

# %%
client.close()
costs.table(out, begun)

# %% [markdown]
# **Next:** [predict over a continent](05_predict_over_a_continent.ipynb).
