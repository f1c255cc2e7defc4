import multiprocessing
import os
import pickle
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from comir_batch.core.block import BlockPlan
from comir_batch.core.geometry import Region
from comir_batch.io.zarr_array import ZarrArray, sweep_leftovers


def _image(shape, dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def _make(path, shape=(3, 150, 203), dtype="uint8", **layout):
    return ZarrArray.create(path, shape, dtype, **{"chunk": 16, "shard": 64, **layout})


def test_blocks_of_whole_shards_and_border_shards_come_back(tmp_path):
    image, array = _image((3, 150, 203)), _make(tmp_path / "a b")
    for region in BlockPlan(203, 150, 128):
        array.write(region, image[:, *region.slices])
    read = array.read(Region(5, 7, 203, 150))
    assert (read == image[:, 7:, 5:]).all()
    assert read.flags.c_contiguous
    assert read.dtype == np.uint8
    assert (zarr.open_array(tmp_path / "a b", mode="r")[:] == image).all()


@settings(max_examples=15, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    dtype=st.sampled_from(["uint8", "uint16", "int8", "float16", "float32"]),
    fill=st.sampled_from([0, 7]),
)
def test_any_size_and_dtype(tmp_path_factory, width, height, dtype, fill):
    image = _image((2, height, width), dtype)
    array = _make(tmp_path_factory.mktemp("any") / "z", image.shape, dtype, chunk=8, shard=32, fill=fill)
    for region in BlockPlan(width, height, 32):
        array.write(region, image[:, *region.slices])
    assert (array.read(Region(0, 0, width, height)) == image).all()


def test_unwritten_pixels_are_fill_and_full_fill_takes_no_file(tmp_path):
    array = _make(tmp_path / "z", fill=255)
    array.write(Region(0, 0, 64, 64), np.full((3, 64, 64), 255, np.uint8))
    assert not list(tmp_path.rglob("c"))
    assert (array.read(Region(60, 60, 203, 150)) == 255).all()


def test_writing_fill_over_pixels_removes_them(tmp_path):
    array, region = _make(tmp_path / "z"), Region(0, 0, 64, 64)
    array.write(region, _image((3, 64, 64)))
    array.write(region, np.zeros((3, 64, 64), np.uint8))
    assert not array.read(region).any()


@pytest.mark.parametrize(
    "region", [Region(0, 0, 63, 64), Region(1, 0, 64, 64), Region(0, 64, 64, 149), Region(192, 0, 202, 64)]
)
def test_partial_shards_are_refused_with_both_boxes(tmp_path, region):
    array = _make(tmp_path / "z")
    with pytest.raises(ValueError, match=rf"x {region.x0}\.\.{region.x1}.* parts of shards of 64 x 64 .*203 x 150"):
        array.write(region, np.zeros((3, *region.shape), np.uint8))


def test_wrong_shape_dtype_and_outside_are_refused(tmp_path):
    array = _make(tmp_path / "z")
    with pytest.raises(ValueError, match=r"expected uint8 pixels \(3, 64, 64\), not float64"):
        array.write(Region(0, 0, 64, 64), np.zeros((3, 64, 64)))
    with pytest.raises(ValueError, match=r"x 0\.\.204.*x 0\.\.203"):
        array.read(Region(0, 0, 204, 1))


def test_create_is_idempotent_and_guards_the_layout(tmp_path):
    region = Region(0, 0, 64, 64)
    _make(tmp_path / "z").write(region, _image((3, 64, 64)))
    assert (_make(tmp_path / "z").read(region) == _image((3, 64, 64))).all()
    with pytest.raises(ValueError, match="layout"):
        _make(tmp_path / "z", shape=(1, 150, 203))
    with pytest.raises(ValueError, match="multiple"):
        _make(tmp_path / "y", shard=40)


def test_open_without_an_array(tmp_path):
    with pytest.raises(FileNotFoundError):
        ZarrArray.open(tmp_path / "none")


def test_pickles_as_its_path(tmp_path):
    array = _make(tmp_path / "z")
    data = pickle.dumps(array)
    assert len(data) < 300
    assert pickle.loads(data).shape == (3, 150, 203)  # noqa: S301


def test_neighbours_written_at_once_do_not_disturb_each_other(tmp_path):
    image, array = _image((1, 256, 256)), _make(tmp_path / "z", (1, 256, 256), chunk=16, shard=32)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda region: array.write(region, image[:, *region.slices]), BlockPlan(256, 256, 32)))
    assert (array.read(Region(0, 0, 256, 256)) == image).all()


def _write_for_ever(path):
    array, value = ZarrArray.open(path), 0
    while True:
        value = value % 100 + 1
        noise = np.random.default_rng(value).integers(0, 255, (1, 512, 512)).astype(np.uint8)
        noise[0, 0, 0], noise[0, -1, -1] = value, value
        array.write(Region(0, 0, 512, 512), noise)


def test_a_killed_writer_leaves_an_old_or_a_new_shard_and_its_rest_is_swept(tmp_path):
    array = ZarrArray.create(tmp_path / "z", (1, 512, 512), "uint8", chunk=64, shard=512)
    context = multiprocessing.get_context("spawn")
    for _ in range(2):
        writer = context.Process(target=_write_for_ever, args=(tmp_path / "z",))
        writer.start()
        while not (tmp_path / "z" / "c").exists():
            time.sleep(0.01)
        time.sleep(0.05)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        pixels = array.read(Region(0, 0, 512, 512))
        assert pixels[0, 0, 0] == pixels[0, -1, -1] > 0
    (tmp_path / "z" / ".writing-x").mkdir()
    assert sweep_leftovers(tmp_path / "z") >= 1
    assert sorted(p.name for p in (tmp_path / "z").iterdir()) == ["c", "zarr.json"]
