"""Places in an index of made-up slides: at the pixel size of each, and each place once."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from comir_batch.core.errors import SlideError
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.slide import SlideSpec
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.layout import SlideFiles
from comir_batch.pipeline.representing import RepresentedSlide
from comir_batch.representation.store import find_model
from comir_batch.retrieval.find import Finder
from comir_batch.retrieval.index import Index, IndexedSlide, _write
from comir_batch.retrieval.lookup import Hit
from comir_batch.retrieval.place import Placed, place, verified
from comir_batch.retrieval.query_image import QueryImage, require_room
from comir_batch.retrieval.templates import Query

MPP = find_model("dapi-tritc").card.mpp


def texture(seed, shape=(400, 440)):
    rng = np.random.default_rng(seed)
    return sum(cv2.GaussianBlur(rng.normal(size=shape).astype(np.float32), (0, 0), s) * s for s in (3, 6, 12)) + 1000


def resized(image, factor):
    height, width = (round(side / factor) for side in image.shape)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if factor > 1 else cv2.INTER_CUBIC)


def indexed(folder, **slides):
    """An index of representations with their pixel sizes."""
    made = []
    for name, (image, mpp) in slides.items():
        height, width = image.shape
        represented = RepresentedSlide(folder / "chunk", folder / name, Grid(width, height, mpp, mpp))
        array = ZarrArray.create(SlideFiles(folder / name).pixels, (1, height, width), "float32", chunk=256, shard=512)
        array.write(Region(0, 0, width, height), image[None].astype(np.float32))
        made.append(IndexedSlide(name, "dapi", SlideSpec(folder / f"{name}.tif"), name, represented))
        _write(folder, made[-1])
    return Index(folder, find_model("dapi-tritc"), tuple(made))


def image_of(pixels, mpp):
    height, width = pixels.shape
    grid = Grid(width, height, mpp, mpp)
    return QueryImage(Query(pixels.astype(np.float32), np.ones(pixels.shape, bool)), grid, pixels[None])


@pytest.mark.parametrize("factor", [0.72, 1.0, 1.04, 1.4])
def test_a_query_of_other_pixels_is_found_as_well_as_one_of_the_slides_own(tmp_path, factor):
    slide, top, left = texture(1), 100, 150
    finder = Finder(indexed(tmp_path, a=(slide, MPP), b=(texture(2), MPP)), verified=6)
    same, other = (
        finder.places(image_of(pixels, size), finder.searched("tritc"))[0]
        for cut in [slide[top : top + 200, left : left + 210]]
        for pixels, size in ((cut, MPP), (resized(cut, factor), factor * MPP))
    )
    middle = np.array([(left + 104.5) * MPP, (top + 99.5) * MPP])
    for match, grid in ((same, Grid(210, 200, MPP, MPP)), (other, Grid(210, 200, MPP, MPP))):
        assert match.slide.name == "a"
        assert np.allclose(match.middle(grid), middle, atol=MPP)
    assert abs(np.linalg.det(other.transform.matrix)) == pytest.approx(1, abs=1e-3)
    assert other.score > 0.7 * same.score


def test_slides_of_several_pixel_sizes_are_each_searched_at_their_own(tmp_path):
    slides = {"fine": texture(1), "coarse": texture(2)}
    index = indexed(tmp_path, fine=(slides["fine"], MPP), coarse=(resized(slides["coarse"], 1.3), 1.3 * MPP))
    finder = Finder(index, verified=8)
    scores = {}
    for name, slide in slides.items():
        found = finder.places(image_of(slide[80:280, 60:260], MPP), finder.searched("tritc"))
        assert found[0].slide.name == name
        assert found[0].score > 2 * found[1].score
        assert np.allclose(found[0].middle(Grid(200, 200, MPP, MPP)), np.array([159.5, 179.5]) * MPP, atol=MPP)
        scores[name] = found[0].score
    assert scores["coarse"] == pytest.approx(scores["fine"], rel=0.4)  # finer pixels are no better evidence


def test_what_a_mask_leaves_out_stays_out_when_a_query_is_resampled():
    pixels = texture(3, (120, 90)).astype(np.float32)
    mask = np.ones(pixels.shape, bool)
    mask[:40] = False
    pixels[~mask] = np.nan
    image = QueryImage(Query(pixels, mask), Grid(90, 120, 1.0, 1.0), pixels[None])
    assert image.at(1.005) is image
    coarser = image.at(1.5)
    assert coarser.query.pixels.shape == (80, 60)
    assert coarser.grid.size_um == pytest.approx(image.grid.size_um)
    assert np.isfinite(coarser.query.pixels).all()
    assert not coarser.query.mask[:26].any()
    assert coarser.query.mask[28:].all()
    assert coarser.query.pixels[coarser.query.mask].min() > 0.9 * np.nanmin(pixels)


def test_a_query_larger_than_what_is_searched_is_told_of_or_refused():
    grids = [Grid(side, side, 1.0, 1.0) for side in (500, 230, 500)]
    said = []
    require_room("q.tif", Grid(280, 200, 1.0, 1.0), grids, said.append)
    assert said == []
    require_room("q.tif", Grid(600, 600, 1.0, 1.0), grids, said.append)
    assert said[0].startswith("q.tif is 600 x 600 µm, larger than 1 of the 3 slides that are searched (up to 230 x 230")
    with pytest.raises(SlideError, match=r"larger than all slides that are searched \(up to 500 x 500 µm\); cut it"):
        require_room("q.tif", Grid(700, 300, 1.0, 1.0), grids, said.append)


def test_two_hits_that_climb_to_one_place_are_one():
    slide = texture(4)
    query = Query(slide[100:228, 100:228].astype(np.float32), np.ones((128, 128), bool))

    def lay(hit):
        return place(query, hit, lambda r: (slide[r.slices].astype(np.float32), np.ones(r.shape, bool)), (440, 400))

    hits = [Hit(0, x, 163.5, 0.0, mirrored=False, score=1.0) for x in (157.0, 171.0, 260.0)]
    assert sum(lay(hit) is not None for hit in hits) == 3
    found = verified(hits, lay)
    assert (found[0].x, found[0].y) == pytest.approx((163.5, 163.5), abs=0.1)
    assert all(np.hypot(each.x - 163.5, each.y - 163.5) > 8 for each in found[1:])


def test_places_of_two_slides_are_two():
    hits = [Hit(slide, 10.0, 10.0, 0.0, mirrored=False, score=1.0) for slide in (0, 1)]
    assert len(verified(hits, lambda hit: Placed(hit.slide, hit.x, hit.y, 3.0, None))) == 2
