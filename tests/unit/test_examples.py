"""The examples that users copy are right."""

from __future__ import annotations

from pathlib import Path

from comir_batch.core.config_file import load_config
from comir_batch.core.manifest import read_manifest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_example_settings_are_valid():
    assert load_config(EXAMPLES / "config.toml").export.ome_tiff


def test_the_example_manifest_is_a_good_table():
    manifest = read_manifest(EXAMPLES / "manifest.csv")
    assert manifest.problems == ()
    assert [row.pair_id for row in manifest.rows] == ["skin-01", "skin-02", "colon-01"]
