"""What is learnt from, what is validated on, and what nobody looks at."""

from __future__ import annotations

from math import inf
from pathlib import Path

import numpy as np
import pytest

from comir_batch.core.errors import ConfigError
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.slide import Level, SlideInfo, SlideSpec
from comir_batch.pipeline.chunked import ChunkedSlide
from comir_batch.pipeline.layout import SlideFiles
from comir_batch.pipeline.overview import Overview
from comir_batch.pipeline.working import Working
from comir_batch.training.pairs import TrainingPair
from comir_batch.training.split import Box, Part, split

ALL = (0.0, 0.0, 1.0, 1.0)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def slide(name, width=800, height=400, mpp=0.5, tissue=np.s_[:, :]):
    """Return a slide whose pixels nobody reads, with an overview that has tissue in a part."""
    grid = Grid(width, height, mpp, mpp).reduced(10)
    seen = np.zeros(grid.shape, dtype=bool)
    seen[tissue] = True
    Overview(np.zeros((1, *grid.shape), np.uint8), seen, grid).save(SlideFiles(Path(name)).overview)
    info = SlideInfo((Level(width, height, 1.0, 1.0),), ("0",), "uint8", mpp, mpp, "dark", "image")
    return ChunkedSlide(Path(name), Working(info, 0, 1), SlideSpec(Path(name)), name, "m")


def pairs(count, **size):
    return [TrainingPair(f"p{k}", slide(f"f{k}", **size), slide(f"m{k}", **size)) for k in range(count)]


def test_whole_pairs_are_drawn_by_the_seed_where_there_are_enough():
    given = pairs(10)
    parts = split(given, ALL, 0.2, 1)
    assert len(parts.validation) == 2
    assert len(parts.training) == 8
    assert {part.pair.name for part in (*parts.training, *parts.validation)} == {pair.name for pair in given}
    assert parts == split(given, ALL, 0.2, 1)
    assert len({split(given, ALL, 0.2, seed).validation for seed in range(10)}) > 5
    assert parts.unseen == ()
    assert len(split(given, ALL, 0.01, 1).validation) == 1
    assert len(split(given, ALL, 0.99, 1).training) == 1


def test_pairs_that_share_a_slide_stay_on_one_side():
    given = pairs(8)
    given += [TrainingPair(f"q{k}", given[k].fixed, slide(f"n{k}")) for k in range(8)]
    for seed in range(10):
        parts = split(given, ALL, 0.25, seed)
        learnt = {part.pair.fixed.digest for part in parts.training}
        assert len(parts.validation) == 4
        assert not learnt & {part.pair.fixed.digest for part in parts.validation}
    chain = [TrainingPair(f"c{k}", slide(f"s{k}"), slide(f"s{k + 1}")) for k in range(8)]
    assert len(split(chain, ALL, 0.25, 1).training) == 8  # all hang together: a strip of each


def test_few_pairs_give_a_strip_at_the_end_of_their_longer_side():
    parts = split(pairs(2), ALL, 0.25, 1)
    assert [part.box for part in parts.training] == [Box(x1=300.0)] * 2
    assert [part.box for part in parts.validation] == [Box(x0=300.0)] * 2
    upright = split(pairs(1, width=400, height=800), (0.0, 0.0, 1.0, 0.75), 0.25, 1)
    assert upright.training[0].box == Box(y1=225.0)
    assert upright.validation[0].box == Box(y0=225.0, y1=300.0)
    assert upright.unseen[0].box == Box(y0=300.0)


@pytest.mark.parametrize(
    ("region", "unseen"),
    [
        ((0.25, 0.0, 1.0, 1.0), Box(x1=100.0)),
        ((0.0, 0.5, 1.0, 1.0), Box(y1=100.0)),
        ((0.0, 0.0, 0.75, 1.0), Box(x0=300.0)),
        ((0.0, 0.0, 1.0, 0.5), Box(y0=100.0)),
    ],
)
def test_parts_have_no_pixel_in_common_and_leave_none_out(region, unseen):
    parts = split(pairs(3), region, 0.2, 1)
    assert [part.box for part in parts.unseen] == [unseen] * 3
    grid = parts.training[0].pair.fixed.grid
    regions = [group[1].box.pixels(grid, (0.5, 0.5)) for group in (parts.training, parts.validation, parts.unseen)]
    assert sum(r.width * r.height for r in regions) == 800 * 400
    assert not any(a.intersection(b) for a in regions for b in regions if a is not b)


def test_a_strip_is_cut_off_where_there_is_tissue_of_both_slides():
    (part,) = split(pairs(1, tissue=np.s_[:, :70]), ALL, 0.25, 1).validation  # of 80
    assert part.box == Box(x0=300.0)
    left = split(pairs(1, tissue=np.s_[:, :50]), ALL, 0.25, 1)
    assert left.validation[0].box == Box(x1=100.0)
    assert left.training[0].box == Box(x0=100.0)
    apart = TrainingPair("p", slide("f", tissue=np.s_[:, :50]), slide("m", tissue=np.s_[:, 30:]))
    assert split([apart], ALL, 0.25, 1).validation[0].box == Box(x0=300.0)
    upright = pairs(1, width=400, height=800, tissue=np.s_[10:40])
    inside = split(upright, (0.0, 0.25, 1.0, 1.0), 0.5, 1)
    assert inside.validation[0].box == Box(y0=100.0, y1=250.0)
    assert inside.training[0].box == Box(y0=250.0)


def test_no_share_leaves_nothing_for_validation():
    given = pairs(2)
    assert split(given, ALL, 0.0, 1).training == tuple(Part(pair) for pair in given)
    assert split(given, ALL, 0.0, 1).validation == ()


@pytest.mark.parametrize(
    ("region", "share", "message"),
    [
        ((0.1, 0.1, 1.0, 1.0), 0.2, "leaves out more than one rectangle"),
        ((0.5, 0.0, 0.5, 1.0), 0.2, "as shares of the slide"),
        ((0.0, 0.0, 1.0, 1.5), 0.2, "as shares of the slide"),
        (ALL, 1.0, "the share of validation is 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(region, share, message):
    with pytest.raises(ConfigError, match=message):
        split(pairs(1), region, share, 1)


def test_a_mean_pixel_belongs_to_a_box_only_if_all_that_it_averages_does():
    fine = Grid(100, 50, 0.5, 0.5)
    box = Box(x0=10.0, x1=20.25)
    assert box.pixels(fine, (0.5, 0.5)) == Region(20, 0, 41, 50)
    assert box.pixels(fine.reduced(4), (0.5, 0.5)) == Region(5, 0, 10, 13)
    assert Box(x0=10.5, x1=20.5).pixels(fine.reduced(4), (0.5, 0.5)) == Region(6, 0, 10, 13)
    assert Box(x1=inf).pixels(fine, (0.5, 0.5)) == Region(0, 0, 100, 50)
    assert Box(x0=49.75).pixels(fine, (0.5, 0.5)) is None
