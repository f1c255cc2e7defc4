"""A slide that is read block by block stays open, and never shows what is no longer there."""

import threading

import numpy as np
import pytest

from comir_batch.bench.known_motion import write_pyramid
from comir_batch.core.errors import UnreadableSlideError
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.slide import SlideSpec
from comir_batch.io.open import kept_slide

WHOLE = Region(0, 0, 8, 8)


@pytest.fixture
def spec(tmp_path):
    return slide(tmp_path / "one.ome.tif", 7)


def slide(path, value):
    write_pyramid(np.full((1, 8, 8), value, np.uint8), Grid(8, 8, 1.0, 1.0), path, ["grey"])
    return SlideSpec(path)


def test_the_same_slide_stays_open(spec):
    with kept_slide(spec) as first:
        pass
    with kept_slide(spec) as again:
        assert again is first
        assert again.read(WHOLE).mean() == 7


def test_another_slide_takes_its_place(spec, tmp_path):
    with kept_slide(spec) as first:
        pass
    with kept_slide(slide(tmp_path / "other.ome.tif", 9)) as other:
        assert other.read(WHOLE).mean() == 9
    with pytest.raises(ValueError, match="closed"):
        first.read(WHOLE)


def test_a_replaced_file_is_opened_anew_and_a_lost_one_is_missed(spec, tmp_path):
    with kept_slide(spec) as before:
        assert before.read(WHOLE).mean() == 7
    slide(tmp_path / "new.ome.tif", 9).path.replace(spec.path)
    with kept_slide(spec) as after:
        assert after.read(WHOLE).mean() == 9
    spec.path.unlink()
    with pytest.raises(UnreadableSlideError), kept_slide(spec):
        pass


def test_what_failed_is_not_kept(spec):
    def fail():
        with kept_slide(spec) as kept:
            slides.append(kept)
            raise RuntimeError

    slides = []
    for _ in range(2):
        with pytest.raises(RuntimeError):
            fail()
    assert slides[0] is not slides[1]


def test_calls_within_a_call_and_other_threads_have_their_own(spec, tmp_path):
    other = slide(tmp_path / "other.ome.tif", 9)
    seen = []

    def look():
        with kept_slide(spec) as slide:
            seen.append(slide)

    with kept_slide(spec) as outer:
        with kept_slide(other) as inner:
            assert inner.read(WHOLE).mean() == 9
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert outer.read(WHOLE).mean() == 7
    with kept_slide(spec) as again:
        assert again is outer
    assert seen[0] is not outer
