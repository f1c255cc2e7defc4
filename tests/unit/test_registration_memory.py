"""Registration's size follows from its memory."""

import pytest

from comir_batch.registration.memory import reduction_for, registration_memory_mb


def test_memory_is_the_libraries_and_110_bytes_a_pixel():
    assert registration_memory_mb(1_000_000) == 1100 + 110
    assert registration_memory_mb(1_000_000, seconded=True) == 1100 + 170


@pytest.mark.parametrize(
    ("side", "memory_gb", "factor"), [(1000, 4.0, 1), (5000, 4.0, 1), (8192, 4.0, 2), (30_000, 4.0, 6)]
)
def test_the_smallest_reduction_that_fits(side, memory_gb, factor):
    assert reduction_for((side, side), (100, 100), memory_gb) == factor
    assert registration_memory_mb((-(-side // factor)) ** 2) <= memory_gb * 1000


def test_the_larger_image_counts():
    assert reduction_for((100, 100), (9000, 8000), 4.0) == reduction_for((9000, 8000), (100, 100), 4.0) == 2


def test_memory_below_the_libraries_is_an_error():
    with pytest.raises(ValueError, match="1100 MB"):
        reduction_for((10, 10), (10, 10), 0.5)
