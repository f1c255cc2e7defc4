"""Settings: defaults < file < command line; what is unknown or impossible is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from comir_batch.core.config import RunConfig
from comir_batch.core.config_file import load_config
from comir_batch.core.errors import ConfigError


def test_without_anything_there_are_defaults():
    config = load_config(None)
    assert config == RunConfig()
    assert config.register_.iterations == 250


def test_the_command_line_wins_over_the_file_key_by_key(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("model = 'none'\n[register]\niterations = 50\nsamples = 512\n[warp]\ninterpolation = 'cubic'\n")
    config = load_config(path, {"register": {"iterations": 70}})
    assert (config.register_.iterations, config.register_.samples) == (70, 512)
    assert (config.model, config.warp.interpolation) == ("none", "cubic")


def test_paths_of_the_file_are_relative_to_it_and_others_to_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "there" / "c.toml"
    path.parent.mkdir()
    (path.parent / "rigid.txt").write_text("(x)")
    path.write_text(
        "model = './mine'\nregister.parameter_files = ['rigid.txt']\n"
        "[execution]\nprofile = 'site.toml'\nscheduler_file = 'scheduler.json'\n"
    )
    config = load_config(Path("../there/c.toml"))
    found = (config.model, config.execution.profile, config.execution.scheduler_file)
    assert all(Path(each).is_absolute() for each in found)
    assert [Path(each).resolve() for each in found] == [
        path.parent / name for name in ("mine", "site.toml", "scheduler.json")
    ]
    assert config.register_.parameter_files == ("(x)\n",)
    over = load_config(path, {"model": "models/mine", "execution": {"profile": "./site", "scheduler_file": "s.json"}})
    assert over.model == str(tmp_path / "here" / "models" / "mine")
    assert over.execution.profile == str(tmp_path / "here" / "site")
    assert over.execution.scheduler_file == str(tmp_path / "here" / "s.json")
    assert load_config(None, over.model_dump(mode="json", by_alias=True)) == over


def test_names_are_no_paths():
    config = load_config(None, {"model": "dapi-tritc", "execution": {"profile": "site"}})
    assert (config.model, config.execution.profile, config.execution.scheduler_file) == ("dapi-tritc", "site", "")


def test_a_resolved_config_can_be_read_again():
    config = load_config(None, {"register": {"seed": 9}, "export": {"ome_tiff": True}})
    assert load_config(None, config.model_dump(mode="json", by_alias=True)) == config


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().chunk.mpp = 3.0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"registre": {}}, ["registre"]),
        ({"register": {"iteration": 5}}, ["register.iteration"]),
        ({"register": {"iterations": 5}}, ["register.iterations", "greater than or equal to 10", "5"]),
        ({"register": {"iterations": "many"}}, ["register.iterations", "'many'"]),
        ({"warp": {"interpolation": "lanczos"}}, ["warp.interpolation", "'lanczos'", "cubic"]),
        ({"chunk": {"shard": 300, "chunk": 128}}, ["chunk", "shard 300 must be a multiple of chunk 128"]),
        ({"chunk": {"mpp": 0}}, ["chunk.mpp", "greater than 0"]),
        ({"chunk": {"mpp": float("nan")}}, ["chunk.mpp"]),
        ({"register": 3}, ["register", "3"]),
        ({"pairs_in_flight": -1, "execution": {"workers": -1}}, ["pairs_in_flight", "execution.workers"]),
    ],
)
def test_what_is_wrong_is_named_with_its_value_in_one_line(given, words):
    with pytest.raises(ConfigError) as caught:
        load_config(None, given)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"[register\n", "is not valid TOML"), (b"model = \xff", "is not valid TOML"), (b"a = 1\na = 2\n", "TOML")],
)
def test_a_damaged_file_is_refused(tmp_path, content, reason):
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.toml")
