"""A site profile: what it may say, and how it is told what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comir_batch.core.errors import ConfigError
from comir_batch.core.profile import GpuJobs, Jobs, Profile, load_profile, walltime_s
from comir_batch.core.task import Resource


@pytest.fixture
def load(tmp_path):
    """Return a function that loads a profile from its text."""

    def read(text):
        path = tmp_path / "my site.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_profile(path)

    return read


def test_an_empty_file_is_a_site_without_gpus(load):
    profile = load("")
    assert profile == Profile()
    assert profile.kinds() == {Resource.CPU: Jobs()}
    assert (profile.device, profile.network_resource) == ("cpu", Resource.CPU)


def test_a_gpu_section_makes_gpu_workers_that_insist_on_a_gpu(load):
    profile = load('[gpu]\npartition = "gpu"\n')
    assert profile.gpu == GpuJobs(partition="gpu")
    assert profile.kinds()[Resource.GPU].gres == "gpu:1"
    assert (profile.device, profile.network_resource) == ("cuda", Resource.GPU)
    assert load('[gpu]\ndevice = "cpu"\n').device == "cpu"


def test_the_limit_of_memory_is_never_below_what_a_job_asks_for():
    assert Jobs(memory_gb=3).memory_mb == 3072
    assert Jobs(memory_gb=3).limit_mb == 3072
    assert Jobs(memory_gb=3, max_memory_gb=6.5).limit_mb == 6656


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("image_file = 1", "image_file"),
        ("[cpu]\npartitions = 'a'", "cpu.partitions"),
        ("[cpu]\ndevice = 'cuda'", "cpu.device"),
        ("[gpu]\ndevice = 'rocm'", "gpu.device"),
        ("[gpu]\nslots = 0", "gpu.slots"),
        ("[cpu]\nwalltime = '4 hours'", "'4 hours' is not a walltime"),
        ("[cpu]\nmemory_gb = 8\nmax_memory_gb = 4", "max_memory_gb 4 must not be below memory_gb 8"),
        ("[cpu]\nmemory_gb = nan", "cpu.memory_gb"),
        ("driver_port = 70000", "driver_port"),
        ("driver_host = 'a'\ndriver_interface = 'b'", "not both"),
        ("account = 'a; rm -r ~'", "account"),
        ('account = "a\\nb"', "account"),
        ("modules = ['gcc', '$(id)']", "modules.1"),
        ("[cpu]\ndirectives = ['--exclude=`id`']", "cpu.directives.0"),
        ('prologue = ["one\\ntwo"]', "prologue.0"),
        ('image = "a\\nb"', "image"),
        ("[cpu", "not valid TOML"),
        (b"account = '\xff'", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_in_one_line(load, text, named):
    with pytest.raises(ConfigError) as refused:
        load(text)
    assert named in str(refused.value)
    assert "my site.toml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_problem_is_named_at_once(load):
    with pytest.raises(ConfigError, match=r"poll_s.*cpu\.cpus"):
        load("poll_s = 0\n[cpu]\ncpus = 0\n")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        load_profile(tmp_path / "none.toml")


def test_what_a_shell_expands_is_left_to_the_job(load):
    assert load("scratch = '$TMPDIR/x'\nprologue = ['ulimit -n 4096 && true']").scratch == "$TMPDIR/x"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90 * 60),
        ("1:30", 90),
        ("04:00:00", 4 * 3600),
        ("1-12", 36 * 3600),
        ("1-12:30", 36 * 3600 + 30 * 60),
        ("2-00:00:05", 2 * 86400 + 5),
    ],
)
def test_walltimes_are_read_as_slurm_reads_them(text, seconds):
    assert walltime_s(text) == seconds


@given(st.integers(0, 30), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_a_written_walltime_is_read_back(days, hours, minutes, seconds):
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert walltime_s(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == whole


@pytest.mark.parametrize("text", ["", "four", "1h", "1:2:3:4", "-5", "1-", "1.5", " 5", "5\n"])
def test_what_is_no_walltime_is_refused(text):
    with pytest.raises(ValueError, match="is not a walltime"):
        walltime_s(text)
