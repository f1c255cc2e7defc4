"""Settings of a training."""

from __future__ import annotations

import pytest

from comir_batch.core.errors import ConfigError
from comir_batch.representation.network import DenseUNet
from comir_batch.training.config import PRESETS, load_train_config


def test_presets_are_the_papers_experiments_and_ours():
    paper, zurich = (load_train_config(name, None, {}) for name in ("paper", "zurich"))
    assert (paper.batch, paper.steps, paper.optimiser, paper.temperature, paper.decay_l1) == (32, 736, "sgd", 0.5, 1e-4)
    assert (zurich.batch, zurich.steps, zurich.latent_channels, zurich.temperature) == (24, 160, 3, 0.1)
    sizes = [sum(p.numel() for p in DenseUNet(c.network(n)).parameters()) for c, n in ((paper, 3), (zurich, 3))]
    assert sizes == [1_053_820, 165_064]
    assert set(PRESETS) == {"compact", "paper", "zurich"}


def test_the_command_line_lies_over_the_file_and_the_file_over_the_preset(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('temperature = 0.3\nsteps = 7\n[fixed]\nreduction = "max"\n[supervision]\napproach = "summed"\n')
    config = load_train_config("paper", file, {"steps": 9})
    assert (config.temperature, config.steps, config.batch) == (0.3, 9, 32)
    assert (config.fixed.reduction, config.supervision.approach, config.supervision.critic) == ("max", "summed", "mse")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 3}, "stepz"),
        ({"critic": "cosine"}, "latent_channels 2 or 3"),
        ({"latent_channels": 4}, "latent_channels"),
        ({"crop": 100}, "multiple of 8"),
        ({"contrast": 256}, "larger than the crop"),
        ({"coarse": 5}, "coarse 5 must divide"),
        ({"region": [0, 0, 1.2, 1]}, "region"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"supervision": {"approach": "sometimes"}}, "supervision.approach"),
        ({"fixed": {"reduction": "sum"}}, "fixed.reduction"),
        ({"seed": 2**31}, "seed"),
        ({"fixed": {"low": 60, "high": 50}}, "fixed: Value error, the percentile low, 60, must be below high, 50"),
        ({"name": "my model/x"}, "name: Value error, the name 'my model/x' cannot be that of a folder"),
    ],
)
def test_a_wrong_setting_is_named(values, message):
    with pytest.raises(ConfigError, match="wrong settings") as caught:
        load_train_config("compact", None, values)
    assert message in str(caught.value)


def test_files_that_cannot_be_read_and_unknown_presets_are_named(tmp_path):
    (tmp_path / "c.toml").write_text("steps = ")
    for preset, path, message in (
        ("compact", tmp_path / "none.toml", "cannot read"),
        ("compact", tmp_path / "c.toml", "not valid TOML"),
        ("large", None, "compact, paper, zurich"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_train_config(preset, path, {})


def test_tables_are_merged_key_by_key(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("[fixed]\nlow = 2.0\n")
    config = load_train_config("compact", file, {"fixed": {"log": True}})
    assert (config.fixed.low, config.fixed.log) == (2.0, True)
