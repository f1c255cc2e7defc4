"""A full disk stops the run with one message, spoils nothing, and the same command goes on when there is room."""

from __future__ import annotations

import shlex

import pytest
import runs

pytestmark = pytest.mark.slow

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
    runs.skip_without_small_disks(disk)
    command = runs.command(slides / "manifest.csv", disk / "run", "--ome-tiff", "--keep-work", "--executor", executor)
    script = SCRIPT.format(
        disk=shlex.quote(str(disk)),
        source=shlex.quote(str(undisturbed)),
        logs=shlex.quote(str(tmp_path)),
        rooms=" ".join([*rooms, "50000"]),
        command=shlex.join(command),
    )
    done = runs.in_namespace(script)
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
