"""Visual words, which our own look-up is compared with, and the rows of the benchmark."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from comir_batch.bench import retrieval_speed
from comir_batch.bench.dense_sift import SYMMETRIES, Lattice, describe
from comir_batch.bench.retrieval import COLUMNS, Row, _Bench, require_methods, shuffled
from comir_batch.bench.retrieval_methods import METHODS, Found, Reranked, made, patches
from comir_batch.bench.visual_words import DenseSift, Ranker, SiftKeypoints, Vocabulary, balanced
from comir_batch.core.errors import ConfigError
from comir_batch.retrieval.signatures import length


def smooth(seed, side=129):
    noise = np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def everywhere(image):
    return np.ones(image.shape, bool)


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def changed(array, symmetry):
    mirrored, quarters = divmod(symmetry, 4)
    return np.ascontiguousarray(np.rot90(array[:, ::-1] if mirrored else array, quarters))


@pytest.mark.parametrize("symmetry", range(8))
def test_a_turned_image_has_the_same_descriptors_renumbered(symmetry):
    image = smooth(0)
    mask = np.ones(image.shape, bool)
    for before, after in zip(
        describe(image, mask, Lattice()), describe(changed(image, symmetry), mask, Lattice()), strict=True
    ):
        inside = changed(before.inside, symmetry)
        expected = changed(before.descriptors, symmetry)[..., SYMMETRIES[symmetry]]
        assert np.array_equal(inside, after.inside)
        assert (expected[inside] * after.descriptors[inside]).sum(axis=-1) == pytest.approx(1, abs=1e-3)


def test_blocks_that_leave_the_mask_are_not_inside():
    image = smooth(1)
    mask = np.ones(image.shape, bool)
    mask[:, :40] = False
    inside = describe(image, mask, Lattice(8, (32,)))[0].inside
    assert not inside[:, :6].any()
    assert inside[4, 9]


def test_widths_that_cannot_be_divided_are_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        Lattice(8, (36,))


def test_words_of_a_turned_image_are_renamed_words():
    rng = np.random.default_rng(2)
    vocabulary = Vocabulary(rng.normal(size=(5, 128)).astype(np.float32), SYMMETRIES)
    descriptors = rng.normal(size=(40, 128)).astype(np.float32)
    assert len(vocabulary) == 40
    for names, order in zip(vocabulary.renamed, SYMMETRIES, strict=True):
        assert np.array_equal(vocabulary.words(descriptors[:, order]), names[vocabulary.words(descriptors)])


def test_each_image_teaches_as_much_and_the_weakest_nothing():
    strong, weak = np.full((8, 1), 1.0, np.float32), np.full((2, 1), 2.0, np.float32)
    first = np.concatenate([strong, weak]), np.r_[np.ones(8), np.zeros(2)].astype(np.float32)
    second = np.full((30, 1), 3.0, np.float32), np.ones(30, np.float32)
    chosen = balanced([first, second], 10, np.random.default_rng(0))
    assert sorted(chosen.ravel().tolist()) == [1.0] * 5 + [3.0] * 5


def test_an_image_is_ranked_first_whichever_way_it_lies():
    images = [smooth(seed) for seed in range(6)]
    ranker = Ranker(images)
    assert ranker.rank(images[3])[0] == 3
    assert ranker.rank(changed(images[2], 5))[0] == 2


def test_a_row_counts_ranks_and_what_was_not_found():
    row = Row("a in b", "256 px, aligned", "CoMIR, cells", (1, 3, 0, 11), (True,), 20)
    assert [row.top(count) for count in (1, 5, 10)] == [0.25, 0.5, 0.5]
    told = dict(zip(COLUMNS, row.cells(), strict=True))
    assert (told["top 1"], told["its interval"]) == ("0.250", "0.006-0.806")
    assert (told["located"], told["interval of it"]) == ("1.000", "0.025-1.000")
    assert row._replace(located=()).cells()[7:9] == ("", "")


def test_of_equal_scores_the_right_field_is_not_the_first():
    def field(place):
        return SimpleNamespace(place=place, raw=None, comir=None)

    places = [
        SimpleNamespace(pose=SimpleNamespace(x=1000.0 * k, y=0.0), part=SimpleNamespace(pair=SimpleNamespace(name="p")))
        for k in range(40)
    ]
    near = SimpleNamespace(pose=SimpleNamespace(x=100.0, y=0.0), part=places[0].part)
    mixed, mine = shuffled(places[:8], [*places[8:], near], np.random.default_rng(0))
    assert [mixed[k] for k in mine] == places[:8]
    bench = _Bench([field(place) for place in mixed], mine, SimpleNamespace(modality="a"), "b", 1.0, ())
    ranks = []
    for number in mine:
        gallery = bench._gallery(number)
        assert len(gallery) == (33 if number == mine[0] else 34)
        assert not set(gallery) & (set(mine) - {number})
        ranks.append(gallery.index(number))  # where equal scores leave it, in stable sorts
    assert min(ranks) < 12
    assert max(ranks) > 22


def test_an_inverted_index_scores_as_the_cosine_of_whole_histograms_does():
    images = [smooth(seed) for seed in range(5)]
    ranker = Ranker(images, words=256)
    counts = np.array([ranker._histogram(DenseSift().described(image, everywhere(image))[0]) for image in images])
    query = ranker.histograms(changed(images[4], 6))
    dense = unit(query * ranker._weights) @ unit(counts * ranker._weights).T
    assert ranker.cosines(changed(images[4], 6)) == pytest.approx(dense.max(axis=0))
    assert dense.max() == pytest.approx(1, abs=0.02)


def test_keypoints_rank_a_turned_and_mirrored_image_first_and_a_blank_one_somewhere():
    images = [smooth(seed) for seed in range(6)]
    ranker = Ranker(images, SiftKeypoints(), words=64)
    assert ranker.rank(changed(images[2], 5))[0] == 2
    assert sorted(ranker.rank(np.zeros((64, 64), np.float32))) == list(range(6))


def test_patches_cover_a_field_from_border_to_border():
    field = np.arange(100.0).reshape(10, 10).astype(np.float32)
    cut = list(patches(field, (4, 6)))
    assert [patch.shape for patch in cut] == [(4, 6)] * 6
    assert set(np.concatenate([patch.ravel() for patch in cut])) == set(range(100))
    assert [patch.shape for patch in patches(field, (12, 12))] == [(10, 10)]


@pytest.mark.parametrize("name", ["CoMIR, signatures", "CoMIR, shortlist, verified"])
def test_methods_find_a_turned_and_mirrored_field_among_those_of_the_gallery(name):
    fields = [smooth(seed, 256) for seed in range(5)]
    method = made([name], {"CoMIR": fields})[name]
    found = method.find(changed(fields[3], 7), [0, 2, 3, 4])
    assert found.order[0] == 3
    assert set(found.order) <= {0, 2, 3, 4}


def test_the_first_fields_are_ranked_again_by_words_of_their_patches(monkeypatch):
    monkeypatch.setattr("comir_batch.bench.retrieval_methods._RERANKED", 2)
    monkeypatch.setattr("comir_batch.bench.retrieval_methods._NEW_WORDS", 64)
    fields = [smooth(seed, 160) for seed in range(4)]

    class Wrong:
        def find(self, _query, _gallery):
            return Found([1, 3, 0, 2])

    found = Reranked(fields, Wrong()).find(changed(fields[3][64:, 64:], 7), [0, 1, 2, 3])
    assert found.order == [3, 1, 0, 2]


def test_a_small_query_has_no_shortlist_and_an_unknown_method_is_refused():
    fields = [smooth(seed, 256) for seed in range(2)]
    methods = made(["raw, signatures", "raw, shortlist", "raw, shortlist, verified"], {"raw": fields})
    assert all(method.find(fields[0][:128, :128], [0, 1]) is None for method in methods.values())
    require_methods(METHODS[:3])
    with pytest.raises(ConfigError, match="no method 'cells'; choose from: raw, words; raw, keypoints"):
        require_methods(["cells"])


def test_the_learned_baseline_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ConfigError, match=r"pip install 'comir-batch\[baseline\]'"):
        require_methods(["raw, ImageNet"])


def test_the_learned_baseline_knows_a_field_from_another():
    pytest.importorskip("efficientnet_lite_pytorch")
    fields = [smooth(seed, 128) for seed in range(3)]
    method = made(["raw, ImageNet"], {"raw": fields})["raw, ImageNet"]
    assert method.find(changed(fields[1], 5), [0, 1, 2]).order[0] == 1


def test_a_speed_counts_whole_slides_and_what_they_take(monkeypatch):
    monkeypatch.setattr(retrieval_speed, "_SIDE", 512)
    first, second = retrieval_speed.measure_speed([10, 17], 1, all_places=False)
    assert (first.patches, second.patches) == (16, 32)
    assert second.index_mb == 2 * first.index_mb
    assert first.index_mb == pytest.approx((32 * 32 * length() + 128 * 128 * 4) / 1e6)
    assert 0 < first.signatures.wall < first.shortlisted.wall
    assert dict(zip(retrieval_speed.COLUMNS, first.cells(), strict=True))["all places (s, CPU s)"] == ""
