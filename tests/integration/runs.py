"""What tests of whole runs share: a small real pair with a known truth, quick settings, ways to compare runs."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from skimage.data import immunohistochemistry

from comir_batch.bench.known_motion import Motion, move, write_pyramid
from comir_batch.core.config_file import load_config
from comir_batch.core.events import EventBus
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.transform import from_dict
from comir_batch.execution.serial import SerialExecutor
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.run import RunRequest, RunSummary, run
from comir_batch.training.ihc import MPP, haematoxylin_dab_channels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from comir_batch.core.transform import Composite

PROGRAM = Path(sys.executable).with_name("comir-batch")
HEADER = "pair_id,fixed,moving,fixed_modality,moving_modality"
# Wider than the coarsest level of a pyramid, and odd; the tissue fills its middle.
GRID = Grid(541, 523, MPP, MPP)
TISSUE = Region(90, 70, 90 + 384, 70 + 384)
MOTION = Motion(angle_deg=20.0, shift_um=(6.0, -4.0), amplitude_um=3.0, spacing_um=64.0)
QUICK = {
    "model": "none",
    # Level 0 itself, in several blocks.
    "chunk": {"mpp": MPP, "shard": 256, "chunk": 64},
    "register": {"iterations": 50, "samples": 1024, "angles": 36},
    "warp": {"shard": 128, "chunk": 64},
    "execution": {"workers": 2},
}


def make_slides(folder: Path) -> Composite:
    """Write fixed.ome.tif and moving.ome.tif, one stain and its negative under a known motion; return the motion."""
    stain = np.zeros(GRID.shape, dtype=np.uint8)
    stain[TISSUE.slices] = haematoxylin_dab_channels(immunohistochemistry())[0][: TISSUE.height, : TISSUE.width]
    moved, moving_grid, truth = move(stain[None], GRID, MOTION)
    # A mapping that mutual information sees through and correlation does not; glass stays dark.
    negative = np.where(moved > 0, 40 + 200 * np.sqrt(1 - moved / 255), 0)
    write_pyramid(stain[None], GRID, folder / "fixed.ome.tif", ["haematoxylin"])
    write_pyramid(negative.astype(np.uint8), moving_grid, folder / "moving.ome.tif", ["negative"])
    return truth


def tissue_points() -> np.ndarray:
    """Return points inside the tissue of the fixed slide, in µm."""
    xs, ys = range(TISSUE.x0 + 24, TISSUE.x1 - 24, 12), range(TISSUE.y0 + 24, TISSUE.y1 - 24, 12)
    return GRID.to_um([[x, y] for x in xs for y in ys])


def write_manifest(path: Path, *rows: str) -> Path:
    """Write a manifest of these rows; by default of the one pair `p1`."""
    path.write_text("\n".join([HEADER, *(rows or ["p1,fixed.ome.tif,moving.ome.tif,stain,negative"])]) + "\n")
    return path


def settings(**sections: object) -> dict[str, object]:
    """Return the quick settings with some of them replaced, section by section."""
    merged = dict(QUICK)
    for name, values in sections.items():
        merged[name] = {**merged.get(name, {}), **values} if isinstance(values, dict) else values
    return merged


def run_here(manifest: Path, out: Path, *, target: str = "report", keep_work: bool = True, **sections) -> RunSummary:
    """Run in this process, whose elastix child serves all tests."""
    request = RunRequest(manifest, out, load_config(None, settings(**sections)), target, keep_work=keep_work)
    return run(request, EventBus(), lambda _config: SerialExecutor())


def command(manifest: Path, out: Path, *options: str, **sections) -> list[str]:
    """Return the command line of a run with the quick settings."""
    flat = [
        f"{section}.{key}={value}" if isinstance(values, dict) else f"{section}={values}"
        for section, values in settings(**sections).items()
        for key, value in (values.items() if isinstance(values, dict) else [("", "")])
    ]
    given = [word for setting in flat for word in ("--set", setting)]
    return [str(PROGRAM), "run", str(manifest), "--out", str(out), *given, *options]


def call(words: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(list(words), capture_output=True, text=True, check=False, timeout=500)


class Started:
    """A command under way in a session of its own, its output in a file."""

    def __init__(self, words: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("w") as stream:
            self.process = subprocess.Popen(words, stdout=stream, stderr=stream, env=env, start_new_session=True)

    def wait_until(self, true: Callable[[], bool], seconds: float = 300) -> None:
        """Look again and again; fail when the command ends before it is true."""
        end = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, f"it ended too early:\n{self.log.read_text()}"
            assert time.monotonic() < end, f"it never came:\n{self.log.read_text()}"
            time.sleep(0.005)

    def family(self) -> list[psutil.Process]:
        """Return the processes that it has started, and theirs."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> None:
        """Kill it with all that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def lines(path: Path) -> list[dict]:
    """Return the whole lines of a JSON lines file that may be growing."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def happened(out: Path, kind: str, stage: str, count: int = 1) -> Callable[[], bool]:
    """Return a function that tells whether so many events of a kind have been published since now."""
    path = out / "events.jsonl"
    before = len(lines(path))
    return lambda: sum(e["kind"] == kind and e["stage"] == stage for e in lines(path)[before:]) >= count


def tasks(out: Path, since: int = 0) -> list[str]:
    """Return the keys of the finished tasks in the records, from a line on."""
    return [line["task"] for line in lines(out / "records.jsonl")[since:] if line["kind"] == "task"]


def stages(keys: Iterable[str]) -> set[str]:
    """Return the stages of tasks."""
    return {key.split("-")[0] for key in keys}


def results(out: Path) -> dict[str, dict[str, str]]:
    """Return the rows of results.csv by pair."""
    with (out / "results.csv").open(newline="", encoding="utf-8") as stream:
        return {row["pair_id"]: row for row in csv.DictReader(stream)}


def aligned(out: Path, pair: str = "p1") -> list[np.ndarray]:
    """Return the decoded pixels of every level of an aligned image."""
    image = out / "pairs" / pair / "aligned.ome.zarr"
    count = len(json.loads((image / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]["datasets"])
    arrays = [ZarrArray.open(image / str(level)) for level in range(count)]
    return [array.read(Region(0, 0, array.shape[2], array.shape[1])) for array in arrays]


def transform(out: Path, pair: str = "p1") -> Composite:
    """Return the transform that a run found."""
    return from_dict(json.loads((out / "pairs" / pair / "transform.json").read_text()))


def assert_same_result(out: Path, other: Path, pair: str = "p1") -> None:
    """Compare what counts as the result: the transform and the decoded pixels."""
    names = [folder / "pairs" / pair / "transform.json" for folder in (out, other)]
    assert names[0].read_bytes() == names[1].read_bytes()
    pairs = zip(aligned(out, pair), aligned(other, pair), strict=True)
    assert all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def skip_without_small_disks(folder: Path) -> None:
    """Skip a test where no small file system can be mounted."""
    if shutil.which("unshare") is None or in_namespace(f"mount -t tmpfs -o size=1m tmpfs {folder}").returncode:
        pytest.skip("a small file system cannot be mounted here (unshare, user namespaces)")


def in_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as root of a namespace of its own, where it may mount file systems; they end with the namespace."""
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=900)


def leftovers(out: Path) -> list[Path]:
    """Return what only a writer that was killed leaves."""
    return [path for pattern in ("*.partial*", ".writing-*", ".removed-*") for path in out.rglob(pattern)]


def snapshot(out: Path) -> dict[str, int]:
    """Return the modification time of every file of a run but the log of its events and the lock."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name not in {"events.jsonl", ".lock"})
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in files}
