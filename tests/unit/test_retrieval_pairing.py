"""What `pair` says of the places that slides were found at, and which sizes it takes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from comir_batch.core.config_file import load_config
from comir_batch.core.errors import ManifestError
from comir_batch.core.transform import Affine
from comir_batch.execution.stop import StopRequest
from comir_batch.representation.store import find_model
from comir_batch.retrieval.pairing import Compared, PairRequest, compare, proposed
from comir_batch.retrieval.proposals import Status, report_row
from comir_batch.retrieval.tables import read_slides


def slide(name):
    return SimpleNamespace(name=name)


def place(name, score):
    return SimpleNamespace(slide=slide(name), score=score, verified=True, transform=Affine.identity())


CHANCE = [place("c", 30.0), *(place("b", score) for score in (28.0, 27.0, 26.0, 25.0))]


@pytest.mark.parametrize("searched_is_fixed", [True, False])
def test_fields_of_one_slide_are_all_its_own(searched_is_fixed):
    fields = [slide(f"field{number}") for number in range(3)]
    found = [[place("a", 100.0 - number), *CHANCE] for number in range(3)]
    said = proposed(Compared(fields, [slide(name) for name in "abc"], found, searched_is_fixed, are_fields=True))
    pairs = [each for each in said if each.is_pair]
    assert [each.status for each in pairs] == [Status.SURE] * 3
    assert {(each.fixed if searched_is_fixed else each.moving).name for each in pairs} == {"a"}
    assert [each.status for each in said[3:]] == [Status.NO_PARTNER] * 2


def test_images_of_like_size_are_assigned_one_to_one_and_the_others_tell_what_they_scored():
    found = [[place("a", 100.0 - number), *CHANCE] for number in range(2)]
    said = proposed(Compared([slide("p"), slide("q")], [slide(name) for name in "abc"], found, searched_is_fixed=True))
    assert said[0].name == "a_p"
    alone = next(each for each in said if each.moving is not None and each.moving.name == "q")
    assert (alone.status, alone.score) == (Status.NO_PARTNER, 30.0)
    assert report_row(alone)[4:7] == ["", "0.30", "30.0"]
    assert report_row(said[-1])[5:7] == ["", ""]


def test_another_place_in_the_same_slide_is_not_another_slide():
    near = [[place("a", 100.0), place("a", 95.0), *CHANCE]]
    (pair, *_) = proposed(Compared([slide("p")], [slide(name) for name in "abc"], near, searched_is_fixed=True))
    assert (pair.status, pair.instead) == (Status.AMBIGUOUS, "")
    other = [[place("a", 100.0), place("b", 95.0), *CHANCE]]
    assert (
        proposed(Compared([slide("p")], [slide(name) for name in "abc"], other, searched_is_fixed=True))[0].instead
        == "b"
    )


def test_images_of_a_size_that_cannot_be_looked_for_are_refused_before_anything_is_computed(tmp_path):
    def table(name, modality, **sizes):
        for each, (height, width) in sizes.items():
            tifffile.imwrite(
                tmp_path / f"{each}.tif", np.random.default_rng(0).integers(0, 99, (height, width), np.uint8)
            )
        rows = "".join(f"{each},{each}.tif,{modality},0.913\n" for each in sizes)
        (tmp_path / name).write_text(f"slide_id,path,modality,mpp\n{rows}")
        return tmp_path / name

    fixed = table("fixed.csv", "dapi", a=(300, 300), b=(300, 300))
    moving = table("moving.csv", "tritc", thin=(5, 200), good=(200, 200), large=(600, 200), long=(60, 4200))
    request = PairRequest(
        read_slides(fixed),
        read_slides(moving),
        (fixed, moving),
        find_model("dapi-tritc"),
        tmp_path / "manifest.csv",
        tmp_path / "work",
        load_config(None, {}),
    )
    with pytest.raises(ManifestError) as caught:
        compare(request, lambda _event: None, StopRequest(), print)
    assert [(each.row, each.column) for each in caught.value.problems] == [(2, "path"), (4, "path"), (5, "path")]
    thin, large, long = (each.reason for each in caught.value.problems)
    assert "200 x 5 pixels" in thin
    assert "183 x 548 µm, larger than all slides that are searched (up to 274 x 274 µm)" in large
    assert "at most 4096 a side" in long
    assert not (tmp_path / "work").exists()
