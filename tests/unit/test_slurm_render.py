"""Rendered scripts: what a shell makes of them, and what is refused before one is written."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
from typer.testing import CliRunner

from comir_batch.bench.known_motion import write_pyramid
from comir_batch.cli.app import app
from comir_batch.core.config_file import load_config
from comir_batch.core.errors import ConfigError
from comir_batch.core.geometry import Grid
from comir_batch.core.profile import Profile
from comir_batch.execution.files import ClusterFiles
from comir_batch.execution.slurm.render import Rendering, render
from comir_batch.execution.slurm.script import Site
from comir_batch.pipeline.profiles import to_toml

JOBS = {"partition": "p", "walltime": "01:00:00", "jobs": 3, "memory_gb": 6}
# Stands for Python: notes the words that it was called with; as a worker it ends with a code of its own.
PYTHON = """\
#!/bin/sh
printf '%s\\n' "$@" >"$NOTES/$2.$$"
case $2 in
*.worker)
    [ -z "$FINISHED" ] || touch "$FINISHED"
    exit "${CODE:-0}" ;;
*.scheduler) exec sleep 60 ;;
*)  # the run: the driver script starts its scheduler beside it, which may be slow to begin
    until ls "$NOTES"/*.scheduler.* >/dev/null 2>&1; do sleep 0.05; done ;;
esac
exit "${CODE:-0}"
"""


@pytest.fixture
def folder(tmp_path):
    """A folder whose name needs quoting."""
    made = tmp_path / "it's a 100%i run & $HOME"
    made.mkdir()
    return made.resolve()


@pytest.fixture
def python(tmp_path):
    path = tmp_path / "bin of mine" / "python3"
    path.parent.mkdir()
    path.write_text(PYTHON)
    path.chmod(0o755)
    return path


def site(folder, **settings):
    values = {"cpu": JOBS, "gpu": {**JOBS, "jobs": 1, "gres": "gpu:a100:1", "device": "cuda"}, **settings}
    return Site(Profile.model_validate(values), ClusterFiles(folder, folder / "cluster", folder / "logs"), ())


def scripts(folder, *run, **settings):
    return render(Rendering(site(folder, **settings), "cb-name", run, "127.0.0.1:0"))


def directives(script):
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


def call(script, folder, notes, *arguments, **variables):
    """Run a script in a shell without SLURM."""
    notes.mkdir(exist_ok=True)
    (folder / "cluster").mkdir(exist_ok=True)
    environment = {"PATH": "/usr/bin:/bin", "NOTES": str(notes), "SLURM_JOB_ID": "7", **variables}
    words = ["sh", "-c", script, "sh", *arguments]
    return subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("settings", [{}, {"gpu": None}, {"image": "/images/it's.sif", "scratch": "$TMPDIR"}])
def test_every_script_is_one_that_a_shell_can_read(folder, settings):
    for text in scripts(folder, "m.csv", **settings).values():
        done = subprocess.run(["/bin/sh", "-n"], input=text, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "@{" not in text


def test_a_site_without_gpus_has_no_script_for_them(folder):
    assert "gpu-worker.sbatch" in scripts(folder)
    without = scripts(folder, gpu=None)
    assert set(without) == {"driver.sbatch", "cpu-worker.sbatch", "submit.sh", "cancel.sh"}
    assert "for kind in cpu; do" in without["submit.sh"]


def test_the_jobs_are_as_the_profile_says(folder):
    settings = {"account": "mine", "cpu": {**JOBS, "qos": "long", "directives": ["--exclude=n1"]}}
    made = scripts(folder, **settings)
    log = str(folder / "logs").replace("%", "%%")
    workers = directives(made["cpu-worker.sbatch"])
    wanted = ["--job-name=cb-name", "--partition=p", "--account=mine", "--qos=long", "--mem=6144M", "--time=01:00:00"]
    wanted += [f'--chdir="{folder}"', f'--output="{log}/cpu-%A_%a.log"', "--array=1-3", "--requeue", "--exclude=n1"]
    assert set(wanted) < set(workers)
    assert "--gres=gpu:a100:1" in directives(made["gpu-worker.sbatch"])
    driver = directives(made["driver.sbatch"])
    assert {"--requeue", "--open-mode=append", "--signal=B:USR1@300", "--cpus-per-task=1", "--mem=4096M"} < set(driver)
    assert not any(option.startswith(("--gres", "--array")) for option in driver)


def test_the_driver_has_jobs_of_its_own_and_what_it_lacks_is_the_cpu_workers(folder):
    cpu = {**JOBS, "qos": "short", "directives": ["--exclusive=user"]}
    own = {"partition": "long", "walltime": "3-00:00:00", "memory_gb": 2, "directives": ["--nice=1"]}
    driver = directives(scripts(folder, cpu=cpu, driver=own)["driver.sbatch"])
    wanted = {"--partition=long", "--qos=short", "--time=3-00:00:00", "--mem=2048M", "--nice=1"}
    assert wanted < set(driver)
    assert "--exclusive=user" not in driver
    default = directives(scripts(folder, cpu=cpu)["driver.sbatch"])
    assert {"--partition=p", "--time=01:00:00", "--mem=4096M"} < set(default)
    assert "--exclusive=user" not in default


def test_where_a_site_refuses_to_be_asked_for_memory_workers_keep_to_theirs(folder):
    for name, text in scripts(folder, ask_memory=False).items():
        assert "--mem=" not in text
        assert ("--memory-limit 6144MiB" in text) == ("worker" in name)


def test_in_an_image_the_gpu_worker_sees_the_gpu_and_nobody_the_environment_of_the_host(folder):
    made = scripts(folder, image="/images/cb.sif")
    start = "apptainer exec --cleanenv"
    assert f"{start} --nv --bind" in made["gpu-worker.sbatch"]
    assert f"{start} --bind" in made["cpu-worker.sbatch"]
    assert "/images/cb.sif python3 -m comir_batch.execution.worker" in made["cpu-worker.sbatch"]
    assert 'export APPTAINERENV_SLURM_JOB_ID="$SLURM_JOB_ID"' in made["driver.sbatch"]


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb"])
def test_a_folder_that_no_directive_can_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="rename it"):
        scripts(tmp_path / name)


def test_the_driver_gets_its_words_unchanged_and_says_when_the_run_is_finished(folder, python, tmp_path):
    words = ("my m.csv", "--out", str(folder), "--set", 'a="$b"; `c`')
    script = scripts(folder, *words, python=str(python), driver_host="127.0.0.1")["driver.sbatch"]
    notes = tmp_path / "notes"
    done = call(script, folder, notes, CODE="4")
    assert done.returncode == 4, done.stderr
    (run,) = notes.glob("comir_batch.[0-9]*")
    assert run.read_text().splitlines() == ["-m", "comir_batch", "run", *words]
    (scheduler,) = notes.glob("*.scheduler.*")
    assert scheduler.read_text().splitlines()[2:4] == ["--host", "127.0.0.1"]
    assert (folder / "cluster" / "finished-7").exists()


@pytest.mark.parametrize("image", ["", "/images/a.sif"])
def test_the_driver_knows_the_variables_that_it_must_know(folder, image):
    known = (("COMIR_BATCH_MODELS", "/models of mine/it's"),)
    made = render(Rendering(site(folder, image=image), "cb-name", (), "", known))["driver.sbatch"]
    lines = [line for line in made.splitlines() if "COMIR_BATCH_MODELS" in line]
    show = lines[-1].split()[-1].split("=")[0] if image else "COMIR_BATCH_MODELS"
    shown = call("\n".join([*lines, f'printf %s "${show}"']), folder, folder / "notes")
    assert shown.stdout == "/models of mine/it's"
    assert show.startswith("APPTAINERENV_") == bool(image)


def test_a_worker_works_while_the_run_is_not_finished(folder, python, tmp_path):
    script = scripts(folder, python=str(python), gpu=None)["cpu-worker.sbatch"]
    scheduler = folder / "cluster" / "scheduler.json"
    scheduler.parent.mkdir()
    scheduler.write_text("{}")
    notes, finished = tmp_path / "notes", folder / "cluster" / "finished-12"
    done = call(script, folder, notes, "12", FINISHED=str(finished), SLURM_RESTART_COUNT="2")
    assert done.returncode == 0, done.stderr
    (worker,) = notes.glob("*.worker.*")
    options = worker.read_text().splitlines()
    assert options[options.index("--name") + 1] == "cpu-7-2-1"
    assert options[options.index("--scheduler-file") + 1] == str(scheduler)
    assert options[options.index("--memory-limit") + 1] == "6144MiB"
    assert 2690 <= int(options[options.index("--lifetime") + 1]) <= 2700


def test_a_worker_whose_walltime_is_near_puts_itself_back_not_the_whole_array(folder, python, tmp_path):
    asked = tmp_path / "asked"
    bin_ = tmp_path / "slurm"
    bin_.mkdir()
    (bin_ / "scontrol").write_text(f'#!/bin/sh\necho "$@" >{asked}; exit 1\n')
    (bin_ / "scontrol").chmod(0o755)
    (bin_ / "date").write_text("#!/bin/sh\n[ -e first ] && echo 9000 || { echo 0; touch first; }\n")  # time is over
    (bin_ / "date").chmod(0o755)
    script = scripts(folder, python=str(python))["cpu-worker.sbatch"]
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "PATH": f"{bin_}:/usr/bin:/bin"}
    done = call(script, folder, tmp_path / "notes", "12", **array)
    assert done.returncode == 0, done.stderr
    assert asked.read_text() == "requeue 7_3\n"


def test_a_worker_of_a_finished_run_ends_at_once(folder, python, tmp_path):
    script = scripts(folder, python=str(python))["gpu-worker.sbatch"]
    (folder / "cluster").mkdir()
    (folder / "cluster" / "finished-12").touch()
    done = call(script, folder, tmp_path / "notes", "12")
    assert (done.returncode, done.stderr) == (0, "")
    assert not list((tmp_path / "notes").iterdir())


@pytest.fixture
def inputs(tmp_path):
    """A manifest of one pair, and a profile."""
    folder = tmp_path / "in puts"
    folder.mkdir()
    for name in ("a", "b"):
        write_pyramid(np.zeros((1, 256, 256), np.uint8), Grid(256, 256, 0.5, 0.5), folder / f"{name}.ome.tif", ["x"])
    header = "pair_id,fixed,moving,fixed_modality,moving_modality"
    (folder / "m.csv").write_text(f"{header}\np,a.ome.tif,b.ome.tif,x,y\n")
    (folder / "bad.csv").write_text(f"{header}\np,a.ome.tif,none.ome.tif,x,y\n")
    (folder / "site.toml").write_text(to_toml(Profile.model_validate({"cpu": JOBS, "gpu": None})) + "\n")
    return folder


def invoke(folder, *options, manifest="m.csv", out="jobs"):
    words = ["render", folder / manifest, "--profile", folder / "site.toml", "--out", folder / out, *options]
    return CliRunner().invoke(app, [str(word) for word in words])


def test_settings_and_profile_stand_beside_the_scripts(inputs):
    done = invoke(inputs, "--set", "register.grid_um=32", "--ome-tiff", "--model", "none", "--keep-work")
    assert done.exit_code == 0, done.stderr
    jobs = inputs / "jobs"
    assert f"sh '{jobs}/submit.sh'" in done.stdout
    config = load_config(jobs / "config.toml", {})
    assert (config.register_.grid_um, config.export.ome_tiff, config.model) == (32, True, "none")
    assert config.execution.executor == "attach"
    assert config.execution.profile == str(jobs / "profile.toml")
    assert f"--config '{jobs}/config.toml' --keep-work" in (jobs / "driver.sbatch").read_text()
    assert json.loads((jobs / "run" / "cluster" / "rendered.json").read_text()) == {"folder": str(jobs)}


def test_the_driver_in_an_image_sees_the_models_that_the_user_has_added(inputs, monkeypatch):
    own = inputs / "models"
    profile = Profile.model_validate({"cpu": JOBS, "gpu": None, "image": "/images/a.sif"})
    (inputs / "site.toml").write_text(to_toml(profile) + "\n")
    monkeypatch.setenv("COMIR_BATCH_MODELS", str(own))
    for there in (False, True):
        done = invoke(inputs, "--model", "none", out=f"jobs{there}")
        assert done.exit_code == 0, done.stderr
        script = (inputs / f"jobs{there}" / "driver.sbatch").read_text()
        assert (f"export COMIR_BATCH_MODELS='{own}'" in script) == there
        own.mkdir(exist_ok=True)
    assert f"--bind '{inputs}'" in script


def test_to_render_a_run_again_is_to_change_it_and_another_ones_scripts_stay(inputs):
    assert invoke(inputs).exit_code == 0
    assert invoke(inputs, "--set", "register.grid_um=32").exit_code == 0
    before = (inputs / "jobs" / "driver.sbatch").read_text()
    (inputs / "other.csv").write_text((inputs / "m.csv").read_text())
    for refused in (invoke(inputs, manifest="other.csv"), invoke(inputs, "--run", inputs / "elsewhere")):
        assert refused.exit_code == 3
        assert "has the scripts that run" in refused.stderr
    assert (inputs / "jobs" / "driver.sbatch").read_text() == before


def test_a_bad_manifest_or_a_worker_too_small_is_told_before_anything_is_written(inputs):
    bad = invoke(inputs, manifest="bad.csv")
    assert bad.exit_code == 3
    assert "none.ome.tif" in bad.stderr
    small = Profile.model_validate({"cpu": {**JOBS, "memory_gb": 0.5}, "gpu": None})
    (inputs / "site.toml").write_text(to_toml(small) + "\n")
    refused = invoke(inputs)
    assert refused.exit_code == 3
    assert "Set memory_gb of [cpu] to" in refused.stderr
    assert not (inputs / "jobs").exists()


def test_in_an_image_the_profile_must_name_it(inputs, monkeypatch):
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/cb.sif")
    refused = invoke(inputs)
    assert refused.exit_code == 3
    assert "set image = '/images/cb.sif'" in refused.stderr
