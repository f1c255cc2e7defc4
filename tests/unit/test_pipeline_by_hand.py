"""What a person decides on a pair stands as long as its transform; what is set for it is checked before it is kept."""

from __future__ import annotations

import pytest

from comir_batch.core.config import RunConfig
from comir_batch.core.errors import ConfigError
from comir_batch.core.verdict import Verdict
from comir_batch.pipeline.by_hand import (
    ByHand,
    config_of,
    decided,
    flat,
    read_by_hand,
    standing,
    with_settings,
    write_by_hand,
)
from comir_batch.pipeline.layout import Layout
from comir_batch.report.decision import DecisionText, with_decision


def test_a_decision_stands_until_the_transform_is_another(tmp_path):
    layout, transform = Layout(tmp_path), tmp_path / "transform.json"
    transform.write_text("{}")
    decision = decided(Verdict.ACCEPT, "  looked at it\n twice ", transform)
    assert decision.note == "looked at it twice"
    write_by_hand(layout, {"p": ByHand({"register": {"grid_um": 32}}, decision), "q": ByHand()})
    kept = read_by_hand(layout)
    assert kept == {"p": ByHand({"register": {"grid_um": 32}}, decision), "q": ByHand()}
    assert standing(kept, "p", transform) == decision
    assert standing(kept, "q", transform) is None
    assert standing(kept, "unknown", transform) is None
    transform.write_text("{ }")
    assert standing(kept, "p", transform) is None
    transform.unlink()
    assert standing(kept, "p", transform) is None


def test_nothing_by_hand_is_nothing(tmp_path):
    assert read_by_hand(Layout(tmp_path)) == {}


def test_settings_of_a_pair_add_up_and_leave_the_others_alone():
    given = with_settings(ByHand({"register": {"grid_um": 32}}), {"register": {"seed": 7}, "judge": {"min_tiles": 2}})
    config = config_of(RunConfig(), given)
    assert (config.register_.grid_um, config.register_.seed, config.judge.min_tiles) == (32, 7, 2)
    assert config.warp == RunConfig().warp
    assert config_of(RunConfig(), None) == RunConfig()
    assert flat(given.settings) == {"register.grid_um": 32, "register.seed": 7, "judge.min_tiles": 2}


def test_a_relative_path_of_a_pair_is_found_from_wherever_the_next_command_is_given(tmp_path, monkeypatch):
    (tmp_path / "fine.txt").write_text('(Transform "BSplineTransform")\n')
    monkeypatch.chdir(tmp_path)
    given = with_settings(ByHand(), {"register": {"parameter_files": ["fine.txt"]}})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (content,) = config_of(RunConfig(), given).register_.parameter_files
    assert "BSplineTransform" in content
    assert flat(given.settings) == {"register.parameter_files": [str(tmp_path / "fine.txt")]}


@pytest.mark.parametrize("section", ["execution", "model", "pairs_in_flight"])
def test_what_holds_for_the_whole_run_cannot_be_set_for_a_pair(section):
    with pytest.raises(ConfigError, match=f"{section} cannot be set for single pairs"):
        with_settings(ByHand(), {section: {}})


def test_a_wrong_setting_of_a_pair_is_told():
    with pytest.raises(ConfigError, match=r"register\.grid_mm"):
        config_of(RunConfig(), ByHand({"register": {"grid_mm": 1}}))


def test_a_decision_takes_its_own_place_on_a_page_and_text_stays_text():
    page = '<p>x</p><div class="decision" data-pair="a.b"></div><div class="decision" data-pair="aXb"></div>'
    shown = with_decision(page, "a.b", DecisionText(Verdict.REJECT, "<script> \\1 it folds"))
    assert "&lt;script&gt; \\1 it folds" in shown
    assert shown.endswith('<div class="decision" data-pair="aXb"></div>')
    again = with_decision(shown, "a.b", DecisionText(Verdict.ACCEPT, "it does not"))
    assert "it folds" not in again
    assert "it does not" in again
    assert with_decision(again, "a.b", None) == page
