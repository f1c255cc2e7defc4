"""Pictures: overlays, checkerboards, maps and titled panels; arrays in, ``(Y, X, 3)`` uint8 RGB out.

An image is ``(Y, X, 3)`` uint8 RGB, or ``(Y, X)`` uint8 or float in 0..1.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from comir_batch.report.words import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from comir_batch.core.slide import Photometric
    from comir_batch.report.scales import Scale

    RGB = NDArray[np.uint8]

_MARGIN = 12
_MOST_GAIN = 6  # a crop of empty glass stays dark rather than showing noise


def grey(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return the luminance of an image, ``(Y, X)`` float32 in 0..1."""
    scaled = image.astype(np.float32) / (255 if image.dtype == np.uint8 else 1)
    if scaled.ndim == 3:
        scaled = scaled @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.clip(np.nan_to_num(scaled), 0, 1)


def signal(image: NDArray[Any], photometric: Photometric = "dark") -> NDArray[np.float32]:
    """Return where an image has something to show, ``(Y, X)`` in 0..1; brightfield is inverted: tissue is bright.

    The stretch takes the percentiles 1 and 99.7 of this image alone; it is for the eye and never for a measurement.
    """
    light = 1 - grey(image) if photometric == "brightfield" else grey(image)
    low, high = np.percentile(light, (1, 99.7))
    if high - low < 1e-6:
        return light
    return np.asarray(np.clip((light - low) / (high - low), 0, 1), dtype=np.float32)


def displayed(image: NDArray[Any], *, stretch: bool = True) -> RGB:
    """Return an image as one shows it alone: one channel stretched, colours brightened together where all are dim."""
    if image.ndim == 2:
        return _rgb(signal(image) if stretch else grey(image))
    if not stretch:
        return np.ascontiguousarray(image, dtype=np.uint8)
    brightest = float(np.percentile(image.max(axis=2), 99.7))
    gain = np.clip(255 / max(brightest, 1.0), 1, _MOST_GAIN)
    return np.asarray(np.minimum(image * np.float32(gain), 255), dtype=np.uint8)


def overlay(
    fixed: NDArray[Any],
    moving: NDArray[Any],
    fixed_photometric: Photometric = "dark",
    moving_photometric: Photometric = "dark",
    *,
    stretch: bool = True,
) -> RGB:
    """Lay two images of one size over each other: fixed in green, moving in magenta; agreement is grey to white.

    Green and magenta stay apart for the common colour blindnesses. Images that share a scale already, as CoMIRs do, are
    not stretched. Raises ValueError if the sizes differ.
    """
    _same_size(fixed, moving)
    green = signal(fixed, fixed_photometric) if stretch else grey(fixed)
    magenta = signal(moving, moving_photometric) if stretch else grey(moving)
    return _bytes(np.stack([magenta, green, magenta], axis=2))


def checkerboard(fixed: NDArray[Any], moving: NDArray[Any], squares: int = 8) -> RGB:
    """Alternate squares of two images of one size, the fixed image's first; ``squares`` along the longer side.

    Raises ValueError if the sizes differ.
    """
    _same_size(fixed, moving)
    height, width = fixed.shape[:2]
    side = max(1, round(max(height, width) / squares))
    odd = (np.arange(height)[:, None] // side + np.arange(width)[None] // side) % 2 == 1
    return np.where(odd[..., None], displayed(moving), displayed(fixed))


def heat_map(values: NDArray[np.floating], scale: Scale, under: NDArray[Any] | None = None, side: int = 640) -> RGB:
    """Paint a map in a scale's colours.

    Parameters
    ----------
    values : (Y, X) float
        The map; NaN shows what is under it, or plain grey.
    scale : Scale
        Its colours and limits.
    under : image, optional
        Covers the same area, shown faintly where the map says nothing.
    side : int
        Longer side of the picture in pixels.
    """
    shape = values.shape if under is None else under.shape[:2]
    width, height = _fitted(shape, side, enlarge=True)
    field = _resized(values.astype(np.float32), width, height, cv2.INTER_NEAREST_EXACT)
    faint = 0.55 + 0.38 * _resized(np.full(shape, 0.5, np.float32) if under is None else grey(under), width, height)
    return np.where(np.isnan(field)[..., None], _rgb(faint), scale.paint(field))


def fit(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Return an image reduced by area averaging until its longer side is at most ``side``; never enlarged."""
    width, height = _fitted(image.shape[:2], side)
    if (height, width) == image.shape[:2]:
        return image
    return _resized(image, width, height)


def data_uri(image: RGB, quality: int = 85) -> str:
    """Return a picture as a JPEG in a data URI; its colours keep their full resolution.

    The usual halved colour resolution would put fringes on an overlay, just what a reader takes for misalignment.
    """
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR), options)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def panel(images: Sequence[NDArray[Any]], titles: Sequence[str], *, height: int = 480, columns: int = 0) -> RGB:
    """Draw images side by side on white, each below its title.

    Parameters
    ----------
    images : sequence of image
        Shown at one height; one-channel images are stretched.
    titles : sequence of str
        As many.
    height : int
        Of each image in pixels.
    columns : int
        Images in a row; 0 for all.

    Raises
    ------
    ValueError
        If there are no images, or not as many titles.
    """
    if not images or len(images) != len(titles):
        raise ValueError(f"{len(images)} images and {len(titles)} titles make no panel")
    cells = [_cell(image, title, height) for image, title in zip(images, titles, strict=True)]
    step = columns or len(cells)
    rows = [np.hstack(cells[start : start + step]) for start in range(0, len(cells), step)]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.pad(np.vstack(padded), ((_MARGIN, 0), (_MARGIN, 0), (0, 0)), constant_values=255)


def _cell(image: NDArray[Any], title: str, height: int) -> RGB:
    title = printable(title)  # OpenCV ends the process where it cannot encode a text
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    size, font = max(11, height // 24), cv2.FontFace("sans")
    _, _, text_width, _ = cv2.getTextSize((width, height), title, (0, 0), font, size, 500)
    cell = np.full((height + 2 * size + _MARGIN, max(width, text_width) + _MARGIN, 3), 255, dtype=np.uint8)
    cv2.putText(cell, title, (0, round(1.3 * size)), (30, 30, 30), font, size, 500)
    cell[2 * size : 2 * size + height, :width] = _resized(displayed(image), width, height)
    return cell


def _resized(image: NDArray[Any], width: int, height: int, method: int | None = None) -> NDArray[Any]:
    if method is None:
        method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method))


def _fitted(shape: tuple[int, ...], side: int, *, enlarge: bool = False) -> tuple[int, int]:
    height, width = shape[:2]
    factor = side / max(height, width)
    if factor >= 1 and not enlarge:
        return width, height
    return max(1, round(width * factor)), max(1, round(height * factor))


def _same_size(fixed: NDArray[Any], moving: NDArray[Any]) -> None:
    if fixed.shape[:2] != moving.shape[:2]:
        raise ValueError(
            f"images of {fixed.shape[:2]} and {moving.shape[:2]} pixels (height, width) do not lie together"
        )


def _rgb(light: NDArray[np.floating]) -> RGB:
    return np.repeat(_bytes(light)[..., None], 3, axis=2)


def _bytes(light: NDArray[np.floating]) -> RGB:
    return np.asarray(np.round(light * 255), dtype=np.uint8)
