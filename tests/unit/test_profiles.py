"""Profiles are found by name, listed with what is wrong, shown in full, and begun from a template that explains all."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from comir_batch.cli.app import app
from comir_batch.core.config import ExecutionConfig
from comir_batch.core.errors import ConfigError
from comir_batch.core.profile import GpuJobs, Jobs, Profile, load_profile
from comir_batch.pipeline import profiles
from comir_batch.pipeline.profiles import begin_profile, find_profile, list_profiles, profile_folders, to_toml

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "slurm").glob("*.toml"))


@pytest.fixture(autouse=True)
def site(tmp_path, monkeypatch):
    """Folders that are searched, none of them the user's own; no SLURM in sight."""
    folders = {name: tmp_path / name for name in ("group", "lab", "user/comir-batch/profiles", "system")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    monkeypatch.setenv("COMIR_BATCH_PROFILES", f"{folders['group']}:{folders['lab']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(profiles, "SYSTEM_FOLDER", folders["system"])
    monkeypatch.chdir(tmp_path)
    return list(folders.values())


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["profiles", *map(str, arguments)])


def write(folder, name, text=""):
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_the_first_folder_that_has_it_wins(site):
    files = [write(folder, "here") for folder in site]
    for file in files:
        assert find_profile("here") == file
        file.unlink()
    with pytest.raises(ConfigError):
        find_profile("here")


def test_without_variables_the_users_folder_is_in_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("COMIR_BATCH_PROFILES")
    monkeypatch.setenv("HOME", str(tmp_path))
    for configured in ("", "not/absolute"):
        monkeypatch.setenv("XDG_CONFIG_HOME", configured)
        assert profile_folders() == (tmp_path / ".config" / "comir-batch" / "profiles", tmp_path / "system")


@pytest.mark.parametrize("name", ["there.toml", "./there.toml", "sub/other"])
def test_a_path_is_taken_as_it_is(tmp_path, name):
    (tmp_path / "sub").mkdir()
    (tmp_path / name).touch()
    assert find_profile(name) == Path(name)


def test_a_path_to_nothing_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"no profile .*nowhere\.toml; .*profiles list"):
        find_profile(f"{tmp_path}/nowhere.toml")


def test_a_name_that_is_unknown_is_told_with_those_that_are_known_and_where_was_looked(site):
    write(site[1], "lab-gpu")
    write(site[3], "institute")
    with pytest.raises(ConfigError) as refused:
        find_profile("mysite")
    message = str(refused.value)
    assert "'mysite'; there is lab-gpu, institute in" in message
    assert all(str(folder) in message for folder in site)
    assert "comir-batch profiles init NAME" in message


def test_the_list_shows_all_and_what_is_wrong_with_some(site):
    write(site[0], "a", "description = 'the good one'")
    write(site[1], "broken", "[cpu]\ncores = 3")
    write(site[3], "a", "description = 'never seen'")
    (site[3] / "notes.txt").touch()
    (site[3] / "folder.toml").mkdir()
    assert [(p.name, p.path.parent, p.description) for p in list_profiles() if not p.problem] == [
        ("a", site[0], "the good one")
    ]
    result = invoke("list")
    assert result.exit_code == 0
    _title, _head, first, second, third = result.stdout.splitlines()
    assert first.split(maxsplit=2) == ["a", str(site[0]), "the good one"]
    assert second.startswith("broken")
    assert "broken: wrong settings" in second
    assert "cpu.cores" in second
    assert third.split(maxsplit=2) == ["a", str(site[3]), f"hidden by {site[0]}/a.toml"]


def test_an_empty_list_says_where_was_looked(site):
    result = invoke("list")
    assert result.exit_code == 0
    assert all(str(folder) in result.stdout for folder in site)
    assert "comir-batch profiles init" in result.stdout


def test_show_prints_every_setting_as_toml_that_loads_and_as_json(site):
    path = write(site[2], "mine", "description = 'ä \"quoted\" \\\\ name'\nmodules = ['x']\n[gpu]\njobs = 3\n")
    shown, as_json = invoke("show", "mine"), invoke("show", "mine", "--json")
    assert shown.stdout.startswith(f"# {path}\n")
    assert Profile.model_validate(tomllib.loads(shown.stdout)) == load_profile(path)
    assert Profile.model_validate(json.loads(as_json.stdout)) == load_profile(path)
    assert tomllib.loads(shown.stdout)["gpu"]["idle_s"] == 300
    assert tomllib.loads(shown.stdout)["cpu"].keys() == Jobs.model_fields.keys()


def test_show_of_a_broken_or_unknown_profile_is_an_input_error(site):
    write(site[0], "broken", "poll_s = -1")
    for name, word in (("broken", "poll_s"), ("unknown", "unknown")):
        result = invoke("show", name)
        assert result.exit_code == 3
        assert result.stderr.startswith("comir-batch: ")
        assert result.stderr.count("\n") == 1
        assert word in result.stderr


def test_init_writes_a_profile_of_ones_own_and_says_what_is_next(site):
    result = invoke("init", "mysite")
    assert result.exit_code == 0
    assert str(site[2] / "mysite.toml") in result.stdout
    assert "comir-batch doctor --profile mysite\n" in result.stdout
    assert find_profile("mysite") == site[2] / "mysite.toml"


def test_init_elsewhere_names_the_path(tmp_path):
    result = invoke("init", "mysite", "--out", tmp_path / "new" / "folder")
    assert result.exit_code == 0
    assert f"comir-batch doctor --profile {tmp_path}/new/folder/mysite.toml\n" in result.stdout


def test_init_overwrites_nothing(site):
    path = write(site[2], "mysite", "description = 'mine'")
    result = invoke("init", "mysite")
    assert result.exit_code == 3
    assert f"{path} exists" in result.stderr
    assert path.read_text() == "description = 'mine'"


@pytest.mark.parametrize("name", ["a/b", "..", "", "x.toml", "-x", "a b"])
def test_a_name_that_could_not_be_found_again_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot be called"):
        begin_profile(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="is not a folder"):
            begin_profile("x", folder)


def test_the_template_loads_and_asks_for_nothing(tmp_path):
    assert load_profile(begin_profile("x", tmp_path)) == Profile(gpu=GpuJobs())


def test_the_template_explains_every_setting_with_its_default(tmp_path):
    text = begin_profile("x", tmp_path).read_text()
    uncommented = tomllib.loads(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE))
    assert uncommented == tomllib.loads(to_toml(Profile(gpu=GpuJobs())))


def test_the_template_names_the_partitions_that_sinfo_knows(tmp_path, monkeypatch):
    sinfo = tmp_path / "bin" / "sinfo"
    sinfo.parent.mkdir()
    sinfo.write_text("#!/bin/sh\necho 'gpu*: 4 cores'\necho 'cpu: 8 cores'\n")
    sinfo.chmod(0o755)
    monkeypatch.setenv("PATH", str(sinfo.parent))
    path = begin_profile("x", tmp_path)
    assert "#   gpu*: 4 cores\n#   cpu: 8 cores\n" in path.read_text()
    load_profile(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_profiles_load_and_describe_themselves(path):
    assert load_profile(path).description


def test_there_are_shipped_profiles_with_and_without_gpus():
    assert {load_profile(path).gpu is None for path in SHIPPED} == {True, False}


@pytest.mark.parametrize("command", [(), ("list",), ("show",), ("init",)])
def test_every_command_explains_itself(command):
    assert "Usage" in invoke(*command, "--help").stdout


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"workers": 3}, "jobs of [cpu]"), ({"memory_gb": 4}, "memory_gb of [cpu]"), ({"device": "cuda"}, "[gpu]")],
)
def test_what_the_profile_says_is_not_said_besides(site, settings, key):
    write(site[0], "here", "[cpu]\njobs = 2\n")
    with pytest.raises(ConfigError, match="means nothing on a cluster with a profile") as refused:
        profiles.site_profile(ExecutionConfig(executor="slurm", profile="here", **settings))
    assert key in str(refused.value)
    assert profiles.site_profile(ExecutionConfig(executor="slurm", profile="here", device="cpu")).cpu.jobs == 2


def test_a_profile_without_a_cluster_is_wrong_usage(tmp_path):
    refused = CliRunner().invoke(app, ["plan", str(tmp_path / "m.csv"), "--profile", "nosuch"])
    assert refused.exit_code == 2
    assert "--executor slurm" in refused.stderr


def test_in_a_container_the_next_steps_are_ones_that_can_be_followed(monkeypatch):
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/of mine.sif")
    said = invoke("init", "mysite").stdout
    assert "apptainer run '/images/of mine.sif' profiles show mysite" in said
    assert "doctor" not in said
