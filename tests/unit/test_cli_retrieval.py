"""What `query` and `pair` refuse before anything is computed."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from comir_batch.cli import retrieval_commands

HERE = ("--model", "dapi-tritc", "--executor", "serial", "--device", "cpu")


def invoke(*arguments):
    app = typer.Typer()
    app.callback()(lambda: None)
    retrieval_commands.add_to(app)
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("q.csv", "--mpp", "0.5"), "a CSV has columns for them"),
        (("q.csv", "--channel", "DAPI"), "a CSV has columns for them"),
        (("q.tif", "--modality", "dapi", "--mpp", "0"), "above 0"),
        (("q.tif", "--modality", "dapi", "--mpp", "nan"), "above 0"),
        (("q.tif",), "give --modality"),
    ],
)
def test_options_that_would_not_be_heeded_are_refused(arguments, said):
    told = invoke("query", "index", *arguments)
    assert told.exit_code == 2
    assert said in " ".join(told.stderr.replace("│", " ").split())


def test_a_folder_instead_of_a_file_is_told_before_anything_is_computed(tmp_path):
    (tmp_path / "file").write_text("")
    for arguments in (
        ("query", "none", "q.tif", "--modality", "dapi", "--csv", tmp_path),
        ("query", "none", "q.tif", "--modality", "dapi", "--html", tmp_path),
        ("pair", "none.csv", "none.csv", *HERE, "--out", tmp_path),
    ):
        told = invoke(*arguments)
        assert (told.exit_code, told.stderr) == (3, f"comir-batch: {tmp_path} is a folder; give the name of a file\n")
    told = invoke("query", "none", "q.tif", "--modality", "dapi", "--csv", tmp_path / "file" / "new" / "q.csv")
    assert told.exit_code == 3
    assert "is no folder" in told.stderr
