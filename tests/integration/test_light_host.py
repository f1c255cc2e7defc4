"""A host with `comir-batch[driver]` alone, without torch and ITK, drives runs whose tasks are computed elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import runs
import SimpleITK
from light_host import ABSENT
from PIL import Image

from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Composite
from comir_batch.io.ngff_writer import NgffImage, write_ngff_metadata
from comir_batch.io.transform_files import write_json
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.job import STAGES

HERE = Path(__file__).parent
COLUMNS = "pair_id,fixed,moving,fixed_modality,moving_modality,fixed_mpp,moving_mpp,initial_transform\n"
SIDE = 600

# Expands the first phase of every job, and sends each task as an executor would.
EXPAND = """
import light_host, pickle, sys
from pathlib import Path
light_host.become_one()
from comir_batch.core.config_file import load_config
from comir_batch.core.task import Resource
from comir_batch.pipeline.graph import build_jobs
from comir_batch.pipeline.job import Inference
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.run import inspect_request

config = load_config(None, {"export": {"ome_tiff": True}})
pairs = inspect_request(Path(sys.argv[1]), config, skip_bad_rows=False).pairs
jobs = build_jobs(pairs, config, Layout(Path(sys.argv[2])), Inference("cuda", Resource.GPU))
for job in jobs.values():
    for task in job.work.phase(0, job.key):
        assert pickle.loads(pickle.dumps(task)) == task
    print(job.stage, job.resource)
"""

EXPANDED = {f"{stage} cpu" for stage in STAGES if stage != "represent"} | {"represent gpu"}

# A whole run whose tasks, and nothing else, run in a process that has everything.
DRIVE = """
import light_host, json, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
light_host.become_one()
from comir_batch.core.config_file import load_config
from comir_batch.core.events import EventBus
from comir_batch.core.task import Resource
from comir_batch.execution.call import run_task
from comir_batch.pipeline.run import RunRequest, run

class Elsewhere:
    dashboard = ""
    def __init__(self):
        self.pool = ProcessPoolExecutor(1, get_context("spawn"))
    def memory_mb(self, resource):
        return 0
    def run(self, source):
        while not source.finished:
            for task in filter(None, map(source.next_task, Resource)):
                source.handle(self.pool.submit(run_task, task, "elsewhere").result())
    def close(self):
        self.pool.shutdown()

manifest, out, settings = sys.argv[1:]
request = RunRequest(Path(manifest), Path(out), load_config(None, json.loads(settings)))
summary = run(request, EventBus(), lambda config: Elsewhere())
assert not light_host.ABSENT & set(sys.modules)
sys.exit(summary.exit_code)
"""


def light(*words: object, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run `comir-batch` on such a host."""
    return runs.call([str(python), str(HERE / "light_host.py"), *map(str, words)])


def program(text: str, *words: object, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run a program on such a host; processes that it starts have everything."""
    return subprocess.run([python, "-c", text, *map(str, words)], cwd=HERE, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Pairs of several formats: PNG, OME-TIFF, OME-Zarr; the first two fit a shipped model."""
    folder = tmp_path_factory.mktemp("formats")
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE), np.uint8)
    for name in ("a.png", "b.tif"):
        Image.fromarray(pixels).save(folder / name)
    grid = Grid(SIDE, SIDE, 0.9, 0.9)
    ZarrArray.create(folder / "c.ome.zarr" / "0", (1, SIDE, SIDE), "uint8", chunk=64, shard=128)
    write_ngff_metadata(folder / "c.ome.zarr", NgffImage("c", (grid,), ("dapi",), "uint8"))
    write_json(Composite(), folder / "t.json")
    rows = ["p,a.png,b.tif,dapi,tritc,0.9,0.9,t.json\n", "q,c.ome.zarr,a.png,dapi,tritc,,0.9,\n"]
    (folder / "m.csv").write_text(COLUMNS + "".join(rows))
    return folder / "m.csv"


def test_commands_that_compute_nothing_work(manifest, tmp_path):
    planned = light("plan", manifest, "--out", tmp_path / "run")
    assert planned.returncode == 0, planned.stderr
    assert [line.split()[0] for line in planned.stdout.splitlines() if "represent" in line] == ["represent"]
    for words in (["--help"], ["run", "--help"], ["bench", "recovery", "--help"], ["models", "list"]):
        told = light(*words)
        assert told.returncode == 0, told.stderr
    assert '"weights_sha256"' in light("models", "show", "dapi-tritc").stdout


def test_every_job_becomes_tasks_that_can_be_sent(manifest, tmp_path):
    done = program(EXPAND, manifest, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == EXPANDED


def test_a_start_that_only_itk_reads_is_one_problem_with_a_remedy(manifest):
    SimpleITK.WriteTransform(SimpleITK.AffineTransform(2), str(manifest.parent / "t.h5"))
    other = manifest.with_name("itk.csv")
    other.write_text(manifest.read_text().replace("t.json", "t.h5"))
    refused = light("plan", other)
    assert refused.returncode == 3
    _, line = refused.stderr.splitlines()
    assert line.startswith("row 2, column initial_transform")
    assert "t.h5: files of ITK transforms need SimpleITK, which is not installed" in line
    assert "Install SimpleITK, or give a transform.json" in line


def test_a_run_that_would_compute_here_is_refused(manifest, tmp_path):
    refused = light("run", manifest, "--out", tmp_path / "run")
    assert refused.returncode == 3
    (line,) = refused.stderr.splitlines()
    assert "it lacks torch, safetensors, itk, SimpleITK. Run pip install 'comir-batch[worker]'" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_whole_run_is_driven_whose_tasks_are_computed_elsewhere(slides, undisturbed, tmp_path):
    settings = runs.settings(export={"ome_tiff": True})
    done = program(DRIVE, slides / "manifest.csv", tmp_path / "run", json.dumps(settings))
    assert done.returncode == 0, done.stderr
    runs.assert_same_result(tmp_path / "run", undisturbed)
    assert runs.results(tmp_path / "run").keys() == {"p1"}
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_the_extra_has_all_that_driving_needs(manifest, tmp_path):
    root, python = HERE.parents[1], tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "-c", root / "constraints.txt", f"{root}[driver]"], check=True)
    listed = json.loads(subprocess.run([*pip, "list", "--format=json"], check=True, capture_output=True).stdout)
    assert not ABSENT & {package["name"] for package in listed}
    planned = light("plan", manifest, "--out", tmp_path / "run", python=python)
    assert planned.returncode == 0, planned.stderr
    done = program(EXPAND, manifest, tmp_path / "run", python=python)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == EXPANDED
