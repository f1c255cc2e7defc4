"""Crops of aligned pairs, read from a run's Zarr."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage.data import immunohistochemistry

from comir_batch.core.card import Architecture, Input, ModalityCard
from comir_batch.core.config import ExecutionConfig
from comir_batch.core.errors import SlideError
from comir_batch.core.geometry import Region
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.layout import SlideFiles
from comir_batch.training.chunk_cache import ChunkCache
from comir_batch.training.crops import CropReader, PairReader, Pose
from comir_batch.training.ihc import haematoxylin_dab_channels
from comir_batch.training.pairs import prepare
from comir_batch.training.places import require_places
from comir_batch.training.split import WHOLE, Box, Part

TINY = Architecture(in_channels=1, init_filters=4, down=(1, 1), bottleneck=1, up=(1, 1), growth=4)
MODALITIES = tuple(ModalityCard(modality=m, architecture=TINY) for m in ("haematoxylin", "dab"))
MPP = 0.5
LEFT = Box(x1=160.0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ihc")
    for name, channel in zip(("h", "d"), haematoxylin_dab_channels(immunohistochemistry()), strict=True):
        cv2.imwrite(str(folder / f"{name}.png"), channel)
    header = "pair_id,fixed,moving,fixed_modality,moving_modality,fixed_mpp,moving_mpp"
    (folder / "pairs.csv").write_text(f"{header}\np1,h.png,d.png,haematoxylin,dab,{MPP},{MPP}\n")
    serial = ExecutionConfig(executor="serial")
    return prepare(folder / "pairs.csv", folder / "data", MPP, serial, lambda _: None).pairs[0]


@pytest.fixture(scope="module")
def image():
    return haematoxylin_dab_channels(immunohistochemistry())[0]


def test_an_upright_crop_is_the_slide_itself(pair, image):
    reader = CropReader(pair.fixed, Box(x0=10.0), Input(), MPP)
    low, high = reader.ranges[0]
    crop = reader.read(Pose(10.0 + 0.5 * 35.5, 0.5 * 45.5), 32)
    expected = image[30:62, 40:72].astype(np.float64)
    assert np.allclose(crop[0], np.clip((expected - low) / (high - low), 0, 1), atol=1e-4)


@pytest.mark.parametrize(("pose", "expected"), [((0.5 * np.pi, False), 3), ((0.0, True), None), ((np.pi, True), 2)])
def test_a_turned_crop_is_the_upright_one_turned(pair, pose, expected):
    reader = CropReader(pair.fixed, WHOLE, Input(), MPP)
    upright = reader.read(Pose(60.25, 70.25), 32)
    turned = reader.read(Pose(60.25, 70.25, *pose), 32)
    truth = np.flip(upright, -1) if expected is None else np.rot90(upright, 1, (1, 2))
    truth = np.flip(upright, -2) if pose == (np.pi, True) else truth
    assert np.allclose(turned, truth, atol=1e-3)


def test_a_part_shows_its_pixels_and_no_others(pair, image):
    reader = CropReader(pair.fixed, Box(x0=100.0, y0=10.0, x1=130.0), Input(), MPP)
    assert (reader.grid.width, reader.grid.height) == (60, 492)
    assert (reader.grid.origin_x, reader.grid.origin_y) == (100.0, 10.0)
    assert np.array_equal(reader.pixels(Region(5, 3, 15, 13))[0], image[23:33, 205:215])
    assert reader.tissue().shape == (492, 60)


def test_what_lies_outside_the_part_changes_no_crop_at_its_border(pair, tmp_path):
    inside = CropReader(pair.fixed, LEFT, Input(), MPP)
    copy = replace(pair.fixed, folder=tmp_path)
    pair.fixed.overview().save(SlideFiles(tmp_path).overview)
    pixels = pair.fixed.read(Region(0, 0, 512, 512)).copy()
    pixels[:, :, 320:] = 255 - pixels[:, :, 320:]
    array = ZarrArray.create(SlideFiles(tmp_path).pixels, pixels.shape, pixels.dtype, chunk=256, shard=512)
    array.write(Region(0, 0, 512, 512), pixels)
    other = CropReader(copy, LEFT, Input(), MPP)
    for x in (150.0, 155.3, 159.75):
        pose = Pose(x, 100.0, 0.7)
        assert np.array_equal(inside.read(pose, 48), other.read(pose, 48))
    assert not np.array_equal(
        CropReader(pair.fixed, WHOLE, Input(), MPP).read(pose, 48), CropReader(copy, WHOLE, Input(), MPP).read(pose, 48)
    )


def test_pixels_beyond_the_part_are_not_valid_and_mirror_what_is_inside(pair):
    reader = CropReader(pair.fixed, LEFT, Input(), MPP)
    pose = Pose(159.75 - 0.5 * 8, 100.25)  # of 32 columns, the last 8 leave the part
    valid, crop = reader.valid(pose, 32), reader.read(pose, 32)
    assert valid[:, :24].all()
    assert not valid[:, 24:].any()
    assert np.allclose(crop[0, :, 24:31], crop[0, :, 22:15:-1], atol=1e-4)
    assert reader.valid(Pose(80.0, 100.0, 0.3), 32).all()
    with pytest.raises(ValueError, match="outside the part"):
        reader.read(Pose(200.0, 100.0), 32)


def test_crops_of_a_pair_lie_at_the_same_place_and_inside_at_every_angle(pair):
    twins = replace(pair, moving=pair.fixed)
    with PairReader(Part(twins, LEFT), MODALITIES, MPP) as reader:
        rng = np.random.default_rng(0)
        poses = [reader.draw(rng, 64) for _ in range(50)]
        for pose in poses:
            assert reader.fixed.valid(pose, 64).all()
            first, second = reader.read(pose, 64)
            assert np.array_equal(first, second)
        assert len({pose.mirrored for pose in poses}) == 2
        again = np.random.default_rng(0)
        assert poses == [reader.draw(again, 64) for _ in range(50)]
        with pytest.raises(SlideError, match=r"pair p1: crops of 400 pixels need 283 µm, the part has 160 x 256 µm"):
            reader.draw(rng, 400)


def test_centres_lie_on_tissue_of_both_slides_and_everywhere_on_it(pair, tmp_path):
    overview = pair.moving.overview()
    tissue = np.zeros_like(overview.tissue)
    tissue[100:300, 150:200] = True
    replace(overview, tissue=tissue).save(SlideFiles(tmp_path).overview)
    SlideFiles(tmp_path).pixels.symlink_to(SlideFiles(pair.moving.folder).pixels)
    masked = replace(pair, moving=replace(pair.moving, folder=tmp_path))
    with PairReader(Part(masked), MODALITIES, MPP) as reader:
        rng = np.random.default_rng(0)
        centres = np.array([reader.draw(rng, 32)[:2] for _ in range(400)])
        assert reader.places(32) == 6  # rows 3.1 to 9.4 and columns 4.7 to 6.2 in squares; those half full count
    columns, rows = overview.grid.to_pixels(centres).T
    assert (columns >= 149.5).all()
    assert (columns <= 199.5).all()
    assert (rows >= 99.5).all()
    assert (rows <= 299.5).all()
    assert np.histogram2d(columns, rows, bins=(2, 4))[0].min() > 20


def test_a_part_without_common_tissue_is_refused(pair, tmp_path):
    overview = pair.moving.overview()
    tissue = np.zeros_like(overview.tissue)
    tissue[:8, :8] = True
    replace(overview, tissue=tissue).save(SlideFiles(tmp_path).overview)
    SlideFiles(tmp_path).pixels.symlink_to(SlideFiles(pair.moving.folder).pixels)
    part = Part(replace(pair, moving=replace(pair.moving, folder=tmp_path)))
    reader = PairReader(part, MODALITIES, MPP)
    with pytest.raises(SlideError, match="no crop of 64 pixels has its centre on tissue of both slides"):
        reader.draw(np.random.default_rng(0), 64)
    with pytest.raises(SlideError, match=r"1 pair have room for 0 crops of 64 pixels of 0.5 µm with tissue"):
        require_places([part], 64, MPP, 1)
    both = pair.fixed.overview().tissue & pair.moving.overview().tissue
    squares = both.reshape(8, 64, 8, 64).mean(axis=(1, 3)) >= 0.5
    assert abs(require_places([Part(pair), part], 64, MPP, 40) - squares.sum()) <= 2  # it samples


def test_a_blank_part_is_refused_by_name(pair, tmp_path):
    overview = pair.fixed.overview()
    replace(overview, tissue=np.zeros_like(overview.tissue)).save(SlideFiles(tmp_path).overview)
    SlideFiles(tmp_path).pixels.symlink_to(SlideFiles(pair.fixed.folder).pixels)
    with pytest.raises(SlideError, match=r"h\.png: the slide has no tissue"):
        CropReader(replace(pair.fixed, folder=tmp_path), WHOLE, Input(), MPP)
    with pytest.raises(SlideError, match=r"h\.png: .* has no pixels of a slide of 256 x 256 µm"):
        CropReader(pair.fixed, Box(x0=300.0), Input(), MPP)


def test_crops_of_a_coarser_pixel_size_average_what_is_there(pair):
    fine, coarse = (CropReader(pair.fixed, WHOLE, Input(), mpp) for mpp in (MPP, 2 * MPP))
    place = Pose(0.5 * 99.5, 0.5 * 99.5)
    # No working level is coarser here: the crop samples every second pixel, between which cubic interpolation lies.
    assert coarse.read(place, 32).shape == fine.read(place, 32).shape
    assert np.corrcoef(coarse.read(place, 32).ravel(), fine.read(place, 64)[:, ::2, ::2].ravel())[0, 1] > 0.9


def test_ranges_are_of_the_part_or_of_the_whole_slide(pair):
    part, whole = (CropReader(pair.fixed, LEFT, Input(), MPP, whole_ranges=w).ranges for w in (False, True))
    assert whole == CropReader(pair.fixed, WHOLE, Input(), MPP).ranges
    assert part != whole


def test_the_cache_gives_what_the_array_holds_and_keeps_to_its_limit(pair):
    array, rng = pair.fixed.array(), np.random.default_rng(0)
    cache = ChunkCache(limit_bytes=2 * 256 * 256)
    for _ in range(30):
        x, y = rng.integers(0, 400, 2).tolist()
        region = Region(x, y, x + 112, y + 100)
        assert np.array_equal(cache.read(array, region), array.read(region))
    assert sum(chunk.nbytes for chunk in cache._chunks.values()) == cache._held <= 2 * 256 * 256
