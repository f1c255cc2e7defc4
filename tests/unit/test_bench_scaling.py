"""What very many pairs would take: the plan's figures, for slides of any size."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from comir_batch.bench.scaling import Cluster, PairCost, Slides, StageCost, laid_out, pair_cost
from comir_batch.cli import bench_commands
from comir_batch.core.config import RunConfig
from comir_batch.representation.store import find_model


def cost(**changes):
    return pair_cost(
        find_model("dapi-tritc"),
        Slides(**{"side": 20_000, "mpp": 0.228, "rgb": False, "tissue": 1.0} | changes),
        RunConfig(),
    )


def stages(found):
    return {stage.stage: stage for stage in found.stages}


def test_cost_grows_with_pixels_and_registration_is_bounded_by_its_memory():
    small, large = stages(cost()), stages(cost(side=100_000))
    for stage in ("chunk", "represent", "warp"):
        assert large[stage].cpu_s == pytest.approx(25 * small[stage].cpu_s, rel=0.25)
        assert large[stage].written_gb == pytest.approx(25 * small[stage].written_gb, rel=0.05)
    assert large["register"].cpu_s < 3 * small["register"].cpu_s
    assert max(stage.memory_mb for stage in large.values()) == max(stage.memory_mb for stage in small.values()) <= 4000


def test_background_spares_networks_and_not_warping():
    whole, part = cost(), cost(tissue=0.25)
    assert part.teramultiplications == pytest.approx(whole.teramultiplications / 4)
    assert stages(part)["represent"].cpu_s == pytest.approx(stages(whole)["represent"].cpu_s / 4)
    assert stages(part)["warp"] == stages(whole)["warp"]


def test_the_part_that_takes_longest_bounds_a_cluster():
    pair = PairCost(
        (StageCost("represent", 10, 1, 0.0, 0.0, 1e9), StageCost("warp", 90, 1, 2.0, 1.0, 320.0)),
        teramultiplications=40.0,
    )
    cluster = Cluster(cores=16, gpu_rate=5.0, gigabytes_s=0.5, stored=0.5, task_ms=10.0)
    one, ten = (laid_out(pair, 3600, gpus, cluster) for gpus in (1, 10))
    assert one.hours == pytest.approx({"networks": 8.0, "CPUs": 20.0, "storage": 3.0, "scheduler": 1.0})
    assert ten.hours == pytest.approx({"networks": 0.8, "CPUs": 2.0, "storage": 3.0, "scheduler": 1.0})
    assert (one.cells()[-1], ten.cells()[-1], ten.cores) == ("CPUs", "storage", 160)


def test_the_command_prints_a_pair_and_the_clusters():
    told = CliRunner().invoke(
        bench_commands.app, ["scaling", "dapi-tritc", "--gpu-rate", "5", "--gpus", "8", "--gpus", "64"]
    )
    assert told.exit_code == 0, told.output
    assert "10000 pairs:" in told.stdout
    assert [line.split()[0] for line in told.stdout.splitlines()[-2:]] == ["8", "64"]


def test_dispatch_is_timed_on_real_workers():
    told = CliRunner().invoke(bench_commands.app, ["dispatch", "--tasks", "20", "--workers", "1"])
    assert told.exit_code == 0, told.output
    driver_ms, wall_ms = (float(number) for number in re.findall(r"(\d+\.\d) ", told.stdout))
    assert 0 < driver_ms < wall_ms + 10
