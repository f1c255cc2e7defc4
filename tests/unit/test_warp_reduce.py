"""Area means: exact, in the image's own dtype, with nothing lost at the border."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comir_batch.warp.reduce import halve_labels, reduce_area


def means(pixels, factor):
    """Plain loops: the mean of whatever pixels a group has."""
    channels, height, width = pixels.shape
    out = np.empty((channels, -(-height // factor), -(-width // factor)))
    for y in range(out.shape[1]):
        for x in range(out.shape[2]):
            group = pixels[:, y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
            out[:, y, x] = group.astype(np.float64).mean(axis=(1, 2))
    return out


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int8", "uint32", "float32", "float16"])
@given(height=st.integers(1, 40), width=st.integers(1, 40), factor=st.integers(1, 20), seed=st.integers(0, 9))
def test_agrees_with_plain_means(dtype, height, width, factor, seed):
    random = np.random.default_rng(seed)
    high = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    pixels = (random.random((2, height, width)) * high).astype(dtype)
    reduced = reduce_area(pixels, factor)
    assert reduced.dtype == pixels.dtype
    tolerance = 0.5 + 1e-4 if np.dtype(dtype).kind != "f" else 1e-3
    assert np.abs(reduced.astype(np.float64) - means(pixels, factor)).max() <= tolerance


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("factor", [2, 3, 20])
def test_what_is_no_number_does_not_spread_and_changes_nothing_else(dtype, factor):
    pixels = np.random.default_rng(0).random((2, 61, 47)).astype(dtype)
    whole = reduce_area(pixels, factor)
    pixels[0, 0, 0], pixels[1, 60, 46] = np.nan, np.inf
    first = pixels[0, :factor, :factor].copy()
    reduced = reduce_area(pixels, factor)
    assert reduced.dtype == pixels.dtype
    assert np.isfinite(reduced).sum() >= reduced.size - 1  # the last pixel may be a group of its own
    np.testing.assert_allclose(reduced[0, 0, 0], np.nanmean(first.astype(np.float64)), rtol=1e-2)
    same = np.ones(whole.shape, bool)
    same[0, 0, 0] = same[1, -1, -1] = False
    assert np.array_equal(reduced[same], whole[same])


def test_where_there_is_no_number_at_all_none_is_made_up():
    pixels = np.ones((1, 4, 4), np.float32)
    pixels[0, :2, :2] = np.nan
    reduced = reduce_area(pixels, 2)
    assert np.isnan(reduced[0, 0, 0])
    assert (reduced[0].ravel()[1:] == 1).all()


def test_large_factors_of_bright_16_bit_images_stay_exact():
    pixels = np.full((1, 64, 64), 65535, dtype=np.uint16)
    pixels[0, 0, 0] = 65535 - 4096
    assert reduce_area(pixels, 64)[0, 0, 0] == 65534


def test_parts_reduce_like_the_whole():
    pixels = np.random.default_rng(0).integers(0, 255, (3, 64, 96), dtype=np.uint8)
    whole = reduce_area(pixels, 2)
    np.testing.assert_array_equal(reduce_area(pixels[:, 32:, 16:48], 2), whole[:, 16:, 8:24])


def test_a_factor_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        reduce_area(np.zeros((1, 2, 2), np.uint8), 0)


@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_labels_are_the_most_frequent_ones(height, width, seed):
    labels = np.random.default_rng(seed).choice([0, 1, 7, 2**32 - 1], (1, height, width)).astype(np.uint32)
    found = halve_labels(labels)
    assert found.dtype == labels.dtype
    assert found.shape == (1, -(-height // 2), -(-width // 2))
    for y, x in np.ndindex(*found.shape[1:]):
        ranks = Counter(labels[0, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist())
        assert ranks[int(found[0, y, x])] == max(ranks.values())
