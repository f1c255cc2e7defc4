"""A full disk stops the run with one message, spoils nothing, and the same command goes on when there is room."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest
import runs

pytestmark = pytest.mark.slow

# Runs as root of a namespace of its own, where a small file system may be mounted; it ends with the namespace.
SCRIPT = """
set -e
mount -t tmpfs -o size=100m tmpfs {disk}
cp -r {source} {disk}/run
rm -r {disk}/run/pairs {disk}/run/report.html
used=$(df -k --output=used {disk} | tail -n 1)
for room in {rooms}; do
    mount -o remount,size=$((used + room))k {disk}
    code=0
    {command} >{logs}/$room.out 2>{logs}/$room.err || code=$?
    echo $room $code
done
cp -r {disk}/run {logs}/run
"""


@pytest.mark.parametrize(("executor", "rooms"), [("serial", ["120", "700"]), ("local", ["120"])])
def test_a_full_disk_stops_the_run_and_the_same_command_resumes_it(slides, undisturbed, tmp_path, executor, rooms):
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("unshare") is None or _in_namespace(f"mount -t tmpfs -o size=1m tmpfs {disk}").returncode:
        pytest.skip("a small file system cannot be mounted here (unshare, user namespaces)")
    command = runs.command(slides / "manifest.csv", disk / "run", "--ome-tiff", "--keep-work", "--executor", executor)
    script = SCRIPT.format(
        disk=shlex.quote(str(disk)),
        source=shlex.quote(str(undisturbed)),
        logs=shlex.quote(str(tmp_path)),
        rooms=" ".join([*rooms, "50000"]),
        command=shlex.join(command),
    )
    done = _in_namespace(script)
    codes = dict(line.split() for line in done.stdout.splitlines())
    assert codes == dict.fromkeys(rooms, "75") | {"50000": "0"}, done.stderr
    for room in rooms:
        lines = (tmp_path / f"{room}.err").read_text().splitlines()
        (message,) = [line for line in lines if line.startswith("comir-batch:")]
        assert "no space" in message.lower()
        assert "resumes" in message
        assert "Traceback" not in "".join(lines)
    runs.assert_same_result(tmp_path / "run", undisturbed)
    assert runs.results(tmp_path / "run")["p1"]["verdict"] == "accept"
    assert not runs.leftovers(tmp_path / "run")


def _in_namespace(script: str) -> subprocess.CompletedProcess[str]:
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=900)
