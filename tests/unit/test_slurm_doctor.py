"""Doctor: what it finds of this installation, and of sites that are not as their profiles say; SLURM itself apart."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import sys

import pytest
from typer.testing import CliRunner

import comir_batch
from comir_batch.cli.app import app
from comir_batch.core.errors import ConfigError
from comir_batch.core.profile import Profile
from comir_batch.execution.address import own_address
from comir_batch.execution.files import ClusterFiles
from comir_batch.execution.slurm import probe
from comir_batch.execution.slurm.doctor import check_container
from comir_batch.execution.slurm.script import Site
from comir_batch.pipeline.doctor import check_installation, check_site


def container(folder, **settings):
    """Return what is found of the workers' Python of a profile."""
    return list(check_container(Site(Profile.model_validate(settings), ClusterFiles(folder, folder, folder), ())))


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine without SLURM and Apptainer."""
    there = tmp_path / "bin"
    there.mkdir()
    for name in ("sh", "bash"):
        (there / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(there))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_this_installation_is_told_and_nothing_of_it_failed():
    checks = list(check_installation())
    assert {"comir-batch", "packages", "temporary files", "models", "CUDA"} == {check.name for check in checks}
    assert all(check.state in {"ok", "warning"} for check in checks)
    (models,) = [check for check in checks if check.name == "models"]
    assert "haematoxylin-dab" in models.found
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0


def test_what_only_drives_is_told_so(monkeypatch):
    monkeypatch.setattr("comir_batch.pipeline.packages._COMPUTING", ("no_such_package",))
    (packages,) = [check for check in check_installation() if check.name == "packages" and check.state == "warning"]
    assert "can drive a run but not compute it" in packages.found


def test_without_slurm_it_says_what_to_do_and_exits_with_3(nowhere):
    profile = nowhere / "site.toml"
    profile.write_text(f'python = "{sys.executable}"\n')
    found = {check.name: check for check in check_site(str(profile), wait_s=0)}
    assert found["profile"].state == found["python"].state == "ok"
    assert found["SLURM"].state == "failed"
    assert "comir-batch render" in found["SLURM"].found
    result = CliRunner().invoke(app, ["doctor", "--profile", str(profile)])
    assert result.exit_code == 3
    assert "ssh -N -L" in result.stdout
    assert not list(nowhere.glob(".comir-batch-doctor-*"))


def test_without_slurm_no_job_is_waited_for(nowhere):
    profile = nowhere / "site.toml"
    profile.write_text(f'python = "{sys.executable}"\n')
    (failed,) = [check for check in check_site(str(profile), wait_s=60) if check.state == "failed"]
    assert failed.name == "SLURM"


@pytest.mark.parametrize("text", [None, "cpus = 3\n"])
def test_a_profile_that_is_missing_or_wrong_is_all_that_is_said(tmp_path, text):
    path = tmp_path / "site.toml"
    if text:
        path.write_text(text)
    (only,) = check_site(str(path), wait_s=0)
    assert (only.name, only.state) == ("profile", "failed")


def test_to_submit_needs_a_profile():
    assert CliRunner().invoke(app, ["doctor", "--submit"]).exit_code == 2


def test_the_workers_python_is_started_as_a_job_would_start_it(tmp_path):
    (found,) = container(tmp_path, python=sys.executable, prologue=["echo from a prologue"])
    assert found.state == "ok"
    assert found.found.endswith(f"comir-batch {comir_batch.__version__}")


def test_another_version_is_refused(tmp_path):
    (found,) = container(tmp_path, python=str(program(tmp_path / "python of old", "echo 0.0.1")))
    assert found.state == "failed"
    assert f"it has comir-batch 0.0.1, and this is {comir_batch.__version__}" in found.found


def test_a_python_that_does_not_start_gives_its_own_last_words(tmp_path):
    python = program(tmp_path / "python", "echo no module named comir_batch >&2; exit 1")
    (found,) = container(tmp_path, python=str(python))
    assert (found.state, "no module named comir_batch" in found.found) == ("failed", True)


def test_an_image_that_is_not_there_fails_and_one_that_cannot_be_started_here_is_for_the_nodes(nowhere):
    (found,) = container(nowhere, image=str(nowhere / "none.sif"))
    assert (found.name, found.state) == ("image", "failed")
    (nowhere / "some.sif").touch()
    (found,) = container(nowhere, image=str(nowhere / "some.sif"))
    assert (found.name, found.state) == ("image", "warning")
    assert "--submit" in found.found


def test_a_bind_that_is_no_folder_here_is_told_and_left_out(tmp_path):
    (tmp_path / "some.sif").touch()
    engine = program(tmp_path / "apptainer", f'echo "$@" >{tmp_path}/called; echo {comir_batch.__version__}')
    settings = {"apptainer": str(engine), "image": str(tmp_path / "some.sif"), "binds": ["/no/such", str(tmp_path)]}
    bind, image = container(tmp_path, **settings)
    assert (bind.state, "/no/such" in bind.found) == ("warning", True)
    assert image.state == "ok"
    called = (tmp_path / "called").read_text()
    assert "/no/such" not in called
    assert f"--bind {tmp_path}" in called


def test_a_job_tells_its_node_its_versions_its_scratch_and_whether_it_reaches_the_driver(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "_gpus", list)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert probe.main([str(tmp_path / "found.json"), "--connect", "127.0.0.1", str(port)]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["node"] == os.environ.get("SLURMD_NODENAME", platform.node())
    assert found["comir-batch"] == comir_batch.__version__
    assert (found["driver"], found["scratch"]["free_gb"] > 0) == ("", True)
    probe.main([str(tmp_path / "again.json"), "--connect", "127.0.0.1", str(port)])
    assert "refused" in json.loads((tmp_path / "again.json").read_text())["driver"]


def test_a_host_whose_name_means_itself_alone_must_be_told_where_workers_reach_it(monkeypatch, nowhere):
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    with pytest.raises(ConfigError, match=r"localhost means .*set driver_interface or driver_host"):
        own_address()
    for name in ("sbatch", "squeue", "scancel", "scontrol"):
        program(nowhere / "bin" / name, "exit 1")
    program(nowhere / "bin" / "sbatch", "echo slurm 1.0")
    for text, failures in (("", 1), ('driver_host = "127.0.0.1"\n', 0)):
        (nowhere / "site.toml").write_text(f'python = "{sys.executable}"\n{text}')
        found = [check for check in check_site("./site.toml", wait_s=0) if check.name == "driver"]
        assert [check.state for check in found] == ["failed"] * failures
