"""Job scripts of workers, as text; tests/cluster submits them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from comir_batch.core.errors import ConfigError
from comir_batch.core.profile import Profile
from comir_batch.core.task import Resource
from comir_batch.execution.files import ClusterFiles
from comir_batch.execution.slurm.script import Order, Site, bind_options, job_script

GPU_SITE = {
    "account": "lab42",
    "image": "/sw/comir batch.sif",
    "modules": ["apptainer/1.4"],
    "prologue": ["export LAB=1"],
    "binds": ["/projects"],
    "scratch": "$LOCAL_SCRATCH",
    "interface": "ib0",
    "cpu": {"partition": "short", "walltime": "1-00:00:00"},
    "gpu": {"partition": "a100", "gres": "gpu:a100:1", "constraint": "nvlink", "cpus": 6, "directives": ["--nice=10"]},
}


def make(profile: dict, root: Path, kind=Resource.GPU, binds=()):
    site = Site(Profile.model_validate(profile), ClusterFiles(root, root / "cluster", root / "logs"), tuple(binds))
    return job_script(Order(f"{kind}-1-ab", "cb-1234", kind, 8192, "tls://10.0.0.1:4000"), site)


def worker_line(script: str) -> list[str]:
    return shlex.split(script.strip().splitlines()[-1])


def test_a_gpu_worker_asks_for_its_resources_and_runs_in_the_container(tmp_path):
    script = make(GPU_SITE, tmp_path, binds=[tmp_path / "slides"])
    lines = script.splitlines()
    for directive in ("-p a100", "-A lab42", "--gres=gpu:a100:1", "--constraint=nvlink", "--nice=10", "--no-requeue"):
        assert f"#SBATCH {directive}" in lines
    assert "#SBATCH --mem=8192M" in lines
    assert "#SBATCH --cpus-per-task=6" in lines
    assert lines.index("module load apptainer/1.4") < lines.index("export LAB=1")
    line = worker_line(script)
    assert line[:5] == ["exec", "apptainer", "exec", "--cleanenv", "--nv"]
    assert line[line.index("python3") - 1] == "/sw/comir batch.sif"
    assert {"/projects", str(tmp_path)} <= set(line)
    assert line[line.index("--kind") + 1] == "gpu"
    assert line[line.index("--device") + 1] == "cuda"
    assert line[line.index("--interface") + 1] == "ib0"
    assert line[len(line) - line[::-1].index("--memory-limit")] == "8192MiB"


def test_a_cpu_worker_neither_asks_for_a_gpu_nor_sees_one(tmp_path):
    script = make(GPU_SITE, tmp_path, Resource.CPU)
    assert "gres" not in script
    line = worker_line(script)
    assert "--nv" not in line
    assert line[line.index("--device") + 1] == "cpu"
    assert int(line[line.index("--lifetime") + 1]) == 86400 - 900


def test_where_a_site_refuses_to_be_asked_for_memory_the_worker_keeps_to_its_own(tmp_path):
    script = make({**GPU_SITE, "ask_memory": False}, tmp_path)
    assert "--mem=" not in script
    assert "--memory-limit 8192MiB" in script


def test_the_cores_of_a_job_are_for_networks_alone(tmp_path):
    def threads(profile, kind):
        line = worker_line(make(profile, tmp_path, kind))
        return line[line.index("--threads") + 1]

    assert (threads(GPU_SITE, Resource.GPU), threads(GPU_SITE, Resource.CPU)) == ("6", "1")
    assert threads({"cpu": {"cpus": 5}}, Resource.CPU) == "5"


def test_a_script_is_one_that_sh_reads(tmp_path):
    odd = tmp_path / "it's a run, 100% \u00fc"
    odd.mkdir()
    script = make(GPU_SITE | {"image": ""}, odd)
    subprocess.run(["/bin/sh", "-n"], input=script, text=True, check=True)
    assert f'--output="{odd}/logs/gpu-1-ab.log"'.replace("%", "%%") in script
    assert str(odd / "cluster" / "tls") in worker_line(script)


@pytest.mark.parametrize("name", ['a"b', "a\\b"])
def test_a_directory_that_a_directive_cannot_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="a job script cannot name"):
        make(GPU_SITE | {"image": ""}, tmp_path / name)


def test_a_folder_that_apptainer_cannot_bind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="colon or comma"):
        make(GPU_SITE, tmp_path, binds=[Path("/slides/a,b:c")])


def test_folders_are_bound_once_and_symbolic_links_with_their_targets(tmp_path):
    real, link = tmp_path / "real", tmp_path / "x" / "link"
    (real / "inside").mkdir(parents=True)
    link.parent.mkdir()
    link.symlink_to(real)
    files = ClusterFiles(tmp_path / "run", tmp_path / "run" / "cluster", tmp_path / "run" / "logs")
    site = Site(Profile(image="i.sif"), files, (link, real / "inside", link / "inside"))
    bound = bind_options(site)[1::2]
    assert sorted(bound) == sorted(map(str, (tmp_path / "run", link, real)))


def test_making_scripts_leaves_signals_and_the_home_folder_alone(tmp_path):
    code = (
        "import signal, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "import test_slurm_script as t\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        "t.make(t.GPU_SITE, Path(sys.argv[2]))\n"
        "assert signal.getsignal(signal.SIGINT) is before\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    subprocess.run(command, check=True, env=environment)
    assert list(home.iterdir()) == []
