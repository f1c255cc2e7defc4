"""Two modalities from one image: the haematoxylin and the DAB of an immunohistochemistry picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MPP = 0.5
"""Pixel size in µm that the picture is given; its own is not known."""
TRAINED_WIDTH = 320
"""Columns of its 512, from the left, that the shipped model learnt from; the rest is held out."""
_HIGHEST = np.array([0.08, 0.2])  # about the 99.5th percentiles of scikit-image's picture


def haematoxylin_dab_channels(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the haematoxylin and the DAB amounts of an image of both stains, as two dark-background images.

    The stains are separated by the colour deconvolution of Ruifrok and Johnston (2001); amounts of 0 to 0.08 of
    haematoxylin and 0 to 0.2 of DAB, on the scale of `skimage.color.rgb2hed`, become 0 to 255, whatever the image.

    Parameters
    ----------
    rgb : (Y, X, 3) uint8
        Brightfield image.

    Returns
    -------
    (2, Y, X) uint8
        Haematoxylin, DAB.
    """
    from skimage.color import rgb2hed  # noqa: PLC0415  only the demo needs scikit-image

    amounts = np.moveaxis(rgb2hed(rgb)[..., [0, 2]], -1, 0)
    scaled = amounts / _HIGHEST[:, None, None] * 255
    return np.asarray(np.clip(np.rint(scaled), 0, 255), dtype=np.uint8)
