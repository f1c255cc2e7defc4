"""Which jobs a run consists of, and what changes the name of which."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from comir_batch.core.config_file import load_config
from comir_batch.core.errors import ConfigError
from comir_batch.core.manifest import read_manifest
from comir_batch.core.task import Resource
from comir_batch.pipeline.by_hand import ByHand, write_by_hand
from comir_batch.pipeline.graph import build_jobs, done_jobs, needed
from comir_batch.pipeline.inspect import inspect_manifest
from comir_batch.pipeline.job import Inference
from comir_batch.pipeline.layout import Layout, RegisterFiles, in_run
from comir_batch.pipeline.records import FILES, History

HEADER = "pair_id,fixed,moving,fixed_modality,moving_modality,fixed_mpp,moving_mpp,registration,fixed_mask"
ROW = "p,a.png,b.png,dapi,tritc,0.9,0.9,,"
CPU, CUDA = Inference("cpu", Resource.CPU), Inference("cuda", Resource.GPU)


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), generator.integers(0, 255, (300, 320), np.uint8))
    cv2.imwrite(str(tmp_path / "mask.png"), np.ones((30, 32), np.uint8))
    return tmp_path


def build(folder, *rows, model="none", inference=CPU, **settings):
    (folder / "m.csv").write_text("\n".join([HEADER, *(rows or [ROW])]) + "\n")
    inspection = inspect_manifest(read_manifest(folder / "m.csv"), model)
    assert not inspection.problems
    return build_jobs(inspection.pairs, load_config(None, settings), Layout(folder / "run"), inference)


def changed(before, after):
    """Return the stages with a job that was not there before."""
    return {job.stage for key, job in after.items() if key not in before}


DOWN = {"register", "judge", "warp", "export", "report"}


@pytest.mark.parametrize(
    ("settings", "stages"),
    [
        ({"warp": {"interpolation": "cubic"}}, {"warp", "export", "report"}),
        ({"export": {"ome_tiff": True}}, {"export", "report"}),
        ({"judge": {"accept_z": 9}}, {"judge", "export", "report"}),
        ({"register": {"seed": 2}}, DOWN),
        ({"chunk": {"mpp": 4.4}}, {"chunk", *DOWN}),
        ({"chunk": {"shard": 512}}, {"chunk", *DOWN}),
        ({"represent": {"dtype": "float32"}}, set()),
        ({"execution": {"workers": 7, "executor": "serial", "retries": 0}, "pairs_in_flight": 9}, set()),
    ],
)
def test_a_setting_changes_the_stages_that_it_touches_and_those_after_them(folder, settings, stages):
    assert changed(build(folder), build(folder, **settings)) == stages


@pytest.mark.parametrize(
    ("row", "stages"),
    [
        ("p,a.png,b.png,dapi,tritc,0.9,0.9,affine,", DOWN),
        ("p,a.png,b.png,dapi,tritc,0.9,0.9,,mask.png", {"chunk", *DOWN}),
        ("p,a.png,b.png,dapi,tritc,0.9,0.8,,", {"chunk", *DOWN}),
        ("p,a.png,c.png,dapi,tritc,0.9,0.9,,", {"chunk", *DOWN}),
        ("q,a.png,b.png,dapi,tritc,0.9,0.9,,", {"warp", "export", "report"}),
    ],
)
def test_a_row_changes_the_stages_that_read_it(folder, row, stages):
    assert changed(build(folder), build(folder, row)) == stages


def test_whether_glass_is_bright_counts_where_the_manifest_says_it(folder):
    def built(photometric):
        (folder / "m.csv").write_text(f"{HEADER},moving_photometric\n{ROW},{photometric}\n")
        inspection = inspect_manifest(read_manifest(folder / "m.csv"), "none")
        return build_jobs(inspection.pairs, load_config(None), Layout(folder / "run"), CPU)

    assert list(built("")) == list(build(folder))
    assert changed(build(folder), built("brightfield")) == {"chunk", *DOWN}
    (warp,) = [job.work for job in built("brightfield").values() if job.stage == "warp"]
    assert warp.fill == 255


def test_the_content_of_a_file_counts_and_its_name_does_not(folder):
    before = build(folder)
    (folder / "a.png").rename(folder / "renamed.png")
    assert changed(before, build(folder, ROW.replace("a.png", "renamed.png"))) == set()
    (folder / "renamed.png").rename(folder / "b.png")
    (folder / "c.png").rename(folder / "a.png")
    assert changed(before, build(folder)) == {"chunk", *DOWN}


def test_a_model_adds_its_stage_and_the_device_counts_there(folder):
    cpu, cuda = (build(folder, model="dapi-tritc", inference=where) for where in (CPU, CUDA))
    assert sum(job.stage == "represent" for job in cpu.values()) == 2
    assert changed(cpu, cuda) == {"represent", *DOWN}
    resources = {job.stage: job.resource for job in cuda.values()}
    assert (resources["represent"], resources["register"]) == ("gpu", "cpu")


def test_networks_may_compute_on_the_cpus_of_gpu_workers_and_the_results_are_the_same(folder):
    here, there = (build(folder, model="dapi-tritc", inference=Inference("cpu", kind)) for kind in Resource)
    assert list(here) == list(there)
    assert {job.resource for job in here.values()} == {Resource.CPU}
    assert {job.stage for job in there.values() if job.resource is Resource.GPU} == {"represent"}


def test_pairs_share_the_jobs_of_a_slide(folder):
    jobs = build(folder, ROW, ROW.replace("p,", "q,", 1).replace("b.png", "c.png"))
    chunks = sorted(job.pairs for job in jobs.values() if job.stage == "chunk")
    assert chunks == [("p",), ("p", "q"), ("q",)]
    assert sum(job.stage == "register" for job in jobs.values()) == 2


def test_inputs_come_before_what_needs_them(folder):
    jobs = build(folder)
    order = list(jobs)
    for key, job in jobs.items():
        assert all(order.index(other) < order.index(key) for other in (*job.inputs, *job.settles))


def test_only_what_a_target_needs_and_lacks_is_wanted(folder):
    jobs = build(folder)

    def stages(target, *done):
        return {jobs[key].stage for key in needed(jobs, target, frozenset(k for k in jobs if jobs[k].stage in done))}

    assert stages("register") == {"chunk", "register"}
    assert stages("register", "chunk") == {"chunk", "register"}
    assert stages("judge", "register") == {"chunk", "register", "judge"}
    assert stages("warp", "register", "judge") == {"register", "judge", "warp"}
    assert stages("export", "export") == {"export"}
    assert stages("represent") == set()


@pytest.mark.parametrize(
    ("mask", "settings", "outlined"),
    [("", {}, True), ("mask.png", {}, False), ("", {"register": {"outlines": False}}, False)],
)
def test_outlines_count_where_tissue_was_found_and_not_drawn(folder, mask, settings, outlined):
    jobs = build(folder, ROW + mask, **settings)
    (work,) = [job.work for job in jobs.values() if job.stage == "register"]
    assert work.outlined == outlined


def test_what_was_stopped_at_its_time_limit_is_done_until_the_limit_is_longer(folder):
    def done(limit, stopped):
        jobs = build(folder, register={"time_limit_s": limit})
        (job,) = [job for job in jobs.values() if job.stage == "register"]
        lines = [
            {"kind": "start", "job": job.key, "fresh": True, "outputs": ["work/" + job.key + "/transform.json"]},
            {"kind": "task", "job": job.key, "task": "pair", "value": {"view": "raw", **stopped}},
            {"kind": "done", "job": job.key},
        ]
        for path in job.outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return job.key in done_jobs({job.key: replace(job, inputs=())}, History(lines), folder / "run")

    assert done(60.0, {})
    assert done(3600.0, {})
    assert done(60.0, {"stopped_at_s": 60.0})
    assert done(30.0, {"stopped_at_s": 60.0})
    assert not done(61.0, {"stopped_at_s": 60.0})


def test_settings_of_a_pair_that_stop_the_run_are_told_with_the_way_out(folder):
    given = {"p": ByHand(settings={"register": {"second_metric": "landmarks"}})}
    write_by_hand(Layout(folder / "run"), given)
    with pytest.raises(ConfigError, match=r"the pair p cannot be run .*register\.second_metric.* --pair p --forget"):
        build(folder)


def test_without_images_nothing_is_warped(folder):
    jobs = build(folder, export={"images": False})
    assert {job.stage for job in jobs.values()} == {"chunk", "register", "judge", "export", "report"}
    (export,) = [job for job in jobs.values() if job.stage == "export"]
    assert len(export.inputs) == 2


def test_every_job_tells_what_it_will_take(folder):
    estimates = {job.stage: job.work.estimate() for job in build(folder, export={"ome_tiff": True}).values()}
    assert all(estimate.cpu_s > 0 and estimate.read_mb > 0 for estimate in estimates.values())
    assert {stage for stage, estimate in estimates.items() if not estimate.disk_mb} == {"judge"}
    pixels_mb = 320 * 300 / 1e6
    assert estimates["warp"].disk_mb == estimates["warp"].read_mb == pytest.approx(pixels_mb)
    assert estimates["chunk"].read_mb == pytest.approx(2 * pixels_mb)  # for the blocks, and for the overview


def test_blocks_and_coarser_images_change_what_a_pair_will_take(folder):
    def told(row=ROW, **settings):
        return {job.stage: job.work.estimate() for job in build(folder, row, **settings).values()}

    usual, blocks, coarse = told(), told("p,a.png,b.png,dapi,tritc,0.9,0.9,blocks,"), told(warp={"mpp": 1.8})
    assert blocks["register"].tasks > usual["register"].tasks
    assert blocks["register"].cpu_s > usual["register"].cpu_s
    assert coarse["warp"].cpu_s < usual["warp"].cpu_s
    assert coarse["warp"].disk_mb < usual["warp"].disk_mb


def test_a_killed_refinement_by_blocks_counts_and_is_done_only_with_the_refined_transform(folder):
    """Killed among the regions; then after the fit."""
    (job,) = [job for job in build(folder, ROW.replace(",,", ",blocks,")).values() if job.stage == "register"]
    root, files = folder / "run", RegisterFiles(folder / "run" / "work" / job.key)
    files.block_folder.mkdir(parents=True)
    files.unrefined.write_text("{}")
    cost = {"seconds": 1.0, "peak_mb": 1}
    names = [path.relative_to(root).as_posix() for path in job.outputs]
    history = History([{"kind": "start", "job": job.key, "fresh": True, "outputs": names}])
    history.add({"kind": "task", "job": job.key, "task": "pair", "value": {"view": "raw"}, **cost})
    assert history.is_resumable(job, root)
    fitted = {FILES: [in_run(files.transform, files.folder)]}
    history.add({"kind": "task", "job": job.key, "task": "fit", "value": fitted, **cost})
    history.add({"kind": "done", "job": job.key})
    assert not history.is_done(job, root)
    files.transform.write_text("{}")
    assert history.is_done(job, root)
