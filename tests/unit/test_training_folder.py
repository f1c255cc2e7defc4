"""Folders that trainings, studies and diagnoses fill: never anybody else's, and one process's at a time."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from comir_batch.cli.app import app
from comir_batch.core.errors import ConfigError, RunDirectoryError
from comir_batch.training.folder import held

HOLDER = """
import sys, pathlib
from comir_batch.training.folder import held
with held(pathlib.Path(sys.argv[1]), "training", print):
    print("held", flush=True)
    sys.stdin.read()
"""


def begin(folder, kind="training"):
    with held(folder, kind, print):
        pass


def test_a_new_an_empty_and_a_marked_folder_are_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "deep" / "new", tmp_path / "empty"):
        begin(folder)
        assert [path.name for path in folder.iterdir()] == [".comir-batch-training"]
        (folder / "data").mkdir()
        begin(folder)
        assert (folder / "data").is_dir()


def test_what_holds_anything_else_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigError, match="holds other files, not those of a training; choose another --out"):
        begin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    study = tmp_path / "study"
    begin(study, "study")
    with pytest.raises(ConfigError, match="holds other files, not those of a diagnosis"):
        begin(study, "diagnosis")


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "model"):
        with pytest.raises(ConfigError, match=r"a file is in its way\. Choose another --out"):
            begin(folder)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path):
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunDirectoryError, match=f"is in use by process {holder.pid} on"):
            begin(tmp_path)
        holder.stdin.close()
    begin(tmp_path)


@pytest.mark.parametrize(
    "words", [["train"], ["study", "symmetry"], ["study", "supervision"], ["diagnose", "haematoxylin-dab"]]
)
def test_no_command_touches_the_folder_of_the_images(tmp_path, words):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "image.tif").write_text("precious")
    (tmp_path / "report.html").write_text("a report")
    told = CliRunner().invoke(app, [*words, str(tmp_path / "data" / "pairs.csv"), "--out", str(tmp_path)])
    assert told.exit_code == 3
    (line,) = told.stderr.splitlines()
    assert line.startswith(f"comir-batch: {tmp_path} holds other files")
    assert (tmp_path / "data" / "image.tif").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "report.html"]
