"""The command line as a user meets it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import comir_batch
from comir_batch.cli.app import app
from comir_batch.cli.run_commands import STAGES

COMMANDS = [
    ["run"],
    ["plan"],
    ["models"],
    ["models", "list"],
    ["models", "show"],
    *(["models", name] for name in ("verify", "add", "remove", "import")),
    ["train"],
    ["diagnose"],
    ["study", "supervision"],
    ["study", "symmetry"],
    ["render"],
    ["status"],
    ["cancel"],
    ["doctor"],
    *(["bench", name] for name in ("recovery", "registration", "training")),
    *(["transform", name] for name in ("points", "geojson", "image", "labels")),
    *([stage] for stage in STAGES),
]
HEADER = "pair_id,fixed,moving,fixed_modality,moving_modality\n"


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def bad_manifest(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(
        HEADER
        + "a,missing.svs,note.txt,he,ihc\n"
        + "b/c,x.svs,y.svs,he,ihc\n"
        + "d,x.svs,x.svs,he,ihc\n"
        + "e,,y.svs,he,ihc\n"
        + '"f","new\nline.svs",y.svs,he,ihc\n'
    )
    (tmp_path / "note.txt").write_text("not an image")
    return path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command):
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_the_overview_names_every_command_and_exit_code():
    result = invoke("--help")
    assert result.exit_code == 0
    assert all(command[0] in result.stdout for command in COMMANDS)
    assert "Exit codes" in result.stdout


def test_version():
    assert invoke("--version").stdout.strip() == f"comir-batch {comir_batch.__version__}"


def test_help_loads_no_heavy_library():
    code = "import sys, comir_batch.cli.app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"numpy", "torch", "distributed", "pydantic", "scipy", "zarr", "tifffile"} & set(loaded)


@pytest.mark.parametrize("arguments", [["run"], ["run", "m.csv"], ["fly"], ["run", "m.csv", "--out", "o", "--fast"]])
def test_wrong_usage_is_2(arguments):
    assert invoke(*arguments).exit_code == 2


def test_a_setting_without_a_value_is_wrong_usage(tmp_path):
    result = invoke("run", tmp_path / "m.csv", "--out", tmp_path / "o", "--set", "register.grid_um")
    assert result.exit_code == 2
    assert "section.key=value" in result.stderr


@pytest.mark.parametrize("setting", ["register.grid_mm=3", "nonsense=1", "register.grid_um=-4", "register.grid_um=big"])
def test_a_wrong_setting_is_named(tmp_path, setting):
    result = invoke("run", tmp_path / "m.csv", "--out", tmp_path / "o", "--set", setting)
    assert result.exit_code == 3
    assert setting.split("=")[0] in result.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("content", [None, "[register", "[register]\ngrid_mm = 3\n"])
def test_a_bad_config_file_is_an_input_error(tmp_path, content):
    config = tmp_path / "my settings.toml"
    if content is not None:
        config.write_text(content)
    result = invoke("run", tmp_path / "m.csv", "--out", tmp_path / "o", "--config", config)
    assert result.exit_code == 3
    assert result.stderr.startswith("comir-batch: ")
    assert result.stderr.count("\n") == 1
    assert "grid_mm" in result.stderr or str(config) in result.stderr


@pytest.mark.parametrize("command", [["run", "--out", "o"], ["plan"]], ids=["run", "plan"])
def test_a_missing_manifest_is_an_input_error(tmp_path, command):
    result = invoke(*command, tmp_path / "none.csv")
    assert result.exit_code == 3
    assert "none.csv" in result.stderr


@pytest.mark.parametrize("command", ["run", "plan"])
def test_every_problem_of_a_manifest_is_a_line_with_row_column_and_remedy(tmp_path, bad_manifest, command):
    result = invoke(command, bad_manifest, "--out", tmp_path / "o")
    assert result.exit_code == 3
    title, *lines = result.stderr.splitlines()
    assert title == "6 problems in the manifest:"
    assert [line.split(":")[0] for line in lines] == [
        "row 2, column fixed",
        "row 2, column moving",
        "row 3, column pair_id",
        "row 4, column moving",
        "row 5, column fixed",
        "row 6, column fixed",
    ]
    assert all(line.endswith(".") and line.count(". ") >= 1 for line in lines)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_needs_a_run_directory(tmp_path, stage):
    result = invoke(stage, tmp_path)
    assert result.exit_code == 3
    assert "not a run directory" in result.stderr


def test_an_unknown_model_is_answered_with_those_that_there_are():
    listed = invoke("models", "list")
    assert listed.exit_code == 0
    result = invoke("models", "show", "no-such-model")
    assert result.exit_code == 3
    assert "no-such-model" in result.stderr
    names = [line.split()[0] for line in listed.stdout.splitlines()[2:]]
    assert all(name in result.stderr for name in names)
