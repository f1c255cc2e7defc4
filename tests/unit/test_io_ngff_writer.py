import json

import numpy as np
import pytest
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models import open_ome_zarr

from comir_batch.core.block import BlockPlan
from comir_batch.core.geometry import Grid
from comir_batch.io.ngff_writer import NgffImage, write_ngff_metadata
from comir_batch.io.zarr_array import ZarrArray

_FINEST = Grid(203, 150, 0.25, 0.5)


def _write(folder, channels=("red", "green", "blue"), dtype="uint8", *, is_rgb=True, **more):
    grids = (_FINEST, _FINEST.reduced(2), _FINEST.reduced(4))
    for index, grid in enumerate(grids):
        shape = (len(channels), *grid.shape)
        array = ZarrArray.create(folder / str(index), shape, dtype, chunk=32, shard=64)
        pixels = np.random.default_rng(index).integers(0, 200, shape).astype(dtype)
        for region in BlockPlan(grid.width, grid.height, 64):
            array.write(region, pixels[:, *region.slices])
    image = NgffImage("pair 1", grids, channels, dtype, is_rgb, **more)
    write_ngff_metadata(folder, image)
    return grids


@pytest.mark.parametrize(
    ("channels", "dtype", "is_rgb"),
    [(("red", "green", "blue"), "uint8", True), (("DAPI", "TRITC"), "uint16", False), (("0",), "float32", False)],
)
def test_the_models_accept_it_and_the_reference_reader_opens_it(tmp_path, channels, dtype, is_rgb):
    folder = tmp_path / "aligned.ome.zarr"
    grids = _write(folder, channels, dtype, is_rgb=is_rgb)
    image = open_ome_zarr(folder)
    assert image.ome_attributes.version == "0.5"
    node = next(iter(Reader(parse_url(folder))()))
    assert [level.shape for level in node.data] == [(len(channels), *grid.shape) for grid in grids]
    finest = np.random.default_rng(0).integers(0, 200, node.data[0].shape).astype(dtype)
    assert (np.asarray(node.data[0]) == finest).all()
    assert node.metadata["channel_names"] == list(channels)


def test_scales_and_translations_are_those_of_the_grids(tmp_path):
    grids = _write(tmp_path / "z")
    ome = json.loads((tmp_path / "z" / "zarr.json").read_text())["attributes"]["ome"]
    (multiscale,) = ome["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "y", "x"]
    assert [axis.get("unit") for axis in multiscale["axes"]] == [None, "micrometer", "micrometer"]
    for grid, dataset in zip(grids, multiscale["datasets"], strict=True):
        scale, translation = dataset["coordinateTransformations"]
        assert scale["scale"] == [1.0, grid.mpp_y, grid.mpp_x]
        assert translation["translation"] == [0.0, grid.origin_y, grid.origin_x]
    assert multiscale["datasets"][2]["coordinateTransformations"][1]["translation"] == [0.0, 0.75, 0.375]
    assert [c["color"] for c in ome["omero"]["channels"]] == ["FF0000", "00FF00", "0000FF"]
    assert ome["omero"]["channels"][0]["window"] == {"min": 0.0, "max": 255.0, "start": 0.0, "end": 255.0}


def test_windows_and_attributes_are_kept(tmp_path):
    _write(tmp_path / "z", ("a",), "uint16", is_rgb=False, windows=((10.0, 900.0),), attributes={"made by": "a run"})
    attributes = json.loads((tmp_path / "z" / "zarr.json").read_text())["attributes"]
    assert attributes["made by"] == "a run"
    window = attributes["ome"]["omero"]["channels"][0]["window"]
    assert (window["start"], window["end"], window["max"]) == (10.0, 900.0, 65535.0)


def test_nothing_opens_before_every_array_is_there(tmp_path):
    ZarrArray.create(tmp_path / "0", (1, 150, 203), "uint8", chunk=32, shard=64)
    with pytest.raises(ValueError, match=r"\(1, 150, 203\), expected uint8 \(2, 150, 203\)"):
        write_ngff_metadata(tmp_path, NgffImage("x", (_FINEST,), ("a", "b"), "uint8"))
    with pytest.raises(FileNotFoundError):
        write_ngff_metadata(tmp_path, NgffImage("x", (_FINEST, _FINEST.reduced(2)), ("a",), "uint8"))
    assert not (tmp_path / "zarr.json").exists()
