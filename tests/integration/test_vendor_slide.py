"""The Aperio scan that needs no shared data: from the package index to pixels."""

from __future__ import annotations

import numpy as np

from comir_batch.core.geometry import Region
from comir_batch.core.slide import SlideSpec
from comir_batch.io.open import open_slide


def test_an_aperio_scan_tells_its_size_and_gives_its_pixels(svs_slide):
    with open_slide(SlideSpec(svs_slide)) as slide:
        info = slide.info
        assert (info.levels[0].width, info.levels[0].height) == (2220, 2967)
        assert info.mpp_x == info.mpp_y == 0.499
        assert info.is_rgb
        assert info.photometric == "brightfield"
        pixels = slide.read(Region(1000, 1400, 1300, 1500))
    assert pixels.shape == (3, 100, 300)
    assert pixels.dtype == np.uint8
    assert pixels.std() > 10
