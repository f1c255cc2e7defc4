"""A run that refines by blocks of the working level: nearer than without, the same in pieces, and told."""

import json

import numpy as np
import pytest
import runs

from comir_batch.core.config_file import load_config
from comir_batch.core.errors import StoppedError
from comir_batch.core.events import EventBus, Kind
from comir_batch.core.transform import BSpline
from comir_batch.execution.serial import SerialExecutor
from comir_batch.io.transform_files import read_transform
from comir_batch.pipeline import driver, refinement
from comir_batch.pipeline.files import read_arrays
from comir_batch.pipeline.layout import JudgeFiles, RegisterFiles
from comir_batch.pipeline.run import RunRequest, run
from comir_batch.registration.refine import State

pytestmark = pytest.mark.slow
# A coarse registration, stiff and with few iterations, leaves something to refine; blocks of 32 pixels see it.
LEFT_TO_DO = {"grid_um": 512, "max_memory_gb": 1.5}
BLOCKS = {"block_side": 32, "block_reach": 16, **LEFT_TO_DO}
HEADER = f"{runs.HEADER},registration"


def manifest(folder, registration):
    path = folder / f"{registration}.csv"
    path.write_text(f"{HEADER}\np1,fixed.ome.tif,moving.ome.tif,stain,negative,{registration}\n")
    return path


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocks")
    return folder, runs.make_slides(folder)


@pytest.fixture(scope="module")
def refined(slides):
    folder, _ = slides
    runs.run_here(manifest(folder, "blocks"), folder / "run", register=BLOCKS)
    return folder / "run"


def test_blocks_come_nearer_to_the_truth_than_the_fit_that_they_refine(slides, refined):
    _, truth = slides
    (job,) = (refined / "work").glob("register-*")
    points = runs.tissue_points()
    before, found = read_transform(RegisterFiles(job).unrefined), runs.transform(refined)
    unrefined, error = (np.linalg.norm(each.map(points) - truth.map(points), axis=1) for each in (before, found))
    assert np.median(error) < 0.2 * np.median(unrefined)
    assert np.quantile(error, 0.9) < 0.2 * np.quantile(unrefined, 0.9)
    assert isinstance(found.parts[0], BSpline)
    assert len(found.parts) == len(before.parts) + 1
    assert found.jacobian_determinant(points, 0.5).min() > 0


def test_what_became_of_the_blocks_is_counted_told_and_drawn(refined):
    row = runs.results(refined)["p1"]
    tried, used = int(row["blocks_tried"]), int(row["blocks_used"])
    assert 60 < used <= tried <= 144
    (job,) = (refined / "work").glob("register-*")
    drawn = read_arrays(RegisterFiles(job).block_map)
    assert (drawn["states"] == State.USED).sum() == used
    assert (drawn["states"] != State.EMPTY).sum() == tried
    reasons = json.loads((refined / "pairs" / "p1" / "verdict.json").read_text())["reasons"]
    assert any(f"refined by {used} of {tried} blocks" in reason for reason in reasons)
    page = (refined / "pairs" / "p1" / "report.html").read_text()
    assert "Refinement by blocks" in page
    assert "Blocks, what became of them" in page


def test_held_out_tiles_are_not_refined_by(refined):
    """Where a block is mostly held out, it is not looked for."""
    (job,) = (refined / "work").glob("register-*")
    held_out = read_arrays(RegisterFiles(job).held_out)["held_out"]
    states = read_arrays(RegisterFiles(job).block_map)["states"]
    factor = round(runs.GRID.width / held_out.shape[1])
    assert factor == 1
    rows, columns = states.shape
    share = held_out[: rows * 32, : columns * 32].reshape(rows, 32, columns, 32).mean(axis=(1, 3))
    assert held_out.any()
    assert (states[share > 0.5] == State.EMPTY).all()


def stop_after_a_region(event):
    if (event.kind, event.stage) == (Kind.TASK_DONE, "register") and not event.data["task"].endswith("-pair"):
        raise StoppedError("stopped")


def test_regions_together_are_the_same_as_one_and_stopped_between_them_nothing_is_registered_again(
    slides, refined, tmp_path, monkeypatch
):
    folder, _ = slides
    monkeypatch.setattr(refinement, "_BLOCKS_A_SIDE", 4)
    waited_for = []
    monkeypatch.setattr(driver, "wait_until_seen", lambda path: waited_for.append((path, path.exists())))
    config = load_config(None, runs.settings(register=BLOCKS))
    request = RunRequest(manifest(folder, "blocks"), tmp_path / "run", config, "register")
    with pytest.raises(StoppedError):
        run(request, EventBus(stop_after_a_region), lambda _config: SerialExecutor())
    run(request, EventBus(), lambda _config: SerialExecutor())
    first, *regions, last = (task for task in runs.tasks(tmp_path / "run") if task.startswith("register-"))
    assert len(regions) == len(set(regions))
    assert first.endswith("-pair")
    assert last.endswith("-fit")
    assert len(regions) > 9
    assert len(waited_for) > len(regions)
    assert next((tmp_path / "run" / "work").glob("register-*")) / "transform.json" in dict(waited_for)
    assert all(seen for _, seen in waited_for)  # of what a task has not written the driver would wait in vain
    jobs = [next((out / "work").glob("register-*")) for out in (refined, tmp_path / "run")]
    whole, pieces = (read_arrays(RegisterFiles(job).block_map)["shifts_um"] for job in jobs)
    both = np.isfinite(whole) & np.isfinite(pieces)
    assert both.sum() >= 0.95 * np.isfinite(whole).sum()
    np.testing.assert_allclose(pieces[both], whole[both], atol=0.05)  # pixels are interpolated to a fiftieth


def test_a_region_whose_blocks_are_gone_does_not_pass_for_glass(slides, refined, tmp_path):
    """Nothing is fitted without them, and the next run finds them again."""
    folder, _ = slides
    out, gone = tmp_path / "run", []

    def lose_a_region(event):
        if (event.kind, event.stage) == (Kind.TASK_DONE, "register") and not gone:
            gone.extend(out.glob("work/register-*/blocks/region-*.npz"))
            for path in gone:
                path.unlink()

    request = RunRequest(manifest(folder, "blocks"), out, load_config(None, runs.settings(register=BLOCKS)), "register")
    (failed,) = run(request, EventBus(lose_a_region), lambda _config: SerialExecutor()).results
    assert failed.verdict == "error"
    assert f"{gone[0]}, which holds what blocks found in a region with tissue, is missing" in failed.reasons[0]
    (found,) = run(request, EventBus(), lambda _config: SerialExecutor()).results
    assert found.verdict is None
    transforms = [next(each.glob("work/register-*/transform.json")).read_bytes() for each in (refined, out)]
    assert transforms[0] == transforms[1]


def test_blocks_that_find_nothing_leave_the_fit_and_a_person_is_asked(slides, tmp_path):
    """Blocks larger than what tissue there is."""
    folder, _ = slides
    lost = {**LEFT_TO_DO, "block_side": 256, "block_reach": 16}
    runs.run_here(manifest(folder, "blocks"), tmp_path / "run", target="judge", register=lost)
    judge, register = (next((tmp_path / "run" / "work").glob(f"{stage}-*")) for stage in ("judge", "register"))
    verdict = json.loads(JudgeFiles(judge).verdict.read_text())
    assert verdict["verdict"] == "review"
    assert any("the transform was not refined" in reason for reason in verdict["reasons"])
    files = RegisterFiles(register)
    assert files.transform.read_text() == files.unrefined.read_text()
