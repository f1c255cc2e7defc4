"""Signatures, the shortlist that is made of them, and an index that holds them, on made-up images."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from comir_batch.core.config import RunConfig
from comir_batch.core.errors import ConfigError, SlideError
from comir_batch.core.geometry import Grid
from comir_batch.core.slide import SlideSpec
from comir_batch.pipeline.representing import RepresentedSlide, SlideRow
from comir_batch.representation.store import find_model
from comir_batch.retrieval import index as indexing
from comir_batch.retrieval.cells import Cells
from comir_batch.retrieval.find import Finder, patches
from comir_batch.retrieval.index import Index, IndexRequest, build_index
from comir_batch.retrieval.lookup import best_poses, look_up, mean_energy
from comir_batch.retrieval.query_image import QueryImage
from comir_batch.retrieval.shortlist import Searched, look_up_shortlisted, shortlist
from comir_batch.retrieval.signatures import STRIDE_PX, at_all_poses, even, length, poses, signatures, signatures_of
from comir_batch.retrieval.templates import Query, linear, templates


@cache
def texture(seed, shape=(520, 560), noise=0.0):
    rng = np.random.default_rng(seed)
    image = sum(cv2.GaussianBlur(rng.normal(size=shape).astype(np.float32), (0, 0), s) * s for s in (5, 10, 20))
    other = cv2.GaussianBlur(np.random.default_rng(seed + 99).normal(size=shape).astype(np.float32), (0, 0), 4)
    return (image + noise * other / other.std() * image.std()).astype(np.float32)


def crop(image, middle, side, angle, *, mirrored):
    matrix = linear(angle, mirrored=mirrored)
    offset = np.array(middle) - matrix @ np.full(2, (side - 1) / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, np.column_stack([matrix, offset]), (side, side), flags=flags)


def query_of(image):
    return Query(image, np.ones(image.shape, bool))


def searched(image):
    cells = Cells.of(image, np.ones(image.shape, bool))
    return Searched.of(cells, signatures_of(cells))


def test_a_signature_times_a_query_is_the_cosine_of_what_both_have_in_the_functions():
    image = texture(3)
    cells = Cells.of(image, np.ones(image.shape, bool)).coarser(2)
    banded = cells.banded()
    found = signatures(banded)
    assert found.shape == (-(-banded.shape[0] // 2), -(-banded.shape[1] // 2), length())
    middle = 16 * STRIDE_PX + 3.5
    seen = crop(image, (middle, middle), 272, 0, mirrored=False)
    cosine = at_all_poses(query_of(seen))[0] @ found[16, 16].astype(np.float32)
    assert cosine == pytest.approx(np.linalg.norm(found[16, 16] / 256.0), abs=0.03)
    assert 0.85 < cosine <= 1


@pytest.mark.parametrize(("angle", "mirrored"), [(0, False), (130, False), (250, True)])
def test_a_query_described_once_is_known_at_every_pose(angle, mirrored):
    image = texture(4)
    there = at_all_poses(query_of(crop(image, (270, 250), 272, 0, mirrored=False)))[0]
    turned = at_all_poses(query_of(crop(image, (270, 250), 272, angle, mirrored=mirrored)))
    angles, mirrors = poses()
    cosines = turned @ there / np.linalg.norm(there) ** 2
    best = int(cosines.argmax())
    assert (angles[best], mirrors[best]) == (angle, mirrored)
    assert cosines[best] > 0.95


def test_half_a_turn_changes_the_sign_of_the_numbers_of_odd_order_alone():
    turned = at_all_poses(query_of(crop(texture(5), (270, 250), 256, 0, mirrored=False)))
    half = turned[poses()[0] == 180][0]
    assert np.allclose(half[: even()], turned[0, : even()], atol=1e-6)
    assert np.allclose(half[even() :], -turned[0, even() :], atol=1e-6)


@pytest.mark.parametrize(("angle", "mirrored"), [(0, False), (38, True)])
def test_the_true_place_is_on_the_shortlist_and_looked_up_as_among_all_places(angle, mirrored):
    images = [texture(seed) for seed in (10, 20, 30)]
    query = query_of(crop(texture(30, noise=0.5), (301, 247), 256, angle, mirrored=mirrored))
    gallery = [searched(image) for image in images]
    rough = shortlist(query, [each.signatures for each in gallery], 3)[0]
    assert (rough.slide, rough.mirrored) == (2, mirrored)
    assert math.dist((rough.x, rough.y), (301, 247)) < STRIDE_PX
    best = look_up_shortlisted(query, gallery, 5)[0]
    full = look_up(query, [Cells.of(image, np.ones(image.shape, bool)) for image in images], 5)[0]
    assert best == replace(full, score=pytest.approx(full.score, abs=1e-4))


def test_places_where_too_little_overlaps_are_no_hits():
    mask = np.zeros((1024, 1024), bool)
    mask[400:576, 400:576] = True
    cells = Cells.of(np.where(mask, texture(10, (1024, 1024)), np.float32(0)), mask)
    hits = look_up_shortlisted(query_of(texture(20)[:256, :256]), [Searched.of(cells, signatures_of(cells))], 30)
    assert hits
    assert min(hit.score for hit in hits) > 0


def test_the_shortlist_is_the_same_however_the_gallery_is_cut_into_slides(monkeypatch):
    monkeypatch.setattr("comir_batch.retrieval.shortlist._PIECE", 100)
    query = query_of(crop(texture(1), (260, 260), 256, 90, mirrored=True))
    gallery = [searched(texture(seed)).signatures for seed in (1, 2)]
    together = shortlist(query, gallery, 20)
    alone = shortlist(query, gallery[:1], 20)
    assert together[0] == alone[0]
    assert all(hit.x < 560 + STRIDE_PX and hit.y < 520 + STRIDE_PX for hit in together)


def test_the_energy_of_a_part_of_a_slide_is_scaled_by_that_of_all():
    banded = texture(6, (40, 50))
    made = templates(query_of(texture(7, (256, 256))), 8, 180)
    side = made.values.shape[1]
    padded, there = np.pad(banded, side // 2), np.pad(np.ones(banded.shape, bool), side // 2)
    whole, _ = best_poses(padded, there, made, [0])
    inner = np.s_[3 : 3 + side + 4, 5 : 5 + side + 4]
    part, _ = best_poses(padded[inner], there[inner], made, [0], mean_energy(banded, side))
    assert np.allclose(part, whole[3:8, 5:10], atol=1e-5)


def test_a_query_too_small_for_signatures_is_refused():
    with pytest.raises(SlideError, match="too small for a shortlist"):
        shortlist(query_of(texture(1, (128, 128))), [searched(texture(1)).signatures], 5)


@pytest.fixture
def made_up(monkeypatch):
    """Slides that are textures, instead of those that are represented from files."""

    def inspected(request):
        return [SimpleNamespace(name=row.name, fixed=SimpleNamespace(digest=row.name)) for row in request.rows]

    def represented(request, _subscriber, _stop):
        grid = Grid(320, 300, 1.0, 1.0)
        return [RepresentedSlide(request.folder / row.name, request.folder / row.name, grid) for row in request.rows]

    def read(self, region):
        return texture(int(self.representation.name), (300, 320))[None, *region.slices]

    monkeypatch.setattr(indexing, "inspect_slides", inspected)
    monkeypatch.setattr(indexing, "represent_slides", represented)
    monkeypatch.setattr(RepresentedSlide, "read", read)

    def build(folder, *names):
        rows = tuple(SlideRow(1, name, SlideSpec(Path(name)), "dapi", None) for name in names)
        request = IndexRequest(folder / "t.csv", rows, find_model("dapi-tritc"), folder, RunConfig())
        return build_index(request, lambda _event: None, SimpleNamespace(check=lambda: None))

    return build


def test_slides_added_later_are_searched_as_those_that_came_at_once(made_up, tmp_path):
    made_up(tmp_path / "grown", "1", "2")
    before = (tmp_path / "grown" / "signatures" / "1.npy").stat().st_mtime_ns
    grown, whole = made_up(tmp_path / "grown", "1", "2", "3"), made_up(tmp_path / "whole", "1", "2", "3")
    assert (tmp_path / "grown" / "signatures" / "1.npy").stat().st_mtime_ns == before
    for first, second in zip(grown.slides, whole.slides, strict=True):
        assert np.array_equal(grown.signatures(first), whole.signatures(second))
    seen = query_of(crop(texture(3, (300, 320)), (150, 160), 208, 75, mirrored=True))
    image = QueryImage(seen, Grid(208, 208, 1.0, 1.0), np.zeros((1, 8, 8)))
    places = [
        [(match.slide.name, match.score) for match in Finder(each, 0, "shortlist").places(image, each.slides)]
        for each in (grown, whole)
    ]
    assert places[0] == places[1]
    assert places[0][0][0] == "3"


def test_a_shortlist_is_chosen_in_a_large_gallery_alone_and_for_queries_large_enough(made_up, tmp_path, monkeypatch):
    index = made_up(tmp_path / "index", "1")
    large, small = (
        QueryImage(query_of(np.ones((side, side), np.float32)), Grid(side, side, 1.0, 1.0), np.zeros((1, 8, 8)))
        for side in (256, 128)
    )
    assert patches(index.slides) == 9
    assert Finder(index).chosen(large, index.slides) == "all"
    monkeypatch.setattr("comir_batch.retrieval.find.LARGE", 8)
    assert Finder(index).chosen(large, index.slides) == "shortlist"
    assert Finder(index).chosen(small, index.slides) == "all"
    assert Finder(index, look_up="all").chosen(large, index.slides) == "all"


def test_an_index_of_the_version_before_is_refused(made_up, tmp_path):
    made_up(tmp_path / "index", "1")
    path = tmp_path / "index" / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 1}))
    with pytest.raises(ConfigError, match="of version 1, this reads 2; make it anew"):
        Index.open(tmp_path / "index")
