"""What streams read: layers of several stores, layers on other grids, folders of images, stores that lose objects."""

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from images import mosaic, random_mosaic
from odc.geo.geobox import GeoBox
from PIL import Image

from lsdask import sampling, schema, statistics, store, streaming, terrain
from lsdask.errors import BadInput, NotFound, Unreadable
from lsdask.streaming import TileStream, folders, reading


def joined(stream):
    return np.concatenate([batch.image for batch in stream])


def cut(array, tiles, rows):
    """The oracle: plain slices."""
    return np.stack([array[..., y : y + n, x : x + n] for y, x, n in tiles[["y", "x", "size"]].to_numpy()[rows]])


def floats(image):
    """The oracle: xarray's own masking."""
    void = schema.nodata(image)
    values = image.astype("float32")
    return values if void is None or np.isnan(void) else values.where(image != void)


# Layers


kinds = st.tuples(
    st.integers(1, 3), st.sampled_from(["uint8", "uint16", "float32"]), st.sampled_from([None, 7, 16, 40])
)


def layer_of(i, bands, dtype, chunk):
    """A layer with some void, 0 or NaN, and bands of its own."""
    image = random_mosaic((bands, 60, 70), seed=i, chunks=chunk)
    name = {"band": [f"{i}_{j}" for j in range(bands)]}
    if dtype == "float32":
        return image.where(image != 0).astype(dtype).assign_coords(name)
    return image.astype(dtype).assign_attrs(_FillValue=np.dtype(dtype).type(0)).assign_coords(name)


@settings(max_examples=12)
@given(st.lists(kinds, min_size=1, max_size=3), st.booleans())
def test_layers_follow_each_other_in_the_bands_whatever_their_chunks(kinds, shuffle):
    layers = [layer_of(i, *kind) for i, kind in enumerate(kinds)]
    tiles = sampling.grid(layers[0], 12, overlap=0.5)
    stream = TileStream(layers, tiles, shuffle=shuffle, buffer=10**6)
    assert stream.bands == tuple(name for layer in layers for name in layer.band.values)
    alike = len({layer.dtype for layer in layers}) == 1
    expected = np.concatenate([layer.values if alike else floats(layer).values for layer in layers])
    assert str(stream.nodata) == str(schema.nodata(layers[0]) if alike else np.nan)
    rows = stream.plan(0).order
    got = joined(stream)
    assert got.dtype == stream.dtype == (layers[0].dtype if alike else np.float32)
    np.testing.assert_array_equal(got, cut(expected, tiles, rows))


def test_layers_of_one_dtype_but_other_nodata_become_floats():
    before, after = (
        mosaic(np.full((1, 20, 20), 5, "uint16"), nodata=void, bands=[name]) for void, name in ((5, "a"), (0, "b"))
    )
    stream = TileStream([before, after], sampling.grid(before, 20))
    batch = next(iter(stream))
    assert batch.image.dtype == stream.dtype == np.float32
    assert np.isnan(stream.nodata)
    assert np.isnan(batch.image[0, 0]).all()
    assert (batch.image[0, 1] == 5).all()


def test_a_pixel_that_is_void_in_any_layer_is_unknown_in_the_mask():
    layers = [random_mosaic((2, 40, 50), seed=i, void=0.3).assign_coords(band=[f"{i}a", f"{i}b"]) for i in range(2)]
    mask = xr.DataArray(np.ones((40, 50), "uint8"), dims=("y", "x"))
    tiles = sampling.grid(layers[0], 10)
    stream = TileStream(layers, tiles, mask=mask, shuffle=False)
    known = schema.valid(layers[0]).values & schema.valid(layers[1]).values
    got = np.concatenate([batch.mask for batch in stream])
    np.testing.assert_array_equal(got, cut(np.where(known, 1, 255), tiles, np.arange(len(tiles))))


def test_each_layer_is_read_from_its_own_store_and_each_of_its_chunks_once(tmp_path):
    layers = [random_mosaic((1, 96, 96), seed=i).assign_coords(band=[name]) for i, name in enumerate("ab")]
    for layer, chunk in zip(layers, (16, 32)):
        store.write(layer, tmp_path / f"{layer.band.item()}.zarr", chunk=chunk, shard=96)
    opened = [store.open(tmp_path / f"{name}.zarr") for name in "ab"]
    tiles = sampling.grid(opened[0], 12, overlap=0.5)
    stream = TileStream(opened, tiles)
    assert [layer.chunk for layer in stream._source.layers] == [(16, 16), (32, 32)]
    assert stream._order.layout.cell[0] % 32 == 0
    assert stream.explain()["decodes_per_chunk"] == 1
    assert stream.explain()["chunks"] == 36 + 9
    expected = np.concatenate([layer.values for layer in layers])
    np.testing.assert_array_equal(joined(stream), cut(expected, tiles, stream.plan(0).order))


@pytest.mark.parametrize(
    ("chunks", "shape", "cell"),
    [
        ([(512, 512)], (4096, 4096), (512, 512)),
        ([(512, 512), (256, 256)], (4096, 4096), (512, 512)),
        ([(512, 512), (384, 768)], (4096, 4096), (1536, 1536)),
        ([(512, 512), (500, 500)], (40960, 40960), (512, 512)),
        ([(4096, 512), (100, 512)], (4096, 4096), (4096, 512)),
        ([], (300, 4096), (300, 512)),
    ],
)
def test_cells_are_whole_chunks_of_all_layers_where_that_is_not_too_wide(chunks, shape, cell):
    assert reading._cell(chunks, shape) == cell


def coarse(like, factor, dtype="float32"):
    """Heights on a grid that is coarser, begins elsewhere and goes beyond the image on all sides."""
    place = schema.geobox(like)
    shape = tuple(int(-(-side // factor)) + 4 for side in place.shape)
    transform = place.transform @ Affine.translation(-0.7 * factor, -0.3 * factor) @ Affine.scale(factor)
    values = np.cumsum(np.cumsum(np.random.default_rng(0).normal(size=shape), 0), 1).astype(dtype)
    values[30:33, 24:27] = np.nan
    return schema.wrap(
        values[None], GeoBox(shape, transform, place.crs), schema.MOSAIC, name="dem", coords={"band": ["dem"]}
    )


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("factor", [3, 0.5])
def test_a_layer_of_another_resolution_equals_the_resampled_one_on_every_tile(tmp_path, stored, factor):
    image = random_mosaic((2, 90, 130))
    dem = coarse(image, factor)
    if stored:
        for layer, chunk in ((image, 32), (dem, 16)):
            store.write(layer, tmp_path / f"{layer.name}.zarr", chunk=chunk, shard=32)
        image, dem = (store.open(tmp_path / f"{name}.zarr") for name in ("mosaic", "dem"))
    tiles = sampling.grid(image, 20, overlap=0.5)
    stream = TileStream([image, dem], tiles, batch_size=7, buffer=200_000)
    got = joined(stream)
    whole = terrain.resample(dem.compute(), image.compute()).values
    assert np.isnan(whole).any()
    assert np.isfinite(whole).mean() > 0.9
    rows = stream.plan(0).order
    np.testing.assert_array_equal(got[:, :2], cut(floats(image).values, tiles, rows))
    expected = cut(whole, tiles, rows)
    np.testing.assert_array_equal(np.isnan(got[:, 2:]), np.isnan(expected))
    np.testing.assert_allclose(got[:, 2:], expected, rtol=1e-6, atol=1e-5)


def test_layers_that_do_not_fit_are_refused():
    image = random_mosaic((2, 40, 50))
    tiles = sampling.grid(image, 10)
    with pytest.raises(BadInput, match=r"images must have bands of different names\. Got b0, b1 twice"):
        TileStream([image, image], tiles)
    bare = xr.DataArray(np.zeros((1, 40, 51), "uint16"), dims=schema.MOSAIC)
    with pytest.raises(BadInput, match=r"image\[1\] must have the shape of image\[0\], \(40, 50\)"):
        TileStream([image, bare], tiles)
    with pytest.raises(BadInput, match=r"image\[1\] must have dims"):
        TileStream([image, image[0]], tiles)
    for nothing in ([], None, image.values):
        with pytest.raises(BadInput, match=r"image must be a DataArray \(band, y, x\) or a list of one or more"):
            TileStream(nothing, tiles)


def test_streams_whose_bands_are_in_another_order_are_not_mixed():
    image = random_mosaic((2, 40, 50))
    tiles = sampling.grid(image, 10)
    turned = image.isel(band=[1, 0])
    with pytest.raises(BadInput, match=r"streams must have the same bands.*Put them in one order: image.sel\(band="):
        streaming.MixedStream([TileStream(image, tiles), TileStream(turned, tiles)])
    streaming.MixedStream([TileStream(image, tiles), TileStream(turned.sel(band=["b0", "b1"]), tiles)])


# Stores that lose objects


@pytest.fixture
def stored(tmp_path):
    """A store whose upper left shard was never written, as it is void, and its values."""
    array = np.random.default_rng(0).integers(1, 200, (2, 90, 130)).astype("uint16")
    array[:, :32, :32] = 0
    store.write(mosaic(array, nodata=0), tmp_path / "image.zarr", chunk=16, shard=32)
    assert not (tmp_path / "image.zarr/mosaic/c/0/0/0").exists()
    return tmp_path / "image.zarr", array


@pytest.mark.parametrize("threads", [1, 4])
def test_a_shard_that_is_lost_in_mid_epoch_is_named_and_once_it_is_back_the_rest_goes_on(stored, threads):
    path, _ = stored
    image = store.open(path)
    tiles = sampling.grid(image, 12, overlap=0.5)
    options = {"batch_size": 5, "buffer": 20_000, "threads": threads}
    whole = [batch.image for batch in TileStream(image, tiles, **options)]
    stream = TileStream(image, tiles, **options)
    given = iter(stream)
    got = [next(given).image for _ in range(4)]
    shard = path / "mosaic/c/0/1/2"
    aside = shard.rename(path / "aside")
    words = r"object \(0, 1, 2\) was there and is gone \(first in chunk \([23], [45]\); tried twice"
    with pytest.raises(Unreadable, match=words):
        got.extend(batch.image for batch in given)
    assert 4 <= len(got) < len(whole)
    state = stream.state_dict()
    assert state["batch"] == len(got)
    aside.rename(shard)
    again = TileStream(image, tiles, **{**options, "threads": 2})
    again.load_state_dict(state)
    got += [batch.image for batch in again]
    assert len(got) == len(whole)
    for mine, theirs in zip(got, whole):
        np.testing.assert_array_equal(mine, theirs)


def test_what_was_never_written_is_void_and_no_loss(stored):
    path, array = stored
    image = store.open(path)
    tiles = sampling.grid(image, 12)
    stream = TileStream(image, tiles)
    np.testing.assert_array_equal(joined(stream), cut(array, tiles, stream.plan(0).order))


def test_a_band_that_is_lost_where_bands_lie_apart_is_named(tmp_path):
    image = random_mosaic((2, 60, 60), void=0)
    apart = {"image": {"chunks": (1, 20, 20)}}
    image.to_dataset(name="image").to_zarr(tmp_path / "s.zarr", encoding=apart, consolidated=False)
    opened = store.open(tmp_path / "s.zarr")
    stream = TileStream(opened, sampling.grid(opened, 20), shuffle=False)
    np.testing.assert_array_equal(joined(stream)[5], image[:, 20:40, 40:])
    (tmp_path / "s.zarr" / "image" / "c" / "1" / "1" / "2").unlink()
    with pytest.raises(Unreadable, match=r"object \(1, 1, 2\) was there and is gone"):
        list(stream)


def test_a_lost_mask_is_no_unlabelled_image(stored, tmp_path):
    image = store.open(stored[0])
    mask = schema.wrap(np.ones((90, 130), "uint8"), schema.geobox(image), schema.MASK, name="mask", nodata=255)
    store.write(mask, tmp_path / "mask.zarr", chunk=16, shard=32)
    stream = TileStream(image, sampling.grid(image, 12), mask=store.open(tmp_path / "mask.zarr"))
    (tmp_path / "mask.zarr/mask/c/1/1").unlink()
    with pytest.raises(Unreadable, match=r"mask.zarr cannot be read: object \(1, 1\) was there and is gone"):
        list(stream)


# Folders of images


def picture(folder, name, shape=(20, 30), bands=3, seed=0, high=256):
    folder.mkdir(exist_ok=True)
    values = np.random.default_rng([seed, *name.encode()]).integers(0, high, (*shape, bands)).astype("uint8")
    Image.fromarray(values if bands > 1 else values[..., 0]).save(folder / name)
    return np.moveaxis(np.asarray(Image.open(folder / name)).reshape(*shape, bands), -1, 0)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_folder_of_images_is_a_stream_of_them_with_their_masks(tmp_path, suffix):
    names = [f"{i}.{suffix}" for i in "dacb"]
    images = {name: picture(tmp_path / "images", name) for name in names}
    masks = {name: picture(tmp_path / "masks", f"{name[0]}.png", bands=1, seed=1, high=2) for name in names}
    (tmp_path / "images" / "read.me").write_text("no image")
    stream = TileStream.from_folder(tmp_path / "images", tmp_path / "masks", batch_size=3, seed=2)
    assert (stream.bands, stream.nodata, stream.dtype) == (("red", "green", "blue"), None, np.uint8)
    assert [len(batch.image) for batch in stream.batches(0)] == [3, 1]
    order = [sorted(names)[row] for row in stream.plan(0).order]
    assert stream.where(0, 0) == "tiles " + ", ".join(order[:3])
    batches = list(stream)
    np.testing.assert_array_equal(np.concatenate([b.image for b in batches]), [images[name] for name in order])
    np.testing.assert_array_equal(np.concatenate([b.mask for b in batches]), [masks[name][0] for name in order])
    assert stream.explain()["decodes_per_chunk"] == 1
    state = {**stream.state_dict(), "batch": 1}
    stream.load_state_dict(state)
    assert [len(batch.image) for batch in stream] == [1]
    shares = [TileStream.from_folder(tmp_path / "images", rank=rank, world=2) for rank in range(2)]
    assert sorted(row for share in shares for row in share.plan(0).order) == [0, 1, 2, 3]


def test_files_can_be_given_one_by_one_in_any_order(tmp_path):
    files = [tmp_path / "images" / f"{i}.png" for i in range(4)]
    arrays = [picture(file.parent, file.name) for file in files]
    masks = [picture(tmp_path / "masks", file.name, bands=1, seed=1, high=2)[0] for file in files]
    truths = [tmp_path / "masks" / f"{i}.png" for i in (1, 3)]
    stream = TileStream.from_folder([files[3], files[1]], truths, shuffle=False)
    (batch,) = stream
    np.testing.assert_array_equal(batch.image, [arrays[3], arrays[1]])
    np.testing.assert_array_equal(batch.mask, [masks[3], masks[1]])


@pytest.mark.parametrize(
    ("values", "positive", "expected"),
    [
        ([0, 1, 1, 0], 1, [0, 1, 1, 0]),
        ([0, 255, 255, 0], 1, [0, 1, 1, 0]),
        ([0, 3, 200, 255], 1, [0, 1, 1, 1]),
        ([0, 127, 128, 255], 128, [0, 0, 1, 1]),
        ([0, 1, 255, 4], None, [0, 1, 255, 4]),
        ([0, 1, 255, 255], 2, [0, 0, 1, 1]),
    ],
)
def test_what_is_landslide_in_a_mask_is_said(tmp_path, values, positive, expected):
    file = tmp_path / "a.png"
    Image.fromarray(np.array([values], "uint8")).save(file)
    mask = folders.read_mask_block(file, (1, 4), positive)
    np.testing.assert_array_equal(mask, [expected])
    if positive is not None:  # a colour mask is landslide where one of its bands is
        Image.fromarray(
            np.stack([np.zeros((1, 4), "uint8"), np.array([values], "uint8"), np.zeros((1, 4), "uint8")], -1)
        ).save(file)
        np.testing.assert_array_equal(folders.read_mask_block(file, (1, 4), positive), [expected])


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_a_mask_s_opacity_is_no_landslide_and_what_is_transparent_is_none(tmp_path, mode):
    values = np.array([[0, 255, 255, 0, 1]], "uint8")
    opacity = np.array([[255, 255, 0, 0, 255]], "uint8")
    colours = [values] * (len(mode) - 1)
    Image.fromarray(np.stack([*colours, opacity], -1), mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(folders.read_mask_block(tmp_path / "a.png", (1, 5), 2), [[0, 1, 0, 0, 0]])
    Image.fromarray(np.stack([*(colour.clip(max=1) for colour in colours), opacity], -1), mode).save(tmp_path / "b.png")
    np.testing.assert_array_equal(folders.read_mask_block(tmp_path / "b.png", (1, 5), 1), [[0, 1, 0, 0, 1]])


def test_images_of_several_sizes_are_refused_or_resized(tmp_path):
    for name, shape in (("a.png", (20, 30)), ("b.png", (40, 60))):
        picture(tmp_path / "images", name, shape=shape)
        picture(tmp_path / "masks", name, shape=shape, bands=1, high=2)
    words = r"images must all be as a.png, 20 x 30 px of red, green, blue in uint8. Got b.png, 40 x 60 px.*Pass size="
    with pytest.raises(BadInput, match=words):
        TileStream.from_folder(tmp_path / "images")
    stream = TileStream.from_folder(tmp_path / "images", tmp_path / "masks", size=16, shuffle=False)
    batch = next(iter(stream))
    assert batch.image.shape == (2, 3, 16, 16)
    for i, name in enumerate(("a.png", "b.png")):
        picture_, mask = Image.open(tmp_path / "images" / name), Image.open(tmp_path / "masks" / name)
        theirs = np.moveaxis(np.asarray(picture_.resize((16, 16), Image.Resampling.BILINEAR)), -1, 0)
        assert np.abs(batch.image[i].astype(int) - theirs).max() <= 2  # both widen the kernel as they shrink
        np.testing.assert_array_equal(batch.mask[i], np.asarray(mask.resize((16, 16), Image.Resampling.NEAREST)))


def test_tiffs_keep_their_bands_dtype_and_void(tmp_path):
    profile = {"driver": "GTiff", "height": 8, "width": 9, "count": 2, "dtype": "float32", "nodata": -9.0}
    for i in range(3):
        with rasterio.open(tmp_path / f"{i}.tif", "w", transform=Affine.scale(1, -1), **profile) as file:
            file.write(np.full((2, 8, 9), i, "float32"))
            file.write(np.full((1, 1), -9, "float32"), 1, window=((0, 1), (0, 1)))
            file.descriptions = ("slope", "dem")
    stream = TileStream.from_folder(tmp_path, shuffle=False)
    got = joined(stream)
    assert (stream.bands, got.dtype, got.shape) == (("slope", "dem"), np.float32, (3, 2, 8, 9))
    assert np.isnan(got[:, 0, 0, 0]).all()
    assert np.isnan(got).sum() == 3
    assert (got[:, 1, 5, 5] == [0, 1, 2]).all()


def test_tiffs_that_declare_nan_are_alike(tmp_path):
    values = np.arange(32, dtype="float32").reshape(2, 4, 4)
    values[0, 1, 1] = np.nan
    for name in ("a.tif", "b.tif"):
        profile = {"driver": "GTiff", "dtype": "float32", "count": 2, "height": 4, "width": 4, "nodata": np.nan}
        with rasterio.open(tmp_path / name, "w", **profile) as file:
            file.write(values)
    np.testing.assert_array_equal(joined(TileStream.from_folder(tmp_path)), [values, values])


def test_folders_that_cannot_be_streamed_are_refused(tmp_path):
    picture(tmp_path / "images", "a.png")
    picture(tmp_path / "images", "b.png")
    picture(tmp_path / "masks", "a.png", bands=1, high=2)
    with pytest.raises(BadInput, match=r"masks must be of the same names as images. Got no mask for b\."):
        TileStream.from_folder(tmp_path / "images", tmp_path / "masks")
    picture(tmp_path / "masks", "b.png", bands=1, high=2, shape=(20, 31))
    with pytest.raises(BadInput, match=r"masks must be of the images' size, 20 x 30 px. Got b.png, 20 x 31 px"):
        TileStream.from_folder(tmp_path / "images", tmp_path / "masks")
    picture(tmp_path / "masks", "b.png", bands=1, high=2)
    picture(tmp_path / "masks", "c.png", bands=1, high=2)
    with pytest.raises(BadInput, match=r"Got no image for c\."):
        TileStream.from_folder(tmp_path / "images", tmp_path / "masks")
    (tmp_path / "masks" / "c.png").unlink()
    picture(tmp_path / "masks", "a.png", bands=3)
    with pytest.raises(BadInput, match=r"masks must be uint8 of one band. Got a.png.*Pass positive=1"):
        TileStream.from_folder(tmp_path / "images", tmp_path / "masks", positive=None)
    picture(tmp_path / "images", "b.png", bands=1)
    with pytest.raises(BadInput, match=r"Got b.png, 20 x 30 px of gray in uint8"):
        TileStream.from_folder(tmp_path / "images")
    Image.open(tmp_path / "images" / "a.png").convert("P").save(tmp_path / "images" / "b.png")
    with pytest.raises(BadInput, match=r"Got b.png, which has a palette"):
        TileStream.from_folder(tmp_path / "images")
    with pytest.raises(NotFound, match=r"images must name a folder, or be a list of files. Got .*nothing"):
        TileStream.from_folder(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match=r"images must hold files ending in .png, .jpg"):
        TileStream.from_folder(tmp_path / "empty")
    with pytest.raises(BadInput, match=r"images must have a name only once\. Got a twice"):
        TileStream.from_folder([tmp_path / "images" / "a.png"] * 2, tmp_path / "masks")


def test_masks_of_0_1_and_255_are_not_guessed_at(tmp_path):
    picture(tmp_path / "images", "a.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.tile(np.array([0, 1, 255], "uint8"), (20, 10))).save(tmp_path / "masks" / "a.png")
    with pytest.raises(BadInput, match=r"masks must say what 255 is beside 1. Got a.png. Pass positive=None"):
        list(TileStream.from_folder(tmp_path / "images", tmp_path / "masks"))


def test_a_torn_image_is_named(tmp_path):
    picture(tmp_path / "images", "a.png")
    picture(tmp_path / "images", "b.png")
    stream = TileStream.from_folder(tmp_path / "images")
    torn = tmp_path / "images" / "b.png"
    torn.write_bytes(torn.read_bytes()[:900])
    with pytest.raises(Unreadable, match=r"b.png cannot be read"):
        list(stream)


@pytest.mark.realdata
def test_the_bands_of_a_folder_have_statistics_and_nepal_is_read_as_pillow_reads_it(data):
    files = sorted((data / "nepal" / "images").iterdir())
    image = streaming.stack(data / "nepal" / "images")
    assert image.shape == (3, 24 * 512, 512)
    arrays = np.stack([np.moveaxis(np.asarray(Image.open(file).convert("RGB")), -1, 0) for file in files])
    stats = statistics.bands(image)
    np.testing.assert_allclose(stats["mean"], arrays.mean(axis=(0, 2, 3)), rtol=1e-6)
    stream = TileStream.from_folder(data / "nepal" / "images", data / "nepal" / "masks", shuffle=False, batch_size=8)
    np.testing.assert_array_equal(joined(stream), arrays)
    masks = np.stack([np.asarray(Image.open(data / "nepal" / "masks" / file.name)).max(axis=-1) > 0 for file in files])
    np.testing.assert_array_equal(np.concatenate([batch.mask for batch in stream.batches(0)]), masks)
    assert 0.004 < masks.mean() < 0.02


@pytest.mark.realdata
@pytest.mark.slow
def test_nepal_is_learnt_through_fit(data):
    from lsdask import models, training

    files, masks = sorted((data / "nepal" / "images").iterdir()), data / "nepal" / "masks"
    learnt, held = [file for i, file in enumerate(files) if i % 3], files[::3]
    image = streaming.stack(learnt)
    truth = folders.stack_masks([masks / file.name for file in learnt], (512, 512), size=None, positive=1)
    tiles = sampling.describe(sampling.grid(image, 64, overlap=0.5), mask=truth)
    tiles = tiles[tiles["y"] // 512 == (tiles["y"] + 63) // 512].reset_index(drop=True)  # of one picture each
    train = TileStream(image, sampling.balance(tiles), mask=truth, batch_size=16)
    valid = TileStream.from_folder(held, [masks / file.name for file in held], batch_size=1, shuffle=False)
    share = np.mean([batch.mask.mean() for batch in valid.batches(0)])
    stats = statistics.bands(image)
    model = models.build("linknet", bands=train.bands, mean=stats["mean"].values, std=stats["std"].values, seed=0)
    done = training.fit(
        model, train, valid, epochs=2, lr=2e-3, loss="focal_tversky", monitor="f1", device="cpu", precision="float32"
    )
    # Two epochs are a beginning: twice as good as calling everything a landslide (F1 0.0087), seen 2.3 times.
    assert max(row["f1"] for row in done.history) > 1.7 * 2 * share / (1 + share)
    assert done.history[1]["valid"] < done.history[0]["valid"]
