"""Visual words, which our own look-up is compared with, and the rows of the benchmark."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from comir_batch.bench.dense_sift import SYMMETRIES, Lattice, describe
from comir_batch.bench.retrieval import COLUMNS, Row
from comir_batch.bench.visual_words import Ranker, Vocabulary, balanced


def smooth(seed, side=129):
    noise = np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 3)


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
    assert dict(zip(COLUMNS, row.cells(), strict=True))["located"] == "1.000"
    assert row._replace(located=()).cells()[6] == ""
