"""How much memory registration needs, and how far images must be reduced to fit."""

from __future__ import annotations

import math

_BASE_MB = 1100
_BYTES_PER_PIXEL = 110
_BYTES_BESIDE = 60


def registration_memory_mb(pixels: int, *, seconded: bool = False) -> int:
    """Return the memory in MB (10^6 bytes) that registration needs for two images of so many pixels each.

    An upper bound: elastix' process holds 0.4 GB of libraries and 29 bytes a pixel, the caller its own ones, pixels
    and masks of up to three views, and copies on their way. Whole registrations took 1.4, 2.1 and 5.0 GB at 2048, 4096
    and 8192 pixels a side (docs/benchmarks.md, "Cost of registration"), where this says 1.6, 2.9 and 8.5.
    Where elastix is given raw images besides (`seconded`), it holds three pairs.
    """
    return _BASE_MB + math.ceil(pixels * (_BYTES_PER_PIXEL + _BYTES_BESIDE * seconded) / 1e6)


def reduction_for(
    fixed_size: tuple[int, int], moving_size: tuple[int, int], max_memory_gb: float, *, seconded: bool = False
) -> int:
    """Return the smallest whole factor by which both images must be reduced to fit.

    Parameters
    ----------
    fixed_size, moving_size : (width, height)
        In pixels.
    max_memory_gb : float
        What registration may use, in GB (10^9 bytes).
    seconded : bool
        See `registration_memory_mb`.

    Raises
    ------
    ValueError
        If not even the libraries fit.
    """
    if max_memory_gb * 1000 <= _BASE_MB:
        raise ValueError(f"registration needs more than {_BASE_MB} MB, not {max_memory_gb * 1000:.0f} MB")
    factor = 1
    while _memory_mb(fixed_size, moving_size, factor, seconded=seconded) > max_memory_gb * 1000:
        factor += 1
    return factor


def _memory_mb(fixed_size: tuple[int, int], moving_size: tuple[int, int], factor: int, *, seconded: bool) -> int:
    areas = [-(-width // factor) * -(-height // factor) for width, height in (fixed_size, moving_size)]
    return registration_memory_mb(max(areas), seconded=seconded)
