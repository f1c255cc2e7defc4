"""One table of several benchmarks: what other settings measured is marked, and what the page shows is what is there."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from comir_batch.bench.registration_joined import joined_table
from comir_batch.bench.rows import Rows
from comir_batch.cli.bench_commands import app
from comir_batch.core.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs"
LEVELS = ["level-1", "level-2", "level-3", "level-4"]


def measured(out, errors, condition="level-1", **revisions):
    """Keep fields with errors of each method, by a revision of our methods."""
    description = {"model": {"name": out.name}, "side": 256}
    ours = {"revisions": {"raw": 1, "both": 1, **revisions}, "register": {}}
    rows = Rows(out, SimpleNamespace(description=description, ours=ours))
    rows.add(
        {"condition": condition, "number": number, "unbent_px": 0.0, "methods": {n: [e, 1.0] for n, e in of.items()}}
        for number, of in enumerate(errors)
    )


def test_folders_stand_below_each_other_with_what_an_earlier_revision_measured_marked(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    measured(first, [{"raw": 0.5, "both": 0.25}, {"raw": 90.0, "both": 0.75}])
    measured(first, [{"both": 2.0}], both=2)
    measured(second, [{"elastix": None}], "level-2")
    columns, rows = joined_table([first, second])
    assert columns == (
        "fields",
        "elastix MI on raw images, 3 starts",
        "comir-batch without a model",
        "comir-batch with the model",
    )
    assert rows == [
        ("first, level-1, 256 px, n = 2", "-", "50 (1-99); 0.50", "100 (3-100, n = 1); 2.00"),
        ("second, level-2, 256 px, n = 1", "0 (0-98); -", "-", "-"),
    ]
    measured(first, [], both=3)
    assert joined_table([first])[1][0][2] == "100 (3-100, n = 1); 2.00†"


def test_what_is_not_there_is_refused(tmp_path):
    measured(tmp_path / "out", [{"raw": 0.5}])
    with pytest.raises(ConfigError, match="out holds nothing of level-3"):
        joined_table([tmp_path / "out"], ["level-3"])
    with pytest.raises(ConfigError, match="holds no measured fields"):
        joined_table([tmp_path])


@pytest.mark.parametrize("only", [LEVELS, ["small", "half-overlap", "bent-10"]])
def test_the_page_of_measurements_shows_what_the_command_prints(only):
    folders = [str(DOCS / "measurements" / name) for name in ("rgb-nir", "phase-fluorescence", "dapi-tritc")]
    found = CliRunner().invoke(app, ["registration-table", *folders, *(f"--only={name}" for name in only)])
    assert found.exit_code == 0
    assert found.stdout in (DOCS / "benchmarks.md").read_text(encoding="utf-8")
