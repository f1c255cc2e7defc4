"""Changes of intensity, on a real picture."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2hed
from skimage.data import immunohistochemistry

from comir_batch.training.augment import disturbed


@pytest.fixture(scope="module")
def rgb():
    return np.moveaxis(immunohistochemistry()[:128, :128], -1, 0).astype(np.float32) / 255


def many(image, **options):
    return [disturbed(image, np.random.default_rng(seed), **options) for seed in range(40)]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_intensities_change_and_structure_stays(rgb, channels):
    image = rgb[:channels]
    for changed in many(image, strength=1.0):
        assert changed.dtype == np.float32
        assert changed.shape == image.shape
        assert 0 <= changed.min() < changed.max() <= 1
        assert np.corrcoef(changed[0].ravel(), image[0].ravel())[0, 1] > 0.5
    means = [changed.mean() for changed in many(image, strength=1.0)]
    assert np.std(means) > 0.05
    assert np.array_equal(disturbed(image, np.random.default_rng(0), 0.0), image)


def test_strength_is_strength(rgb):
    spread = [np.std([c.mean() for c in many(rgb, strength=s)]) for s in (0.2, 1.0)]
    assert spread[1] > 2 * spread[0]


def test_stains_of_brightfield_images_vary_against_each_other(rgb):
    """Gains and gammas common to the channels cannot change the ratio of two stains as much."""

    def ratios(stained):
        amounts = [rgb2hed(np.moveaxis(c, 0, -1)) for c in many(rgb, strength=1.0, stained=stained)]
        return np.std([np.log(a[..., 0].std() / a[..., 2].std()) for a in amounts])

    assert ratios(stained=True) > 1.2 * ratios(stained=False)
