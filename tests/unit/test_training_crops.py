"""Crops of aligned pairs, read from a run's Zarr."""

from __future__ import annotations

import shutil
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
from comir_batch.training.crops import CropReader, PairReader, Pose, shares
from comir_batch.training.ihc import haematoxylin_dab_channels
from comir_batch.training.known_rigid import find_place, read_field, rigid
from comir_batch.training.pairs import prepare
from comir_batch.training.places import SMALLEST, Places, require_places
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
            _, beside = reader.read(pose, 64, (3.0, -2.0))
            assert np.array_equal(beside, reader.moving.read(pose._replace(x=pose.x + 1.5, y=pose.y - 1.0), 64))
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
    with pytest.raises(SlideError, match=r"h\.png: the part with x from 300 to the end and y from 0 to the end"):
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
        assert np.array_equal(cache.opened(array).read(region), array.read(region))
    assert sum(chunk.nbytes for chunk in cache._chunks.values()) == cache._held <= 2 * 256 * 256


def test_an_array_that_is_made_anew_is_read_anew(tmp_path):
    cache, region = ChunkCache(), Region(0, 0, 32, 32)
    for value in (3, 7):
        array = ZarrArray.create(tmp_path / "array", (1, 32, 32), "uint8", chunk=32, shard=32)
        array.write(region, np.full((1, 32, 32), value, np.uint8))
        assert (cache.opened(array).read(region) == value).all()
        shutil.rmtree(tmp_path / "array")


@pytest.fixture
def masked(pair, tmp_path):
    """A pair whose moving slide has a mask with a hole, and a bridge too narrow for crops of 64 pixels."""
    overview = pair.moving.overview()
    mask = np.zeros_like(overview.tissue)
    mask[50:450, 50:250], mask[200:220, 250:450] = True, True
    mask[200:300, 120:180] = False
    replace(overview, tissue=mask).save(SlideFiles(tmp_path).overview)
    SlideFiles(tmp_path).pixels.symlink_to(SlideFiles(pair.moving.folder).pixels)
    everywhere = tmp_path / "fixed"
    fixed = pair.fixed.overview()
    replace(fixed, tissue=np.ones_like(fixed.tissue)).save(SlideFiles(everywhere).overview)
    SlideFiles(everywhere).pixels.symlink_to(SlideFiles(pair.fixed.folder).pixels)
    moving = replace(pair.moving, folder=tmp_path, masked=True)
    return replace(pair, fixed=replace(pair.fixed, folder=everywhere), moving=moving), mask


def test_crops_lie_mostly_inside_a_mask_that_was_given(masked):
    pair, mask = masked
    inside = {}
    for given in (True, False):
        part = Part(replace(pair, moving=replace(pair.moving, masked=given)))
        reader, rng = PairReader(part, MODALITIES, MPP), np.random.default_rng(0)
        poses = [reader.draw(rng, 64) for _ in range(200)]
        inside[given] = np.array([reader.moving.tissue_at(pose, 64).mean() for pose in poses])
        assert Places(part, MPP).keep_to_masks(64)
    assert inside[True].min() > 0.7  # turned crops reach where upright ones do not
    assert inside[False].min() < 0.4  # of tissue that was found, not drawn, the border is learnt from as well
    assert mask[100:200, 60:120].all()


def test_a_mask_too_narrow_for_a_crop_is_read_all_the_same(masked):
    pair, _ = masked
    bridge = Part(pair, Box(x0=140.0, x1=220.0))
    places = Places(bridge, MPP)
    assert not places.keep_to_masks(64)
    assert places.refusal(64) == ""
    assert places.keep_to_masks(16)
    rows = np.array([places.draw(np.random.default_rng(seed), 64)[1] for seed in range(20)]) / MPP
    assert ((rows >= 199) & (rows <= 220)).all()


def test_what_a_mask_leaves_out_is_not_valid_in_a_field(masked):
    pair, _ = masked
    reader = PairReader(Part(pair), MODALITIES, MPP)
    placement = find_place(reader, np.random.default_rng(0), rigid(10.0, (4.0, 2.0), 96), 96)
    at_the_hole = placement._replace(fixed=Pose(75.0, 125.0), moving=Pose(75.0, 125.0))
    field = read_field(reader, at_the_hole, 96)
    assert field.fixed_valid.all()
    assert not field.moving_valid[40:60, 40:60].any()
    assert field.moving_valid[:, :10].all()


def test_a_part_without_room_has_no_share(pair):
    boxes = Box(x1=160.0), Box(y1=20.0), Box(x0=200.0)
    readers = [PairReader(Part(pair, box), MODALITIES, MPP) for box in boxes]
    found = shares(readers, 64)
    assert found[0] > found[2] > 0 == found[1]
    assert found.sum() == pytest.approx(1)
    assert "crops of 64 pixels need 45 µm, the part has 256 x 20 µm" in readers[1].refusal(64)
    assert readers[1].refusal(64).endswith("Use smaller crops, a smaller pixel size, or larger images")
    assert readers[1].refusal(SMALLEST).endswith("Use a smaller pixel size, or larger images")
    with pytest.raises(SlideError, match="the part has 256 x 20 µm"):
        shares(readers[1:2], 64)
