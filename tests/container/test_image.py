"""The image as a user has it: what it says of itself, what it takes from the host, and that it registers slides."""

from __future__ import annotations

import json
import os
import subprocess

import image
import pytest

import comir_batch
from comir_batch.bench import smoke
from comir_batch.bench.known_motion import errors
from comir_batch.bench.recovery import tissue_points
from comir_batch.io.transform_files import read_json as read_transform_json


@pytest.fixture
def call(apptainer, tmp_path):
    """Return a function that runs Apptainer in an empty folder and returns what it prints."""

    def run(*words, **environment):
        command = [str(word) for word in (apptainer, *words)]
        env = {**os.environ, **environment}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


def test_the_image_is_of_this_version(call, sif):
    assert call("run", sif, "--version").split()[-1] == comir_batch.__version__


def test_labels_tell_the_version(call, sif):
    labels = json.loads(call("inspect", "--json", "--labels", sif))["data"]["attributes"]["labels"]
    assert labels["version"] == labels["org.opencontainers.image.version"] == comir_batch.__version__
    assert labels["org.opencontainers.image.title"] == "comir-batch"
    assert labels["org.opencontainers.image.licenses"] == "MIT"


def test_help_names_the_first_commands(call, sif):
    text = call("run-help", sif)
    assert "run manifest.csv --out run/" in text
    assert "--nv" in text


@pytest.mark.parametrize("folder", ["current", "environment", "home"])
def test_packages_of_the_host_do_not_shadow_those_of_the_image(call, sif, tmp_path, folder):
    home = tmp_path / "home"
    decoys = {
        "current": tmp_path,
        "environment": tmp_path / "path",
        "home": home / ".local/lib/python3.11/site-packages",
    }
    package = decoys[folder] / "comir_batch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('a package of the host')")
    home.mkdir(exist_ok=True)
    where = "import comir_batch, torch, itk; print(comir_batch.__file__)"
    found = call("exec", "--home", home, sif, "python", "-c", where, PYTHONPATH=str(tmp_path / "path"))
    assert found.startswith("/opt/comir-batch/")


def test_every_package_of_the_image_is_pinned(call, sif):
    pinned = {normal(line.partition("==")[0]) for line in image.LOCK.read_text().splitlines()}
    listed = json.loads(call("exec", sif, "python", "-m", "pip", "list", "--format=json"))
    assert {normal(package["name"]) for package in listed} - pinned == {"pip", "comir-batch"}


def normal(name):
    return name.lower().replace("_", "-").replace(".", "-")


def test_the_image_passes_its_own_test(call, sif):
    assert "smoke test passed" in call("test", sif)


def test_a_manifest_runs_in_the_image(call, sif, tmp_path):
    truth = smoke.draw_pair(tmp_path)
    quick = ("register.angles=36", "register.iterations=50", "register.samples=1024")
    options = ["--executor", "local", "--workers", "1", *(word for item in quick for word in ("--set", item))]
    call("exec", sif, "comir-batch", "run", "manifest.csv", "--out", "run", *options)
    found = read_transform_json(tmp_path / "run" / "pairs" / "drawn" / "transform.json")
    points = tissue_points(tmp_path / "haematoxylin.ome.tif", (0.0, 0.0, 1.0, 1.0))
    assert errors(found, truth, points).median < smoke.WORST_MEDIAN_UM
    assert (tmp_path / "run" / "pairs" / "drawn" / "aligned.ome.zarr" / "zarr.json").is_file()
