"""Settings from the command line."""

from __future__ import annotations

import pytest
import typer

from comir_batch.cli.settings import overrides


def test_options_that_were_not_given_leave_no_trace():
    assert overrides({"model": None, "execution.workers": 3}, None) == {"execution": {"workers": 3}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ('"3"', "3"),
        ("cuda", "cuda"),
        ("127.0.0.1:8787", "127.0.0.1:8787"),
        ("", ""),
        ("a=b", "a=b"),
        ("[1, 2]", [1, 2]),
    ],
)
def test_values_are_toml_where_they_can_be(text, value):
    assert overrides({}, [f"a.b={text}"]) == {"a": {"b": value}}


def test_assignments_win_over_options_and_both_over_the_base():
    base = {"register": {"seed": 1, "grid_um": 8.0}, "model": "old"}
    found = overrides({"model": "new", "register.seed": 2}, ["register.seed=3"], base)
    assert found == {"register": {"seed": 3, "grid_um": 8.0}, "model": "new"}
    assert base == {"register": {"seed": 1, "grid_um": 8.0}, "model": "old"}


@pytest.mark.parametrize("wrong", ["seed", "=3", " =3"])
def test_what_is_no_assignment_is_refused(wrong):
    with pytest.raises(typer.BadParameter, match="of the form section"):
        overrides({}, [wrong])


def test_a_setting_is_not_a_section():
    with pytest.raises(typer.BadParameter, match="'model'"):
        overrides({"model": "x"}, ["model.name=3"])
