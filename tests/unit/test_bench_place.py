"""What the place benchmark measures on, and what it counts as found."""

from __future__ import annotations

import ihc_pairs
import pytest

from comir_batch.bench.parts import chosen_parts
from comir_batch.bench.place import COLUMNS, Found, PlaceRequest, Row
from comir_batch.core.config import RunConfig
from comir_batch.core.errors import ManifestError
from comir_batch.execution.stop import StopRequest
from comir_batch.representation.store import find_model


def test_a_field_is_located_within_a_fiftieth_of_its_width_in_its_own_slide():
    found = (
        Found(right=True, error_px=2.0, margin=1.9),
        Found(right=True, error_px=2.6, margin=1.2),
        Found(right=False, error_px=0.5, margin=1.1),
        Found(right=True, error_px=0.6, margin=1.5),
    )
    row = Row("tritc in dapi", 128, found)
    assert [row.is_located(each) for each in found] == [True, False, False, True]
    told = dict(zip(COLUMNS, row.cells(), strict=True))
    assert (told["fields"], told["slide right"], told["located"]) == ("4", "3", "2")
    assert told["its interval"] == "0.068-0.932"
    assert told["median error (px)"] == "1.30"
    assert told["margins"] == "1.50 or more, others 1.20 at most"


def test_a_field_without_a_place_is_not_located():
    row = Row("a in b", 128, (Found(right=False, error_px=None, margin=1.0),))
    assert row.cells()[2:5] == ("1", "0", "0")


def test_rows_without_located_or_without_lost_fields_are_told():
    assert Row("a in b", 128, (Found(right=False, error_px=50.0, margin=1.05),)).cells()[4:] == (
        "0",
        "0.000-0.975",
        "",
        "others 1.05 at most",
    )
    assert Row("a in b", 128, (Found(right=True, error_px=1.0, margin=2.5),)).cells()[4:] == (
        "1",
        "0.025-1.000",
        "1.00",
        "2.50 or more",
    )


def test_pairs_that_cannot_be_measured_on_are_refused_in_words_of_measuring(tmp_path):
    path = ihc_pairs.manifest(tmp_path)
    heads, row = path.read_text().splitlines()
    (tmp_path / "start.json").write_text("{}")
    path.write_text(f"{heads},initial_transform\n{row},start.json\n")
    asked = PlaceRequest(find_model("haematoxylin-dab"), path, tmp_path / "out", RunConfig())
    with pytest.raises(ManifestError, match="measuring a model does not move it"):
        chosen_parts(asked, asked.config.execution, lambda _: None, StopRequest())
