"""Cells, templates and the search over them, on made-up images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from comir_batch.retrieval.cells import CELL, Cells, read_cells
from comir_batch.retrieval.lookup import Hit, cell_side, distinct, look_up
from comir_batch.retrieval.place import place
from comir_batch.retrieval.templates import Query, linear, templates


def texture(seed, shape=(480, 520), noise=0.0):
    """A smooth random image; the same seed with noise is the same tissue in another modality."""
    rng = np.random.default_rng(seed)
    image = sum(cv2.GaussianBlur(rng.normal(size=shape).astype(np.float32), (0, 0), s) * s for s in (3, 6, 12))
    other = cv2.GaussianBlur(np.random.default_rng(seed + 99).normal(size=shape).astype(np.float32), (0, 0), 2)
    return (image + noise * other / other.std() * image.std()).astype(np.float32)


def hit(slide, x, y, score, angle=0.0):
    return Hit(slide, x, y, angle, mirrored=False, score=score)


def everywhere(image):
    return np.ones(image.shape, bool)


def crop(image, middle, side, angle, *, mirrored):
    """Return the crop that a map from it to the image, about its middle, would pull."""
    matrix = linear(angle, mirrored=mirrored)
    offset = np.array(middle) - matrix @ np.full(2, (side - 1) / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, np.column_stack([matrix, offset]), (side, side), flags=flags)


def test_cells_average_what_counts_only():
    image, mask = np.zeros((8, 10), np.float32), np.zeros((8, 10), bool)
    image[:4, :4], mask[:4, :2] = np.arange(4), True
    cells = Cells.of(image, mask)
    assert cells.values.shape == (2, 3)
    assert cells.values[0, 0] == pytest.approx(0.5)
    assert cells.weight[0, 0] == pytest.approx(0.5)
    assert cells.values[1, 2] == cells.weight[1, 2] == 0
    assert cells.coarser(2).values.tolist() == [[pytest.approx(0.5), 0]]
    assert cells.coarser(2).side == 2 * CELL


def test_cells_read_in_strips_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr("comir_batch.retrieval.cells._ROWS", 64)
    image = texture(1, (203, 90))
    mask = image > np.median(image)
    image[~mask] = 0
    read = read_cells(lambda r: image[r.slices][None], (90, 203))
    whole = Cells.of(image, mask)
    assert np.array_equal(read.values, whole.values)
    assert np.array_equal(read.weight, whole.weight)


def test_slow_changes_do_not_count():
    ramp = np.add.outer(np.arange(320), np.arange(320)).astype(np.float32)
    banded = Cells.of(ramp, everywhere(ramp)).banded()
    assert np.abs(banded[20:-20, 20:-20]).max() < 1e-2


def test_templates_are_the_query_turned():
    image = texture(2)
    query = crop(image, (260, 240), 128, 0, mirrored=False)
    made = templates(Query(query, everywhere(query)), 8, 90)
    assert {*made.beside} == {0.0, 4.0}
    for number, (angle, mirrored) in enumerate(zip(made.angles, made.mirrored, strict=True)):
        middle = 63.5 + np.linalg.solve(linear(angle, mirrored=mirrored), 2 * [made.beside[number]])
        back = crop(query, middle, 136, -angle if not mirrored else angle, mirrored=bool(mirrored))
        cells = cv2.resize(back, (17, 17), interpolation=cv2.INTER_AREA)
        inner = np.s_[4:-4, 4:-4]
        assert np.corrcoef(cells[inner].ravel(), made.values[number][inner].ravel())[0, 1] > 0.8


def test_a_query_half_a_cell_beside_a_slides_cells_is_found_as_well_as_one_on_them():
    image = texture(10)
    slide = Cells.of(image, everywhere(image))
    on, beside = (300.5 - 1, 220.5 - 1), (300.5 + 3, 220.5 + 3)  # whole cells from 3.5, the middle of the first one
    scores = []
    for x, y in (on, beside):
        seen = crop(image, (x, y), 256, 0, mirrored=False)
        best = look_up(Query(seen, everywhere(seen)), [slide], 10)[0]
        assert (best.x, best.y) == (x, y)
        scores.append(best.score)
    assert scores[1] > 0.95 * scores[0]


@pytest.mark.parametrize(("angle", "mirrored"), [(0, False), (37, False), (201, True)])
def test_a_turned_or_mirrored_crop_is_found_among_slides_and_placed(angle, mirrored):
    slides = [texture(seed) for seed in (10, 20, 30)]
    seen = crop(texture(20, noise=0.5), (300, 220), 160, angle, mirrored=mirrored)
    query = Query(seen, everywhere(seen))
    best = look_up(query, [Cells.of(image, everywhere(image)) for image in slides], 10)[0]
    assert best.slide == 1
    assert best.mirrored == mirrored
    assert abs((best.angle - angle + 180) % 360 - 180) < 4
    assert np.hypot(best.x - 300, best.y - 220) < cell_side(query)

    def read(region):
        return slides[1][region.slices], np.ones(region.shape, bool)

    placed = place(query, best, read, slides[1].shape[::-1])
    assert np.allclose(placed.transform.map([[79.5, 79.5]])[0], (300, 220), atol=0.5)


def test_a_blank_query_has_no_place_and_none_lies_beyond_a_slide():
    image, blank = texture(1), np.zeros((128, 128), np.float32)

    def read(region):
        return image[region.slices], np.ones(region.shape, bool)

    size = image.shape[::-1]
    assert place(Query(blank, everywhere(blank)), hit(0, 100, 100, 0.1), read, size) is None
    assert place(Query(image, everywhere(image)), hit(0, 5000, 0, 1), read, size) is None


def test_distinct_places_keep_the_better():
    hits = [hit(0, 0, 0, 0.5), hit(0, 3, 0, 0.9, 90.0), hit(1, 3, 0, 0.1), hit(0, 40, 0, 0.2)]
    assert [each.score for each in distinct(hits, 8, 5)] == [0.9, 0.2, 0.1]
    assert len(distinct(hits, 8, 1)) == 1


def test_small_queries_have_smaller_cells():
    masks = [np.ones((side, 8), bool) for side in (64, 128, 256, 2048)]
    sides = [cell_side(Query(mask.astype(np.float32), mask)) for mask in masks]
    assert sides == [4, 4, 8, 8]


def test_of_a_large_query_the_part_that_counts_most_is_looked_up():
    image = texture(7, (700, 900))
    query = np.zeros((500, 600), np.float32)
    mask = np.zeros(query.shape, bool)
    query[100:, 150:], mask[100:, 150:] = image[200:600, 250:700], True
    best = look_up(Query(query, mask), [Cells.of(image, everywhere(image))], 3)[0]
    assert np.hypot(best.x - (100 + 299.5), best.y - (100 + 249.5)) < 16
